//! Where a timeline's entries come from: PostgreSQL, and the log.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use events::topics::{COURIER_DECISIONS, ORDER_OUTCOMES, ORDERS, Topic, partition_for};
use events::{DecodeError, Millis, OrderId};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use serde_json::json;

use super::timeline::{Entry, Source, entry};
use crate::connection::Connection;
use crate::dlq;
use crate::log::{Log, Wanted};
use crate::store::Store;

/// Before an order's first record, and after its last change, something may still be told of it.
const BEFORE_MS: i64 = 60_000;
const AFTER_MS: i64 = 3_600_000;

const ORDER: &str = "
    SELECT merchant, status, reason, version, accepted_at, updated_at, total_minor, currency
    FROM orders WHERE order_id = $1 ORDER BY accepted_at DESC";
const EVENTS: &str = "
    SELECT version, status, reason, occurred_at, jsonb_array_length(coalesce(refusals, '[]'))
    FROM order_events WHERE order_id = $1";
const CONSIGNMENTS: &str = "
    SELECT e.occurred_at, c.courier, c.tracking_number, c.price_minor, c.currency, c.promised_at,
           c.attempt, c.version
    FROM consignments c JOIN order_events e USING (order_id, accepted_at, version)
    WHERE c.order_id = $1";
const REPEATS: &str = "
    SELECT repeated_at, kind, source_partition, source_offset FROM order_repeats WHERE order_id = $1";

/// What PostgreSQL knows of an order.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// How the order stands, in a line; `None` if it is not there.
    pub(super) now: Option<String>,
    /// When its first record was appended, and when its status changed last.
    times: Option<(Millis, Millis)>,
    pub(super) entries: Vec<Entry>,
}

impl Stored {
    /// From when until when the log can tell more.
    pub(super) fn window(&self, since: Millis, now: Millis) -> (Millis, Millis) {
        match self.times {
            None => (since, now),
            Some((accepted, updated)) => {
                (accepted.plus(-BEFORE_MS), Millis(updated.plus(AFTER_MS).0.min(now.0)))
            }
        }
    }
}

fn millis(at: DateTime<Utc>) -> Millis {
    Millis(at.timestamp_millis())
}

/// Asks PostgreSQL.
///
/// # Errors
/// When it does not answer.
pub(super) async fn stored(order: OrderId) -> Result<Stored> {
    let store = Store::connect().await?;
    let mut stored = Stored::default();
    // The same key may name another order after its lifetime: the newest is how it stands, the oldest
    // begins the timeline.
    for row in store.rows(ORDER, &[&order.0]).await? {
        let (accepted, updated) = (millis(row.get(4)), millis(row.get(5)));
        let (merchant, status, reason): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let (version, total, currency): (i32, i64, String) = (row.get(3), row.get(6), row.get(7));
        let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        stored.now.get_or_insert(format!(
            "{status}{why}, version {version}, of {merchant}, {total} minor units of {currency}"
        ));
        let (_, last) = stored.times.unwrap_or((accepted, updated));
        stored.times = Some((accepted, last.max(updated)));
    }
    for row in store.rows(EVENTS, &[&order.0]).await? {
        let (version, status, reason): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
        let refused: i32 = row.get(4);
        let mut what = format!("{version} {status}");
        if !reason.is_empty() {
            what.push_str(&format!(" ({reason})"));
        }
        if refused > 0 {
            what.push_str(&format!(", {refused} lines refused"));
        }
        let mut entry = Entry::new(millis(row.get(3)), Source::Status, what);
        entry.details = json!({ "version": version, "status": status, "reason": reason, "refused_lines": refused });
        stored.entries.push(entry);
    }
    for row in store.rows(CONSIGNMENTS, &[&order.0]).await? {
        let (courier, tracking): (String, String) = (row.get(1), row.get(2));
        let (price, currency): (i64, String) = (row.get(3), row.get(4));
        let promised = crate::moment::text(millis(row.get(5)));
        let (attempt, version): (i32, i32) = (row.get(6), row.get(7));
        let what = format!(
            "{version} with {courier}, tracking number {tracking}, {price} {currency}, promised \
             {promised}, attempt {attempt}"
        );
        let mut entry = Entry::new(millis(row.get(0)), Source::Status, what);
        entry.details = json!({
            "version": version, "courier": courier, "tracking_number": tracking,
            "price_minor": price, "currency": currency, "promised_at": promised, "attempt": attempt,
        });
        stored.entries.push(entry);
    }
    for row in store.rows(REPEATS, &[&order.0]).await? {
        let (kind, partition, offset): (String, i32, i64) = (row.get(1), row.get(2), row.get(3));
        let what = format!("{kind}: orders/{partition}/{offset} under the same idempotency key");
        let mut entry = Entry::new(millis(row.get(0)), Source::Conflict, what);
        entry.details = json!({ "kind": kind, "record": format!("orders/{partition}/{offset}") });
        stored.entries.push(entry);
    }
    Ok(stored)
}

/// Asks the log, from one moment to another.
///
/// # Errors
/// When Kafka or the registry does not answer.
pub(super) async fn logged(
    connection: &Connection,
    order: OrderId,
    from: Millis,
    to: Millis,
) -> Result<Vec<Entry>> {
    let (brokers, registry) = (connection.brokers()?, connection.registry()?);
    let mut codec = wire::registry::codec(&registry).await?;
    let read = tokio::task::spawn_blocking(move || {
        let log = Log::connect(&brokers)?;
        let letters = dead_letters(&log, order)?;
        // An order whose first record was refused began before it was accepted.
        let from = letters.iter().map(|letter| letter.at).fold(from, Millis::min);
        let mut found = Vec::new();
        for topic in [ORDERS, ORDER_OUTCOMES, COURIER_DECISIONS] {
            found.extend(records(&log, &topic, order, (from, to))?);
        }
        anyhow::Ok((letters, found))
    });
    let (mut entries, found) = read.await??;
    for message in found {
        let bytes = message.payload().unwrap_or_default();
        let mut decoded = codec.decode(bytes);
        if let Err(DecodeError::UnknownSchema(id)) = decoded
            && wire::registry::learn(&mut codec, &registry, id).await.is_ok()
        {
            decoded = codec.decode(bytes);
        }
        let at = Millis(message.timestamp().to_millis().unwrap_or_default());
        // What cannot be read is a dead letter, and told as one.
        entries.extend(decoded.ok().map(|record| entry(&record, at, redriven(&message))));
    }
    Ok(entries)
}

fn dead_letters(log: &Log, order: OrderId) -> Result<Vec<Entry>> {
    let told = dlq::letters_of(log, order.as_bytes())?;
    let entry = |letter: dlq::Told| {
        let mut entry = Entry::new(letter.at, Source::DeadLetter, letter.what);
        entry.more = letter.more;
        entry.details = json!({ "letter": letter.place, "waits": letter.waits });
        entry.waits = letter.waits;
        entry
    };
    Ok(told.into_iter().map(entry).collect())
}

/// Records of a topic that are about the order: by their key, or because its id stands in them.
fn records(
    log: &Log,
    topic: &Topic,
    order: OrderId,
    (from, to): (Millis, Millis),
) -> Result<Vec<OwnedMessage>> {
    let (starts, ends) = (log.at(topic.name, from.0)?, log.at(topic.name, to.plus(1).0)?);
    // What is keyed by order stands in one partition.
    let home = partition_for(order.as_bytes(), i32::try_from(starts.len())?);
    let keyed = topic.name != COURIER_DECISIONS.name;
    let mut ranges = BTreeMap::new();
    for (partition, start) in starts.iter().filter(|(p, _)| !keyed || **p == home) {
        ranges.insert(*partition, (*start, ends[partition]));
    }
    let mut found = Vec::new();
    log.read(topic.name, &ranges, |message| {
        let named = || mentions(message.payload().unwrap_or_default(), order);
        if message.key() == Some(order.as_bytes()) || (!keyed && named()) {
            found.push(message.detach());
        }
        Wanted::More
    })?;
    Ok(found)
}

/// Whether an order's id stands in a record, as bytes or as text.
fn mentions(payload: &[u8], order: OrderId) -> bool {
    let text = order.to_string();
    [&order.as_bytes()[..], text.as_bytes()]
        .iter()
        .any(|id| payload.windows(id.len()).any(|part| part == *id))
}

/// Whether the record was redriven: how often, by whom, why.
fn redriven(message: &OwnedMessage) -> Option<String> {
    let text = |name: &str| {
        let found = message.headers()?.iter().find(|header| header.key == name)?;
        Some(String::from_utf8_lossy(found.value?).into_owned())
    };
    dlq::redriven(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn an_order_is_found_in_a_record_by_bytes_or_text() {
        let order = OrderId(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let bytes = [&[7][..], order.as_bytes(), &[7]].concat();
        assert!(mentions(&bytes, order));
        assert!(mentions(format!("H{order}").as_bytes(), order));
        assert!(!mentions(&bytes[..16], order) && !mentions(b"", order));
    }

    #[test]
    fn the_log_is_read_while_the_order_was_on_its_way() {
        let (since, now) = (Millis(5), Millis(100_000_000));
        assert_eq!(Stored::default().window(since, now), (since, now));
        let times = Some((Millis(50_000_000), Millis(60_000_000)));
        let ended = Stored { times, ..Stored::default() };
        assert_eq!(ended.window(since, now), (Millis(49_940_000), Millis(63_600_000)));
        let times = Some((Millis(50_000_000), Millis(99_000_000)));
        let fresh = Stored { times, ..Stored::default() };
        assert_eq!(fresh.window(since, now).1, now);
    }
}
