//! The simulated world: one clock, one queue of what happens next, one source of chance, and in it
//! Kafka, processes with their disks, courier companies, clients and sinks.

pub mod calls;
pub mod clicks;
mod deliveries;
pub mod faults;
pub mod payments;
pub mod processes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use events::{Codec, Millis};

use crate::chance::Chance;
use crate::couriers::Company;
use crate::coverage::Coverage;
use crate::journal::Journal;
use crate::kafka::client::Client;
use crate::kafka::producer::Producer;
use crate::kafka::transactions::Markers;
use crate::kafka::{Kafka, Tp};
use crate::plan::Plan;
use crate::providers::Provider;
use crate::sinks::Sinks;
use crate::workload::Click;
use calls::Calls;
use clicks::Accepted;
use payments::PaymentCalls;
use processes::Process;

/// The wall clock at the start, UTC ms.
pub const EPOCH: i64 = 1_800_000_000_000;
/// Transactions are ended by the broker after this long, microseconds.
const TRANSACTION_TIMEOUT: u64 = 10_000_000;
/// How often brokers look for late transactions and sessions.
const SWEEP: u64 = 250_000;

/// What happens next.
#[derive(Debug)]
pub enum Event {
    /// A simulated thread goes on.
    Wake(u64),
    /// A producer's client sends what is queued.
    Deliver(u64),
    /// An EndTxn reaches the coordinator; the ticket's holder hears the answer.
    EndTxn {
        /// `transactional.id`.
        id: String,
        /// Epoch of the producer that sent it.
        epoch: i32,
        /// Where its sender looks for the answer, if he still does.
        ticket: u64,
    },
    /// One marker is written; `None`: the group's offsets.
    Marker(Rc<Markers>, Option<Tp>),
    /// Brokers look for what is late.
    Sweep,
    /// A group member's background thread.
    Member(u64),
    /// A client sends something.
    Click(Rc<Click>),
    /// A courier call moves on.
    Call(calls::Step),
    /// A company reports about a consignment.
    Reported(Box<events::TrackingReported>),
    /// A payment call or a webhook moves on.
    Pay(payments::Step),
    /// A fault strikes.
    Fault(faults::Fault),
    /// A process starts.
    Start(usize),
    /// A sink's step.
    Sink(usize),
    /// A topic is compacted.
    Compact,
}

/// What the runner must do for the world, since it holds the threads.
#[derive(Debug)]
pub enum Order {
    /// Start a process's threads.
    Start(usize),
    /// Drop a process's threads where they stand.
    Kill {
        /// Which.
        process: usize,
        /// Its disks lose what is not synced.
        power_cut: bool,
        /// It comes back after so many microseconds.
        back: u64,
    },
}

/// Everything but the simulated threads.
pub struct World {
    /// Microseconds since the start.
    pub now: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    /// Chance of whatever happens in the world.
    pub chance: Chance,
    /// What this seed does.
    pub plan: Plan,
    /// False once the faults are over.
    pub faulty: bool,
    /// Kafka.
    pub kafka: Kafka,
    /// Record bytes.
    pub codec: Codec,
    /// Processes.
    pub processes: Vec<Process>,
    /// Group members' clients: client, process, life.
    pub clients: BTreeMap<u64, (Client, usize, u64)>,
    /// Transactional producers.
    pub producers: BTreeMap<u64, Producer>,
    /// Answers to EndTxn.
    pub tickets: BTreeMap<u64, Result<(), crate::kafka::Refused>>,
    /// Companies.
    pub companies: Vec<Company>,
    /// Calls under way.
    pub calls: Calls,
    /// Payment providers.
    pub providers: Vec<Provider>,
    /// Calls to them and their webhooks.
    pub payment_calls: PaymentCalls,
    /// What clients were told.
    pub accepted: Accepted,
    /// Tracking and reports.
    pub sinks: Sinks,
    /// What was met.
    pub coverage: Coverage,
    /// What must not have happened.
    pub failures: Vec<String>,
    /// What happened, if somebody wants to know.
    pub journal: Option<Journal>,
    /// For the runner.
    pub orders: Vec<Order>,
    /// Ids of everything that needs one.
    pub ids: u64,
    /// Calls that left the core so far.
    pub steps: u64,
    /// When something last happened that work follows from.
    pub moved: u64,
    stranded_since: u64,
}

/// The world, as simulated threads hold it.
pub type Shared = Rc<RefCell<World>>;

impl World {
    /// A world that follows this plan, with nothing started yet.
    pub fn new(plan: Plan, journal: bool) -> Self {
        let mut chance = Chance::new(plan.seed);
        let codec = Codec::without_registry();
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            kafka: Kafka::new(plan.partitions),
            codec,
            processes: vec![],
            clients: BTreeMap::new(),
            producers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            companies: vec![
                Company::new("alpha", 300),
                Company::new("bravo", 350),
                Company::new("charlie", 500),
            ],
            calls: Calls::default(),
            providers: vec![Provider::new("card"), Provider::new("gift")],
            payment_calls: PaymentCalls::default(),
            accepted: Accepted::default(),
            sinks: Sinks::new(plan.partitions),
            coverage: Coverage::default(),
            failures: vec![],
            journal: journal.then(Journal::default),
            orders: vec![],
            ids: 0,
            steps: 0,
            moved: 0,
            stranded_since: 0,
            chance: chance.fork(1),
            faulty: true,
            plan,
        };
        world.list_companies();
        world.set_up_processes(&mut chance);
        world.set_up_clicks(&mut chance);
        world.set_up_faults(&mut chance);
        world.schedule(SWEEP, Event::Sweep);
        world.schedule(500_000, Event::Compact);
        for sink in 0..world.sinks.count() {
            world.schedule(1_000, Event::Sink(sink));
        }
        world
    }

    /// Something happens this many microseconds from now.
    pub fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + after, self.scheduled), event);
    }

    /// The next event; the clock stands at its moment.
    pub fn next_event(&mut self) -> Option<Event> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at.max(self.now);
        Some(event)
    }

    /// A new id.
    pub fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The brokers' clock.
    pub fn wall(&self) -> Millis {
        Millis(EPOCH + i64::try_from(self.now / 1_000).expect("a run is short"))
    }

    /// Notes what happened, if anybody wants to know.
    pub fn note(&mut self, who: impl FnOnce() -> String, what: impl FnOnce() -> String) {
        if let Some(journal) = &mut self.journal {
            journal.note(self.now, who(), what());
        }
    }

    /// Whether brokers answer.
    pub fn online(&self) -> bool {
        self.now >= self.kafka.down_until
    }

    /// Counts and notes a fault.
    pub fn fault(&mut self, what: &str) {
        self.coverage.hit(what);
        self.note(|| "fault".into(), || what.into());
    }

    /// Lets an event happen.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(_) => {}
            Event::Deliver(producer) => self.deliver(producer),
            Event::EndTxn { id, epoch, ticket } => self.end_transaction(&id, epoch, ticket),
            Event::Marker(markers, tp) => {
                let at = self.wall();
                self.kafka.mark(&markers, tp, at);
                self.moved = self.now;
            }
            Event::Sweep => self.sweep(),
            Event::Member(id) => self.member(id),
            Event::Click(click) => self.click(click),
            Event::Call(step) => self.call_moves(step),
            Event::Reported(report) => self.reported(report),
            Event::Pay(step) => self.payment_moves(step),
            Event::Fault(fault) => self.strike(fault),
            Event::Start(process) => self.start(process),
            Event::Sink(sink) => self.sink_moves(sink),
            Event::Compact => self.compact(),
        }
    }

    fn sweep(&mut self) {
        if self.online() {
            for markers in self.kafka.coordinator.sweep(self.now, TRANSACTION_TIMEOUT) {
                self.coverage.hit("transaction timed out at the broker");
                self.write_markers(markers);
            }
            // Kafka would leave it at that until a member comes or goes; here an operator restarts
            // one after half a minute.
            if !self.kafka.group.stranded() {
                self.stranded_since = self.now;
            } else if self.now - self.stranded_since > 30_000_000 {
                self.coverage.hit("partitions stranded until a rebalance");
                self.kafka.group.rebalance();
            }
            if self.kafka.group.sweep(self.now) {
                self.coverage.hit("rebalance");
                self.note(|| "group".into(), || "rebalance complete".into());
            }
        }
        self.schedule(SWEEP, Event::Sweep);
    }

    fn compact(&mut self) {
        let changelogs: Vec<Tp> = self
            .kafka
            .all()
            .filter(|(tp, _)| self.kafka.topic(*tp).ends_with("-changelog"))
            .map(|(tp, _)| tp)
            .collect();
        if self.chance.per_mille(500) {
            let tp = *self.chance.pick(&changelogs);
            let log = self.kafka.log_mut(tp);
            // The newest stretch is spared, as `min.compaction.lag.ms` does.
            let end = log.stable() - 60;
            if log.compact(end) > 0 {
                self.coverage.hit("changelog compacted");
            }
        }
        self.schedule(1_000_000, Event::Compact);
    }

    /// Markers are written one by one, some time after the decision.
    pub fn write_markers(&mut self, markers: Markers) {
        let markers = Rc::new(markers);
        let slow = self.faulty && self.chance.per_mille(self.plan.slow_markers);
        let most = if slow { 400_000 } else { 4_000 };
        let places: Vec<Option<Tp>> = markers.partitions.iter().copied().map(Some).collect();
        for tp in places.into_iter().chain([None]) {
            let after = self.chance.between(100, most);
            self.schedule(after, Event::Marker(markers.clone(), tp));
        }
    }

    fn end_transaction(&mut self, id: &str, epoch: i32, ticket: u64) {
        if !self.online() {
            let after = self.kafka.down_until - self.now + 1_000;
            self.schedule(after, Event::EndTxn { id: id.to_string(), epoch, ticket });
            return;
        }
        let answer = self.kafka.coordinator.end(id, epoch, true);
        self.note(|| "coordinator".into(), || format!("end of {id}/{epoch}: {answer:?}"));
        let answer = answer.map(|markers| {
            if let Some(markers) = markers {
                self.write_markers(markers);
            }
        });
        self.tickets.insert(ticket, answer);
    }

    fn deliver(&mut self, id: u64) {
        let Some(producer) = self.producers.get(&id) else { return };
        let home = producer.home;
        // What has left a process that died meanwhile still arrives, once.
        let orphan = self.processes[home.0].life != home.1;
        let resumes = self.processes[home.0].paused_until;
        if resumes > self.now && !orphan {
            return self.schedule(resumes - self.now + 1, Event::Deliver(id));
        }
        if !self.online() {
            let after = self.kafka.down_until - self.now + 1_000;
            return self.schedule(after, Event::Deliver(id));
        }
        let at = self.wall();
        let waiting = self.producers[&id].queue.len();
        if waiting == 0 {
            return;
        }
        self.moved = self.now;
        let most = match self.chance.below(4) {
            0 => self.chance.index(waiting) + 1,
            _ => waiting,
        };
        let lost = self.faulty && self.chance.per_mille(self.plan.produce_errors);
        let (now, kafka) = (self.now, &mut self.kafka);
        let producer = self.producers.get_mut(&id).expect("looked at above");
        if !producer.deliver(kafka, most, now, at) {
            let after = self.chance.between(500, 5_000);
            return self.schedule(after, Event::Deliver(id));
        }
        if orphan {
            self.producers.remove(&id);
        } else if lost {
            producer.fail("message timed out");
            self.fault("produce error");
        } else if !producer.queue.is_empty() {
            let after = self.chance.between(100, 1_500);
            self.schedule(after, Event::Deliver(id));
        }
    }

    fn member(&mut self, id: u64) {
        let Some((client, process, _)) = self.clients.get_mut(&id) else { return };
        let resumes = self.processes[*process].paused_until;
        if resumes > self.now {
            return self.schedule(resumes - self.now + 1, Event::Member(id));
        }
        if self.now >= self.kafka.down_until {
            client.tick(&mut self.kafka.group, self.now);
        }
        let soon = !client.settled();
        let after = if soon { self.chance.between(10_000, 60_000) } else { 400_000 };
        self.schedule(after, Event::Member(id));
    }
}
