//! What was found, how bad it is, and what to type next.

use std::collections::{BTreeMap, BTreeSet};

use events::Millis;

use super::metrics::samples;
use super::probe::{Probe, State};
use crate::lag::Lag;
use crate::moment;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// As it should be.
    Well,
    /// Something waits or is slower; orders go on.
    Degraded,
    /// Orders, or what is seen of them, stand still, or a promise is broken.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What it is about.
    pub(super) about: String,
    /// What was seen.
    pub(super) seen: String,
    /// What to do or type next, where there is something to do.
    pub(super) next: Option<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, about: &str, seen: String, next: &str) -> Self {
        let next = (!next.is_empty()).then(|| next.to_owned());
        Self { severity, about: about.to_owned(), seen, next }
    }
}

/// A service's instances: one of several may be down.
pub(super) fn service(name: &str, probes: &[Probe]) -> Vec<Finding> {
    let ready = probes.iter().filter(|probe| probe.state == State::Ready).count();
    let bad = if ready > 0 { Severity::Degraded } else { Severity::Broken };
    let mut findings = Vec::new();
    for probe in probes {
        let url = &probe.url;
        let finding = match &probe.state {
            State::Ready => continue,
            State::Silent(why) => {
                let next = format!(
                    "read its log and start it again, it goes on where its last commit was; or name \
                     another address: --{name} URL"
                );
                Finding::new(bad, name, format!("{url} does not answer: {why}"), &next)
            }
            State::NotReady(checks) => {
                let next = format!("curl {url}/readyz?verbose");
                Finding::new(bad, name, format!("{url} is not ready: {checks}"), &next)
            }
        };
        findings.push(finding);
    }
    if ready > 0 {
        let seen = format!("{ready} of {} ready", probes.len());
        findings.push(Finding::new(Severity::Well, name, seen, ""));
    }
    findings
}

/// Each reader's lag: degraded beyond `most_seconds`, broken beyond ten times as much.
pub(super) fn readers(lag: &Lag, most_seconds: u64) -> Vec<Finding> {
    let mut groups: BTreeMap<&str, (u64, i64, bool)> = BTreeMap::new();
    for behind in &lag.partitions {
        let (records, oldest_ms, exact) = groups.entry(&behind.group).or_insert((0, 0, true));
        *records += behind.records;
        *oldest_ms = behind.oldest_ms.unwrap_or(0).max(*oldest_ms);
        *exact &= behind.exact;
    }
    let mut findings = Vec::new();
    for (group, (records, oldest_ms, exact)) in groups {
        let seconds = u64::try_from(oldest_ms / 1_000).unwrap_or(0);
        let severity = match seconds {
            late if late > most_seconds.saturating_mul(10) => Severity::Broken,
            late if late > most_seconds => Severity::Degraded,
            _ => Severity::Well,
        };
        let about = if exact { "" } else { "about " };
        let seen = format!("{about}{records} records behind, {}", moment::age(oldest_ms));
        let next = match severity {
            Severity::Well => String::new(),
            _ => format!("tillroll lag --group {group}"),
        };
        findings.push(Finding::new(severity, &format!("lag {group}"), seen, &next));
    }
    let unknown = |why: &String| {
        let next = "start PostgreSQL, or set POSTGRES_URL: the sinks go on by themselves";
        Finding::new(Severity::Broken, "postgres", why.clone(), next)
    };
    findings.extend(lag.unknown.iter().map(unknown));
    findings
}

/// Letters that wait, by topic, and when the newest record of them was appended.
pub(super) fn letters(waiting: &BTreeMap<String, (u64, Millis)>, now: Millis) -> Vec<Finding> {
    if waiting.is_empty() {
        let seen = "none wait".to_owned();
        return vec![Finding::new(Severity::Well, "dead letters", seen, "")];
    }
    let finding = |(topic, (count, newest)): (&String, &(u64, Millis))| {
        let age = moment::age(now.0 - newest.0);
        let seen = format!("{count} of {topic} wait, the newest of {age} ago");
        let next = format!("tillroll dlq list --topic {topic}");
        Finding::new(Severity::Degraded, "dead letters", seen, &next)
    };
    waiting.iter().map(finding).collect()
}

/// What the processors' metrics say: couriers that are rested, promises that were broken.
pub(super) fn metrics(texts: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let all =
        |metric: &str| -> Vec<_> { texts.iter().flat_map(|text| samples(text, metric)).collect() };
    let mut broken: BTreeMap<String, f64> = BTreeMap::new();
    for (labels, value) in all("tillroll_invariant_violations_total") {
        let invariant = labels.get("invariant").cloned().unwrap_or_default();
        *broken.entry(invariant).or_default() += value;
    }
    for (invariant, count) in broken.into_iter().filter(|(_, count)| *count > 0.0) {
        let seen = format!("{invariant} was broken {count} times since the processors started");
        let next = "wake a developer: their logs say where; ARCHITECTURE.md says what it means";
        findings.push(Finding::new(Severity::Broken, "invariants", seen, next));
    }
    findings.extend(breakers(&all("tillroll_courier_breaker_state")));
    findings
}

/// Only couriers whose breaker has moved are known, so that all are rested cannot be seen here.
fn breakers(samples: &[super::metrics::Sample]) -> Option<Finding> {
    let mut rested = BTreeSet::new();
    // 0 asked, 1 probed, 2 rested.
    for (labels, _) in samples.iter().filter(|(_, state)| *state >= 2.0) {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let (courier, lane) = (label("courier"), label("lane"));
        rested.insert(if lane == "*" { courier } else { format!("{courier} on {lane}") });
    }
    if rested.is_empty() {
        return (!samples.is_empty())
            .then(|| Finding::new(Severity::Well, "couriers", "none rested".into(), ""));
    }
    let names = rested.into_iter().collect::<Vec<_>>().join(", ");
    let next = "others are chosen, and these are probed; while tillroll_courier_rounds_in_vain_total \
                rises there are none: see whether we reach the companies at all";
    Some(Finding::new(Severity::Degraded, "couriers", format!("rested: {names}"), next))
}

/// Lines for a terminal, worst first.
pub(super) fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for Finding { severity, about, seen, next } in findings {
        let severity = match severity {
            Severity::Well => "well",
            Severity::Degraded => "DEGRADED",
            Severity::Broken => "BROKEN",
        };
        lines.push(format!("{severity:<9} {about:<15} {seen}"));
        lines.extend(next.iter().map(|next| format!("{:25} next: {next}", "")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lag::Behind;

    fn behind(group: &str, records: u64, oldest_ms: Option<i64>) -> Behind {
        let (group, topic) = (group.to_owned(), "order-status".to_owned());
        let (partition, applied, end, exact) = (0, Some(1), 9, true);
        Behind { group, topic, partition, applied, end, records, exact, oldest_ms }
    }

    #[test]
    fn one_of_two_instances_down_is_no_outage() {
        let probe = |state: State| Probe { url: "http://a".into(), state, metrics: None };
        let down = || probe(State::Silent("refused".into()));
        let severities = |probes: &[Probe]| -> Vec<Severity> {
            service("sinks", probes).iter().map(|finding| finding.severity).collect()
        };
        assert_eq!(severities(&[probe(State::Ready)]), [Severity::Well]);
        assert_eq!(severities(&[down()]), [Severity::Broken]);
        assert_eq!(
            severities(&[down(), probe(State::Ready)]),
            [Severity::Degraded, Severity::Well]
        );
        let starting = probe(State::NotReady("[-]tracking starting".into()));
        let found = service("sinks", &[starting]);
        assert_eq!(found[0].next.as_deref(), Some("curl http://a/readyz?verbose"));
    }

    #[test]
    fn lag_is_judged_by_its_age() {
        let judged = |oldest_ms| {
            let partitions =
                vec![behind("tracking", 4, Some(oldest_ms)), behind("reports", 0, None)];
            let found = readers(&Lag { partitions, unknown: vec![] }, 30);
            (found[1].severity, found[0].severity)
        };
        assert_eq!(judged(30_999), (Severity::Well, Severity::Well));
        assert_eq!(judged(31_000), (Severity::Degraded, Severity::Well));
        assert_eq!(judged(301_000), (Severity::Broken, Severity::Well));
        let unknown = Lag { partitions: vec![], unknown: vec!["sinks: no answer".into()] };
        assert_eq!(readers(&unknown, 30)[0].severity, Severity::Broken);
    }

    #[test]
    fn breakers_and_invariants_are_read_from_metrics() {
        let breaker = |courier: &str, lane: &str, state: u8| {
            format!(
                "tillroll_courier_breaker_state{{courier=\"{courier}\",lane=\"{lane}\",\
                 partition=\"0\"}} {state}\n"
            )
        };
        let one = breaker("swift", "*", 2) + &breaker("slow", "*", 0) + &breaker("slow", "a>FR", 2);
        let found = metrics(&[&one]);
        assert_eq!(found[0].severity, Severity::Degraded);
        assert_eq!(found[0].seen, "rested: slow on a>FR, swift");
        let first = breaker("swift", "*", 2);
        assert_eq!(
            metrics(&[&first])[0].severity,
            Severity::Degraded,
            "others may never have moved"
        );
        let none = breaker("swift", "*", 1);
        assert_eq!(metrics(&[&none])[0].severity, Severity::Well);
        let violated = "tillroll_invariant_violations_total{invariant=\"ST-1\"} 1\n";
        let found = metrics(&[violated, violated]);
        assert_eq!(found[0].severity, Severity::Broken);
        assert!(found[0].seen.starts_with("ST-1 was broken 2 times"), "{}", found[0].seen);
        assert!(metrics(&[""]).is_empty());
    }

    #[test]
    fn a_finding_has_its_next_step_below_it() {
        let waiting = BTreeMap::from([("orders".to_owned(), (3, Millis(1_000)))]);
        assert_eq!(
            lines(&letters(&waiting, Millis(61_000))),
            [
                "DEGRADED  dead letters    3 of orders wait, the newest of 60 s ago",
                "                          next: tillroll dlq list --topic orders",
            ]
        );
        assert_eq!(letters(&BTreeMap::new(), Millis(0))[0].severity, Severity::Well);
    }
}
