//! How many status events a second each store takes, and what an event costs each process. Slow, so
//! it only runs when asked for: `cargo test --release -p sinks --test throughput -- --ignored`.

mod support;

use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use support::writer::{self, Writer};
use support::{Bench, auditor, until};

const ORDERS: u32 = 60_000;
const LIVE_ORDERS_PER_S: u32 = 2_000;
const LIVE_S: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(300);

/// CPU seconds of a process and its children, living and gone.
fn cpu_s(pid: u32) -> Result<f64> {
    let ticks = |pid: u32, fields: std::ops::Range<usize>| -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let rest = stat.rsplit(')').next().context("a stat line")?;
        let fields = rest.split_whitespace().skip(fields.start).take(fields.len());
        Ok(fields.map(|f| f.parse::<f64>().unwrap_or(0.0)).sum())
    };
    let mut total = ticks(pid, 11..15)?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    for child in children.split_whitespace() {
        total += ticks(child.parse()?, 11..13).unwrap_or(0.0);
    }
    Ok(total / 100.0)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct Meter {
    names: Vec<(String, u32)>,
    before: Vec<f64>,
}

impl Meter {
    fn start(bench: &Bench) -> Result<Self> {
        let components = bench.stack.components();
        let names: Vec<_> =
            components.iter().filter_map(|c| Some((c.name().to_owned(), c.pid()?))).collect();
        let before = names.iter().map(|(_, pid)| cpu_s(*pid)).collect::<Result<_>>()?;
        Ok(Self { names, before })
    }

    fn report(&self, events: usize) -> Result<()> {
        for ((name, pid), before) in self.names.iter().zip(&self.before) {
            let spent = cpu_s(*pid)? - before;
            say(&format!(
                "  {name}: {spent:.2} s CPU, {:.1} µs an event",
                spent * 1e6 / events as f64
            ));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and wants the machine for itself"]
async fn throughput() -> Result<()> {
    let bench = Bench::start().await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    for start in (0..ORDERS).step_by(500) {
        writer.commit(&writer::histories("backlog", start..start + 500))?;
    }
    let truth = auditor::truth(&bench)?;
    let events = truth.events.len();
    let sinks = bench.sinks().await?;
    let meter = Meter::start(&bench)?;
    let started = Instant::now();
    let (postgres, clickhouse) =
        (Cell::<Option<Duration>>::new(None), Cell::<Option<Duration>>::new(None));
    until("both stores have the backlog", PATIENCE, || async {
        let done = truth.postgres_caught_up(&bench).await?;
        if done && postgres.get().is_none() {
            postgres.set(Some(started.elapsed()));
        }
        let done = truth.clickhouse_caught_up(&bench).await?;
        if done && clickhouse.get().is_none() {
            clickhouse.set(Some(started.elapsed()));
        }
        Ok(postgres.get().is_some() && clickhouse.get().is_some())
    })
    .await?;
    for (store, took) in [("postgres", postgres), ("clickhouse", clickhouse)] {
        let took = took.get().context("measured")?.as_secs_f64();
        say(&format!("backlog of {events} events into {store}: {:.0}/s", events as f64 / took));
    }
    meter.report(events)?;

    let meter = Meter::start(&bench)?;
    let mut live = 0;
    for tick in 0..LIVE_S * 20 {
        let due = started.elapsed();
        let step = LIVE_ORDERS_PER_S / 20;
        let start = tick * step;
        let records = writer::histories("live", start..start + step);
        live += records.len();
        writer.commit(&records)?;
        let spent = started.elapsed() - due;
        tokio::time::sleep(Duration::from_millis(50).saturating_sub(spent)).await;
    }
    let truth = auditor::truth(&bench)?;
    let written = Instant::now();
    until("postgres has it", PATIENCE, || truth.postgres_caught_up(&bench)).await?;
    let postgres = written.elapsed();
    until("clickhouse has it", PATIENCE, || truth.clickhouse_caught_up(&bench)).await?;
    say(&format!(
        "live, {live} events: postgres {postgres:?} and clickhouse {:?} behind at the end",
        written.elapsed()
    ));
    meter.report(live)?;
    truth.check_postgres(&bench).await?;
    truth.check_clickhouse(&bench).await?;
    let log = std::fs::read_to_string(sinks.log())?;
    anyhow::ensure!(!log.contains("held back"), "something went wrong on the way");
    Ok(())
}
