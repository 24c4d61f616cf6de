//! Pure: what must happen after an error, and how long to wait before trying again.

use std::time::Duration;

use tokio_postgres::error::SqlState;

/// What must happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same again, later: the other side is down, busy or slow.
    Retry,
    /// The data is at fault: find the record and put it aside.
    DeadLetter,
    /// What is stored has moved, or another process owns the partition: read the start anew.
    Reopen,
    /// Neither time nor another record will help: a person must.
    Stop,
}

/// An error, sorted by what must happen next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Failure {
    pub(crate) verdict: Verdict,
    /// For people: log lines, the readiness report, dead letters. No secrets, no customers' data.
    pub(crate) reason: String,
}

impl Failure {
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Retry, reason: reason.into() }
    }

    pub(crate) fn reopen(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Reopen, reason: reason.into() }
    }

    pub(crate) fn stop(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Stop, reason: reason.into() }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let verdict = postgres(error.code());
        // A server's DETAIL line quotes rows, so only its message is kept.
        let reason = match error.as_db_error() {
            Some(db) => format!("postgres: {} ({})", db.message(), db.code().code()),
            None => format!("postgres: {}", chain(&error)),
        };
        Self { verdict, reason }
    }
}

impl From<clickhouse::error::Error> for Failure {
    fn from(error: clickhouse::error::Error) -> Self {
        let text = chain(&error);
        let code = match &error {
            clickhouse::error::Error::BadResponse(message) => clickhouse_code(message),
            _ => None,
        };
        // Long messages quote the statement's data.
        let reason = format!("clickhouse: {}", text.chars().take(300).collect::<String>());
        Self { verdict: clickhouse(code), reason }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// Sorts PostgreSQL's errors by SQLSTATE; no state means that the connection is gone.
pub(crate) fn postgres(state: Option<&SqlState>) -> Verdict {
    match state.map(|state| &state.code()[..2]) {
        // Data exceptions and broken constraints.
        Some("22" | "23") => Verdict::DeadLetter,
        // Statement and tables don't fit together, or the right is missing.
        Some("42" | "0A") => Verdict::Stop,
        _ => Verdict::Retry,
    }
}

/// The code in `Code: 60. DB::Exception: …`.
fn clickhouse_code(message: &str) -> Option<u32> {
    let rest = &message[message.find("Code: ")? + 6..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Sorts ClickHouse's errors by code. Unknown ones are retried: nothing is put aside or given up
/// that might have gone through.
pub(crate) fn clickhouse(code: Option<u32>) -> Verdict {
    match code {
        // Cannot parse, out of range, not a number, NULL or constraint (469): the rows are at fault.
        Some(
            6 | 26 | 27 | 32 | 33 | 38 | 41 | 69 | 70 | 72 | 117 | 131 | 321 | 349 | 407 | 469,
        ) => Verdict::DeadLetter,
        // No such database, table or column, a syntax error, no right: table and sink don't fit.
        Some(8 | 10 | 16 | 36 | 44 | 46 | 47 | 48 | 53 | 60 | 62 | 81 | 497) => Verdict::Stop,
        _ => Verdict::Retry,
    }
}

/// Waiting times between tries: 0.1 s, doubled each time, 5 s at most.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = Duration::from_millis(100 << self.failures.min(6)).min(Duration::from_secs(5));
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Whether this is the first failure in a row.
    pub(crate) fn fresh(&self) -> bool {
        self.failures == 0
    }

    /// Something worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_errors_are_sorted_by_class() {
        for (state, verdict) in [
            (None, Verdict::Retry),
            (Some(SqlState::ADMIN_SHUTDOWN), Verdict::Retry),
            (Some(SqlState::CANNOT_CONNECT_NOW), Verdict::Retry),
            (Some(SqlState::T_R_DEADLOCK_DETECTED), Verdict::Retry),
            (Some(SqlState::DISK_FULL), Verdict::Retry),
            (Some(SqlState::READ_ONLY_SQL_TRANSACTION), Verdict::Retry),
            (Some(SqlState::INVALID_PASSWORD), Verdict::Retry),
            (Some(SqlState::CHARACTER_NOT_IN_REPERTOIRE), Verdict::DeadLetter),
            (Some(SqlState::CHECK_VIOLATION), Verdict::DeadLetter),
            (Some(SqlState::UNDEFINED_TABLE), Verdict::Stop),
            (Some(SqlState::INSUFFICIENT_PRIVILEGE), Verdict::Stop),
        ] {
            assert_eq!(postgres(state.as_ref()), verdict, "{state:?}");
        }
    }

    #[test]
    fn clickhouse_errors_are_sorted_by_code() {
        let code = |text: &str| clickhouse(clickhouse_code(text));
        assert_eq!(code("Code: 469. DB::Exception: Constraint `c`"), Verdict::DeadLetter);
        assert_eq!(code("Code: 60. DB::Exception: Unknown table"), Verdict::Stop);
        assert_eq!(code("Code: 252. DB::Exception: Too many parts"), Verdict::Retry);
        assert_eq!(code("Code: 241. DB::Exception: Memory limit"), Verdict::Retry);
        assert_eq!(code("502 Bad Gateway"), Verdict::Retry);
    }

    #[test]
    fn waiting_grows_to_five_seconds_and_starts_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert!(backoff.fresh());
        assert_eq!(backoff.next().as_millis(), 100);
    }
}
