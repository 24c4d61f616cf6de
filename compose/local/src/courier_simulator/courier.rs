//! What becomes of a call to one courier: its draw, its moment of booking, its answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ledger::{Booked, Booking, Found, Ledger, Reference};
use super::settings::{Mode, Range, Settings};

/// An unanswered call's connection is closed after this long, so that forgetful clients don't
/// use up the simulator's file descriptors.
pub(super) const SILENCE: Duration = Duration::from_secs(120);

/// What a caller asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Book { reference: Reference, order: Uuid },
    Void { reference: Reference },
    Find { reference: Reference },
}

/// A status with its JSON body, and `Retry-After` where the caller shall wait.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    pub(super) retry_after_s: Option<u32>,
}

/// A booking as its caller sees it. Written as it is, without a [`Value`] between: thousands a
/// second are.
#[derive(Serialize)]
struct Described<'a> {
    consignment_id: &'a str,
    tracking_number: &'a str,
    price_minor: i64,
    currency: &'a str,
    promised_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

impl Answer {
    pub(super) fn new(status: StatusCode, body: impl Serialize) -> Self {
        let body = serde_json::to_vec(&body).expect("plain data has a JSON form");
        Answer { status, body, retry_after_s: None }
    }

    pub(super) fn fault(status: StatusCode, error: &str, reason: impl Into<String>) -> Self {
        Answer::new(status, json!({"error": error, "reason": reason.into()}))
    }

    fn wait(status: StatusCode, error: &str, reason: &str) -> Self {
        Answer { retry_after_s: Some(1), ..Answer::fault(status, error, reason) }
    }
}

/// Settings and since when they hold, which gives `flap` its phase.
struct Current {
    settings: Settings,
    since: Instant,
}

/// What chance decided for one call.
struct Draw {
    /// From the call until it takes effect.
    before: Duration,
    /// From then until its answer.
    after: Duration,
    fate: Fate,
}

enum Fate {
    Answered,
    Failed(StatusCode),
    Unanswered { done: bool },
}

/// Calls by what came of them, since the start.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
    limited: AtomicU64,
    late: AtomicU64,
}

/// One courier company.
pub(super) struct Courier {
    pub(super) name: String,
    current: RwLock<Arc<Current>>,
    pub(super) ledger: Ledger,
    seed: u64,
    bookings: AtomicU64,
    counts: Counts,
    /// The second of the rate limit's window and the bookings in it.
    window: Mutex<(u64, u32)>,
}

impl Courier {
    pub(super) fn new(name: &str, settings: Settings, seed: u64, kept: usize) -> Self {
        let seed = name.bytes().fold(seed, |seed, byte| mixed(seed ^ u64::from(byte)));
        Courier {
            name: name.to_owned(),
            current: RwLock::new(Arc::new(Current { settings, since: Instant::now() })),
            ledger: Ledger::new(kept),
            seed,
            bookings: AtomicU64::new(0),
            counts: Counts::default(),
            window: Mutex::new((0, 0)),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        self.current().settings.clone()
    }

    /// Changes the settings in one step: two patches at once are both applied.
    pub(super) fn change(
        &self,
        change: impl FnOnce(&Settings) -> Result<Settings, String>,
    ) -> Result<Settings, String> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let settings = change(&current.settings)?;
        *current = Arc::new(Current { settings: settings.clone(), since: Instant::now() });
        Ok(settings)
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carries the call out; `None` means that its caller shall never hear of it. It has to run to
    /// its end even when the caller is gone.
    pub(super) async fn call(&self, ask: Ask) -> Option<Answer> {
        let current = self.current();
        let settings = &current.settings;
        let number = self.counts.calls.fetch_add(1, Ordering::Relaxed);
        if let Ask::Book { .. } = ask
            && let Some(answer) = self.turned_away(settings)
        {
            return Some(answer);
        }
        let draw = self.draw(&current, number);
        if let Fate::Unanswered { done: false } = draw.fate {
            self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if let Fate::Failed(status) = draw.fate {
            tokio::time::sleep(draw.before + draw.after).await;
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return Some(Answer::fault(status, "failed", "the courier's system is out of order"));
        }
        tokio::time::sleep(draw.before).await;
        let answer = self.perform(ask, settings);
        if let Fate::Unanswered { .. } = draw.fate {
            self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        tokio::time::sleep(draw.after).await;
        Some(answer)
    }

    /// Bookings refused at the door, before any latency.
    fn turned_away(&self, settings: &Settings) -> Option<Answer> {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        if settings.paused {
            return Some(Answer::wait(unavailable, "paused", "no bookings are taken at present"));
        }
        let limit = settings.rate_limit_per_s?;
        let second = now_ms().unsigned_abs() / 1000;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0 != second {
            *window = (second, 0);
        }
        if window.1 >= limit {
            self.counts.limited.fetch_add(1, Ordering::Relaxed);
            let reason = "more bookings in this second than agreed";
            return Some(Answer::wait(StatusCode::TOO_MANY_REQUESTS, "rate_limited", reason));
        }
        window.1 += 1;
        None
    }

    fn draw(&self, current: &Current, number: u64) -> Draw {
        let settings = &current.settings;
        let mut chance = Chance(mixed(self.seed ^ number));
        let Range { min, max } = latency(settings);
        let latency_us = min * 1000 + chance.below((max - min) * 1000 + 1);
        let before_us = chance.below(latency_us + 1);
        let (timeout, failure, done) = (chance.unit(), chance.unit(), chance.unit());
        let bad_phase = settings.mode == Mode::Flap
            && (current.since.elapsed().as_millis() / u128::from(settings.flap_ms)) % 2 == 1;
        let fate = if settings.mode == Mode::Hang || timeout < settings.timeout_rate {
            Fate::Unanswered { done: done < settings.timeout_done_rate }
        } else if settings.mode == Mode::Error || bad_phase {
            Fate::Failed(StatusCode::SERVICE_UNAVAILABLE)
        } else if failure < settings.failure_rate {
            Fate::Failed(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            Fate::Answered
        };
        Draw {
            before: Duration::from_micros(before_us),
            after: Duration::from_micros(latency_us - before_us),
            fate,
        }
    }

    fn perform(&self, ask: Ask, settings: &Settings) -> Answer {
        match ask {
            Ask::Book { reference, order } => self.book(reference, order, settings),
            Ask::Void { reference } => {
                self.ledger.void(reference);
                Answer::new(StatusCode::OK, json!({"voided": true}))
            }
            Ask::Find { reference } => match self.ledger.find(reference) {
                Found::Live(booking) => self.answer(StatusCode::OK, &booking, Some("booked")),
                Found::Voided => Answer::new(StatusCode::OK, json!({"status": "voided"})),
                Found::Unknown => Answer::fault(
                    StatusCode::NOT_FOUND,
                    "unknown",
                    "no consignment has this reference",
                ),
            },
        }
    }

    fn book(&self, reference: Reference, order: Uuid, settings: &Settings) -> Answer {
        // What exists is answered as it is, even if the rules have changed since.
        let known = self.ledger.find(reference) != Found::Unknown;
        if !known && let Some(reason) = self.refusal(order, settings) {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Answer::fault(StatusCode::UNPROCESSABLE_ENTITY, "refused", reason);
        }
        let make = || Booking {
            order,
            number: self.bookings.fetch_add(1, Ordering::Relaxed) + 1,
            price_minor: settings.price_minor,
            promised_at: now_ms() + i64::from(settings.promise_hours) * 3_600_000,
            currency: settings.currency.as_bytes().try_into().expect("checked: 3 letters"),
        };
        match self.ledger.book(reference, order, make) {
            Booked::New(booking) => self.answer(StatusCode::CREATED, &booking, None),
            Booked::Again(booking) => self.answer(StatusCode::OK, &booking, None),
            Booked::Voided => {
                self.counts.late.fetch_add(1, Ordering::Relaxed);
                let reason = "this reference was voided; book under a new one";
                Answer::fault(StatusCode::CONFLICT, "voided", reason)
            }
            Booked::OtherOrder => {
                let reason = "this reference belongs to another order";
                Answer::fault(StatusCode::CONFLICT, "reference_taken", reason)
            }
        }
    }

    /// A refusal is a rule, not an accident: the same order meets it again.
    fn refusal(&self, order: Uuid, settings: &Settings) -> Option<&'static str> {
        let (high, low) = order.as_u64_pair();
        let mut chance = Chance(mixed(self.seed ^ mixed(high ^ mixed(low))));
        if chance.unit() >= settings.refusal_rate {
            return None;
        }
        const REASONS: [&str; 3] =
            ["no service to this postcode", "address not recognised", "parcel not accepted"];
        let index = usize::try_from(chance.below(3)).unwrap_or(0);
        Some(REASONS[index])
    }

    fn answer(&self, code: StatusCode, booking: &Booking, status: Option<&'static str>) -> Answer {
        let prefix = self.name.get(..2).unwrap_or(&self.name).to_ascii_uppercase();
        let described = Described {
            consignment_id: &self.consignment_id(booking),
            tracking_number: &format!("{prefix}{:010}", booking.number),
            price_minor: booking.price_minor,
            currency: std::str::from_utf8(&booking.currency).expect("checked: letters"),
            promised_at: booking.promised_at,
            status,
        };
        Answer::new(code, described)
    }

    pub(super) fn consignment_id(&self, booking: &Booking) -> String {
        format!("{}-{:08}", self.name, booking.number)
    }

    /// Its line of `GET /ledger`.
    pub(super) fn tally(&self) -> Value {
        let totals = self.ledger.totals();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "booked": totals.booked,
            "voided": totals.voided,
            "live": totals.booked - totals.voided,
            "voided_unknown": totals.barred,
            "forgotten": totals.forgotten,
            "calls": count(&self.counts.calls),
            "refused": count(&self.counts.refused),
            "failed": count(&self.counts.failed),
            "unanswered": count(&self.counts.unanswered),
            "rate_limited": count(&self.counts.limited),
            "refused_after_void": count(&self.counts.late),
        })
    }
}

fn latency(settings: &Settings) -> Range {
    let factor = if settings.mode == Mode::Slow { settings.slow_factor } else { 1 };
    Range { min: settings.latency_ms.min * factor, max: settings.latency_ms.max * factor }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Splitmix64: enough chance for a simulator, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Evenly from 0 to 1, 1 excluded.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly from 0 to `bound`, `bound` excluded; 0 for a bound of 0.
    fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
