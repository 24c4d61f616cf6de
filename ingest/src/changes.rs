//! `POST /v1/orders/{id}/cancel`, `/confirm` and `/dispatch`: what a customer or the warehouse wants of an
//! order that is placed. The request is recorded; what becomes of it is the saga's to decide, and shows in
//! the order's status.

use bytes::Buf;
use compact_str::CompactString;
use events::{
    CancelRequested, Merchant, OrderConfirmed, OrderDispatched, OrderId, Record, RequestId,
};
use futures::Stream;
use serde::Serialize;
use serde_json::Value;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::app::App;
use crate::faults::{Faults, Pointer};
use crate::problem::{Code, Fault, Problem};
use crate::publish::{Outgoing, Target};
use crate::request::{self, Request};
use crate::{fingerprint, orders, routes};

const MAX_REASON: usize = 255;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The order shall end, and everything be undone.
    Cancel,
    /// The customer stands by the order.
    Confirm,
    /// The warehouse has handed the pieces over.
    Dispatch,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Confirm => "confirm",
            Self::Dispatch => "dispatch",
        }
    }

    /// Statuses in which it is too late, or too early. `cancelled` is none for a cancel: asking again is no
    /// mistake.
    fn is_out_of_time(self, status: &str) -> bool {
        let ended = [
            "rejected",
            "declined",
            "expired",
            "shipped",
            "delivered",
            "undeliverable",
            "returned",
        ];
        match self {
            Self::Cancel => ended.contains(&status),
            Self::Confirm => ended.contains(&status) || status == "cancelled",
            // The courier's scan may be known first.
            Self::Dispatch => !["routed", "shipped", "undeliverable"].contains(&status),
        }
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    order_id: &'a str,
    status: String,
    status_url: String,
}

pub(crate) async fn request<B, D>(
    app: &App,
    request: &mut Request<B>,
    order_id: &str,
    change: Change,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let order_id = request::order_id(order_id)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let reason = reason(&body, change).map_err(Problem::faults)?;
    let request_id = RequestId::derive(change.as_str(), &merchant, &key);
    if app.requests.find(request_id.0).is_none() {
        may(app, &merchant, order_id, change).await?;
    }
    let fingerprint = fingerprint::change(change.as_str(), order_id, &reason);
    let click = (&app.requests, request_id.0, &merchant, fingerprint);
    let answer = orders::settle(app, click, 1, |app, outcome| {
        let merchant = (*merchant).clone();
        let record: Record = match change {
            Change::Cancel => CancelRequested { order_id, merchant, request_id, reason }.into(),
            Change::Confirm => OrderConfirmed { order_id, merchant, request_id }.into(),
            Change::Dispatch => {
                OrderDispatched { order_id, merchant, request_id, requested_by }.into()
            }
        };
        let payload = app.codec.to_bytes(&record);
        let key = order_id.as_bytes().to_vec();
        app.publisher.publish(&[Outgoing::keyed(Target::Outcomes, key, payload)], outcome);
    })
    .await?;
    let body = Accepted {
        order_id: &order_id.to_string(),
        status: format!("{}_requested", change.as_str()),
        status_url: format!("/v1/orders/{order_id}"),
    };
    let mut response = routes::json(StatusCode::ACCEPTED, &body);
    orders::idempotency(app, &mut response, &answer);
    Ok(response)
}

/// Whether there is such an order, and it is not too late as far as can be known here.
async fn may(
    app: &App,
    merchant: &Merchant,
    order_id: OrderId,
    change: Change,
) -> Result<(), Problem> {
    let recent = app.recent.find(order_id.0).is_some_and(|click| *click.merchant == *merchant);
    match app.database.status(merchant, order_id).await {
        Ok(Some(status)) if change.is_out_of_time(&status) => {
            Err(Problem::new(Code::OrderEnded, format!("the order is {status}")))
        }
        Ok(None) if !recent => Err(Problem::plain(Code::OrderNotFound)),
        Err(error) if !recent => {
            tracing::warn!(%error, "order not read");
            Err(Problem::plain(Code::DatabaseUnavailable))
        }
        // The saga knows best.
        _ => Ok(()),
    }
}

/// Pure: the body's reason, or all its faults. Only a cancel has one.
fn reason(body: &Value, change: Change) -> Result<CompactString, Vec<Fault>> {
    let mut faults = Faults::default();
    let at = Pointer::root();
    let known: &[&str] = if change == Change::Cancel { &["reason"] } else { &[] };
    let Some(object) = faults.object(&at, body, known) else { return Err(faults.list) };
    let reason = match object.get("reason") {
        None | Some(Value::Null) => Some(CompactString::default()),
        Some(value) => faults.text(&at.child("reason"), Some(value), 0, MAX_REASON),
    };
    match reason {
        Some(reason) if faults.list.is_empty() => Ok(reason),
        _ => Err(faults.list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_objects_and_only_a_cancel_has_a_reason() {
        assert_eq!(reason(&json!({}), Change::Confirm).unwrap(), "");
        assert_eq!(reason(&json!({"reason": "too slow"}), Change::Cancel).unwrap(), "too slow");
        for (body, change, pointer) in [
            (json!({"reason": "x"}), Change::Confirm, "/reason"),
            (json!({"reason": 1}), Change::Cancel, "/reason"),
            (json!({"reason": "x".repeat(256)}), Change::Cancel, "/reason"),
            (json!({"why": "x"}), Change::Cancel, "/why"),
            (json!([]), Change::Cancel, ""),
        ] {
            assert_eq!(reason(&body, change).unwrap_err()[0].pointer, pointer, "{body}");
        }
    }

    #[test]
    fn a_repeated_cancel_is_no_mistake_a_late_one_and_an_early_dispatch_are() {
        assert!(!Change::Cancel.is_out_of_time("cancelled"));
        assert!(Change::Confirm.is_out_of_time("cancelled"));
        assert!(Change::Cancel.is_out_of_time("shipped"));
        assert!(!Change::Cancel.is_out_of_time("routed"));
        for status in ["routed", "shipped", "undeliverable"] {
            assert!(!Change::Dispatch.is_out_of_time(status), "{status}");
        }
        for status in ["received", "paid", "rejected", "cancelled", "delivered", "returned"] {
            assert!(Change::Dispatch.is_out_of_time(status), "{status}");
        }
    }
}
