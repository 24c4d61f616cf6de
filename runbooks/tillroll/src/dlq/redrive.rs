//! Sends letters back, or gives them up.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use events::topics;

use super::filter::Filter;
use super::ledger::{Commit, Ledger, Signed};
use super::letter::{Action, Decision, Letter};
use super::outcome::Outcome;
use super::plan::{Limits, Plan, plan};
use super::queue::Queue;
use super::superseded::superseded;
use super::values::with_values;
use crate::connection::Connection;
use crate::log::Log;
use crate::{operator, output};

/// Most letters of one transaction, and most bytes, which are held in memory: an open transaction holds back
/// the readers of the topics it writes to.
const BATCH_LETTERS: usize = 100;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Flags of `tillroll dlq redrive` and `drop`.
#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    filter: Filter,
    /// Every letter there is, where no other flag chooses
    #[arg(long)]
    all: bool,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why; kept with the decision
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run", value_parser = reason)]
    because: Option<String>,
    /// Who; kept with the decision [default: user@host]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Most letters of this run, the first ones first
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `tillroll dlq redrive` alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    change: Change,
    /// Most records per second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Leave letters that were redriven this often already
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
}

/// What a reason may be: a header, and a line of a list.
fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let legal = (1..=500).contains(&text.len()) && !text.chars().any(char::is_control);
    if legal { Ok(text.to_owned()) } else { Err("say it in one line, up to 500 bytes".to_owned()) }
}

/// Runs `tillroll dlq redrive`; 4 if there are more letters than `--limit`, 1 if some were left.
///
/// # Errors
/// When nothing was chosen, or Kafka does not answer or refuses.
pub(super) async fn redrive(redrive: Redrive) -> Result<ExitCode> {
    let Redrive { change, rate, attempts } = redrive;
    tokio::task::spawn_blocking(move || run(&change, Some((rate, attempts)))).await?
}

/// Runs `tillroll dlq drop`; 4 if there are more letters than `--limit`.
///
/// # Errors
/// As for a redrive.
pub(super) async fn drop(change: Change) -> Result<ExitCode> {
    tokio::task::spawn_blocking(move || run(&change, None)).await?
}

fn run(change: &Change, redrive: Option<(u32, u32)>) -> Result<ExitCode> {
    ensure!(
        change.all || !change.filter.is_empty(),
        "say which letters: places, --topic, --reason, --since, --key, or --all; see `tillroll dlq \
         list --each`"
    );
    let brokers = change.connection.brokers()?;
    let by = operator::name(change.by.as_deref())?;
    let signed = Signed { by: &by, why: change.because.as_deref().unwrap_or_default() };
    let action = if redrive.is_some() { Action::Redriven } else { Action::Dropped };
    let log = Log::connect(&brokers)?;
    let mut outcome = Outcome::default();
    while !outcome.is_done() {
        // First the ledger, then the queues: whoever wrote before is seen, and nobody writes after.
        let ledger = if change.dry_run { Ok(None) } else { Ledger::open(&brokers).map(Some) };
        let passed = ledger.and_then(|ledger| {
            pass(&log, ledger.as_ref(), change, redrive, (action, signed), &mut outcome)
        });
        if let Err(error) = passed {
            outcome.mention(action);
            return Err(error);
        }
    }
    outcome.report(action, change.dry_run, change.json)?;
    Ok(outcome.exit_code())
}

/// Reads, plans, and does what was planned, up to a slow commit.
fn pass(
    log: &Log,
    ledger: Option<&Ledger>,
    change: &Change,
    redrive: Option<(u32, u32)>,
    (action, signed): (Action, Signed<'_>),
    outcome: &mut Outcome,
) -> Result<()> {
    // Letters of the same key that were not asked for count, too: whole topics are read.
    let queue = Queue::read(log, &whole_topics(&change.filter))?;
    if outcome.is_new() {
        queue.mention_strange();
        mention_done(&change.filter, &queue)?;
    } else {
        output::message("Kafka is slow: the queues were read again, the rest is planned anew");
    }
    let asked = |letter: &Letter| outcome.asks(&change.filter, letter);
    let plan = planned(log, &queue, asked, change.limit, redrive)?;
    let (done, carried) = match ledger {
        Some(ledger) => {
            let rate = redrive.map(|(rate, _)| rate);
            carry_out(log, ledger, &plan.go, action, signed, rate)
        }
        None => (plan.go.len(), Ok(())),
    };
    let others = outcome.enter(&plan, done);
    if others > 0 {
        output::message(&format!("{others} letters were dealt with by another run"));
    }
    carried
}

/// What is to be done with the letters that are asked for.
fn planned<'a>(
    log: &Log,
    queue: &'a Queue,
    asked: impl Fn(&Letter) -> bool,
    limit: u32,
    redrive: Option<(u32, u32)>,
) -> Result<Plan<'a>> {
    let letters = usize::try_from(limit)?;
    Ok(match redrive {
        Some((_, attempts)) => {
            let superseded = superseded(log, queue)?;
            plan(queue, asked, Limits { attempts, letters }, &superseded)
        }
        None => {
            let mut go: Vec<&Letter> = queue.waiting().filter(|letter| asked(letter)).collect();
            let more = go.len().saturating_sub(letters);
            go.truncate(letters);
            Plan { go, left: Vec::new(), more }
        }
    })
}

/// Letters that were named must be there; those that are dealt with are told, and passed over.
fn mention_done(filter: &Filter, queue: &Queue) -> Result<()> {
    for place in &filter.places {
        let topic = &place.topic;
        ensure!(
            queue.letters.contains_key(place),
            "there is no letter {place}: see `tillroll dlq list --each --topic {topic}`; nothing was \
             changed"
        );
        if let Some(Decision { action, by, why, .. }) = queue.decisions.get(place) {
            let action = action.as_str();
            output::message(&format!("{place} was {action} already, by {by}: {why}"));
        }
    }
    Ok(())
}

fn whole_topics(filter: &Filter) -> Filter {
    let reads = |topic: &&topics::Topic| filter.reads(topic.name);
    let topic = topics::ALL.iter().filter(reads).map(|topic| topic.name.to_owned()).collect();
    Filter { topic, ..Filter::default() }
}

/// In batches, no faster than `rate` letters a second, up to a slow commit; returns how many letters were
/// decided about.
fn carry_out(
    log: &Log,
    ledger: &Ledger,
    letters: &[&Letter],
    action: Action,
    signed: Signed<'_>,
    rate: Option<u32>,
) -> (usize, Result<()>) {
    let began = Instant::now();
    let mut done = 0;
    while done < letters.len() {
        let batch = batch(&letters[done..], rate);
        let valued = match action {
            Action::Redriven => with_values(log, batch),
            Action::Dropped => Ok(batch.iter().map(|letter| (*letter, None)).collect()),
        };
        let commit = match valued.and_then(|valued| ledger.decide(&valued, action, signed)) {
            Ok(commit) => commit,
            Err(error) => return (done, Err(error)),
        };
        done += batch.len();
        if commit == Commit::Slow {
            break;
        }
        if let (Some(rate), true) = (rate, done < letters.len()) {
            let due = Duration::from_secs_f64(done as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    (done, Ok(()))
}

/// The first letters of these that make one transaction.
fn batch<'a, 'b>(letters: &'a [&'b Letter], rate: Option<u32>) -> &'a [&'b Letter] {
    // A tenth of a second's, so that a rate is one, and not a burst each second.
    let most = rate.map_or(BATCH_LETTERS, |rate| (rate / 10).clamp(1, 100) as usize);
    let mut bytes = 0;
    let fit = letters.iter().take(most).take_while(|letter| {
        bytes += letter.size + letter.key.as_ref().map_or(0, Vec::len);
        bytes <= BATCH_BYTES
    });
    &letters[..fit.count().max(1)]
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::super::queue::tests::queue;
    use super::*;

    #[test]
    fn batches_are_small_and_never_empty() {
        let mut letters: Vec<Letter> =
            (0..300).map(|n| letter(&format!("orders/0/{n}"), "k", &[])).collect();
        let size = |letters: &[Letter], rate| {
            let all: Vec<&Letter> = letters.iter().collect();
            batch(&all, rate).len()
        };
        assert_eq!(size(&letters, None), 100);
        assert_eq!(size(&letters, Some(5)), 1);
        assert_eq!(size(&letters, Some(200)), 20);
        assert_eq!(size(&letters, Some(100_000)), 100);
        letters[0].size = BATCH_BYTES + 1;
        assert_eq!(size(&letters, None), 1);
        letters[0].size = 1;
        letters[7].size = BATCH_BYTES;
        assert_eq!(size(&letters, None), 7);
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason(" schema 7 registered "), Ok("schema 7 registered".into()));
        for wrong in ["", "   ", "two\nlines", &"x".repeat(501)] {
            assert!(reason(wrong).is_err());
        }
    }

    #[test]
    fn letters_that_are_named_must_be_there() {
        let queue = queue(vec![letter("orders/0/1", "k", &[])], &[("orders/0/1", Action::Dropped)]);
        let named = |place: &str| {
            let places = vec![place.parse().expect("a place")];
            mention_done(&Filter { places, ..Filter::default() }, &queue)
        };
        assert!(named("orders/0/1").is_ok());
        let told = named("orders/0/2").expect_err("it is not there").to_string();
        assert!(told.starts_with("there is no letter orders/0/2"), "{told}");
    }

    #[test]
    fn a_change_looks_at_whole_topics() {
        let places = vec!["orders/0/1".parse().expect("a place")];
        let filter = Filter { places, ..Filter::default() };
        assert_eq!(whole_topics(&filter).topic, ["orders"]);
        assert_eq!(whole_topics(&Filter::default()).topic.len(), topics::ALL.len());
    }
}
