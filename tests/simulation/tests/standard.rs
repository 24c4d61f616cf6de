//! What every change must pass: many seeds, every crash point, and enough of everything met.

use std::io::Write as _;
use std::time::Instant;

use simulation::crash_points;
use simulation::plan::Plan;
use simulation::run::run;
use simulation::sweep::{Report, sweep};

/// Seeds, unless `SEEDS` says otherwise.
const SEEDS: u64 = 2_000;

/// Saga steps, compensations and faults that the standard run must meet at least [`ENOUGH`] times.
const REQUIRED: &[&str] = &[
    "saga: received",
    "saga: reserved",
    "saga: routed",
    "saga: rejected, held",
    "saga: rejected, sold_out",
    "saga: rejected, unknown_sku",
    "saga: rejected, no_courier",
    "saga: cancelled when received",
    "saga: cancelled when reserved",
    "saga: cancelled when authorized",
    "saga: cancelled when paid",
    "saga: cancelled when routed",
    "saga: expired, not_confirmed",
    "saga: CancelRequested",
    "saga: OrderConfirmed",
    "saga: VoidConsignment",
    "saga: VoidConsignment, of a booked one",
    "saga: ReserveLines, again",
    "saga: reserved, at a later attempt",
    "saga: ReserveLines",
    "saga: LinesReserved",
    "saga: LinesReserved, whole",
    "saga: LinesReserved, split or moved",
    "saga: LinesRefused, sold_out",
    "saga: LinesRefused, held",
    "saga: LinesRefused, customer_limit",
    "saga: LinesRefused, warehouse_offline",
    "saga: WarehouseListed",
    "saga: FlashSaleScheduled",
    "saga: DispatchLines",
    "saga: StockRanLow",
    "stock: receipt",
    "stock: adjustment",
    "stock: count",
    "stock: transfer_out",
    "stock: transfer_in",
    "stock: dispatch",
    "stock: refused",
    "saga: rejected, warehouse_changed",
    "saga: ReleaseLines",
    "saga: AllocateLines",
    "saga: StockReceived",
    "saga: BookConsignment",
    "saga: ConsignmentBooked",
    "saga: ConsignmentBooked after failover",
    "saga: ConsignmentFailed",
    "saga: shipped",
    "saga: shipped, overdue",
    "saga: routed, overdue",
    "saga: delivered",
    "saga: undeliverable",
    "saga: returned",
    "saga: ConsignmentMoved",
    "judged: on time",
    "judged: late",
    "decision: price",
    "decision: expected",
    "decision: explored",
    "decision: only",
    "decision: probe",
    "breaker: open",
    "breaker: closed",
    "tracking: pickup_missed",
    "saga: Duplicate",
    "saga: Conflict",
    "call: book",
    "call: void",
    "outcome: Succeeded",
    "outcome: Refused",
    "outcome: Failed",
    "outcome: TimedOut",
    "outcome: NotSent",
    "outcome written twice",
    "saga: authorized",
    "saga: paid",
    "saga: declined, card_declined",
    "saga: declined, payment_voided",
    "saga: rejected, refunded",
    "saga: cancelled, payment_voided",
    "saga: cancelled, refunded",
    "saga: undeliverable, refunded",
    "saga: returned, refunded",
    "payment call: authorize",
    "payment call: capture",
    "payment call: void",
    "payment call: refund",
    "payment call: ask",
    "payment: succeeded",
    "payment: declined",
    "payment: failed",
    "payment: unknown",
    "payment: not_sent",
    "payment: not_found",
    "payment request arrives twice",
    "payment outcome written twice",
    "webhook: at once",
    "webhook: soon",
    "webhook: late",
    "webhook sent twice",
    "provider: Away",
    "provider: Broken",
    "provider: Silent",
    "provider: Slow",
    "company: Away",
    "company: Busy",
    "company: Throttling",
    "company: Broken",
    "company: Silent",
    "company: Slow",
    "company: Choosy",
    "process killed",
    "process killed at a call",
    "process paused",
    "process told to stop",
    "power cut",
    "write-ahead suffix lost",
    "records of a dead process arrived",
    "rebalance",
    "handover: tasks",
    "takeover: last owner fenced",
    "takeover: rows restored",
    "stores brought forward before joining",
    "idle inbox passed",
    "open transaction ended by init",
    "records of aborted transactions",
    "commit sent twice",
    "commit with unknown outcome",
    "slow commit, producer made anew",
    "produce error",
    "request timed out",
    "brokers away",
    "offsets refused: illegal generation",
    "offsets refused: unknown member",
    "changelog compacted",
    "ingest killed before the write",
    "ingest killed before the answer",
    "sink killed",
    "sink paused",
    "sink: answer of the database lost",
    "sink: block not stored",
    "database lost its newest transactions",
];
const ENOUGH: u64 = 100;

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn summary(report: &Report, what: &str, began: Instant) -> String {
    let seconds = began.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(report.runs).unwrap_or(u32::MAX)) / seconds;
    format!("{} {what} in {seconds:.0} s, {rate:.0} a second", report.runs)
}

#[test]
fn seeds_run_clean_and_meet_everything() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let began = Instant::now();
    let report = sweep(1, seeds, 3, Plan::of);
    say(&summary(&report, "seeds", began));
    for (seed, failures) in &report.bad {
        say(&format!("again: make simulate SEED={seed}\n{failures:#?}"));
    }
    assert!(report.bad.is_empty(), "{} seeds failed", report.bad.len());
    let missing = |what: &&&str| report.coverage.count(what) < ENOUGH * seeds / SEEDS;
    let missing: Vec<_> =
        REQUIRED.iter().filter(missing).map(|w| (*w, report.coverage.count(w))).collect();
    assert!(missing.is_empty(), "not met often enough: {missing:?}");
}

#[test]
fn every_crash_point_is_survived() {
    let began = Instant::now();
    let report = crash_points::singles(3);
    say(&summary(&report, "crash points", began));
    assert!(report.bad.is_empty(), "crashed at call: {:#?}", report.bad);
    assert_eq!(report.coverage.count("process killed at a call"), report.runs);
}

#[test]
fn a_seed_means_the_same_run_each_time() {
    for seed in 1..4 {
        let (one, two) = (run(Plan::of(seed), true), run(Plan::of(seed), true));
        assert_eq!(one.coverage, two.coverage);
        let lines = |outcome: simulation::run::Outcome| outcome.journal.map(|j| j.lines);
        assert_eq!(lines(one), lines(two));
    }
}
