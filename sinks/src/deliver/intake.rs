//! One partition's queue: records decoded in order, or why they can't be.

use std::sync::Arc;
use std::time::Duration;

use events::{Codec, DecodeError, Millis, ORIGIN_HEADER, Origin, Record};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedMessage};
use tokio::sync::Notify;
use wire::config::Registry;
use wire::registry::LearnError;

use super::Place;
use super::member::Context;
use crate::retry::Failure;

/// First and last moment that both databases can hold: 1900 and 2299, ClickHouse's DateTime64.
const CALENDAR: std::ops::RangeInclusive<i64> = -2_208_988_800_000..=10_413_791_999_999;

/// A record of the log.
#[derive(Debug)]
pub(crate) struct Received {
    /// As it stands in the log, for dead letters.
    pub(crate) raw: OwnedMessage,
    /// Its content, or why it has none.
    pub(crate) body: Result<Body, String>,
}

/// What a readable record holds.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) record: Record,
    /// Term and sequence of the batch that wrote it; of two records with one identity the higher
    /// counts. (0, 0) where the writer didn't say.
    pub(crate) origin: (i64, i64),
}

impl Received {
    pub(crate) fn offset(&self) -> i64 {
        self.raw.offset()
    }

    /// When it was written to the log.
    pub(crate) fn appended_at(&self) -> Millis {
        Millis(self.raw.timestamp().to_millis().unwrap_or_default())
    }

    /// Bytes of key and value.
    pub(crate) fn len(&self) -> usize {
        self.raw.key().map_or(0, <[u8]>::len) + self.raw.payload().map_or(0, <[u8]>::len)
    }
}

/// What the queue holds next.
pub(crate) enum Polled {
    Record(Box<Received>),
    /// A record whose schema must be learnt first; it is handed out again after [`Intake::learn`].
    Unknown(u32),
    /// Everything in the log has been handed out.
    End,
    /// Nothing for now.
    Empty,
}

/// The reading end of one assigned partition.
pub(crate) struct Intake {
    place: Place,
    queue: PartitionQueue<Context>,
    nonempty: Arc<Notify>,
    codec: Codec,
    registry: Registry,
    /// Records before this were handed out.
    next: i64,
    waiting: Option<OwnedMessage>,
}

impl Intake {
    pub(crate) fn new(
        place: Place,
        mut queue: PartitionQueue<Context>,
        codec: Codec,
        registry: Registry,
        start: i64,
    ) -> Self {
        let nonempty = Arc::new(Notify::new());
        let notify = nonempty.clone();
        queue.set_nonempty_callback(move || notify.notify_one());
        Self { place, queue, nonempty, codec, registry, next: start, waiting: None }
    }

    /// Starts over at an offset to which the consumer has been moved.
    pub(crate) fn restart(&mut self, start: i64) {
        self.next = start;
        self.waiting = None;
    }

    /// Waits until the queue may hold something.
    pub(crate) fn nonempty(&self) -> impl Future<Output = ()> + use<> {
        let nonempty = self.nonempty.clone();
        async move { nonempty.notified().await }
    }

    /// The next record, without waiting.
    ///
    /// # Errors
    /// When records are gone from the log before they were read.
    pub(crate) fn poll(&mut self) -> Result<Polled, Failure> {
        let raw = match self.waiting.take() {
            Some(raw) => raw,
            None => match self.next_raw()? {
                Ok(raw) => raw,
                Err(nothing) => return Ok(nothing),
            },
        };
        let body = match read(self.place, &self.codec, &raw) {
            Ok(body) => Ok(body),
            Err(Unreadable::Schema(id)) => {
                self.waiting = Some(raw);
                return Ok(Polled::Unknown(id));
            }
            Err(Unreadable::Never(reason)) => Err(reason),
        };
        self.next = raw.offset() + 1;
        Ok(Polled::Record(Box::new(Received { raw, body })))
    }

    fn next_raw(&self) -> Result<Result<OwnedMessage, Polled>, Failure> {
        loop {
            match self.queue.poll(Duration::ZERO) {
                None => return Ok(Err(Polled::Empty)),
                // Fetched before the last seek.
                Some(Ok(message)) if message.offset() < self.next => {}
                Some(Ok(message)) => return Ok(Ok(message.detach())),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Err(Polled::End)),
                Some(Err(error)) => self.disturbed(&error)?,
            }
        }
    }

    fn disturbed(&self, error: &KafkaError) -> Result<(), Failure> {
        let lost = [RDKafkaErrorCode::AutoOffsetReset, RDKafkaErrorCode::OffsetOutOfRange];
        if error.rdkafka_error_code().is_some_and(|code| lost.contains(&code)) {
            return Err(Failure::stop(format!("{} has no offset {}", self.place, self.next)));
        }
        // Everything else passes: librdkafka goes on by itself.
        tracing::warn!(place = %self.place, %error, "fetching is disturbed");
        Ok(())
    }

    /// Fetches the schema that the waiting record was written with; the record, refused, if its schema
    /// was never registered.
    ///
    /// # Errors
    /// `Retry` when the registry doesn't answer; `Stop` when the schema is of a record type that is
    /// unknown here: a newer service writes what this one cannot read.
    pub(crate) async fn learn(&mut self, id: u32) -> Result<Option<Received>, Failure> {
        let learned = wire::registry::learn(&mut self.codec, &self.registry, id).await;
        match learned {
            Ok(()) => Ok(None),
            Err(error @ LearnError::NeverRegistered(_)) => {
                let raw = self.waiting.take().expect("learn is called for a waiting record");
                self.next = raw.offset() + 1;
                Ok(Some(Received { raw, body: Err(error.to_string()) }))
            }
            Err(error @ LearnError::Unusable { .. }) => Err(Failure::stop(error.to_string())),
            Err(error @ LearnError::Unavailable { .. }) => Err(Failure::retry(error.to_string())),
        }
    }
}

enum Unreadable {
    Schema(u32),
    Never(String),
}

fn read(place: Place, codec: &Codec, raw: &OwnedMessage) -> Result<Body, Unreadable> {
    let record = codec.decode(raw.payload().unwrap_or_default()).map_err(|e| match e {
        DecodeError::UnknownSchema(id) => Unreadable::Schema(id),
        other => Unreadable::Never(other.to_string()),
    })?;
    let never = |reason: &str| Unreadable::Never(reason.to_owned());
    if !place.topic.record_types.contains(&record.record_type()) {
        let name = record.record_type().name();
        return Err(Unreadable::Never(format!("{name} does not belong on {}", place.topic.name)));
    }
    if !in_calendar(&record) {
        return Err(never("a time lies outside the years 1900 to 2299"));
    }
    let origin = origin(raw).ok_or_else(|| never("origin header is not task/term/sequence"))?;
    Ok(Body { record, origin })
}

/// Term and sequence of the batch that wrote the record.
fn origin(raw: &OwnedMessage) -> Option<(i64, i64)> {
    let header = raw.headers().and_then(|h| h.iter().find(|h| h.key == ORIGIN_HEADER));
    let Some(value) = header.and_then(|h| h.value) else {
        return Some((0, 0));
    };
    let origin: Origin = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some((i64::try_from(origin.term).ok()?, i64::try_from(origin.sequence).ok()?))
}

fn in_calendar(record: &Record) -> bool {
    let within = |times: &[Millis]| times.iter().all(|time| CALENDAR.contains(&time.0));
    match record {
        Record::OrderStatusChanged(status) => {
            within(&[status.accepted_at, status.occurred_at, status.ordered_at])
                && status.consignment.as_ref().is_none_or(|c| within(&[c.promised_at]))
        }
        Record::StockLevelChanged(level) => within(&[level.changed_at]),
        Record::StockMoved(moved) => within(&[moved.moved_at]),
        Record::OrderRepeated(repeat) => within(&[repeat.accepted_at, repeat.repeated_at]),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use events::topics::{ORDER_STATUS, STOCK_LEVELS};
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders};

    fn raw(payload: Vec<u8>, origin: Option<&str>) -> OwnedMessage {
        let headers = origin.map(|text| {
            OwnedHeaders::new().insert(Header { key: ORIGIN_HEADER, value: Some(text) })
        });
        let time = Timestamp::LogAppendTime(1);
        OwnedMessage::new(Some(payload), None, "order-status".into(), time, 0, 7, headers)
    }

    fn reason(place: Place, raw: &OwnedMessage) -> String {
        match read(place, &Codec::without_registry(), raw) {
            Err(Unreadable::Never(reason)) => reason,
            Err(Unreadable::Schema(id)) => format!("schema {id}"),
            Ok(_) => "readable".into(),
        }
    }

    #[test]
    fn only_what_belongs_on_the_topic_and_in_the_calendar_is_read() {
        let codec = Codec::without_registry();
        let place = Place { topic: &ORDER_STATUS, partition: 0 };
        let mut status = samples::status("k", 1);
        let good = codec.to_bytes(&status.clone().into());
        let body = read(place, &codec, &raw(good.clone(), Some("orders-0/3/9"))).ok();
        assert_eq!(body.map(|b| b.origin), Some((3, 9)));
        assert_eq!(reason(place, &raw(good.clone(), None)), "readable");
        assert!(reason(place, &raw(good.clone(), Some("x"))).contains("origin"));
        let stock = Place { topic: &STOCK_LEVELS, partition: 0 };
        assert!(reason(stock, &raw(good.clone(), None)).contains("does not belong"));
        assert!(reason(place, &raw(good[..30].to_vec(), None)).contains("does not decode"));
        assert!(reason(place, &raw(vec![], None)).contains("wire format"));
        assert_eq!(reason(place, &raw(vec![0, 0, 0, 9, 9, 1], None)), "schema 2313");
        status.ordered_at = Millis(i64::MAX);
        let far = codec.to_bytes(&status.into());
        assert!(reason(place, &raw(far, None)).contains("1900"));
    }
}
