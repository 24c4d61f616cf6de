//! The platform that the real stream thread runs on in the simulation. Every call takes simulated
//! time, may fail, and is a moment at which its process can die.

mod changelogs;
mod inboxes;
mod producer;

use std::time::Duration;

use anyhow::{Result, bail};
use corosensei::Yielder;
use events::{Codec, Millis, PaymentStep};
use machines::topology::Processor;
use machines::{Call, CallKind, PaymentCall, TaskId};
use stream::{Learned, Live, Observed, Platform};

use crate::journal::{RowChange, hex};
use crate::kafka::Refused;
use crate::kafka::producer::Producer;
use crate::store::ModelStore;
use crate::world::Shared;
pub use changelogs::ModelChangelogs;
pub use inboxes::ModelInboxes;
pub use producer::ModelProducer;

/// Why a simulated thread yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yield {
    /// It goes on at this moment, microseconds.
    Until(u64),
    /// Its process dies here.
    Dies,
}

/// Longest that a request waits for brokers, microseconds.
const PATIENCE: u64 = 10_000_000;
/// Longest wait for a store that another thread has, microseconds.
const LOAN: u64 = 15_000_000;

/// One simulated thread's access to the world.
#[derive(Clone)]
pub struct Context<'y> {
    /// The world.
    pub world: Shared,
    /// How it lets time pass.
    pub yielder: &'y Yielder<(), Yield>,
    /// Its process and that one's life.
    pub home: (usize, u64),
    /// Its number in the process.
    pub thread: usize,
}

impl Context<'_> {
    /// Lets time pass.
    fn pause(&self, time: u64) {
        let until = self.world.borrow().now + time;
        self.yielder.suspend(Yield::Until(until));
    }

    /// A moment at which the process can die: before and after everything that leaves the core.
    fn step(&self, what: &'static str) {
        let dies = {
            let mut world = self.world.borrow_mut();
            world.steps += 1;
            let steps = world.steps;
            let planned = world.plan.crash_at.contains(&steps);
            let process = &mut world.processes[self.home.0];
            let counted = match &mut process.dies_in {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            if planned || counted {
                process.dies_in = None;
                world.coverage.hit(&format!("died at: {what}"));
                world.coverage.hit("process killed at a call");
                world.note(|| format!("p{}", self.home.0), || format!("dies at {what}"));
            }
            planned || counted
        };
        if dies {
            self.yielder.suspend(Yield::Dies);
        }
    }

    /// A request to the brokers: waits for them, takes time, may time out.
    fn request(&self, what: &'static str) -> Result<()> {
        self.step(what);
        let began = self.world.borrow().now;
        loop {
            let (now, down_until) = {
                let world = self.world.borrow();
                (world.now, world.kafka.down_until)
            };
            if now >= down_until {
                break;
            }
            if now - began > PATIENCE {
                bail!("{what}: brokers do not answer");
            }
            self.pause((down_until - now).min(500_000) + 1_000);
        }
        let (time, lost) = {
            let mut world = self.world.borrow_mut();
            let lost = world.faulty && {
                let rate = world.plan.request_errors;
                world.chance.per_mille(rate)
            };
            (world.chance.between(100, 2_000), lost)
        };
        self.pause(time);
        if lost {
            self.world.borrow_mut().fault("request timed out");
            bail!("{what}: request timed out");
        }
        Ok(())
    }
}

/// The platform of one simulated thread.
pub struct ModelPlatform<'y> {
    /// Access to the world.
    pub context: Context<'y>,
}

impl<'y> Platform for ModelPlatform<'y> {
    type Producer = ModelProducer<'y>;
    type Inboxes = ModelInboxes<'y>;
    type Changelogs = ModelChangelogs<'y>;
    type Store = ModelStore;

    fn producer(&self, transactional_id: &str) -> Result<ModelProducer<'y>> {
        let began = self.context.world.borrow().now;
        loop {
            self.context.request("init transactions")?;
            let answer = {
                let mut world = self.context.world.borrow_mut();
                let (answer, markers) = world.kafka.coordinator.init(transactional_id);
                if let Some(markers) = markers {
                    world.coverage.hit("open transaction ended by init");
                    world.write_markers(markers);
                }
                answer
            };
            match answer {
                Ok(owner) => {
                    let mut world = self.context.world.borrow_mut();
                    let id = world.id();
                    let producer = Producer::new(transactional_id, owner, self.context.home);
                    world.producers.insert(id, producer);
                    drop(world);
                    self.context.step("init transactions done");
                    return Ok(ModelProducer { context: self.context.clone(), id });
                }
                Err(Refused::Concurrent) => {
                    if self.context.world.borrow().now - began > 3 * PATIENCE {
                        bail!("transactional producer is not ready");
                    }
                    self.context.pause(20_000);
                }
                Err(refused) => bail!(refused),
            }
        }
    }

    fn inboxes(&self, _processors: &[Processor]) -> Result<ModelInboxes<'y>> {
        self.context.step("join");
        Ok(ModelInboxes::join(self.context.clone()))
    }

    fn changelogs(&self) -> Result<ModelChangelogs<'y>> {
        Ok(ModelChangelogs { context: self.context.clone() })
    }

    fn store(&self, task: TaskId) -> Result<ModelStore> {
        self.context.step("open store");
        let disk = {
            let mut world = self.context.world.borrow_mut();
            let disks = &mut world.processes[self.context.home.0].disks;
            disks.entry(task.to_string()).or_default().clone()
        };
        let began = self.context.world.borrow().now;
        loop {
            // Two handles: the disk's own and this one.
            if let Some(store) = ModelStore::open(&disk, 2) {
                return Ok(store);
            }
            if self.context.world.borrow().now - began > LOAN {
                bail!("state store {task} stays locked");
            }
            self.context.world.borrow_mut().coverage.hit("store waited for");
            self.context.pause(20_000);
        }
    }

    fn store_id(&self) -> String {
        format!("store-{}", self.context.world.borrow_mut().id())
    }

    fn learn(&self, _codec: &mut Codec, schema_id: u32) -> Result<Learned> {
        Ok(Learned::NeverRegistered(format!("schema {schema_id} is not registered")))
    }

    fn call(&self, call: Call, live: &Live) {
        self.context.step(match call.kind {
            CallKind::Book { .. } => "call: book",
            CallKind::Void => "call: void",
        });
        let mut world = self.context.world.borrow_mut();
        world.make_call(call, self.context.home, live.clone());
    }

    fn pay(&self, call: PaymentCall, live: &Live) {
        self.context.step(match call.step {
            PaymentStep::Authorize => "call: authorize",
            PaymentStep::Capture => "call: capture",
            PaymentStep::Void => "call: void a payment",
            PaymentStep::Refund | PaymentStep::Unknown => "call: refund",
        });
        let mut world = self.context.world.borrow_mut();
        world.make_payment_call(call, self.context.home, live.clone());
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.context.world.borrow().now)
    }

    fn wall(&self) -> Millis {
        let world = self.context.world.borrow();
        world.wall().plus(world.processes[self.context.home.0].skew_ms)
    }

    fn sleep(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).expect("short");
        let late = {
            let mut world = self.context.world.borrow_mut();
            // Nobody wakes on time; an idle thread least of all, which keeps runs short.
            let idle = time == 1_000;
            let most = match (idle, world.faulty) {
                (false, _) => time / 4 + 200,
                (true, true) => 6_000,
                (true, false) => 20_000,
            };
            world.chance.below(most)
        };
        self.context.pause(time + late);
    }

    fn stopping(&self) -> bool {
        self.context.world.borrow().processes[self.context.home.0].stopping
    }

    fn observe(&self, observed: Observed<'_>) {
        let mut world = self.context.world.borrow_mut();
        let who = || format!("p{}.{}", self.context.home.0, self.context.thread);
        match observed {
            Observed::Applied(transaction) => {
                for violation in &transaction.violations {
                    let (invariant, detail) = (violation.invariant, &violation.detail);
                    world.failures.push(format!("{invariant}: {detail}"));
                }
                world.coverage.hit("batch committed");
                let now = world.now;
                if let Some(journal) = &mut world.journal {
                    let table = |id: u8| format!("{}/{id}", transaction.task);
                    let rows = transaction.writes.iter().map(|write| RowChange {
                        table: table(write.table.0),
                        key: hex(&write.key),
                        row: write.value.as_deref().map(hex),
                    });
                    let footer = &transaction.footer;
                    let what = format!(
                        "{} term {} sequence {} positions {:?}{}",
                        transaction.task,
                        footer.term,
                        footer.sequence,
                        footer.positions,
                        if footer.released { ", released" } else { "" }
                    );
                    journal.changed(now, who(), what, rows.collect());
                }
            }
            Observed::Committed { .. } => world.coverage.hit("transaction committed"),
            Observed::SlowCommit(_) => {
                world.coverage.hit("slow commit, producer made anew");
                world.note(who, || "slow commit, producer made anew".into());
            }
            Observed::Redone(_, error) => {
                world.coverage.hit("batch dropped, tasks restored");
                world.note(who, || format!("drops its batch: {error:#}"));
            }
            Observed::NotTakenOver(task, error) => {
                world.coverage.hit("takeover postponed");
                world.note(who, || format!("cannot take over {task} yet: {error:#}"));
            }
            Observed::Fencing(task, owner) => {
                world.coverage.hit("takeover: last owner fenced");
                world.note(who, || format!("fences {owner} for {task}"));
            }
            Observed::Emptied(task) => {
                world.coverage.hit("takeover: store emptied");
                world.note(who, || format!("empties the store of {task}"));
            }
            Observed::RestoredRows(_, rows) => {
                if rows > 0 {
                    world.coverage.hit("takeover: rows restored");
                }
            }
            Observed::Restored(..) | Observed::Ready => {}
            Observed::TakenOver(tasks, _) => {
                world.coverage.add("takeover: tasks", tasks.len() as u64);
                world.note(who, || format!("takes over {}", names(tasks)));
            }
            Observed::Passed(task, inbox, position) => {
                world.coverage.hit("idle inbox passed");
                world.note(who, || format!("{task} passes {inbox} up to {position}"));
            }
            Observed::Warmed(stores, _) => {
                world.coverage.hit("stores brought forward before joining");
                world.note(who, || format!("brought {stores} stores forward"));
            }
            Observed::NotWarmed(task, error) => {
                world.note(who, || format!("{task} not brought forward: {error:#}"));
            }
            Observed::HandedOver(tasks) => {
                world.coverage.add("handover: tasks", tasks.len() as u64);
                world.note(who, || format!("hands over {}", names(tasks)));
            }
        }
    }
}

fn names(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
