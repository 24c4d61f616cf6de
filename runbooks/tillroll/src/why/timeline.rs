//! Entries of a timeline, made of records.

use events::{CourierDecided, Millis, Record, RecordType};
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields that are told: codes, numbers and times. Free texts and customers' data are not.
const TOLD: [&str; 22] = [
    "attempt",
    "generation",
    "stock_partition",
    "courier",
    "price_minor",
    "currency",
    "promised_at",
    "expected_by",
    "state",
    "provider",
    "step",
    "outcome",
    "amount_minor",
    "latency_ms",
    "kind",
    "on_time",
    "transit_ms",
    "total_minor",
    "occurred_at",
    "source_partition",
    "source_offset",
    "reason",
];

/// Where an entry comes from; of the same moment, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    /// A record that was refused.
    DeadLetter,
    /// A client's record.
    Placed,
    /// A later record under the same idempotency key.
    Conflict,
    /// An answer to the order's saga, or a request to it.
    Outcome,
    /// A change of status.
    Status,
    /// A choice of a courier.
    Decision,
}

impl Source {
    /// For people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Status => "status",
            Self::Decision => "decision",
            Self::Outcome => "outcome",
            Self::Conflict => "conflict",
            Self::DeadLetter => "dead letter",
        }
    }
}

/// Something that happened to an order.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Entry {
    #[serde(serialize_with = "crate::moment::serialize")]
    pub(super) at: Millis,
    pub(super) source: Source,
    /// In a line.
    pub(super) what: String,
    /// Further lines.
    #[serde(skip)]
    pub(super) more: Vec<String>,
    /// For programs.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) details: Value,
    /// Whether somebody has to see to it.
    #[serde(skip)]
    pub(super) waits: bool,
}

impl Entry {
    pub(super) fn new(at: Millis, source: Source, what: String) -> Self {
        Self { at, source, what, more: Vec::new(), details: Value::Null, waits: false }
    }
}

/// A record of the log as an entry. `redriven` says how often, by whom and why it went back.
pub(super) fn entry(record: &Record, at: Millis, redriven: Option<String>) -> Entry {
    let record_type = record.record_type();
    let content = serde_json::to_value(record).unwrap_or_default();
    let source = match record_type {
        RecordType::OrderPlaced => Source::Placed,
        RecordType::CourierDecided | RecordType::DeliveryJudged => Source::Decision,
        _ => Source::Outcome,
    };
    let mut details = Map::new();
    told(&content, &mut details);
    if record_type == RecordType::CancelRequested {
        // In the requester's own words.
        details.remove("reason");
    }
    let facts: Vec<String> = details.iter().map(|(name, value)| fact(name, value)).collect();
    let what = format!("{} {}", record_type.name(), facts.join(" "));
    let mut entry = Entry::new(at, source, what.trim_end().to_owned());
    if let Record::CourierDecided(decided) = record {
        entry.what = decision(decided);
        entry.more = candidates(decided);
        details.insert("candidates".to_owned(), content["candidates"].clone());
    }
    entry.more.extend(redriven);
    details.insert("record_type".to_owned(), record_type.name().into());
    entry.details = Value::Object(details);
    entry
}

/// What may be told, of a record and of the consignment in it.
fn told(content: &Value, details: &mut Map<String, Value>) {
    for (name, value) in content.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) if name == "consignment" => told(value, details),
            Value::Array(refusals) if name == "refusals" => {
                details.insert("refused_lines".to_owned(), refusals.len().into());
            }
            Value::Object(_) | Value::Array(_) | Value::Null => {}
            // A text that is empty, and a moment that is 0, are ones that there are not.
            value if value == "" || (moment(name) && value == 0) => {}
            value if TOLD.contains(&name.as_str()) => {
                details.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
}

/// Whether a field is a moment.
fn moment(name: &str) -> bool {
    name.ends_with("_at") || name == "expected_by"
}

fn fact(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("{name}={text}"),
        Value::Number(at) if moment(name) => {
            format!("{name}={}", crate::moment::text(Millis(at.as_i64().unwrap_or_default())))
        }
        value => format!("{name}={value}"),
    }
}

fn decision(decided: &CourierDecided) -> String {
    let CourierDecided { attempt, courier, reason, propensity_permille, lane, .. } = decided;
    format!(
        "attempt {attempt} on {lane}: {courier} ({}, chosen in {} of 100 draws)",
        reason.as_str(),
        (propensity_permille + 5) / 10
    )
}

/// Who could have been chosen, the one who was with an arrow.
fn candidates(decided: &CourierDecided) -> Vec<String> {
    let line = |candidate: &events::Candidate| {
        let arrow = if candidate.courier == decided.courier { ">" } else { " " };
        let standing = serde_json::to_value(candidate.standing).unwrap_or_default();
        format!(
            "{arrow} {:<12} price {:>6}  late {:>3} per mille  score {:>6}  {}",
            candidate.courier.as_str(),
            candidate.price_minor,
            candidate.late_permille,
            candidate.score_minor,
            standing.as_str().unwrap_or_default()
        )
    };
    decided.candidates.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{
        CancelRequested, Candidate, CourierCode, DecisionReason, Lane, Merchant, OrderId,
        RequestId, Standing, WarehouseCode,
    };
    use uuid::Uuid;

    fn order() -> OrderId {
        OrderId(Uuid::from_u128(7))
    }

    #[test]
    fn a_decision_names_those_who_were_not_chosen() {
        let code = |text| CourierCode::parse(text).expect("legal");
        let candidate = |courier, score_minor, standing| Candidate {
            courier: code(courier),
            price_minor: 895,
            late_permille: 32,
            score_minor,
            standing,
        };
        let decided = CourierDecided {
            order_id: order(),
            accepted_at: Millis(1),
            lane: Lane::new(&WarehouseCode::MAIN, "GB"),
            attempt: 2,
            decided_at: Millis(2),
            courier: code("swift"),
            reason: DecisionReason::Expected,
            propensity_permille: 874,
            lateness_cost_minor: 500,
            candidates: vec![
                candidate("slow", 990, Standing::Out),
                candidate("swift", 912, Standing::Eligible),
            ],
        };
        let entry = entry(&decided.into(), Millis(2), None);
        assert_eq!(entry.source, Source::Decision);
        assert_eq!(entry.what, "attempt 2 on main>GB: swift (expected, chosen in 87 of 100 draws)");
        let expected = [
            "  slow         price    895  late  32 per mille  score    990  out",
            "> swift        price    895  late  32 per mille  score    912  eligible",
        ];
        assert_eq!(entry.more, expected);
        assert_eq!(entry.details["candidates"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn a_customers_own_words_are_not_told() {
        let cancel = CancelRequested {
            order_id: order(),
            merchant: Merchant::parse("shop").expect("legal"),
            request_id: RequestId(Uuid::from_u128(9)),
            reason: "call Ada, 01904".into(),
        };
        let entry = entry(&cancel.into(), Millis(2), Some("redriven once".into()));
        assert_eq!(
            (&*entry.what, &*entry.more),
            ("CancelRequested", &["redriven once".to_owned()][..])
        );
        assert!(!serde_json::to_string(&entry).expect("JSON").contains("Ada"));
    }
}
