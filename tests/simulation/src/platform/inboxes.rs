//! A group member's inboxes in the model: records become visible some time after they are stable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use machines::TaskId;
use stream::{Inbox, Inboxes, Incoming, Rebalance, Stopped};

use super::Context;
use crate::kafka::client::{Client, Note};
use crate::kafka::group::Proof;
use crate::kafka::{Kafka, Tp};
use crate::world::Event;

struct Reading {
    topic: &'static str,
    outcome: bool,
    position: i64,
    /// Fetched up to here.
    fetched: i64,
}

/// A member.
pub struct ModelInboxes<'y> {
    context: Context<'y>,
    client: u64,
    reading: RefCell<BTreeMap<Tp, Reading>>,
    fetches_at: Cell<u64>,
    turn: Cell<usize>,
    proof: RefCell<Option<Proof>>,
}

impl<'y> ModelInboxes<'y> {
    /// Joins the group.
    pub fn join(context: Context<'y>) -> Self {
        let mut world = context.world.borrow_mut();
        let client = world.id();
        let (process, life) = context.home;
        let instance = format!("{}.{}", world.processes[process].instance, context.thread);
        world.clients.insert(client, (Client::new(&instance), process, life));
        let after = world.chance.between(1_000, 20_000);
        world.schedule(after, Event::Member(client));
        drop(world);
        Self {
            context,
            client,
            reading: RefCell::default(),
            fetches_at: Cell::new(0),
            turn: Cell::new(0),
            proof: RefCell::default(),
        }
    }

    fn fetch(&self) {
        let mut world = self.context.world.borrow_mut();
        if world.now < self.fetches_at.get() || !world.online() {
            return;
        }
        let after = world.chance.between(500, 12_000);
        self.fetches_at.set(world.now + after);
        for (tp, reading) in self.reading.borrow_mut().iter_mut() {
            reading.fetched = world.kafka.log(*tp).stable();
        }
    }

    fn with_client<T>(&self, act: impl FnOnce(&mut Client, &mut Kafka) -> T) -> T {
        let mut world = self.context.world.borrow_mut();
        let world = &mut *world;
        let (client, ..) = world.clients.get_mut(&self.client).expect("lives as its process");
        act(client, &mut world.kafka)
    }
}

impl Inboxes for ModelInboxes<'_> {
    type Group = Proof;

    fn next(&self, inbox: Inbox, mut take: impl FnMut(Incoming<'_>) -> Result<()>) -> Result<bool> {
        if inbox == Inbox::Commands && self.with_client(|client, _| client.fenced) {
            self.context.world.borrow_mut().coverage.hit("member fenced");
            bail!(Stopped("another process has this instance id".into()));
        }
        self.fetch();
        let found = {
            let world = self.context.world.borrow();
            let mut reading = self.reading.borrow_mut();
            let (outcomes, turn) = (inbox == Inbox::Outcomes, self.turn.get());
            let ready = |(tp, reading): (&Tp, &mut Reading)| {
                if reading.outcome != outcomes || reading.position >= reading.fetched {
                    return None;
                }
                let log = world.kafka.log(*tp);
                match log.next_committed(reading.position, reading.fetched) {
                    None => {
                        reading.position = reading.fetched;
                        None
                    }
                    Some((entry, record)) => {
                        reading.position = entry.offset + 1;
                        Some((*tp, reading.topic, entry.offset, entry.at, Rc::clone(record)))
                    }
                }
            };
            // Partitions in turn.
            let count = reading.len().max(1);
            let first: Vec<Tp> = reading.keys().copied().skip(turn % count).collect();
            let rest: Vec<Tp> = reading.keys().copied().take(turn % count).collect();
            first.iter().chain(&rest).find_map(|tp| ready((tp, reading.get_mut(tp)?)))
        };
        let Some((tp, topic, offset, appended_at, record)) = found else { return Ok(false) };
        if offset % 3 == 0 {
            self.turn.set(self.turn.get() + 1);
        }
        take(Incoming {
            topic,
            partition: i32::from(tp.partition),
            offset,
            appended_at,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &Vec::new,
        })?;
        Ok(true)
    }

    fn rebalances(&self) -> Vec<Rebalance> {
        self.with_client(|client, kafka| {
            let names = |tps: &BTreeSet<Tp>| -> Vec<(String, i32)> {
                tps.iter().map(|tp| (kafka.topic(*tp).into(), i32::from(tp.partition))).collect()
            };
            let mut changes = Vec::new();
            for (note, proof) in client.notes() {
                changes.push(match note {
                    Note::Assigned(tps) => Rebalance::Assigned(names(&tps)),
                    Note::Revoked(tps) => Rebalance::Revoked(names(&tps)),
                });
                self.proof.replace(Some(proof));
            }
            changes
        })
    }

    fn assign<'a>(
        &self,
        tasks: impl Iterator<Item = (TaskId, &'a BTreeMap<String, i64>)>,
    ) -> Result<()> {
        self.context.step("assign");
        for (task, positions) in tasks {
            for topic in task.processor.inboxes() {
                let tp = self.context.world.borrow().kafka.tp(topic, task.partition);
                let position = positions.get(topic).copied().unwrap_or(0);
                let outcome = topic != task.processor.commands;
                let reading = Reading { topic, outcome, position, fetched: position };
                self.reading.borrow_mut().insert(tp, reading);
            }
        }
        self.with_client(|client, _| client.assigned());
        Ok(())
    }

    fn unassign(&self, tasks: impl Iterator<Item = TaskId>) -> Result<()> {
        self.context.step("unassign");
        for task in tasks {
            for topic in task.processor.inboxes() {
                let tp = self.context.world.borrow().kafka.tp(topic, task.partition);
                self.reading.borrow_mut().remove(&tp);
            }
        }
        self.with_client(|client, kafka| client.unassigned(&mut kafka.group));
        Ok(())
    }

    fn group(&self) -> Result<Proof> {
        self.proof.borrow().clone().context("not a member of the group")
    }

    fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        self.context.request("committed offset")?;
        let world = self.context.world.borrow();
        let tp = world.kafka.tp(topic, partition);
        Ok(world.kafka.group.offsets.get(&tp).copied())
    }

    fn unsubscribe(&self) {
        self.context.step("unsubscribe");
        self.with_client(|client, _| client.unsubscribe());
    }
}
