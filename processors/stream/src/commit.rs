//! A transaction, step by step: outputs and changelog records → drain → footers → drain → offsets →
//! commit. While it drains, the thread processes the next batch.
//!
//! Offsets are sent only when everything is drained: earlier, a zombie could land records behind its
//! fence.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::topics;
use machines::footer::{FOOTER_KEY, batch_header};
use machines::{Transaction, planted};

use crate::io::{Inboxes, Outgoing, OutgoingHeader, Platform, Producer};
use crate::observe::Observed;

/// A commit that took longer after the drain may have been sent twice by librdkafka (it retries
/// EndTxn by itself, after at least 0.8 × `retry.backoff.ms`): the producer is made anew.
const SUSPICIOUS_COMMIT: Duration = Duration::from_millis(400);

/// Pause between two looks at a transaction that is being waited for.
const DRAIN_POLL: Duration = Duration::from_micros(300);

/// A transaction that was committed.
pub struct Committed {
    /// What was committed.
    pub transaction: Transaction,
    /// Changelog offset behind its footer.
    pub position: i64,
}

enum Stage {
    Records,
    Footers,
}

struct InFlight {
    transactions: Vec<Transaction>,
    stage: Stage,
    began: Duration,
}

/// A stream thread's transactional producer.
pub struct Committer<P: Platform> {
    producer: P::Producer,
    transactional_id: String,
    in_flight: Option<InFlight>,
}

impl<P: Platform> Committer<P> {
    /// Makes the producer ready, which ends whatever this id left open.
    ///
    /// # Errors
    /// When the brokers do not answer in time.
    pub fn connect(platform: &P, transactional_id: &str) -> Result<Self> {
        let producer = platform.producer(transactional_id)?;
        let transactional_id = transactional_id.to_string();
        Ok(Self { producer, transactional_id, in_flight: None })
    }

    /// Whether a transaction is under way.
    pub fn busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Begins a transaction with these tasks' batches.
    ///
    /// # Errors
    /// Any: drop the committer and its tasks' overlays, restore, go on.
    pub fn begin(&mut self, platform: &P, transactions: Vec<Transaction>) -> Result<()> {
        debug_assert!(self.in_flight.is_none(), "one transaction at a time");
        let began = platform.elapsed();
        self.producer.begin().context("begin")?;
        for transaction in &transactions {
            self.send_batch(transaction)?;
        }
        self.producer.hurry();
        self.in_flight = Some(InFlight { transactions, stage: Stage::Records, began });
        Ok(())
    }

    /// Moves the transaction on as far as it goes without waiting; the batches when committed.
    ///
    /// # Errors
    /// As [`Committer::begin`]. The outcome may be unknown: restoring finds out.
    pub fn progress(
        &mut self,
        platform: &P,
        inboxes: &P::Inboxes,
    ) -> Result<Option<Vec<Committed>>> {
        let moved = self.advance(platform, inboxes);
        if moved.is_err() {
            // Never taken up again: a record may be missing, and the failure is told only once.
            self.in_flight = None;
        }
        moved
    }

    fn advance(&mut self, platform: &P, inboxes: &P::Inboxes) -> Result<Option<Vec<Committed>>> {
        let Some(in_flight) = &mut self.in_flight else { return Ok(None) };
        if !self.producer.drained()? {
            return Ok(None);
        }
        match in_flight.stage {
            Stage::Records => {
                in_flight.stage = Stage::Footers;
                for (index, transaction) in in_flight.transactions.iter().enumerate() {
                    send_footer(&mut self.producer, index, transaction)?;
                }
                self.producer.hurry();
                Ok(None)
            }
            Stage::Footers => self.finish(platform, inboxes).map(Some),
        }
    }

    /// Waits until the transaction is committed.
    ///
    /// # Errors
    /// As [`Committer::progress`].
    pub fn complete(&mut self, platform: &P, inboxes: &P::Inboxes) -> Result<Vec<Committed>> {
        while self.busy() {
            if let Some(committed) = self.progress(platform, inboxes)? {
                return Ok(committed);
            }
            platform.sleep(DRAIN_POLL);
        }
        Ok(vec![])
    }

    fn finish(&mut self, platform: &P, inboxes: &P::Inboxes) -> Result<Vec<Committed>> {
        let in_flight = self.in_flight.take().context("no transaction under way")?;
        let drained = platform.elapsed();
        let mut offsets = Vec::new();
        for transaction in &in_flight.transactions {
            for (inbox, position) in &transaction.footer.positions {
                offsets.push((inbox.as_str(), transaction.task.partition, *position));
            }
        }
        let group = inboxes.group()?;
        if !planted!(OffsetsNotSent) {
            self.producer.send_offsets(&offsets, group).context("offsets")?;
        }
        let outcome = self.producer.commit().context("commit");
        if !planted!(UnknownOutcomeTakenAsCommitted) {
            outcome?;
        }
        let commit = platform.elapsed() - drained;
        platform.observe(Observed::Committed { drain: drained - in_flight.began, commit });
        let mut footers = self.producer.footers();
        footers.sort_unstable();
        if planted!(FootersMixedUp) {
            let offsets: Vec<i64> = footers.iter().map(|(_, offset)| *offset).collect();
            footers.iter_mut().zip(offsets.iter().rev()).for_each(|(footer, o)| footer.1 = *o);
        }
        if footers.len() != in_flight.transactions.len() {
            bail!("{} footers for {} tasks", footers.len(), in_flight.transactions.len());
        }
        if commit >= SUSPICIOUS_COMMIT && !planted!(SlowCommitTrusted) {
            platform.observe(Observed::SlowCommit(commit));
            self.producer = platform.producer(&self.transactional_id)?;
        }
        let committed = in_flight.transactions.into_iter().zip(footers);
        let committed = committed
            .map(|(transaction, (_, offset))| Committed { transaction, position: offset + 1 });
        Ok(committed.collect())
    }

    fn send_batch(&mut self, transaction: &Transaction) -> Result<()> {
        let origin = transaction.origin.to_string();
        for output in &transaction.outputs {
            self.producer.send(Outgoing {
                topic: output.topic,
                partition: Some(output.partition),
                key: Some(&output.key),
                value: Some(&output.value),
                header: OutgoingHeader::Origin(&origin),
                footer: None,
            })?;
        }
        for rejected in &transaction.rejected {
            self.producer.send(Outgoing {
                topic: &topics::dead_letters(rejected.source.topic),
                partition: None,
                key: rejected.key.as_deref(),
                value: rejected.value.as_deref(),
                header: OutgoingHeader::Rejected(transaction.task, rejected),
                footer: None,
            })?;
        }
        let batch = batch_header(transaction.footer.term, transaction.footer.sequence);
        let changelog = topics::changelog(transaction.task.processor.name);
        for write in &transaction.writes {
            self.producer.send(Outgoing {
                topic: &changelog,
                partition: Some(transaction.task.partition),
                key: Some(&write.changelog_key()),
                value: write.value.as_deref(),
                header: OutgoingHeader::Batch(&batch),
                footer: None,
            })?;
        }
        Ok(())
    }
}

fn send_footer(
    producer: &mut impl Producer,
    index: usize,
    transaction: &Transaction,
) -> Result<()> {
    let footer = &transaction.footer;
    producer.send(Outgoing {
        topic: &topics::changelog(transaction.task.processor.name),
        partition: Some(transaction.task.partition),
        key: Some(FOOTER_KEY),
        value: Some(&footer.to_bytes()),
        header: OutgoingHeader::Batch(&batch_header(footer.term, footer.sequence)),
        footer: Some(index),
    })
}
