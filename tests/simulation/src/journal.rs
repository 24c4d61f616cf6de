//! What happened in a run, in order, so that it can be stepped through.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the start.
    pub at_us: u64,
    /// Who.
    pub who: String,
    /// What.
    pub what: String,
    /// Rows that a committed batch changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowChange>,
}

/// A row that changed, as readable as can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// `task/table`.
    pub table: String,
    /// Key, hexadecimal.
    pub key: String,
    /// Row bytes, hexadecimal; absent when deleted.
    pub row: Option<String>,
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Journal {
    /// In order.
    pub lines: Vec<Line>,
}

impl Journal {
    /// Appends a line.
    pub fn note(&mut self, at_us: u64, who: String, what: String) {
        self.lines.push(Line { at_us, who, what, rows: vec![] });
    }

    /// Appends a line with row changes.
    pub fn changed(&mut self, at_us: u64, who: String, what: String, rows: Vec<RowChange>) {
        self.lines.push(Line { at_us, who, what, rows });
    }

    /// The lines as JSON, one each.
    pub fn to_text(&self) -> String {
        let line = |line: &Line| serde_json::to_string(line).expect("plain data") + "\n";
        self.lines.iter().map(line).collect()
    }
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
