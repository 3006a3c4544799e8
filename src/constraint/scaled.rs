//! Positive numbers of any size: sums of products over hundreds of rows leave the range of f64, and logarithms would take most of the time.

use std::cmp::Ordering;

/// `mantissa * 2^exponent`, with a mantissa in [1, 2), or 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaled {
    mantissa: f64,
    exponent: i32,
}

const EXPONENT: u64 = 0x7ff << 52;

/// `2^exponent`; 0 where that is too small to be seen beside 1.
fn power(exponent: i32) -> f64 {
    if exponent < -1022 { 0.0 } else { f64::from_bits(((1023 + exponent.min(1023)) as u64) << 52) }
}

impl Scaled {
    pub const ONE: Self = Self { mantissa: 1.0, exponent: 0 };
    pub const ZERO: Self = Self { mantissa: 0.0, exponent: i32::MIN / 2 };

    /// A number that is not negative; one below the least normal number counts as 0.
    pub fn of(number: f64) -> Self {
        if number < f64::MIN_POSITIVE {
            return Self::ZERO;
        }
        let bits = number.to_bits();
        let exponent = (bits >> 52) as i32 - 1023;
        Self { mantissa: f64::from_bits(bits & !EXPONENT | 1023 << 52), exponent }
    }

    pub fn times(self, other: Self) -> Self {
        let product = Self::of(self.mantissa * other.mantissa);
        Self { exponent: product.exponent.saturating_add(self.exponent).saturating_add(other.exponent), ..product }
    }

    /// This over another one that is not 0, as a plain number.
    pub fn over(self, other: Self) -> f64 {
        self.mantissa / other.mantissa * power(self.exponent.saturating_sub(other.exponent))
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
                let sum = Scaled::sum(&[x, y]).over(Scaled::ONE);
                assert!((sum - (a + b)).abs() <= 1e-15 * (a + b), "{a} {b}");
                if b > 0.0 && (a / b).is_normal() {
                    assert!((x.over(y) - a / b).abs() <= 1e-15 * (a / b), "{a} {b}");
                }
                if a * b > f64::MIN_POSITIVE {
                    assert!((x.times(y).over(Scaled::ONE) - a * b).abs() <= 1e-15 * (a * b), "{a} {b}");
                }
            }
        }
        assert_eq!(Scaled::sum(&[]), Scaled::sum(&[Scaled::ZERO]));
        assert_eq!(Scaled::ZERO.times(Scaled::ZERO).over(Scaled::ONE), 0.0);
    }

    #[test]
    fn what_is_far_too_small_for_a_plain_number_is_kept() {
        let tiny = (0..300).fold(Scaled::ONE, |product, _| product.times(Scaled::of(1e-300)));
        let half = tiny.times(Scaled::of(0.5));
        assert_eq!(half.over(tiny), 0.5);
        assert_eq!(Scaled::greatest(&[half, tiny, Scaled::ZERO]), tiny);
        assert_eq!(Scaled::sum(&[tiny, half, half]).over(tiny), 2.0);
        assert_eq!(tiny.over(Scaled::ONE), 0.0);
    }
}
