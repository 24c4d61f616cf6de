//! The choice of a courier for one order: least expected total cost, price and what lateness costs
//! times how likely it is, drawn from what is believed (Thompson sampling). A function of the
//! beliefs and the order's own chance.

use events::{Candidate, CourierCode, DecisionReason, Millis, Standing};

use super::belief::Belief;
use super::breaker::Permit;
use super::chance::Chance;

/// Joint draws per decision. The first decides; the share of those that it agrees with is its exact
/// propensity given the set of draws, since each could as well have been the first.
const DRAWS: usize = 16;

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct Choosable {
    /// Who.
    pub courier: CourierCode,
    /// Expected price, minor units.
    pub price_minor: i64,
    /// An operator's preference: costs are divided by it, percent; at least 1.
    pub weight_percent: i32,
    /// Parameters of the belief that it comes late, see [`Belief::parameters`].
    pub belief: (f64, f64),
    /// The mean of that belief, 0 to 1000.
    pub late_permille: i32,
    /// Whether its breakers let it be asked.
    pub permit: Permit,
    /// When a breaker of it moved last.
    pub moved_at: Millis,
}

/// What is at stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stakes {
    /// What a late consignment costs, minor units.
    pub lateness_cost_minor: i64,
    /// The promise: who is held to be late more often is not chosen while another is not, 0 to 1000.
    pub max_late_permille: i32,
}

/// How to choose; all but the first are for comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// By draws from the beliefs.
    Thompson,
    /// By their means.
    Greedy,
    /// By price.
    Cheapest,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Index of the chosen.
    pub index: usize,
    /// Why.
    pub reason: DecisionReason,
    /// How likely it was given the draws, 1 to 1000.
    pub propensity_permille: i32,
}

/// Chooses; `None` from nothing. `informed`: anything was ever learned about this lane; before that
/// the price decides, since drawing from nothing would spend money on companies that may never
/// report a delivery.
pub fn choose(
    choosable: &[Choosable],
    stakes: Stakes,
    informed: bool,
    policy: Policy,
    chance: &mut Chance,
) -> Option<Choice> {
    let mut open = choosable.iter().enumerate().filter(|(_, c)| c.permit != Permit::No);
    let Some((first, _)) = open.next() else {
        // All are out: who went out last is most likely to be well.
        let last = choosable.iter().enumerate().max_by_key(|(_, c)| c.moved_at)?.0;
        return Some(certain(last, DecisionReason::LastResort));
    };
    let reason = |index: usize, reason| match choosable[index].permit {
        Permit::Probe => DecisionReason::Probe,
        _ => reason,
    };
    if open.next().is_none() {
        return Some(certain(first, reason(first, DecisionReason::Only)));
    }
    if !informed || policy == Policy::Cheapest {
        let price = |c: &Choosable| 100.0 * to_f64(c.price_minor) / f64::from(c.weight_percent);
        let index = least(choosable, price);
        return Some(certain(index, reason(index, DecisionReason::Price)));
    }
    let expected = draw(choosable, stakes, |c| f64::from(c.late_permille) / 1_000.0);
    if policy == Policy::Greedy {
        return Some(certain(expected, reason(expected, DecisionReason::Expected)));
    }
    let mut once = || draw(choosable, stakes, |c| Belief::draw_late(c.belief, chance));
    let index = once();
    let agreeing = 1 + (1..DRAWS).filter(|_| once() == index).count();
    let propensity_permille = i32::try_from(1_000 * agreeing / DRAWS).unwrap_or(1_000);
    let why = if index == expected { DecisionReason::Expected } else { DecisionReason::Explored };
    Some(Choice { index, reason: reason(index, why), propensity_permille })
}

/// The choosable as a decision records them.
pub fn candidates(choosable: &[Choosable], stakes: Stakes) -> Vec<Candidate> {
    let candidate = |c: &Choosable| {
        let lateness =
            stakes.lateness_cost_minor.saturating_mul(i64::from(c.late_permille)) / 1_000;
        let cost = c.price_minor.saturating_add(lateness);
        Candidate {
            courier: c.courier.clone(),
            price_minor: c.price_minor,
            late_permille: c.late_permille,
            score_minor: cost.saturating_mul(100) / i64::from(c.weight_percent),
            standing: match c.permit {
                Permit::Yes => Standing::Eligible,
                Permit::Probe => Standing::Probe,
                Permit::No => Standing::Out,
            },
        }
    };
    choosable.iter().map(candidate).collect()
}

fn certain(index: usize, reason: DecisionReason) -> Choice {
    Choice { index, reason, propensity_permille: 1_000 }
}

/// Who costs least if it is as likely to be late as `late` says, 0 to 1; among those that keep the
/// promise if any does, else who comes closest to it.
fn draw(choosable: &[Choosable], stakes: Stakes, mut late: impl FnMut(&Choosable) -> f64) -> usize {
    let bound = f64::from(stakes.max_late_permille) / 1_000.0;
    let lateness = to_f64(stakes.lateness_cost_minor);
    least(choosable, |c| {
        let late = late(c);
        let over = if late > bound { (late - bound) * BROKEN_PROMISE } else { 0.0 };
        let cost = to_f64(c.price_minor) + lateness * late;
        over + cost * 100.0 / f64::from(c.weight_percent)
    })
}

/// Above any cost of a consignment, minor units, so that a promise goes first.
const BROKEN_PROMISE: f64 = 1e18;

/// The first with the least cost among those that may be asked.
fn least(choosable: &[Choosable], mut cost: impl FnMut(&Choosable) -> f64) -> usize {
    let mut best = (0, f64::INFINITY);
    for (index, c) in choosable.iter().enumerate() {
        if c.permit == Permit::No {
            continue;
        }
        let cost = cost(c);
        if cost < best.1 {
            best = (index, cost);
        }
    }
    best.0
}

/// Prices are far below 2^53: exact.
#[allow(clippy::cast_precision_loss)]
fn to_f64(minor: i64) -> f64 {
    minor as f64
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
