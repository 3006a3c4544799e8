//! The one error type of the library. Every message is a sentence that names the file, key or value, what was expected
//! and what was found. It knows no exit codes and prints nothing; the binary does both in one place.

use std::path::{Path, PathBuf};

/// Shorthand for a result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, as sentences.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that can't be opened, read or written.
    #[error("{}: expected a file or folder to read or write, found {}", path.display(), told(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file whose content as a whole is not what it should be.
    #[error("{}: expected {expected}, found {found}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// One key (a tensor, a configuration entry, a recipe line) of a file.
    #[error("{}: `{key}`: expected {expected}, found {found}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key inside it.
        key: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A value given by the caller (a flag, a request field, an argument).
    #[error("{name}: expected {expected}, found {found}")]
    Value {
        /// The name by which the caller knows the value.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Training met a number that is not finite.
    #[error("the {what} is {value} at step {step}: training stopped; the last good checkpoint is kept")]
    Diverged {
        /// The optimiser step, counted from 1.
        step: u64,
        /// Which number.
        what: &'static str,
        /// The number as it was.
        value: f64,
    },
    /// The device or the tensor library failed while running.
    #[error("{0}")]
    Run(String),
}

/// What the operating system said, without its numbers where words are known.
fn told(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound => "nothing of that name".into(),
        PermissionDenied => "one that this user has no permission for".into(),
        IsADirectory => "a folder in place of a file".into(),
        NotADirectory => "a file in place of a folder".into(),
        _ => error.to_string(),
    }
}

/// A text of a file in one line: control characters as they are written in a program.
fn line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let written = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(written).collect()
}

impl Error {
    /// True when the input was refused (exit code 2 of the binary); false when the work failed while it ran.
    pub fn is_refusal(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, FileTooLarge, QuotaExceeded, StorageFull, WriteZero};
        match self {
            Error::Diverged { .. } | Error::Run(_) => false,
            Error::Io { source, .. } => {
                !matches!(source.kind(), BrokenPipe | FileTooLarge | QuotaExceeded | StorageFull | WriteZero)
            }
            Error::File { .. } | Error::Key { .. } | Error::Value { .. } => true,
        }
    }

    /// A file that can't be opened, read or written.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().into(), source }
    }

    /// A file whose content as a whole is wrong.
    pub fn file(path: impl AsRef<Path>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().into(), expected: expected.into(), found: line(found.into()) }
    }

    /// One key of a file.
    pub fn key(
        path: impl AsRef<Path>,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (key, found) = (line(key.into()), line(found.into()));
        Error::Key { path: path.as_ref().into(), key, expected: expected.into(), found }
    }

    /// A value given by the caller.
    pub fn value(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Value { name: name.into(), expected: expected.into(), found: found.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_file_does_not_break_the_line() {
        let error = Error::key("a.safetensors", "in\nput\u{7f}", "one", "no\tne");
        assert_eq!(error.to_string(), "a.safetensors: `in\\nput\\u{7f}`: expected one, found no\\tne");
    }
}
