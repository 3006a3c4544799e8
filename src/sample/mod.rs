//! Sampling: how text is made from proposals. A [`Sampler`] is a state that is stepped once per pass: plan, pass, decide, emit
//! (`step.rs` is the whole story). Unmasking rules, stop rules and windows are pure functions on ids, proposals and numbers.
//! Nothing here knows how a model computes or what an id means.

mod canvas;
mod rule;
mod sedd;
mod step;
mod stop;
mod window;

pub use canvas::Canvas;
pub use rule::{Clock, Knobs, Rule, ancestral, ancestral_posterior, confidence, first_hitting, quota, threshold};
pub use sedd::{analytic_probs, denoiser_probs};
pub use step::{SampleOptions, Sampler, run, step};
pub use stop::{ENTROPY_WINDOW, Extent, Stop, Verdict, histogram_entropy, official_stop};
pub use window::Window;
