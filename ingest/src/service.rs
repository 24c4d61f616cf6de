//! Start and end of the service: open the port, reach Kafka and the registry, serve, drain.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use wire::operator::Readiness;

use crate::app::App;
use crate::config::Config;
use crate::keys::KeyRing;
use crate::{publish, routes, server, tail};

const START: &str = "start";
const SHUTDOWN: &str = "shutdown";
const RETRY: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT, then drains; a second signal ends it at once.
///
/// # Errors
/// When a port or the key file cannot be used, or the end was not orderly.
pub async fn run(config: Config) -> Result<()> {
    let mut end = Signals::listen()?;
    raise_file_limit(config.limits.connections);
    let readiness = Readiness::starting(&[START, publish::CHECK, tail::CHECK]);
    let keys = Arc::new(KeyRing::open(&config.keys_file)?);
    tokio::spawn(Arc::clone(&keys).watch());
    let slot = routes::Slot::default();
    let (stop, stopped) = oneshot::channel::<()>();
    // A counter that nobody has touched yet would be missing instead of 0.
    LazyLock::force(&wire::telemetry::ORDERS_REPLAYED);
    let listener = bind(config.listen).await?;
    let shared = match config.operator_listen {
        Some(operator) => {
            wire::operator::serve(operator, readiness.clone()).await?;
            None
        }
        None => Some(readiness.clone()),
    };
    let api = routes::all(Arc::clone(&slot), shared);
    let server = tokio::spawn(server::run(listener, api, config.limits.connections, async {
        // An error means that the sender is gone, which is an end as well.
        let _ = stopped.await;
    }));
    tracing::info!(listen = %config.listen, "serving");
    tokio::select! {
        app = reach(&config, &keys, &readiness) => {
            if slot.set(app).is_err() {
                bail!("the service was started twice");
            }
            readiness.ok(START);
            end.wait().await;
        }
        () = end.wait() => {}
    }
    readiness.fail(SHUTDOWN, "draining");
    // Streams would never be done. Their clients resume with another process.
    if let Some(app) = slot.get() {
        app.watching.hub.close();
    }
    tracing::info!("draining");
    // The server may have ended by itself, which is what is wanted.
    let _ = stop.send(());
    tokio::select! {
        unfinished = drain(server, &slot, config.limits.shutdown()) => match unfinished {
            0 => Ok(()),
            n => bail!("{n} records were not acknowledged in time: their outcome is unknown"),
        },
        () = end.wait() => bail!("ended by a second signal"),
    }
}

/// Takes as many file descriptors as the process may have: shells and service managers hand out 1,024 at first.
fn raise_file_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now =
        if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    if let Some(files) = now.filter(|files| *files < u64::try_from(connections).unwrap_or(u64::MAX))
    {
        tracing::warn!(
            files,
            connections,
            "fewer files may be open than limits.connections: raise ulimit -n"
        );
    }
}

async fn bind(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| format!("port {listen} cannot be opened"))
}

/// Tries until Kafka and the registry are there; readiness says what is missing.
async fn reach(config: &Config, keys: &Arc<KeyRing>, readiness: &Readiness) -> App {
    loop {
        match App::start(config, Arc::clone(keys), readiness).await {
            Ok(app) => return app,
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::warn!(reason, "not started yet: tried again");
                readiness.fail(START, &reason);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Lets requests and their records finish; says how many records did not.
async fn drain(
    server: tokio::task::JoinHandle<()>,
    slot: &routes::Slot,
    within: Duration,
) -> usize {
    let until = tokio::time::Instant::now() + within;
    // Out of time or not, what was handed over is what matters.
    let _ = tokio::time::timeout_at(until, server).await;
    let Some(app) = slot.get() else { return 0 };
    app.publisher.flush(until.saturating_duration_since(tokio::time::Instant::now())).await
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
