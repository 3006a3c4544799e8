//! All integration tests, one binary.
// The helpers of tests are no tests by name, so clippy.toml does not cover them.
#![allow(clippy::unwrap_used)]

mod checkpoints;
#[cfg(feature = "app")]
mod cli;
#[cfg(feature = "app")]
mod clients;
mod constrained;
mod constraint;
mod corrector;
mod data;
mod ends;
mod engine;
mod events;
mod gguf;
mod golden;
#[cfg(feature = "train")]
mod hostile;
mod infill;
#[cfg(feature = "train")]
mod laws;
#[cfg(feature = "train")]
mod likelihood;
mod look_back;
mod noise;
mod oracle;
mod prompts;
mod real;
mod rules;
mod samples;
mod sampling;
mod scripted;
#[cfg(feature = "app")]
mod serve;
mod tidy;
#[cfg(feature = "app")]
mod training;
mod turns;
