//! Changelog → store: streams what the store lacks, buffering nothing.

use anyhow::Result;
use machines::TaskId;
use machines::footer::Footer;
use machines::restore::{LastFooter, Restorer};
use machines::table::{Backing, Write};

use crate::io::{Changelog, Changelogs, Meta, Platform, Store};
use crate::observe::Observed;

/// Rows per write to the store while restoring.
const BATCH: usize = 5_000;
/// First stretch read back from the end when looking for the last footer.
const FIRST_STRETCH: i64 = 2_000;

/// Offset and content of the last valid footer, read back from the end.
///
/// # Errors
/// When the broker does not answer.
pub fn last_footer(logs: &impl Changelogs, log: &Changelog) -> Result<Option<(i64, Footer)>> {
    let (low, end) = logs.bounds(log)?;
    let mut stretch = FIRST_STRETCH;
    loop {
        let from = low.max(end - stretch);
        let mut last = LastFooter::default();
        logs.read(log, from, end, |entry| {
            last.see(entry);
            Ok(())
        })?;
        match last.found() {
            Some(found) => return Ok(Some(found)),
            None if from == low => return Ok(None),
            None => stretch *= 8,
        }
    }
}

/// Brings the store to the last valid footer; the rows that a torn tail needs written back.
///
/// # Errors
/// When the broker or the store fails.
pub fn restore<P: Platform>(
    platform: &P,
    logs: &P::Changelogs,
    log: &Changelog,
    store: &P::Store,
    footer: &(i64, Footer),
) -> Result<Vec<Write>> {
    let (low, end) = logs.bounds(log)?;
    let meta = store.meta()?;
    let from = meta.as_ref().map_or(low, |meta| meta.position);
    let term = meta.as_ref().map_or(0, |meta| meta.term);
    let mut restorer = Restorer::new(footer.0, term);
    let mut writes = Vec::with_capacity(BATCH);
    let mark = |position, term, restoring| {
        let footer = footer.1.clone();
        Meta { position, footer, term, restoring }
    };
    let began = platform.elapsed();
    let mut applied = 0usize;
    logs.read(log, from, end, |entry| {
        writes.extend(restorer.next(entry));
        if writes.len() >= BATCH {
            applied += writes.len();
            platform.observe(Observed::RestoredRows(log, writes.len()));
            store.apply(&writes, &[], &mark(entry.offset + 1, restorer.term(), true))?;
            writes.clear();
        }
        Ok(())
    })?;
    applied += writes.len();
    platform.observe(Observed::RestoredRows(log, writes.len()));
    store.apply(&writes, &[], &mark((footer.0 + 1).max(from), restorer.term(), false))?;
    platform.observe(Observed::Restored(log, applied, platform.elapsed() - began));
    let repair = |(table, key): (_, Vec<u8>)| {
        let value = store.get(table, &key);
        Write { table, key, value }
    };
    Ok(restorer.torn().map(repair).collect())
}

/// Empties a store that cannot be brought forward from what it has.
///
/// # Errors
/// When the store cannot be read or emptied.
pub fn make_usable<P: Platform>(
    platform: &P,
    task: TaskId,
    store: &P::Store,
    footer: Option<&Footer>,
    (low, end): (i64, i64),
) -> Result<()> {
    if !usable(store, footer, low, end)? {
        platform.observe(Observed::Emptied(task));
        store.clear()?;
    }
    Ok(())
}

fn usable(store: &impl Store, footer: Option<&Footer>, low: i64, end: i64) -> Result<bool> {
    let Some(meta) = store.meta()? else { return Ok(store.is_empty()) };
    let Some(footer) = footer else { return Ok(false) };
    let within = meta.position >= low && meta.position <= end;
    Ok(within && meta.footer.store_id == footer.store_id)
}
