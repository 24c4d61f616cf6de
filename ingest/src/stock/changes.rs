//! `POST /v1/stock/imports`, `/adjustments`, `/counts`, `/transfers`, `/low-marks`, `/flash-sales` and
//! `POST /v1/warehouses`: recorded; the stock processor decides, and tells the history.

use bytes::Buf;
use events::{
    ChangeStock, FlashSaleScheduled, Record, RequestId, StockChangeKind, WarehouseListed, topics,
};
use futures::Stream;
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

use super::body;
use crate::app::App;
use crate::problem::Problem;
use crate::publish::{Outgoing, Target};
use crate::request::Request;
use crate::{fingerprint, orders, routes};

#[derive(Serialize)]
struct Accepted {
    request_id: String,
    status: &'static str,
    records: usize,
}

fn accepted(app: &App, id: RequestId, records: usize, answer: &orders::Answer) -> Response {
    let body = Accepted { request_id: id.0.to_string(), status: "recorded", records };
    let mut response = routes::json(StatusCode::ACCEPTED, &body);
    orders::idempotency(app, &mut response, answer);
    response
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
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let change = body::change(&body, kind).map_err(Problem::faults)?;
    // The kind is part of the id, so that one key may be used for one request of each kind.
    let name = match kind {
        StockChangeKind::Opening => "import",
        StockChangeKind::Adjustment => "adjustment",
        StockChangeKind::Count => "count",
        StockChangeKind::Transfer => "transfer",
        StockChangeKind::LowAt | StockChangeKind::Reconciliation | StockChangeKind::Unknown => {
            "low_at"
        }
    };
    let change_id = RequestId::derive(name, &merchant, &key);
    let fingerprint = fingerprint::body(&change);
    let count = change.pieces.len();
    let click = (&app.requests, change_id.0, &merchant, fingerprint);
    let answer = orders::settle(app, click, count, |app, outcome| {
        let records = change.pieces.iter().map(|(sku, quantity)| {
            let record: Record = ChangeStock {
                change_id,
                merchant: (*merchant).clone(),
                sku: sku.clone(),
                warehouse: change.warehouse.clone(),
                kind,
                quantity: *quantity,
                to_warehouse: change.to.clone(),
                reason: change.reason.clone(),
                requested_by: requested_by.clone(),
                fingerprint,
            }
            .into();
            let key = topics::stock_key(&merchant, sku).into_bytes();
            Outgoing::keyed(Target::Stock, key, app.codec.to_bytes(&record))
        });
        app.publisher.publish(&records.collect::<Vec<_>>(), outcome);
    })
    .await?;
    Ok(accepted(app, change_id, count, &answer))
}

pub(crate) async fn flash_sale<B, D>(
    app: &App,
    request: &mut Request<B>,
) -> Result<Response, Problem>
where
    B: Stream<Item = Result<D, warp::Error>>,
    D: Buf,
{
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let sale = body::flash_sale(&body).map_err(Problem::faults)?;
    let sale_id = RequestId::derive("flash_sale", &merchant, &key);
    let click = (&app.requests, sale_id.0, &merchant, fingerprint::body(&sale));
    let answer = orders::settle(app, click, 1, |app, outcome| {
        let key = topics::stock_key(&merchant, &sale.sku).into_bytes();
        let record: Record = FlashSaleScheduled {
            sale_id,
            merchant: (*merchant).clone(),
            sku: sale.sku,
            warehouse: sale.warehouse,
            quantity: sale.quantity,
            per_customer: sale.per_customer,
            starts_at: sale.starts_at,
            ends_at: sale.ends_at,
            requested_by,
        }
        .into();
        let record = Outgoing::keyed(Target::Stock, key, app.codec.to_bytes(&record));
        app.publisher.publish(&[record], outcome);
    })
    .await?;
    Ok(accepted(app, sale_id, 1, &answer))
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
    let (merchant, requested_by) = request.caller(&app.keys)?;
    let key = request.idempotency_key()?;
    let body = request.json(&app.limits, &app.bodies).await?;
    let listed = body::listed(&body).map_err(Problem::faults)?;
    let id = RequestId::derive("warehouse", &merchant, &key);
    let click = (&app.requests, id.0, &merchant, fingerprint::body(&listed));
    let partitions = app.publisher.partitions();
    let count = 2 * usize::try_from(partitions).unwrap_or(0) + 1;
    let answer = orders::settle(app, click, count, |app, outcome| {
        let key = format!("{merchant}/{}", listed.warehouse).into_bytes();
        let record: Record = WarehouseListed {
            merchant: (*merchant).clone(),
            warehouse: listed.warehouse,
            online: listed.online,
            routes: listed.routes,
            cost_minor: listed.cost_minor,
            distance_km: listed.distance_km,
            load_permille: listed.load_permille,
            requested_by,
        }
        .into();
        let payload = app.codec.to_bytes(&record);
        let to = |target| {
            let (key, payload) = (key.clone(), payload.clone());
            (0..partitions).map(move |partition| Outgoing {
                target,
                key: key.clone(),
                payload: payload.clone(),
                partition: Some(partition),
            })
        };
        let mut records: Vec<Outgoing> = to(Target::Stock).chain(to(Target::Outcomes)).collect();
        records.push(Outgoing::keyed(Target::Reference, key.clone(), payload.clone()));
        app.publisher.publish(&records, outcome);
    })
    .await?;
    Ok(accepted(app, id, count, &answer))
}
