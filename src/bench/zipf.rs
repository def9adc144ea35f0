//! Numbers by Zipf's law: the number `k` of `1..=n` comes with a probability proportional to `k^-s`.
//!
//! Rejection-inversion (Hörmann and Derflinger, *Rejection-Inversion to Generate Variates from Monotone Discrete
//! Distributions*, ACM TOMACS 6(3), 1996): the area under `x^-s` is inverted, and what lies above the steps is drawn
//! again. No table, and the same few operations whatever `n` is.

/// A distribution over `0..count`, the smallest number the most frequent.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    count: f64,
    exponent: f64,
    area_first: f64,
    area_last: f64,
    /// Below this distance a draw is taken without looking closer.
    near: f64,
}

impl Zipf {
    /// Numbers below `count` with this exponent; both must be above 0.
    pub(super) fn new(count: u64, exponent: f64) -> Zipf {
        let count = count as f64;
        let mut zipf = Zipf { count, exponent, area_first: 0.0, area_last: 0.0, near: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(count + 0.5);
        zipf.near = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    /// The number for a uniform draw, if it is not to be drawn again.
    pub(super) fn try_number(&self, random: u64) -> Option<u64> {
        let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let area = self.area_last + uniform * (self.area_first - self.area_last);
        let x = self.area_inverse(area);
        let k = (x + 0.5).floor().clamp(1.0, self.count);
        let taken = k - x <= self.near || area >= self.area(k + 0.5) - self.height(k);
        taken.then_some(k as u64 - 1)
    }

    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The area under the curve from 1 to `x`.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        quotient((1.0 - self.exponent) * log) * log
    }

    fn area_inverse(&self, area: f64) -> f64 {
        let t = ((1.0 - self.exponent) * area).max(-1.0);
        (log_quotient(t) * area).exp()
    }
}

/// `(e^x - 1) / x`, also near 0.
fn quotient(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// `ln(1 + x) / x`, also near 0.
fn log_quotient(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::splitmix64;

    /// Against the probabilities as the law has them.
    #[test]
    fn frequencies_follow_the_law() {
        const DRAWS: usize = 200_000;
        for (count, exponent) in [(10_u64, 0.99), (10, 1.0), (1000, 0.5), (1, 0.99), (100, 2.0)] {
            let zipf = Zipf::new(count, exponent);
            let mut seed = 7;
            let mut seen = vec![0_usize; usize::try_from(count).expect("small")];
            let mut drawn = 0;
            while drawn < DRAWS {
                if let Some(number) = zipf.try_number(splitmix64(&mut seed)) {
                    seen[usize::try_from(number).expect("below count")] += 1;
                    drawn += 1;
                }
            }
            let total: f64 = (1..=count).map(|k| (k as f64).powf(-exponent)).sum();
            for (number, seen) in seen.iter().enumerate().take(10) {
                let expected = ((number + 1) as f64).powf(-exponent) / total * DRAWS as f64;
                let deviation = (*seen as f64 - expected).abs() / expected.sqrt();
                assert!(
                    deviation < 5.0,
                    "{count} {exponent}: {number} came {seen} times, expected {expected}"
                );
            }
        }
    }
}
