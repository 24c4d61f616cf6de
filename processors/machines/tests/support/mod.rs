//! A world around the real couriers machine: orders come in, couriers book, carry and report.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use compact_str::CompactString;
use events::{
    BookConsignment, CallOutcome, CourierAnswered, CourierCall, CourierCode, CourierListed,
    Currency, Destination, Lane, LaneRuled, Merchant, Millis, OrderId, OrderKey, Record,
    TrackingEvent, TrackingReported, WarehouseCode, topics,
};
use machines::couriers::Couriers;
use machines::couriers::chance::Chance;
use machines::table::memory::Memory;
use machines::table::{Backing, Key};
use machines::{Context, Effect, Effects, Machine as _, Source};

/// Orders of a world.
pub(crate) const ORDERS: usize = 40_000;
/// Couriers, by code.
pub(crate) const CODES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];
/// What they charge, minor units.
pub(crate) const COSTS: [i64; 4] = [400, 450, 500, 600];
/// What a late consignment costs, minor units.
pub(crate) const LATENESS: i64 = 1_000;
/// One order a second, so that the promise is a thousand orders away.
const SECOND: i64 = 1_000;
const PROMISE_MS: i64 = 1_000 * SECOND;
const EPOCH: i64 = 1_800_000_000_000;

/// How likely each courier is in time, of a thousand.
pub(crate) fn on_time_permille(order: usize) -> [i64; 4] {
    let mut all = [900, 930, 950, 980];
    if (13_000..23_000).contains(&order) {
        (all[0], all[1]) = (930, 550);
    }
    if order >= 23_000 {
        (all[2], all[0]) = (970, 700);
    }
    all
}

/// A courier.
pub(crate) fn courier(k: usize) -> CourierCode {
    CourierCode::parse(CODES[k]).expect("a code")
}

/// What is known of a consignment before it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signs {
    /// Nothing.
    None,
    /// Of those that will be late, three in ten miss their pick-up (known 50 orders later) and four
    /// in ten their first scan (known when it is overdue, a quarter of the promised time later); of
    /// the others one and two in a hundred. The rest are scanned in time.
    Early,
}

/// What happens to a consignment next.
enum Next {
    Report(TrackingEvent, i64),
    ScanOverdue,
}

/// The machine and the world around it.
pub(crate) struct Machine {
    machine: Couriers,
    backing: Rc<Memory>,
    effects: Effects,
    now: Millis,
    seed: u64,
}

impl Machine {
    /// The choices of a whole world.
    pub(crate) fn run(seed: u64, delay: usize, signs: Signs) -> impl Iterator<Item = usize> {
        Self::choices(seed, delay, signs, ORDERS, 1_000).into_iter()
    }

    /// The choices for the first orders of a world, with a commit after every so many.
    pub(crate) fn choices(
        seed: u64,
        delay: usize,
        signs: Signs,
        orders: usize,
        commit_every: usize,
    ) -> Vec<usize> {
        Self::new(seed).live(delay, signs, orders, commit_every)
    }

    /// Lives through the first orders of a world.
    pub(crate) fn live(
        &mut self,
        delay: usize,
        signs: Signs,
        orders: usize,
        commit_every: usize,
    ) -> Vec<usize> {
        let world = self;
        let mut outcomes = Chance::seeded(!world.seed);
        let mut coming: BTreeMap<usize, VecDeque<(usize, Next)>> = BTreeMap::new();
        let mut chosen = Vec::with_capacity(orders);
        for order in 0..orders {
            world.now = Millis(EPOCH + i64::try_from(order).expect("few") * SECOND);
            for (past, next) in coming.remove(&order).unwrap_or_default() {
                world.happens(past, chosen[past], &next);
            }
            let k = world.order(order);
            chosen.push(k);
            let on_time = outcomes.below(1_000) < on_time_permille(order)[k].unsigned_abs();
            let mut at = |when: usize, next| {
                coming.entry(order + when).or_default().push_back((order, next));
            };
            if signs == Signs::Early {
                let (missed, unscanned) = if on_time { (10, 20) } else { (300, 400) };
                let draw = outcomes.below(1_000);
                if draw < missed {
                    at(50, Next::Report(TrackingEvent::PickupMissed, 50 * SECOND));
                } else if draw < missed + unscanned {
                    at(250, Next::ScanOverdue);
                } else {
                    at(50, Next::Report(TrackingEvent::Collected, 50 * SECOND));
                }
            }
            let took = if on_time { PROMISE_MS } else { 2 * PROMISE_MS };
            at(delay.max(1), Next::Report(TrackingEvent::Delivered, took));
            if (order + 1) % commit_every == 0 {
                world.commit();
            }
        }
        chosen
    }

    /// A machine that knows its couriers and what lateness costs.
    pub(crate) fn new(seed: u64) -> Self {
        let backing = Rc::new(Memory::default());
        let dynamic: Rc<dyn Backing> = backing.clone();
        let machine = Couriers::new(&dynamic);
        let (effects, now) = (Effects::default(), Millis(EPOCH));
        let mut world = Self { machine, backing, effects, now, seed };
        let currency = Currency::parse("GBP").expect("a currency");
        for (k, price_minor) in COSTS.iter().enumerate() {
            world.step(CourierListed {
                courier: courier(k),
                url: "http://localhost".into(),
                price_minor: *price_minor,
                currency: currency.clone(),
                timeout_ms: 1_000,
                paused: false,
            });
        }
        world.step(LaneRuled {
            lane: CompactString::default(),
            lateness_cost_minor: LATENESS,
            currency,
            max_late_permille: 1_000,
        });
        world
    }

    /// An order is booked; who got it.
    pub(crate) fn order(&mut self, order: usize) -> usize {
        self.begin(order);
        let call = self.effects.list.iter().find_map(|effect| match effect {
            Effect::Call(call) => Some(call.courier.clone()),
            _ => None,
        });
        let courier = call.expect("somebody is asked");
        let k = CODES.iter().position(|code| *code == courier.as_str()).expect("one of them");
        let OrderKey { order_id, accepted_at } = self.key(order);
        self.step(CourierAnswered {
            order_id,
            accepted_at,
            lane: lane(),
            attempt: 1,
            courier,
            call: CourierCall::Book,
            outcome: CallOutcome::Succeeded,
            detail: "".into(),
            latency_ms: 10,
            consignment_id: "c".into(),
            tracking_number: "t".into(),
            price_minor: COSTS[k],
            currency: "GBP".into(),
            promised_at: self.now.plus(PROMISE_MS),
        });
        k
    }

    /// An order asks for a courier.
    pub(crate) fn begin(&mut self, order: usize) {
        let OrderKey { order_id, accepted_at } = self.key(order);
        let text = |text: &str| text.into();
        self.step(BookConsignment {
            order_id,
            accepted_at,
            merchant: Merchant::parse("shop").expect("a shop"),
            lane: lane(),
            destination: Destination {
                name: text("n"),
                street: text("s"),
                city: text("c"),
                postcode: text("p"),
                country: text("FR"),
            },
        });
    }

    /// The batch ends and is applied.
    pub(crate) fn commit(&mut self) {
        let mut writes = vec![];
        for table in self.machine.tables() {
            table.seal(&mut writes);
        }
        self.backing.apply(&writes, &[]);
        for table in self.machine.tables() {
            table.committed();
        }
    }

    fn happens(&mut self, order: usize, k: usize, next: &Next) {
        let key = self.key(order);
        match next {
            Next::ScanOverdue => {
                self.effects.list.clear();
                let (table, context) = (machines::table::TableId(8), self.context());
                self.machine.fire(table, &key.to_bytes(), &context, &mut self.effects);
            }
            Next::Report(event, after) => {
                let booked_at = EPOCH + i64::try_from(order).expect("few") * SECOND;
                self.step(TrackingReported {
                    order_id: key.order_id,
                    accepted_at: key.accepted_at,
                    lane: lane(),
                    courier: courier(k),
                    attempt: 1,
                    event: *event,
                    occurred_at: Millis(booked_at + after),
                    detail: "".into(),
                });
            }
        }
    }

    fn key(&self, order: usize) -> OrderKey {
        let number = (u128::from(self.seed) << 64) | u128::try_from(order).expect("few");
        OrderKey { order_id: OrderId(uuid::Uuid::from_u128(number)), accepted_at: Millis(EPOCH) }
    }

    fn context(&self) -> Context {
        Context { now: self.now, partition: 0, partitions: 1 }
    }

    fn step(&mut self, record: impl Into<Record>) {
        self.effects.list.clear();
        let (topic, appended_at) = (topics::COURIERS.name, self.now);
        let source = Source { topic, partition: 0, offset: 0, appended_at };
        let context = self.context();
        self.machine.step(record.into(), source, &context, &mut self.effects);
    }
}

fn lane() -> Lane {
    Lane::new(&WarehouseCode::MAIN, "FR")
}
