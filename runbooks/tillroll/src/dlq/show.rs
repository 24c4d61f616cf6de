//! `tillroll dlq show`: one letter, decoded where that is possible.

use anyhow::{Context, Result};
use events::{Codec, DecodeError, Record};
use serde_json::{Map, Value, json};
use wire::config::Registry;

use super::filter::Filter;
use super::letter::{Decision, Letter, Place, hex};
use super::list::letter_json;
use super::queue::Queue;
use super::values::with_values;
use crate::connection::Connection;
use crate::log::Log;
use crate::output;

/// Bytes of a value that are shown as hexadecimal digits.
const HEX_BYTES: usize = 4_096;
/// Header values that are shown to everyone: ours, and that of traces.
const HARMLESS: [&str; 3] = ["origin", "traceparent", "tracestate"];
/// Fields of a record that are shown to everyone: identities and places, nobody's data.
const IDENTITIES: [&str; 10] = [
    "order_id",
    "accepted_at",
    "merchant",
    "version",
    "status",
    "attempt",
    "sku",
    "warehouse",
    "courier",
    "occurred_at",
];

/// Flags of `tillroll dlq show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    connection: Connection,
    /// Where the letter's record stood, e.g. orders/3/9; see `tillroll dlq list --each`
    #[arg(value_name = "TOPIC/PARTITION/OFFSET")]
    place: Place,
    /// Show everything in it: this can be a customer's name and address
    #[arg(long)]
    payload: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(arguments: Show) -> Result<()> {
    let Show { connection, place, payload, json } = arguments;
    let brokers = connection.brokers()?;
    let filter = Filter { places: vec![place.clone()], ..Filter::default() };
    let found = tokio::task::spawn_blocking(move || {
        let log = Log::connect(&brokers)?;
        let queue = Queue::read(&log, &filter)?;
        let letter = queue.letters.get(&place).with_context(|| {
            let topic = &place.topic;
            format!("there is no letter {place}: see `tillroll dlq list --each --topic {topic}`")
        })?;
        let value = with_values(&log, &[letter])?.into_iter().next().and_then(|(_, value)| value);
        anyhow::Ok((letter.clone(), value, queue.decisions.get(&place).cloned()))
    });
    let (letter, value, decision) = found.await??;
    let decoded = match connection.registry() {
        Ok(registry) => decode(&registry, value.as_deref().unwrap_or_default()).await,
        Err(error) => Err(format!("{error:#}")),
    };
    let document = document((&letter, value.as_deref()), decision.as_ref(), &decoded, payload);
    if json {
        return output::data(&serde_json::to_string_pretty(&document)?);
    }
    for line in lines(&document) {
        output::data(&line)?;
    }
    if !payload && value.is_some() {
        output::message("its content is shown with --payload");
    }
    Ok(())
}

/// The record, or why there is none in these bytes.
async fn decode(registry: &Registry, bytes: &[u8]) -> Result<Record, String> {
    let codec = wire::registry::codec(registry).await;
    let mut codec: Codec = codec.map_err(|error| format!("{error:#}"))?;
    match codec.decode(bytes) {
        Err(DecodeError::UnknownSchema(id)) => {
            let learnt = wire::registry::learn(&mut codec, registry, id).await;
            learnt.map_err(|error| error.to_string())?;
            codec.decode(bytes).map_err(|error| error.to_string())
        }
        other => other.map_err(|error| error.to_string()),
    }
}

fn document(
    (letter, value): (&Letter, Option<&[u8]>),
    decision: Option<&Decision>,
    decoded: &Result<Record, String>,
    payload: bool,
) -> Value {
    let mut document = letter_json(letter);
    document["headers"] = headers(letter, payload);
    document["decision"] = json!(decision);
    match decoded {
        Ok(record) => {
            let content = serde_json::to_value(record).unwrap_or_default();
            document["record_type"] = json!(record.record_type().name());
            document["record"] = if payload { content } else { identities(&content) };
        }
        Err(why) => document["unreadable"] = json!(why),
    }
    if payload && decoded.is_err() {
        let bytes = value.unwrap_or_default();
        document["hex"] = json!(hex(&bytes[..bytes.len().min(HEX_BYTES)]));
    }
    document
}

/// A sender may put anything into headers: values that are not ours are shown as their size.
fn headers(letter: &Letter, payload: bool) -> Value {
    let mut shown = Map::new();
    for (name, value) in &letter.headers {
        let value = match value {
            None => Value::Null,
            Some(bytes) if payload || HARMLESS.contains(&name.as_str()) => {
                json!(String::from_utf8_lossy(bytes))
            }
            Some(bytes) => json!(format!("({} bytes)", bytes.len())),
        };
        shown.insert(name.clone(), value);
    }
    Value::Object(shown)
}

fn identities(content: &Value) -> Value {
    let all = content.as_object().into_iter().flatten();
    let known = all.filter(|(name, _)| IDENTITIES.contains(&name.as_str()));
    Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A line per field, those of objects indented.
fn lines(document: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Object(fields) if fields.is_empty() => {}
            Value::Object(fields) => {
                lines.push(name.clone());
                lines.extend(fields.iter().map(|(name, value)| field(&format!("  {name}"), value)));
            }
            value => lines.push(field(name, value)),
        }
    }
    lines
}

fn field(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{name:<16} {text}"),
        value => format!("{name:<16} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::Action;
    use super::super::letter::tests::letter;
    use super::*;
    use events::{Merchant, Millis, OrderId, ReleaseLines};

    fn release() -> Record {
        let merchant = Merchant::parse("shop").expect("legal");
        let order_id = OrderId::derive(&merchant, "k");
        ReleaseLines { order_id, accepted_at: Millis(7), merchant, attempt: 1 }.into()
    }

    #[test]
    fn nobodys_data_is_shown_unless_it_is_asked_for() {
        let record = json!({ "order_id": "7", "destination": { "name": "Ada" }, "status": "paid" });
        assert_eq!(identities(&record), json!({ "order_id": "7", "status": "paid" }));
        let letter = letter("orders/1/4", "a", &[("note", "Ada, Main St 1")]);
        let shown = headers(&letter, false);
        assert_eq!(shown, json!({ "origin": "orders-0/1/2", "note": "(14 bytes)" }));
        assert_eq!(headers(&letter, true)["note"], "Ada, Main St 1");
    }

    #[test]
    fn what_is_no_record_is_shown_as_bytes() {
        let letter = letter("orders/1/4", "a", &[]);
        let valued = (&letter, Some(&[0xca, 0xfe][..]));
        let unreadable = Err("not in Confluent wire format (2 bytes)".to_owned());
        let shown = document(valued, None, &unreadable, true);
        assert_eq!((&shown["hex"], &shown["record"]), (&json!("cafe"), &Value::Null));
        assert_eq!(document(valued, None, &unreadable, false)["hex"], Value::Null);
    }

    #[test]
    fn a_letter_is_shown_field_by_field() {
        let letter = letter("orders/1/4", "a", &[]);
        let (by, why) = ("ada@ops".to_owned(), "mended".to_owned());
        let (place, action) = (letter.place.clone(), Action::Redriven);
        let decision = Decision { letter: place, action, by, why, at: Millis(0) };
        let shown = lines(&document((&letter, None), Some(&decision), &Ok(release()), true));
        for line in ["letter           orders/1/4", "record_type      ReleaseLines"] {
            assert!(shown.contains(&line.to_owned()), "{line} is not in {shown:#?}");
        }
        assert!(shown.contains(&"  by             ada@ops".to_owned()), "{shown:#?}");
        assert!(shown.contains(&"  merchant       shop".to_owned()), "{shown:#?}");
    }
}
