//! The bytes of a file: mapped into memory, or part of the binary. Knows no format.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a file into memory, read only. For this library's own readers: to others the promise below would be a guess.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: a mapped file must not change while it is mapped. This program writes files under another name and renames
    // them, so none that it wrote ever changes in place; whoever overwrites one while it is read harms his own run.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

/// Where the bytes of a file live.
pub(crate) enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    /// Maps a file that must not be empty.
    pub(crate) fn open(path: &Path, expected: &str) -> Result<Self> {
        if std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len() == 0 {
            return Err(Error::file(path, expected, "an empty file"));
        }
        map_file(path).map(Self::Mapped)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(slice) => slice,
        }
    }

    /// Lets the system take back the memory of a range; reading it again reads the file again. Only advice: where the system
    /// has no such thing, nothing happens. Whoever reads one page of a file gets its neighbours, too (Linux: 64 KiB), so these go as well.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            const AROUND: usize = 1 << 16;
            let range = range.start / AROUND * AROUND..range.end.next_multiple_of(AROUND).min(map.len());
            // SAFETY: the mapping is of a file and read only, so its pages hold nothing that the file does not: whoever still
            // borrows them sees the same bytes, read anew.
            #[allow(unsafe_code)]
            let advice =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
            debug_assert!(advice.is_ok(), "{advice:?}");
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Lets the system take back what the allocator keeps of memory that is no longer used: after a tokenizer has been read that is more
/// than the tokenizer. Only glibc keeps much, and only it can be asked.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(unsafe_code)]
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: glibc's own function, with its signature; it may be called at any time, from any thread.
        #[allow(unsafe_code)]
        unsafe {
            malloc_trim(0)
        };
    }
}
