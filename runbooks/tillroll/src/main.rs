//! `tillroll`, the command of operators and analysts: sets a cluster up, lists couriers, issues API
//! keys, says what is wrong, sends dead letters back, prints reports.
//!
//! Data goes to stdout, messages go to stderr. Runbooks call it, so its exit codes are a contract.

mod append;
mod connection;
mod couriers;
mod dlq;
mod keys;
mod lag;
mod log;
mod moment;
mod operator;
mod output;
mod reconcile;
mod report;
mod reports;
mod setup;
mod status;
mod store;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  tillroll setup --brokers kafka:9092 --registry http://registry:8085/apis/ccompat/v7 \\
      --replication 3 --couriers couriers.toml
  tillroll couriers set couriers.toml          after a price changed or a courier was paused
  tillroll keys new --merchant shop --file keys.json
  tillroll status                              what is wrong, and what to type next
  tillroll lag                                 who is behind
  tillroll why 5f0e8f5e-3c1a-5b7e-9d55-0d4f6f5c3a11
  tillroll dlq list                            what was refused, and why
  tillroll reconcile                           whether stock and its history agree
  tillroll report revenue-daily --from 2026-11-01

Exit codes:
  0  done
  1  failed: Kafka, the registry, ClickHouse or a file refused; the message says what to do
  2  wrong usage; of `tillroll status`: broken
  3  an input file is unusable; nothing was changed
  4  `tillroll dlq redrive` and `drop`: done up to --limit, and more wait: run it again";

/// Sets up and operates Tillroll.
#[derive(Parser)]
#[command(name = "tillroll", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create topics, register schemas, list couriers; safe to repeat
    Setup(setup::Arguments),
    /// The courier companies
    #[command(subcommand)]
    Couriers(couriers::Command),
    /// Merchants' API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// Dead letters: list them, look at one, send them back, give them up
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// What is broken, what lags, and what to do: one screen, worst first
    Status(status::Arguments),
    /// What became of an order, and why: one timeline
    Why(why::Arguments),
    /// How far every reader is behind the log
    Lag(lag::Arguments),
    /// Whether stock, its holds, databases and history agree; correct what does not
    Reconcile(reconcile::Arguments),
    /// Reports from ClickHouse; without a name, their list
    Report(report::Arguments),
    /// The reports' store: make it anew from the log, enter exchange rates
    #[command(subcommand)]
    Reports(reports::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Setup(arguments) => plain(setup::run(arguments).await),
        Command::Couriers(command) => plain(couriers::run(command).await),
        Command::Keys(command) => plain(keys::run(command)),
        Command::Dlq(command) => dlq::run(command).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Why(arguments) => why::run(arguments).await,
        Command::Lag(arguments) => lag::run(arguments).await,
        Command::Reconcile(arguments) => reconcile::run(arguments).await,
        Command::Report(arguments) => plain(report::run(arguments).await),
        Command::Reports(command) => plain(reports::run(command).await),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            output::message(&format!("tillroll: {failure:#}"));
            let unusable = failure.chain().any(|cause| cause.is::<couriers::Unusable>());
            ExitCode::from(if unusable { 3 } else { 1 })
        }
    }
}

/// Commands that are done or fail.
fn plain(done: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    done.map(|()| ExitCode::SUCCESS)
}
