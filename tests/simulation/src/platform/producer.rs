//! A transactional producer in the model. `commit` plays what librdkafka does behind the caller's
//! back: an EndTxn that is late is sent again, and the late one still arrives some day.

use std::rc::Rc;

use anyhow::{Result, bail};
use events::topics;
use stream::{Outgoing, OutgoingHeader, Producer};

use super::Context;
use crate::kafka::Refused;
use crate::kafka::group::Proof;
use crate::kafka::log::{Header, Record};
use crate::kafka::producer::Queued;
use crate::world::{Event, World};

/// A producer.
pub struct ModelProducer<'y> {
    pub(super) context: Context<'y>,
    pub(super) id: u64,
}

/// What becomes of a commit's first request.
enum First {
    /// It is answered.
    Answered,
    /// It is late: sent again, and arrives after so many microseconds.
    Late(u64),
    /// The caller never hears of it; it arrives after so many microseconds, if at all.
    Unknown(Option<u64>),
}

impl ModelProducer<'_> {
    fn with<T>(&self, act: impl FnOnce(&mut crate::kafka::producer::Producer) -> T) -> T {
        let mut world = self.context.world.borrow_mut();
        act(world.producers.get_mut(&self.id).expect("lives as its process"))
    }

    fn first(&self) -> First {
        let mut world = self.context.world.borrow_mut();
        if !world.faulty {
            return First::Answered;
        }
        let draw = world.chance.below(1_000);
        let (late, unknown) = (world.plan.late_commits, world.plan.unknown_commits);
        if draw < late {
            world.fault("commit sent twice");
            let most = *world.chance.pick(&[100_000, 900_000, 5_000_000]);
            First::Late(world.chance.between(1_000, most))
        } else if draw < late + unknown {
            world.fault("commit with unknown outcome");
            let arrives = world.chance.per_mille(700);
            let most = *world.chance.pick(&[5_000, 2_000_000]);
            First::Unknown(arrives.then(|| world.chance.between(500, most)))
        } else {
            First::Answered
        }
    }

    /// Sends an EndTxn; the ticket under which its answer is found.
    fn send_end(&self, after: u64) -> u64 {
        let (id, (_, epoch)) = self.with(|producer| (producer.id.clone(), producer.owner));
        let mut world = self.context.world.borrow_mut();
        let ticket = world.id();
        world.schedule(after, Event::EndTxn { id, epoch, ticket });
        ticket
    }

    fn draw(&self, low: u64, high: u64) -> u64 {
        self.context.world.borrow_mut().chance.between(low, high)
    }
}

impl Producer for ModelProducer<'_> {
    type Group = Proof;

    fn begin(&mut self) -> Result<()> {
        self.context.step("begin");
        self.with(|producer| producer.begin());
        Ok(())
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<()> {
        self.context.step(if record.footer.is_some() { "send footer" } else { "send" });
        let mut world = self.context.world.borrow_mut();
        let partitions = i32::from(world.kafka.partitions);
        let key = record.key.unwrap_or_default();
        let partition = record.partition.unwrap_or_else(|| topics::partition_for(key, partitions));
        let tp = world.kafka.tp(record.topic, partition);
        let header = match record.header {
            OutgoingHeader::Origin(origin) => Header::Origin(origin.into()),
            OutgoingHeader::Batch(batch) => Header::Batch(*batch),
            OutgoingHeader::Rejected(_, rejected) => {
                let source = rejected.source;
                Header::Rejected(source.topic, source.partition, source.offset, rejected.stage)
            }
        };
        let key = record.key.map(<[u8]>::to_vec);
        let value = record.value.map(<[u8]>::to_vec);
        let queued =
            Queued { tp, record: Rc::new(Record { key, value, header }), footer: record.footer };
        let producer = world.producers.get_mut(&self.id).expect("lives as its process");
        producer.queue.push_back(queued);
        if producer.queue.len() == 1 {
            world.schedule(5_000, Event::Deliver(self.id));
        }
        Ok(())
    }

    fn hurry(&mut self) {
        let after = self.draw(100, 2_500);
        self.context.world.borrow_mut().schedule(after, Event::Deliver(self.id));
    }

    fn drained(&mut self) -> Result<bool> {
        self.context.step("drained");
        match self.with(|producer| producer.failed.take()) {
            Some(reason) => bail!("a record was not delivered: {reason}"),
            None => Ok(self.with(|producer| producer.queue.is_empty())),
        }
    }

    fn footers(&mut self) -> Vec<(usize, i64)> {
        self.with(|producer| std::mem::take(&mut producer.footers))
    }

    fn send_offsets(&mut self, offsets: &[(&str, i32, i64)], group: Proof) -> Result<()> {
        loop {
            self.context.request("send offsets")?;
            let mut world = self.context.world.borrow_mut();
            match add_offsets(&mut world, self.id, offsets, &group) {
                Ok(()) => break,
                Err(Refused::Concurrent) => {}
                Err(refused) => {
                    world.fault(&format!("offsets refused: {refused}"));
                    bail!(refused);
                }
            }
            drop(world);
            self.context.pause(5_000);
        }
        self.context.step("offsets sent");
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.context.step("commit");
        match self.first() {
            First::Answered => {}
            First::Late(after) => {
                self.send_end(after);
                // `retry.backoff.ms` is 500, less a fifth of jitter.
                self.context.pause(self.draw(401_000, 1_500_000));
            }
            First::Unknown(after) => {
                if let Some(after) = after {
                    self.send_end(after);
                }
                self.context.pause(self.draw(1_000, 1_500_000));
                bail!("commit timed out");
            }
        }
        loop {
            let ticket = self.send_end(self.draw(200, 3_000));
            let answer = loop {
                self.context.pause(self.draw(300, 3_500));
                if let Some(answer) = self.context.world.borrow_mut().tickets.remove(&ticket) {
                    break answer;
                }
            };
            match answer {
                Ok(()) => break,
                Err(Refused::Concurrent) => self.context.pause(20_000),
                Err(refused) => bail!(refused),
            }
        }
        self.context.step("committed");
        Ok(())
    }
}

/// AddOffsetsToTxn and TxnOffsetCommit.
fn add_offsets(
    world: &mut World,
    producer: u64,
    offsets: &[(&str, i32, i64)],
    proof: &Proof,
) -> Result<(), Refused> {
    let now = world.now;
    let producer = &world.producers[&producer];
    let (id, (_, epoch)) = (producer.id.clone(), producer.owner);
    world.kafka.coordinator.join(&id, epoch, None, now)?;
    world.kafka.group.admit(proof)?;
    let offsets: Vec<_> =
        offsets.iter().map(|(topic, p, offset)| (world.kafka.tp(topic, *p), *offset)).collect();
    let txn = world.kafka.coordinator.txns.get_mut(&id).expect("joined above");
    txn.offsets.extend(offsets);
    Ok(())
}
