//! Processes of stream threads: their lives, disks and places in the group.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Event, Order, World};
use crate::chance::Chance;
use crate::store::Disk;

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Its instance name.
    pub instance: String,
    /// Stream threads.
    pub threads: usize,
    /// Which life it is in; odd while it runs.
    pub life: u64,
    /// Whether it runs.
    pub alive: bool,
    /// Stopped by a signal until this moment.
    pub paused_until: u64,
    /// Told to stop.
    pub stopping: bool,
    /// How much its clock is ahead, ms.
    pub skew_ms: i64,
    /// Its disks, by task.
    pub disks: BTreeMap<String, Rc<RefCell<Disk>>>,
    /// Dies at its n-th call from now.
    pub dies_in: Option<u64>,
    /// Threads that have brought their share of the stores forward in this life.
    pub warmed: usize,
    /// Threads that have ended in this life.
    pub ended: usize,
}

impl World {
    pub(super) fn set_up_processes(&mut self, chance: &mut Chance) {
        for number in 0..self.plan.processes {
            let skew = i64::try_from(chance.below(300)).expect("small") - 150;
            self.processes.push(Process {
                instance: format!("p{number}"),
                threads: self.plan.threads,
                life: 0,
                alive: false,
                paused_until: 0,
                stopping: false,
                skew_ms: skew,
                disks: BTreeMap::new(),
                dies_in: None,
                warmed: 0,
                ended: 0,
            });
            // The others come when there is work: a rebalance under load.
            let after = if number == 0 { 1_000 } else { chance.below(self.plan.span / 2) };
            self.schedule(after, Event::Start(number));
        }
    }

    pub(super) fn start(&mut self, number: usize) {
        let process = &mut self.processes[number];
        if process.alive {
            return;
        }
        process.life += 1;
        process.alive = true;
        process.stopping = false;
        process.paused_until = 0;
        process.dies_in = None;
        process.warmed = 0;
        process.ended = 0;
        self.note(|| format!("p{number}"), || "starts".into());
        self.orders.push(Order::Start(number));
    }

    /// The process is gone, its threads dropped already; it comes back after `back` microseconds.
    pub fn died(&mut self, number: usize, power_cut: bool, back: u64) {
        let life = self.processes[number].life;
        self.processes[number].alive = false;
        self.processes[number].life += 1;
        self.clients.retain(|_, (_, process, _)| *process != number);
        self.calls.forget((number, life));
        self.payment_calls.forget((number, life));
        let mine: Vec<u64> = self
            .producers
            .iter()
            .filter(|(_, producer)| producer.home == (number, life))
            .map(|(id, _)| *id)
            .collect();
        for id in mine {
            // What was handed to the network may still arrive.
            if !self.producers[&id].queue.is_empty() && self.chance.per_mille(500) {
                let after = self.chance.between(100, 300_000);
                self.coverage.hit("records of a dead process arrived");
                self.schedule(after, Event::Deliver(id));
            } else {
                self.producers.remove(&id);
            }
        }
        if power_cut {
            self.lose_power(number);
        }
        self.schedule(back, Event::Start(number));
    }

    fn lose_power(&mut self, number: usize) {
        let disks: Vec<_> = self.processes[number].disks.values().cloned().collect();
        for disk in disks {
            let lost = self.chance.index(disk.borrow().unsynced() + 1);
            if lost > 0 {
                disk.borrow_mut().lose(lost);
                self.coverage.hit("write-ahead suffix lost");
            }
        }
    }

    /// Whether the process has work that is not committed, or records to read.
    pub fn busy(&self, number: usize) -> bool {
        let home = (number, self.processes[number].life);
        self.producers.values().any(|p| p.home == home && !p.queue.is_empty())
            || self.calls.any(home)
            || self.payment_calls.any(home)
            || self.lag() > 0
    }

    /// Inboxes with records behind the group's offsets.
    pub fn lag(&self) -> usize {
        let inboxes = machines::topology::ALL.iter().flat_map(|p| p.inboxes());
        inboxes
            .flat_map(|inbox| self.kafka.of_topic(inbox))
            .filter(|(tp, log)| {
                let position = self.kafka.group.offsets.get(tp).copied().unwrap_or(0);
                log.next_committed(position, log.end()).is_some()
            })
            .count()
    }
}
