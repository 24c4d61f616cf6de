//! What the couriers machine keeps.

use compact_str::CompactString;
use events::{
    Blackout, CallOutcome, CourierCode, Currency, Destination, Lane, Merchant, Millis,
    WarehouseCode,
};
use serde::{Deserialize, Serialize};

use super::belief::Belief;
use super::breaker::{Breaker, Permit};
use super::transit::Transit;
use crate::table::{Key, Row};

/// A courier company as it was listed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Company {
    /// Base URL of its API.
    pub url: CompactString,
    /// List price, minor units.
    pub price_minor: i64,
    /// Currency of the price; the same for all that are listed.
    pub currency: Currency,
    /// Longest wait for an answer.
    pub timeout_ms: i32,
    /// Not asked for new consignments.
    pub paused: bool,
}

impl Row for Company {}

/// An operator's rule for a courier on a lane, or on every lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Not asked for new consignments.
    pub paused: bool,
    /// Costs are divided by this share; at least 1.
    pub weight_percent: i32,
    /// When it is not asked.
    pub blackouts: Vec<Blackout>,
}

impl Row for Rule {}

impl Rule {
    /// Whether the courier may be asked as far as this rule goes.
    pub fn allows(&self, now: Millis) -> bool {
        !self.paused && !self.blackouts.iter().any(|b| b.begins_at <= now && now < b.ends_at)
    }
}

/// What lateness costs on a lane, or on every lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRule {
    /// Minor units.
    pub lateness_cost_minor: i64,
    /// 0 to 1000.
    pub max_late_permille: i32,
}

impl Row for LaneRule {}

/// What is known of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneRow {
    /// Its couriers, by code.
    pub arms: Vec<Arm>,
    /// How long its consignments took, whoever carried them.
    pub transit: Transit,
}

impl Row for LaneRow {}

impl LaneRow {
    /// A courier on the lane, if anything is known of it.
    pub fn arm(&self, courier: &CourierCode) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.courier == *courier)
    }

    /// A courier on the lane.
    pub fn arm_mut(&mut self, courier: &CourierCode) -> &mut Arm {
        let at = self.arms.binary_search_by(|arm| arm.courier.cmp(courier));
        let at = at.unwrap_or_else(|at| {
            self.arms.insert(at, Arm::new(courier.clone()));
            at
        });
        &mut self.arms[at]
    }

    /// How often couriers that report are late on it, on average, 0 to 1000.
    pub fn average_late_permille(&self) -> Option<i32> {
        let informed = || self.arms.iter().filter(|arm| arm.belief.informed());
        let count = i32::try_from(informed().count()).ok().filter(|count| *count > 0)?;
        Some(informed().map(|arm| arm.belief.late_permille()).sum::<i32>() / count)
    }

    /// Whether anything was ever learned about deliveries on it.
    pub fn informed(&self) -> bool {
        self.arms.iter().any(|arm| arm.belief.informed())
    }
}

/// What is known of a courier on a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// Who.
    pub courier: CourierCode,
    /// What it charged last, minor units of its list price's currency.
    pub price_minor: i64,
    /// Its list price at the time: a new one makes what was charged under the old one worthless.
    /// -1: it has charged nothing yet.
    pub list_price_minor: i64,
    /// How likely it comes late.
    pub belief: Belief,
    /// Whether it answers for this lane.
    pub breaker: Breaker,
}

impl Arm {
    fn new(courier: CourierCode) -> Self {
        let (belief, breaker) = (Belief::default(), Breaker::default());
        Self { courier, price_minor: 0, list_price_minor: -1, belief, breaker }
    }
}

/// So many consignments without any report, and a company is held to make none.
const MUTE: u32 = 20;

/// Whether a company answers, whatever the lane, as far as this partition knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Over all its calls.
    pub breaker: Breaker,
    /// The lanes of the breaker's window, four bits each of a hash, newest lowest.
    lanes: (u64, u64),
    /// It has reported on a consignment at least once.
    #[serde(default)]
    pub reports: bool,
    /// Consignments whose promise passed without any report, while it had never made one.
    #[serde(default)]
    pub silent: u32,
}

impl Row for Health {}

impl Health {
    /// A call on this lane is about to be recorded.
    pub fn met(&mut self, lane: &Lane) {
        let hash = lane.as_str().bytes().fold(5_381_u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
        let (high, low) = self.lanes;
        self.lanes = ((high << 4) | (low >> 60), (low << 4) | u64::from(hash % 16));
    }

    /// Whether the bad calls of a breaker's window are the company's fault rather than one lane's:
    /// more lanes were bad than only well.
    pub fn everywhere(lanes: (u64, u64), bad: impl Fn(u32) -> bool, calls: u32) -> bool {
        let (mut ill, mut well) = (0_u16, 0_u16);
        for call in 0..calls.min(32) {
            let nibble =
                if call < 16 { lanes.1 >> (4 * call) } else { lanes.0 >> (4 * (call - 16)) };
            let lane = 1 << (nibble & 15);
            if bad(call) { ill |= lane } else { well |= lane }
        }
        ill.count_ones() > (well & !ill).count_ones()
    }

    /// The lanes of the window, for [`Health::everywhere`].
    pub fn lanes(&self) -> (u64, u64) {
        self.lanes
    }

    /// Whether nothing will ever be learned about its deliveries.
    pub fn mute(&self) -> bool {
        !self.reports && self.silent >= MUTE
    }

    /// Whether the company may be asked now.
    pub fn permits(&self, now: Millis) -> Permit {
        self.breaker.permits(now)
    }
}

/// An order on its way to a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Its lane.
    pub lane: Lane,
    /// The shop.
    pub merchant: Merchant,
    /// Where to; `None` in a row that only owes voids.
    pub destination: Option<Destination>,
    /// Number of the attempt being made or made last, from 1.
    pub attempt: i32,
    /// Where the booking stands.
    pub stage: Stage,
    /// Couriers asked in this round, with what came of it.
    pub tried: Vec<(CourierCode, CallOutcome)>,
    /// Rounds ended in vain.
    pub rounds: i32,
    /// Attempts that must be voided.
    pub owed: Vec<OwedVoid>,
    /// The attempt was called for more than once (after a takeover): the calls can end differently,
    /// so that no single answer but a booking is certain.
    #[serde(default)]
    pub repeated: bool,
    /// The attempt was made while a breaker was not closed.
    #[serde(default)]
    pub probe: bool,
}

/// Where a booking stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// This courier is being asked.
    Calling(CourierCode),
    /// Nobody took it; a new round begins then.
    Resting(Millis),
    /// Over; only voids are owed.
    Done,
}

/// An abandoned attempt that the company must forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedVoid {
    /// Whom to tell.
    pub courier: CourierCode,
    /// Which attempt.
    pub attempt: i32,
    /// Tries so far.
    pub tries: i32,
    /// When to try again unless confirmed.
    pub retry_at: Millis,
}

impl Row for Booking {
    fn deadline(&self) -> Option<Millis> {
        let rest = match self.stage {
            Stage::Resting(until) => Some(until),
            _ => None,
        };
        self.owed.iter().map(|void| void.retry_at).chain(rest).min()
    }
}

impl Key for Lane {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_str().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (origin, country) = std::str::from_utf8(bytes).ok()?.split_once('>')?;
        Some(Self::new(&WarehouseCode::parse(origin).ok()?, country))
    }
}

/// A lane's text; empty: every lane.
pub type LaneText = CompactString;

impl Key for LaneText {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(Into::into)
    }
}

/// A courier on a lane or on every lane.
pub type RuleKey = (CourierCode, LaneText);

impl Key for RuleKey {
    fn to_bytes(&self) -> Vec<u8> {
        format!("{}/{}", self.0, self.1).into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (courier, lane) = std::str::from_utf8(bytes).ok()?.split_once('/')?;
        Some((CourierCode::parse(courier).ok()?, lane.into()))
    }
}
