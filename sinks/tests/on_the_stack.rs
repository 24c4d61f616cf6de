//! The sinks on real Kafka, PostgreSQL and ClickHouse: killed, cut off, fed with what cannot be
//! read; judged by an auditor that compares topics with tables.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use events::{OrderStatus, Record, RecordType};
use local::{Component, Service};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use support::writer::{self, Writer};
use support::{Bench, auditor, metric, readiness, until};

const PATIENCE: Duration = Duration::from_secs(90);

/// Writes orders, stock levels, movements and repeats until it is told to stop, counting status events; some
/// transactions are aborted.
fn write_on(mut writer: Writer, stop: &AtomicBool, written: &AtomicI64) -> Result<()> {
    let mut round = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let mut records = writer::histories("k", round * 200..(round + 1) * 200);
        let events = i64::try_from(records.len())?;
        for sku in 0..20 {
            records.push(writer::level(sku, i64::from(round) + 1));
        }
        let body = writer::body("k", round * 200);
        records.push(writer::repeat(&body, writer::now(), i64::from(round)));
        records.push(writer::movement(round));
        if round % 7 == 3 {
            writer.abort(&records)?;
        }
        writer.commit(&records)?;
        written.fetch_add(events, Ordering::Relaxed);
        round += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

async fn check_all(bench: &Bench) -> Result<()> {
    let truth = auditor::truth(bench)?;
    until("postgres has everything", PATIENCE, || truth.postgres_caught_up(bench)).await?;
    until("clickhouse has everything", PATIENCE, || truth.clickhouse_caught_up(bench)).await?;
    truth.check_postgres(bench).await?;
    truth.check_clickhouse(bench).await
}

/// Merges would hide a row that was inserted twice.
async fn stop_merges(bench: &Bench) -> Result<()> {
    for table in ["order_events", "order_lines", "order_states", "stock_movements"] {
        bench.clickhouse().query(&format!("SYSTEM STOP MERGES {table}")).execute().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_loses_and_doubles_nothing() -> Result<()> {
    const KILLS: u64 = 14;
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    stop_merges(&bench).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicI64::new(0));
    let writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    let writing = {
        let (stop, written) = (stop.clone(), written.clone());
        tokio::task::spawn_blocking(move || write_on(writer, &stop, &written))
    };
    let client = bench.postgres().await?;
    let mut with_lag = 0;
    for kill in 0..KILLS {
        // Spread over start-up, joining, the first insert and the middle of batches.
        tokio::time::sleep(Duration::from_millis(600 + kill * 977 % 2400)).await;
        // A kill that hits an idle sink proves nothing.
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            let stored = "SELECT count(*) FROM order_events";
            if client.query_one(stored, &[]).await?.get::<_, i64>(0)
                < written.load(Ordering::Relaxed)
            {
                with_lag += 1;
                break;
            }
        }
        sinks.kill().await?;
        sinks.relaunch().await?;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    check_all(&bench).await?;
    ensure!(with_lag >= 10, "only {with_lag} kills hit a sink that had work");
    let repeated =
        "SELECT toUInt64(count() - uniqExact(order_id, accepted_at, version)) FROM order_events";
    let repeated: u64 = bench.clickhouse().query(repeated).fetch_one().await?;
    ensure!(repeated > 0, "no kill hit between an insert and the commit of its offset");
    ensure!(sinks.stop().await?, "SIGTERM didn't end it");
    Ok(())
}

/// A store is away: the other sink goes on, readiness says why, and it recovers without a restart.
async fn outage(store: &str, pause: bool) -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    stop_merges(&bench).await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    writer.commit(&writer::histories("before", 0..300))?;
    check_all(&bench).await?;
    let pid = sinks.pid();
    let component = bench.stack.component(store)?;
    if pause {
        component.pause()?
    } else {
        component.kill().await?
    }
    writer.commit(&writer::histories("while", 0..300))?;
    let truth = auditor::truth(&bench)?;
    if store == "postgres" {
        until("reports go on", PATIENCE, || truth.clickhouse_caught_up(&bench)).await?;
    } else {
        until("tracking goes on", PATIENCE, || truth.postgres_caught_up(&bench)).await?;
    }
    let unready = || async {
        let (ready, why) = readiness(&sinks).await?;
        Ok(!ready && why.contains(store))
    };
    until("readiness names the store", PATIENCE, unready).await?;
    if pause {
        component.resume()?;
    } else {
        component.restart().await?;
    }
    check_all(&bench).await?;
    until("ready again", PATIENCE, || async { Ok(readiness(&sinks).await?.0) }).await?;
    ensure!(sinks.pid() == pid, "it was restarted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_may_die() -> Result<()> {
    outage("postgres", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_may_die() -> Result<()> {
    outage("clickhouse", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_may_stop_answering() -> Result<()> {
    outage("clickhouse", true).await
}

/// Offset, stage and reason of the dead letters of a topic.
fn dead_letters(bench: &Bench, topic: &str) -> Result<Vec<(String, String, String)>> {
    let consumer: BaseConsumer =
        wire::client::assigned_consumer(&bench.stack.brokers(), "dlq").create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&format!("{topic}.dlq"), 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut letters = Vec::new();
    while let Some(Ok(message)) = consumer.poll(Duration::from_secs(10)) {
        let headers = message.headers().context("a dead letter has headers")?;
        let text = |key: &str| {
            let found = headers.iter().find(|h| h.key == format!("__connect.errors.{key}"));
            found.and_then(|h| Some(String::from_utf8_lossy(h.value?).into_owned()))
        };
        letters.push((
            text("connector.name").context("who")?,
            text("stage").context("stage")?,
            text("exception.message").context("reason")?,
        ));
    }
    letters.sort();
    Ok(letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_put_aside_and_the_rest_goes_on() -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    let constraint = "ALTER TABLE order_events ADD CONSTRAINT c CHECK reason != 'poison'";
    bench.clickhouse().query(constraint).execute().await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    let mut nul = writer::body("nul", 1);
    nul.attributes.insert("note".into(), "a\0b".into());
    let poison = writer::body("poison", 1);
    let mut poisoned = writer::status(&poison, writer::now(), 1, true);
    poisoned.reason = "poison".into();
    let mut records = writer::histories("good", 0..500);
    records.insert(333, writer::status(&nul, writer::now(), 1, true).into());
    records.insert(777, poisoned.into());
    writer.commit(&records)?;
    let stray = bench.codec.to_bytes(&writer::level(1, 1));
    writer.commit_bytes("order-status", &[b"not a record", &stray, &[0, 0, 0, 255, 255, 1]])?;
    writer.commit(&writer::histories("after", 0..100))?;

    let truth = auditor::truth(&bench)?;
    until("postgres has everything", PATIENCE, || truth.postgres_caught_up(&bench)).await?;
    let events = "SELECT count(*) FROM order_events";
    ensure!(bench.number(events).await? == i64::try_from(truth.events.len())? - 1);
    let stored = truth.without(&[poison.order_id.0]);
    until("clickhouse has the rest", PATIENCE, || stored.clickhouse_caught_up(&bench)).await?;
    stored.check_clickhouse(&bench).await?;

    let letters = dead_letters(&bench, "order-status")?;
    let kinds: Vec<_> = letters.iter().map(|(who, stage, _)| format!("{who} {stage}")).collect();
    let mut expected = vec!["sinks/billing decode"; 3];
    for [decode, insert] in [
        ["sinks/reports decode", "sinks/reports insert"],
        ["sinks/tracking decode", "sinks/tracking insert"],
    ] {
        expected.extend([decode, decode, decode, insert]);
    }
    ensure!(kinds == expected, "{letters:?}");
    let (ready, why) = readiness(&sinks).await?;
    ensure!(ready, "{why}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_stories_the_later_term_counts() -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    let at = writer::now();
    let bodies: Vec<_> = (1..=3).map(|n| writer::body("torn", n)).collect();
    let early = |version| -> Vec<Record> {
        bodies.iter().map(|b| writer::status(b, at, version, true).into()).collect()
    };
    for version in 1..=3 {
        writer.commit(&early(version))?;
    }
    // A torn transaction is redone in another term: the same but for one order.
    writer.term = 2;
    let mut redone = early(2);
    let mut other = writer::status(&bodies[0], at, 2, false);
    other.occurred_at = at.plus(77);
    redone[0] = other.into();
    writer.commit(&redone)?;
    // And a straggler of the first term says a third thing: it comes too late.
    writer.term = 1;
    let mut straggler = writer::status(&bodies[0], at, 2, true);
    straggler.status = OrderStatus::Expired;
    writer.commit(&[straggler.into()])?;

    let truth = auditor::truth(&bench)?;
    until("postgres has everything", PATIENCE, || truth.postgres_caught_up(&bench)).await?;
    let told = "SELECT count(*) FROM order_events WHERE version = 2 AND status = 'rejected'
        AND term = 2 AND jsonb_array_length(refusals) > 0";
    ensure!(bench.number(told).await? == 1);
    let orders = "SELECT count(*) FROM orders WHERE version = 3 AND status = 'routed'";
    ensure!(bench.number(orders).await? == 3, "an older version never replaces the newest");
    ensure!(metric(&sinks, "tillroll_sink_conflicts_total", "tracking").await? >= 2.0);
    let shown = "SELECT toString(status) FROM v_order_events WHERE version = 2 ORDER BY status";
    let reported = || async {
        let rows: Vec<String> = bench.clickhouse().query(shown).fetch_all().await?;
        Ok(rows == ["rejected", "reserved", "reserved"])
    };
    until("clickhouse shows the later term", PATIENCE, reported).await?;
    // One order per row, too: what was never so is not shown, though its events were stored.
    let order = "SELECT concat(status, if(reserved_at > 0, ' reserved', ''),
            if(rejected_at > 0, ' rejected', '')) FROM v_orders ORDER BY 1";
    let shown = || async {
        let rows: Vec<String> = bench.clickhouse().query(order).fetch_all().await?;
        Ok(rows == ["routed rejected", "routed reserved", "routed reserved"])
    };
    until("orders are as their events", PATIENCE, shown).await?;
    Ok(())
}

/// Partitions that the process has been given and not given back, from its log.
fn partitions(component: &Component, sink: &str) -> Result<i64> {
    let log = std::fs::read_to_string(component.log())?;
    let count = |what: &str| {
        let lines = log.lines().filter(|l| l.contains(what) && l.contains(sink));
        i64::try_from(lines.count())
    };
    Ok(count("\"message\":\"assigned\"")? - count("\"message\":\"given back\"")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_and_one_hands_over() -> Result<()> {
    let bench = Bench::start().await?;
    let both = bench.stack.start_service(Service::Sinks, 2).await?;
    let [first, second] = both.as_slice() else { panic!("two were asked for") };
    let shared =
        || async { Ok(partitions(first, "reports")? == 4 && partitions(second, "reports")? == 4) };
    until("four partitions each", PATIENCE, shared).await?;
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    writer.commit(&writer::histories("both", 0..500))?;
    check_all(&bench).await?;
    ensure!(first.stop().await?, "SIGTERM didn't end it");
    writer.commit(&writer::histories("one", 0..500))?;
    let truth = auditor::truth(&bench)?;
    let took = until("the other has it all", PATIENCE, || truth.postgres_caught_up(&bench)).await?;
    // The session of a member that just vanished would time out after 6 s.
    ensure!(took < Duration::from_secs(5), "handing over took {took:?}");
    check_all(&bench).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wakes_up_after_losing_its_partitions_changes_nothing() -> Result<()> {
    let bench = Bench::start().await?;
    let both = bench.stack.start_service(Service::Sinks, 2).await?;
    stop_merges(&bench).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    let writing = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || write_on(writer, &stop, &AtomicI64::new(0)))
    };
    for paused in [0, 1, 0, 1] {
        both[paused].pause()?;
        // Longer than a session: the other one takes over what was being written.
        tokio::time::sleep(Duration::from_secs(9)).await;
        both[paused].resume()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    check_all(&bench).await?;
    for sinks in &both {
        let ready = || async { Ok(readiness(sinks).await?.0) };
        until("ready again", PATIENCE, ready).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_a_schema_is_learnt() -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    // A newer service adds a field; this one has never seen the schema.
    let record_type = RecordType::StockLevelChanged;
    let mut schema: serde_json::Value = serde_json::from_str(record_type.schema_json())?;
    let field = serde_json::json!({ "name": "note", "type": "string", "default": "" });
    schema["fields"].as_array_mut().context("a record")?.push(field);
    let subject = wire::registry::subject(record_type);
    let url = format!("{}/subjects/{subject}/versions", bench.stack.registry_url());
    let body = serde_json::json!({ "schema": schema.to_string() });
    let answer = reqwest::Client::new().post(url).json(&body).send().await?;
    let answer: serde_json::Value = answer.error_for_status()?.json().await?;
    let id = u32::try_from(answer["id"].as_u64().context("an id")?)?;
    let own = bench.codec.to_bytes(&writer::level(7, 3));
    let bytes = [&[0], &id.to_be_bytes()[..], &own[5..], &[0]].concat();
    ensure!(bytes[..5] != own[..5], "the registry knew the schema");

    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    writer.commit_bytes("stock-levels", &[&bytes])?;
    let stored = || async {
        let level = "SELECT count(*) FROM stock_levels WHERE sku = 'SKU-7' AND version = 3";
        Ok(bench.number(level).await? == 1)
    };
    until("the level is stored", PATIENCE, stored).await?;
    ensure!(metric(&sinks, "tillroll_records_rejected_total", "").await? < 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_may_die() -> Result<()> {
    let bench = Bench::start().await?;
    let sinks = bench.sinks().await?;
    let pid = sinks.pid();
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    writer.commit(&writer::histories("before", 0..300))?;
    check_all(&bench).await?;
    let kafka = bench.stack.component("kafka")?;
    kafka.kill().await?;
    let unready = || async {
        let (ready, why) = readiness(&sinks).await?;
        Ok(!ready && why.contains("kafka"))
    };
    until("readiness names kafka", PATIENCE, unready).await?;
    kafka.restart().await?;
    writer.commit(&writer::histories("after", 0..300))?;
    check_all(&bench).await?;
    until("ready again", PATIENCE, || async { Ok(readiness(&sinks).await?.0) }).await?;
    ensure!(sinks.pid() == pid, "it was restarted");
    Ok(())
}
