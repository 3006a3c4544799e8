//! Bytes to named tensors and back. Knows files and numbers, no model.

pub mod gguf;
mod mapped;
pub mod numbers;
pub mod quant;
pub mod safetensors;

pub use gguf::Header;
pub(crate) use mapped::map_file;
pub(crate) use mapped::{Bytes, trim};
pub use numbers::{Stored, Type};

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// The numbers of a tensor, none of which may be infinite or not a number.
fn finite(path: &Path, name: &str, numbers: Vec<f32>) -> Result<Vec<f32>> {
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(numbers),
        Some(i) => Err(Error::key(path, name, "finite numbers", format!("{} at index {i}", numbers[i]))),
    }
}

/// Writes a file so that a reader sees either the old content or all of the new: a temporary file beside it, flushed to
/// disk, then renamed.
///
/// # Errors
/// What `write` fails with, or a file that can't be written or renamed; the old content then stays.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let attempt = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        Error::io(path, e)
    })
}
