//! From text to batches of ids: documents out of files, token shards on disk (memory-mapped), rows of one length, and a
//! reader that can stop and go on at any row. It knows the tokenizer, and nothing of blocks, noise or models.

pub mod build;
pub mod detokenize;
pub mod markov;
pub mod pack;
pub mod reader;
pub mod shard;
pub mod split;
pub mod text;
pub mod toy;

pub use build::{Folder, Summary, build};
pub use detokenize::Detokenizer;
pub use pack::{Batch, Packing, Wrap};
pub use reader::{Cursor, Reader, Source, Tail};
pub use shard::Shard;
pub use split::{Shares, Split};
pub use text::Texts;
