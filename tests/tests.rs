//! The one integration binary.

#[cfg(feature = "train")]
mod oracle;
