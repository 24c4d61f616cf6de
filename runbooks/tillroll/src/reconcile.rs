//! `tillroll reconcile`: whether stock, its holds, both databases and the history agree, and correcting
//! what does not.
//!
//! Everything moves while it is read. Readers must be close behind the log, and a difference counts once
//! it was the same in two looks that are further apart than readers may be behind. What changes all the time
//! is judged when it pauses.

mod apply;
mod books;
mod drift;
mod stores;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use events::topics;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::lag::{self, Groups};
use crate::log::Log;
use crate::report::query::Database;
use crate::{moment, operator, output};
use drift::{Drift, Kind};
use stores::Scope;

/// Between the two looks; longer than a reader may be behind.
const PAUSE: Duration = Duration::from_secs(6);
const BEHIND_MS: i64 = 5_000;
/// Looks after a correction until it must be seen, and the pause between two.
const AFTERWARDS: usize = 30;
const AFTERWARDS_PAUSE: Duration = Duration::from_secs(2);
/// Whose readers must be close: what stock reads and is told, and what the databases have of it.
const CONCERNED: [&str; 5] = [
    topics::STOCK.name,
    topics::ORDER_OUTCOMES.name,
    topics::ORDER_STATUS.name,
    topics::STOCK_LEVELS.name,
    topics::STOCK_MOVEMENTS.name,
];
/// Differences that are printed for people.
const SHOWN: usize = 100;

/// Flags of `tillroll reconcile`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll reconcile                                   what does not agree; changes nothing
  tillroll reconcile --sku 85123A --json | jq .drift
  tillroll reconcile --apply --because 'movements from before the update'

Compares, per merchant, SKU and warehouse: stock's own state (its changelog) with PostgreSQL's levels, with
what orders hold, and with the sum of the movements in PostgreSQL; the movements there with ClickHouse's;
and looks for holds of orders that ended unserved, that have left, or that nobody knows.

--apply appends recorded events, signed with who and why: a movement of kind `reconciliation` gives the
history what it lacks and has the level told anew, a release gives back what an ended order holds, a
dispatch takes off the books what has left. What is on hand is never changed otherwise: that is what
`POST /v1/stock/counts` is for.

Addresses of the databases come from POSTGRES_URL and CLICKHOUSE_URL.

Exit codes: 0 everything agrees, or was corrected; 1 something does not agree, or does not answer")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    groups: Groups,
    #[command(flatten)]
    scope: Scope,
    /// Correct what can be corrected
    #[arg(long, requires = "because")]
    apply: bool,
    /// Why; kept with every correction
    #[arg(long, value_name = "TEXT", requires = "apply")]
    because: Option<String>,
    /// Who; kept with every correction [default: user@host]
    #[arg(long, value_name = "NAME", requires = "apply")]
    by: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When a reader is too far behind, or something does not answer or refuses.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let drift = steady(&arguments).await?;
    let now = moment::now();
    let mut corrected = BTreeSet::new();
    if let Some(because) = &arguments.because {
        let by = operator::name(arguments.by.as_deref())?;
        let correctable: BTreeSet<Drift> =
            drift.iter().filter(|drift| drift.correctable(now)).cloned().collect();
        apply::append(&arguments.connection, &correctable, &by, because).await?;
        corrected = seen_to_go(&arguments, correctable).await?;
    }
    let left: BTreeSet<&Drift> = drift.difference(&corrected).collect();
    if arguments.json {
        let told = |drift: &Drift| json_of(drift, corrected.contains(drift), now);
        let all: Vec<Value> = drift.iter().map(told).collect();
        let document =
            json!({ "measured_at": moment::text(now), "drift": all, "left": left.len() });
        output::data(&serde_json::to_string_pretty(&document)?)?;
    } else {
        for line in lines(&drift, &corrected, now) {
            output::data(&line)?;
        }
    }
    output::message(&match (drift.len(), corrected.len()) {
        (0, _) => "stock, holds, databases and history agree".to_owned(),
        (all, 0) => format!("{all} differences"),
        (all, done) => format!("{all} differences, {done} corrected"),
    });
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The differences that are the same in both looks.
async fn steady(arguments: &Arguments) -> Result<BTreeSet<Drift>> {
    let mut steady = look(arguments).await?;
    if !steady.is_empty() {
        output::message(&format!("{} differences; looking again in 6 s", steady.len()));
        tokio::time::sleep(PAUSE).await;
        let again = look(arguments).await?;
        steady.retain(|drift| again.contains(drift));
    }
    Ok(steady)
}

/// Those that are gone after their correction.
async fn seen_to_go(arguments: &Arguments, mut open: BTreeSet<Drift>) -> Result<BTreeSet<Drift>> {
    let asked = open.clone();
    for _ in 0..AFTERWARDS {
        if open.is_empty() {
            break;
        }
        tokio::time::sleep(AFTERWARDS_PAUSE).await;
        // What was appended counts: that a reader is behind now is no reason to say nothing of it.
        let Ok(there) = look(arguments).await else { continue };
        // Other pieces of the same kind in the same place are not what was corrected.
        open.retain(|drift| there.contains(drift));
    }
    Ok(asked.difference(&open).cloned().collect())
}

async fn look(arguments: &Arguments) -> Result<BTreeSet<Drift>> {
    let brokers = arguments.connection.brokers()?;
    let lag = lag::measured(brokers.clone(), &arguments.groups).await?;
    if let Some(unknown) = lag.unknown.first() {
        bail!("{unknown}");
    }
    let concerned = |behind: &&lag::Behind| CONCERNED.contains(&behind.topic.as_str());
    if let Some(worst) = lag.partitions.iter().filter(concerned).find(|b| b.group != "billing") {
        let behind = worst.oldest_ms.unwrap_or(0);
        ensure!(
            behind < BEHIND_MS,
            "{} is {} behind in {}: what it has not read would look like a difference; see `tillroll \
             lag`, try again when it has caught up",
            worst.group,
            moment::age(behind),
            worst.topic
        );
    }
    let read = tokio::task::spawn_blocking(move || books::read(&Log::connect(&brokers)?));
    let mut books = read.await??;
    arguments.scope.narrow(&mut books);
    let stores = stores::ask(&arguments.database, &arguments.scope, &books).await?;
    Ok(drift::compare(&books, &stores))
}

fn json_of(drift: &Drift, corrected: bool, now: events::Millis) -> Value {
    let Drift { kind, place: (merchant, sku, warehouse), count, expected, found, hold } = drift;
    json!({
        "kind": kind,
        "merchant": merchant,
        "sku": sku,
        "warehouse": warehouse,
        "count": count,
        "expected": expected,
        "found": found,
        "order_id": hold.as_ref().map(|(order, ..)| order.order_id.to_string()),
        "corrected": corrected,
        "remedy": if corrected { "" } else { drift.remedy(now) },
    })
}

fn lines(drift: &BTreeSet<Drift>, corrected: &BTreeSet<Drift>, now: events::Millis) -> Vec<String> {
    if drift.is_empty() {
        return Vec::new();
    }
    let names = ["what", "merchant", "sku", "warehouse", "count", "expected", "found", ""];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(drift.iter().take(SHOWN).map(|drift| {
        let (merchant, sku, warehouse) = &drift.place;
        let what = match (drift.kind, &drift.hold) {
            (Kind::Level, _) => "level in PostgreSQL".to_owned(),
            (Kind::History, _) => "history in PostgreSQL".to_owned(),
            (Kind::Reports, _) => "history in ClickHouse".to_owned(),
            (Kind::Promised, _) => "pieces that orders hold".to_owned(),
            (Kind::UnknownPlace, _) => "stock that was never there".to_owned(),
            (Kind::EndedOrder, Some((order, ..))) => format!("ended order {}", order.order_id),
            (Kind::GoneOrder, Some((order, ..))) => format!("delivered order {}", order.order_id),
            (_, Some((order, ..))) => format!("unknown order {}", order.order_id),
            (_, None) => "unknown order".to_owned(),
        };
        let done = if corrected.contains(drift) { "corrected" } else { drift.remedy(now) };
        let (expected, found) = (drift.expected.to_string(), drift.found.to_string());
        let count = drift.count.to_owned();
        let place = [merchant.to_string(), sku.to_string(), warehouse.to_string()];
        let [merchant, sku, warehouse] = place;
        vec![what, merchant, sku, warehouse, count, expected, found, done.to_owned()]
    }));
    let mut lines = output::table(&[false, false, false, false, false, true, true, false], &rows);
    if drift.len() > SHOWN {
        lines.push(format!("and {} more: --json", drift.len() - SHOWN));
    }
    lines
}
