//! The vocabulary of Tillroll: ids, money, every record type and its bytes, every topic.
//!
//! Read `ids`, then one file per topic family (`order`, `stock`, `courier`, `payment`,
//! `status`), then `record`
//! (the closed set of record types), `codec` (bytes ⇄ records) and `topics` (who writes what where).
//! This crate does no IO: schema ids are handed in, nothing is fetched.

pub mod codec;
pub mod courier;
pub mod ids;
pub mod money;
pub mod movements;
pub mod order;
pub mod origin;
pub mod payment;
pub mod record;
pub mod routing;
pub mod status;
pub mod stock;
pub mod time;
pub mod topics;
pub mod tracking;

pub use codec::{Codec, DecodeError};
pub use courier::{
    BookConsignment, CallOutcome, Consignment, ConsignmentBooked, ConsignmentFailed,
    CourierAnswered, CourierCall, CourierListed, VoidConsignment,
};
pub use ids::{
    CourierCode, Fingerprint, Lane, Merchant, OrderId, OrderKey, ProviderCode, ReceiptId,
    RequestId, Sku, WarehouseCode,
};
pub use money::Currency;
pub use movements::{
    ChangeStock, FlashSaleScheduled, MovementKind, Route, StockChangeKind, StockMoved, StockRanLow,
    WarehouseListed,
};
pub use order::{
    CancelRequested, ConfirmationTimedOut, Destination, OrderConfirmed, OrderDispatched, OrderLine,
    OrderPlaced, OrderRepeated, RepeatKind,
};
pub use origin::{ORIGIN_HEADER, Origin};
pub use payment::{
    PaymentAnswered, PaymentFact, PaymentMethod, PaymentNotified, PaymentOutcome, PaymentState,
    PaymentStep,
};
pub use record::{Record, RecordType};
pub use routing::{
    Blackout, BreakerMoved, BreakerState, Candidate, CourierDecided, CourierRuled, DecisionReason,
    DeliveryJudged, LaneRuled, Standing,
};
pub use status::{OrderStatus, OrderStatusChanged};
pub use stock::{
    AllocateLines, Alternative, DispatchLines, LineRefusal, LinesRefused, LinesReserved,
    RefusalReason, ReleaseLines, ReserveLine, ReserveLines, StockLevelChanged, StockReceived,
};
pub use time::Millis;
pub use tracking::{ConsignmentMoved, ConsignmentState, TrackingEvent, TrackingReported};
