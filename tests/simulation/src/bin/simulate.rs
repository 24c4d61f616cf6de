//! `simulate`: many seeds, crash points or pairs; or one seed, whose event log is written for
//! `replay`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use simulation::crash_points;
use simulation::plan::Plan;
use simulation::run::run;
use simulation::sweep::{Report, sweep};

/// Bad runs after which a sweep gives up.
const MOST_BAD: usize = 10;
/// Pairs of crash points in a run of them.
const PAIRS: u64 = 20_000;

/// Runs the simulation.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  simulate --seeds 100000 --first 1\n  simulate --seed 42"
)]
struct Arguments {
    /// How many seeds.
    #[arg(long, env = "SEEDS", default_value_t = 2_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, env = "FIRST", default_value_t = 1)]
    first: u64,
    /// Crash points, then pairs of them, instead of seeds.
    #[arg(long, env = "PAIRS", num_args = 0..=1, default_missing_value = "1")]
    pairs: Option<String>,
    /// Only this seed, with its event log.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// The crash points' scenario, crashed at these calls, with its event log.
    #[arg(long, env = "CRASH_AT", value_delimiter = ',')]
    crash_at: Vec<u64>,
    /// Where event logs go.
    #[arg(long, default_value = "target/simulation-logs")]
    logs: PathBuf,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    if !arguments.crash_at.is_empty() {
        let plan = Plan::scenario(arguments.crash_at.clone());
        let name = "CRASH_AT";
        return one(plan, name, &arguments, &mut out);
    }
    if let Some(seed) = arguments.seed {
        return one(Plan::of(seed), &format!("SEED={seed}"), &arguments, &mut out);
    }
    let began = Instant::now();
    let report = if arguments.pairs.as_deref().is_some_and(|text| text == "1") {
        let singles = crash_points::singles(MOST_BAD);
        writeln!(out, "{} crash points, {} bad", singles.runs, singles.bad.len())?;
        if !singles.bad.is_empty() {
            writeln!(out, "{:#?}", singles.bad)?;
            return Ok(ExitCode::FAILURE);
        }
        crash_points::pairs(PAIRS, MOST_BAD)
    } else {
        sweep(arguments.first, arguments.seeds, MOST_BAD, Plan::of)
    };
    tell(&report, began, &mut out)?;
    let calls = crash_points::calls();
    for (number, _) in &report.bad {
        if arguments.pairs.is_none() {
            one(Plan::of(*number), &format!("SEED={number}"), &arguments, &mut out)?;
        } else {
            let at = crash_points::pair(calls, *number);
            let name = format!("CRASH_AT={},{}", at[0], at[1]);
            one(Plan::scenario(at), &name, &arguments, &mut out)?;
        }
    }
    Ok(if report.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(report: &Report, began: Instant, out: &mut impl std::io::Write) -> Result<()> {
    for (what, times) in report.coverage.all() {
        writeln!(out, "{times:9} {what}")?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(report.runs).unwrap_or(u32::MAX)) / seconds;
    let (runs, bad) = (report.runs, report.bad.len());
    writeln!(out, "{runs} runs, {bad} bad, {seconds:.0} s, {rate:.1} a second")?;
    Ok(())
}

/// Runs one plan again and writes its event log.
fn one(
    plan: Plan,
    name: &str,
    arguments: &Arguments,
    out: &mut impl std::io::Write,
) -> Result<ExitCode> {
    let outcome = run(plan, true);
    std::fs::create_dir_all(&arguments.logs).context("the logs' folder cannot be made")?;
    let path = arguments.logs.join(format!("{name}.jsonl"));
    std::fs::write(&path, outcome.journal.context("asked for")?.to_text())?;
    writeln!(out, "{name}: {:#?}", outcome.failures)?;
    writeln!(out, "again: make simulate {name}; step through: replay {}", path.display())?;
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
