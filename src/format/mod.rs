//! Bytes to named tensors and back. Knows files and numbers, no model.

pub mod numbers;
pub mod safetensors;

pub use numbers::{Stored, Type};

use std::fs::File;
use std::io::Write;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a file into memory, read only.
pub fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: a mapped file must not change while it is mapped. This program writes files under another name and renames
    // them, so none that it wrote ever changes in place; whoever overwrites one while it is read harms his own run.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

/// Writes a file so that a reader sees either the old content or all of the new: a temporary file beside it, flushed to
/// disk, then renamed.
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
