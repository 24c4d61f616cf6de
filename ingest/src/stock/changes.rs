//! `POST /v1/stock/imports`, `/adjustments`, `/counts`, `/transfers`, `/low-marks`, `/flash-sales` and
//! `POST /v1/warehouses`: recorded; the stock processor decides, and tells the history.

use std::sync::Arc;

use bytes::Buf;
use chrono::Utc;
use compact_str::CompactString;
use events::{
    ChangeStock, Fingerprint, FlashSaleScheduled, Merchant, Millis, Record, RequestId,
    StockChangeKind, WarehouseListed, topics,
};
use futures::Stream;
use serde::Serialize;
use serde_json::Value;
use warp::http::StatusCode;
use warp::reply::Response;

use super::body;
use crate::app::App;
use crate::problem::{Fault, Problem};
use crate::publish::{Outgoing, Target};
use crate::request::Request;
use crate::{fingerprint, orders, routes};

#[derive(Serialize)]
struct Accepted {
    request_id: String,
    status: &'static str,
    records: usize,
}

/// A request that was checked, and what its records say of it.
struct Asked<T> {
    id: RequestId,
    fingerprint: Fingerprint,
    merchant: Arc<Merchant>,
    requested_by: CompactString,
    body: T,
}

/// What all of them have in common: the body is checked, knowing whether it is a repeat; its records are written
/// once per key. The kind is part of the request's id, so that one key may be used for one request of each kind.
async fn settle<B, D, T: Serialize>(
    app: &App,
    request: &mut Request<B>,
    kind: &str,
    check: impl FnOnce(&Value, bool) -> Result<T, Vec<Fault>>,
    records: impl FnOnce(&App, Asked<T>) -> Vec<Outgoing>,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let id = RequestId::derive(kind, &merchant, &key);
    let repeat = app.requests.find(id.0).is_some();
    let body = check(&body, repeat).map_err(Problem::faults)?;
    let fingerprint = fingerprint::body(&body);
    let asked = Asked { id, fingerprint, merchant: Arc::clone(&merchant), requested_by, body };
    let records = records(app, asked);
    let click = (&app.requests, id.0, &merchant, fingerprint);
    let publish = |app: &App, outcome: &Arc<_>| app.publisher.publish(&records, outcome);
    let answer = orders::settle(app, click, records.len(), publish).await?;
    let request_id = id.0.to_string();
    let body = Accepted { request_id, status: "recorded", records: records.len() };
    let mut response = routes::json(StatusCode::ACCEPTED, &body);
    orders::idempotency(app, &mut response, &answer);
    Ok(response)
}

fn now() -> Millis {
    Millis(Utc::now().timestamp_millis())
}

/// One record per SKU.
pub(crate) async fn change<B, D>(
    app: &App,
    request: &mut Request<B>,
    kind: StockChangeKind,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let name = match kind {
        StockChangeKind::Opening => "import",
        StockChangeKind::Adjustment => "adjustment",
        StockChangeKind::Count => "count",
        StockChangeKind::Transfer => "transfer",
        StockChangeKind::LowAt | StockChangeKind::Reconciliation | StockChangeKind::Unknown => {
            "low_at"
        }
    };
    let check = |body: &Value, _| body::change(body, kind);
    let records = |app: &App, asked: Asked<body::Change>| {
        let record = |(sku, quantity): (&events::Sku, &i64)| {
            let record: Record = ChangeStock {
                change_id: asked.id,
                merchant: (*asked.merchant).clone(),
                sku: sku.clone(),
                warehouse: asked.body.warehouse.clone(),
                kind,
                quantity: *quantity,
                to_warehouse: asked.body.to.clone(),
                reason: asked.body.reason.clone(),
                requested_by: asked.requested_by.clone(),
                fingerprint: asked.fingerprint,
            }
            .into();
            let key = topics::stock_key(&asked.merchant, sku).into_bytes();
            Outgoing::keyed(Target::Stock, key, app.codec.to_bytes(&record))
        };
        asked.body.pieces.iter().map(record).collect()
    };
    settle(app, request, name, check, records).await
}

pub(crate) async fn flash_sale<B, D>(
    app: &App,
    request: &mut Request<B>,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let records = |app: &App, asked: Asked<body::FlashSale>| {
        let sale = asked.body;
        let key = topics::stock_key(&asked.merchant, &sale.sku).into_bytes();
        let record: Record = FlashSaleScheduled {
            sale_id: asked.id,
            merchant: (*asked.merchant).clone(),
            sku: sale.sku,
            warehouse: sale.warehouse,
            quantity: sale.quantity,
            per_customer: sale.per_customer,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            requested_by: asked.requested_by,
            fingerprint: asked.fingerprint,
        }
        .into();
        vec![Outgoing::keyed(Target::Stock, key, app.codec.to_bytes(&record))]
    };
    // A repeat is answered like the first, also when the sale is over.
    let check = |body: &Value, repeat: bool| body::flash_sale(body, (!repeat).then(now));
    settle(app, request, "flash_sale", check, records).await
}

/// A warehouse is reference data: one record for readers of what is, and one for every partition that
/// decides by it.
pub(crate) async fn warehouse<B, D>(
    app: &App,
    request: &mut Request<B>,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let records = |app: &App, asked: Asked<body::Warehouse>| {
        let listed = asked.body;
        let key = format!("{}/{}", asked.merchant, listed.warehouse).into_bytes();
        let record: Record = WarehouseListed {
            merchant: (*asked.merchant).clone(),
            warehouse: listed.warehouse,
            online: listed.online,
            routes: listed.routes,
            cost_minor: listed.cost_minor,
            distance_km: listed.distance_km,
            load_permille: listed.load_permille,
            requested_by: asked.requested_by,
            request_id: asked.id,
            fingerprint: asked.fingerprint,
            listed_at: now(),
        }
        .into();
        let payload = app.codec.to_bytes(&record);
        let to = |target| {
            let (key, payload) = (key.clone(), payload.clone());
            (0..app.publisher.partitions()).map(move |partition| Outgoing {
                target,
                key: key.clone(),
                payload: payload.clone(),
                partition: Some(partition),
            })
        };
        let mut records: Vec<Outgoing> = to(Target::Stock).chain(to(Target::Outcomes)).collect();
        records.push(Outgoing::keyed(Target::Reference, key.clone(), payload.clone()));
        records
    };
    settle(app, request, "warehouse", |body: &Value, _| body::listed(body), records).await
}
