//! Pure: what a provider says travels to every sink, so it is recorded only in the form it should have.

use compact_str::CompactString;

/// A provider's id: 1 to 100 visible ASCII characters.
pub(super) fn id(text: &str) -> Result<CompactString, &'static str> {
    let legal = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if legal { Ok(text.into()) } else { Err("an id must be 1 to 100 visible ASCII characters") }
}

/// A reason: a code, or just `declined`.
pub(super) fn code(text: Option<String>) -> CompactString {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match text {
        Some(text) if (1..=64).contains(&text.len()) && text.chars().all(legal) => text.into(),
        _ => "declined".into(),
    }
}
