//! The dead letter envelope: the untouched record, and headers that say where it came from and why.
//!
//! Header names follow Kafka Connect's `DeadLetterQueueReporter`, so its tools understand them. Whatever
//! stood in a topic fits into its dead letter queue, or its partition could not move on: what is too
//! large for Kafka (a batch of it was smaller, compressed) is cut, and a header says so.

use rdkafka::message::{Header, OwnedHeaders};

/// Longest value that is kept whole. With key, headers and reason below `topics::MAX_MESSAGE_BYTES`.
pub const MAX_VALUE_BYTES: usize = 4 * 1024 * 1024;
/// Longest key that is kept whole.
pub const MAX_KEY_BYTES: usize = 64 * 1024;
/// Most bytes of original headers that are kept.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1_000;

/// Header: topic of the record.
pub const TOPIC_HEADER: &str = "__connect.errors.topic";
/// Header: its partition.
pub const PARTITION_HEADER: &str = "__connect.errors.partition";
/// Header: its offset.
pub const OFFSET_HEADER: &str = "__connect.errors.offset";
/// Header: the service that refused it.
pub const COMPONENT_HEADER: &str = "__connect.errors.connector.name";
/// Header: what was being done.
pub const STAGE_HEADER: &str = "__connect.errors.stage";
/// Header: why it was refused.
pub const REASON_HEADER: &str = "__connect.errors.exception.message";
/// The header that says what was cut.
pub const CUT_HEADER: &str = "tillroll.errors.cut";

/// Every header that a letter has beside those of its record.
pub const ENVELOPE: [&str; 7] = [
    TOPIC_HEADER,
    PARTITION_HEADER,
    OFFSET_HEADER,
    COMPONENT_HEADER,
    STAGE_HEADER,
    REASON_HEADER,
    CUT_HEADER,
];

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
    /// Why, for people; no personal data. Cut after 1,000 bytes.
    pub reason: String,
}

/// A dead letter, to be produced with the time of its record.
#[derive(Debug)]
pub struct Letter<'a> {
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's value.
    pub value: Option<&'a [u8]>,
    /// The record's headers, and those of the rejection.
    pub headers: OwnedHeaders,
}

impl Rejection {
    /// The dead letter of a record with this key, value and headers.
    pub fn letter<'a>(
        &self,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        original: &[(&str, Option<&[u8]>)],
    ) -> Letter<'a> {
        let mut cuts = Vec::new();
        let key = cut("key", key, MAX_KEY_BYTES, &mut cuts);
        let value = cut("value", value, MAX_VALUE_BYTES, &mut cuts);
        let size =
            |(name, value): &(&str, Option<&[u8]>)| name.len() + value.map_or(0, <[u8]>::len);
        let bytes: usize = original.iter().map(size).sum();
        let mut headers = OwnedHeaders::new();
        if bytes <= MAX_HEADER_BYTES {
            for (key, value) in original {
                headers = headers.insert(Header { key, value: *value });
            }
        } else {
            cuts.push(format!("headers of {bytes} bytes left out"));
        }
        let (partition, offset) = (self.partition.to_string(), self.offset.to_string());
        let reason = &self.reason[..self.reason.floor_char_boundary(MAX_REASON_BYTES)];
        let cuts = cuts.join(", ");
        for (key, value) in [
            (TOPIC_HEADER, self.topic.as_str()),
            (PARTITION_HEADER, &partition),
            (OFFSET_HEADER, &offset),
            (COMPONENT_HEADER, &self.component),
            (STAGE_HEADER, self.stage),
            (REASON_HEADER, reason),
            (CUT_HEADER, &cuts),
        ] {
            if key != CUT_HEADER || !value.is_empty() {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        Letter { key, value, headers }
    }
}

fn cut<'a>(
    what: &str,
    bytes: Option<&'a [u8]>,
    most: usize,
    cuts: &mut Vec<String>,
) -> Option<&'a [u8]> {
    let bytes = bytes?;
    if bytes.len() <= most {
        return Some(bytes);
    }
    cuts.push(format!("{what} of {} bytes cut to {most}", bytes.len()));
    Some(&bytes[..most])
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::topics::MAX_MESSAGE_BYTES;
    use rdkafka::message::Headers as _;

    fn rejection(reason: String) -> Rejection {
        let (topic, component) = ("orders".to_string(), "orders-3".to_string());
        Rejection { topic, partition: 3, offset: 9, component, stage: "decode", reason }
    }

    fn texts(letter: &Letter<'_>) -> Vec<(String, String)> {
        let text =
            |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"")).into_owned();
        letter.headers.iter().map(|h| (h.key.to_string(), text(h.value))).collect()
    }

    #[test]
    fn a_letter_is_the_untouched_record_with_its_headers_and_a_reason() {
        let original = [("trace", Some(&b"7"[..])), ("empty", None)];
        let letter = rejection("bad".into()).letter(Some(b"k"), Some(b"v"), &original);
        assert_eq!((letter.key, letter.value), (Some(&b"k"[..]), Some(&b"v"[..])));
        let expected = [
            ("trace", "7"),
            ("empty", ""),
            ("__connect.errors.topic", "orders"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "9"),
            ("__connect.errors.connector.name", "orders-3"),
            ("__connect.errors.stage", "decode"),
            ("__connect.errors.exception.message", "bad"),
        ];
        let expected = expected.map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(texts(&letter), expected);
    }

    #[test]
    fn whatever_a_record_was_its_letter_fits_into_the_queue() {
        let huge = vec![b'x'; 3 * MAX_MESSAGE_BYTES];
        let original = [("huge", Some(&huge[..]))];
        let reason = "\u{e9}".repeat(5_000);
        let letter = rejection(reason).letter(Some(&huge), Some(&huge), &original);
        let headers = texts(&letter);
        let size = |(name, value): &(String, String)| name.len() + value.len();
        let bytes = letter.key.map_or(0, <[u8]>::len)
            + letter.value.map_or(0, <[u8]>::len)
            + headers.iter().map(size).sum::<usize>();
        assert!(bytes < MAX_MESSAGE_BYTES - 500_000, "{bytes}");
        let (name, cut) = headers.last().unwrap();
        assert_eq!(name, CUT_HEADER);
        assert_eq!(
            cut,
            "key of 15728640 bytes cut to 65536, value of 15728640 bytes cut to 4194304, headers of \
             15728644 bytes left out"
        );
    }
}
