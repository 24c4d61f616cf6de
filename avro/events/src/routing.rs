//! How couriers are chosen: operators' rules and breakers on topic `couriers`, decisions and what
//! came of them on `courier-decisions`.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::{CourierCode, Currency, Lane, Millis, OrderId};

/// An operator's rule for a courier; replaces the last one for the same courier and lane. Appended
/// to every partition of `couriers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierRuled {
    /// The courier.
    pub courier: CourierCode,
    /// A lane's text; empty: every lane. A lane's own rule counts before that.
    pub lane: CompactString,
    /// Not asked for new consignments.
    pub paused: bool,
    /// What it costs is divided by this share: 100 changes nothing, 200 makes it look half as dear.
    pub weight_percent: i32,
    /// When it is not asked.
    pub blackouts: Vec<Blackout>,
}

/// A stretch of time in which a courier is not asked for new consignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// First moment.
    pub begins_at: Millis,
    /// First moment after it.
    pub ends_at: Millis,
}

/// What lateness costs; replaces the last one for the same lane. Appended to every partition of
/// `couriers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRuled {
    /// A lane's text; empty: every lane. A lane's own rule counts before that.
    pub lane: CompactString,
    /// What a late consignment costs, minor units.
    pub lateness_cost_minor: i64,
    /// Currency of that.
    pub currency: Currency,
    /// A courier that is late more often is not chosen while another is not; 1000: no bound.
    pub max_late_permille: i32,
}

/// A courier is rested or asked again on every lane, as the task of one partition found out; written
/// to every other partition of `couriers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerMoved {
    /// The courier.
    pub courier: CourierCode,
    /// Partition of the task that found out.
    pub partition: i32,
    /// From now on.
    pub state: BreakerState,
    /// With open: when it is probed first.
    pub until: Millis,
}

/// State of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Written by a newer version than this reader.
    Unknown,
    /// Asked as usual.
    Closed,
    /// Not asked.
    Open,
    /// Probed.
    HalfOpen,
}

impl BreakerState {
    /// The state's name in metrics and APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One choice of a courier, with what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierDecided {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Record key.
    pub lane: Lane,
    /// Attempt of the booking, from 1.
    pub attempt: i32,
    /// When.
    pub decided_at: Millis,
    /// Who was chosen.
    pub courier: CourierCode,
    /// Why.
    pub reason: DecisionReason,
    /// How likely this choice was, given the joint draws it was made from, 0 to 1000.
    pub propensity_permille: i32,
    /// What a late consignment was held to cost, minor units.
    pub lateness_cost_minor: i64,
    /// Who could have been chosen, by code.
    pub candidates: Vec<Candidate>,
}

/// A courier that could have been chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who.
    pub courier: CourierCode,
    /// Expected price, minor units.
    pub price_minor: i64,
    /// Mean of the belief that it comes late, 0 to 1000.
    pub late_permille: i32,
    /// Expected total cost, minor units.
    pub score_minor: i64,
    /// Whether it may be asked.
    pub standing: Standing,
}

/// Why a courier was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionReason {
    /// Written by a newer version than this reader.
    Unknown,
    /// The cheapest: nothing is known of the lane yet.
    Price,
    /// The least expected cost.
    Expected,
    /// Drawn although another has a lower expected cost.
    Explored,
    /// Nobody else may be asked.
    Only,
    /// To see whether it is well again.
    Probe,
    /// All are out.
    LastResort,
}

impl DecisionReason {
    /// The reason's name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Price => "price",
            Self::Expected => "expected",
            Self::Explored => "explored",
            Self::Only => "only",
            Self::Probe => "probe",
            Self::LastResort => "last_resort",
        }
    }
}

/// Whether a courier may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Written by a newer version than this reader.
    Unknown,
    /// Yes.
    Eligible,
    /// Yes, to see whether it is well again.
    Probe,
    /// No: a breaker is open.
    Out,
}

/// What came of a consignment, once: what couriers are learned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryJudged {
    /// The order.
    pub order_id: OrderId,
    /// With the id, the order's identity.
    pub accepted_at: Millis,
    /// Record key.
    pub lane: Lane,
    /// Attempt of the booking that the consignment belongs to.
    pub attempt: i32,
    /// Who carried it.
    pub courier: CourierCode,
    /// When it was known.
    pub judged_at: Millis,
    /// First tried to deliver by the courier's promise.
    pub on_time: bool,
    /// From booking to the first try to deliver; 0: not tried yet when it was judged.
    pub transit_ms: i64,
    /// What it cost, minor units.
    pub price_minor: i64,
    /// First tried to deliver by `expected_by`; false without such a promise.
    pub expected_by_kept: bool,
    /// What the lane's own distribution promised; 0: the lane was not known well enough.
    pub expected_by: Millis,
}
