//! The decisions of unmasking rules and revisions, without a model.

mod canvas;
mod ops;
mod traces;
