//! All integration tests, one binary.
// The helpers of tests are no tests by name, so clippy.toml does not cover them.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "app")]
mod cli;
mod data;
mod noise;
mod oracle;
mod sampling;
mod scripted;
mod tidy;
