//! `tillroll couriers`: the companies, the rules under which they are asked, and what came of it.
//!
//! A company and a rule are commands in the log of every `couriers` partition, so each task knows from
//! which record on they count, and a redone batch decides as the first time.

mod broadcast;
mod decisions;
mod lab;
mod rules;
mod set;

use std::path::PathBuf;

use anyhow::Result;

use crate::connection::Connection;
pub(crate) use set::{File, Unusable, append};

/// `tillroll couriers …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List couriers, or change listed ones; safe to repeat
    #[command(after_help = "\
Example of the file:
  [[courier]]
  code = \"swift\"
  url = \"https://api.swift.example/v1\"
  price_minor = 895          # list price of a consignment
  currency = \"GBP\"
  timeout_ms = 1000          # the default
  paused = false             # the default; true: asked for nothing new

A courier that isn't in the file stays as it is: list it with `paused = true` to stop asking it.")]
    Set {
        #[command(flatten)]
        connection: Connection,
        /// Print what was listed as JSON
        #[arg(long)]
        json: bool,
        /// The couriers, TOML
        file: PathBuf,
    },
    /// Pause, prefer or black out a courier, on a lane or everywhere; replaces its last rule there
    #[command(after_help = "\
Examples:
  tillroll couriers rule swift --pause
  tillroll couriers rule swift                            as before: no rule
  tillroll couriers rule swift --lane 'main>FR' --weight 120
  tillroll couriers rule swift --blackout 1798675200000..1798761600000")]
    Rule {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        rule: rules::Rule,
    },
    /// Say what a late consignment costs, and how often a courier may be late
    #[command(after_help = "\
Example:
  tillroll couriers lateness --cost 1000 --currency GBP --lane 'main>FR' --most-late 150")]
    Lateness {
        #[command(flatten)]
        connection: Connection,
        #[command(flatten)]
        lateness: rules::Lateness,
    },
    /// Show per lane and courier how many came in time, at what price, and whether promises were kept
    League {
        #[command(flatten)]
        connection: Connection,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Estimate what recorded decisions would have cost under another policy
    #[command(after_help = "\
Policies: cheapest, greedy (least expected cost as recorded), or a courier's code.
Orders that the policy would have given to the same courier count by the inverse of how likely that
was; `support` says how many that were. Few mean that the estimate is worth little.")]
    Replay {
        #[command(flatten)]
        connection: Connection,
        /// The policy
        #[arg(long)]
        policy: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Unusable`] before anything was sent; otherwise Kafka or the registry doesn't answer.
pub(crate) async fn run(command: Command) -> Result<()> {
    match command {
        Command::Set { connection, json, file } => set::run(&connection, json, &file).await,
        Command::Rule { connection, rule } => rules::rule(&connection, rule).await,
        Command::Lateness { connection, lateness } => rules::lateness(&connection, lateness).await,
        Command::League { connection, json } => decisions::league(&connection, json).await,
        Command::Replay { connection, policy, json } => {
            decisions::replay(&connection, &policy, json).await
        }
    }
}
