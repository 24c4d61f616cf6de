//! `GET /v1/orders/{id}`: from the tracking store, or "received" for what is only in the topic yet.

use bytes::Buf;
use chrono::{DateTime, SecondsFormat, Utc};
use events::{Merchant, Millis, OrderId};
use futures::Stream;
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::app::App;
use crate::problem::{Code, Problem};
use crate::request::{self, Request};
use crate::routes;

#[derive(Serialize)]
struct Received<'a> {
    order_id: &'a str,
    status: &'static str,
    accepted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

pub(crate) async fn show<B, D>(
    app: &App,
    request: &mut Request<B>,
    order_id: &str,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let merchant = request.merchant(&app.keys)?;
    let order_id = request::order_id(order_id)?;
    match app.database.order(&merchant, order_id).await {
        Ok(Some(order)) => Ok(routes::json(StatusCode::OK, &order)),
        Ok(None) => received(app, &merchant, order_id, None)
            .ok_or_else(|| Problem::plain(Code::OrderNotFound)),
        Err(error) => {
            tracing::warn!(%error, "order not read");
            let hint = "the store of order states does not answer; this may be out of date";
            received(app, &merchant, order_id, Some(hint))
                .ok_or_else(|| Problem::plain(Code::DatabaseUnavailable))
        }
    }
}

fn received(
    app: &App,
    merchant: &Merchant,
    order_id: OrderId,
    hint: Option<&'static str>,
) -> Option<Response> {
    let click = app.recent.find(order_id.0).filter(|click| *click.merchant == *merchant)?;
    let Millis(accepted_at) = click.accepted_at()?;
    let accepted_at = DateTime::<Utc>::from_timestamp_millis(accepted_at).unwrap_or_default();
    let body = Received {
        order_id: &order_id.to_string(),
        status: "received",
        accepted_at: accepted_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        hint,
    };
    Some(routes::json(StatusCode::OK, &body))
}
