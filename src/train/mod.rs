//! Training.

pub mod init;
pub mod optim;
