//! A partition assigned to reports: insert, commit the offset, next batch.

use std::collections::BTreeSet;

use clickhouse::Client;
use wire::telemetry::SINK_ROWS;

use super::NAME;
use super::blocks::{self, Block, RowAt};
use super::insert;
use crate::deliver::dead_letters::DeadLetters;
use crate::deliver::intake::Received;
use crate::deliver::log::{self, Log};
use crate::deliver::{Partition, Place};
use crate::retry::{Failure, Verdict};

/// An assigned partition.
pub(crate) struct ReportsPartition {
    client: Client,
    place: Place,
    log: Log,
    dead_letters: DeadLetters,
    start: i64,
    /// Blocks of the batch at hand that are in.
    inserted: usize,
    /// Records of the batch that a table refused: no later table takes them.
    put_aside: BTreeSet<usize>,
}

impl ReportsPartition {
    pub(super) async fn open(
        client: Client,
        place: Place,
        log: Log,
        dead_letters: DeadLetters,
    ) -> Result<Self, Failure> {
        let committed = log.committed(place).await?;
        let start = log::start(place, committed, log.bounds(place).await?)?;
        let (inserted, put_aside) = (0, BTreeSet::new());
        Ok(Self { client, place, log, dead_letters, start, inserted, put_aside })
    }

    /// Inserts a block; where rows are at fault, halves it until they are found and put aside.
    async fn insert(&mut self, block: &Block, batch: &[Received]) -> Result<usize, Failure> {
        let wanted = block.rows.split(|row| self.put_aside.contains(&row.record));
        let mut todo: Vec<&[RowAt]> = wanted.filter(|rows| !rows.is_empty()).collect();
        let mut count = 0;
        while let Some(rows) = todo.pop() {
            match insert::rows(&self.client, block.table, block.bytes(rows)).await {
                Ok(()) => count += rows.len(),
                Err(failure) if failure.verdict == Verdict::DeadLetter => match rows {
                    [one] => {
                        let raw = &batch[one.record].raw;
                        self.dead_letters.put(raw, "insert", &failure.reason).await?;
                        self.put_aside.insert(one.record);
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
        self.start
    }

    async fn write(&mut self, batch: &[Received]) -> Result<(), Failure> {
        let Some(last) = batch.last() else { return Ok(()) };
        let blocks = blocks::blocks(self.place.partition, batch);
        for block in blocks.iter().skip(self.inserted) {
            let rows = self.insert(block, batch).await?;
            let rows = u64::try_from(rows).expect("a batch is small");
            SINK_ROWS.with_label_values(&[NAME, block.table.name]).inc_by(rows);
            self.inserted += 1;
        }
        self.log.commit(self.place, last.offset() + 1).await?;
        self.inserted = 0;
        self.put_aside.clear();
        Ok(())
    }
}
