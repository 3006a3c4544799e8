//! The file behind a tokenizer: what is hashed and saved. Most runs ask for neither, so it takes no memory until somebody does.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Kind;
use super::bpe::Words;
use super::parts;
use crate::format::Bytes;

/// Where the file is, and its hash once somebody has asked.
#[derive(Clone)]
pub(super) struct Source {
    place: Place,
    hash: OnceLock<String>,
}

#[derive(Clone)]
enum Place {
    Owned(Vec<u8>),
    /// A part of a file.
    Shared(Arc<Bytes>, Range<usize>),
    /// The vocabulary came from elsewhere: a skeleton, and the file once somebody has asked.
    Made(Value, OnceLock<String>),
}

impl Source {
    /// These bytes.
    pub fn owned(file: &[u8]) -> Self {
        Place::Owned(file.to_vec()).into()
    }

    /// A part of a mapped file.
    pub fn shared(bytes: &Arc<Bytes>, part: Range<usize>) -> Self {
        Place::Shared(bytes.clone(), part).into()
    }

    /// A skeleton, to be filled with the tokenizer's vocabulary.
    pub fn made(skeleton: Value) -> Self {
        Place::Made(skeleton, OnceLock::new()).into()
    }

    /// The file, byte for byte.
    pub fn bytes(&self, kind: &Kind) -> &[u8] {
        match &self.place {
            Place::Owned(bytes) => bytes,
            Place::Shared(bytes, part) => &bytes.as_slice()[part.clone()],
            Place::Made(skeleton, file) => file
                .get_or_init(|| match kind {
                    Kind::Model { inner, .. } => match inner.get_model() {
                        Words::Merged(bpe) => parts::whole(skeleton, bpe),
                        Words::Library(_) => unreachable!("only a vocabulary of ours is made"),
                    },
                    Kind::Bytes => unreachable!("a tokenizer of bytes has a file"),
                })
                .as_bytes(),
        }
    }

    /// SHA-256 of the file.
    pub fn hash(&self, kind: &Kind) -> &str {
        self.hash.get_or_init(|| Sha256::digest(self.bytes(kind)).iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl From<Place> for Source {
    fn from(place: Place) -> Self {
        Self { place, hash: OnceLock::new() }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a tokenizer.json")
    }
}
