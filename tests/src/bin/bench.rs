//! `tillroll-bench`: what the whole stack carries on this machine, next to a raw ceiling measured in
//! the same run. Prints a table and writes `target/bench.json`; every name is explained in
//! `tests/README.md`.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use events::OrderId;
use local::Stack;
use tests::load::{self, Load, Sent, Target};
use tests::progress::say;
use tests::shop::Shop;
use tests::stack::{Instances, System};
use tests::state::{self, Results};
use tests::streams;
use tests::watch::{Seen, cpu_seconds, open, visible};
use tests::{growth, raw, reservations};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
/// First part of the names of what every order of the sustained part went through.
const SUSTAINED: &str = "end_to_end";
/// A reader further behind than this at the end of the sustained part has not kept up; ClickHouse is
/// written every two seconds, so it is up to that much behind at rest.
const MOST_BACKLOG_S: [(&str, f64); 3] = [("status", 1.0), ("postgres", 1.0), ("clickhouse", 2.0)];
/// All but `streams` run unless one is named.
const PARTS: [&str; 8] =
    ["sustained", "flash", "raw", "restore", "rebalance", "reservations", "growth", "streams"];
/// SKUs that reservations are spread over in the second run.
const SPREAD: usize = 1_000;
/// SKUs in the store, few and many.
const GROWTH: [usize; 2] = [10_000, 5_000_000];
/// Before anything is measured: most of what a broker compiles, it compiles in this time.
const WARM_UP: Duration = Duration::from_secs(30);
/// Longest wait for the last order to be everywhere.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> ExitCode {
    match run_parts().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("tillroll-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run_parts() -> Result<()> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let only = set("ONLY");
    if let Some(part) = only.as_deref().filter(|part| !PARTS.contains(part)) {
        bail!("ONLY={part} is no part; parts are {}", PARTS.join(", "));
    }
    let number = |name: &str, default: u64| -> Result<u64> {
        set(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
    };
    let rate = u32::try_from(number("RATE", 3_000)?)?;
    let lasting = Duration::from_secs(number("SECONDS", 60)?);
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut results = Results::new();
    if PARTS[..3].iter().any(|part| wanted(part)) {
        throughput(&wanted, rate, lasting, &mut results).await?;
    }
    let (restore, rebalance) = (wanted("restore"), wanted("rebalance"));
    if restore || rebalance {
        state::measure(restore, rebalance, &mut results).await?;
    }
    if only.as_deref() == Some("streams") {
        let open = usize::try_from(number("STREAMS", 10_000)?)?;
        streams::measure(open, rate, lasting, &mut results).await?;
    }
    if wanted("growth") {
        run_growth(&mut results).await?;
    }
    if wanted("reservations") {
        run_reservations(&mut results).await?;
    }
    publish(&results)?;
    judge(&results)
}

/// What the whole stack carries, and the ceiling above it.
async fn throughput(
    wanted: &impl Fn(&str) -> bool,
    rate: u32,
    lasting: Duration,
    results: &mut Results,
) -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let urls = system.stack.ingest_urls();
    let target = Target {
        address: urls[0].trim_start_matches("http://").to_owned(),
        merchant: system.merchant.clone(),
        key: system.key.clone(),
    };
    load::stock_up(&Shop::new(urls, &system.key)?).await?;
    say(&format!("warming up for {} s", WARM_UP.as_secs()));
    let warm_up = Load { per_second: Some(rate / 4), lasting: WARM_UP, clients: 256, seed: 1 };
    run(&system, &target, warm_up).await?;
    if wanted("sustained") {
        say(&format!("{rate} orders/s for {lasting:?}"));
        let load = Load { per_second: Some(rate), lasting, clients: 512, seed: 2 };
        report("end_to_end", &run(&system, &target, load).await?, results);
    }
    if wanted("flash") {
        say(&format!("as fast as ingest takes it for {lasting:?}"));
        let load = Load { per_second: None, lasting, clients: 256, seed: 3 };
        report("flash", &run(&system, &target, load).await?, results);
    }
    if wanted("raw") {
        say("raw ceiling: the same records through rdkafka alone");
        let brokers = system.stack.brokers();
        let ceiling = tokio::task::spawn_blocking(move || raw::copy(&brokers)).await??;
        results.insert("raw_ceiling.orders_per_s".into(), ceiling.orders_per_s);
        results.insert("raw_ceiling.records_per_order".into(), ceiling.records_per_order);
        results.insert("raw_ceiling.bytes_per_order".into(), ceiling.bytes_per_order);
    }
    system.stack.shutdown().await
}

/// Reservations alone, sinks off; the same machine and run for PostgreSQL and for us.
async fn run_reservations(results: &mut Results) -> Result<()> {
    let instances = Instances { ingest: 1, processors: 1, sinks: 0 };
    let system = System::start(Stack::builder(), instances).await?;
    let codec = reservations::codec(&system.stack.registry_url()).await?;
    for (name, skus) in [("one_sku", 1), ("many_skus", SPREAD)] {
        say(&format!("reservations over {skus} SKUs: PostgreSQL, then ours"));
        let theirs = reservations::postgres(&system.stack.postgres_url(), skus).await?;
        results.insert(format!("reservations.{name}.postgres_orders_per_s"), theirs);
        // The first run warms up whatever compiles as it runs.
        for _ in 0..2 {
            let (brokers, codec) = (system.stack.brokers(), codec.clone());
            let merchant = system.merchant.clone();
            let ours = tokio::task::spawn_blocking(move || {
                reservations::ours(&brokers, &codec, &merchant, skus)
            });
            let ours = ours.await??;
            results.insert(format!("reservations.{name}.orders_per_s"), ours);
            results.insert(format!("reservations.{name}.times_postgres"), ours / theirs);
        }
    }
    system.stack.shutdown().await
}

/// What a reservation costs with few SKUs and with many.
async fn run_growth(results: &mut Results) -> Result<()> {
    let mut costs = Vec::new();
    for skus in GROWTH {
        say(&format!("a reservation among {skus} SKUs"));
        let cost = tokio::task::spawn_blocking(move || {
            let folder = tempfile::tempdir()?;
            growth::cost_us(folder.path(), skus)
        });
        let cost = cost.await??;
        results.insert(format!("growth.reservation_us_at_{skus}_skus"), cost);
        costs.push(cost);
    }
    results.insert("growth.times".into(), costs[1] / costs[0]);
    Ok(())
}

/// One load and what came of it.
struct Outcome {
    sent: Sent,
    sending: Duration,
    last_post: Instant,
    log: HashMap<OrderId, Instant>,
    postgres: HashMap<OrderId, Instant>,
    clickhouse: HashMap<OrderId, Instant>,
    cpu: HashMap<String, f64>,
}

async fn run(system: &System, target: &Target, load: Load) -> Result<Outcome> {
    let seen = Seen::start(&system.stack).await?;
    let before = cpu_seconds(&system.stack)?;
    let began = Instant::now();
    let sent = load::send(target, load).await?;
    let (sending, last_post) = (began.elapsed(), Instant::now());
    let (mut postgres, mut clickhouse);
    loop {
        let finals = open(&seen.finals).clone();
        postgres = visible(&finals, &open(&seen.postgres));
        clickhouse = visible(&finals, &open(&seen.clickhouse));
        let everywhere = |id: &OrderId| postgres.contains_key(id) && clickhouse.contains_key(id);
        if sent.began.keys().all(everywhere) {
            break;
        }
        if last_post.elapsed() > PATIENCE {
            let left = sent.began.keys().filter(|id| !everywhere(id)).count();
            bail!("{left} of {} orders are not everywhere after {PATIENCE:?}", sent.began.len());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    seen.stop();
    let after = cpu_seconds(&system.stack)?;
    let cpu = after.into_iter().map(|(k, s)| (k.clone(), s - before.get(&k).unwrap_or(&0.0)));
    let log = open(&seen.finals).iter().map(|(id, last)| (*id, last.seen)).collect();
    Ok(Outcome { cpu: cpu.collect(), sent, sending, last_post, log, postgres, clickhouse })
}

/// Names results of the sustained part after what they measure; those of another part begin with its
/// name.
fn report(part: &str, outcome: &Outcome, results: &mut Results) {
    let sustained = part == SUSTAINED;
    let ingest = if sustained { "ingest" } else { part };
    let mut put = |subject: &str, name: &str, value: f64| {
        results.insert(format!("{subject}.{name}"), value);
    };
    let orders = outcome.sent.began.len() as f64;
    put(ingest, "accepted_orders_per_s", orders / outcome.sending.as_secs_f64());
    put(ingest, "refused", outcome.sent.refused as f64);
    let mut posts = outcome.sent.latencies.clone();
    put(ingest, "post_p50_ms", percentile(&mut posts, 50));
    put(ingest, "post_p99_ms", percentile(&mut posts, 99));
    let mut longest = outcome.sending;
    for (name, at) in [
        ("status", &outcome.log),
        ("postgres", &outcome.postgres),
        ("clickhouse", &outcome.clickhouse),
    ] {
        let began = &outcome.sent.began;
        let since = |(id, began): (&OrderId, &Instant)| Some(at.get(id)?.duration_since(*began));
        let mut latencies: Vec<Duration> = began.iter().filter_map(since).collect();
        put(part, &format!("{name}_p50_ms"), percentile(&mut latencies, 50));
        put(part, &format!("{name}_p99_ms"), percentile(&mut latencies, 99));
        let last = began.keys().filter_map(|id| at.get(id)).max();
        let behind = last.map_or(Duration::ZERO, |at| at.duration_since(outcome.last_post));
        put(part, &format!("{name}_backlog_s"), behind.as_secs_f64());
        longest = longest.max(outcome.sending + behind);
    }
    put(part, "orders_per_s", orders / longest.as_secs_f64());
    for (process, seconds) in &outcome.cpu {
        let process = if sustained { process.clone() } else { format!("{part}.{process}") };
        put(&process, "cpu_s_per_1000_orders", seconds * 1_000.0 / orders);
    }
}

/// Whether the sustained part, if there was one, was sustained: nothing refused, and every reader at
/// the end as soon as the last order was posted; and whether the flow went on while processes came and
/// went.
fn judge(results: &Results) -> Result<()> {
    let stopped = state::faults(results);
    ensure!(stopped.is_empty(), "THE FLOW STOPPED: {}", stopped.join(", "));
    let mut faults = Vec::new();
    match results.get("ingest.refused") {
        Some(refused) if *refused > 0.0 => faults.push(format!("{refused} orders were refused")),
        _ => {}
    }
    for (reader, most_s) in MOST_BACKLOG_S {
        let backlog = results.get(&format!("{SUSTAINED}.{reader}_backlog_s"));
        if let Some(backlog_s) = backlog.filter(|backlog_s| **backlog_s >= most_s) {
            faults.push(format!("{reader} was {backlog_s:.1} s behind at the end"));
        }
    }
    ensure!(
        faults.is_empty(),
        "NOT SUSTAINED: {}; the figures of this load are no capacity, try a lower RATE",
        faults.join(", ")
    );
    Ok(())
}

fn percentile(latencies: &mut [Duration], percent: usize) -> f64 {
    latencies.sort_unstable();
    let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
    latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
}

fn publish(results: &Results) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for (name, value) in results {
        writeln!(out, "{name:<48} {value:>12.2}")?;
    }
    let target = Path::new("target");
    std::fs::create_dir_all(target)?;
    let file = target.join("bench.json");
    std::fs::write(&file, serde_json::to_vec_pretty(results)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod results {
    use super::*;

    #[test]
    fn a_load_that_was_not_carried_is_told() {
        let results = |refused: f64, status_s: f64, clickhouse_s: f64| {
            Results::from([
                ("ingest.refused".to_owned(), refused),
                ("end_to_end.status_backlog_s".to_owned(), status_s),
                ("end_to_end.clickhouse_backlog_s".to_owned(), clickhouse_s),
                ("flash.refused".to_owned(), 7.0),
                ("flash.status_backlog_s".to_owned(), 20.0),
            ])
        };
        assert!(judge(&results(0.0, 0.4, 1.4)).is_ok());
        let told = |results| judge(&results).unwrap_err().to_string();
        assert!(told(results(3.0, 0.4, 1.4)).contains("3 orders were refused"));
        assert!(told(results(0.0, 1.0, 1.4)).contains("status was 1.0 s behind"));
        assert!(told(results(0.0, 0.4, 2.5)).contains("clickhouse was 2.5 s behind"));
        assert!(judge(&Results::new()).is_ok(), "ONLY=raw has no sustained part");
    }

    #[test]
    fn names_say_what_they_measure() {
        let now = Instant::now();
        let outcome = Outcome {
            sent: Sent::default(),
            sending: Duration::from_secs(1),
            last_post: now,
            log: HashMap::new(),
            postgres: HashMap::new(),
            clickhouse: HashMap::new(),
            cpu: [("processors".to_owned(), 1.0)].into(),
        };
        let mut results = Results::new();
        report(SUSTAINED, &outcome, &mut results);
        report("flash", &outcome, &mut results);
        for name in [
            "end_to_end.orders_per_s",
            "end_to_end.status_p99_ms",
            "ingest.post_p99_ms",
            "processors.cpu_s_per_1000_orders",
            "flash.orders_per_s",
            "flash.post_p99_ms",
            "flash.processors.cpu_s_per_1000_orders",
        ] {
            assert!(results.contains_key(name), "{name} in {results:?}");
        }
    }
}
