//! Reading changelogs of the model.

use anyhow::Result;
use machines::restore::Entry;
use stream::{Changelog, Changelogs};

use super::Context;
use crate::kafka::log::Header;

/// Records between two moments at which a reader can die.
const STRETCH: usize = 40;

/// A reader.
pub struct ModelChangelogs<'y> {
    /// Access to the world.
    pub context: Context<'y>,
}

impl Changelogs for ModelChangelogs<'_> {
    fn bounds(&self, log: &Changelog) -> Result<(i64, i64)> {
        self.context.request("bounds")?;
        let world = self.context.world.borrow();
        Ok((0, world.kafka.log(world.kafka.tp(&log.topic, log.partition)).stable()))
    }

    fn uncommitted_end(&self, log: &Changelog) -> Result<i64> {
        self.context.request("uncommitted end")?;
        let world = self.context.world.borrow();
        Ok(world.kafka.log(world.kafka.tp(&log.topic, log.partition)).end())
    }

    fn read(
        &self,
        log: &Changelog,
        from: i64,
        end: i64,
        mut visit: impl FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        if from >= end {
            return Ok(());
        }
        self.context.request("read changelog")?;
        let records: Vec<_> = {
            let world = self.context.world.borrow();
            let log = world.kafka.log(world.kafka.tp(&log.topic, log.partition));
            log.committed(from, end).map(|(entry, record)| (entry.offset, record.clone())).collect()
        };
        for (index, (offset, record)) in records.iter().enumerate() {
            if index % STRETCH == STRETCH - 1 {
                self.context.step("read changelog on");
                self.context.pause(300);
            }
            let batch = match &record.header {
                Header::Batch(batch) => Some(&batch[..]),
                _ => None,
            };
            let key = record.key.as_deref().unwrap_or_default();
            visit(Entry { offset: *offset, key, value: record.value.as_deref(), batch })?;
        }
        Ok(())
    }
}
