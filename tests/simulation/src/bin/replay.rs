//! `replay`: steps through a run's event log, showing what each committed batch changed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use simulation::journal::Line;

/// Steps through an event log: Enter shows the next line that concerns whom you asked for.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  replay target/simulation-logs/SEED=42.jsonl --key 1f3a --all"
)]
struct Arguments {
    /// The event log that `simulate --seed` wrote.
    log: PathBuf,
    /// Only row changes whose key, in hexadecimal, contains this; lines without any are left out.
    #[arg(long)]
    key: Option<String>,
    /// Only lines by names that begin with this, e.g. `p0`.
    #[arg(long)]
    who: Option<String>,
    /// Everything at once, without waiting for Enter.
    #[arg(long)]
    all: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.log).context("the log cannot be read")?;
    let mut state = BTreeMap::<(String, String), String>::new();
    let (mut input, mut out) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in text.lines() {
        let line: Line = serde_json::from_str(line).context("a line is no event")?;
        let shown = arguments.who.as_ref().is_none_or(|who| line.who.starts_with(who));
        let mut changes = Vec::new();
        for change in &line.rows {
            let place = (change.table.clone(), change.key.clone());
            let before = match &change.row {
                Some(row) => state.insert(place, row.clone()),
                None => state.remove(&place),
            };
            if arguments.key.as_ref().is_none_or(|key| change.key.contains(key)) {
                let (before, after) = (before.as_deref(), change.row.as_deref());
                changes.push(format!(
                    "    {} {}\n      - {}\n      + {}",
                    change.table,
                    change.key,
                    before.unwrap_or("nothing"),
                    after.unwrap_or("nothing")
                ));
            }
        }
        if !shown || (arguments.key.is_some() && changes.is_empty()) {
            continue;
        }
        let (seconds, micros) = (line.at_us / 1_000_000, line.at_us % 1_000_000);
        writeln!(out, "{seconds:5}.{micros:06} {:12} {}", line.who, line.what)?;
        for change in changes {
            writeln!(out, "{change}")?;
        }
        if !arguments.all && input.read_line(&mut String::new())? == 0 {
            return Ok(());
        }
    }
    Ok(())
}
