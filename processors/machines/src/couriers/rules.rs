//! Who can be asked, and under what rules: companies, operators' rules, and what other partitions
//! found out.

use std::collections::BTreeMap;

use events::{
    BreakerMoved, BreakerState, CourierCode, CourierListed, CourierRuled, Lane, LaneRuled, Millis,
};

use super::Couriers;
use super::choice::Stakes;
use super::deciding::notice;
use super::rows::{Company, LaneRule, LaneText, Rule, RuleKey};
use crate::machine::{Context, Effects};
use crate::table::Table;

/// The tables that every decision reads whole, kept in memory; filled on first use.
#[derive(Debug, Default)]
pub(super) struct Book {
    companies: BTreeMap<CourierCode, Company>,
    rules: BTreeMap<RuleKey, Rule>,
    lanes: BTreeMap<LaneText, LaneRule>,
}

impl Book {
    pub(super) fn read(
        companies: &mut Table<CourierCode, Company>,
        rules: &mut Table<RuleKey, Rule>,
        lanes: &mut Table<LaneText, LaneRule>,
    ) -> Self {
        Self { companies: companies.all(), rules: rules.all(), lanes: lanes.all() }
    }

    pub(super) fn company(&self, courier: &CourierCode) -> Option<&Company> {
        self.companies.get(courier)
    }

    /// Who may be asked for this lane now as far as operators' rules go, with their weight, percent.
    pub(super) fn allowed<'a>(
        &'a self,
        lane: &Lane,
        now: Millis,
    ) -> impl Iterator<Item = (&'a CourierCode, &'a Company, i32)> {
        let lane = lane.as_str();
        self.companies.iter().filter(|(_, company)| !company.paused).filter_map(
            move |(code, company)| {
                let Some(rule) = self.rule(code, lane) else { return Some((code, company, 100)) };
                rule.allows(now).then_some((code, company, rule.weight_percent))
            },
        )
    }

    fn rule(&self, courier: &CourierCode, lane: &str) -> Option<&Rule> {
        if self.rules.is_empty() {
            return None;
        }
        let of = |lane: &str| self.rules.get(&(courier.clone(), lane.into()));
        of(lane).or_else(|| of(""))
    }

    /// What is at stake on a lane. Without a rule a late consignment costs twice the average list
    /// price.
    pub(super) fn stakes(&self, lane: &Lane) -> Stakes {
        let rule = self.lanes.get(lane.as_str()).or_else(|| self.lanes.get(""));
        if let Some(rule) = rule {
            let (lateness_cost_minor, max_late_permille) =
                (rule.lateness_cost_minor, rule.max_late_permille);
            return Stakes { lateness_cost_minor, max_late_permille };
        }
        let count = i64::try_from(self.companies.len()).unwrap_or(1).max(1);
        let sum: i64 = self.companies.values().map(|company| company.price_minor).sum();
        Stakes { lateness_cost_minor: 2 * sum / count, max_late_permille: 1_000 }
    }
}

/// List prices, minor units: sums of them fit.
const PRICES: std::ops::RangeInclusive<i64> = 0..=1_000_000_000_000;

impl Couriers {
    pub(super) fn list(&mut self, listed: CourierListed, fx: &mut Effects) {
        if !PRICES.contains(&listed.price_minor) || listed.timeout_ms < 1 {
            return fx.reject("a courier needs a price of 0 to 10^12 minor units, and a time-out");
        }
        let book = self.book();
        let mut others = book.companies.iter().filter(|(code, _)| **code != listed.courier);
        if let Some((code, other)) = others.find(|(_, c)| c.currency != listed.currency) {
            fx.reject(format!(
                "{} is priced in {}, {code} in {}: prices can be compared in one currency only",
                listed.courier, listed.currency, other.currency
            ));
            return;
        }
        let company = Company {
            url: listed.url,
            price_minor: listed.price_minor,
            currency: listed.currency,
            timeout_ms: listed.timeout_ms,
            paused: listed.paused,
        };
        book.companies.insert(listed.courier.clone(), company.clone());
        self.companies.put(listed.courier, company);
    }

    pub(super) fn rule(&mut self, ruled: CourierRuled, fx: &mut Effects) {
        if ruled.weight_percent < 1 {
            return fx.reject("a weight is at least 1 percent: pause the courier instead");
        }
        let rule = Rule {
            paused: ruled.paused,
            weight_percent: ruled.weight_percent,
            blackouts: ruled.blackouts,
        };
        let key = (ruled.courier, ruled.lane);
        self.book().rules.insert(key.clone(), rule.clone());
        self.rules.put(key, rule);
    }

    pub(super) fn rule_lane(&mut self, ruled: LaneRuled, fx: &mut Effects) {
        let book = self.book();
        if let Some(company) = book.companies.values().find(|c| c.currency != ruled.currency) {
            return fx.reject(format!(
                "lateness is priced in {}, couriers in {}",
                ruled.currency, company.currency
            ));
        }
        let rule = LaneRule {
            lateness_cost_minor: ruled.lateness_cost_minor.max(0),
            max_late_permille: ruled.max_late_permille.clamp(0, 1_000),
        };
        book.lanes.insert(ruled.lane.clone(), rule.clone());
        self.lane_rules.put(ruled.lane, rule);
    }

    /// Another partition found out that a courier is out, or well again. What is heard is not told
    /// on, so it travels once.
    pub(super) fn heard(&mut self, moved: BreakerMoved, context: &Context, fx: &mut Effects) {
        let mut health = self.health.get(&moved.courier).unwrap_or_default();
        let news = match moved.state {
            BreakerState::Open => health.breaker.heard_open(moved.until, context.now),
            BreakerState::Closed => health.breaker.heard_closed(context.now),
            BreakerState::Unknown | BreakerState::HalfOpen => false,
        };
        if news {
            notice(fx, &moved.courier, None, moved.state);
            self.health.put(moved.courier, health);
        }
    }

    pub(super) fn book(&mut self) -> &mut Book {
        let (companies, rules, lanes) =
            (&mut self.companies, &mut self.rules, &mut self.lane_rules);
        self.book.get_or_insert_with(|| Book::read(companies, rules, lanes))
    }
}
