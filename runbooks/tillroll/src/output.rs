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
