//! kill -9 of ClickHouse while the sink inserts: no row is lost or doubled in what analysts read.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use support::writer::{self, Writer};
use support::{Bench, auditor, until};

const KILLS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_inserts_it_loses_and_doubles_nothing() -> Result<()> {
    let bench = Bench::start().await?;
    let _sinks = bench.sinks().await?;
    let clickhouse = bench.stack.component("clickhouse")?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writer = Writer::new(&bench.stack.brokers(), &bench.codec, "writer")?;
    let writing = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.commit(&writer::histories("k", round * 200..(round + 1) * 200))?;
                round += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            anyhow::Ok(())
        })
    };
    for kill in 0..KILLS {
        // Spread over a batch's time: before, in the middle of and behind its blocks.
        tokio::time::sleep(Duration::from_millis(2_000 + kill * 777 % 2_000)).await;
        clickhouse.kill().await?;
        clickhouse.restart().await?;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    let truth = auditor::truth(&bench)?;
    until("clickhouse has everything", PATIENCE, || truth.clickhouse_caught_up(&bench)).await?;
    truth.check_clickhouse(&bench).await
}
