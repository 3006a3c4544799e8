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
        let frequencies = crate::arch::rotary_frequencies(head_dim, base);
        let angles = (0..length).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        Self { cos, sin, half }
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

    /// `out [length, head_dim] = scale * (x turned)`; row p of `x` starts at `p * stride` and is at position p.
    pub fn turn(&self, x: &[f32], stride: usize, scale: f32, out: &mut [f32]) {
        turn_rows(x, stride, (&self.cos, &self.sin), (self.half, scale), out);
    }

    /// `out[p] += scale * (row p of x [length, head_dim] turned back)`: the adjoint of `turn`.
    pub fn add_turned_back(&self, x: &[f32], scale: f32, out: &mut [&mut [f32]]) {
        add_rows_turned_back(x, (&self.cos, &self.sin), (self.half, scale), out);
    }
}

vectorised! {
    fn turn_rows(x: &[f32], stride: usize, table: (&[f32], &[f32]), shape: (usize, f32), out: &mut [f32]) {
        let (half, scale) = shape;
        let tables = table.0.chunks_exact(half).zip(table.1.chunks_exact(half));
        for ((x, out), (cos, sin)) in x.chunks(stride).zip(out.chunks_exact_mut(2 * half)).zip(tables) {
            let ((x0, x1), (y0, y1)) = (x[..2 * half].split_at(half), out.split_at_mut(half));
            let pairs = x0.iter().zip(x1).zip(cos.iter().zip(sin));
            for ((y0, y1), ((x0, x1), (cos, sin))) in y0.iter_mut().zip(y1).zip(pairs) {
                *y0 = scale * (x0 * cos - x1 * sin);
                *y1 = scale * (x1 * cos + x0 * sin);
            }
        }
    }
}

vectorised! {
    fn add_rows_turned_back(x: &[f32], table: (&[f32], &[f32]), shape: (usize, f32), out: &mut [&mut [f32]]) {
        let (half, scale) = shape;
        let tables = table.0.chunks_exact(half).zip(table.1.chunks_exact(half));
        for ((x, out), (cos, sin)) in x.chunks_exact(2 * half).zip(out).zip(tables) {
            let ((x0, x1), (y0, y1)) = (x.split_at(half), out[..2 * half].split_at_mut(half));
            let pairs = x0.iter().zip(x1).zip(cos.iter().zip(sin));
            for ((y0, y1), ((x0, x1), (cos, sin))) in y0.iter_mut().zip(y1).zip(pairs) {
                *y0 += scale * (x0 * cos + x1 * sin);
                *y1 += scale * (x1 * cos - x0 * sin);
            }
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
        let x = random(9 * 10, 1);
        let (mut turned, mut back) = (vec![0.0; 72], vec![0.0; 72]);
        rotary.turn(&x[..88], 10, 2.0, &mut turned);
        rotary.add_turned_back(&turned, 0.5, &mut back.chunks_mut(8).collect::<Vec<_>>());
        for (x, back) in x.chunks(10).zip(back.chunks(8)) {
            close(back, &wide(&x[..8]), 1e-6);
        }
        let (x, y) = (&x[70..78], &turned[56..]);
        let (a, b) = (1.0f64, 7.0f64);
        assert!((f64::from(y[0]) - 2.0 * (f64::from(x[0]) * b.cos() - f64::from(x[4]) * (a * b).sin())).abs() < 1e-5);
    }
}
