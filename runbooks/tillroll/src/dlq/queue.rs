//! The queues, read to their ends: letters, each once, and what was decided about them.

use std::collections::BTreeMap;

use anyhow::Result;
use events::topics;

use super::filter::Filter;
use super::letter::{Decision, Letter, Place, Queued, queued};
use crate::log::{Log, Wanted};
use crate::output;

/// Letters and decisions of some topics.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By the places of their records. Of copies, as sinks may write them, the first.
    pub(crate) letters: BTreeMap<Place, Letter>,
    /// The last decision about each letter.
    pub(crate) decisions: BTreeMap<Place, Decision>,
    /// Records that are neither, in no form that this command knows.
    pub(crate) strange: u64,
}

impl Queue {
    /// Reads the queues of the topics that the filter is about. What was committed before the call is
    /// seen, whoever has a transaction open.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub(crate) fn read(log: &Log, filter: &Filter) -> Result<Self> {
        let mut queue = Self::default();
        for topic in topics::ALL.iter().filter(|topic| filter.reads(topic.name)) {
            let name = topics::dead_letters(topic.name);
            let mut ranges = BTreeMap::new();
            for partition in log.partitions(&name)? {
                ranges.insert(partition, log.settled_bounds(&name, partition)?);
            }
            log.read(&name, &ranges, |message| {
                queue.take(queued(message));
                Wanted::More
            })?;
        }
        Ok(queue)
    }

    fn take(&mut self, queued: Option<Queued>) {
        match queued {
            None => self.strange += 1,
            Some(Queued::Decision(decision)) => {
                self.decisions.insert(decision.letter.clone(), decision);
            }
            Some(Queued::Letter(letter)) => {
                self.letters.entry(letter.place.clone()).or_insert(*letter);
            }
        }
    }

    /// Letters that nothing was decided about.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values().filter(|letter| !self.decisions.contains_key(&letter.place))
    }

    /// Says what could not be read.
    pub(crate) fn mention_strange(&self) {
        if self.strange > 0 {
            let strange = self.strange;
            output::message(&format!("tillroll: {strange} records of the queues are no letters"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::letter::Action;
    use super::super::letter::tests::letter;
    use super::*;
    use events::Millis;

    /// A queue with these letters, some of them decided.
    pub(crate) fn queue(letters: Vec<Letter>, decided: &[(&str, Action)]) -> Queue {
        let mut queue = Queue::default();
        for letter in letters {
            queue.take(Some(Queued::Letter(Box::new(letter))));
        }
        for (place, action) in decided {
            let letter = place.parse().expect("a place");
            let (by, why) = ("ada@ops".to_owned(), "mended".to_owned());
            let decision = Decision { letter, action: *action, by, why, at: Millis(2_000) };
            queue.take(Some(Queued::Decision(decision)));
        }
        queue
    }

    #[test]
    fn copies_are_one_letter_and_decisions_hold_for_all_of_them() {
        let copies = vec![
            letter("order-status/0/5", "k", &[]),
            letter("order-status/0/6", "k", &[]),
            letter("order-status/0/5", "k", &[]),
        ];
        let read = queue(copies, &[("order-status/0/5", Action::Redriven)]);
        let waiting: Vec<String> = read.waiting().map(|l| l.place.to_string()).collect();
        assert_eq!(waiting, ["order-status/0/6"]);
        assert_eq!(read.letters.len(), 2);
    }
}
