//! Errors as ClickHouse's HTTP interface shows them.

use hyper::StatusCode;

use crate::chdb;

/// An error with its HTTP status and ClickHouse code.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: i32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: i32, name: &str, what: &str) -> Self {
        Refusal { code, message: format!("Code: {code}. DB::Exception: {what}. ({name})") }
    }

    pub(super) fn bad_arguments(what: &str) -> Self {
        Refusal::new(36, "BAD_ARGUMENTS", what)
    }

    pub(super) fn readonly(what: &str) -> Self {
        Refusal::new(164, "READONLY", what)
    }

    pub(super) fn unsupported(what: &str) -> Self {
        Refusal::new(1, "UNSUPPORTED_METHOD", what)
    }

    pub(super) fn authentication(user: &str) -> Self {
        let what = format!(
            "{user}: Authentication failed: password is incorrect, or there is no user with such \
             name"
        );
        Refusal::new(516, "AUTHENTICATION_FAILED", &what)
    }

    pub(super) fn busy() -> Self {
        Refusal::new(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries")
    }

    pub(super) fn broken_body(error: &dyn std::fmt::Display) -> Self {
        Refusal::new(210, "NETWORK_ERROR", &format!("Reading the request's body: {error}"))
    }

    /// The status that ClickHouse gives this code.
    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            // Nothing in the request is at fault.
            0 => StatusCode::INTERNAL_SERVER_ERROR,
            6 | 26 | 27 | 32 | 33 | 36 | 38 | 41 | 42 | 43 | 44 | 53 | 62 | 69 | 70 | 72 | 115
            | 117 | 130 | 131 | 386 | 395 | 456 | 457 => StatusCode::BAD_REQUEST,
            16 | 46 | 47 | 50 | 56 | 60 | 81 | 83 => StatusCode::NOT_FOUND,
            497 | 516 | 192 | 193 => StatusCode::FORBIDDEN,
            194 => StatusCode::UNAUTHORIZED,
            159 => StatusCode::REQUEST_TIMEOUT,
            1 | 48 => StatusCode::NOT_IMPLEMENTED,
            202 | 209 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<chdb::Error> for Refusal {
    fn from(error: chdb::Error) -> Self {
        match error {
            chdb::Error::Statement { code, message } => Refusal { code, message },
            other => Refusal { code: 0, message: format!("Code: 0. DB::Exception: {other}") },
        }
    }
}
