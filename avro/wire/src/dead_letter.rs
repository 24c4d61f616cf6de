//! The dead letter envelope: the untouched record, and headers that say where it came from and why.
//!
//! Header names follow Kafka Connect's `DeadLetterQueueReporter`, so its tools understand them.

use rdkafka::message::{Header, OwnedHeaders};

/// Where a refused record came from and why it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Topic of the record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The service that refused it.
    pub component: String,
    /// What was being done: `decode`, `step`, `insert`.
    pub stage: &'static str,
    /// Why, for people; no personal data.
    pub reason: String,
}

impl Rejection {
    /// The dead letter's headers, appended to those of the record.
    pub fn headers(&self, original: OwnedHeaders) -> OwnedHeaders {
        let partition = self.partition.to_string();
        let offset = self.offset.to_string();
        let add = |headers: OwnedHeaders, key: &str, value: &str| {
            headers.insert(Header { key, value: Some(value) })
        };
        let headers = add(original, "__connect.errors.topic", &self.topic);
        let headers = add(headers, "__connect.errors.partition", &partition);
        let headers = add(headers, "__connect.errors.offset", &offset);
        let headers = add(headers, "__connect.errors.connector.name", &self.component);
        let headers = add(headers, "__connect.errors.stage", self.stage);
        add(headers, "__connect.errors.exception.message", &self.reason)
    }
}
