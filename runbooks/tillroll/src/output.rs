//! Data on stdout, messages on stderr.

use std::io::Write as _;

use anyhow::{Context, Result};

/// Writes data, a line.
///
/// # Errors
/// When nobody reads stdout any more.
pub(crate) fn data(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("cannot write to stdout")
}

/// Writes a message for people, a line. A closed stderr stops nothing.
pub(crate) fn message(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Lines of a table: columns two spaces apart, those that say so to the right.
pub(crate) fn table(right: &[bool], rows: &[Vec<String>]) -> Vec<String> {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().enumerate().map(|(at, text)| match right[at] {
            true => format!("{text:>width$}", width = widths[at]),
            false => format!("{text:<width$}", width = widths[at]),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
