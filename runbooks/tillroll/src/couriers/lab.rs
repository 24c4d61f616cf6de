//! The courier lab: decisions joined with what came of them; a league table, and what another policy
//! would have cost. Pure.

use std::collections::BTreeMap;
use std::fmt;

use events::{Candidate, CourierCode, CourierDecided, DeliveryJudged, OrderKey, Standing};
use serde::Serialize;

/// Recorded decisions and outcomes.
#[derive(Debug, Default)]
pub(super) struct History {
    decisions: BTreeMap<(OrderKey, i32), CourierDecided>,
    outcomes: BTreeMap<(OrderKey, i32), DeliveryJudged>,
}

/// How couriers could have been chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Policy {
    /// The least price.
    Cheapest,
    /// The least expected cost, as it was known then.
    Greedy,
    /// This courier.
    Always(CourierCode),
}

/// One courier on one lane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Standings {
    lane: String,
    courier: String,
    /// Consignments whose outcome is known.
    judged: usize,
    on_time_percent: f64,
    mean_price_minor: f64,
    /// Hours from booking to the first try to deliver.
    p50_hours: f64,
    p90_hours: f64,
    /// Consignments for which the lane itself promised a moment, nine times in ten to be kept.
    promises: usize,
    promises_kept_percent: f64,
}

/// What a policy would have done, by inverse propensity (self-normalised).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Estimate {
    /// Decisions with an outcome.
    pub(super) decisions: usize,
    /// Those for which the policy would have chosen the same courier.
    support: usize,
    /// Per consignment, minor units: price, and what lateness cost.
    recorded_cost_minor: f64,
    recorded_on_time_percent: f64,
    policy_cost_minor: f64,
    policy_on_time_percent: f64,
    /// What the recorded choices cost more than the policy's, per 1,000 orders, minor units.
    regret_per_thousand_minor: f64,
}

impl History {
    pub(super) fn decided(&mut self, decided: CourierDecided) {
        let order = OrderKey { order_id: decided.order_id, accepted_at: decided.accepted_at };
        self.decisions.insert((order, decided.attempt), decided);
    }

    pub(super) fn judged(&mut self, judged: DeliveryJudged) {
        let order = OrderKey { order_id: judged.order_id, accepted_at: judged.accepted_at };
        self.outcomes.insert((order, judged.attempt), judged);
    }

    pub(super) fn league(&self) -> Vec<Standings> {
        let mut groups: BTreeMap<(&str, &CourierCode), Vec<&DeliveryJudged>> = BTreeMap::new();
        for judged in self.outcomes.values() {
            groups.entry((judged.lane.as_str(), &judged.courier)).or_default().push(judged);
        }
        let row = |((lane, courier), judged): ((&str, &CourierCode), Vec<&DeliveryJudged>)| {
            let mut hours: Vec<f64> =
                judged.iter().filter(|j| j.transit_ms > 0).map(|j| hours(j.transit_ms)).collect();
            hours.sort_by(f64::total_cmp);
            let promises = judged.iter().filter(|j| j.expected_by.0 > 0).count();
            let kept = judged.iter().filter(|j| j.expected_by_kept).count();
            let on_time = judged.iter().filter(|j| j.on_time).count();
            let price: f64 = judged.iter().map(|j| minor(j.price_minor)).sum();
            Standings {
                lane: lane.to_owned(),
                courier: courier.to_string(),
                judged: judged.len(),
                on_time_percent: percent(on_time, judged.len()),
                mean_price_minor: price / count(judged.len()),
                p50_hours: quantile(&hours, 50),
                p90_hours: quantile(&hours, 90),
                promises,
                promises_kept_percent: percent(kept, promises),
            }
        };
        groups.into_iter().map(row).collect()
    }

    pub(super) fn replay(&self, policy: &Policy) -> Estimate {
        let (mut decisions, mut support, mut on_time) = (0_usize, 0_usize, 0_usize);
        let (mut recorded, mut cost, mut in_time, mut weight) = (0.0, 0.0, 0.0, 0.0);
        for (key, judged) in &self.outcomes {
            let Some(decided) = self.decisions.get(key) else { continue };
            decisions += 1;
            let late = if judged.on_time { 0.0 } else { minor(decided.lateness_cost_minor) };
            let spent = minor(judged.price_minor) + late;
            recorded += spent;
            on_time += usize::from(judged.on_time);
            if policy.choose(&decided.candidates) == Some(&judged.courier) {
                let inverse = 1_000.0 / f64::from(decided.propensity_permille.max(1));
                support += 1;
                weight += inverse;
                cost += inverse * spent;
                in_time += if judged.on_time { inverse } else { 0.0 };
            }
        }
        let recorded_cost_minor = recorded / count(decisions);
        let weight = if weight > 0.0 { weight } else { f64::NAN };
        let policy_cost_minor = cost / weight;
        Estimate {
            decisions,
            support,
            recorded_cost_minor,
            recorded_on_time_percent: percent(on_time, decisions),
            policy_cost_minor,
            policy_on_time_percent: 100.0 * in_time / weight,
            regret_per_thousand_minor: 1_000.0 * (recorded_cost_minor - policy_cost_minor),
        }
    }
}

impl Policy {
    /// Whom it chooses among those that could be asked.
    fn choose<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a CourierCode> {
        let mut open = candidates.iter().filter(|c| c.standing != Standing::Out);
        let chosen = match self {
            Self::Cheapest => open.min_by_key(|c| c.price_minor),
            Self::Greedy => open.min_by_key(|c| c.score_minor),
            Self::Always(courier) => open.find(|c| c.courier == *courier),
        };
        chosen.map(|c| &c.courier)
    }
}

impl fmt::Display for Standings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} {:<12} {:>8} {:>7.1}% {:>10.1} {:>10.1} {:>10.1} {:>9} {:>7.1}%",
            self.lane,
            self.courier,
            self.judged,
            self.on_time_percent,
            self.mean_price_minor,
            self.p50_hours,
            self.p90_hours,
            self.promises,
            self.promises_kept_percent,
        )
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "decisions {}, support {}", self.decisions, self.support)?;
        writeln!(
            f,
            "recorded: {:.1} a consignment, {:.1} % on time",
            self.recorded_cost_minor, self.recorded_on_time_percent
        )?;
        write!(
            f,
            "policy:   {:.1} a consignment, {:.1} % on time; regret {:.0} per 1,000 orders",
            self.policy_cost_minor, self.policy_on_time_percent, self.regret_per_thousand_minor
        )
    }
}

/// Figures for people: what an f64 cannot hold does not show.
#[allow(clippy::cast_precision_loss)]
fn minor(minor: i64) -> f64 {
    minor as f64
}

#[allow(clippy::cast_precision_loss)]
fn count(count: usize) -> f64 {
    count as f64
}

fn hours(ms: i64) -> f64 {
    minor(ms) / 3_600_000.0
}

fn percent(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { 100.0 * count(part) / count(of) }
}

fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |x| *x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{DecisionReason, Lane, Merchant, Millis, OrderId, WarehouseCode};

    /// Two couriers, 300 and 500, lateness 1,000; the cheap one is late every second time. Chosen
    /// with even odds.
    fn history() -> History {
        let mut history = History::default();
        let lane = Lane::new(&WarehouseCode::MAIN, "FR");
        let merchant = Merchant::parse("shop").unwrap();
        let courier = |cheap| CourierCode::parse(if cheap { "cheap" } else { "dear" }).unwrap();
        for n in 0..400 {
            let (cheap, on_time) = (n % 2 == 0, n % 4 != 0);
            let order_id = OrderId::derive(&merchant, &n.to_string());
            let candidate = |cheap: bool| Candidate {
                courier: courier(cheap),
                price_minor: if cheap { 300 } else { 500 },
                late_permille: if cheap { 500 } else { 1 },
                score_minor: if cheap { 800 } else { 501 },
                standing: Standing::Eligible,
            };
            history.decided(CourierDecided {
                order_id,
                accepted_at: Millis(1),
                lane: lane.clone(),
                attempt: 1,
                decided_at: Millis(2),
                courier: courier(cheap),
                reason: DecisionReason::Explored,
                propensity_permille: 500,
                lateness_cost_minor: 1_000,
                candidates: vec![candidate(true), candidate(false)],
            });
            history.judged(DeliveryJudged {
                order_id,
                accepted_at: Millis(1),
                lane: lane.clone(),
                attempt: 1,
                courier: courier(cheap),
                judged_at: Millis(3),
                on_time,
                transit_ms: 3_600_000 * (i64::from(n % 10) + 1),
                price_minor: if cheap { 300 } else { 500 },
                expected_by_kept: on_time,
                expected_by: Millis(9),
            });
        }
        history
    }

    #[test]
    fn a_policy_is_judged_by_what_it_would_have_chosen() {
        let history = history();
        let cheapest = history.replay(&Policy::Cheapest);
        assert_eq!((cheapest.decisions, cheapest.support), (400, 200));
        assert_eq!((cheapest.policy_cost_minor, cheapest.policy_on_time_percent), (800.0, 50.0));
        let greedy = history.replay(&Policy::Greedy);
        assert_eq!((greedy.policy_cost_minor, greedy.recorded_cost_minor), (500.0, 650.0));
        assert_eq!(greedy.regret_per_thousand_minor, 150_000.0);
        let dear = history.replay(&Policy::Always(CourierCode::parse("dear").unwrap()));
        assert_eq!(dear, greedy);
        let nobody = history.replay(&Policy::Always(CourierCode::parse("x").unwrap()));
        assert_eq!(nobody.support, 0);
    }

    #[test]
    fn the_league_has_a_row_per_lane_and_courier() {
        let table = history().league();
        assert_eq!(table.len(), 2);
        assert_eq!((table[0].courier.as_str(), table[0].judged), ("cheap", 200));
        assert_eq!((table[0].on_time_percent, table[1].on_time_percent), (50.0, 100.0));
        assert_eq!((table[0].promises, table[0].promises_kept_percent), (200, 50.0));
        assert_eq!((table[1].mean_price_minor, table[1].p50_hours), (500.0, 6.0));
    }
}
