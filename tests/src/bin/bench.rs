//! `tillroll-bench`: what the whole stack carries on this machine, next to a raw ceiling measured in
//! the same run. Prints a table and writes `target/bench.json`; every name is explained in
//! `tests/README.md`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use events::OrderId;
use local::Stack;
use tests::load::{self, Load, Sent, Target};
use tests::progress::say;
use tests::raw;
use tests::shop::Shop;
use tests::stack::{Instances, System};
use tests::watch::{Seen, cpu_seconds, open, visible};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const PARTS: [&str; 3] = ["sustained", "flash", "raw"];
/// Longest wait for the last order to be everywhere.
const PATIENCE: Duration = Duration::from_secs(180);

/// Results by dotted name, units in the names.
type Results = BTreeMap<String, f64>;

#[tokio::main]
async fn main() -> Result<()> {
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
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let urls = system.stack.ingest_urls();
    let target = Target {
        address: urls[0].trim_start_matches("http://").to_owned(),
        merchant: system.merchant.clone(),
        key: system.key.clone(),
    };
    load::stock_up(&Shop::new(urls, &system.key)?).await?;
    say("warming up for 10 s");
    let warm_up = Load {
        per_second: Some(rate / 4),
        lasting: Duration::from_secs(10),
        clients: 256,
        seed: 1,
    };
    run(&system, &target, warm_up).await?;
    if wanted("sustained") {
        say(&format!("{rate} orders/s for {lasting:?}"));
        let load = Load { per_second: Some(rate), lasting, clients: 512, seed: 2 };
        report("end_to_end", &run(&system, &target, load).await?, &mut results);
    }
    if wanted("flash") {
        say(&format!("as fast as ingest takes it for {lasting:?}"));
        let load = Load { per_second: None, lasting, clients: 256, seed: 3 };
        report("flash", &run(&system, &target, load).await?, &mut results);
    }
    if wanted("raw") {
        say("raw ceiling: the same records through rdkafka alone");
        let brokers = system.stack.brokers();
        let orders_per_s = tokio::task::spawn_blocking(move || raw::copy(&brokers)).await??;
        results.insert("raw_ceiling.orders_per_s".into(), orders_per_s);
    }
    system.stack.shutdown().await?;
    publish(&results)
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

fn report(part: &str, outcome: &Outcome, results: &mut Results) {
    let mut put = |name: &str, value: f64| results.insert(format!("{part}.{name}"), value);
    let orders = outcome.sent.began.len() as f64;
    put("accepted_orders_per_s", orders / outcome.sending.as_secs_f64());
    put("refused", outcome.sent.refused as f64);
    let mut posts = outcome.sent.latencies.clone();
    put("post_p50_ms", percentile(&mut posts, 50));
    put("post_p99_ms", percentile(&mut posts, 99));
    for (name, at) in [
        ("status", &outcome.log),
        ("postgres", &outcome.postgres),
        ("clickhouse", &outcome.clickhouse),
    ] {
        let began = &outcome.sent.began;
        let since = |(id, began): (&OrderId, &Instant)| Some(at.get(id)?.duration_since(*began));
        let mut latencies: Vec<Duration> = began.iter().filter_map(since).collect();
        put(&format!("{name}_p50_ms"), percentile(&mut latencies, 50));
        put(&format!("{name}_p99_ms"), percentile(&mut latencies, 99));
        let last = began.keys().filter_map(|id| at.get(id)).max();
        let behind = last.map_or(Duration::ZERO, |at| at.duration_since(outcome.last_post));
        put(&format!("{name}_last_after_end_s"), behind.as_secs_f64());
        let all = outcome.sending + behind;
        put(&format!("{name}_orders_per_s"), orders / all.as_secs_f64());
    }
    for (process, seconds) in &outcome.cpu {
        put(&format!("cpu_s_per_1000_orders.{process}"), seconds * 1_000.0 / orders);
    }
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
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    std::fs::create_dir_all(&target)?;
    let file = target.join("bench.json");
    std::fs::write(&file, serde_json::to_vec_pretty(results)?)
        .with_context(|| format!("cannot write {}", file.display()))
}
