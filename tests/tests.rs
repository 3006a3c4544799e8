//! All integration tests, one binary.

mod data;
mod noise;
mod oracle;
mod sampling;
mod scripted;
mod tidy;
