//! When a courier is rested, probed and asked again.

use super::*;

const TIMEOUT_MS: i32 = 1_000;

fn world() -> (Breaker, Millis) {
    (Breaker::default(), Millis(1_000_000))
}

fn record(
    breaker: &mut Breaker,
    verdict: Verdict,
    probe: bool,
    now: Millis,
) -> Option<BreakerState> {
    breaker.record(verdict, probe, now, 256, |_| true)
}

#[test]
fn answers_are_told_apart() {
    use CallOutcome::{Failed, NotSent, Refused, Succeeded, Throttled, TimedOut, Unknown};
    for (outcome, latency_ms, expected) in [
        (Succeeded, 500, Some(Verdict::Well)),
        (Succeeded, 501, Some(Verdict::Slow)),
        (Refused, 10, Some(Verdict::Well)),
        (Throttled, 10, Some(Verdict::Throttled)),
        (Failed, 10, Some(Verdict::Failed)),
        (TimedOut, 1_000, Some(Verdict::TimedOut)),
        (Unknown, 1, Some(Verdict::TimedOut)),
        (NotSent, 0, None),
    ] {
        assert_eq!(Verdict::of(outcome, latency_ms, TIMEOUT_MS), expected, "{outcome:?}");
    }
}

#[test]
fn each_kind_of_trouble_has_its_own_threshold() {
    use Verdict::{Failed, Slow, Throttled, TimedOut, Well};
    // What comes again and again, and after how many calls the breaker opens; 0: never.
    for (pattern, calls) in [
        (&[TimedOut][..], 3),
        (&[Failed][..], 5),
        (&[Throttled][..], 10),
        (&[Slow][..], 10),
        (&[Failed, Well][..], 10),
        (&[Throttled, Well][..], 0),
        (&[Slow, Slow, Well][..], 0),
        (&[Failed, Well, Well][..], 0),
        (&[Well][..], 0),
    ] {
        let (mut breaker, mut now) = world();
        let mut opened = 0;
        for (call, verdict) in (1..=200).zip(pattern.iter().cycle()) {
            now = now.plus(100);
            if record(&mut breaker, *verdict, false, now) == Some(BreakerState::Open) {
                opened = call;
                break;
            }
        }
        assert_eq!(opened, calls, "{pattern:?}");
    }
}

#[test]
fn an_old_window_is_forgotten() {
    let (mut breaker, mut now) = world();
    for _ in 0..30 {
        now = now.plus(FORGOTTEN_MS + 1);
        assert_eq!(record(&mut breaker, Verdict::Slow, false, now), None);
    }
}

#[test]
fn rest_probes_and_the_way_back() {
    let (mut breaker, mut now) = world();
    for _ in 0..3 {
        record(&mut breaker, Verdict::TimedOut, false, now);
    }
    assert_eq!((breaker.state(), breaker.permits(now)), (BreakerState::Open, Permit::No));
    // Answers to what was sent before change nothing.
    record(&mut breaker, Verdict::TimedOut, false, now.plus(1_000));
    now = now.plus(REST_MS.0);
    for _ in 0..PROBES {
        assert_eq!(breaker.permits(now), Permit::Probe);
        breaker.probe(now);
    }
    assert_eq!(breaker.permits(now), Permit::No, "enough probes are under way");
    // One that fails rests it for longer.
    assert_eq!(record(&mut breaker, Verdict::TimedOut, true, now), None);
    assert_eq!(breaker.permits(now.plus(2 * REST_MS.0 - 1)), Permit::No);
    now = now.plus(2 * REST_MS.0);
    for _ in 0..PROBES - 1 {
        breaker.probe(now);
        assert_eq!(record(&mut breaker, Verdict::Well, true, now), None);
    }
    assert_eq!(breaker.permits(now), Permit::Probe);
    breaker.probe(now);
    assert_eq!(record(&mut breaker, Verdict::Well, true, now), Some(BreakerState::Closed));
    assert_eq!(breaker.permits(now), Permit::Yes);
}

#[test]
fn rests_grow_up_to_a_bound_and_start_anew_after_a_good_minute() {
    let (mut breaker, mut now) = world();
    let mut rests = vec![];
    for _ in 0..3 {
        record(&mut breaker, Verdict::TimedOut, false, now);
    }
    for _ in 0..5 {
        let until = breaker.until().unwrap();
        rests.push(until.0 - now.0);
        now = until;
        breaker.probe(now);
        record(&mut breaker, Verdict::TimedOut, true, now);
    }
    assert_eq!(rests, [2_000, 4_000, 8_000, 15_000, 15_000]);
    let close = |breaker: &mut Breaker, now: Millis| {
        let now = Millis(breaker.until().unwrap().0.max(now.0));
        for _ in 0..PROBES {
            breaker.probe(now);
            record(breaker, Verdict::Well, true, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        now
    };
    let fail = |breaker: &mut Breaker, now: Millis| {
        for _ in 0..3 {
            record(breaker, Verdict::TimedOut, false, now);
        }
        breaker.until().unwrap().0 - now.0
    };
    now = close(&mut breaker, now);
    now = now.plus(WELL_MS - 1);
    assert_eq!(fail(&mut breaker, now), 15_000, "it flaps");
    now = close(&mut breaker, now);
    now = now.plus(WELL_MS);
    assert_eq!(fail(&mut breaker, now), 2_000);
}

#[test]
fn jitter_spreads_rests_by_a_quarter() {
    let rest = |jitter| {
        let (mut breaker, now) = world();
        for _ in 0..3 {
            breaker.record(Verdict::TimedOut, false, now, jitter, |_| true);
        }
        breaker.until().unwrap().0 - now.0
    };
    assert_eq!((rest(0), rest(256), rest(511)), (1_500, 2_000, 2_498));
}

#[test]
fn lost_probes_do_not_keep_it_half_open_for_ever() {
    let (mut breaker, now) = world();
    for _ in 0..3 {
        record(&mut breaker, Verdict::TimedOut, false, now);
    }
    let now = breaker.until().unwrap();
    for _ in 0..PROBES {
        breaker.probe(now);
    }
    assert_eq!(breaker.permits(now.plus(PROBES_LOST_MS)), Permit::No);
    assert_eq!(breaker.permits(now.plus(PROBES_LOST_MS + 1)), Permit::Probe);
}

#[test]
fn what_is_heard_counts_once() {
    let (mut breaker, now) = world();
    assert!(breaker.heard_open(now.plus(10), now));
    assert!(!breaker.heard_open(now.plus(99), now));
    assert_eq!(breaker.permits(now.plus(10)), Permit::Probe);
    assert!(breaker.heard_closed(now));
    assert!(!breaker.heard_closed(now));
}
