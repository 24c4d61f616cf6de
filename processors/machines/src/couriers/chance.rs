//! Chance that is the same on every machine and in every replay: a generator seeded from the order
//! at hand, and draws from a Beta distribution.
//!
//! Only `+`, `−`, `×`, `÷` and `sqrt` on `f64` are used. IEEE 754 defines their results to the last
//! bit, and rustc neither reorders them nor fuses a multiplication with an addition, so a draw is a
//! function of its seed. `f64::ln` and its kin come from the platform's library and are not: hence
//! [`ln`].

use events::OrderKey;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The stream that belongs to an attempt of an order; another `purpose` is another stream.
    pub fn of(order: &OrderKey, attempt: i32, purpose: u64) -> Self {
        let (high, low) = order.order_id.0.as_u64_pair();
        let mut seed = purpose;
        for word in
            [high, low, order.accepted_at.0.cast_unsigned(), u64::from(attempt.unsigned_abs())]
        {
            seed = mixed(seed ^ word);
        }
        Self(seed)
    }

    /// The stream of a number.
    pub fn seeded(seed: u64) -> Self {
        Self(mixed(seed))
    }

    /// 64 random bits (SplitMix64, Steele, Lea and Flood 2014).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// A whole number from 0 up to, not including, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of the multiplication is below end / 2^64.
        u64::try_from((u128::from(self.draw()) * u128::from(end)) >> 64).unwrap_or(0)
    }

    /// Uniform between 0 and 1, neither of them.
    fn unit(&mut self) -> f64 {
        // 52 bits are exact in an f64, and so is the half.
        #[allow(clippy::cast_precision_loss)]
        let numerator = (self.draw() >> 12) as f64 + 0.5;
        numerator / 4_503_599_627_370_496.0
    }

    /// Standard normal, by inversion: P. J. Acklam's rational approximation, relative error below
    /// 1.15e-9.
    fn normal(&mut self) -> f64 {
        const A: [f64; 6] = [
            -3.969683028665376e1,
            2.209460984245205e2,
            -2.759285104469687e2,
            1.38357751867269e2,
            -3.066479806614716e1,
            2.506628277459239,
        ];
        const B: [f64; 5] = [
            -5.447609879822406e1,
            1.615858368580409e2,
            -1.556989798598866e2,
            6.680131188771972e1,
            -1.328068155288572e1,
        ];
        const C: [f64; 6] = [
            -7.784894002430293e-3,
            -3.223964580411365e-1,
            -2.400758277161838,
            -2.549732539343734,
            4.374664141464968,
            2.938163982698783,
        ];
        const D: [f64; 4] =
            [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
        const LOW: f64 = 0.02425;
        let p = self.unit();
        let tail = |p: f64| {
            let q = (-2.0 * ln(p)).sqrt();
            let over = ((((C[0] * q + C[1]) * q + C[2]) * q + C[3]) * q + C[4]) * q + C[5];
            over / ((((D[0] * q + D[1]) * q + D[2]) * q + D[3]) * q + 1.0)
        };
        if p < LOW {
            return tail(p);
        }
        if p > 1.0 - LOW {
            return -tail(1.0 - p);
        }
        let q = p - 0.5;
        let r = q * q;
        let over = (((((A[0] * r + A[1]) * r + A[2]) * r + A[3]) * r + A[4]) * r + A[5]) * q;
        over / (((((B[0] * r + B[1]) * r + B[2]) * r + B[3]) * r + B[4]) * r + 1.0)
    }

    /// Gamma with this shape, at least 1, and scale 1 (Marsaglia and Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let base = 1.0 + c * x;
            if base <= 0.0 {
                continue;
            }
            let v = base * base * base;
            let (u, square) = (self.unit(), x * x);
            if u < 1.0 - 0.0331 * square * square {
                return d * v;
            }
            if ln(u) < 0.5 * square + d * (1.0 - v + ln(v)) {
                return d * v;
            }
        }
    }

    /// Beta(a, b); both at least 1.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.gamma(a), self.gamma(b));
        x / (x + y)
    }
}

/// SplitMix64's finalizer.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Natural logarithm of a positive normal number, absolute error below 1e-13: ln(m·2^e) with
/// ln m = 2·atanh((m−1)/(m+1)) as a series.
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    let mut exponent = i32::try_from((bits >> 52) & 0x7ff).unwrap_or(0) - 1023;
    let mut mantissa = f64::from_bits((bits & MANTISSA) | 1.0_f64.to_bits());
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let mut series = 1.0 / 17.0;
    for denominator in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * s2 + 1.0 / denominator;
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_the_librarys_but_for_rounding() {
        let mut chance = Chance::seeded(1);
        for _ in 0..100_000 {
            let x = chance.unit() * 4.0;
            assert!((ln(x) - x.ln()).abs() < 1e-13, "{x}");
        }
    }

    /// Pinned: another result would decide differently when a batch is redone after an upgrade.
    #[test]
    fn draws_are_pinned() {
        let mut chance = Chance::seeded(7);
        assert_eq!(chance.draw(), PINNED.0);
        assert_eq!(chance.beta(3.5, 900.25).to_bits(), PINNED.1);
        assert_eq!(chance.beta(1.0, 1.0).to_bits(), PINNED.2);
    }

    /// Computed by a port of this file to another language.
    const PINNED: (u64, u64, u64) =
        (9_672_475_392_221_035_855, 4_567_873_936_489_746_845, 4_599_090_294_082_399_749);

    #[test]
    fn a_beta_has_its_mean_and_variance() {
        let mut chance = Chance::seeded(3);
        for (a, b) in [(1.0, 1.0), (1.5, 20.0), (930.0, 70.0), (200.0, 1.0)] {
            let draws: Vec<f64> = (0..40_000).map(|_| chance.beta(a, b)).collect();
            let mean = draws.iter().sum::<f64>() / 40_000.0;
            let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 40_000.0;
            let expected_mean = a / (a + b);
            let expected = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            assert!((mean - expected_mean).abs() < 5.0 * (expected / 40_000.0).sqrt(), "{a} {b}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{a} {b}: {variance} {expected}");
        }
    }

    #[test]
    fn whole_numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut chance = Chance::seeded(5);
        let mut seen = [0; 6];
        for _ in 0..6_000 {
            seen[usize::try_from(chance.below(6)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
    }
}
