//! `tillroll dlq`: dead letters, looked at, sent back, given up.
//!
//! A letter is known by where its record stood: `orders/3/9` is offset 9 in partition 3 of `orders`. A sink
//! may write it twice, and two sinks may both refuse a record: it is one letter all the same.
//!
//! What was done with a letter stands behind it in its queue, as a decision: a record with the letter's
//! key, no value, and headers that say what, who and why; its time says when. So a queue is its own audit
//! trail, kept as long as the letters (a decision is younger than its letter, and goes after it).
//!
//! A redrive is exactly once. Each batch is one Kafka transaction: the records, appended to where they
//! stood under their keys, and a decision for each. A crash leaves both or neither. A run first makes its
//! producer ready under the one `transactional.id` of these commands, which ends what an earlier run left
//! open and shuts that run out if it lives; then it reads the queues up to where they ended, waiting for
//! whatever transaction is open in them; and then it passes over what is decided. After a slow commit it
//! begins like that again with the rest: its producer must be made anew, and until then another run may
//! have written. Offsets of a consumer group would be simpler, but say nothing about letters that a filter
//! took out of the middle. Only places, keys and headers are held in memory; values are read batch by batch,
//! before the transaction that sends them.
//!
//! A redriven record is a new record of its topic, with its own headers (a sink's `origin` included) and
//! those that count its redrives. A processor that refused the record had taken it for read, so it
//! deduplicates nothing away; order by order the record meets the same rules as a late one. Order is kept
//! by partition and key: letters go back in the order in which their records first stood, also after a
//! redrive in vain, and none overtakes an earlier letter of its key ([`plan`]). What came of an order in between,
//! through records that were fine, is not undone: sinks settle by version, machines by their state.
//! Only a compacted topic could lose by it, where the last record of a key stays: a letter with a newer
//! record behind it is left there.

mod filter;
mod ledger;
mod letter;
mod list;
mod outcome;
mod plan;
mod queue;
mod redrive;
mod show;
mod superseded;
mod told;
mod values;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use told::{Told, letters_of, redriven, waiting};

/// `tillroll dlq …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say per topic how many letters wait, since when, and why
    #[command(after_help = "\
Examples:
  tillroll dlq list
  tillroll dlq list --each --topic orders --since 2h
  tillroll dlq list --key 5f0e8f5e-3c1a-5b7e-9d55-0d4f6f5c3a11 --json | jq .letters")]
    List(list::List),
    /// Show one letter: its envelope, its headers, its record
    #[command(after_help = "\
Examples:
  tillroll dlq show orders/3/9                what it is and why it was refused; nobody's data
  tillroll dlq show orders/3/9 --payload      everything; this can be a customer's name and address")]
    Show(show::Show),
    /// Send letters back to where their records stood, in their order, each once
    #[command(after_help = "\
Examples:
  tillroll dlq redrive --topic orders --dry-run
  tillroll dlq redrive --reason 'schema id 41' --because 'schema 41 is registered now'
  tillroll dlq redrive orders/3/9 --because 'ingest 0.2 wrote it, processors 0.2 run'
  tillroll dlq redrive --all --rate 20 --because 'processors are mended'

Mend the cause first: what is refused again is a letter again, one attempt older. Safe to repeat: what was
sent back is not sent again. A letter does not overtake an earlier one of its key; redrive or drop both.

Exit codes: 0 all that were asked for; 1 some were left (the reason is printed), or nothing could be done;
4 done up to --limit, and more wait: run the same command again")]
    Redrive(redrive::Redrive),
    /// Give letters up: they are no longer listed, and never sent back
    #[command(after_help = "\
Examples:
  tillroll dlq drop orders/3/9 --because 'a test of a client, no order'
  tillroll dlq drop --topic stock --reason 'wire format' --dry-run

Exit codes: 0 all that were asked for; 1 nothing could be done; 4 done up to --limit, and more wait: run the
same command again")]
    Drop(redrive::Change),
    /// Say who sent back or gave up what, when and why
    #[command(after_help = "\
Examples:
  tillroll dlq audit --topic orders
  tillroll dlq audit --json | jq '.[] | select(.action == \"dropped\")'")]
    Audit(list::Audit),
}

/// Runs the command.
///
/// # Errors
/// When Kafka doesn't answer or refuses, or the letter isn't there.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::List(arguments) => list::list(arguments).await?,
        Command::Show(arguments) => show::show(arguments).await?,
        Command::Redrive(arguments) => return redrive::redrive(arguments).await,
        Command::Drop(arguments) => return redrive::drop(arguments).await,
        Command::Audit(arguments) => list::audit(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}
