//! What one courier booked and voided, in compact entries, bounded in number.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// A caller's name for one booking: `<uuid>-<attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    id: Uuid,
    attempt: u32,
}

impl std::str::FromStr for Reference {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (id, attempt) = text.rsplit_once('-').ok_or(())?;
        // Only the spelling that Display writes: one booking has one name.
        let canonical = id.len() == 36 && attempt.bytes().all(|b| b.is_ascii_digit());
        if !canonical || (attempt.len() > 1 && attempt.starts_with('0')) {
            return Err(());
        }
        Ok(Reference {
            id: Uuid::try_parse(id).map_err(|_| ())?,
            attempt: attempt.parse().map_err(|_| ())?,
        })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.id, self.attempt)
    }
}

/// A booking as it was made; 48 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Booking {
    pub(super) order: Uuid,
    /// Counts this courier's bookings; the ids are made of it.
    pub(super) number: u64,
    pub(super) price_minor: i64,
    pub(super) promised_at: i64,
    pub(super) currency: [u8; 3],
}

#[derive(Debug, Clone, Copy)]
enum Entry {
    Live(Booking),
    /// Booked then voided, or voided before any booking arrived.
    Voided,
}

/// What came of a booking call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Booked {
    New(Booking),
    Again(Booking),
    /// The reference was voided before.
    Voided,
    /// The reference belongs to another order.
    OtherOrder,
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Live(Booking),
    Voided,
    Unknown,
}

/// Totals since the start; they go on counting what was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) booked: u64,
    pub(super) voided: u64,
    /// Voids of references that were never booked.
    pub(super) barred: u64,
    /// Entries dropped because the ledger was full: beyond these, idempotency ends.
    pub(super) forgotten: u64,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Reference, Entry>,
    oldest_first: VecDeque<Reference>,
    totals: Totals,
}

const SHARDS: usize = 16;

/// One courier's entries, sharded so that an audit holds no call up for long.
pub(super) struct Ledger {
    shards: [Mutex<Shard>; SHARDS],
    kept_by_shard: usize,
}

impl Ledger {
    /// Keeps about `kept` entries, then forgets the oldest.
    pub(super) fn new(kept: usize) -> Self {
        Ledger {
            shards: std::array::from_fn(|_| Mutex::default()),
            kept_by_shard: (kept / SHARDS).max(1),
        }
    }

    fn shard(&self, reference: &Reference) -> MutexGuard<'_, Shard> {
        // The last byte is random in every version of UUID in use here.
        let index = usize::from(reference.id.as_bytes()[15]) % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books, unless the reference was booked or voided before. `make` is called only when new.
    pub(super) fn book(
        &self,
        reference: Reference,
        order: Uuid,
        make: impl FnOnce() -> Booking,
    ) -> Booked {
        let mut shard = self.shard(&reference);
        match shard.entries.get(&reference) {
            Some(Entry::Live(booking)) if booking.order == order => Booked::Again(*booking),
            Some(Entry::Live(_)) => Booked::OtherOrder,
            Some(Entry::Voided) => Booked::Voided,
            None => {
                let booking = make();
                shard.totals.booked += 1;
                shard.remember(reference, Entry::Live(booking), self.kept_by_shard);
                Booked::New(booking)
            }
        }
    }

    /// Voids the reference, known or not; again changes nothing.
    pub(super) fn void(&self, reference: Reference) {
        let mut shard = self.shard(&reference);
        match shard.entries.get(&reference).copied() {
            Some(Entry::Live(_)) => {
                shard.totals.voided += 1;
                shard.entries.insert(reference, Entry::Voided);
            }
            Some(Entry::Voided) => {}
            None => {
                shard.totals.barred += 1;
                shard.remember(reference, Entry::Voided, self.kept_by_shard);
            }
        }
    }

    pub(super) fn find(&self, reference: Reference) -> Found {
        match self.shard(&reference).entries.get(&reference) {
            Some(Entry::Live(booking)) => Found::Live(*booking),
            Some(Entry::Voided) => Found::Voided,
            None => Found::Unknown,
        }
    }

    pub(super) fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for shard in &self.shards {
            let totals = shard.lock().unwrap_or_else(PoisonError::into_inner).totals;
            sum.booked += totals.booked;
            sum.voided += totals.voided;
            sum.barred += totals.barred;
            sum.forgotten += totals.forgotten;
        }
        sum
    }

    /// Visits every live booking that is still remembered, shard by shard.
    pub(super) fn for_each_live(&self, mut visit: impl FnMut(&Reference, &Booking)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (reference, entry) in &shard.entries {
                if let Entry::Live(booking) = entry {
                    visit(reference, booking);
                }
            }
        }
    }
}

impl Shard {
    fn remember(&mut self, reference: Reference, entry: Entry, kept: usize) {
        self.entries.insert(reference, entry);
        self.oldest_first.push_back(reference);
        while self.entries.len() > kept {
            let Some(oldest) = self.oldest_first.pop_front() else { return };
            self.entries.remove(&oldest);
            self.totals.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(attempt: u32) -> Reference {
        Reference { id: Uuid::from_u128(7), attempt }
    }

    fn booking(order: u128) -> Booking {
        Booking {
            order: Uuid::from_u128(order),
            number: 1,
            price_minor: 450,
            promised_at: 0,
            currency: *b"GBP",
        }
    }

    fn book(ledger: &Ledger, attempt: u32, order: u128) -> Booked {
        ledger.book(reference(attempt), Uuid::from_u128(order), || booking(order))
    }

    #[test]
    fn a_reference_books_once_and_never_after_its_void() {
        let ledger = Ledger::new(1000);
        assert_eq!(book(&ledger, 1, 5), Booked::New(booking(5)));
        assert_eq!(book(&ledger, 1, 5), Booked::Again(booking(5)));
        assert_eq!(book(&ledger, 1, 6), Booked::OtherOrder);
        ledger.void(reference(1));
        ledger.void(reference(1));
        assert_eq!(book(&ledger, 1, 5), Booked::Voided);
        ledger.void(reference(2));
        assert_eq!(book(&ledger, 2, 5), Booked::Voided);
        assert_eq!(ledger.find(reference(3)), Found::Unknown);
        let totals = Totals { booked: 1, voided: 1, barred: 1, forgotten: 0 };
        assert_eq!(ledger.totals(), totals);
    }

    #[test]
    fn the_oldest_are_forgotten_and_counted() {
        let ledger = Ledger::new(SHARDS * 2);
        for attempt in 0..5 {
            book(&ledger, attempt, u128::from(attempt));
        }
        assert_eq!(ledger.find(reference(2)), Found::Unknown);
        assert_eq!(ledger.find(reference(3)), Found::Live(booking(3)));
        assert_eq!(ledger.totals().forgotten, 3);
    }

    #[test]
    fn references_have_one_spelling() {
        let text = "a3bb189e-8bf9-3888-9912-ace4e6543002-12";
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        for wrong in ["", "12", "a3bb189e-8bf9-3888-9912-ace4e6543002", "x-1", "-1"] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        assert!(text.replace("-12", "-012").parse::<Reference>().is_err());
        assert!(text.replace("-12", "-+2").parse::<Reference>().is_err());
    }

    #[test]
    fn entries_stay_compact() {
        assert!(std::mem::size_of::<(Reference, Entry)>() <= 80);
    }
}
