//! Which letters a command is about.

use events::Millis;
use uuid::Uuid;

use super::letter::{self, Letter, Place};
use crate::moment;

/// Flags that choose letters; without any, all. Every flag given must fit.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filter {
    /// Letters by where their records stood, e.g. orders/3/9
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    pub(crate) places: Vec<Place>,
    /// Letters of this topic; may be repeated
    #[arg(long, value_name = "TOPIC", value_parser = topic)]
    pub(crate) topic: Vec<String>,
    /// Letters whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Letters whose records were appended since: 30m, 2h, 3d, a day, or RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = moment::since)]
    pub(crate) since: Option<Millis>,
    /// Letters with this key: an order's id, a text, or 0x and hexadecimal digits
    #[arg(long, value_name = "KEY", value_parser = key)]
    pub(crate) key: Option<Key>,
}

/// A record's key as an operator writes it: a text, or the bytes that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<Vec<u8>>);

fn topic(name: &str) -> Result<String, String> {
    letter::topic(name).map(|topic| topic.name.to_owned())
}

fn key(text: &str) -> Result<Key, String> {
    let mut keys = vec![text.as_bytes().to_vec()];
    keys.extend(Uuid::parse_str(text).ok().map(|id| id.as_bytes().to_vec()));
    if let Some(digits) = text.strip_prefix("0x") {
        let byte = |at: usize| digits.get(at..at + 2).and_then(|d| u8::from_str_radix(d, 16).ok());
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        keys.push(bytes.ok_or("after 0x write pairs of hexadecimal digits")?);
    }
    Ok(Key(keys))
}

impl Filter {
    /// Whether nothing was chosen.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
            && self.topic.is_empty()
            && self.reason.is_none()
            && self.since.is_none()
            && self.key.is_none()
    }

    /// Whether letters of a topic can fit.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        (self.topic.is_empty() || self.topic.iter().any(|wanted| wanted == topic))
            && (self.places.is_empty() || self.places.iter().any(|place| place.topic == topic))
    }

    /// Whether a letter is meant.
    pub(crate) fn fits(&self, letter: &Letter) -> bool {
        let key = |wanted: &Key| letter.key.as_ref().is_some_and(|key| wanted.0.contains(key));
        self.reads(&letter.place.topic)
            && (self.places.is_empty() || self.places.contains(&letter.place))
            && self.reason.as_ref().is_none_or(|text| letter.reason.contains(text))
            && self.since.is_none_or(|since| letter.at >= since)
            && self.key.as_ref().is_none_or(key)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn every_flag_given_must_fit() {
        let letter = letter("orders/3/9", "k", &[]);
        let fits = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.fits(&letter)
        };
        assert!(fits(&|_| {}));
        assert!(fits(&|f| f.topic = vec!["stock".into(), "orders".into()]));
        assert!(!fits(&|f| f.topic = vec!["stock".into()]));
        assert!(fits(&|f| f.places = vec!["orders/3/9".parse().unwrap()]));
        assert!(!fits(&|f| f.places = vec!["orders/3/8".parse().unwrap()]));
        assert!(fits(&|f| f.reason = Some("schema id 7".into())));
        assert!(!fits(&|f| f.reason = Some("too big".into())));
        assert!(fits(&|f| f.since = Some(Millis(1_000))));
        assert!(!fits(&|f| f.since = Some(Millis(1_001))));
        assert!(fits(&|f| f.key = Some(key("k").unwrap())));
        assert!(fits(&|f| f.key = Some(key("0x6b").unwrap())));
        assert!(!fits(&|f| {
            f.key = Some(key("k").unwrap());
            f.since = Some(Millis(1_001));
        }));
        assert!(key("0x6").is_err() && key("0xzz").is_err());
        assert!(Filter::default().is_empty());
    }
}
