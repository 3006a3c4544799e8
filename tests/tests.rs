//! All integration tests, one binary.

mod data;
