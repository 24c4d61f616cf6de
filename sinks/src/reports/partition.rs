//! A partition assigned to reports: plan, insert, next plan.

use clickhouse::Client;
use wire::telemetry::SINK_ROWS;

use super::NAME;
use super::insert;
use super::plan::{self, Block, Plan, RowAt};
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::intake::Received;
use crate::deliver::log::{self, Committed, Log};
use crate::deliver::{Partition, Place};
use crate::retry::{Failure, Verdict};

/// An assigned partition.
pub(crate) struct ReportsPartition {
    client: Client,
    place: Place,
    log: Log,
    dead_letters: DeadLetters,
    /// The next offset to plan, or the first one of `planned`.
    next: i64,
    /// A plan that is committed, and inserted in part, in whole or not at all.
    planned: Option<Plan>,
    /// Blocks of the plan that are in.
    inserted: usize,
    /// Whether the group's offset lags behind `next`.
    unsettled: bool,
}

impl ReportsPartition {
    pub(super) async fn open(
        client: Client,
        place: Place,
        log: Log,
        dead_letters: DeadLetters,
    ) -> Result<Self, Failure> {
        let committed = log.committed(place).await?;
        let bounds = log.bounds(place).await?;
        let next = log::start(place, committed.as_ref().map(|c| c.offset), bounds)?;
        let planned = match &committed {
            Some(Committed { offset, metadata }) => {
                Plan::parse(*offset, metadata).map_err(Failure::stop)?
            }
            None => None,
        };
        if let Some(Plan { first, last, .. }) = planned {
            tracing::info!(%place, first, last, "takes up a plan that was begun");
        }
        let inserted = 0;
        let unsettled = false;
        Ok(Self { client, place, log, dead_letters, next, planned, inserted, unsettled })
    }

    /// Commits the plan, unless it is the one that is committed already.
    async fn plan(&mut self, batch: &[Received]) -> Result<Plan, Failure> {
        let plan = Plan::of(batch).ok_or_else(|| Failure::stop("an empty batch: a bug"))?;
        match &self.planned {
            Some(planned) if *planned == plan => {}
            Some(planned) => {
                return Err(Failure::stop(format!(
                    "{} holds other records than the plan {}-{}: was the topic made anew?",
                    self.place, planned.first, planned.last
                )));
            }
            None => {
                let to = Committed { offset: plan.first, metadata: plan.metadata() };
                self.log.commit(self.place, to).await?;
                self.planned = Some(plan.clone());
                self.inserted = 0;
            }
        }
        Ok(plan)
    }

    /// Inserts a block; where rows are at fault, halves it until they are found and put aside.
    async fn insert(
        &self,
        plan: &Plan,
        block: &Block,
        batch: &[Received],
    ) -> Result<usize, Failure> {
        let mut todo: Vec<&[RowAt]> = vec![&block.rows];
        let mut count = 0;
        while let Some(rows) = todo.pop() {
            let token = plan.token(self.place, block, rows);
            match insert::block(&self.client, block.table, &token, block.bytes(rows)).await {
                Ok(()) => count += rows.len(),
                Err(failure) if failure.verdict == Verdict::DeadLetter => match rows {
                    [one] => {
                        let raw = &batch[one.record].raw;
                        self.dead_letters.put(raw, "insert", &failure.reason).await?;
                    }
                    _ => {
                        let (first, second) = rows.split_at(rows.len() / 2);
                        todo.extend([second, first]);
                    }
                },
                Err(failure) => return Err(failure),
            }
        }
        Ok(count)
    }
}

impl Partition for ReportsPartition {
    fn start(&self) -> i64 {
        self.next
    }

    fn planned_last(&self) -> Option<i64> {
        self.planned.as_ref().map(|plan| plan.last)
    }

    async fn write(&mut self, batch: &[Received]) -> Result<(), Failure> {
        let plan = self.plan(batch).await?;
        let blocks = plan::blocks(self.place.partition, batch);
        for block in blocks.iter().skip(self.inserted) {
            let rows = self.insert(&plan, block, batch).await?;
            let rows = u64::try_from(rows).expect("a batch is small");
            SINK_ROWS.with_label_values(&[NAME, block.table.name]).inc_by(rows);
            self.inserted += 1;
        }
        // The next plan's commit says that this one is in; `settle` does where there is none.
        self.next = plan.last + 1;
        self.planned = None;
        self.unsettled = true;
        Ok(())
    }

    async fn settle(&mut self) {
        if !self.unsettled {
            return;
        }
        let to = Committed { offset: self.next, metadata: String::new() };
        match self.log.commit(self.place, to).await {
            Ok(()) => self.unsettled = false,
            // Whoever comes next inserts the plan once more, and ClickHouse ignores it.
            Err(failure) => tracing::debug!(place = %self.place, %failure, "not settled"),
        }
    }
}
