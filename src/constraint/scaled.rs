//! Positive numbers of any size: sums of products over hundreds of rows leave the range of f64, and logarithms would take most of the time.

use std::cmp::Ordering;

/// `mantissa * 2^exponent`, with a mantissa in [1, 2), or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    mantissa: f64,
    exponent: i64,
}

const EXPONENT: u64 = 0x7ff << 52;

/// `2^exponent`; 0 where that is too small to be seen beside 1.
fn power(exponent: i64) -> f64 {
    if exponent < -1022 { 0.0 } else { f64::from_bits(((1023 + exponent.min(1023)) as u64) << 52) }
}

impl Scaled {
    pub const ONE: Self = Self { mantissa: 1.0, exponent: 0 };
    pub const ZERO: Self = Self { mantissa: 0.0, exponent: i64::MIN / 2 };

    /// A number that is not negative; one below the least normal number counts as 0.
    pub fn of(number: f64) -> Self {
        if number < f64::MIN_POSITIVE {
            return Self::ZERO;
        }
        let bits = number.to_bits();
        let exponent = (bits >> 52) as i64 - 1023;
        Self { mantissa: f64::from_bits(bits & !EXPONENT | 1023 << 52), exponent }
    }

    /// `e^logarithm`; of minus infinity 0.
    pub fn exp(logarithm: f64) -> Self {
        if logarithm == f64::NEG_INFINITY {
            return Self::ZERO;
        }
        let exponent = (logarithm / std::f64::consts::LN_2).floor();
        let rest = Self::of((logarithm - exponent * std::f64::consts::LN_2).exp());
        Self { exponent: rest.exponent.saturating_add(exponent as i64), ..rest }
    }

    pub fn times(self, other: Self) -> Self {
        let product = Self::of(self.mantissa * other.mantissa);
        Self { exponent: product.exponent.saturating_add(self.exponent).saturating_add(other.exponent), ..product }
    }

    /// This over another one that is not 0.
    pub fn per(self, other: Self) -> Self {
        let part = Self::of(self.mantissa / other.mantissa);
        let exponent = part.exponent.saturating_add(self.exponent).saturating_sub(other.exponent);
        Self { exponent, ..part }
    }

    /// As a plain number.
    pub fn number(self) -> f64 {
        self.mantissa * power(self.exponent)
    }

    pub fn plus(self, other: Self) -> Self {
        Self::sum(&[self, other])
    }

    pub fn sum(terms: &[Self]) -> Self {
        let most = terms.iter().map(|term| term.exponent).max().unwrap_or(Self::ZERO.exponent);
        let sum = terms.iter().map(|term| term.mantissa * power(term.exponent.saturating_sub(most))).sum();
        let sum = Self::of(sum);
        Self { exponent: sum.exponent.saturating_add(most), ..sum }
    }

    /// Which is greater.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.exponent.cmp(&other.exponent).then(self.mantissa.total_cmp(&other.mantissa))
    }

    pub fn greatest(terms: &[Self]) -> Self {
        terms.iter().copied().max_by(Self::compare).unwrap_or(Self::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_that_of_plain_numbers_where_they_reach() {
        let numbers = [1.0, 0.75, 3.5e-9, 1e-200, f64::MIN_POSITIVE, 1e200, 0.0];
        for a in numbers {
            for b in numbers {
                let (x, y) = (Scaled::of(a), Scaled::of(b));
                assert_eq!(x.compare(&y), a.total_cmp(&b), "{a} {b}");
                let sum = x.plus(y).number();
                assert!((sum - (a + b)).abs() <= 1e-15 * (a + b), "{a} {b}");
                if b > 0.0 && (a / b).is_normal() {
                    assert!((x.per(y).number() - a / b).abs() <= 1e-15 * (a / b), "{a} {b}");
                }
                if a * b > f64::MIN_POSITIVE {
                    assert!((x.times(y).number() - a * b).abs() <= 1e-15 * (a * b), "{a} {b}");
                }
            }
        }
        assert_eq!(Scaled::sum(&[]), Scaled::sum(&[Scaled::ZERO]));
        assert_eq!(Scaled::ZERO.times(Scaled::ZERO).number(), 0.0);
    }

    #[test]
    fn logarithms_are_undone() {
        for logarithm in [0.0, 0.1, -0.1, 5.0, -700.0, 700.0, -1e4, -1e9, 1e9] {
            let (number, next) = (Scaled::exp(logarithm), Scaled::exp(logarithm - 1.0));
            assert!((next.per(number).number() - (-1f64).exp()).abs() < 1e-6, "{logarithm}");
        }
        assert_eq!(Scaled::exp(0.0), Scaled::ONE);
        assert_eq!(Scaled::exp(f64::NEG_INFINITY), Scaled::ZERO);
        assert!((Scaled::exp(2.5).number() - 2.5f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn what_is_far_too_small_for_a_plain_number_is_kept() {
        let tiny = (0..300).fold(Scaled::ONE, |product, _| product.times(Scaled::of(1e-300)));
        let half = tiny.times(Scaled::of(0.5));
        assert_eq!(half.per(tiny).number(), 0.5);
        assert_eq!(Scaled::greatest(&[half, tiny, Scaled::ZERO]), tiny);
        assert_eq!(Scaled::sum(&[tiny, half, half]).per(tiny).number(), 2.0);
        assert_eq!(tiny.number(), 0.0);
    }
}
