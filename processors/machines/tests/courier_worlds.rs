//! How well the couriers machine chooses: worlds in which couriers get worse and better, against an
//! oracle that knows how likely each is to be late at every moment.
//!
//! The worlds: four couriers, 40,000 orders; the second becomes bad for a quarter of the time and
//! the first for good. A consignment in time is worth ten, couriers cost 4 to 6: regret is what the
//! oracle's choice would have been worth more, per 1,000 orders. The machine itself is driven, record
//! by record; the policies that it is compared with choose by the same code with other settings.
//!
//!     cargo test --release --workspace --test courier_worlds -- --nocapture

mod support;

use std::fmt::Write as _;
use std::io::Write as _;

use machines::couriers::belief::Belief;
use machines::couriers::breaker::Permit;
use machines::couriers::chance::Chance;
use machines::couriers::choice::{self, Choosable, Policy, Stakes};
use support::{CODES, COSTS, LATENESS, Machine, ORDERS, Signs, courier, on_time_permille};

const SEEDS: u64 = 64;

/// Utility of a courier at a moment, in thousandths of a minor unit.
fn utility(order: usize, courier: usize) -> i64 {
    LATENESS * on_time_permille(order)[courier] - 1_000 * COSTS[courier]
}

/// What the oracle's choices would have been worth more, per 1,000 orders, a consignment in time being
/// worth ten.
fn regret(choices: impl Iterator<Item = usize>) -> f64 {
    let mut sum = 0;
    for (order, chosen) in choices.enumerate() {
        let best = (0..COSTS.len()).map(|k| utility(order, k)).max().unwrap_or(0);
        sum += best - utility(order, chosen);
    }
    // Thousandths of minor units to units of a hundred.
    sum as f64 / 100_000.0 * 1_000.0 / ORDERS as f64
}

/// A policy that is not the machine's, outcomes `delay` orders late.
fn compared(seed: u64, policy: Policy, delay: usize) -> f64 {
    let (mut draws, mut outcomes) = (Chance::seeded(seed), Chance::seeded(!seed));
    let mut beliefs = vec![Belief::default(); COSTS.len()];
    let stakes = Stakes { lateness_cost_minor: LATENESS, max_late_permille: 1_000 };
    let mut chosen: Vec<(usize, bool)> = Vec::with_capacity(ORDERS);
    for order in 0..ORDERS {
        if let Some(past) = order.checked_sub(delay) {
            let (k, on_time) = chosen[past];
            beliefs[k].outcome(on_time);
        }
        let choosable: Vec<Choosable> = (0..COSTS.len())
            .map(|k| Choosable {
                courier: courier(k),
                price_minor: COSTS[k],
                weight_percent: 100,
                belief: beliefs[k].parameters(),
                late_permille: beliefs[k].late_permille(),
                permit: Permit::Yes,
                moved_at: events::Millis(0),
            })
            .collect();
        let choice = choice::choose(&choosable, stakes, true, policy, &mut draws).expect("four");
        let on_time = outcomes.below(1_000) < on_time_permille(order)[choice.index].unsigned_abs();
        chosen.push((choice.index, on_time));
    }
    regret(chosen.into_iter().map(|(k, _)| k))
}

/// Mean and its standard error over all seeds.
#[allow(clippy::disallowed_methods)] // A test may use both cores.
fn over_seeds(run: impl Fn(u64) -> f64 + Copy + Send + 'static) -> (f64, f64) {
    let half = move |parity| -> Vec<f64> {
        (0..SEEDS).filter(|seed| seed % 2 == parity).map(run).collect()
    };
    let odd = std::thread::spawn(move || half(1));
    let mut all = half(0);
    all.extend(odd.join().expect("a run ends"));
    let count = all.len() as f64;
    let mean = all.iter().sum::<f64>() / count;
    let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

#[test]
fn regret_stays_within_its_bounds() {
    let mut table = format!(
        "regret per 1,000 orders, {SEEDS} seeds, {ORDERS} orders\n{:<34}{:>16}{:>16}\n",
        "policy", "known at once", "1,000 later"
    );
    let mut row = |name: &str, at_once: (f64, f64), later: (f64, f64)| {
        let cell = |(mean, error): (f64, f64)| match mean.is_nan() {
            true => "-".to_owned(),
            false => format!("{mean:.1} ± {error:.1}"),
        };
        writeln!(table, "{name:<34}{:>16}{:>16}", cell(at_once), cell(later)).expect("a string");
    };
    for (name, policy) in [
        ("fixed cheapest", Policy::Cheapest),
        ("greedy, undecayed", Policy::Greedy),
        ("Thompson, undecayed", Policy::Thompson),
    ] {
        let both = [1, 1_000].map(|delay| over_seeds(move |s| compared(s, policy, delay)));
        row(name, both[0], both[1]);
    }
    let machine = |delay, signs| over_seeds(move |s| regret(Machine::run(s, delay, signs)));
    let at_once = machine(0, Signs::None);
    let later = machine(1_000, Signs::None);
    row("the machine", at_once, later);
    let with_signs = machine(1_000, Signs::Early);
    row("the machine, with early signs", (f64::NAN, f64::NAN), with_signs);
    let _ = writeln!(std::io::stderr(), "{table}");
    assert!(at_once.0 <= 66.0, "{at_once:?}");
    assert!(later.0 <= 165.0, "{later:?}");
    assert!(with_signs.0 < 140.0, "{with_signs:?}");
}

/// The same log decides the same, however often its batches end.
#[test]
fn a_replay_decides_the_same() {
    let choices = |every| Machine::choices(7, 100, Signs::Early, 3_000, every);
    assert_eq!(choices(1), choices(1_000));
    assert!(CODES.iter().enumerate().all(|(k, _)| choices(64).contains(&k)));
}
