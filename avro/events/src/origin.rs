//! Where an output record came from: the task, its term and the batch. Readers settle two records
//! with the same identity and different content by the higher (term, sequence).

use std::fmt;
use std::str::FromStr;

/// The record header that carries an [`Origin`], as text `task/term/sequence`.
pub const ORIGIN_HEADER: &str = "origin";

/// The batch that wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// `processor-partition`.
    pub task: String,
    /// Rises by one at every takeover of the task.
    pub term: u64,
    /// Rises by one per batch.
    pub sequence: u64,
}

/// The header is not `task/term/sequence`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("origin header is not task/term/sequence")]
pub struct OriginError;

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.task, self.term, self.sequence)
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let mut parts = text.splitn(3, '/');
        let task = parts.next().filter(|t| !t.is_empty()).ok_or(OriginError)?.to_string();
        let mut number = || parts.next().and_then(|p| p.parse().ok()).ok_or(OriginError);
        Ok(Self { task, term: number()?, sequence: number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_its_header() {
        let origin = Origin { task: "orders-0".into(), term: 3, sequence: 1289 };
        assert_eq!(origin.to_string().parse(), Ok(origin));
        assert_eq!("orders-0/x/1".parse::<Origin>(), Err(OriginError));
        assert_eq!("orders-0".parse::<Origin>(), Err(OriginError));
    }
}
