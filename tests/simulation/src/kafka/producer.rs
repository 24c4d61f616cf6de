//! A transactional producer's client: its queue, what it believes of its transaction, and how its
//! records reach the partitions, a few at a time.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use events::Millis;

use super::log::Record;
use super::{Kafka, Refused, Tp};

/// A record on its way.
#[derive(Debug)]
pub struct Queued {
    /// Where to.
    pub tp: Tp,
    /// What.
    pub record: Rc<Record>,
    /// A footer's index.
    pub footer: Option<usize>,
}

/// A producer.
#[derive(Debug)]
pub struct Producer {
    /// `transactional.id`.
    pub id: String,
    /// Producer id and epoch.
    pub owner: (u64, i32),
    /// Not delivered yet.
    pub queue: VecDeque<Queued>,
    /// Partitions that it has added to its transaction.
    added: BTreeSet<Tp>,
    /// The first record that was not delivered: why.
    pub failed: Option<String>,
    /// Delivered footers: index and offset.
    pub footers: Vec<(usize, i64)>,
    /// Process and its life.
    pub home: (usize, u64),
}

impl Producer {
    /// A producer that is ready.
    pub fn new(id: &str, owner: (u64, i32), home: (usize, u64)) -> Self {
        Self {
            id: id.to_string(),
            owner,
            queue: VecDeque::new(),
            added: BTreeSet::new(),
            failed: None,
            footers: vec![],
            home,
        }
    }

    /// A transaction begins: nothing is added to it yet.
    pub fn begin(&mut self) {
        self.added.clear();
    }

    /// Gives up everything that is queued.
    pub fn fail(&mut self, reason: &str) {
        self.queue.clear();
        self.failed.get_or_insert_with(|| reason.to_string());
    }

    /// Delivers up to `most` records. `false`: an earlier transaction is still ending, try again.
    pub fn deliver(&mut self, kafka: &mut Kafka, most: usize, now: u64, at: Millis) -> bool {
        for _ in 0..most {
            let Some(next) = self.queue.front() else { return true };
            match self.append(kafka, next.tp, now) {
                Err(Refused::Concurrent) => return false,
                Err(refused) => {
                    self.fail(&refused.to_string());
                    return true;
                }
                Ok(()) => {}
            }
            let next = self.queue.pop_front().expect("looked at above");
            self.added.insert(next.tp);
            let offset = kafka.log_mut(next.tp).append(at, next.record, Some(self.owner));
            self.footers.extend(next.footer.map(|index| (index, offset)));
        }
        true
    }

    /// May a record be appended there?
    fn append(&self, kafka: &mut Kafka, tp: Tp, now: u64) -> Result<(), Refused> {
        let (producer, epoch) = self.owner;
        if !self.added.contains(&tp) {
            kafka.coordinator.join(&self.id, epoch, Some(tp), now)?;
        }
        if kafka.log(tp).fences(producer, epoch) {
            return Err(Refused::Fenced);
        }
        if !kafka.log(tp).is_open(producer) {
            kafka.coordinator.verify(&self.id, epoch, tp)?;
        }
        Ok(())
    }
}
