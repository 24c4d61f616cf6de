//! The released versions of every schema: `avro/schemas/released/<Record>/<n>.avsc`, n from 1.

use std::path::PathBuf;

use events::RecordType;

/// Released versions of a record type's schema, oldest first, JSON.
///
/// # Panics
/// When there is none, or a number is left out.
pub(crate) fn versions(record_type: RecordType) -> Vec<String> {
    let folder = folder().join(record_type.name());
    let count = std::fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
    assert!(count > 0, "{} has no released version: see CONTRIBUTING.md", folder.display());
    let read = |n: usize| {
        let file = folder.join(format!("{n}.avsc"));
        std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    (1..=count).map(read).collect()
}

/// `avro/schemas/released`.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from("../schemas/released")
}
