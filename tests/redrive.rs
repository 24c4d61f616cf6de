//! Dead letters, lag and drift, by the operator's command: records of schemas that nobody had registered wait in
//! the queues, go back once the schemas are registered, each once, also if the command is killed in
//! between; and orders have the history that they would have had. Then stock drifts, and is reconciled.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use events::Codec;
use events::topics;
use local::{Stack, services};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use tests::load;
use tests::reconcile::{clickhouse, postgres};
use tests::shop::Shop;
use tests::stack::{Instances, MERCHANT, System};
use wire::config::Registry;

#[path = "redrive/drift.rs"]
mod drift;
#[path = "redrive/records.rs"]
mod records;

use records::{everything, newer, placed, poisoned, status, written};

const INSTANCES: Instances = Instances { ingest: 1, processors: 1, sinks: 1 };
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(90);
/// Orders whose first record is refused; every other one has a second record, with another body.
const ORDERS: i32 = 12;
const CONFLICTS: i32 = ORDERS / 2;
/// Orders whose history is refused by every sink, and versions of each.
const HISTORIES: i32 = 6;
const VERSIONS: i32 = 3;
const LETTERS: usize = (ORDERS + CONFLICTS + HISTORIES * VERSIONS) as usize;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_goes_back_once_and_in_order() -> Result<()> {
    let system = System::start(Stack::builder(), INSTANCES).await?;
    let outcome = async {
        redriven(&system).await?;
        why(&system).await?;
        dropped(&system).await?;
        lag(&system).await?;
        drift::reconciled(&system).await
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        system.save_logs(Path::new("target/redrive-logs"))?;
    }
    system.stack.shutdown().await?;
    outcome
}

/// What a run of the command came to.
struct Ran {
    code: Option<i32>,
    out: String,
    messages: String,
}

impl Ran {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{}{}", self.out, self.messages))
    }

    fn ended(self, code: i32) -> Result<Self> {
        let Self { code: ended, out, messages } = &self;
        ensure!(*ended == Some(code), "ended with {ended:?}, not {code}:\n{out}{messages}");
        Ok(self)
    }
}

fn command(system: &System, arguments: &[&str]) -> Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(services::binary("tillroll")?);
    command.args(arguments).envs(system.stack.operator_environment()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn tillroll(system: &System, arguments: &[&str]) -> Result<Ran> {
    let output = command(system, arguments)?.output().await?;
    let (out, messages) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok(Ran { code: output.status.code(), out, messages })
}

/// How many letters wait.
async fn how_many(system: &System) -> Result<usize> {
    let list = tillroll(system, &["dlq", "list", "--json"]).await?.ended(0)?.json()?;
    Ok(usize::try_from(list["waiting"].as_u64().context("a number")?)?)
}

/// Waits until so many letters wait.
async fn waiting(system: &System, expected: usize) -> Result<Value> {
    let began = Instant::now();
    loop {
        let list = tillroll(system, &["dlq", "list", "--json"]).await?.ended(0)?.json()?;
        if list["waiting"] == expected {
            return Ok(list);
        }
        ensure!(began.elapsed() < PATIENCE, "{} letters wait, not {expected}", list["waiting"]);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn redriven(system: &System) -> Result<()> {
    let registry = Registry { url: system.stack.registry_url() };
    let codec = wire::registry::codec(&registry).await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    load::stock_up(&shop).await?;
    // The ids that the registry will give out next.
    let next = codec.ids().iter().max().context("schemas")? + 1;
    poison(system, &codec, [next, next + 1]).await?;
    let list = waiting(system, LETTERS).await?;
    let orders = list["topics"].as_array().into_iter().flatten().find(|t| t["topic"] == "orders");
    let reason = orders.and_then(|topic| topic["reasons"][0]["reason"].as_str());
    ensure!(reason.is_some_and(|why| why.contains(&format!("schema id {next} "))), "{list:#}");

    // In vain, as long as the cause is not mended: a letter again, one attempt older, in its turn.
    let vain = ["dlq", "redrive", "--topic", "orders", "--limit", "1", "--because", "a try"];
    let vain = tillroll(system, &vain).await?.ended(4)?;
    let more = format!("{} letters more than --limit", ORDERS + CONFLICTS - 1);
    ensure!(vain.messages.contains(&more), "{}", vain.messages);
    let list = waiting(system, LETTERS).await?;
    let letters = list["letters"].as_array().context("letters")?;
    let older = letters.iter().find(|letter| letter["attempts"] == 1).context("an attempt")?;
    ensure!(older["first"] != older["letter"], "{older}");

    for (record_type, id) in poisoned([next, next + 1]) {
        let given = wire::registry::register(&registry, record_type, &newer(record_type)).await?;
        ensure!(given == id, "the registry gave out {given}, not {id}");
    }
    let everything = ["dlq", "redrive", "--all", "--because", "schemas are registered"];
    let dry = tillroll(system, &[&everything[..], &["--dry-run", "--json"]].concat()).await?;
    let dry = dry.ended(0)?.json()?;
    ensure!(dry["redriven"].as_array().map(Vec::len) == Some(LETTERS), "{dry:#}");
    overtaking(system, letters).await?;

    // Killed in between: what was done is done, whole.
    let mut killed = command(system, &[&everything[..], &["--rate", "5"]].concat())?.spawn()?;
    let began = Instant::now();
    while how_many(system).await? == LETTERS {
        ensure!(began.elapsed() < PATIENCE, "nothing goes back");
    }
    killed.kill().await?;
    let left = how_many(system).await?;
    ensure!(left > 0, "nothing was interrupted");
    let rest = tillroll(system, &[&everything[..], &["--json"]].concat()).await?;
    let rest = rest.ended(0)?.json()?;
    ensure!(rest["redriven"].as_array().map(Vec::len) == Some(left), "{rest:#}");

    settled(system).await?;
    once_and_in_order(&system.stack.brokers())?;
    waiting(system, 0).await?;
    let again = tillroll(system, &everything).await?.ended(0)?;
    ensure!(again.messages.contains("0 letters redriven"), "{}", again.messages);
    let audit = tillroll(system, &["dlq", "audit", "--json"]).await?.ended(0)?.json()?;
    let audit = audit.as_array().context("decisions")?;
    ensure!(audit.len() == LETTERS + 1, "{} decisions", audit.len());
    let signed = |d: &Value| d["by"].as_str().is_some_and(|by| by.contains('@'));
    ensure!(audit.iter().all(signed), "nobody signed: {audit:#?}");
    Ok(())
}

/// A second record of an order does not go back before the first.
async fn overtaking(system: &System, letters: &[Value]) -> Result<()> {
    let mut seen = BTreeMap::new();
    let second = letters.iter().filter(|letter| letter["attempts"] == 0).find_map(|letter| {
        let (key, place) = (letter["key"].as_str()?, letter["letter"].as_str()?);
        let orders = place.starts_with("orders/");
        (orders && seen.insert(key.to_owned(), ()).is_some()).then(|| place.to_owned())
    });
    let second = second.context("an order with two letters")?;
    let alone = ["dlq", "redrive", &second, "--because", "a try"];
    let alone = tillroll(system, &alone).await?.ended(1)?;
    ensure!(alone.out.contains("of the same key comes first"), "{}", alone.out);
    let shown = tillroll(system, &["dlq", "show", &second, "--payload"]).await?.ended(0)?;
    ensure!(shown.out.contains("OrderPlaced") && shown.out.contains("Main St 1"), "{}", shown.out);
    let shown = tillroll(system, &["dlq", "show", &second]).await?.ended(0)?;
    ensure!(shown.out.contains("OrderPlaced") && !shown.out.contains("Main St"), "{}", shown.out);
    Ok(())
}

/// An order's timeline tells what became of it: its records, that they were refused and went back, who could
/// have carried it, and that its key came twice.
async fn why(system: &System) -> Result<()> {
    let order = placed(0, false).order_id.to_string();
    let ran = tillroll(system, &["why", &order, "--json"]).await?.ended(0)?.json()?;
    let timeline = ran["timeline"].as_array().context("a timeline")?;
    let count = |source: &str| timeline.iter().filter(|entry| entry["source"] == source).count();
    // Refused, both go back, the first of all once in vain.
    ensure!(count("placed") >= 4 && count("dead_letter") >= 2, "{ran:#}");
    ensure!(count("decision") == 1 && count("conflict") == 1, "{ran:#}");
    // Received, reserved, routed, and the consignment.
    ensure!(count("status") == 4, "{ran:#}");
    let arguments = ["why", "--merchant", MERCHANT, "--idempotency-key", "redriven-0"];
    let text = tillroll(system, &arguments).await?.ended(0)?.out;
    for told in ["routed, version 3, of shop", "redriven, attempt", "score", "3 routed"] {
        ensure!(text.contains(told), "{told:?} is not told:\n{text}");
    }
    ensure!(!text.contains("Main St") && !text.contains("Ada"), "{text}");
    let nobody = ["why", "--merchant", MERCHANT, "--idempotency-key", "nobody's"];
    let nobody = tillroll(system, &nobody).await?.ended(1)?;
    ensure!(nobody.messages.contains("nothing is known"), "{}", nobody.messages);
    Ok(())
}

/// What nobody can mend is given up.
async fn dropped(system: &System) -> Result<()> {
    let producer = producer(system)?;
    until(system, &["status"], 0).await?;
    send(&producer, "stock", 0, b"key", b"not a record".to_vec(), None).await?;
    waiting(system, 1).await?;
    let degraded = until(system, &["status"], 1).await?;
    ensure!(degraded.out.starts_with("DEGRADED  dead letters    1 of stock"), "{}", degraded.out);
    let wrong = tillroll(system, &["dlq", "drop", "--topic", "stock"]).await?.ended(2)?;
    ensure!(wrong.messages.contains("--because"), "{}", wrong.messages);
    let everything = tillroll(system, &["dlq", "drop", "--because", "x"]).await?.ended(1)?;
    ensure!(everything.messages.contains("say which letters"), "{}", everything.messages);
    let drop = ["dlq", "drop", "--topic", "stock", "--because", "a test", "--by", "ada@ops"];
    tillroll(system, &drop).await?.ended(0)?;
    waiting(system, 0).await?;
    let audit = tillroll(system, &["dlq", "audit", "--topic", "stock"]).await?.ended(0)?;
    ensure!(audit.out.contains("dropped") && audit.out.contains("ada@ops"), "{}", audit.out);
    Ok(())
}

/// Lag is of what is applied, by reader: the sinks stop, the processors do not.
async fn lag(system: &System) -> Result<()> {
    let none = ["lag", "--max-records", "0", "--json"];
    until(system, &none, 0).await?;
    system.stack.stop("sinks-1").await?;
    let shop = Shop::new(system.stack.ingest_urls(), &system.key)?;
    let (zipf, mut random) = (load::Zipf::new(load::SKUS), load::Random::new(7));
    for n in 0..5 {
        let body = load::order(&mut random, &zipf);
        let answer = shop.post(0, "/v1/orders", &format!("behind-{n}"), &body).await?;
        ensure!(answer.status == 202, "order got {}", answer.status);
    }
    until(system, &["lag", "--group", "processors", "--max-records", "0"], 0).await?;
    // Received, reserved, routed: each sink has all three of all five before it.
    let began = Instant::now();
    loop {
        let behind = until(system, &["lag", "--max-seconds", "1", "--json"], 1).await?.json()?;
        ensure!(behind["unknown"] == serde_json::json!([]), "{behind:#}");
        if (behind_of(&behind, "tracking"), behind_of(&behind, "reports")) == (15, 15) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{behind:#}");
    }
    let broken = until(system, &["status"], 2).await?;
    ensure!(broken.out.contains("BROKEN    sinks"), "{}", broken.out);
    system.stack.restart("sinks-1").await?;
    until(system, &none, 0).await?;
    Ok(())
}

/// Records of `order-status` that a group has not applied.
fn behind_of(behind: &Value, group: &str) -> u64 {
    let all = behind["partitions"].as_array().into_iter().flatten();
    let of = all.filter(|p| p["group"] == group && p["topic"] == "order-status");
    of.filter_map(|p| p["records"].as_u64()).sum()
}

/// Runs a command until it ends with this code.
async fn until(system: &System, arguments: &[&str], code: i32) -> Result<Ran> {
    let began = Instant::now();
    loop {
        let ran = tillroll(system, arguments).await?;
        if ran.code == Some(code) {
            return Ok(ran);
        }
        if began.elapsed() > PATIENCE {
            bail!("{arguments:?} ended with {:?}: {}{}", ran.code, ran.out, ran.messages);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn poison(system: &System, codec: &Codec, ids: [u32; 2]) -> Result<()> {
    let producer = producer(system)?;
    for (n, second) in (0..ORDERS).map(|n| (n, false)).chain((0..CONFLICTS).map(|n| (n, true))) {
        let order = placed(n, second);
        let key = *order.order_id.as_bytes();
        let partition = topics::partition_for(&key, PARTITIONS);
        send(&producer, "orders", partition, &key, written(codec, order.into(), ids[0]), None)
            .await?;
    }
    for (version, n) in (1..=VERSIONS).flat_map(|v| (0..HISTORIES).map(move |n| (v, n))) {
        let status = status(n, version);
        let key = *status.order_id.as_bytes();
        let partition = topics::partition_for(&key, PARTITIONS);
        let value = written(codec, status.into(), ids[1]);
        let origin = format!("orders-{partition}/1/{version}");
        send(&producer, "order-status", partition, &key, value, Some(&origin)).await?;
    }
    Ok(())
}

fn producer(system: &System) -> Result<FutureProducer> {
    Ok(wire::client::producer(&system.stack.brokers(), "redrive", 20_000).create()?)
}

async fn send(
    producer: &FutureProducer,
    topic: &str,
    partition: i32,
    key: &[u8],
    value: Vec<u8>,
    origin: Option<&str>,
) -> Result<()> {
    let mut record = FutureRecord::to(topic).partition(partition).key(key).payload(&value);
    if let Some(origin) = origin {
        let header = Header { key: events::ORIGIN_HEADER, value: Some(origin) };
        record = record.headers(OwnedHeaders::new().insert(header));
    }
    let sent = producer.send(record, Duration::from_secs(10)).await;
    sent.map_err(|(error, _)| error).with_context(|| format!("{topic} takes no record"))?;
    Ok(())
}

/// Waits until both stores hold what they would have held: every order by its first record, every history
/// whole, every version once.
async fn settled(system: &System) -> Result<()> {
    let tracking = postgres::connect(&system.stack.postgres_url()).await?;
    let reports = clickhouse::client(&system.stack.clickhouse_url());
    let routed = "SELECT count(*) FROM orders WHERE status = 'routed' AND total_minor = 100";
    let conflicts = "SELECT count(*) FROM order_repeats WHERE kind = 'conflict'";
    let histories =
        "SELECT count(*) FROM (SELECT 1 FROM order_events e JOIN orders o USING (order_id)
         WHERE o.status = 'rejected' GROUP BY order_id
         HAVING array_agg(e.version ORDER BY e.version) = '{1,2,3}') AS whole";
    let events = "SELECT count(*) FROM order_events";
    let expected = (i64::from(ORDERS), i64::from(CONFLICTS), i64::from(HISTORIES));
    let versions = 3 * (ORDERS + HISTORIES);
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for question in [routed, conflicts, histories, events] {
            found.push(tracking.query_one(question, &[]).await?.get::<_, i64>(0));
        }
        let rows = "SELECT count() FROM v_order_events";
        let rows: u64 = reports.query(rows).fetch_one().await?;
        let there = (found[0], found[1], found[2]) == expected;
        if there && found[3] == i64::from(versions) && rows == u64::try_from(versions)? {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "routed, conflicts, histories, events are {found:?}, {rows} events in ClickHouse; not \
             {expected:?}, {versions}"
        );
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Every record went back once, but for the one that was tried in vain before; by partition and key in the
/// order in which they first stood.
fn once_and_in_order(brokers: &str) -> Result<()> {
    let mut turns: BTreeMap<(String, i32, Vec<u8>), Vec<i64>> = BTreeMap::new();
    let mut attempts = BTreeMap::from([("1".to_owned(), 0_usize), ("2".to_owned(), 0)]);
    for message in everything(brokers, &["orders", "order-status"])? {
        let header = |name: &str| {
            let found = message.headers().and_then(|all| all.iter().find(|h| h.key == name));
            found.and_then(|h| Some(String::from_utf8_lossy(h.value?).into_owned()))
        };
        let Some(attempt) = header("tillroll.redrive.attempts") else { continue };
        *attempts.entry(attempt.clone()).or_default() += 1;
        let first = header("tillroll.redrive.first").context("where it stood")?;
        let first: i64 = first.rsplit('/').next().context("an offset")?.parse()?;
        let key = message.key().context("a key")?.to_vec();
        let turns =
            turns.entry((message.topic().to_owned(), message.partition(), key)).or_default();
        // The try in vain went first, and its record is the first of its key.
        if turns.last() != Some(&first) {
            turns.push(first);
        }
        let origin = header(events::ORIGIN_HEADER);
        ensure!(origin.is_some() == (message.topic() == "order-status"), "headers were lost");
    }
    ensure!(attempts == BTreeMap::from([("1".into(), LETTERS), ("2".into(), 1)]), "{attempts:?}");
    for ((topic, partition, _), turns) in turns {
        let sorted = turns.windows(2).all(|pair| pair[0] < pair[1]);
        ensure!(sorted, "{topic}-{partition}: one overtook another: {turns:?}");
    }
    Ok(())
}
