//! Corruption of one row of ids: masking, masking within a clip interval (resampling), and replacing visible tokens by random
//! ones. Position 0 is bos: it is never changed. The draws come from the caller, so that recorded ones can be replayed.

use crate::error::{Error, Result};
use crate::rng::Rng;

use super::Clip;

/// How often a block may be drawn again. A clip interval that admits the block size needs a handful of rounds, since the
/// mask probability lies inside it; this many without success mean that `probs` and `clip` do not belong together.
pub const MAX_ROUNDS: usize = 10_000;

/// Tosses one coin per position: true means masked. `probs` and result: `[length]`; `draw(position)` is uniform in [0, 1).
pub fn coins(probs: &[f64], mut draw: impl FnMut(usize) -> f64) -> Vec<bool> {
    probs.iter().enumerate().map(|(i, &p)| draw(i) <= p).collect()
}

/// Tosses coins and tosses every block again whose masked fraction lies outside the clip interval (Arriola et al. 2025,
/// appendix C; `training.resample` in the official code). `clip` is an interval of mask probabilities
/// ([`super::Schedule::clip_of_probs`]), as `probs` are. The coin of position 0 is tossed and counted, so that the first
/// block has the same law as every other, although [`hide`] spares bos. `draw(round, position)` is uniform in [0, 1); round 0
/// is the first. As in the official code a token is masked when the draw is at most its probability, below it from round 1 on.
///
/// # Errors
/// When no number of masked tokens of this block size lies inside the interval, or a block is still outside after
/// [`MAX_ROUNDS`] rounds.
pub fn coins_within(
    probs: &[f64],
    clip: Clip,
    block: usize,
    mut draw: impl FnMut(usize, usize) -> f64,
) -> Result<Vec<bool>> {
    if !clip.admits(block) {
        let expected = format!("an interval that holds some count out of {block} masked tokens");
        return Err(Error::value("clip", expected, clip.to_string()));
    }
    let mut coins = coins(probs, |i| draw(0, i));
    for (b, coins) in coins.chunks_mut(block).enumerate() {
        let mut round = 0;
        while !clip.holds(coins.iter().filter(|&&masked| masked).count(), block) {
            round += 1;
            if round > MAX_ROUNDS {
                return Err(Error::Run(format!(
                    "resampling: block {b} is still outside of the clip {clip} after {MAX_ROUNDS} draws"
                )));
            }
            for (i, coin) in (b * block..).zip(coins.iter_mut()) {
                *coin = draw(round, i) < probs[i];
            }
        }
    }
    Ok(coins)
}

/// The row with the mask id where a coin says so; position 0 (bos) stays. `row`, `coins` and result: `[length]`.
pub fn hide(row: &[u32], coins: &[bool], mask_id: u32) -> Vec<u32> {
    debug_assert_eq!(row.len(), coins.len());
    let hidden = |(i, (&id, &masked)): (usize, (&u32, &bool))| if masked && i > 0 { mask_id } else { id };
    row.iter().zip(coins).enumerate().map(hidden).collect()
}

/// Replaces each visible token (not masked, not bos) with probability `share` by an id drawn uniformly from `allowed` (every
/// id but the mask and the special ones). Returns the positions, ascending: the loss is taken there too, so that the model
/// learns to doubt tokens that it sees (GIDD, von Rütte et al. 2025; token editing in LLaDA 2).
pub fn replace_visible(ids: &mut [u32], mask_id: u32, share: f64, allowed: &[u32], rng: &mut Rng) -> Vec<usize> {
    let mut replaced = Vec::new();
    if allowed.is_empty() {
        return replaced;
    }
    for (position, id) in ids.iter_mut().enumerate().skip(1) {
        if *id != mask_id && rng.uniform() < share {
            *id = allowed[rng.below(allowed.len())];
            replaced.push(position);
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 99;

    #[test]
    fn tokens_are_masked_at_their_probability_and_bos_never() {
        let row: Vec<u32> = (0..8).collect();
        let mut rng = Rng::new(3);
        assert_eq!(hide(&row, &[true; 8], MASK)[..2], [0, MASK]);
        let masked: usize =
            (0..2000).map(|_| coins(&[0.3; 8], |_| rng.uniform()).iter().filter(|&&masked| masked).count()).sum();
        assert!((masked as f64 / 16_000.0 - 0.3).abs() < 0.02, "{masked}");
    }

    #[test]
    fn every_block_ends_inside_the_interval() {
        let clip = Clip::new(0.45, 0.95).unwrap();
        let mut rng = Rng::new(4);
        for _ in 0..200 {
            let coins = coins_within(&[0.9; 16], clip, 4, |_, _| rng.uniform()).unwrap();
            for block in coins.chunks(4) {
                assert!((2..=3).contains(&block.iter().filter(|&&masked| masked).count()), "{coins:?}");
            }
        }
    }

    #[test]
    fn an_impossible_interval_is_an_error_not_a_loop() {
        let narrow = Clip::new(0.3, 0.45).unwrap();
        let error = coins_within(&[0.4; 8], narrow, 4, |_, _| 0.5).unwrap_err();
        assert!(error.to_string().contains("[0.3, 0.45]"), "{error}");
        let wide = Clip::new(0.45, 0.95).unwrap();
        let error = coins_within(&[0.0; 8], wide, 4, |_, _| 0.5).unwrap_err();
        assert!(error.to_string().contains("still outside"), "{error}");
    }

    #[test]
    fn visible_tokens_are_replaced_and_reported() {
        let mut rng = Rng::new(5);
        let mut ids = [50, 1, MASK, 2, MASK, 3];
        assert_eq!(replace_visible(&mut ids, MASK, 1.0, &[7], &mut rng), [1, 3, 5]);
        assert_eq!(ids, [50, 7, MASK, 7, MASK, 7]);
        assert!(replace_visible(&mut ids, MASK, 0.0, &[8], &mut rng).is_empty());
        assert!(replace_visible(&mut ids, MASK, 1.0, &[], &mut rng).is_empty());
    }
}
