//! `tillroll-processors`: runs the processors until told to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use runtime::calls::Calls;
use runtime::config::Config;
use runtime::inbox::Member;
use runtime::payments::Payments;
use runtime::store::Stores;
use runtime::thread::Setup;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use wire::operator::Readiness;

/// Between tries to reach Kafka and the registry at the start.
const START_RETRY: Duration = Duration::from_secs(1);

/// Runs Tillroll's processors: dedupe and saga, stock, couriers.
///
/// Settings: the defaults, then --config, then environment variables such as
/// PROCESSORS_KAFKA__BROKERS (`__` separates levels).
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  PROCESSORS_INSTANCE=processors-2 tillroll-processors \
                                 --config processors.toml"
)]
struct Arguments {
    /// TOML file with settings that differ from the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
}

// One thread is plenty for courier calls and the operator's port, and nobody has to be woken elsewhere.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "tillroll-processors ends");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    wire::telemetry::init();
    // Counters that nobody has touched yet would be missing instead of 0.
    LazyLock::force(&wire::telemetry::ORDERS_WAITED);
    wire::telemetry::TRANSACTIONS.with_label_values(&["committed"]);
    let config = Config::load(arguments.config.as_deref())?;
    let readiness = Readiness::starting(&["kafka", "registry", "tasks"]);
    wire::operator::serve(config.operator_listen, readiness.clone()).await?;
    let brokers = config.kafka.brokers.clone();
    let partitions = persist(&readiness, "kafka", async || {
        let brokers = brokers.clone();
        tokio::task::spawn_blocking(move || wire::admin::partitions(&brokers)).await?
    })
    .await;
    let codec =
        persist(&readiness, "registry", async || wire::registry::codec(&config.registry).await)
            .await;
    let calls = Calls::new(
        Handle::current(),
        &config.kafka.brokers,
        &config.instance,
        codec.clone(),
        partitions,
        config.couriers.max_in_flight,
    )?;
    let payments = Payments::new(
        Handle::current(),
        &config.kafka.brokers,
        &config.instance,
        codec.clone(),
        partitions,
        &config.payments,
    )?;
    let stop = Arc::new(AtomicBool::new(false));
    let stores = Stores::new(&config.data_dir);
    let warmed = Arc::new(Barrier::new(config.threads));
    let mut threads = Vec::new();
    let mut ready = Vec::new();
    for number in 1..=config.threads {
        let thread_ready = Arc::new(AtomicBool::new(false));
        let setup = Setup {
            member: Member {
                brokers: config.kafka.brokers.clone(),
                group: config.group.clone(),
                instance: format!("{}.{number}", config.instance),
            },
            processors: config.served()?,
            stores: stores.clone(),
            codec: codec.clone(),
            registry: config.registry.clone(),
            runtime: Handle::current(),
            partitions,
            commit: config.commit,
            calls: calls.clone(),
            payments: payments.clone(),
            stop: stop.clone(),
            share: (number - 1, config.threads),
            warmed: warmed.clone(),
            ready: thread_ready.clone(),
        };
        ready.push(thread_ready);
        threads.push(spawn(number, setup)?);
    }
    watch(stop, ready, readiness, threads).await
}

/// Tries until it works; readiness says what is missing. A signal still ends the process, which has
/// nothing to hand over yet.
async fn persist<T>(
    readiness: &Readiness,
    check: &'static str,
    attempt: impl AsyncFn() -> Result<T>,
) -> T {
    loop {
        match attempt().await {
            Ok(found) => {
                readiness.ok(check);
                return found;
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(check, reason, "not started yet: tried again");
                readiness.fail(check, &reason);
                tokio::time::sleep(START_RETRY).await;
            }
        }
    }
}

type Thread = tokio::sync::oneshot::Receiver<Result<()>>;

fn spawn(number: usize, setup: Setup) -> Result<Thread> {
    let (done, wait) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(format!("stream-{number}"))
        .spawn(move || {
            let result = runtime::thread::run(setup);
            let _ = done.send(result);
        })
        .context("stream thread cannot be started")?;
    Ok(wait)
}

/// Waits for a signal or a thread that ends by itself, then stops all. A second signal exits.
async fn watch(
    stop: Arc<AtomicBool>,
    ready: Vec<Arc<AtomicBool>>,
    readiness: Readiness,
    threads: Vec<Thread>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let all = futures_all(threads, stop.clone());
    tokio::pin!(all);
    loop {
        tokio::select! {
            result = &mut all => return result,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                if stop.load(Ordering::Acquire) {
                    continue;
                }
                match ready.iter().all(|ready| ready.load(Ordering::Acquire)) {
                    true => readiness.ok("tasks"),
                    false => readiness.fail("tasks", "taking tasks over"),
                }
                continue;
            }
        }
        if stop.swap(true, Ordering::AcqRel) {
            return Err(anyhow!("stopped at once by a second signal"));
        }
        readiness.fail("tasks", "stopping");
    }
}

/// Waits for every thread; one that ends with an error stops the others.
async fn futures_all(threads: Vec<Thread>, stop: Arc<AtomicBool>) -> Result<()> {
    let mut set = tokio::task::JoinSet::new();
    for thread in threads {
        set.spawn(async move { thread.await.unwrap_or_else(|_| Err(anyhow!("a thread died"))) });
    }
    let mut first_error = Ok(());
    while let Some(joined) = set.join_next().await {
        if let Err(error) = joined.map_err(anyhow::Error::from).flatten() {
            tracing::error!(error = format!("{error:#}"), "stream thread ended");
            stop.store(true, Ordering::Release);
            first_error = first_error.and(Err(error));
        }
    }
    first_error
}
