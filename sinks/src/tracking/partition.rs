//! A partition assigned to tracking: where it starts, and its batches as transactions.

use std::time::Duration;

use tokio_postgres::{Client, Config};

use super::statements::{OFFSET_FIRST, OFFSET_READ, Statements};
use super::write::{self, Batch};
use super::{NAME, connect};
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::intake::Received;
use crate::deliver::log::{self, Log};
use crate::deliver::{Partition, Place};
use crate::retry::{Failure, Verdict};

/// A transaction that takes longer is given up: its server is paused or cut off.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with its prepared statements.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
}

impl Session {
    async fn open(config: &Config) -> Result<Self, Failure> {
        let client = connect(config).await?;
        let statements = Statements::prepare(&client).await?;
        Ok(Self { client, statements })
    }
}

/// An assigned partition.
pub(crate) struct TrackingPartition {
    config: Config,
    place: Place,
    dead_letters: DeadLetters,
    session: Option<Session>,
    /// What `sink_offsets` must say.
    next: i64,
}

impl TrackingPartition {
    pub(super) async fn open(
        config: Config,
        place: Place,
        log: &Log,
        dead_letters: DeadLetters,
    ) -> Result<Self, Failure> {
        let opening = tokio::time::timeout(TRANSACTION_TIMEOUT, async {
            let session = Session::open(&config).await?;
            let known = read_offset(&session.client, place).await?;
            let bounds = log.bounds(place).await?;
            let next = match log::start(place, known, bounds)? {
                next if known.is_some() => next,
                first => {
                    let topic = place.topic.name;
                    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                        [&NAME, &topic, &place.partition, &first];
                    session.client.execute(OFFSET_FIRST, &row).await?;
                    // Another process may have been first.
                    read_offset(&session.client, place).await?.unwrap_or(first)
                }
            };
            Ok::<_, Failure>((session, next))
        });
        let (session, next) = opening.await.map_err(|_| no_answer())??;
        Ok(Self { config, place, dead_letters, session: Some(session), next })
    }

    /// Writes `records` and moves the offset behind the last, in one transaction.
    async fn transact(&mut self, records: &[Received]) -> Result<(), Failure> {
        let Some(last) = records.last() else { return Ok(()) };
        let next = last.offset() + 1;
        let mut session = match self.session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => Session::open(&self.config).await?,
        };
        let batch = Batch { place: self.place, from: self.next, to: next, records };
        let writing = write::transaction(&mut session, &batch);
        let outcome = tokio::time::timeout(TRANSACTION_TIMEOUT, writing).await;
        // A connection whose transaction was given up is dropped: the server rolls back.
        let outcome = outcome.map_err(|_| no_answer())?;
        self.session = Some(session);
        outcome?;
        self.next = next;
        Ok(())
    }

    /// As [`Self::transact`]; where the data is at fault, halves until the record is found, which
    /// becomes a dead letter.
    async fn transact_or_bisect(&mut self, records: &[Received]) -> Result<(), Failure> {
        let mut todo = vec![records];
        while let Some(part) = todo.pop() {
            match self.transact(part).await {
                Err(failure) if failure.verdict == Verdict::DeadLetter => match part {
                    [one] => {
                        self.dead_letters.put(&one.raw, "insert", &failure.reason).await?;
                        self.skip(one).await?;
                    }
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        todo.extend([second, first]);
                    }
                },
                other => other?,
            }
        }
        Ok(())
    }

    /// Moves the offset behind a record without writing it.
    async fn skip(&mut self, record: &Received) -> Result<(), Failure> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.config).await?),
        };
        let to = record.offset() + 1;
        let batch = Batch { place: self.place, from: self.next, to, records: &[] };
        write::transaction(session, &batch).await?;
        self.next = to;
        Ok(())
    }
}

impl Partition for TrackingPartition {
    fn start(&self) -> i64 {
        self.next
    }

    async fn write(&mut self, batch: &[Received]) -> Result<(), Failure> {
        // A try after a bisection was cut short: what precedes `next` is done.
        let done = batch.partition_point(|record| record.offset() < self.next);
        self.transact_or_bisect(&batch[done..]).await
    }
}

async fn read_offset(client: &Client, place: Place) -> Result<Option<i64>, Failure> {
    let row = client.query_opt(OFFSET_READ, &[&NAME, &place.topic.name, &place.partition]).await?;
    Ok(row.map(|row| row.get(0)))
}

fn no_answer() -> Failure {
    Failure::retry(format!("postgres: no answer in {} s", TRANSACTION_TIMEOUT.as_secs()))
}
