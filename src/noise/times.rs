//! Noise levels: one t per block, spread evenly so that a bound has less variance than with independent draws.

use crate::rng::Rng;

use super::Clip;

/// Noise levels for the blocks of one row and one draw: t_b = (U + perm(b) / B) mod 1, mapped to the clip interval. Every
/// stratum of the interval is hit once, each block is uniform by itself, and a row does not depend on its batch.
/// Shape: `[blocks]`.
pub fn row_times(blocks: usize, clip: Clip, rng: &mut Rng) -> Vec<f64> {
    let offset = rng.uniform();
    let mut strata: Vec<usize> = (0..blocks).collect();
    rng.shuffle(&mut strata);
    strata.into_iter().map(|stratum| clip.at((offset + stratum as f64 / blocks as f64).fract())).collect()
}

/// How the official code spreads its uniforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As drawn.
    Independent,
    /// Antithetic: flat index i of N is moved into [i/N, (i+1)/N). Not shuffled, so that early rows and early blocks only
    /// ever see low noise.
    Antithetic,
}

/// The official noise levels from recorded uniforms, in f32 like the official code. `uniforms` and result: `[rows * blocks]`,
/// row-major.
pub fn official_times(uniforms: &[f32], clip: Clip, spread: Spread) -> Vec<f32> {
    if clip.beta() >= 1.0 && clip.omega() >= 1.0 {
        return vec![1.0; uniforms.len()];
    }
    let count = uniforms.len() as f32;
    let width = (clip.omega() - clip.beta()) as f32;
    let spread_out = |(i, &u): (usize, &f32)| match spread {
        Spread::Independent => u,
        Spread::Antithetic => (u / count + i as f32 / count) % 1.0,
    };
    uniforms.iter().enumerate().map(spread_out).map(|u| u * width + clip.beta() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stratum_is_hit_once() {
        let mut rng = Rng::new(1);
        for _ in 0..50 {
            let mut strata: Vec<usize> = row_times(8, Clip::FULL, &mut rng)
                .into_iter()
                .map(|t| (((t - 1e-3) / 0.999) * 8.0).floor() as usize)
                .collect();
            strata.sort_unstable();
            assert_eq!(strata, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }

    #[test]
    fn levels_stay_inside_the_clip() {
        let clip = Clip::new(0.3, 0.8).unwrap();
        let mut rng = Rng::new(2);
        assert!((0..100).flat_map(|_| row_times(3, clip, &mut rng)).all(|t| (0.3..0.8).contains(&t)));
        assert_eq!(row_times(3, Clip::MASKED, &mut rng), [1.0; 3]);
        assert_eq!(official_times(&[0.1, 0.9], Clip::MASKED, Spread::Antithetic), [1.0; 2]);
    }
}
