//! What was clicked in the last minutes: order id → merchant, fingerprint and how it ended.
//!
//! A click enters here before its record is handed over, so that parallel clicks find each other; the
//! tail of the `orders` topic adds what sibling processes accepted. Bounded by age and number: entries
//! live in generations that are dropped whole, in shards so that no lock is held for long.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use events::{Fingerprint, Merchant, Millis};
use uuid::Uuid;

use crate::publish::{Outcome, Settled};

const SHARDS: usize = 64;
/// An entry outlives the window by at most one generation.
const GENERATIONS: usize = 4;

/// How far an order has got, as far as this process knows.
#[derive(Debug, Clone)]
pub enum Progress {
    /// Clicked here; the outcome tells the rest.
    Clicked(Arc<Outcome>),
    /// Seen in the topic.
    Logged {
        /// Append time of its first record.
        accepted_at: Millis,
    },
}

/// One order (or receipt) of the last minutes.
#[derive(Debug, Clone)]
pub struct Click {
    /// Whose it is.
    pub merchant: Arc<Merchant>,
    /// Digest of its first request.
    pub fingerprint: Fingerprint,
    /// How far it has got.
    pub progress: Progress,
}

impl Click {
    /// When it was accepted, if it is known to be.
    pub fn accepted_at(&self) -> Option<Millis> {
        match &self.progress {
            Progress::Logged { accepted_at } => Some(*accepted_at),
            Progress::Clicked(outcome) => match outcome.get() {
                Some(Settled::Acknowledged { at, .. }) => Some(at.unwrap_or_else(now)),
                _ => None,
            },
        }
    }
}

/// What a click finds.
#[derive(Debug)]
pub enum Claim {
    /// Nobody was here: the caller publishes and settles this outcome.
    First(Arc<Outcome>),
    /// Another click was first.
    Repeat(Click),
}

/// See the module.
#[derive(Debug)]
pub struct Recent {
    shards: Vec<Mutex<Shard>>,
    generation_age: Duration,
    generation_size: usize,
}

#[derive(Debug, Default)]
struct Shard {
    /// Newest first.
    generations: VecDeque<Generation>,
}

#[derive(Debug)]
struct Generation {
    since: Instant,
    clicks: HashMap<Uuid, Click>,
}

impl Recent {
    /// Remembers clicks for `window`, at most about `most` of them.
    pub fn new(window: Duration, most: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation_age: window / (u32::try_from(GENERATIONS).expect("a few") - 1),
            generation_size: (most / SHARDS / GENERATIONS).max(1),
        }
    }

    /// Makes the caller the one who publishes, unless somebody was or is. An attempt that was refused
    /// leaves no trace; one with an unknown outcome makes the next one doubtful.
    pub fn claim(
        &self,
        id: Uuid,
        merchant: &Arc<Merchant>,
        fingerprint: Fingerprint,
        records: usize,
        now: Instant,
    ) -> Claim {
        let mut shard = self.shard(id);
        let mut doubtful = false;
        if let Some(click) = shard.find(id) {
            match &click.progress {
                Progress::Clicked(outcome) => match outcome.get() {
                    Some(Settled::Refused(_)) => doubtful = outcome.doubtful,
                    Some(Settled::Unknown) => doubtful = true,
                    Some(Settled::Acknowledged { .. }) | None => {
                        return Claim::Repeat(click.clone());
                    }
                },
                Progress::Logged { .. } => return Claim::Repeat(click.clone()),
            }
        }
        let outcome = Arc::new(Outcome::new(records, doubtful));
        let progress = Progress::Clicked(Arc::clone(&outcome));
        let click = Click { merchant: Arc::clone(merchant), fingerprint, progress };
        shard.forget(id);
        shard.insert(id, click, now, self);
        Claim::First(outcome)
    }

    /// Forgets a click that was refused, so that refusals use no memory; a doubt stays.
    pub fn release(&self, id: Uuid, outcome: &Arc<Outcome>) {
        let mut shard = self.shard(id);
        let own = shard.find(id).is_some_and(|click| match &click.progress {
            Progress::Clicked(current) => Arc::ptr_eq(current, outcome) && !current.doubtful,
            Progress::Logged { .. } => false,
        });
        if own {
            shard.forget(id);
        }
    }

    /// What is known of an order.
    pub fn find(&self, id: Uuid) -> Option<Click> {
        self.shard(id).find(id).cloned()
    }

    /// An order's record was seen in the topic; the first one counts, and it counts for more than what
    /// was clicked here.
    pub fn logged(
        &self,
        id: Uuid,
        merchant: &Arc<Merchant>,
        fingerprint: Fingerprint,
        accepted_at: Millis,
        now: Instant,
    ) {
        let progress = Progress::Logged { accepted_at };
        let seen = Click { merchant: Arc::clone(merchant), fingerprint, progress };
        let mut shard = self.shard(id);
        match shard.find_mut(id) {
            Some(click) if matches!(click.progress, Progress::Logged { .. }) => {}
            Some(click) => *click = seen,
            None => shard.insert(id, seen, now, self),
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.generations.iter().map(|g| g.clicks.len()).sum::<usize>()
        };
        self.shards.iter().map(count).sum()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: Uuid) -> MutexGuard<'_, Shard> {
        // Ids are digests, so any byte spreads them.
        let shard = usize::from(id.as_bytes()[15]) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn find(&self, id: Uuid) -> Option<&Click> {
        self.generations.iter().find_map(|generation| generation.clicks.get(&id))
    }

    fn find_mut(&mut self, id: Uuid) -> Option<&mut Click> {
        self.generations.iter_mut().find_map(|generation| generation.clicks.get_mut(&id))
    }

    fn forget(&mut self, id: Uuid) {
        for generation in &mut self.generations {
            generation.clicks.remove(&id);
        }
    }

    fn insert(&mut self, id: Uuid, click: Click, now: Instant, limits: &Recent) {
        let full = self.generations.front().is_none_or(|newest| {
            newest.clicks.len() >= limits.generation_size
                || now.saturating_duration_since(newest.since) >= limits.generation_age
        });
        if full {
            self.generations.truncate(GENERATIONS - 1);
            self.generations.push_front(Generation { since: now, clicks: HashMap::new() });
        }
        if let Some(newest) = self.generations.front_mut() {
            newest.clicks.insert(id, click);
        }
    }
}

/// UTC milliseconds now, for where the broker didn't say.
fn now() -> Millis {
    Millis(chrono::Utc::now().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Refusal;

    const WINDOW: Duration = Duration::from_secs(900);

    fn shop() -> Arc<Merchant> {
        Arc::new(Merchant::parse("shop").unwrap())
    }

    fn print(n: u128) -> Fingerprint {
        Fingerprint(Uuid::from_u128(n))
    }

    fn first(recent: &Recent, id: u128, now: Instant) -> Arc<Outcome> {
        match recent.claim(Uuid::from_u128(id), &shop(), print(1), 1, now) {
            Claim::First(outcome) => outcome,
            Claim::Repeat(click) => panic!("{click:?} was first"),
        }
    }

    fn repeat(recent: &Recent, id: u128, now: Instant) -> Click {
        match recent.claim(Uuid::from_u128(id), &shop(), print(2), 1, now) {
            Claim::First(_) => panic!("nobody was first"),
            Claim::Repeat(click) => click,
        }
    }

    #[test]
    fn parallel_clicks_share_one_outcome() {
        let (recent, now) = (Recent::new(WINDOW, 1000), Instant::now());
        let outcome = first(&recent, 1, now);
        let click = repeat(&recent, 1, now);
        assert_eq!(click.fingerprint, print(1), "the first one's");
        assert_eq!(click.accepted_at(), None);
        outcome.acknowledged(Some(Millis(7)), Some(0));
        assert_eq!(click.accepted_at(), Some(Millis(7)));
        assert_eq!(repeat(&recent, 1, now).accepted_at(), Some(Millis(7)));
    }

    #[test]
    fn a_refused_attempt_leaves_no_trace_and_an_unknown_one_a_doubt() {
        let (recent, now) = (Recent::new(WINDOW, 1000), Instant::now());
        let refused = first(&recent, 1, now);
        refused.refused(Refusal::Busy);
        recent.release(Uuid::from_u128(1), &refused);
        assert!(recent.is_empty());
        let second = first(&recent, 1, now);
        assert!(!second.doubtful);
        second.unknown();
        let third = first(&recent, 1, now);
        assert!(third.doubtful);
        third.refused(Refusal::Busy);
        recent.release(Uuid::from_u128(1), &third);
        assert!(first(&recent, 1, now).doubtful, "a refusal doesn't clear the doubt");
        assert_eq!(recent.len(), 1);
    }

    #[test]
    fn the_first_record_in_the_topic_counts() {
        let (recent, now) = (Recent::new(WINDOW, 1000), Instant::now());
        let id = Uuid::from_u128(1);
        first(&recent, 1, now).acknowledged(Some(Millis(20)), Some(2));
        recent.logged(id, &shop(), print(5), Millis(10), now);
        recent.logged(id, &shop(), print(1), Millis(20), now);
        let click = recent.find(id).unwrap();
        assert_eq!((click.fingerprint, click.accepted_at()), (print(5), Some(Millis(10))));
        assert!(recent.find(Uuid::from_u128(2)).is_none());
    }

    #[test]
    fn memory_is_bounded_by_age_and_by_number() {
        let start = Instant::now();
        let recent = Recent::new(WINDOW, 10_000);
        for n in 0..100_000_u128 {
            // Spread over the shards by the last byte.
            recent.logged(Uuid::from_u128(n), &shop(), print(n), Millis(0), start);
        }
        assert!((5_000..=10_000).contains(&recent.len()), "{}", recent.len());
        assert!(recent.find(Uuid::from_u128(99_999)).is_some());
        assert!(recent.find(Uuid::from_u128(0)).is_none());

        let recent = Recent::new(WINDOW, 10_000);
        first(&recent, 0, start);
        let mut now = start;
        for minute in 1..=30_u32 {
            now = start + Duration::from_secs(60) * minute;
            first(&recent, u128::from(minute) << 64, now);
            let kept = recent.find(Uuid::from_u128(0)).is_some();
            assert!(kept || minute > 15, "the window holds {minute}");
        }
        assert!(recent.find(Uuid::from_u128(0)).is_none(), "gone after the window");
        assert!(recent.find(Uuid::from_u128(20 << 64)).is_some(), "{now:?}");
    }
}
