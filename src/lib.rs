//! `bd3`: train, measure, sample and watch block diffusion language models.
//!
//! The modules below stand in the order in which they may see each other: a module uses those above it, never those below.
#![warn(missing_docs)]

pub mod error;
pub mod rng;

pub mod event;
pub mod recipe;

pub mod format;

pub mod arch;
pub mod tokenizer;

pub mod data;

pub mod block;
pub mod noise;
pub mod pass;

#[cfg(feature = "train")]
pub mod model;

#[cfg(feature = "train")]
pub mod checkpoint;

#[cfg(feature = "train")]
pub mod likelihood;
#[cfg(feature = "train")]
pub mod loss;

pub mod sample;

#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
