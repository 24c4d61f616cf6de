//! `tillroll-ingest`: the HTTP API as a process.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use ingest::config::Config;

const EXAMPLES: &str = "\
Examples:
  tillroll-ingest --config ingest.toml
  INGEST_LISTEN=0.0.0.0:8080 INGEST_KAFKA__BROKERS=kafka:9092 tillroll-ingest

Every setting has a default; a file overrides it, and variables named INGEST_<SECTION>__<KEY>
override the file.";

/// Takes orders and stock receipts over HTTP and records them in Kafka.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Settings that differ from the defaults (TOML)
    #[arg(long)]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    wire::telemetry::init();
    ingest::service::run(Config::load(arguments.config.as_deref())?).await
}
