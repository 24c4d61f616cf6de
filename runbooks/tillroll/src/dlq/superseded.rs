//! Letters of compacted topics that a newer record of their key has overtaken: going back, they would take
//! its place.
//!
//! Newer is who first stood later. A record that went back stands at the end of its partition, and is as old
//! as its header says; by its offset it would look newer than the letters behind it that wait for their turn.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use events::topics::Retention;
use rdkafka::message::Message as _;

use super::letter::{self, Letter, Place};
use super::queue::Queue;
use crate::log::{Log, Wanted};

/// The letters that wait and are overtaken. Blocks.
///
/// # Errors
/// When Kafka does not answer.
pub(super) fn superseded(log: &Log, queue: &Queue) -> Result<BTreeSet<Place>> {
    let compacted = |letter: &&Letter| {
        letter::topic(&letter.place.topic).is_ok_and(|t| t.retention == Retention::Compacted)
    };
    let mut partitions: BTreeMap<(&str, i32), Partition<'_>> = BTreeMap::new();
    for letter in queue.waiting().filter(compacted) {
        let Place { topic, partition, .. } = &letter.place;
        partitions.entry((topic, *partition)).or_default().letters.push(letter);
    }
    let mut superseded = BTreeSet::new();
    for ((topic, partition), mut here) in partitions {
        let (first, end) = log.settled_bounds(topic, partition)?;
        let ranges = [(partition, (here.begins().max(first), end))].into();
        log.read(topic, &ranges, |message| {
            let offset = message.offset();
            let stands = Place { topic: topic.to_owned(), partition, offset };
            here.seen(message.key(), offset, letter::first(message.headers(), &stands).offset);
            Wanted::More
        })?;
        superseded.extend(here.superseded());
    }
    Ok(superseded)
}

/// A partition of a compacted topic: its letters that wait, and what stands in it.
#[derive(Debug, Default)]
struct Partition<'a> {
    letters: Vec<&'a Letter>,
    /// Of each key the turn of the newest record that is no letter.
    newest: BTreeMap<Option<Vec<u8>>, i64>,
}

impl Partition<'_> {
    /// Where to read from: nothing before can be newer than a letter.
    fn begins(&self) -> i64 {
        self.letters.iter().map(|letter| letter.first.offset).min().unwrap_or(0)
    }

    /// A record at this offset, and where it stood before it ever went back.
    fn seen(&mut self, key: Option<&[u8]>, offset: i64, turn: i64) {
        // Letters stand in the topic themselves.
        let is_letter = |letter: &&Letter| letter.place.offset == offset;
        let wanted = |letter: &&Letter| letter.key.as_deref() == key;
        if self.letters.iter().any(wanted) && !self.letters.iter().any(is_letter) {
            let newest = self.newest.entry(key.map(<[u8]>::to_vec)).or_insert(turn);
            *newest = turn.max(*newest);
        }
    }

    fn superseded(&self) -> impl Iterator<Item = Place> {
        let overtaken = |letter: &&&Letter| {
            self.newest.get(&letter.key).is_some_and(|newest| *newest > letter.first.offset)
        };
        self.letters.iter().filter(overtaken).map(|letter| letter.place.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::super::letter::{ATTEMPTS_HEADER, FIRST_HEADER};
    use super::*;

    fn superseded_by(letters: &[Letter], records: &[(&str, i64, i64)]) -> Vec<String> {
        let letters = letters.iter().collect();
        let mut partition = Partition { letters, newest: BTreeMap::new() };
        for (key, offset, turn) in records {
            partition.seen(Some(key.as_bytes()), *offset, *turn);
        }
        partition.superseded().map(|place| place.to_string()).collect()
    }

    #[test]
    fn a_newer_record_of_its_key_overtakes_a_letter() {
        let letters = [letter("stock-levels/0/4", "a", &[]), letter("stock-levels/0/6", "b", &[])];
        let itself = ("a", 4, 4);
        assert_eq!(superseded_by(&letters, &[itself, ("c", 5, 5), ("b", 3, 3)]), [""; 0]);
        assert_eq!(superseded_by(&letters, &[itself, ("a", 5, 5)]), ["stock-levels/0/4"]);
    }

    #[test]
    fn what_went_back_before_is_as_old_as_it_was() {
        // Of two letters of a key the older is back, and the run was interrupted: the newer one waits.
        let newer = letter("stock-levels/0/5", "a", &[]);
        assert_eq!(superseded_by(&[newer], &[("a", 4, 4), ("a", 10, 4)]), [""; 0]);
        // The other way round the newer one is back: the older must not take its place.
        let older = letter("stock-levels/0/4", "a", &[]);
        assert_eq!(superseded_by(&[older], &[("a", 5, 5), ("a", 10, 5)]), ["stock-levels/0/4"]);
    }

    #[test]
    fn a_letter_that_came_back_is_as_old_as_it_was() {
        let more = [(ATTEMPTS_HEADER, "1"), (FIRST_HEADER, "stock-levels/0/4")];
        let letters = [letter("stock-levels/0/90", "a", &more)];
        let begins = Partition { letters: letters.iter().collect(), newest: BTreeMap::new() };
        assert_eq!(begins.begins(), 4);
        let records = [("a", 4, 4), ("a", 50, 50), ("a", 90, 4)];
        assert_eq!(superseded_by(&letters, &records), ["stock-levels/0/90"]);
        assert_eq!(superseded_by(&letters, &[("a", 4, 4), ("a", 90, 4)]), [""; 0]);
    }
}
