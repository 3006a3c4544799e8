//! Noise: which tokens of a block are hidden in training and in a likelihood bound. Schedules, clip intervals, noise levels,
//! corruption and subset draws, all as functions of ids, numbers and random draws. Nothing here knows a model, a tensor or a
//! loss; the block layout is only a block size.

mod clip;
mod corrupt;
mod kinds;
mod schedule;
mod subset;
mod times;

pub use clip::{Clip, Grid, best, candidates, variance_score};
pub use corrupt::{MAX_ROUNDS, coins, coins_within, hide, replace_visible};
pub use kinds::{Draws, Embeddings, Neighbours, masked, mixed, mixed_shares, semantic, uniform};
pub use schedule::{Schedule, rate_noise, sigma, sigma_max, total_noise};
pub use subset::{MAX_ENUMERATED, Subset, all_subsets, draw_subset, subset_of_size};
pub use times::{Spread, official_times, row_times};
