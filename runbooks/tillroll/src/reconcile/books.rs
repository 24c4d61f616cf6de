//! Stock's own state, as its changelog has it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use events::topics;
use machines::footer::BATCH_HEADER;
use machines::restore::{Entry, Restorer};
use machines::stock::Books;
use rdkafka::message::{Headers as _, Message};

use crate::log::{Log, Wanted};

/// Reads every partition's committed state. Blocks.
///
/// # Errors
/// When Kafka does not answer, or rows were written in a way that this version cannot read.
pub(super) fn read(log: &Log) -> Result<Books> {
    let topic = topics::changelog("stock");
    let mut ranges = BTreeMap::new();
    for partition in log.partitions(&topic)? {
        ranges.insert(partition, log.bounds(&topic, partition)?);
    }
    let mut books = Books::default();
    // Everything that is committed counts, but for the records of an owner that was followed by another.
    let mut restorers: BTreeMap<i32, Restorer> =
        ranges.keys().map(|partition| (*partition, Restorer::new(i64::MAX, 0))).collect();
    let mut unreadable = None;
    log.read(&topic, &ranges, |message| {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let batch = headers.filter(|header| header.key == BATCH_HEADER).find_map(|h| h.value);
        let key = message.key().unwrap_or_default();
        let entry = Entry { offset: message.offset(), key, value: message.payload(), batch };
        let partition = message.partition();
        let write = restorers.get_mut(&partition).and_then(|restorer| restorer.next(entry));
        match write.map(|write| books.take(partition, &write)) {
            Some(Err(key)) => {
                let place = format!("{topic}-{partition} at {}", message.offset());
                unreadable = Some((place, key));
                Wanted::Enough
            }
            _ => Wanted::More,
        }
    })?;
    match unreadable {
        None => Ok(books),
        Some((place, key)) => Err(anyhow!("{}", key.escape_ascii()))
            .context(format!("{place} is a row that this `tillroll` cannot read: update it")),
    }
}
