//! What is believed of a courier on a lane: how likely its consignments come late. A discounted Beta
//! distribution (discounted Thompson sampling: arXiv 2305.10718), so that what happened lately
//! counts most and a courier that was bad is tried again.

use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// One outcome in fixed point: 20 bits behind the point, so that a discount is a shift and an exact
/// whole number everywhere.
const ONE: u64 = 1 << 20;

/// At each outcome of the lane all earlier ones lose 1/1024: about the last thousand count.
const DISCOUNT_SHIFT: u32 = 10;

/// Outcomes of a courier on a lane.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Belief {
    /// Discounted outcomes in time, fixed point.
    on_time: u64,
    /// Discounted outcomes too late, fixed point.
    late: u64,
    /// Consignments under way that were scanned in time.
    early_well: u32,
    /// Consignments under way whose pick-up was missed or whose first scan is overdue.
    early_ill: u32,
}

/// What is known of a consignment before it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EarlySign {
    /// Nothing.
    #[default]
    None,
    /// Scanned in time.
    Well,
    /// Pick-up missed, or first scan overdue.
    Ill,
}

impl Belief {
    /// All earlier outcomes count a little less. To be called once per outcome of the lane, for
    /// every courier on it.
    pub fn discount(&mut self) {
        self.on_time -= self.on_time >> DISCOUNT_SHIFT;
        self.late -= self.late >> DISCOUNT_SHIFT;
    }

    /// A consignment came in time, or did not.
    pub fn outcome(&mut self, on_time: bool) {
        if on_time {
            self.on_time += ONE;
        } else {
            self.late += ONE;
        }
    }

    /// The label was refused: a quarter of a late consignment, since a refusal is as often about the
    /// address.
    pub fn refused(&mut self) {
        self.late += ONE / 4;
    }

    /// What is known early of one consignment was one thing and is another now. An early sign counts
    /// like an outcome until the outcome replaces it.
    pub fn early(&mut self, before: EarlySign, now: EarlySign) {
        match before {
            EarlySign::None => {}
            EarlySign::Well => self.early_well = self.early_well.saturating_sub(1),
            EarlySign::Ill => self.early_ill = self.early_ill.saturating_sub(1),
        }
        match now {
            EarlySign::None => {}
            EarlySign::Well => self.early_well = self.early_well.saturating_add(1),
            EarlySign::Ill => self.early_ill = self.early_ill.saturating_add(1),
        }
    }

    /// Whether anything is known.
    pub fn informed(&self) -> bool {
        self.on_time + self.late > 0 || self.early_well + self.early_ill > 0
    }

    /// The belief's parameters: Beta(late, on time), from a uniform prior.
    pub fn parameters(&self) -> (f64, f64) {
        // Far below 2^53: exact.
        #[allow(clippy::cast_precision_loss)]
        let weight =
            |fixed: u64, early: u32| 1.0 + (fixed + u64::from(early) * ONE) as f64 / ONE as f64;
        (weight(self.late, self.early_ill), weight(self.on_time, self.early_well))
    }

    /// Mean of the belief that a consignment comes late, 0 to 1000.
    pub fn late_permille(&self) -> i32 {
        let late = ONE + self.late + u64::from(self.early_ill) * ONE;
        let on_time = ONE + self.on_time + u64::from(self.early_well) * ONE;
        i32::try_from(1_000 * late / (late + on_time)).unwrap_or(1_000)
    }

    /// How late a consignment could be likely to come: one draw from the belief.
    pub fn draw_late((late, on_time): (f64, f64), chance: &mut Chance) -> f64 {
        chance.beta(late, on_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_lately_counts_most() {
        let mut belief = Belief::default();
        assert_eq!((belief.late_permille(), belief.informed()), (500, false));
        for _ in 0..5_000 {
            belief.discount();
            belief.outcome(true);
        }
        assert!(belief.late_permille() <= 1);
        for _ in 0..710 {
            belief.discount();
            belief.outcome(false);
        }
        // Half of the weight is renewed in 1024·ln 2 outcomes.
        assert!((495..505).contains(&belief.late_permille()), "{}", belief.late_permille());
    }

    #[test]
    fn an_outcome_replaces_the_early_sign() {
        let mut belief = Belief::default();
        belief.early(EarlySign::None, EarlySign::Ill);
        assert_eq!(belief.late_permille(), 666);
        belief.early(EarlySign::Ill, EarlySign::None);
        belief.outcome(true);
        assert_eq!(belief.late_permille(), 333);
    }
}
