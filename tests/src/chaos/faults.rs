//! Faults: what is done to which component, how long it lasts, and how long the pipeline needs
//! afterwards until everything that was accepted before the fault's end has come out everywhere.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use local::Stack;
use serde_json::{Value, json};

use super::tracker::Tracker;
use crate::load::Random;
use crate::progress::say;

/// Longest wait for a recovery: then the next fault may strike.
pub const RECOVERY_BOUND: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// kill -9, started again at once.
    Kill,
    /// SIGSTOP for a while: a zombie when it goes on.
    Pause,
    /// Stopped in order, started again.
    Restart,
    /// Its port refuses connections for a while: killed, and started again later.
    Refuse,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9",
            Self::Pause => "SIGSTOP",
            Self::Restart => "restart",
            Self::Refuse => "refused",
        })
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// To which component.
    pub target: String,
    /// How long it lasts; zero for what happens at once.
    pub lasting: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.target)?;
        match self.lasting.is_zero() {
            true => Ok(()),
            false => write!(f, " for {:.1} s", self.lasting.as_secs_f64()),
        }
    }
}

/// How often what is done to which kind of component: the processors most, for they hold the promise.
const MIX: &[(u64, Kind, &str)] = &[
    (22, Kind::Kill, "processors"),
    (12, Kind::Pause, "processors"),
    (5, Kind::Restart, "processors"),
    (12, Kind::Kill, "kafka"),
    (10, Kind::Pause, "kafka"),
    (3, Kind::Restart, "kafka"),
    (8, Kind::Kill, "sinks"),
    (4, Kind::Pause, "sinks"),
    (4, Kind::Kill, "postgres"),
    (3, Kind::Refuse, "postgres"),
    (3, Kind::Kill, "clickhouse"),
    (2, Kind::Refuse, "clickhouse"),
    (4, Kind::Kill, "ingest"),
    (2, Kind::Pause, "ingest"),
    (2, Kind::Refuse, "courier-simulator"),
    (2, Kind::Pause, "courier-simulator"),
    (2, Kind::Kill, "registry"),
];

/// Draws a fault; `names` are the components that there are.
pub fn draw(random: &mut Random, names: &[String]) -> Fault {
    let all: u64 = MIX.iter().map(|(weight, ..)| weight).sum();
    let mut at = random.bits() % all;
    let (_, kind, component) = MIX
        .iter()
        .find(|(weight, ..)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        })
        .expect("the weights add up");
    let of_kind: Vec<&String> = names.iter().filter(|n| n.starts_with(component)).collect();
    let target = match of_kind.len() as u64 {
        0 => (*component).to_owned(),
        n => of_kind[usize::try_from(random.bits() % n).expect("below a length")].clone(),
    };
    // Short ones most often; every length up to the bound some time.
    let part = (random.bits() % 1_000) as f64 / 1_000.0;
    let lasting = match kind {
        Kind::Kill | Kind::Restart => Duration::ZERO,
        Kind::Pause => Duration::from_secs_f64(2.0 + 43.0 * part.powi(3)),
        Kind::Refuse => Duration::from_secs_f64(2.0 + 18.0 * part.powi(2)),
    };
    Fault { kind: *kind, target, lasting }
}

/// What came of a fault.
#[derive(Debug, Clone)]
pub struct Struck {
    /// The fault.
    pub fault: Fault,
    /// Accepted orders that were on their way when it struck.
    pub in_progress: usize,
    /// From its end until everything accepted before it was out, and new orders flowed.
    pub recovery: Duration,
    /// Whether that was within the bound.
    pub recovered: bool,
}

impl Struck {
    /// As a line of the report.
    pub fn json(&self) -> Value {
        json!({
            "kind": self.fault.kind.to_string(),
            "target": self.fault.target,
            "lasting_s": self.fault.lasting.as_secs_f64(),
            "orders_in_progress": self.in_progress,
            "recovery_s": self.recovery.as_secs_f64(),
            "recovered": self.recovered,
        })
    }
}

/// Strikes, ends the fault, waits for the recovery up to [`RECOVERY_BOUND`].
///
/// # Errors
/// When a component cannot be signalled or does not start again.
pub async fn strike(stack: &Stack, tracker: &Tracker, fault: Fault) -> Result<Struck> {
    let in_progress = tracker.outstanding(Instant::now());
    let target = fault.target.as_str();
    match fault.kind {
        Kind::Kill => stack.kill(target).await?,
        Kind::Restart => {
            stack.stop(target).await?;
        }
        Kind::Refuse => {
            stack.kill(target).await?;
            tokio::time::sleep(fault.lasting).await;
        }
        Kind::Pause => {
            stack.pause(target)?;
            tokio::time::sleep(fault.lasting).await;
            stack.resume(target)?;
        }
    }
    let ended = Instant::now();
    let mut watch = std::pin::pin!(watch(tracker, ended));
    let mut seen = None;
    if fault.kind != Kind::Pause {
        // What has two instances can recover before the one that failed is back.
        let mut restart = std::pin::pin!(stack.restart(target));
        loop {
            tokio::select! {
                restarted = &mut restart => {
                    restarted.with_context(|| format!("after {fault}"))?;
                    break;
                }
                found = &mut watch, if seen.is_none() => seen = Some(found),
            }
        }
    }
    let recovery = loop {
        if let Some(found) = seen {
            break found;
        }
        revive(stack).await?;
        seen = tokio::time::timeout(LOOK_EVERY, &mut watch).await.ok();
    };
    let recovered = recovery.is_some();
    Ok(Struck { fault, in_progress, recovery: recovery.unwrap_or(RECOVERY_BOUND), recovered })
}

/// How long it took until everything accepted before the fault's end was out and new orders flowed;
/// `None` when the bound has passed.
async fn watch(tracker: &Tracker, ended: Instant) -> Option<Duration> {
    while ended.elapsed() < RECOVERY_BOUND {
        tokio::time::sleep(LOOK_EVERY / 2).await;
        if tracker.outstanding(ended) == 0 && tracker.flows_since(ended) {
            return Some(ended.elapsed());
        }
    }
    None
}

/// Starts again what ended by itself, as a supervisor does in production.
async fn revive(stack: &Stack) -> Result<()> {
    for component in stack.components() {
        if component.pid().is_none() {
            say(&format!("{} had ended by itself: started again", component.name()));
            stack.restart(component.name()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_mix_is_drawn_and_lasts_as_promised() {
        let names: Vec<String> =
            ["kafka-1", "kafka-2", "processors-1", "processors-2", "sinks-1", "postgres"]
                .map(str::to_owned)
                .to_vec();
        let mut random = Random::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..5_000 {
            let fault = draw(&mut random, &names);
            let range = match fault.kind {
                Kind::Kill | Kind::Restart => 0.0..=0.0,
                Kind::Pause => 2.0..=45.0,
                Kind::Refuse => 2.0..=20.0,
            };
            assert!(range.contains(&fault.lasting.as_secs_f64()), "{fault}");
            seen.insert((fault.kind, fault.target));
        }
        for (_, kind, component) in MIX {
            assert!(seen.iter().any(|(k, t)| k == kind && t.starts_with(component)), "{component}");
        }
        assert!(seen.contains(&(Kind::Kill, "processors-2".to_owned())));
    }
}
