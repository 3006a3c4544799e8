//! Rotary position embedding (Su et al. 2021) in the "rotate-half" pairing: dimension i turns with dimension i + head_dim/2.

use super::simd::vectorised;

/// Cosines and sines, each `[length, head_dim / 2]`: the angle of (position, i) is `position * base^(-2i / head_dim)`.
#[derive(Clone, Debug)]
pub struct Rotary {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotary {
    /// Tables for positions `0..length`; angles are f32 products, as the published models compute them.
    ///
    /// # Panics
    /// If `head_dim` is odd or 0.
    pub fn new(length: usize, head_dim: usize, base: f64) -> Self {
        assert!(head_dim > 0 && head_dim.is_multiple_of(2), "rotary needs pairs, head_dim is {head_dim}");
        let half = head_dim / 2;
        let frequencies = Self::frequencies(head_dim, base);
        let angles = (0..length).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { cos, sin, half }
    }

    /// `base^(-2i / head_dim)` for i in `0..head_dim / 2`.
    pub fn frequencies(head_dim: usize, base: f64) -> Vec<f32> {
        (0..head_dim / 2).map(|i| base.powf(-(2.0 * i as f64) / head_dim as f64) as f32).collect()
    }

    /// Cosines, `[length, head_dim / 2]`.
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// Sines, `[length, head_dim / 2]`.
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }

    /// Positions in the tables.
    pub fn length(&self) -> usize {
        self.cos.len() / self.half
    }

    /// Numbers in a head.
    pub fn head_dim(&self) -> usize {
        2 * self.half
    }

    /// `out = scale * (x turned by the angles of position)`, one head.
    pub fn turn(&self, position: usize, x: &[f32], scale: f32, out: &mut [f32]) {
        let at = position * self.half..(position + 1) * self.half;
        let ((x0, x1), (y0, y1)) = (x.split_at(self.half), out.split_at_mut(self.half));
        turn_pairs((x0, x1), (&self.cos[at.clone()], &self.sin[at]), scale, y0, y1);
    }

    /// `out += scale * (x turned back)`: the adjoint of `turn`.
    pub fn add_turned_back(&self, position: usize, x: &[f32], scale: f32, out: &mut [f32]) {
        let at = position * self.half..(position + 1) * self.half;
        let ((x0, x1), (y0, y1)) = (x.split_at(self.half), out.split_at_mut(self.half));
        add_back_pairs((x0, x1), (&self.cos[at.clone()], &self.sin[at]), scale, y0, y1);
    }
}

vectorised! {
    fn turn_pairs(x: (&[f32], &[f32]), table: (&[f32], &[f32]), scale: f32, y0: &mut [f32], y1: &mut [f32]) {
        let n = y0.len();
        let (x0, x1, cos, sin, y1) = (&x.0[..n], &x.1[..n], &table.0[..n], &table.1[..n], &mut y1[..n]);
        for i in 0..n {
            y0[i] = scale * (x0[i] * cos[i] - x1[i] * sin[i]);
            y1[i] = scale * (x1[i] * cos[i] + x0[i] * sin[i]);
        }
    }
}

vectorised! {
    fn add_back_pairs(x: (&[f32], &[f32]), table: (&[f32], &[f32]), scale: f32, y0: &mut [f32], y1: &mut [f32]) {
        let n = y0.len();
        let (x0, x1, cos, sin, y1) = (&x.0[..n], &x.1[..n], &table.0[..n], &table.1[..n], &mut y1[..n]);
        for i in 0..n {
            y0[i] += scale * (x0[i] * cos[i] + x1[i] * sin[i]);
            y1[i] += scale * (x1[i] * cos[i] - x0[i] * sin[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, wide};
    use super::*;

    #[test]
    fn turning_back_undoes_and_lengths_are_kept() {
        let rotary = Rotary::new(9, 8, 10_000.0);
        assert_eq!((rotary.length(), rotary.head_dim()), (9, 8));
        let x = random(8, 1);
        let (mut y, mut z) = (vec![0.0; 8], vec![0.0; 8]);
        rotary.turn(0, &x, 1.0, &mut y);
        assert_eq!(y, x);
        rotary.turn(7, &x, 2.0, &mut y);
        rotary.add_turned_back(7, &y, 0.5, &mut z);
        close(&z, &wide(&x), 1e-6);
        let (a, b) = (1.0f64, 7.0f64);
        assert!((f64::from(y[0]) - 2.0 * (f64::from(x[0]) * b.cos() - f64::from(x[4]) * (a * b).sin())).abs() < 1e-5);
    }
}
