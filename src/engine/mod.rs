//! The engine.
#![allow(dead_code)]

pub mod panel;
pub mod product;
pub mod quants;
pub mod simd;
pub mod team;
