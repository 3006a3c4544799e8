//! Noise as training uses it: levels, coins and clips together.

use bd3::noise::{Clip, Grid, Schedule, all_subsets, candidates, coins_within, draw_subset, hide, row_times};
use bd3::rng::Rng;
use proptest::prelude::*;

/// The two forms of the bound are one number: over the noise level with weight p'/p, and over subsets with weight n/k. For
/// each schedule, integrated over t on a fine grid; the loss of a subset is an arbitrary function of it.
#[test]
fn the_bound_over_levels_equals_the_bound_over_subsets() {
    let nats = |subset: &[usize]| 0.3 + subset.iter().map(|&i| (i as f64 + 1.7).sin().abs()).sum::<f64>();
    let n = 3;
    let by_subsets: f64 = all_subsets(n).unwrap().map(|s| s.probability * s.weight * nats(&s.members)).sum();
    for schedule in [Schedule::LogLinear, Schedule::Log] {
        let steps = 20_000;
        let by_levels: f64 = (0..steps)
            .map(|i| {
                let t = (f64::from(i) + 0.5) / f64::from(steps);
                let p = schedule.mask_prob(t);
                let at_t: f64 = all_subsets(n)
                    .unwrap()
                    .map(|s| {
                        let k = s.members.len() as i32;
                        p.powi(k) * (1.0 - p).powi(n as i32 - k) * nats(&s.members)
                    })
                    .sum();
                schedule.weight(t) * at_t / f64::from(steps)
            })
            .sum();
        assert!((by_levels / by_subsets - 1.0).abs() < 1e-3, "{schedule}: {by_levels} {by_subsets}");
    }
}

proptest! {
    #[test]
    fn every_candidate_of_the_search_can_be_trained_with(block in 2usize..17, which in 0usize..36, seed in 0u64..1000) {
        let clips = candidates(block, &[0.5, 0.6, 0.7, 0.8, 0.9], Grid::Exact).unwrap();
        prop_assert_eq!(clips.len(), 36);
        let mut rng = Rng::new(seed);
        let times = row_times(4, clips[which], &mut rng);
        let probs: Vec<f64> = times.iter().flat_map(|&t| vec![t; block]).collect();
        let coins = coins_within(&probs, clips[which], block, |_, _| rng.uniform()).unwrap();
        for block_coins in coins.chunks(block) {
            prop_assert!(clips[which].holds(block_coins.iter().filter(|&&coin| coin).count(), block));
        }
        let row: Vec<u32> = (0..coins.len() as u32).collect();
        prop_assert_eq!(hide(&row, &coins, 999)[0], 0);
    }

    /// The levels of a square schedule clipped to [0.6, 0.9] mask a block's tokens with probability 0.36 to 0.81: shares of
    /// that size are wanted, not of 0.6 to 0.9.
    #[test]
    fn the_masked_share_is_bounded_in_mask_probabilities(seed in 0u64..1000) {
        let clip = Clip::new(0.6, 0.9).unwrap();
        let mut rng = Rng::new(seed);
        let times = row_times(4, clip, &mut rng);
        let probs: Vec<f64> = times.iter().flat_map(|&t| vec![Schedule::Square.mask_prob(t); 8]).collect();
        let bounds = Schedule::Square.clip_of_probs(clip);
        let coins = coins_within(&probs, bounds, 8, |_, _| rng.uniform()).unwrap();
        for block in coins.chunks(8) {
            prop_assert!((3..=6).contains(&block.iter().filter(|&&coin| coin).count()));
        }
    }

    #[test]
    fn block_size_one_is_always_masked(seed in 0u64..100) {
        let mut rng = Rng::new(seed);
        let times = row_times(5, Clip::MASKED, &mut rng);
        prop_assert!(coins_within(&times, Clip::MASKED, 1, |_, _| rng.uniform()).unwrap().iter().all(|&coin| coin));
        let subset = draw_subset(1, &mut rng);
        prop_assert_eq!((subset.members, subset.weight, subset.probability), (vec![0], 1.0, 1.0));
    }
}
