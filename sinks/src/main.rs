//! `tillroll-sinks`: writes what the topics hold into PostgreSQL and ClickHouse.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sinks::config;
use sinks::service::{self, Role};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Writes orders and stock into PostgreSQL (tracking) and ClickHouse (reports), and the ledger (billing), exactly once.
///
/// Settings come from built-in defaults, then the file given with --config, then SINKS_* variables
/// (SINKS_KAFKA__BROKERS sets kafka.brokers). The log goes to stderr.
#[derive(Debug, Parser)]
#[command(name = "tillroll-sinks", version, after_help = EXAMPLES)]
struct Arguments {
    /// A sink to run; repeat it for several. All by default.
    #[arg(long = "sink", value_enum)]
    sinks: Vec<Role>,
    /// A TOML file with settings that differ from the defaults.
    #[arg(long)]
    config: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  tillroll-sinks                          all sinks
  tillroll-sinks --sink reports           ClickHouse alone
  SINKS_INSTANCE=sinks-2 tillroll-sinks   a second process beside the first";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    wire::telemetry::init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "tillroll-sinks ends");
            let _ = writeln!(std::io::stderr(), "tillroll-sinks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn run(arguments: Arguments) -> Result<()> {
    let config = config::load(arguments.config.as_deref())?;
    let mut roles = arguments.sinks;
    if roles.is_empty() {
        roles.extend(Role::ALL);
    }
    roles.dedup();
    let (stop, shutdown) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut signalled = async || {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        signalled().await;
        tracing::info!("shutting down: batches are finished; a second signal ends it at once");
        let _ = stop.send(true);
        signalled().await;
        // Asked for twice: whoever asks wants no destructor to wait for anything.
        #[allow(clippy::disallowed_methods)]
        std::process::exit(130);
    });
    service::run(config, &roles, shutdown).await
}
