//! Who is chosen, why, and how likely that was.

use super::*;
use crate::couriers::belief::EarlySign;

const STAKES: Stakes = Stakes { lateness_cost_minor: 1_000, max_late_permille: 1_000 };

fn courier(code: &str, price_minor: i64, in_time: u32, late: u32) -> Choosable {
    let mut belief = Belief::default();
    (0..in_time).for_each(|_| belief.outcome(true));
    (0..late).for_each(|_| belief.outcome(false));
    Choosable {
        courier: CourierCode::parse(code).unwrap(),
        price_minor,
        weight_percent: 100,
        belief: belief.parameters(),
        late_permille: belief.late_permille(),
        permit: Permit::Yes,
        moved_at: Millis(0),
    }
}

fn chosen(choosable: &[Choosable], stakes: Stakes, seed: u64) -> (String, Choice) {
    let mut chance = Chance::seeded(seed);
    let choice = choose(choosable, stakes, true, Policy::Thompson, &mut chance).unwrap();
    (choosable[choice.index].courier.to_string(), choice)
}

#[test]
fn lateness_is_weighed_against_price() {
    // 300 + 1000·0.40 against 450 + 1000·0.02.
    let both = [courier("cheap", 300, 600, 400), courier("dear", 450, 980, 20)];
    let (name, choice) = chosen(&both, STAKES, 1);
    assert_eq!((name.as_str(), choice.reason), ("dear", DecisionReason::Expected));
    assert_eq!(choice.propensity_permille, 1_000);
    let patient = Stakes { lateness_cost_minor: 100, ..STAKES };
    assert_eq!(chosen(&both, patient, 1).0, "cheap");
    let mut chance = Chance::seeded(1);
    let uninformed = choose(&both, STAKES, false, Policy::Thompson, &mut chance).unwrap();
    assert_eq!((uninformed.index, uninformed.reason), (0, DecisionReason::Price));
}

#[test]
fn the_promise_goes_before_the_price() {
    let both = [courier("cheap", 100, 800, 200), courier("dear", 900, 990, 10)];
    assert_eq!(chosen(&both, STAKES, 1).0, "cheap");
    let strict = Stakes { max_late_permille: 50, ..STAKES };
    assert_eq!(chosen(&both, strict, 1).0, "dear");
    // Nobody keeps it: who comes closest.
    let none = Stakes { max_late_permille: 1, ..STAKES };
    assert_eq!(chosen(&both, none, 1).0, "dear");
}

#[test]
fn an_operators_weight_makes_a_courier_look_cheaper() {
    let mut both = [courier("a", 500, 990, 10), courier("b", 600, 990, 10)];
    assert_eq!(chosen(&both, STAKES, 1).0, "a");
    both[1].weight_percent = 200;
    assert_eq!(chosen(&both, STAKES, 1).0, "b");
}

#[test]
fn breakers_decide_who_may_be_chosen() {
    let mut both = [courier("a", 500, 990, 10), courier("b", 600, 990, 10)];
    both[0].permit = Permit::No;
    both[0].moved_at = Millis(2);
    assert_eq!(chosen(&both, STAKES, 1).1.reason, DecisionReason::Only);
    both[1].permit = Permit::No;
    both[1].moved_at = Millis(1);
    let (name, choice) = chosen(&both, STAKES, 1);
    assert_eq!((name.as_str(), choice.reason), ("a", DecisionReason::LastResort));
    both[1].permit = Permit::Probe;
    let (name, choice) = chosen(&both, STAKES, 1);
    assert_eq!((name.as_str(), choice.reason), ("b", DecisionReason::Probe));
    assert_eq!(choose(&[], STAKES, true, Policy::Thompson, &mut Chance::seeded(1)), None);
}

/// The recorded propensities are right on average: who is chosen in a share of all decisions is
/// chosen with that mean propensity.
#[test]
fn propensities_are_calibrated() {
    let both = [courier("a", 500, 18, 2), courier("b", 520, 18, 2)];
    let (mut times, mut inverse) = (0, 0.0);
    for seed in 0..4_000 {
        let (name, choice) = chosen(&both, STAKES, seed);
        if name == "b" {
            times += 1;
            inverse += 1_000.0 / f64::from(choice.propensity_permille);
        }
    }
    assert!((1_000..2_500).contains(&times), "{times}");
    // Inverse propensity weighting must find one decision per order.
    assert!((inverse / 4_000.0 - 1.0).abs() < 0.08, "{inverse}");
}

#[test]
fn the_same_seed_decides_the_same() {
    let both = [courier("a", 500, 18, 2), courier("b", 520, 18, 2)];
    for seed in 0..100 {
        assert_eq!(chosen(&both, STAKES, seed), chosen(&both, STAKES, seed));
    }
}

#[test]
fn early_signs_move_the_choice() {
    let mut belief = Belief::default();
    (0..990).for_each(|_| belief.outcome(true));
    for _ in 0..700 {
        belief.early(EarlySign::None, EarlySign::Ill);
    }
    let mut both = [courier("cheap", 400, 0, 0), courier("dear", 500, 950, 50)];
    both[0].belief = belief.parameters();
    both[0].late_permille = belief.late_permille();
    assert_eq!(chosen(&both, STAKES, 1).0, "dear");
}
