//! A circuit breaker: *closed* (asked as usual) → *open* (rested) → *half-open* (probed) → closed,
//! or open again for longer.
//!
//! The window suits a handful of couriers with tens of calls a minute: the last 32 calls, forgotten
//! after two quiet minutes. resilience4j's defaults (100 calls, 60 s) learn too late for them, and
//! Envoy's "at most a tenth out" means nothing among three: here the choice asks who went out last
//! when all are out (`choice.rs`).

use events::{BreakerState, CallOutcome, Millis};
use serde::{Deserialize, Serialize};

/// Calls in a window.
const WINDOW: u8 = 32;
/// Calls before a rate says anything.
const ENOUGH: u32 = 10;
/// Bad calls in a row that need no rate.
const IN_A_ROW: u8 = 5;
/// Time-outs in a row that need no rate: each costs an order its whole patience.
const TIMED_OUT_IN_A_ROW: u8 = 3;
/// A window without calls for so long is forgotten.
const FORGOTTEN_MS: i64 = 120_000;
/// Rest before the first probe: doubles from 2 s to 15 s, so that a courier that is well again has
/// traffic within half a minute.
const REST_MS: (i64, i64) = (2_000, 15_000);
/// A breaker that was closed for so long starts with the shortest rest again.
const WELL_MS: i64 = 60_000;
/// Probes that must succeed, and at most under way at once.
const PROBES: u8 = 3;
/// Probes whose answers are missing for so long are given up.
const PROBES_LOST_MS: i64 = 90_000;

/// What a call says about a courier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it with a refusal: a 4xx is about the consignment.
    Well,
    /// It answered late.
    Slow,
    /// It asks for fewer calls: half a failure.
    Throttled,
    /// It did not do it.
    Failed,
    /// It did not answer in time: a failure, and slow.
    TimedOut,
}

impl Verdict {
    /// What an answer says; `None`: nothing. Slow is what takes over half the courier's time-out.
    pub fn of(outcome: CallOutcome, latency_ms: i32, timeout_ms: i32) -> Option<Self> {
        match outcome {
            CallOutcome::NotSent => None,
            CallOutcome::Succeeded | CallOutcome::Refused if latency_ms > timeout_ms / 2 => {
                Some(Self::Slow)
            }
            CallOutcome::Succeeded | CallOutcome::Refused => Some(Self::Well),
            CallOutcome::Throttled => Some(Self::Throttled),
            CallOutcome::Failed => Some(Self::Failed),
            CallOutcome::TimedOut | CallOutcome::Unknown => Some(Self::TimedOut),
        }
    }

    /// Whether it counts against the courier.
    pub fn bad(self) -> bool {
        self != Self::Well
    }

    fn code(self) -> u64 {
        match self {
            Self::Well => 0,
            Self::Slow => 1,
            Self::Throttled => 2,
            Self::Failed | Self::TimedOut => 3,
        }
    }
}

/// Whether a courier may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permit {
    /// As usual.
    Yes,
    /// As a probe.
    Probe,
    /// Not now.
    No,
}

/// A breaker's row.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// The last calls, two bits each, newest lowest.
    codes: u64,
    /// How many of them count.
    calls: u8,
    /// Bad calls in a row.
    bad_run: u8,
    /// Time-outs in a row.
    timed_out_run: u8,
    state: State,
    /// Times it opened without being well for a minute in between.
    opened: u8,
    /// When it last changed its state.
    moved_at: Millis,
    /// The last call's answer.
    called_at: Millis,
}

/// The calls that a breaker looks at.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    codes: u64,
    calls: u8,
}

impl Window {
    /// How many.
    pub fn calls(self) -> u32 {
        u32::from(self.calls)
    }

    /// Whether one was bad; 0 is the newest.
    pub fn bad(self, call: u32) -> bool {
        self.codes.checked_shr(2 * call).unwrap_or(0) & 3 != 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum State {
    #[default]
    Closed,
    /// Until then.
    Open(Millis),
    /// Probes that succeeded, and those under way.
    HalfOpen(u8, u8),
}

impl Breaker {
    /// Its state, for people.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open(_) => BreakerState::Open,
            State::HalfOpen(..) => BreakerState::HalfOpen,
        }
    }

    /// When it will be probed first; open only.
    pub fn until(&self) -> Option<Millis> {
        match self.state {
            State::Open(until) => Some(until),
            _ => None,
        }
    }

    /// When it last changed its state.
    pub fn moved_at(&self) -> Millis {
        self.moved_at
    }

    /// Whether the courier may be asked now.
    pub fn permits(&self, now: Millis) -> Permit {
        match self.state {
            State::Closed => Permit::Yes,
            State::Open(until) if now >= until => Permit::Probe,
            State::Open(_) => Permit::No,
            State::HalfOpen(passed, out) => {
                let free = passed + out < PROBES || self.probes_lost(now);
                if free { Permit::Probe } else { Permit::No }
            }
        }
    }

    /// A probe is being sent.
    pub fn probe(&mut self, now: Millis) {
        let lost = self.probes_lost(now);
        match &mut self.state {
            State::Closed => {}
            State::HalfOpen(_, out) if !lost => *out = out.saturating_add(1),
            State::Open(_) | State::HalfOpen(..) => {
                self.state = State::HalfOpen(0, 1);
                self.moved_at = now;
            }
        }
    }

    /// Nothing was heard for longer than any call takes.
    fn probes_lost(&self, now: Millis) -> bool {
        now.0 - self.moved_at.0.max(self.called_at.0) > PROBES_LOST_MS
    }

    /// An answer has come in; `probe`: it was sent while the breaker was not closed. `jitter` is any
    /// number that differs between breakers; `may_open` has the last word before a closed one opens.
    /// The new state if it opened or closed.
    pub fn record(
        &mut self,
        verdict: Verdict,
        probe: bool,
        now: Millis,
        jitter: u64,
        may_open: impl FnOnce(Window) -> bool,
    ) -> Option<BreakerState> {
        self.note(verdict, now);
        match self.state {
            State::Closed if self.trips() && may_open(self.window()) => {
                if now.0 - self.moved_at.0 >= WELL_MS {
                    self.opened = 0;
                }
                self.open(now, jitter);
                Some(BreakerState::Open)
            }
            // What was sent before it opened says nothing new.
            State::Closed => None,
            _ if !probe => None,
            _ if verdict.bad() => {
                self.open(now, jitter);
                None
            }
            State::Open(_) => {
                self.state = State::HalfOpen(1, 0);
                self.moved_at = now;
                None
            }
            State::HalfOpen(passed, out) => {
                self.state = State::HalfOpen(passed + 1, out.saturating_sub(1));
                (passed + 1 >= PROBES).then(|| {
                    self.close(now);
                    BreakerState::Closed
                })
            }
        }
    }

    /// Another task found out that the courier is out; whether that is news here.
    pub fn heard_open(&mut self, until: Millis, now: Millis) -> bool {
        let news = self.state == State::Closed;
        if news {
            self.state = State::Open(until);
            self.moved_at = now;
        }
        news
    }

    /// Another task found out that the courier is well again; whether that is news here.
    pub fn heard_closed(&mut self, now: Millis) -> bool {
        let news = self.state != State::Closed;
        if news {
            self.close(now);
        }
        news
    }

    fn window(&self) -> Window {
        Window { codes: self.codes, calls: self.calls }
    }

    fn note(&mut self, verdict: Verdict, now: Millis) {
        if now.0 - self.called_at.0 > FORGOTTEN_MS {
            (self.codes, self.calls) = (0, 0);
        }
        self.called_at = now;
        self.codes = (self.codes << 2) | verdict.code();
        self.calls = (self.calls + 1).min(WINDOW);
        // Neither throttling nor slowness alone is a reason to hurry.
        let failed = matches!(verdict, Verdict::Failed | Verdict::TimedOut);
        self.bad_run = if failed { self.bad_run.saturating_add(1) } else { 0 };
        let timed_out = verdict == Verdict::TimedOut;
        self.timed_out_run = if timed_out { self.timed_out_run.saturating_add(1) } else { 0 };
    }

    /// At least half failed (throttling counts half), or four of five were slow.
    fn trips(&self) -> bool {
        if self.bad_run >= IN_A_ROW || self.timed_out_run >= TIMED_OUT_IN_A_ROW {
            return true;
        }
        let calls = u32::from(self.calls);
        if calls < ENOUGH {
            return false;
        }
        const LOW: u64 = 0x5555_5555_5555_5555;
        let window = if self.calls == WINDOW { u64::MAX } else { (1 << (2 * calls)) - 1 };
        let codes = self.codes & window;
        let (high, low) = ((codes >> 1) & LOW, codes & LOW);
        let failed = (high & low).count_ones();
        let throttled = (high & !low).count_ones();
        let slow = (low & !high).count_ones() + failed;
        2 * failed + throttled >= calls || 5 * slow >= 4 * calls
    }

    fn open(&mut self, now: Millis, jitter: u64) {
        let shift = u32::from(self.opened.min(8));
        let rest = REST_MS.0.saturating_mul(1 << shift).min(REST_MS.1);
        // A quarter more or less, so that tasks do not probe in step.
        let spread = i64::try_from(jitter % 512).unwrap_or(0) - 256;
        self.state = State::Open(now.plus(rest + rest * spread / 1_024));
        self.opened = self.opened.saturating_add(1);
        self.moved_at = now;
    }

    fn close(&mut self, now: Millis) {
        let (opened, called_at) = (self.opened, self.called_at);
        *self = Self { opened, called_at, moved_at: now, ..Self::default() };
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
