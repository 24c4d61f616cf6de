//! Who waits for which order's next status, and how far the log was followed for them.
//!
//! Watchers are kept by order id in shards. A change of an order that nobody watches costs one look into a shard and is
//! not even decoded. A watcher holds a queue of [`QUEUE`] changes; one that does not take them is dropped, and its
//! client resumes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{Merchant, OrderId, topics};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::database::Event;

const SHARDS: usize = 64;
/// Changes that a watcher may be behind: more than an order usually has.
const QUEUE: usize = 16;

/// Why nobody can watch now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// The log is not followed (yet).
    NotFollowing,
    /// There are as many watchers as may be.
    Full,
    /// The merchant has as many as one may have.
    MerchantFull,
}

/// See the module.
pub(crate) struct Hub {
    shards: Vec<Mutex<HashMap<Uuid, Vec<Entry>>>>,
    /// Per partition: behind the last record that was passed on.
    positions: Vec<AtomicI64>,
    following: AtomicBool,
    closed: AtomicBool,
    places: Mutex<Places>,
    bounds: Bounds,
    next: AtomicU64,
}

/// How many watchers there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) all: usize,
    /// Of one merchant, so that none takes the places of all others.
    pub(crate) of_merchant: usize,
}

#[derive(Default)]
struct Places {
    taken: usize,
    by_merchant: HashMap<Arc<Merchant>, usize>,
}

struct Entry {
    number: u64,
    queue: mpsc::Sender<Arc<Event>>,
}

impl Hub {
    /// A hub for so many watchers, which nobody follows the log for yet.
    pub(crate) fn new(partitions: i32, bounds: Bounds) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            positions: (0..partitions).map(|_| AtomicI64::new(0)).collect(),
            following: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            places: Mutex::default(),
            bounds,
            next: AtomicU64::new(0),
        }
    }

    /// From now on every change of the order that is not before [`Watcher::from`] in the log reaches the watcher.
    pub(crate) fn watch(
        self: &Arc<Self>,
        merchant: &Arc<Merchant>,
        order_id: OrderId,
    ) -> Result<Watcher, NotNow> {
        let place = Place::take(self, merchant)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (queue, changes) = mpsc::channel(QUEUE);
        {
            let mut shard = self.shard(order_id.0);
            if !self.following.load(Ordering::SeqCst) || self.closed.load(Ordering::SeqCst) {
                return Err(NotNow::NotFollowing);
            }
            shard.entry(order_id.0).or_default().push(Entry { number, queue });
        }
        let mut watcher = Watcher { place, order_id, number, changes, partition: 0, from: 0 };
        watcher.partition = topics::partition_for(
            order_id.as_bytes(),
            i32::try_from(self.positions.len()).unwrap_or(i32::MAX),
        );
        // A record that was looked up before the watcher was there had moved the position before that.
        watcher.from = watcher.position();
        Ok(watcher)
    }

    /// The follower is about to look the next record up. Whoever comes later has to ask the store for it.
    pub(super) fn passing(&self, partition: i32, offset: i64) {
        if let Some(position) = usize::try_from(partition).ok().and_then(|n| self.positions.get(n))
        {
            position.store(offset + 1, Ordering::SeqCst);
        }
    }

    /// Whether anybody watches the order.
    pub(super) fn watches(&self, order_id: Uuid) -> bool {
        self.shard(order_id).contains_key(&order_id)
    }

    /// Tells those who watch the order.
    pub(super) fn tell(&self, order_id: Uuid, change: &Arc<Event>) {
        let mut shard = self.shard(order_id);
        let Some(entries) = shard.get_mut(&order_id) else { return };
        entries.retain(|entry| entry.queue.try_send(Arc::clone(change)).is_ok());
        if entries.is_empty() {
            shard.remove(&order_id);
        }
    }

    /// The log is followed without a gap from the positions on.
    pub(super) fn following(&self) {
        self.following.store(true, Ordering::SeqCst);
    }

    /// The place in the log is lost: every watch ends.
    pub(super) fn lost(&self) {
        self.following.store(false, Ordering::SeqCst);
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// The process ends: every watch does, and none begins.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.lost();
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, id: Uuid) -> MutexGuard<'_, HashMap<Uuid, Vec<Entry>>> {
        // Ids are digests, so any byte spreads them.
        let shard = usize::from(id.as_bytes()[15]) % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the places that there are for watchers.
struct Place {
    hub: Arc<Hub>,
    merchant: Arc<Merchant>,
}

impl Place {
    fn take(hub: &Arc<Hub>, merchant: &Arc<Merchant>) -> Result<Self, NotNow> {
        let mut places = hub.places();
        let own = places.by_merchant.get(merchant).copied().unwrap_or_default();
        if places.taken >= hub.bounds.all {
            return Err(NotNow::Full);
        }
        if own >= hub.bounds.of_merchant {
            return Err(NotNow::MerchantFull);
        }
        places.taken += 1;
        places.by_merchant.insert(Arc::clone(merchant), own + 1);
        wire::telemetry::ORDER_WATCHERS.inc();
        Ok(Self { hub: Arc::clone(hub), merchant: Arc::clone(merchant) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.hub.places();
        places.taken -= 1;
        if let Some(own) = places.by_merchant.get_mut(&self.merchant) {
            *own -= 1;
            if *own == 0 {
                places.by_merchant.remove(&self.merchant);
            }
        }
        wire::telemetry::ORDER_WATCHERS.dec();
    }
}

/// Hears of an order's changes until dropped.
pub(crate) struct Watcher {
    place: Place,
    order_id: OrderId,
    number: u64,
    changes: mpsc::Receiver<Arc<Event>>,
    /// The order's partition.
    pub(super) partition: i32,
    /// Changes before this offset may be missed.
    pub(super) from: i64,
}

impl Watcher {
    /// The next change, in the log's order; `None` once the watch has ended: ask again. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Arc<Event>> {
        self.changes.recv().await
    }

    /// Where the follower is in the order's partition.
    pub(super) fn position(&self) -> i64 {
        let position =
            usize::try_from(self.partition).ok().and_then(|n| self.place.hub.positions.get(n));
        position.map_or(0, |position| position.load(Ordering::SeqCst))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut shard = self.place.hub.shard(self.order_id.0);
        if let Some(entries) = shard.get_mut(&self.order_id.0) {
            entries.retain(|entry| entry.number != self.number);
            if entries.is_empty() {
                shard.remove(&self.order_id.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: u128) -> OrderId {
        OrderId(Uuid::from_u128(n))
    }

    fn change(version: i32) -> Arc<Event> {
        Arc::new(Event::sample(version, "reserved", ""))
    }

    fn merchant(name: &str) -> Arc<Merchant> {
        Arc::new(Merchant::parse(name).unwrap())
    }

    fn hub(all: usize) -> Arc<Hub> {
        let hub = Arc::new(Hub::new(1, Bounds { all, of_merchant: all }));
        hub.following();
        hub
    }

    #[tokio::test]
    async fn everybody_who_watches_an_order_hears_of_it_and_nobody_else() {
        let (hub, shop) = (hub(10), merchant("shop"));
        hub.passing(0, 41);
        let (mut a, mut b) =
            (hub.watch(&shop, order(1)).unwrap(), hub.watch(&shop, order(1)).unwrap());
        let mut other = hub.watch(&shop, order(2)).unwrap();
        assert_eq!((a.from, a.position()), (42, 42));
        hub.passing(0, 42);
        assert_eq!((a.from, a.position()), (42, 43));
        assert!(hub.watches(order(1).0) && !hub.watches(order(3).0));
        hub.tell(order(1).0, &change(2));
        hub.tell(order(3).0, &change(9));
        assert_eq!(a.next().await.unwrap().version, 2);
        assert_eq!(b.next().await.unwrap().version, 2);
        assert!(other.changes.try_recv().is_err());
        drop(a);
        assert!(hub.watches(order(1).0));
        drop(b);
        assert!(!hub.watches(order(1).0), "nothing is left of those who are gone");
    }

    #[tokio::test]
    async fn who_does_not_listen_is_dropped() {
        let (hub, shop) = (hub(10), merchant("shop"));
        let mut slow = hub.watch(&shop, order(1)).unwrap();
        for version in 1..=20 {
            hub.tell(order(1).0, &change(version));
        }
        assert!(!hub.watches(order(1).0));
        let mut heard = 0;
        while slow.next().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, QUEUE);
    }

    #[tokio::test]
    async fn watchers_are_bounded_and_end_with_the_log_and_the_process() {
        let hub = Arc::new(Hub::new(1, Bounds { all: 1, of_merchant: 1 }));
        let shop = merchant("shop");
        assert_eq!(hub.watch(&shop, order(1)).err(), Some(NotNow::NotFollowing));
        hub.following();
        let mut one = hub.watch(&shop, order(1)).unwrap();
        assert_eq!(hub.watch(&shop, order(2)).err(), Some(NotNow::Full));
        hub.lost();
        assert!(one.next().await.is_none());
        drop(one);
        hub.following();
        let mut one = hub.watch(&shop, order(1)).unwrap();
        hub.close();
        assert!(one.next().await.is_none());
        hub.following();
        drop(one);
        assert_eq!(hub.watch(&shop, order(1)).err(), Some(NotNow::NotFollowing));
    }

    #[test]
    fn one_merchant_does_not_take_everybodys_place() {
        let hub = Arc::new(Hub::new(1, Bounds { all: 3, of_merchant: 2 }));
        hub.following();
        let (shop, other) = (merchant("shop"), merchant("other"));
        let first = hub.watch(&shop, order(1)).unwrap();
        let second = hub.watch(&shop, order(1)).unwrap();
        assert_eq!(hub.watch(&merchant("shop"), order(2)).err(), Some(NotNow::MerchantFull));
        let others = hub.watch(&other, order(3)).unwrap();
        assert_eq!(hub.watch(&other, order(3)).err(), Some(NotNow::Full));
        drop(first);
        assert!(hub.watch(&shop, order(2)).is_ok());
        drop((second, others));
        assert!(hub.places().by_merchant.is_empty(), "nothing is left of those who are gone");
        assert_eq!(hub.places().taken, 0);
    }
}
