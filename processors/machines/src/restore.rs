//! Which records of a changelog count: the pure half of restoring.
//!
//! Everything in log order up to the last valid footer is state, but for records of a term lower
//! than one already seen (a zombie's). What follows the last valid footer belongs to a torn
//! transaction: it is ignored, and its keys are written back by the task's first transaction.

use std::collections::BTreeSet;

use crate::footer::{FOOTER_KEY, Footer, parse_batch_header};
use crate::table::{TableId, Write};

/// One changelog record.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: &'a [u8],
    /// Its value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Its batch header.
    pub batch: Option<&'a [u8]>,
}

impl Entry<'_> {
    /// The footer, if the record is one.
    pub fn footer(&self) -> Option<Footer> {
        if self.key == FOOTER_KEY { Footer::from_bytes(self.value?) } else { None }
    }
}

/// Finds the last valid footer among records fed in log order.
#[derive(Debug, Default)]
pub struct LastFooter {
    found: Option<(i64, Footer)>,
}

impl LastFooter {
    /// Looks at one record.
    pub fn see(&mut self, entry: Entry<'_>) {
        if let Some(footer) = entry.footer()
            && self.found.as_ref().is_none_or(|(_, last)| footer.follows(last))
        {
            self.found = Some((entry.offset, footer));
        }
    }

    /// Offset and content of the last valid footer.
    pub fn found(self) -> Option<(i64, Footer)> {
        self.found
    }
}

/// Sorts the records of a changelog into state and torn tail.
#[derive(Debug)]
pub struct Restorer {
    footer_offset: i64,
    term: u64,
    torn: BTreeSet<Vec<u8>>,
}

impl Restorer {
    /// A restorer up to the last valid footer, found at this offset; −1 if there is none. `term` is the
    /// highest one that the state it goes on from has seen; 0 for an empty one.
    pub fn new(footer_offset: i64, term: u64) -> Self {
        Self { footer_offset, term, torn: BTreeSet::new() }
    }

    /// The highest term seen so far.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What to do with the next record of the log.
    pub fn next(&mut self, entry: Entry<'_>) -> Option<Write> {
        let term = entry.batch.and_then(parse_batch_header).map_or(0, |(term, _)| term);
        let torn = entry.offset > self.footer_offset;
        if !torn {
            if term < self.term {
                return None;
            }
            self.term = term;
        }
        if entry.key == FOOTER_KEY {
            return None;
        }
        let (table, key) = entry.key.split_first()?;
        if torn {
            self.torn.insert(entry.key.to_vec());
            return None;
        }
        let value = entry.value.map(<[u8]>::to_vec);
        Some(Write { table: TableId(*table), key: key.to_vec(), value })
    }

    /// Keys (table and row key) of the torn tail, to be read from the restored state and repaired.
    pub fn torn(self) -> impl Iterator<Item = (TableId, Vec<u8>)> {
        self.torn.into_iter().filter_map(|key| {
            let (table, key) = key.split_first()?;
            Some((TableId(*table), key.to_vec()))
        })
    }
}

impl Write {
    /// The record key of this row on the changelog.
    pub fn changelog_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + self.key.len());
        key.push(self.table.0);
        key.extend_from_slice(&self.key);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footer::batch_header;

    fn entry<'a>(offset: i64, key: &'a [u8], value: &'a [u8], batch: &'a [u8; 16]) -> Entry<'a> {
        Entry { offset, key, value: Some(value), batch: Some(batch) }
    }

    #[test]
    fn a_torn_tail_is_ignored_and_named_for_repair() {
        let (one, two) = (batch_header(1, 1), batch_header(1, 2));
        let mut restorer = Restorer::new(5, 0);
        let state = restorer.next(entry(3, b"\x01a", b"x", &one)).unwrap();
        assert_eq!((state.key.as_slice(), state.value.as_deref()), (&b"a"[..], Some(&b"x"[..])));
        assert!(restorer.next(entry(6, b"\x01a", b"y", &two)).is_none());
        assert!(restorer.next(entry(7, b"\x02b", b"z", &two)).is_none());
        let torn: Vec<_> = restorer.torn().collect();
        assert_eq!(torn, [(TableId(1), b"a".to_vec()), (TableId(2), b"b".to_vec())]);
    }

    #[test]
    fn a_zombies_lower_term_is_skipped() {
        let (old, new) = (batch_header(1, 9), batch_header(2, 10));
        let mut restorer = Restorer::new(100, 0);
        assert!(restorer.next(entry(1, b"\x01a", b"new", &new)).is_some());
        assert!(restorer.next(entry(2, b"\x01a", b"zombie", &old)).is_none());
    }

    #[test]
    fn a_restore_that_goes_on_knows_the_terms_before_it() {
        let (old, new) = (batch_header(2, 9), batch_header(3, 10));
        let log = [
            entry(1, b"\x01a", b"new", &new),
            entry(2, FOOTER_KEY, b"", &new),
            entry(3, b"\x01a", b"zombie", &old),
            entry(4, b"\x01b", b"new", &new),
        ];
        let restored = |restorer: &mut Restorer, log: &[Entry<'_>]| -> Vec<Vec<u8>> {
            log.iter().filter_map(|e| restorer.next(*e)).map(|write| write.key).collect()
        };
        let mut whole = Restorer::new(100, 0);
        assert_eq!(restored(&mut whole, &log), [b"a", b"b"]);
        for cut in 0..log.len() {
            let mut first = Restorer::new(100, 0);
            let before = restored(&mut first, &log[..cut]);
            let mut second = Restorer::new(100, first.term());
            let after = restored(&mut second, &log[cut..]);
            assert_eq!([before, after].concat(), [b"a", b"b"], "cut at {cut}");
        }
    }

    #[test]
    fn a_footer_without_rows_raises_the_term_too() {
        let (old, new) = (batch_header(2, 9), batch_header(3, 10));
        let mut restorer = Restorer::new(100, 0);
        assert!(restorer.next(entry(1, FOOTER_KEY, b"", &new)).is_none());
        assert!(restorer.next(entry(2, b"\x01a", b"zombie", &old)).is_none());
    }
}
