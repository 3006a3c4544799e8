//! `bd3`: train, measure, sample and watch block diffusion language models.
//!
//! The modules below stand in the order in which they may see each other: a module uses those above it, never those below.
//! Blank lines keep `rustfmt` from sorting them by name.
#![warn(missing_docs)]

pub mod error;
pub mod rng;

pub mod event;
pub mod recipe;

pub mod format;
pub mod tokenizer;

pub mod arch;
pub mod data;

pub mod block;
pub mod noise;
pub mod pass;

#[cfg(feature = "train")]
pub mod model;

pub mod engine;

pub mod checkpoint;
pub mod loss;

pub mod likelihood;
pub mod sample;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
