//! `GET /v1/orders`: a merchant's orders, newest first.
//!
//! Costs one or two index scans, which end after 10,000 orders (`database/list.rs`).

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Buf;
use chrono::{DateTime, Utc};
use events::OrderStatus;
use futures::Stream;
use serde::Serialize;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as NoSuchName, StrDeserializer};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::app::App;
use crate::database::{Filter, Key, Listed};
use crate::faults::{Faults, Pointer};
use crate::problem::{Code, Fault, Problem};
use crate::request::Request;
use crate::{routes, validate};

const DEFAULT_LIMIT: u16 = 50;
const MOST: u16 = 200;
/// Version of a cursor's form.
const CURSOR: u8 = 1;

#[derive(Serialize)]
struct Orders {
    orders: Vec<Listed>,
    next_cursor: Option<String>,
}

/// The route under which lists are measured, apart from orders that are placed at the same path.
pub(crate) const ROUTE: &str = "/v1/orders list";

pub(crate) async fn list<B, D>(app: &App, request: &mut Request<B>) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let merchant = request.merchant(&app.keys)?;
    let filter = filter(&request.query).map_err(Problem::faults)?;
    let page = app.database.list(&merchant, &filter).await.map_err(|error| {
        tracing::warn!(%error, "orders not listed");
        Problem::plain(Code::DatabaseUnavailable)
    })?;
    let body = Orders { orders: page.orders, next_cursor: page.next.map(cursor) };
    Ok(routes::json(StatusCode::OK, &body))
}

/// What a query asks for, as far as it has been read.
#[derive(Default)]
struct Asked {
    statuses: Vec<&'static str>,
    customer_id: Option<String>,
    accepted_from: Option<DateTime<Utc>>,
    accepted_to: Option<DateTime<Utc>>,
    ordered_from: Option<DateTime<Utc>>,
    ordered_to: Option<DateTime<Utc>>,
    limit: Option<u16>,
    cursor: Option<Key>,
}

/// Pure: the query's filter, or all its faults. A parameter's pointer is that of the query as an object.
fn filter(query: &str) -> Result<Filter, Vec<Fault>> {
    let mut faults = Faults::default();
    let root = Pointer::root();
    let mut asked = Asked::default();
    let mut seen = HashSet::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let at = root.child(&name);
        if name != "status" && !seen.insert(name.clone()) {
            faults.add(&at, "is given twice");
            continue;
        }
        parameter(&mut asked, &mut faults, &at, &name, &value);
    }
    for (name, from, to) in [
        ("accepted_to", asked.accepted_from, asked.accepted_to),
        ("ordered_to", asked.ordered_from, asked.ordered_to),
    ] {
        if from.zip(to).is_some_and(|(from, to)| to < from) {
            faults.add(&root.child(name), "must not be earlier than where the range begins");
        }
    }
    if !faults.list.is_empty() {
        return Err(faults.list);
    }
    let (first, last) = (DateTime::UNIX_EPOCH, end_of_time());
    let upper = (asked.accepted_to.unwrap_or(last), Uuid::nil());
    Ok(Filter {
        upper: asked.cursor.map_or(upper, |cursor| cursor.min(upper)),
        lower: (asked.accepted_from.unwrap_or(first), Uuid::nil()),
        customer_id: asked.customer_id,
        statuses: asked.statuses,
        by_ordered: asked.ordered_from.or(asked.ordered_to).is_some(),
        ordered: (asked.ordered_from.unwrap_or(first), asked.ordered_to.unwrap_or(last)),
        limit: asked.limit.unwrap_or(DEFAULT_LIMIT),
    })
}

fn parameter(asked: &mut Asked, faults: &mut Faults, at: &Pointer<'_>, name: &str, value: &str) {
    match name {
        "status" => match status(value) {
            Some(status) => asked.statuses.push(status),
            None => faults.add(at, "is no status of an order, such as routed"),
        },
        "customer_id" => {
            let value = serde_json::Value::from(value);
            let customer = faults.text(at, Some(&value), 1, validate::MAX_TEXT);
            asked.customer_id = customer.map(Into::into);
        }
        "accepted_from" => asked.accepted_from = moment(faults, at, value),
        "accepted_to" => asked.accepted_to = moment(faults, at, value),
        "ordered_from" => asked.ordered_from = moment(faults, at, value),
        "ordered_to" => asked.ordered_to = moment(faults, at, value),
        "limit" => {
            asked.limit = digits(value).filter(|limit| (1..=MOST).contains(limit));
            if asked.limit.is_none() {
                faults.add(at, &format!("must be an integer from 1 to {MOST}"));
            }
        }
        "cursor" => {
            asked.cursor = position(value);
            if asked.cursor.is_none() {
                faults.add(at, "is no next_cursor of this list: begin without one");
            }
        }
        _ => faults.add(at, "is not a known parameter"),
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn moment(faults: &mut Faults, at: &Pointer<'_>, text: &str) -> Option<DateTime<Utc>> {
    // A plus that was not escaped has become a space.
    let parsed = validate::parse_moment(&text.replace(' ', "+"));
    if parsed.is_none() {
        faults.add(at, validate::MOMENT);
    }
    parsed.and_then(|at| DateTime::from_timestamp_millis(at.0))
}

/// The name of a status as records have it.
fn status(text: &str) -> Option<&'static str> {
    let name: StrDeserializer<'_, NoSuchName> = text.into_deserializer();
    let status = <OrderStatus as serde::Deserialize>::deserialize(name).ok()?;
    (status != OrderStatus::Unknown).then(|| status.as_str())
}

/// Later than any order is accepted.
fn end_of_time() -> DateTime<Utc> {
    DateTime::from_timestamp(32_503_680_000, 0).expect("the year 3000 is in the calendar")
}

/// An order's place in the list as text. It says nothing that its reader has not been shown.
fn cursor((accepted_at, order_id): Key) -> String {
    let mut bytes = vec![CURSOR];
    bytes.extend(accepted_at.timestamp_millis().to_be_bytes());
    bytes.extend(order_id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn position(cursor: &str) -> Option<Key> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (at, order_id) = rest.split_first_chunk::<8>()?;
    let at = DateTime::from_timestamp_millis(i64::from_be_bytes(*at))?;
    let legal = *version == CURSOR && (DateTime::UNIX_EPOCH..end_of_time()).contains(&at);
    legal.then_some((at, Uuid::from_slice(order_id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(query: &str) -> Vec<String> {
        filter(query).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn all_faults_are_told_at_once() {
        assert_eq!(
            pointers("limit=0&status=lost&colour=red&cursor=x&accepted_from=today&customer_id="),
            ["/limit", "/status", "/colour", "/cursor", "/accepted_from", "/customer_id"]
        );
        for (query, pointer) in [
            ("limit=201", "/limit"),
            ("limit=+5", "/limit"),
            ("limit=5&limit=5", "/limit"),
            ("status=unknown", "/status"),
            ("accepted_from=2026-11-22T00:00:01Z&accepted_to=2026-11-22T00:00:00Z", "/accepted_to"),
            ("ordered_from=2026-11-22T00:00:00Z&ordered_to=2026-11-21T00:00:00Z", "/ordered_to"),
            ("customer_id=%00", "/customer_id"),
        ] {
            assert_eq!(pointers(query), [pointer], "{query}");
        }
    }

    #[test]
    fn a_query_becomes_a_range_of_keys() {
        let all = filter("").unwrap();
        assert_eq!((all.limit, all.lower.0, all.by_ordered), (50, DateTime::UNIX_EPOCH, false));
        let some = filter(
            "status=routed&status=shipped&limit=200&customer_id=a%20b&ordered_to=2026-11-21T12:00:00+01:00",
        )
        .unwrap();
        assert_eq!((some.statuses, some.limit), (vec!["routed", "shipped"], 200));
        assert_eq!(some.customer_id.as_deref(), Some("a b"));
        assert_eq!(some.ordered.1.to_rfc3339(), "2026-11-21T11:00:00+00:00");
        assert!(some.by_ordered);
    }

    #[test]
    fn a_cursor_leads_on_from_where_it_was_given_and_never_out_of_the_range() {
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        let key = (at(1_795_305_600_123), Uuid::from_u128(7));
        assert_eq!(filter(&format!("cursor={}", cursor(key))).unwrap().upper, key);
        let to = "2026-11-21T00:00:00Z";
        let bounded = filter(&format!("cursor={}&accepted_to={to}", cursor(key))).unwrap();
        assert_eq!(bounded.upper, (to.parse().unwrap(), Uuid::nil()));
        let whole = cursor(key);
        for bad in ["", "AA", &whole[1..], &format!("{whole}A"), &cursor((at(-1), key.1))] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
