//! `bd3`: train, measure, sample and watch block diffusion language models.
//!
//! ```
//! use std::path::Path;
//!
//! use bd3::checkpoint::Checkpoint;
//! use bd3::engine::Options;
//! use bd3::event::Event;
//! use bd3::pass::Denoiser;
//! use bd3::rng::Rng;
//! use bd3::sample::{Rule, SampleOptions, Sampler, run};
//! use bd3::tokenizer::Tokenizer;
//!
//! # fn main() -> bd3::Result<()> {
//! let folder = Path::new("models/tiny");
//! let (tokenizer, engine) = (Tokenizer::load(folder)?, Checkpoint::open(folder)?.engine(Options::default())?);
//!
//! // 16 new tokens behind "One day", blocks of 4, one token a pass. The text starts with the beginning of text.
//! let mut prompt: Vec<u32> = tokenizer.special().bos.into_iter().collect();
//! prompt.extend(tokenizer.encode("One day")?);
//! let options = SampleOptions { train_length: engine.arch().length, ..SampleOptions::new(4, 16, Rule::FirstHitting) };
//! let mut sampler = Sampler::new(options, &prompt, engine.mask_id(), |block| engine.cache(block), Rng::new(1))?;
//!
//! // Whoever shows a sample takes its events: blocks that open, tokens that are written, revised, committed.
//! let mut events: Vec<Event> = Vec::new();
//! run(&engine, &mut sampler, &mut events)?;
//! println!("One day{}", tokenizer.decode(sampler.new_ids())?);
//! # assert_eq!((sampler.new_ids().len(), sampler.reason()), (16, Some(bd3::event::Reason::Length)));
//! # Ok(())
//! # }
//! ```
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

pub mod constraint;

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
