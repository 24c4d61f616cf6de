//! What a seed decides beforehand: sizes, rates of faults, and when everything is over.

use crate::chance::Chance;

/// The plan of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Partitions of every topic.
    pub partitions: u8,
    /// Processes.
    pub processes: usize,
    /// Stream threads of each.
    pub threads: usize,
    /// Orders.
    pub orders: u64,
    /// Microseconds in which clients send and faults strike.
    pub span: u64,
    /// Faults that strike at a moment.
    pub faults: u64,
    /// Commits whose first request is late and is sent again, per mille.
    pub late_commits: u64,
    /// Commits whose outcome the client does not hear, per mille.
    pub unknown_commits: u64,
    /// Deliveries that fail, per mille.
    pub produce_errors: u64,
    /// Requests that time out, per mille.
    pub request_errors: u64,
    /// Transactions whose markers take long, per mille.
    pub slow_markers: u64,
    /// Calls that take long to arrive, per mille.
    pub slow_calls: u64,
    /// Calls that a company answers oddly, per mille.
    pub odd_answers: u64,
    /// Outcomes that are written twice, requests and webhooks that arrive twice, per mille.
    pub doubled: u64,
    /// Orders that come with a payment, per mille.
    pub paid: u64,
    /// Authorizations that have run out when they are captured, per mille.
    pub lapses: u64,
    /// Clicks that hit a dying ingest before the write, and as many after it, per mille.
    pub ingest_kills: u64,
    /// Calls at which the process that makes them dies, counted over the run.
    pub crash_at: Vec<u64>,
}

impl Plan {
    /// What this seed means.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5eed_5eed_5eed_5eed);
        let mut rate = |most: u64| if chance.per_mille(700) { chance.below(most + 1) } else { 0 };
        let rates = [rate(60), rate(40), rate(10), rate(4), rate(200), rate(100), rate(150)];
        let [late_commits, unknown_commits, produce_errors, request_errors, ..] = rates;
        let [.., slow_markers, slow_calls, odd_answers] = rates;
        let (doubled, ingest_kills) = (rate(60), rate(40));
        let lapses = rate(120);
        Self {
            seed,
            partitions: u8::try_from(chance.between(1, 3)).expect("few"),
            processes: chance.index(3) + 1,
            threads: chance.index(2) + 1,
            orders: chance.between(30, 140),
            span: chance.between(8_000_000, 30_000_000),
            faults: chance.between(4, 20),
            late_commits,
            unknown_commits,
            produce_errors,
            request_errors,
            slow_markers,
            slow_calls,
            odd_answers,
            doubled,
            ingest_kills,
            paid: *chance.pick(&[0, 500, 1_000]),
            lapses,
            crash_at: vec![],
        }
    }

    /// The fixed scenario whose every call is crashed in turn: small, and with no other fault but
    /// companies that fail now and then.
    pub fn scenario(crash_at: Vec<u64>) -> Self {
        Self {
            seed: 1,
            partitions: 2,
            processes: 2,
            threads: 1,
            orders: 8,
            span: 2_000_000,
            faults: 0,
            late_commits: 0,
            unknown_commits: 0,
            produce_errors: 0,
            request_errors: 0,
            slow_markers: 0,
            slow_calls: 0,
            odd_answers: 150,
            doubled: 0,
            paid: 500,
            lapses: 0,
            ingest_kills: 0,
            crash_at,
        }
    }
}
