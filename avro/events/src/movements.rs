//! Stock that no order changes: commands of the stock API on `stock`, reference data on `reference`, and
//! the history on `stock-movements`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Fingerprint, Merchant, Millis, RequestId, Sku, WarehouseCode};

/// Command: a change of a SKU's stock in a warehouse that no order causes. Counts once per change, SKU
/// and warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeStock {
    /// The request.
    pub change_id: RequestId,
    /// Whose stock.
    pub merchant: Merchant,
    /// What.
    pub sku: Sku,
    /// Where.
    pub warehouse: WarehouseCode,
    /// What kind of change.
    pub kind: StockChangeKind,
    /// Pieces; signed for an adjustment and a reconciliation.
    pub quantity: i64,
    /// With [`StockChangeKind::Transfer`]: where to.
    pub to_warehouse: Option<WarehouseCode>,
    /// Why, in the requester's words.
    pub reason: CompactString,
    /// Who: the id of the API key.
    pub requested_by: CompactString,
    /// Digest of the whole request: another one under the same id counts nothing.
    pub fingerprint: Fingerprint,
}

/// What kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StockChangeKind {
    /// Written by a newer version than this reader.
    Unknown,
    /// Pieces that are there at the start.
    Opening,
    /// Pieces found (positive) or lost (negative).
    Adjustment,
    /// What a physical count found, all pieces in the warehouse.
    Count,
    /// Free pieces that go to another warehouse.
    Transfer,
    /// From how many available pieces on stock counts as low; 0: never.
    LowAt,
    /// Pieces that the history lacks (positive) or has too many of; nothing moves.
    Reconciliation,
}

/// Pieces came to or left a warehouse; the history of what is on hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockMoved {
    /// The movement; the same after a redo.
    pub movement_id: Uuid,
    /// Whose stock.
    pub merchant: Merchant,
    /// What.
    pub sku: Sku,
    /// Where.
    pub warehouse: WarehouseCode,
    /// What happened.
    pub kind: MovementKind,
    /// Change of on hand: positive came, negative left; 0 for a count that agreed, and for a refusal.
    pub quantity: i64,
    /// Pieces in the warehouse afterwards.
    pub on_hand: i64,
    /// The receipt, change or order that caused it.
    pub source_id: Uuid,
    /// Why, in the requester's words; with [`MovementKind::Dispatch`] the order's id, with
    /// [`MovementKind::Refused`] why not.
    pub reason: CompactString,
    /// Who: the id of the API key; empty where its request did not say.
    pub requested_by: CompactString,
    /// When.
    pub moved_at: Millis,
}

/// What happened to the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementKind {
    /// Written by a newer version than this reader.
    Unknown,
    /// Delivered to the warehouse.
    Receipt,
    /// There at the start.
    Opening,
    /// Found or lost.
    Adjustment,
    /// A physical count found another number, or the same.
    Count,
    /// Sent to another warehouse.
    TransferOut,
    /// Arrived from another warehouse.
    TransferIn,
    /// Handed over to a courier.
    Dispatch,
    /// Nothing moved: the history was set right by so many pieces.
    Reconciliation,
    /// Nothing: a request that could not be done, with the reason.
    Refused,
}

impl MovementKind {
    /// The kind's name in records and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Receipt => "receipt",
            Self::Opening => "opening",
            Self::Adjustment => "adjustment",
            Self::Count => "count",
            Self::TransferOut => "transfer_out",
            Self::TransferIn => "transfer_in",
            Self::Dispatch => "dispatch",
            Self::Reconciliation => "reconciliation",
            Self::Refused => "refused",
        }
    }
}

/// The available pieces of a SKU in a warehouse have fallen to the mark set for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRanLow {
    /// Whose stock.
    pub merchant: Merchant,
    /// What.
    pub sku: Sku,
    /// Where.
    pub warehouse: WarehouseCode,
    /// Pieces left.
    pub available: i64,
    /// The mark.
    pub low_at: i64,
    /// When.
    pub at: Millis,
}

/// Command: set pieces of a SKU aside and sell them from a moment on, first come, first served by the
/// order of the log. While it lasts, the SKU is sold from these pieces alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashSaleScheduled {
    /// The request.
    pub sale_id: RequestId,
    /// Whose stock.
    pub merchant: Merchant,
    /// What.
    pub sku: Sku,
    /// Where from.
    pub warehouse: WarehouseCode,
    /// Pieces set aside; 0 ends the SKU's sale at once, whatever the other fields say.
    pub quantity: i64,
    /// Most pieces that a customer may order in the sale; 0: no limit.
    pub per_customer: i32,
    /// From then on.
    pub starts_at: Millis,
    /// Until then; what is left is free again.
    pub ends_at: Millis,
    /// Who: the id of the API key.
    pub requested_by: CompactString,
    /// Digest of the whole request: another one under the same id counts nothing.
    pub fingerprint: Fingerprint,
}

/// A merchant's warehouse as it is from now on; appended to every partition that decides by it. Partitions
/// may see two listings in different orders: [`WarehouseListed::as_of`] makes them agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarehouseListed {
    /// Whose.
    pub merchant: Merchant,
    /// Which.
    pub warehouse: WarehouseCode,
    /// Whether its free stock is offered.
    pub online: bool,
    /// What is known for single countries.
    pub routes: Vec<Route>,
    /// Shipping cost to any other country, minor units of one currency for all warehouses.
    pub cost_minor: i64,
    /// Distance to any other country, km.
    pub distance_km: i32,
    /// How busy it is: 1000 is as much as it can do.
    pub load_permille: i32,
    /// Who: the id of the API key.
    pub requested_by: CompactString,
    /// The request; the same one counts once.
    pub request_id: RequestId,
    /// Digest of the whole request: another one under the same id counts nothing.
    pub fingerprint: Fingerprint,
    /// When it was asked for, by ingest's clock.
    pub listed_at: Millis,
}

impl WarehouseListed {
    /// What orders the listings of a warehouse: the greatest counts, wherever it stands in a partition.
    pub fn as_of(&self) -> (Millis, RequestId) {
        (self.listed_at, self.request_id)
    }
}

/// The way from a warehouse to a country.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// ISO 3166-1 alpha-2.
    pub country: CompactString,
    /// Shipping cost, minor units.
    pub cost_minor: i64,
    /// Distance, km.
    pub distance_km: i32,
}

/// The identity of a movement: UUIDv5 in the namespace of its source. The moment is part of it, since a request's
/// key, and with it the source, may come again when it is forgotten.
pub fn movement_id(
    source_id: Uuid,
    kind: MovementKind,
    sku: &Sku,
    warehouse: &WarehouseCode,
    moved_at: Millis,
) -> Uuid {
    let name = format!("{}/{sku}/{warehouse}/{}", kind.as_str(), moved_at.0);
    Uuid::new_v5(&source_id, name.as_bytes())
}
