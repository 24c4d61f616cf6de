//! A partition assigned to a sink of PostgreSQL: where it starts, and its batches as transactions.

use std::time::Duration;

use tokio_postgres::{Client, Config, Error, Statement, Transaction};

use super::connect;
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::intake::Received;
use crate::deliver::log::{self, Log};
use crate::deliver::{Partition, Place};
use crate::retry::{Failure, Verdict};

/// A transaction that takes longer is given up: its server is paused or cut off.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

const OFFSET_READ: &str =
    "SELECT next_offset FROM sink_offsets WHERE sink = $1 AND topic = $2 AND \"partition\" = $3";

const OFFSET_FIRST: &str = "INSERT INTO sink_offsets VALUES ($1, $2, $3, $4)
    ON CONFLICT DO NOTHING";

/// No row: another process has moved it, or an earlier try of ours went through.
const OFFSET_MOVE: &str = "UPDATE sink_offsets SET next_offset = $5
    WHERE sink = $1 AND topic = $2 AND \"partition\" = $3 AND next_offset = $4";

/// What a sink writes.
pub(crate) trait Tables: Send + Sync + 'static {
    /// Name of the sink in `sink_offsets`.
    const SINK: &'static str;
    /// Its prepared statements.
    type Statements: Send + Sync;

    /// Prepares them.
    fn prepare(client: &Client) -> impl Future<Output = Result<Self::Statements, Error>> + Send;

    /// Writes a batch and moves its partition's offset, in one transaction.
    ///
    /// # Errors
    /// [`Batch::left`] when the offset isn't where it was thought to be; else as PostgreSQL's error asks.
    fn write(
        session: &mut Session<Self::Statements>,
        batch: &Batch<'_>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A connection with its prepared statements.
pub(crate) struct Session<S> {
    pub(crate) client: Client,
    pub(crate) statements: S,
    pub(crate) offset_move: Statement,
}

impl<S> Session<S> {
    async fn open<T: Tables<Statements = S>>(config: &Config) -> Result<Self, Failure> {
        let client = connect(config).await?;
        let (statements, offset_move) =
            (T::prepare(&client).await?, client.prepare(OFFSET_MOVE).await?);
        Ok(Self { client, statements, offset_move })
    }
}

/// What a transaction writes: records from offset `from` up to before `to`.
pub(crate) struct Batch<'a> {
    pub(crate) place: Place,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) records: &'a [Received],
}

impl Batch<'_> {
    /// Moves the partition's offset; 0 when it isn't where it was thought to be.
    pub(crate) async fn move_offset(
        &self,
        transaction: &Transaction<'_>,
        offset_move: &Statement,
        sink: &str,
    ) -> Result<u64, Error> {
        let Place { topic, partition } = self.place;
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&sink, &topic.name, &partition, &self.from, &self.to];
        transaction.execute(offset_move, &row).await
    }

    /// The offset isn't where it was thought to be.
    pub(crate) fn left(&self) -> Failure {
        let (place, from) = (self.place, self.from);
        Failure::reopen(format!(
            "sink_offsets of {place} has left {from}: an earlier try went through, or another \
             process owns the partition"
        ))
    }
}

/// An assigned partition.
pub(crate) struct PostgresPartition<T: Tables> {
    config: Config,
    place: Place,
    dead_letters: DeadLetters,
    session: Option<Session<T::Statements>>,
    /// What `sink_offsets` must say.
    next: i64,
}

impl<T: Tables> PostgresPartition<T> {
    pub(crate) async fn open(
        config: Config,
        place: Place,
        log: &Log,
        dead_letters: DeadLetters,
    ) -> Result<Self, Failure> {
        let opening = tokio::time::timeout(TRANSACTION_TIMEOUT, async {
            let session = Session::open::<T>(&config).await?;
            let known = read_offset(&session.client, T::SINK, place).await?;
            let bounds = log.bounds(place).await?;
            let next = match log::start(place, known, bounds)? {
                next if known.is_some() => next,
                first => {
                    let topic = place.topic.name;
                    let row: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                        [&T::SINK, &topic, &place.partition, &first];
                    session.client.execute(OFFSET_FIRST, &row).await?;
                    // Another process may have been first.
                    read_offset(&session.client, T::SINK, place).await?.unwrap_or(first)
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
            _ => Session::open::<T>(&self.config).await?,
        };
        let batch = Batch { place: self.place, from: self.next, to: next, records };
        let writing = T::write(&mut session, &batch);
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
            none => none.insert(Session::open::<T>(&self.config).await?),
        };
        let to = record.offset() + 1;
        let batch = Batch { place: self.place, from: self.next, to, records: &[] };
        T::write(session, &batch).await?;
        self.next = to;
        Ok(())
    }
}

impl<T: Tables> Partition for PostgresPartition<T> {
    fn start(&self) -> i64 {
        self.next
    }

    async fn write(&mut self, batch: &[Received]) -> Result<(), Failure> {
        // A try after a bisection was cut short: what precedes `next` is done.
        let done = batch.partition_point(|record| record.offset() < self.next);
        self.transact_or_bisect(&batch[done..]).await
    }
}

async fn read_offset(client: &Client, sink: &str, place: Place) -> Result<Option<i64>, Failure> {
    let row = client.query_opt(OFFSET_READ, &[&sink, &place.topic.name, &place.partition]).await?;
    Ok(row.map(|row| row.get(0)))
}

fn no_answer() -> Failure {
    Failure::retry(format!("postgres: no answer in {} s", TRANSACTION_TIMEOUT.as_secs()))
}
