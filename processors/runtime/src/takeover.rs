//! Taking over a partition: fence the last owner, wait for what it left open, restore, find the
//! positions. What follows is the task's first transaction, which names the new owner in the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use events::{Millis, topics};
use machines::TaskId;
use machines::footer::Footer;
use machines::task::Start;
use rdkafka::consumer::BaseConsumer;

use crate::commit::{fence, transactional_id};
use crate::inbox::{Inboxes, Member, STOP};
use crate::restore::{Changelog, Reader, uncommitted_end, usable};
use crate::store::{Meta, Store, Stores};

/// Longest wait for a transaction that nobody could be fenced out of: its time-out, the broker's
/// sweep interval, and room.
const OPEN_TRANSACTION: Duration = Duration::from_secs(30);

/// What takeovers of a stream thread need.
pub struct Takeover {
    member: Member,
    stores: Stores,
    reader: Reader,
    /// Reads uncommitted: `fetch_watermarks` answers by its client's isolation level.
    probe: BaseConsumer,
}

impl Takeover {
    /// Connects.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn connect(member: &Member, stores: Stores) -> Result<Self> {
        let reader = Reader::connect(&member.brokers, &member.instance)?;
        let probe = wire::client::assigned_consumer(&member.brokers, &member.instance)
            .set("isolation.level", "read_uncommitted")
            .create()?;
        Ok(Self { member: member.clone(), stores, reader, probe })
    }

    /// Restores a task's state and says where it goes on.
    ///
    /// # Errors
    /// With [`STOP`] in front when an operator must decide; else worth another try.
    pub fn take(&self, task: TaskId, inboxes: &Inboxes) -> Result<(Store, Start)> {
        let log =
            Changelog { topic: topics::changelog(task.processor.name), partition: task.partition };
        let me = transactional_id(&self.member);
        if let Some((_, footer)) = self.reader.last_footer(&log)?
            && !footer.released
            && footer.owner != me
        {
            tracing::info!(task = %task, owner = footer.owner, "fencing the last owner");
            fence(&self.member, &footer.owner)?;
        }
        self.wait_until_stable(&log)?;
        let footer = self.reader.last_footer(&log)?;
        let positions = self.positions(task, footer.as_ref().map(|(_, f)| f), inboxes)?;
        let store = self.stores.open(&task.to_string())?;
        let (low, end) = self.reader.bounds(&log)?;
        if !usable(&store, footer.as_ref().map(|(_, f)| f), low, end)? {
            tracing::info!(task = %task, "state store does not fit its changelog: emptied");
            store.clear()?;
        }
        let Some(footer) = footer else {
            return Ok((store, self.first(positions, me)));
        };
        let repairs = self.reader.restore(&log, &store, &footer)?;
        let footer = footer.1;
        let start = Start {
            term: footer.term,
            sequence: footer.sequence,
            positions,
            now: footer.now,
            store_id: footer.store_id,
            owner: me,
            repairs,
        };
        Ok((store, start))
    }

    fn first(&self, positions: BTreeMap<String, i64>, owner: String) -> Start {
        Start {
            term: 0,
            sequence: 0,
            positions,
            now: Millis(0),
            store_id: uuid::Uuid::new_v4().to_string(),
            owner,
            repairs: vec![],
        }
    }

    fn wait_until_stable(&self, log: &Changelog) -> Result<()> {
        let end = uncommitted_end(&self.probe, log)?;
        let began = Instant::now();
        loop {
            let (_, stable) = self.reader.bounds(log)?;
            if stable >= end {
                return Ok(());
            }
            ensure!(
                began.elapsed() < OPEN_TRANSACTION,
                "{}-{} has an open transaction at {stable}",
                log.topic,
                log.partition
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn positions(
        &self,
        task: TaskId,
        footer: Option<&Footer>,
        inboxes: &Inboxes,
    ) -> Result<BTreeMap<String, i64>> {
        let mut positions = BTreeMap::new();
        for inbox in task.processor.inboxes() {
            let log = Changelog { topic: inbox.to_string(), partition: task.partition };
            let (start, _) = self.reader.bounds(&log)?;
            let position = match footer.map(|footer| footer.positions.get(inbox)) {
                Some(Some(position)) => *position,
                // A processor that gained an inbox reads it from its start.
                Some(None) => start,
                None if inboxes.committed(inbox, task.partition)?.is_some() => bail!(
                    "{STOP}: {task} has committed offsets but no changelog: its state is lost"
                ),
                None => start,
            };
            ensure!(
                position >= start,
                "{STOP}: {inbox}-{} begins at {start}, behind position {position}: records lost",
                task.partition
            );
            positions.insert(inbox.to_string(), position);
        }
        Ok(positions)
    }
}

/// The meta that a store carries after a committed batch.
pub fn meta(position: i64, footer: Footer) -> Meta {
    Meta { position, footer, restoring: false }
}
