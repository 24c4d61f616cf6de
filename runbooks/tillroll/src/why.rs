//! `tillroll why`: what became of an order, and why, as one timeline.
//!
//! Statuses and consignments come from PostgreSQL, which knows an order of any age at once. The rest comes
//! from the log, from the time in which the order was on its way: its own records, answers of stock,
//! couriers and payment providers, decisions about couriers with those that were not chosen, and dead
//! letters under its key. What the log no longer keeps (`orders` and answers: seven days at least) is missing.
//!
//! No names, addresses or free texts of customers are printed.

mod sources;
mod timeline;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use events::{Merchant, Millis, OrderId};
use serde_json::json;
use uuid::Uuid;

use crate::connection::Connection;
use crate::{moment, output};
use sources::Stored;
use timeline::{Entry, Source};

/// Flags of `tillroll why`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll why 5f0e8f5e-3c1a-5b7e-9d55-0d4f6f5c3a11
  tillroll why --merchant shop --idempotency-key cart-4711
  tillroll why 5f0e8f5e-3c1a-5b7e-9d55-0d4f6f5c3a11 --json | jq '.timeline[] | select(.source == \"decision\")'

PostgreSQL's address comes from POSTGRES_URL. An order that it does not know is looked for in the last day
of the log, or --since.

Exit codes: 0 something is known of the order, 1 nothing is, or something does not answer")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The order's id
    #[arg(required_unless_present = "idempotency_key", conflicts_with = "idempotency_key")]
    order: Option<Uuid>,
    /// The client's key, in place of the id
    #[arg(long, value_name = "KEY", requires = "merchant")]
    idempotency_key: Option<String>,
    /// Whose key it is
    #[arg(long)]
    merchant: Option<String>,
    /// From when on the log is read for an order that PostgreSQL does not know
    #[arg(long, value_name = "WHEN", default_value = "1d", value_parser = moment::since)]
    since: Millis,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When nothing is known of the order, or Kafka or the registry do not answer.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { connection, order, idempotency_key, merchant, since, json } = arguments;
    let order = match (order, merchant, idempotency_key) {
        (Some(order), ..) => OrderId(order),
        (None, Some(merchant), Some(key)) => OrderId::derive(&Merchant::parse(&merchant)?, &key),
        _ => unreachable!("one of them is required"),
    };
    let (stored, missing) = match sources::stored(order).await {
        Ok(stored) => (stored, None),
        Err(error) => (Stored::default(), Some(format!("{error:#}"))),
    };
    let (from, to) = stored.window(since, moment::now());
    let mut timeline = stored.entries.clone();
    timeline.extend(sources::logged(&connection, order, from, to).await?);
    ensure!(
        !timeline.is_empty(),
        "nothing is known of order {order} since {}: check the id, or give --since{}",
        moment::text(from),
        missing.as_ref().map(|why| format!("; {why}")).unwrap_or_default()
    );
    timeline.sort_by_key(|entry| (entry.at, entry.source));
    if json {
        let document = json!({ "order": order, "now": stored.now, "timeline": timeline });
        output::data(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for line in lines(order, &stored, &timeline, missing.is_none()) {
            output::data(&line)?;
        }
    }
    for hint in hints(&timeline) {
        output::message(&hint);
    }
    if let Some(why) = &missing {
        output::message(&format!("tillroll: statuses are missing: {why}"));
    }
    Ok(if missing.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(order: OrderId, stored: &Stored, timeline: &[Entry], asked: bool) -> Vec<String> {
    let mut lines = vec![match &stored.now {
        Some(now) => format!("order {order}: {now}"),
        None if asked => format!("order {order}: not in PostgreSQL"),
        None => format!("order {order}: PostgreSQL could not be asked how it stands"),
    }];
    for entry in timeline {
        let Entry { at, source, what, more, .. } = entry;
        lines.push(format!("{}  {:<11}  {what}", moment::text(*at), source.as_str()));
        lines.extend(more.iter().map(|more| format!("{:26}{:<11}    {more}", "", "")));
    }
    lines
}

/// What to type next.
fn hints(timeline: &[Entry]) -> Vec<String> {
    let waits = |entry: &&Entry| entry.source == Source::DeadLetter && entry.waits;
    let letters = timeline.iter().filter(waits);
    letters
        .map(|letter| {
            let place = letter.details["letter"].as_str().unwrap_or_default();
            format!("a dead letter waits: tillroll dlq show {place}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_reads_downwards_and_names_the_next_step() {
        let order = OrderId(Uuid::from_u128(7));
        let mut letter = Entry::new(Millis(1_000), Source::DeadLetter, "orders/3/9: decode".into());
        letter.details = json!({ "letter": "orders/3/9" });
        letter.waits = true;
        letter.more.push("schema id 7".into());
        let timeline = [letter];
        assert_eq!(
            lines(order, &Stored::default(), &timeline, true),
            [
                "order 00000000-0000-0000-0000-000000000007: not in PostgreSQL",
                "1970-01-01T00:00:01.000Z  dead letter  orders/3/9: decode",
                "                                         schema id 7",
            ]
        );
        assert_eq!(hints(&timeline), ["a dead letter waits: tillroll dlq show orders/3/9"]);
    }
}
