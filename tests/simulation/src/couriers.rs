//! Models of courier companies: an idempotent ledger behind an API that is slow, down, overloaded,
//! broken half-way, or silent though it has booked.

use std::collections::BTreeMap;

use events::{CallOutcome, CourierCode, Lane, OrderKey};
use machines::{Call, CallKind};

use crate::chance::Chance;

/// The postcode that no company serves.
pub const NOWHERE: &str = "nowhere";

/// A booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// For which order.
    pub order: OrderKey,
    /// The company's id.
    pub consignment_id: String,
    /// Its price, minor units.
    pub price_minor: i64,
    /// When it promised to deliver, UTC ms.
    pub promised_at: i64,
}

/// What a company has under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Booked.
    Live(Booking),
    /// Voided, perhaps before it was ever booked.
    Voided,
}

/// How a company behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should.
    Well,
    /// Refuses connections.
    Away,
    /// Answers 503.
    Busy,
    /// Answers 429.
    Throttling,
    /// Answers 500, having done it or not.
    Broken,
    /// Does it, and the answer is lost.
    Silent,
    /// Answers too late.
    Slow,
    /// Answers 4xx to new bookings.
    Choosy,
}

/// Every way to behave badly.
pub const BAD: &[Mode] = &[
    Mode::Away,
    Mode::Busy,
    Mode::Throttling,
    Mode::Broken,
    Mode::Silent,
    Mode::Slow,
    Mode::Choosy,
];

/// A company.
#[derive(Debug)]
pub struct Company {
    /// Its code.
    pub code: CourierCode,
    /// Its list price, minor units.
    pub price_minor: i64,
    /// How it behaves in general.
    pub mode: Mode,
    /// Its ledger, by reference.
    pub ledger: BTreeMap<String, Entry>,
    booked: u64,
    /// Consignments that were booked since they were last asked for.
    taken: Vec<Taken>,
}

/// A consignment that a company has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// For which order.
    pub order: OrderKey,
    /// On which lane.
    pub lane: Lane,
    /// Under which attempt.
    pub attempt: i32,
    /// When it promised to deliver, UTC ms.
    pub promised_at: i64,
}

/// What a caller hears, and after how long; `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub outcome: CallOutcome,
    /// The booking, when that succeeded.
    pub booking: Option<Booking>,
}

impl Company {
    /// A company that behaves well.
    pub fn new(code: &str, price_minor: i64) -> Self {
        let code = CourierCode::parse(code).expect("a legal code");
        Self {
            code,
            price_minor,
            mode: Mode::Well,
            ledger: BTreeMap::new(),
            booked: 0,
            taken: vec![],
        }
    }

    /// Serves a call that has arrived; the answer and how many microseconds it takes.
    pub fn serve(
        &mut self,
        call: &Call,
        mode: Mode,
        now_ms: i64,
        chance: &mut Chance,
    ) -> (Option<Answer>, u64) {
        let answer = |outcome| Some(Answer { outcome, booking: None });
        let quick = chance.between(1_000, 60_000);
        match mode {
            Mode::Away | Mode::Busy => (answer(CallOutcome::Failed), quick),
            Mode::Throttling => (answer(CallOutcome::Throttled), quick),
            _ if nowhere(call) => (answer(CallOutcome::Refused), quick),
            Mode::Choosy if call.kind != CallKind::Void => (answer(CallOutcome::Refused), quick),
            Mode::Broken => {
                if chance.per_mille(500) {
                    self.perform(call, now_ms, chance);
                }
                // In doubt: as the runtime reads a 500.
                (answer(broken(call)), quick)
            }
            Mode::Silent => {
                self.perform(call, now_ms, chance);
                (None, 0)
            }
            Mode::Slow => {
                let slow = chance.between(200_000, 3_000_000);
                (Some(self.perform(call, now_ms, chance)), slow)
            }
            Mode::Well | Mode::Choosy => (Some(self.perform(call, now_ms, chance)), quick),
        }
    }

    fn perform(&mut self, call: &Call, now_ms: i64, chance: &mut Chance) -> Answer {
        let reference = call.reference();
        if call.kind == CallKind::Void {
            self.ledger.insert(reference, Entry::Voided);
            return Answer { outcome: CallOutcome::Succeeded, booking: None };
        }
        match self.ledger.get(&reference) {
            Some(Entry::Voided) => Answer { outcome: CallOutcome::Refused, booking: None },
            Some(Entry::Live(booking)) => {
                Answer { outcome: CallOutcome::Succeeded, booking: Some(booking.clone()) }
            }
            None => {
                self.booked += 1;
                let draw = i64::try_from(chance.below(200)).expect("small");
                let booking = Booking {
                    order: call.order,
                    consignment_id: format!("{}-{}", self.code, self.booked),
                    price_minor: self.price_minor + draw,
                    promised_at: now_ms
                        + i64::try_from(chance.between(2_000, 6_000)).expect("small"),
                };
                self.ledger.insert(reference, Entry::Live(booking.clone()));
                self.taken.push(Taken {
                    order: call.order,
                    lane: call.lane.clone(),
                    attempt: call.attempt,
                    promised_at: booking.promised_at,
                });
                Answer { outcome: CallOutcome::Succeeded, booking: Some(booking) }
            }
        }
    }

    /// What it has taken since this was last asked.
    pub fn taken(&mut self) -> Vec<Taken> {
        std::mem::take(&mut self.taken)
    }

    /// What it holds to be booked.
    pub fn live(&self) -> impl Iterator<Item = &Booking> {
        self.ledger.values().filter_map(|entry| match entry {
            Entry::Live(booking) => Some(booking),
            Entry::Voided => None,
        })
    }
}

/// Somewhere that no company goes.
fn nowhere(call: &Call) -> bool {
    matches!(&call.kind, CallKind::Book { destination, .. } if destination.postcode == NOWHERE)
}

fn broken(call: &Call) -> CallOutcome {
    if call.kind == CallKind::Void { CallOutcome::Failed } else { CallOutcome::TimedOut }
}
