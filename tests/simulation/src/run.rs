//! Runs a plan from its first event until nothing moves any more, and has the auditor look at what is
//! left. One thread; the simulated threads are coroutines that yield whenever time passes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Error;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use machines::topology;
use stream::warm::{all_tasks, warm_up};
use stream::{CommitRule, Platform as _, Setup, Stopped, StreamThread};

use crate::auditor;
use crate::coverage::Coverage;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::platform::{Context, ModelPlatform, Yield};
use crate::world::{Event, Order, Shared, World};

/// How long a run may take to come to rest after its faults, microseconds.
const PATIENCE: u64 = 400_000_000;
/// How long nothing may have moved for the run to be at rest, microseconds.
const QUIET: u64 = 2_500_000;
/// How often the runner looks whether all is quiet, microseconds.
const LOOK: u64 = 500_000;
/// Stack of a simulated thread, bytes.
const STACK: usize = 512 * 1024;

type Thread = Coroutine<(), Yield, Result<(), Error>, DefaultStack>;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What must not have happened; empty when all is well.
    pub failures: Vec<String>,
    /// What was met.
    pub coverage: Coverage,
    /// Calls that left the core.
    pub steps: u64,
    /// Simulated microseconds.
    pub took: u64,
    /// What happened, when that was asked for.
    pub journal: Option<Journal>,
}

/// Runs a plan.
pub fn run(plan: Plan, journal: bool) -> Outcome {
    let world: Shared = Rc::new(World::new(plan, journal).into());
    let mut runner = Runner { world, threads: BTreeMap::new(), looked: 0 };
    let ended = catch_unwind(AssertUnwindSafe(|| runner.run()));
    let mut world = runner.world.borrow_mut();
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        world.failures.push(format!("panic: {}", text.unwrap_or_default()));
    }
    if world.failures.is_empty() {
        let found = auditor::audit(&world);
        world.failures.extend(found);
        auditor::cover(&mut world);
    }
    let outcome = Outcome {
        failures: std::mem::take(&mut world.failures),
        coverage: std::mem::take(&mut world.coverage),
        steps: world.steps,
        took: world.now,
        journal: world.journal.take(),
    };
    drop(world);
    outcome
}

struct Runner {
    world: Shared,
    threads: BTreeMap<u64, (usize, Option<Thread>)>,
    looked: u64,
}

impl Runner {
    fn run(&mut self) {
        loop {
            let event =
                self.world.borrow_mut().next_event().expect("brokers always have something to do");
            match event {
                Event::Wake(id) => self.wake(id),
                event => self.world.borrow_mut().handle(event),
            }
            self.obey();
            let mut world = self.world.borrow_mut();
            if !world.failures.is_empty() {
                return;
            }
            if world.now - self.looked > LOOK && !world.faulty {
                self.looked = world.now;
                match unrest(&world) {
                    None => return,
                    Some(why) if world.now > world.plan.span + PATIENCE => {
                        return world.failures.push(format!("AU-14 does not come to rest: {why}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Does what the world cannot, since it does not hold the threads.
    fn obey(&mut self) {
        loop {
            let orders = std::mem::take(&mut self.world.borrow_mut().orders);
            if orders.is_empty() {
                return;
            }
            for order in orders {
                match order {
                    Order::Start(process) => self.start(process),
                    Order::Kill { process, power_cut, back } => self.kill(process, power_cut, back),
                }
            }
        }
    }

    fn start(&mut self, process: usize) {
        let threads = self.world.borrow().processes[process].threads;
        for number in 0..threads {
            let mut world = self.world.borrow_mut();
            let id = world.id();
            let after = world.chance.between(10, 30_000);
            world.schedule(after, Event::Wake(id));
            drop(world);
            let thread = thread(self.world.clone(), process, number);
            self.threads.insert(id, (process, Some(thread)));
        }
    }

    fn kill(&mut self, process: usize, power_cut: bool, back: u64) {
        if !self.world.borrow().processes[process].alive {
            return;
        }
        // Dropping a coroutine unwinds it where it stands: its handles go, nothing else happens.
        self.threads.retain(|_, (home, _)| *home != process);
        self.world.borrow_mut().died(process, power_cut, back);
    }

    fn wake(&mut self, id: u64) {
        let Some((process, slot)) = self.threads.get_mut(&id) else { return };
        let process = *process;
        {
            let mut world = self.world.borrow_mut();
            let resumes = world.processes[process].paused_until;
            if resumes > world.now {
                let after = resumes - world.now + 1;
                return world.schedule(after, Event::Wake(id));
            }
        }
        let mut thread = slot.take().expect("a thread is resumed by one event at a time");
        match thread.resume(()) {
            CoroutineResult::Yield(Yield::Until(at)) => {
                let mut world = self.world.borrow_mut();
                let after = at.saturating_sub(world.now);
                world.schedule(after, Event::Wake(id));
                *slot = Some(thread);
            }
            CoroutineResult::Yield(Yield::Dies) => {
                *slot = Some(thread);
                self.world.borrow_mut().kill(process, false);
            }
            CoroutineResult::Return(ended) => {
                self.threads.remove(&id);
                self.ended(process, ended);
            }
        }
    }

    /// A thread has ended: by a signal, or because it must not go on. Then its process ends.
    fn ended(&mut self, process: usize, ended: Result<(), Error>) {
        let mut world = self.world.borrow_mut();
        let fenced = |error: &Error| error.to_string().contains("instance id");
        if let Err(error) = &ended {
            world.note(|| format!("p{process}"), || format!("a thread ended: {error:#}"));
            let stopped = error.chain().any(|cause| cause.is::<Stopped>());
            if stopped && !fenced(error) {
                world.failures.push(format!("a thread stopped: {error:#}"));
            }
        }
        world.processes[process].ended += 1;
        let all = world.processes[process].ended == world.processes[process].threads;
        if all || (ended.is_err() && !world.processes[process].stopping) {
            let clean = all && ended.is_ok();
            world.coverage.hit(if clean { "process stopped cleanly" } else { "process gave up" });
            let back = world.chance.between(50_000, 3_000_000);
            world.orders.push(Order::Kill { process, power_cut: false, back });
        }
    }
}

fn thread(world: Shared, process: usize, number: usize) -> Thread {
    let stack = DefaultStack::new(STACK).expect("memory for a stack");
    Coroutine::with_stack(stack, move |yielder, ()| {
        let (setup, life) = {
            let world = world.borrow();
            let home = &world.processes[process];
            let setup = Setup {
                transactional_id: format!("processors.{}.{number}", home.instance),
                processors: topology::ALL.to_vec(),
                codec: world.codec.clone(),
                partitions: i32::from(world.kafka.partitions),
                commit: CommitRule {
                    idle: Duration::from_millis(10),
                    most: Duration::from_millis(100),
                    max_bytes: 8 * 1024 * 1024,
                    idle_positions: Duration::from_millis(200),
                },
            };
            (setup, home.life)
        };
        let context =
            Context { world: world.clone(), yielder, home: (process, life), thread: number };
        let platform = ModelPlatform { context };
        warm(&platform, &setup, number)?;
        StreamThread::start(platform, setup)?.run()
    })
}

/// A thread's share of the stores, then a wait for the process' other threads.
fn warm(platform: &ModelPlatform<'_>, setup: &Setup, number: usize) -> Result<(), Error> {
    let process = platform.context.home.0;
    let world = || platform.context.world.borrow_mut();
    let threads = world().processes[process].threads;
    let tasks = all_tasks(&setup.processors, setup.partitions).into_iter().enumerate();
    let share: Vec<_> =
        tasks.filter_map(|(n, task)| (n % threads == number).then_some(task)).collect();
    warm_up(platform, &share)?;
    world().processes[process].warmed += 1;
    while world().processes[process].warmed < threads {
        platform.sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Why the run is not over; `None`: everything is done and nothing moves.
fn unrest(world: &World) -> Option<String> {
    let far = world.wall().plus(86_400_000);
    let open = world.kafka.all().find(|(_, log)| log.stable() != log.end());
    let due = |process: &crate::world::processes::Process| {
        let owned = process.disks.iter().filter(|(_, disk)| Rc::strong_count(disk) > 1);
        let mut owned = owned.map(|(task, disk)| (task, disk.borrow().next_deadline()));
        owned.find(|(_, at)| at.is_some_and(|at| at < far)).map(|(task, _)| task.clone())
    };
    let lag = world.lag();
    if world.accepted.waiting > 0 {
        Some(format!("{} clicks wait for an answer", world.accepted.waiting))
    } else if let Some(down) = world
        .processes
        .iter()
        .find(|p| !p.alive || p.paused_until + QUIET > world.now && p.paused_until > 0)
    {
        Some(format!("{} is not back", down.instance))
    } else if let Some((tp, log)) = open {
        Some(format!("{}-{} is open at {}", world.kafka.topic(tp), tp.partition, log.stable()))
    } else if lag > 0 {
        Some(format!("{lag} inboxes have records left"))
    } else if !world.payment_calls.is_empty() {
        Some("payment calls or webhooks are under way".into())
    } else if !world.calls.is_empty() {
        Some("calls are under way".into())
    } else if let Some(task) = world.processes.iter().find_map(due) {
        Some(format!("{task} has a deadline"))
    } else if !world.kafka.group.stable() || world.clients.values().any(|(c, ..)| !c.settled()) {
        Some("the group is not settled".into())
    } else if world.clients.len() < world.plan.processes * world.plan.threads {
        Some("a thread has not joined the group yet".into())
    } else if world.kafka.group.stranded() {
        Some("partitions are assigned to nobody".into())
    } else if !world.sinks_caught_up() {
        Some("sinks have records left".into())
    } else if world.now - world.moved < QUIET {
        Some("something moved just now".into())
    } else {
        None
    }
}
