//! The text that something is measured on: a data folder, or texts that are encoded now; rows of it, and pieces as long as samples.

use std::path::PathBuf;
use std::sync::Arc;

use bd3::data::{Folder, Packing, Shard, Split, Texts, Wrap};
use bd3::{Error, Result};
use clap::ValueEnum;

use crate::model::Model;

/// See [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    Train,
    Valid,
    Test,
}

/// The text as a shard: one that is there, or documents encoded now.
///
/// # Errors
/// A split asked for where there are none, or not that one; another tokenizer's folder; a text that can't be read.
pub fn shard(data: &[PathBuf], split: Option<SplitName>, model: &Model) -> Result<Shard> {
    let tokenizer = &model.tokenizer;
    let folder = data.iter().find(|path| path.join("tokenizer.json").is_file());
    if let Some(path) = folder {
        if data.len() > 1 {
            return Err(Error::value("DATA", "one data folder, or texts", format!("{} paths", data.len())));
        }
        let folder = Folder::open(path)?;
        if folder.tokenizer().hash() != tokenizer.hash() {
            let expected = format!("the tokenizer of {}", model.name);
            return Err(Error::file(path.join("tokenizer.json"), expected, "another one"));
        }
        let split = match split {
            Some(SplitName::Train) => Split::Train,
            Some(SplitName::Valid) => Split::Valid,
            Some(SplitName::Test) | None => Split::Test,
        };
        let splits = folder.splits();
        if !splits.is_empty() && !splits.contains(&split) {
            let names: Vec<&str> = splits.into_iter().map(Split::name).collect();
            let expected = format!("{}, as {} has", names.join(" or "), path.display());
            return Err(Error::value("--split", expected, split.name()));
        }
        return folder.shard(split);
    }
    if split.is_some() {
        return Err(Error::value("--split", "a folder made by `bd3 data`, which has splits", "a text"));
    }
    let texts = Texts::new(data, "text", None)?;
    for (path, why) in texts.ignored() {
        note!("note: {} {why} and is left out", path.display());
    }
    let mut documents = Vec::new();
    for document in texts.documents() {
        let document = document?;
        if !document.trim().is_empty() {
            documents.push((tokenizer.encode(&document)?, document.len() as u64));
        }
    }
    let name = data[0].display().to_string();
    Shard::in_memory(&name, tokenizer.vocab_size(), documents.into_iter())
}

/// Rows of a text, at least one of them.
pub fn rows(shard: Arc<Shard>, wrap: Wrap, length: usize, model: &Model) -> Result<Packing> {
    let text = Packing::new(shard, wrap, length, model.tokenizer.special())?;
    if text.shard().is_empty() {
        return Err(Error::value("DATA", "a text", "none: there is no token in it"));
    }
    if text.rows() == 0 {
        let expected = format!("a text that fills a row of {length} tokens (--length makes rows shorter)");
        return Err(Error::value("DATA", expected, format!("{} tokens", text.shard().len())));
    }
    Ok(text)
}

/// At most `count` pieces of `length` tokens, spread evenly over a text, as a sampler would have written them: they begin anywhere.
pub fn pieces(shard: Arc<Shard>, length: usize, count: usize, model: &Model) -> Result<Vec<Vec<u32>>> {
    let text = Packing::new(shard, Wrap::Stream, length.saturating_add(1), model.tokenizer.special())?;
    // All rows but perhaps the last are full.
    let full = (0..text.rows()).filter(|&row| text.valid(row) == length + 1).count();
    if full == 0 {
        let expected = format!("a text of at least {length} tokens, as many as a sample has");
        return Err(Error::value("DATA", expected, format!("{} tokens", text.shard().len())));
    }
    let count = count.min(full);
    Ok((0..count).map(|i| i * full / count).map(|row| text.batch(row..row + 1).row(0)[1..].to_vec()).collect())
}
