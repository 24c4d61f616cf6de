//! The footer: the last record of every transaction on a task's changelog partition. It is the truth
//! for state and positions; group offsets are the fence and a witness.

use std::collections::BTreeMap;

use events::Millis;
use serde::{Deserialize, Serialize};

/// Key of the footer on its changelog partition; no table has id 0.
pub const FOOTER_KEY: &[u8] = &[0];

/// Header of every changelog record and footer: term and sequence, 16 bytes big-endian.
pub const BATCH_HEADER: &str = "b";

/// What a batch left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Rises by one at every takeover or restore.
    pub term: u64,
    /// Rises by one per batch.
    pub sequence: u64,
    /// Next offset to read, per inbox.
    pub positions: BTreeMap<String, i64>,
    /// The task's time.
    pub now: Millis,
    /// What this batch read, in order, so that it can be redone.
    pub runs: Vec<Run>,
    /// `transactional.id` of who wrote it.
    pub owner: String,
    /// The owner has let go of the task: nobody needs to be fenced.
    pub released: bool,
    /// Made with the first footer; a local store with another id is not this task's.
    pub store_id: String,
}

/// One stretch of a batch's input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// Offsets `from..to` of an inbox.
    Read(String, i64, i64),
    /// Due deadlines fired at this time.
    Tick(Millis),
}

impl Footer {
    /// Whether this footer is newer than another: greater (term, sequence).
    pub fn follows(&self, other: &Footer) -> bool {
        (self.term, self.sequence) > (other.term, other.sequence)
    }

    /// The footer's bytes (JSON, for people with a console consumer).
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a footer is plain data")
    }

    /// Reads a footer; `None` if the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// The [`BATCH_HEADER`] of a batch.
pub fn batch_header(term: u64, sequence: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&term.to_be_bytes());
    bytes[8..].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

/// Term and sequence of a [`BATCH_HEADER`]; `None` if the bytes are none.
pub fn parse_batch_header(bytes: &[u8]) -> Option<(u64, u64)> {
    let (term, sequence) = bytes.split_first_chunk::<8>()?;
    let sequence = sequence.try_into().ok()?;
    Some((u64::from_be_bytes(*term), u64::from_be_bytes(sequence)))
}
