//! The decisions of unmasking rules and revisions, without a model.

mod canvas;
mod gemma;
mod indel;
mod laws;
mod ops;
mod pictures;
mod traces;

pub use laws::any_rule;
