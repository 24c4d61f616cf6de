//! The values of letters, read when they are needed: queues can hold more than memory does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use events::topics;
use rdkafka::message::Message as _;

use super::letter::Letter;
use crate::log::{Log, Wanted};

/// Records between two letters that are read along, rather than asking twice.
const ALONG: i64 = 20;

/// A letter with its value, or without where nobody needs it.
pub(super) type Valued<'a> = (&'a Letter, Option<Vec<u8>>);

/// Reads the values of these letters, and holds them all. Blocks.
///
/// # Errors
/// When Kafka does not answer, or a letter is gone from its queue, which is kept for a time only.
pub(super) fn with_values<'a>(log: &Log, letters: &[&'a Letter]) -> Result<Vec<Valued<'a>>> {
    let mut queues: BTreeMap<(&str, i32), BTreeSet<i64>> = BTreeMap::new();
    for letter in letters {
        let (partition, offset) = letter.queued;
        queues.entry((&letter.place.topic, partition)).or_default().insert(offset);
    }
    let mut values = BTreeMap::new();
    for ((topic, partition), offsets) in queues {
        for range in ranges(&offsets) {
            log.read(&topics::dead_letters(topic), &[(partition, range)].into(), |message| {
                let offset = message.offset();
                if offsets.contains(&offset) {
                    let value = message.payload().map(<[u8]>::to_vec);
                    values.insert((topic, (partition, offset)), value);
                }
                Wanted::More
            })?;
        }
    }
    let valued = |letter: &&'a Letter| {
        let value = values.remove(&(letter.place.topic.as_str(), letter.queued));
        let value = value.with_context(|| {
            let place = &letter.place;
            format!("letter {place} is gone from its queue: see `tillroll dlq list --each`")
        })?;
        anyhow::Ok((*letter, value))
    };
    letters.iter().map(valued).collect()
}

/// What is read at once: first offset, and the one behind the last.
fn ranges(offsets: &BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, end)) if offset - *end <= ALONG => *end = offset + 1,
            _ => ranges.push((*offset, offset + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_stand_together_are_read_at_once() {
        assert_eq!(ranges(&BTreeSet::new()), []);
        assert_eq!(ranges(&[7].into()), [(7, 8)]);
        let near = 8 + ALONG;
        assert_eq!(ranges(&[7, near, near + 1].into()), [(7, near + 2)]);
        assert_eq!(ranges(&[7, near + 1].into()), [(7, 8), (near + 1, near + 2)]);
    }
}
