//! A dead letter and a decision about one, as they are read from a queue.

use std::fmt;
use std::str::FromStr;

use events::topics::{self, Topic};
use events::{Millis, OrderId};
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message as _};
use serde::{Serialize, Serializer};
use uuid::Uuid;
use wire::dead_letter::{
    COMPONENT_HEADER, CUT_HEADER, ENVELOPE, OFFSET_HEADER, PARTITION_HEADER, REASON_HEADER,
    STAGE_HEADER, TOPIC_HEADER,
};

/// Header of a redriven record: how often it was redriven.
pub(crate) const ATTEMPTS_HEADER: &str = "tillroll.redrive.attempts";
/// Header of a redriven record: where it stood before the first redrive.
pub(crate) const FIRST_HEADER: &str = "tillroll.redrive.first";
/// Header of a redriven record: who.
pub(crate) const REDRIVEN_BY_HEADER: &str = "tillroll.redrive.by";
/// Header of a redriven record: why.
pub(crate) const REDRIVEN_WHY_HEADER: &str = "tillroll.redrive.why";
/// Headers that a redrive writes anew.
pub(crate) const REDRIVE: [&str; 4] =
    [ATTEMPTS_HEADER, FIRST_HEADER, REDRIVEN_BY_HEADER, REDRIVEN_WHY_HEADER];

/// Header of a decision: what was done. Its presence makes a record of a queue a decision.
pub(crate) const DECISION_HEADER: &str = "tillroll.decision";
/// Header of a decision: the letter, as the place of its record.
pub(crate) const LETTER_HEADER: &str = "tillroll.decision.letter";
/// Header of a decision: who.
pub(crate) const BY_HEADER: &str = "tillroll.decision.by";
/// Header of a decision: why.
pub(crate) const WHY_HEADER: &str = "tillroll.decision.why";

/// A header of a record.
pub(crate) type Header = (String, Option<Vec<u8>>);

/// Where a record stands, `topic/partition/offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a place as topic/partition/offset, e.g. orders/3/9".to_owned();
        let mut parts = text.splitn(3, '/');
        let topic = topic(parts.next().unwrap_or_default())?.name.to_owned();
        let partition = parts.next().and_then(|n| n.parse().ok()).filter(|n| *n >= 0);
        let offset = parts.next().and_then(|n| n.parse().ok()).filter(|n| *n >= 0);
        let (partition, offset) = (partition.ok_or_else(wrong)?, offset.ok_or_else(wrong)?);
        Ok(Self { topic, partition, offset })
    }
}

/// A topic of the catalogue by its name, or by that of its queue.
pub(crate) fn topic(name: &str) -> Result<Topic, String> {
    let name = name.strip_suffix(".dlq").unwrap_or(name);
    topics::ALL.iter().find(|topic| topic.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = topics::ALL.iter().map(|topic| topic.name).collect();
        format!("there is no topic {name:?}; there are: {}", names.join(", "))
    })
}

/// A refused record.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// Where the record stood: what the letter is known by.
    pub(crate) place: Place,
    /// Where it stood before it was ever redriven: its turn among its like.
    pub(crate) first: Place,
    /// Where it stands in its queue: partition and offset.
    pub(crate) queued: (i32, i64),
    /// When the record was appended.
    pub(crate) at: Millis,
    pub(crate) key: Option<Vec<u8>>,
    /// Bytes of its value, which is read where it is needed.
    pub(crate) size: usize,
    /// The record's own headers, without envelope and redrive.
    pub(crate) headers: Vec<Header>,
    pub(crate) component: String,
    pub(crate) stage: String,
    pub(crate) reason: String,
    /// What was cut off, if anything.
    pub(crate) cut: Option<String>,
    /// How often it has been redriven.
    pub(crate) attempts: u32,
}

/// What was done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Its record was appended to its topic again.
    Redriven,
    /// It was given up.
    Dropped,
}

impl Action {
    /// As it stands in the header.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Dropped => "dropped",
        }
    }
}

/// A decision: what, who, why and when.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Decision {
    pub(crate) letter: Place,
    pub(crate) action: Action,
    pub(crate) by: String,
    pub(crate) why: String,
    #[serde(serialize_with = "crate::moment::serialize")]
    pub(crate) at: Millis,
}

/// A record of a queue.
#[derive(Debug, Clone)]
pub(crate) enum Queued {
    /// A dead letter.
    Letter(Box<Letter>),
    /// What was done with one.
    Decision(Decision),
}

/// Reads a record of a queue, the value left out; `None` for what is neither letter nor decision.
pub(crate) fn queued(message: &BorrowedMessage<'_>) -> Option<Queued> {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = all.map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    let at = Millis(message.timestamp().to_millis().unwrap_or_default());
    let size = message.payload().map_or(0, <[u8]>::len);
    parse(
        headers,
        (message.partition(), message.offset()),
        at,
        message.key().map(<[u8]>::to_vec),
        size,
    )
}

fn parse(
    headers: Vec<Header>,
    queued: (i32, i64),
    at: Millis,
    key: Option<Vec<u8>>,
    size: usize,
) -> Option<Queued> {
    // The last of a name: the envelope is written behind the record's own headers.
    let text = |name: &str| {
        let found = headers.iter().rev().find(|(header, _)| header == name);
        found.and_then(|(_, value)| String::from_utf8(value.clone()?).ok())
    };
    if let Some(action) = text(DECISION_HEADER) {
        let action = match action.as_str() {
            "redriven" => Action::Redriven,
            "dropped" => Action::Dropped,
            _ => return None,
        };
        let letter = text(LETTER_HEADER)?.parse().ok()?;
        let (by, why) = (text(BY_HEADER)?, text(WHY_HEADER)?);
        return Some(Queued::Decision(Decision { letter, action, by, why, at }));
    }
    let place = Place {
        topic: topic(&text(TOPIC_HEADER)?).ok()?.name.to_owned(),
        partition: text(PARTITION_HEADER)?.parse().ok()?,
        offset: text(OFFSET_HEADER)?.parse().ok()?,
    };
    let ours = |name: &str| ENVELOPE.contains(&name) || REDRIVE.contains(&name);
    let letter = Letter {
        first: stood(text(FIRST_HEADER).as_deref(), &place),
        place,
        queued,
        at,
        key,
        size,
        component: text(COMPONENT_HEADER).unwrap_or_default(),
        stage: text(STAGE_HEADER).unwrap_or_default(),
        reason: text(REASON_HEADER).unwrap_or_default(),
        cut: text(CUT_HEADER),
        attempts: text(ATTEMPTS_HEADER).and_then(|n| n.parse().ok()).unwrap_or(0),
        headers: headers.iter().filter(|(name, _)| !ours(name)).cloned().collect(),
    };
    Some(Queued::Letter(Box::new(letter)))
}

/// Where a record of this place stood before it was ever redriven, as its headers say.
pub(crate) fn first(headers: Option<&BorrowedHeaders>, place: &Place) -> Place {
    let all = headers.into_iter().flat_map(|headers| headers.iter());
    let header = all.filter(|header| header.key == FIRST_HEADER).last();
    let value = header.and_then(|header| header.value);
    stood(value.and_then(|value| std::str::from_utf8(value).ok()), place)
}

/// Back to where it stood is back to its partition: what says otherwise is not ours.
fn stood(header: Option<&str>, place: &Place) -> Place {
    let said = header.and_then(|text| text.parse::<Place>().ok());
    let own = |said: &Place| (&said.topic, said.partition) == (&place.topic, place.partition);
    said.filter(own).unwrap_or_else(|| place.clone())
}

/// A record's key for people: an order's id, a text, or bytes.
pub(crate) fn key_text(key: Option<&[u8]>) -> String {
    let Some(key) = key else { return "-".to_owned() };
    let visible = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    match std::str::from_utf8(key).ok().filter(visible) {
        Some(text) => text.to_owned(),
        None => match Uuid::from_slice(key) {
            Ok(id) => OrderId(id).to_string(),
            Err(_) => format!("0x{}", hex(key)),
        },
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A letter as it is read: its place, key, and further headers.
    pub(crate) fn letter(place: &str, key: &str, more: &[(&str, &str)]) -> Letter {
        let stood: Place = place.parse().expect("a place");
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let mut headers = vec![
            header("origin", "orders-0/1/2"),
            header(TOPIC_HEADER, &stood.topic),
            header(PARTITION_HEADER, &stood.partition.to_string()),
            header(OFFSET_HEADER, &stood.offset.to_string()),
            header(REASON_HEADER, "schema id 7 was never registered"),
            header(STAGE_HEADER, "decode"),
            header(COMPONENT_HEADER, "orders-0"),
        ];
        headers.extend(more.iter().map(|(name, value)| header(name, value)));
        let key = Some(key.as_bytes().to_vec());
        match parse(headers, (0, stood.offset), Millis(1_000), key, 3) {
            Some(Queued::Letter(letter)) => *letter,
            other => panic!("no letter: {other:?}"),
        }
    }

    #[test]
    fn a_letter_is_read_from_its_envelope() {
        let read = letter("orders/3/9", "k", &[]);
        assert_eq!((read.place.to_string(), read.attempts), ("orders/3/9".into(), 0));
        assert_eq!((&*read.stage, &*read.component), ("decode", "orders-0"));
        let names: Vec<&str> = read.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["origin"], "the record's own, and no other");
        assert_eq!(read.first, read.place);
    }

    #[test]
    fn a_letter_that_was_redriven_keeps_its_turn() {
        let more = [(ATTEMPTS_HEADER, "2"), (FIRST_HEADER, "orders/3/4")];
        let read = letter("orders/3/9", "k", &more);
        assert_eq!((read.attempts, read.first.offset), (2, 4));
        assert_eq!(read.headers.len(), 1);
        let elsewhere = letter("orders/3/9", "k", &[(FIRST_HEADER, "orders/2/4")]);
        assert_eq!(elsewhere.first, elsewhere.place);
    }

    #[test]
    fn what_was_copied_with_its_envelope_is_known_by_the_last_one() {
        let read = letter("orders/3/9", "k", &[(OFFSET_HEADER, "12")]);
        assert_eq!(read.place.offset, 12);
    }

    #[test]
    fn a_decision_is_told_from_a_letter() {
        let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let headers = vec![
            header(DECISION_HEADER, "dropped"),
            header(LETTER_HEADER, "orders/3/9"),
            header(BY_HEADER, "ada@ops"),
            header(WHY_HEADER, "a test of a client"),
        ];
        let Some(Queued::Decision(read)) = parse(headers.clone(), (0, 1), Millis(5), None, 0)
        else {
            panic!("no decision");
        };
        assert_eq!((read.action, &*read.by), (Action::Dropped, "ada@ops"));
        assert!(
            parse(headers[..2].to_vec(), (0, 1), Millis(5), None, 0).is_none(),
            "nobody signed it"
        );
        assert!(parse(vec![], (0, 1), Millis(5), None, 0).is_none());
    }

    #[test]
    fn places_and_keys_are_readable() {
        assert_eq!("orders.dlq/0/1".parse::<Place>().unwrap().topic, "orders");
        for wrong in ["orders/1", "nothing/1/1", "orders/-1/1", "orders/1/x", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
        assert_eq!(key_text(None), "-");
        assert_eq!(key_text(Some(b"shop/85123A")), "shop/85123A");
        assert_eq!(key_text(Some(&[7; 16])), "07070707-0707-0707-0707-070707070707");
        assert_eq!(key_text(Some(&[7, 8])), "0x0708");
    }
}
