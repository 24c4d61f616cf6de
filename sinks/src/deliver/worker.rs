//! One partition, in order: open, collect, write, for ever.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use events::Record;
use tokio::sync::{oneshot, watch};
use wire::telemetry::{RECORDS_PROCESSED, STATUS_AGE_SECONDS};

use super::dead_letters::DeadLetters;
use super::health::{Health, Progress};
use super::intake::{Intake, Polled, Received};
use super::log::Log;
use super::member::Start;
use super::{Partition, Place, Sink};
use crate::batch::{Due, Last, Limits};
use crate::retry::{Backoff, Failure, Verdict};

/// Records decoded without letting other tasks in.
const UNINTERRUPTED: usize = 256;

/// What a worker is given.
pub(crate) struct Task {
    pub(crate) sink: &'static str,
    pub(crate) place: Place,
    pub(crate) log: Log,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) health: Health,
    pub(crate) progress: Arc<Progress>,
    pub(crate) starts: mpsc::Sender<Start>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Why a worker leaves what it is doing.
enum Leave {
    /// It was told to.
    Stopped,
    /// Where the partition starts must be read anew.
    Reopen,
    /// Nothing but a person can help.
    Halted(String),
}

/// Serves a partition until it is told to stop.
pub(crate) async fn serve<S: Sink>(sink: Arc<S>, mut task: Task) {
    let mut intake = None;
    loop {
        let Err(leave) = round(&*sink, &mut task, &mut intake).await;
        match leave {
            Leave::Stopped => return,
            Leave::Reopen => {}
            Leave::Halted(reason) => {
                let (sink, place) = (sink.name(), task.place);
                tracing::error!(sink, %place, reason, "the partition stands still: see to it");
                task.health.problem(&place.to_string(), &format!("stopped: {reason}"));
                told(&mut task.stop).await;
                return;
            }
        }
    }
}

/// From opening to the first failure that waiting doesn't mend.
async fn round<S: Sink>(
    sink: &S,
    task: &mut Task,
    intake: &mut Option<Intake>,
) -> Result<Infallible, Leave> {
    let mut backoff = Backoff::default();
    let partition = loop {
        let opening = sink.open(task.place, &task.log, &task.dead_letters);
        match unless(&mut task.stop, opening).await? {
            Ok(partition) => break partition,
            Err(failure) => task.suffer(failure, &mut backoff).await?,
        }
    };
    let start = partition.start();
    loop {
        let moved = match intake {
            None => {
                *intake = Some(task.start(start).await?);
                break;
            }
            Some(intake) => task.log.seek(task.place, start).await.map(|()| intake.restart(start)),
        };
        match moved {
            Ok(()) => break,
            Err(failure) => task.suffer(failure, &mut backoff).await?,
        }
    }
    task.well(&mut backoff);
    let intake = intake.as_mut().expect("it was just made");
    let limits = sink.limits();
    let batch = Batch::default();
    let mut worker = Worker { task, intake, partition, limits, backoff, batch, ended: false };
    worker.run().await
}

/// What is collected.
#[derive(Default)]
struct Batch {
    records: Vec<Received>,
    bytes: usize,
    /// How many of the rejected ones are dead letters already.
    put_aside: usize,
    /// When the last batch began to be written, and how long that took.
    last: Option<(Instant, Duration)>,
}

struct Worker<'a, P> {
    task: &'a mut Task,
    intake: &'a mut Intake,
    partition: P,
    limits: Limits,
    backoff: Backoff,
    batch: Batch,
    /// The log's end was reached, and nothing has come since.
    ended: bool,
}

impl<P: Partition> Worker<'_, P> {
    async fn run(&mut self) -> Result<Infallible, Leave> {
        loop {
            self.collect().await?;
            if self.ended && self.batch.records.is_empty() {
                self.ended = false;
                self.task.progress.caught_up(true);
            }
            let due = self.due();
            if due == Due::Now {
                self.flush().await?;
                continue;
            }
            let mut stop = self.task.stop.clone();
            let wait = async {
                match due {
                    Due::In(left) => tokio::time::sleep(left).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = told(&mut stop) => {
                    self.finish().await;
                    return Err(Leave::Stopped);
                }
                () = wait => {}
                () = self.intake.nonempty() => {}
            }
        }
    }

    /// Takes what the queue holds, up to a full batch.
    async fn collect(&mut self) -> Result<(), Leave> {
        let mut taken = 0;
        while !self.limits.full(self.batch.records.len(), self.batch.bytes) {
            match self.intake.poll() {
                Ok(Polled::Record(record)) => self.take(*record),
                Ok(Polled::Unknown(id)) => match self.intake.learn(id).await {
                    Ok(rejected) => rejected.into_iter().for_each(|record| self.take(record)),
                    Err(failure) => self.task.suffer(failure, &mut self.backoff).await?,
                },
                Ok(Polled::End) => self.ended = true,
                Ok(Polled::Empty) => break,
                Err(failure) => self.task.suffer(failure, &mut self.backoff).await?,
            }
            taken += 1;
            if taken % UNINTERRUPTED == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn take(&mut self, record: Received) {
        self.ended = false;
        if self.batch.records.is_empty() {
            self.task.progress.waiting_since(record.appended_at());
        }
        self.task.progress.caught_up(false);
        self.batch.bytes += record.len();
        self.batch.records.push(record);
    }

    fn due(&self) -> Due {
        let last = self.batch.last.map(|(began, took)| Last { since: began.elapsed(), took });
        self.limits.due(self.batch.records.len(), self.batch.bytes, last)
    }

    /// Writes the batch, however long it takes.
    async fn flush(&mut self) -> Result<(), Leave> {
        let began = Instant::now();
        loop {
            let tried = Instant::now();
            match self.attempt().await {
                Ok(()) => {
                    self.batch.last = Some((began, tried.elapsed()));
                    break;
                }
                Err(failure) => self.task.suffer(failure, &mut self.backoff).await?,
            }
        }
        self.task.well(&mut self.backoff);
        Ok(())
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let records = &self.batch.records;
        let rejected = records.iter().filter_map(|r| Some((&r.raw, r.body.as_ref().err()?)));
        for (raw, reason) in rejected.skip(self.batch.put_aside) {
            self.task.dead_letters.put(raw, "decode", reason).await?;
            self.batch.put_aside += 1;
        }
        self.partition.write(records).await?;
        let last = records.last().expect("a batch that is due holds records");
        let count = u64::try_from(records.len()).expect("a batch is small");
        RECORDS_PROCESSED.with_label_values(&[self.task.place.topic.name]).inc_by(count);
        observe_age(self.task.sink, records);
        self.task.progress.written(last.offset() + 1);
        self.task.progress.waiting_since(last.appended_at());
        self.batch.records.clear();
        self.batch.bytes = 0;
        self.batch.put_aside = 0;
        Ok(())
    }

    /// One last try for what is collected; if it fails, the next owner does it.
    async fn finish(&mut self) {
        if !self.batch.records.is_empty()
            && let Err(failure) = self.attempt().await
        {
            tracing::info!(place = %self.task.place, %failure, "left to the next owner");
        }
    }
}

/// How long after each change of a status the sink has stored it.
fn observe_age(sink: &str, records: &[Received]) {
    let now = super::now();
    let age = STATUS_AGE_SECONDS.with_label_values(&[sink]);
    for body in records.iter().filter_map(|record| record.body.as_ref().ok()) {
        if let Record::OrderStatusChanged(status) = &body.record {
            age.observe(super::seconds(status.occurred_at, now));
        }
    }
}

impl Task {
    /// Waits as the failure asks; leaves where waiting doesn't help.
    async fn suffer(&mut self, failure: Failure, backoff: &mut Backoff) -> Result<(), Leave> {
        let place = self.place;
        if matches!(failure.verdict, Verdict::Stop | Verdict::DeadLetter) {
            return Err(Leave::Halted(failure.reason));
        }
        if backoff.fresh() {
            tracing::warn!(%place, %failure, "held back, will try again");
        } else {
            tracing::debug!(%place, %failure, "still held back");
        }
        self.health.problem(&place.to_string(), &failure.reason);
        let wait = backoff.next();
        unless(&mut self.stop, tokio::time::sleep(wait)).await?;
        match failure.verdict {
            Verdict::Reopen => Err(Leave::Reopen),
            _ => Ok(()),
        }
    }

    /// Something worked.
    fn well(&self, backoff: &mut Backoff) {
        if !backoff.fresh() {
            tracing::info!(place = %self.place, "goes on");
        }
        backoff.reset();
        self.health.solved(&self.place.to_string());
    }

    /// Has the partition fetched from an offset on.
    async fn start(&mut self, offset: i64) -> Result<Intake, Leave> {
        let (reply, answer) = oneshot::channel();
        let start = Start { place: self.place, offset, reply };
        if self.starts.send(start).is_err() {
            return Err(Leave::Stopped);
        }
        let answer = unless(&mut self.stop, answer).await?;
        answer.map_err(|_| Leave::Stopped)
    }
}

/// Returns when the worker is told to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The outcome of `future`, unless the worker is told to stop before.
async fn unless<T>(
    stop: &mut watch::Receiver<bool>,
    future: impl Future<Output = T>,
) -> Result<T, Leave> {
    tokio::select! {
        biased;
        () = told(stop) => Err(Leave::Stopped),
        outcome = future => Ok(outcome),
    }
}
