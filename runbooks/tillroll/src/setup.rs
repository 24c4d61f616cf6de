//! `tillroll setup`: topics, schemas, couriers.

use std::path::PathBuf;

use anyhow::Result;
use events::topics;
use serde_json::json;
use wire::admin::Layout;

use crate::connection::Connection;
use crate::couriers::{self, File};
use crate::output;

/// Flags of `tillroll setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tillroll setup --brokers kafka:9092 --registry http://registry:8085/apis/ccompat/v7
  tillroll setup --replication 3 --couriers couriers.toml

Topics that exist are left as they are; their partition count is checked, because keys are
spread by it. Schemas that exist are found again under their ids.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Partitions of every topic; fixed from creation on
    #[arg(long, default_value_t = topics::DEFAULT_PARTITIONS,
          value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Copies of every partition, 3 in production [default: as the brokers are configured]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10))]
    replication: Option<i32>,
    /// Courier companies to list, see `tillroll couriers set --help`
    #[arg(long)]
    couriers: Option<PathBuf>,
    /// Print what was set up as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When Kafka or the registry doesn't answer or refuses; [`couriers::Unusable`] before
/// anything was changed.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let brokers = arguments.connection.brokers()?;
    let registry = arguments.connection.registry()?;
    let listed = arguments.couriers.as_deref().map(File::read).transpose()?;
    let layout = Layout { partitions: arguments.partitions, replication: arguments.replication };
    wire::admin::set_up(&brokers, layout).await?;
    output::message(&format!("topics: {} partitions each", arguments.partitions));
    let codec = wire::registry::set_up(&registry).await?;
    let schemas = events::RecordType::ALL.len();
    output::message(&format!("schemas: {schemas}, {}", wire::registry::COMPATIBILITY));
    let couriers = match listed {
        Some(file) => couriers::append(&brokers, &codec, file).await?,
        None => Vec::new(),
    };
    if !couriers.is_empty() {
        output::message(&format!("couriers: {}", couriers.len()));
    }
    if arguments.json {
        let names: Vec<&str> = topics::ALL.iter().map(|topic| topic.name).collect();
        let done = json!({
            "partitions": arguments.partitions,
            "topics": names,
            "schemas": schemas,
            "couriers": couriers,
        });
        output::data(&done.to_string())?;
    }
    Ok(())
}
