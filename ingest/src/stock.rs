//! `POST /v1/stock/receipts` and `GET /v1/stock/{sku}`.

pub(crate) mod body;
pub(crate) mod changes;

use bytes::Buf;
use events::{ReceiptId, Record, Sku, StockReceived, topics};
use futures::Stream;
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::app::App;
use crate::database::Level;
use crate::orders;
use crate::problem::{Code, Problem};
use crate::publish::{Outgoing, Target};
use crate::request::Request;
use crate::{routes, validate};

#[derive(Serialize)]
struct Accepted<'a> {
    receipt_id: String,
    status: &'static str,
    warehouse: &'a str,
    skus: usize,
}

#[derive(Serialize)]
struct Stock<'a> {
    sku: &'a str,
    on_hand: i64,
    reserved: i64,
    allocated: i64,
    available: i64,
    set_aside: i64,
    missing: i64,
    warehouses: Vec<Level>,
}

/// Takes in pieces; answers when every SKU's record is acknowledged.
pub(crate) async fn receive<B, D>(app: &App, request: &mut Request<B>) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let receipt = validate::receipt(&body).map_err(Problem::faults)?;
    let receipt_id = ReceiptId::derive(&merchant, &key);
    let skus = receipt.pieces.len();
    let fingerprint = receipt.fingerprint();
    let click = (&app.receipts, receipt_id.0, &merchant, fingerprint);
    let answer = orders::settle(app, click, skus, |app, outcome| {
        let record = |(sku, quantity): (&Sku, &i32)| {
            let record: Record = StockReceived {
                receipt_id,
                merchant: (*merchant).clone(),
                warehouse: receipt.warehouse.clone(),
                sku: sku.clone(),
                quantity: *quantity,
                fingerprint: Some(fingerprint),
                reason: receipt.reason.clone(),
                requested_by: requested_by.clone(),
            }
            .into();
            let key = topics::stock_key(&merchant, sku).into_bytes();
            Outgoing::keyed(Target::Stock, key, app.codec.to_bytes(&record))
        };
        let records: Vec<Outgoing> = receipt.pieces.iter().map(record).collect();
        app.publisher.publish(&records, outcome);
    })
    .await?;
    let body = Accepted {
        receipt_id: receipt_id.0.to_string(),
        status: "received",
        warehouse: receipt.warehouse.as_str(),
        skus,
    };
    let mut response = routes::json(StatusCode::ACCEPTED, &body);
    orders::idempotency(app, &mut response, &answer);
    Ok(response)
}

/// Shows a SKU's stock by warehouse and in sum.
pub(crate) async fn show<B, D>(
    app: &App,
    request: &mut Request<B>,
    sku: &str,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let merchant = request.merchant(&app.keys)?;
    let missing = || Problem::plain(Code::StockNotFound);
    let sku = routes::decode(sku).and_then(|text| Sku::parse(&text).ok()).ok_or_else(missing)?;
    let warehouses = app.database.stock(&merchant, &sku).await.map_err(|error| {
        tracing::warn!(%error, "stock not read");
        Problem::plain(Code::DatabaseUnavailable)
    })?;
    if warehouses.is_empty() {
        return Err(missing());
    }
    let sum = |part: fn(&Level) -> i64| warehouses.iter().map(part).sum();
    let body = Stock {
        sku: sku.as_str(),
        on_hand: sum(|level| level.on_hand),
        reserved: sum(|level| level.reserved),
        allocated: sum(|level| level.allocated),
        available: sum(|level| level.available),
        set_aside: sum(|level| level.set_aside),
        missing: sum(|level| level.missing),
        warehouses,
    };
    Ok(routes::json(StatusCode::OK, &body))
}
