//! Sampling: how text is made from proposals. A [`Sampler`] is a state that is stepped once per pass: plan, pass, decide, emit
//! (`step.rs` is the whole story). Unmasking rules, stop rules and windows are pure functions on ids, proposals and numbers.
//! Nothing here knows how a model computes or what an id means.

mod canvas;
mod constrained;
mod decide;
mod guide;
mod infill;
mod look_back;
mod made;
pub mod official;
mod open_block;
mod options;
mod proof;
pub mod revise;
pub mod rule;
mod step;
mod stop;
mod turns;
mod window;

pub use canvas::Canvas;
pub use infill::{Part, Template};
pub use look_back::LookBack;
pub use open_block::OpenBlock;
pub use options::SampleOptions;
pub use revise::Revise;
pub use rule::{Accepted, Budget, Knobs, Rule, Split};
pub use step::{Sampler, run, step};
pub use stop::Stop;
pub use turns::{Ended, Turn, Turns};
pub use window::Window;
