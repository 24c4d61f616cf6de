//! What a courier decision costs: prints microseconds, fails above 20.
//!
//!     cargo test --release --workspace --test decision_cost -- --nocapture

#[allow(dead_code)] // Shared with the worlds, which use more of it.
mod support;

use std::hint::black_box;
use std::io::Write as _;

use events::Millis;
use machines::couriers::belief::Belief;
use machines::couriers::breaker::Permit;
use machines::couriers::chance::Chance;
use machines::couriers::choice::{self, Choosable, Policy, Stakes};
use support::{COSTS, Machine, Signs, courier};

/// Decisions per batch; the quickest batch counts, since a busy machine only ever makes it slower.
const BATCH: usize = 200;
const BATCHES: usize = 100;

/// Microseconds per call in the quickest batch.
#[allow(clippy::disallowed_methods)] // Time is what is measured here.
fn quickest(mut call: impl FnMut(usize)) -> f64 {
    let mut best = f64::INFINITY;
    for batch in 0..BATCHES {
        let began = std::time::Instant::now();
        (0..BATCH).for_each(|n| call(batch * BATCH + n));
        best = best.min(began.elapsed().as_secs_f64() * 1e6 / BATCH as f64);
    }
    best
}

fn choosable(couriers: usize) -> Vec<Choosable> {
    let mut belief = Belief::default();
    (0..90).for_each(|_| belief.outcome(true));
    (0..10).for_each(|_| belief.outcome(false));
    let one = |k: usize| Choosable {
        courier: courier(k % COSTS.len()),
        price_minor: 450,
        weight_percent: 100,
        belief: belief.parameters(),
        late_permille: belief.late_permille(),
        permit: Permit::Yes,
        moved_at: Millis(0),
    };
    (0..couriers).map(one).collect()
}

#[test]
fn a_decision_costs_less_than_twenty_microseconds() {
    let stakes = Stakes { lateness_cost_minor: 1_000, max_late_permille: 300 };
    let choice = |couriers| {
        let all = choosable(couriers);
        quickest(|n| {
            let mut chance = Chance::seeded(n as u64);
            black_box(choice::choose(&all, stakes, true, Policy::Thompson, &mut chance));
        })
    };
    let (four, eight) = (choice(4), choice(8));
    // The step as a whole: the row of the lane read, the choice, the decision record, the booking.
    let mut machine = Machine::new(1);
    machine.live(10, Signs::None, 2_000, 100);
    let step = quickest(|n| machine.begin(10_000 + n));
    let _ = writeln!(
        std::io::stderr(),
        "choice among 4 couriers {four:.1} µs, among 8 {eight:.1} µs; whole step {step:.1} µs"
    );
    assert!(four < 20.0 && eight < 20.0 && step < 20.0);
}
