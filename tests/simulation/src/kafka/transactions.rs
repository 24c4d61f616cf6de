//! The transaction coordinator, protocol v1: producer ids and epochs, fencing, EndTxn that is taken
//! from anyone with the right epoch, markers that are written one by one after the decision.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refused, Tp};

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// None so far.
    Empty,
    /// Under way.
    Ongoing,
    /// Decided (`true` = committed), markers are being written.
    Ending(bool),
    /// Over.
    Ended(bool),
}

/// One `transactional.id`.
#[derive(Debug)]
pub struct Txn {
    /// Producer id.
    pub producer: u64,
    /// Its present epoch.
    pub epoch: i32,
    /// Where its transaction stands.
    pub state: State,
    /// Partitions that get markers.
    pub partitions: BTreeSet<Tp>,
    /// Group offsets that the transaction commits.
    pub offsets: Vec<(Tp, i64)>,
    /// When it began, microseconds.
    pub began: u64,
}

/// What an ending transaction asks its broker to write.
#[derive(Debug)]
pub struct Markers {
    /// Whose.
    pub id: String,
    /// Where.
    pub partitions: BTreeSet<Tp>,
}

/// The coordinator.
#[derive(Debug, Default)]
pub struct Coordinator {
    /// Every `transactional.id` ever seen.
    pub txns: BTreeMap<String, Txn>,
    producers: u64,
}

impl Coordinator {
    /// InitProducerId: a new epoch, once nothing is open any more. `Err(Concurrent)` asks for another
    /// try; markers are to be written where one is returned.
    pub fn init(&mut self, id: &str) -> (Result<(u64, i32), Refused>, Option<Markers>) {
        let producers = &mut self.producers;
        let txn = self.txns.entry(id.to_string()).or_insert_with(|| {
            *producers += 1;
            let (partitions, offsets) = (BTreeSet::new(), vec![]);
            let state = State::Empty;
            Txn { producer: *producers, epoch: -1, state, partitions, offsets, began: 0 }
        });
        match txn.state {
            State::Ongoing => {
                txn.epoch += 1;
                (Err(Refused::Concurrent), Some(end(id, txn, false)))
            }
            State::Ending(_) => (Err(Refused::Concurrent), None),
            State::Empty | State::Ended(_) => {
                txn.epoch += 1;
                txn.state = State::Empty;
                (Ok((txn.producer, txn.epoch)), None)
            }
        }
    }

    /// AddPartitionsToTxn, AddOffsetsToTxn: the transaction begins here, not at the client.
    pub fn join(&mut self, id: &str, epoch: i32, tp: Option<Tp>, now: u64) -> Result<(), Refused> {
        let txn = self.current(id, epoch)?;
        match txn.state {
            State::Ending(_) => return Err(Refused::Concurrent),
            State::Ongoing => {}
            State::Empty | State::Ended(_) => {
                txn.state = State::Ongoing;
                txn.partitions.clear();
                txn.offsets.clear();
                txn.began = now;
            }
        }
        txn.partitions.extend(tp);
        Ok(())
    }

    /// Partition verification: is this partition part of an ongoing transaction?
    pub fn verify(&mut self, id: &str, epoch: i32, tp: Tp) -> Result<(), Refused> {
        let txn = self.current(id, epoch)?;
        match txn.state {
            State::Ongoing if txn.partitions.contains(&tp) => Ok(()),
            _ => Err(Refused::InvalidState),
        }
    }

    /// EndTxn: accepted from anyone who knows the epoch, whichever transaction he means.
    pub fn end(&mut self, id: &str, epoch: i32, commit: bool) -> Result<Option<Markers>, Refused> {
        let txn = self.current(id, epoch)?;
        match txn.state {
            State::Ongoing => Ok(Some(end(id, txn, commit))),
            State::Ending(was) if was == commit => Err(Refused::Concurrent),
            State::Ended(was) if was == commit => Ok(None),
            _ => Err(Refused::InvalidState),
        }
    }

    /// Ends what has been open for too long; its producer is fenced.
    pub fn sweep(&mut self, now: u64, longest: u64) -> Vec<Markers> {
        let late = |txn: &Txn| txn.state == State::Ongoing && now - txn.began > longest;
        let mut ended = vec![];
        for (id, txn) in self.txns.iter_mut().filter(|(_, txn)| late(txn)) {
            txn.epoch += 1;
            ended.push(end(id, txn, false));
        }
        ended
    }

    fn current(&mut self, id: &str, epoch: i32) -> Result<&mut Txn, Refused> {
        let txn = self.txns.get_mut(id).ok_or(Refused::InvalidState)?;
        if txn.epoch == epoch { Ok(txn) } else { Err(Refused::Fenced) }
    }
}

fn end(id: &str, txn: &mut Txn, commit: bool) -> Markers {
    txn.state = State::Ending(commit);
    Markers { id: id.to_string(), partitions: txn.partitions.clone() }
}
