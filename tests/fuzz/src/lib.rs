//! Hostile input for the places where bytes of others come in: the decoder of records, the tasks behind
//! it, and the bodies of ingest's requests.
//!
//! Plausible records are made from the checked-in schemas (`datum`), so a new record type is covered when
//! its schema is there; then their bytes are damaged (`mutation`). proptest shrinks what fails.
//!
//! `CASES` says how many (2,000; a release is tried with a million: `make fuzz`), `SEED` which.

mod datum;
mod mutation;

pub use datum::{Entropy, Schema};
pub use mutation::{Mutation, damage, mutations};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

const CASES: u32 = 2_000;

/// Runs a test on as many cases as `CASES` says.
///
/// # Panics
/// With the smallest failing case and the seed that finds it again.
pub fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let number = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let parsed = |name: &str| number(name).map(|text| text.parse::<u64>().expect("a number"));
    let cases = parsed("CASES").map_or(CASES, |cases| u32::try_from(cases).expect("32 bits"));
    let seed = parsed("SEED").unwrap_or(1);
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    if let Err(failure) = TestRunner::new(config).run(strategy, test) {
        panic!("CASES={cases} SEED={seed}: {failure}");
    }
}

/// The registry's id of a schema in [`events::Codec::without_registry`], by its type's index.
pub fn schema_id(index: usize) -> u32 {
    u32::try_from(index).expect("few record types") + 1
}

/// A record in wire format: header and datum.
pub fn framed(schema_id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &schema_id.to_be_bytes()[..], datum].concat()
}
