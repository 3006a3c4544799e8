//! Names for what files hold: a result is kept beside the hash of what it was made from.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use bd3::{Error, Result};
use sha2::{Digest, Sha256};

/// SHA-256 of files, and of those in folders (not below them) that have one of these endings, by name in order; 64 hexadecimal
/// digits.
///
/// # Errors
/// A file that can't be read.
pub fn files(paths: &[PathBuf], endings: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in paths {
        if path.is_dir() {
            let entries: std::io::Result<Vec<PathBuf>> =
                std::fs::read_dir(path).and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect());
            let mut entries = entries.map_err(|e| Error::io(path, e))?;
            entries.sort();
            let ending = |path: &Path| path.extension().is_some_and(|e| endings.iter().any(|known| e == *known));
            for entry in entries.iter().filter(|entry| ending(entry)) {
                add(&mut hash, entry)?;
            }
        } else {
            add(&mut hash, path)?;
        }
    }
    Ok(hex(hash))
}

/// SHA-256 of some texts in memory.
pub fn bytes(texts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    texts.iter().for_each(|text| hash.update(Sha256::digest(text)));
    hex(hash)
}

/// A hash of hashes, so that what leaves one file and enters the next does not go unseen.
fn add(to: &mut Sha256, path: &Path) -> Result<()> {
    let mut hash = Sha256::new();
    let mut read = || {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        loop {
            let part = file.fill_buf()?;
            if part.is_empty() {
                return Ok(());
            }
            hash.update(part);
            let count = part.len();
            file.consume(count);
        }
    };
    read().map_err(|e| Error::io(path, e))?;
    to.update(hash.finalize());
    Ok(())
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
