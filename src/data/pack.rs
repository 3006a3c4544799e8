//! Rows of one length out of a shard. All ways to wrap text are one scheme: documents are taken in groups, an eos follows
//! each document, a group's tokens are cut into equal pieces, each piece gets a frame (bos, bos and eos, or none), and what
//! is left at a group's end becomes a short row or is dropped. Any row can be built alone, so a reader can jump.

use std::ops::Range;
use std::sync::Arc;

use super::shard::Shard;
use crate::tokenizer::Special;
use crate::{Error, Result};

/// How documents become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// The default: one stream over the whole shard, eos after every document; a row is bos and the next `length - 1`
    /// tokens, so that every token but bos is predicted exactly once. The last row may be short.
    Stream,
    /// Each document has rows of its own, its eos in the last one, which may be short: for results by document.
    Documents,
    /// Each document begins a row, which is filled with the documents after it; what does not fit into its row is left out. For
    /// training on short documents: a row never begins in the middle of one.
    Starts,
    /// The official code's wrapping (arXiv 2503.09573, C.1; `_group_texts`): groups of 1000 documents, the remainder of
    /// each group dropped.
    Official {
        /// An eos after every document (`insert_*_eos`).
        eos: Between,
        /// What surrounds each row (`insert_*_special`).
        frame: Frame,
    },
}

/// What stands between two documents of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing.
    Nothing,
    /// One eos, after every document.
    Eos,
}

/// What surrounds a row's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing: `length` tokens of text.
    Nothing,
    /// A bos, then `length - 1` tokens.
    Bos,
    /// A bos, `length - 2` tokens, an eos.
    BosEos,
}

impl Frame {
    fn tokens(self) -> usize {
        match self {
            Frame::Nothing => 0,
            Frame::Bos => 1,
            Frame::BosEos => 2,
        }
    }
}

impl Wrap {
    /// The names by which a recipe knows the wrappings.
    pub const NAMES: [(&'static str, Wrap); 5] = [
        ("stream", Wrap::Stream),
        ("documents", Wrap::Documents),
        ("starts", Wrap::Starts),
        ("official", Wrap::Official { eos: Between::Eos, frame: Frame::Nothing }),
        ("official-special", Wrap::Official { eos: Between::Eos, frame: Frame::BosEos }),
    ];

    /// By name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, wrap)| *wrap).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Error::value("wrap", names.join(", "), format!("`{name}`"))
        })
    }

    fn frame(self) -> Frame {
        match self {
            Wrap::Stream | Wrap::Documents | Wrap::Starts => Frame::Bos,
            Wrap::Official { frame, .. } => frame,
        }
    }

    fn between(self) -> Between {
        match self {
            Wrap::Stream | Wrap::Documents | Wrap::Starts => Between::Eos,
            Wrap::Official { eos, .. } => eos,
        }
    }

    /// Documents in a group.
    fn group(self, documents: usize) -> usize {
        match self {
            Wrap::Stream => documents.max(1),
            Wrap::Documents | Wrap::Starts => 1,
            Wrap::Official { .. } => 1000,
        }
    }

    /// Rows of `room` tokens in a group of so many.
    fn rows(self, tokens: usize, room: usize) -> usize {
        match self {
            Wrap::Stream | Wrap::Documents => tokens.div_ceil(room),
            Wrap::Starts => tokens.min(1),
            Wrap::Official { .. } => tokens / room,
        }
    }
}

/// Rows of ids, `[rows, length]` row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The ids, `rows * length` of them; what lies beyond a row's valid length is pad (or eos without a pad).
    pub ids: Vec<u32>,
    /// Number of rows.
    pub rows: usize,
    /// Length of each row.
    pub length: usize,
    /// How many ids of each row are text or frame: `length` except for short rows.
    pub valid: Vec<usize>,
}

impl Batch {
    /// No rows yet.
    pub fn new(length: usize) -> Self {
        Self { ids: Vec::new(), rows: 0, length, valid: Vec::new() }
    }

    /// One row, `length` ids.
    pub fn row(&self, index: usize) -> &[u32] {
        &self.ids[index * self.length..(index + 1) * self.length]
    }
}

/// The special ids that a wrapping needs, known to be there.
#[derive(Clone, Copy, Debug)]
struct Ids {
    bos: u32,
    eos: u32,
    fill: u32,
}

/// A shard seen as rows.
#[derive(Clone, Debug)]
pub struct Packing {
    shard: Arc<Shard>,
    wrap: Wrap,
    length: usize,
    ids: Ids,
    /// Rows before each group, and at the end the number of all rows.
    rows_before: Vec<usize>,
}

impl Packing {
    /// Rows of `length` ids from a shard.
    ///
    /// # Errors
    /// A length with no room beside the frame, or a tokenizer without the bos or eos that the wrapping needs.
    pub fn new(shard: Arc<Shard>, wrap: Wrap, length: usize, special: Special) -> Result<Self> {
        let frame = wrap.frame();
        if length <= frame.tokens() {
            return Err(Error::value("length", format!("more than {} tokens", frame.tokens()), length.to_string()));
        }
        let needed = |name: &str, id: Option<u32>, needed: bool, what: &str| match id {
            None if needed => Err(Error::value(name, format!("a {name} id in the tokenizer, {what}"), "none")),
            id => Ok(id.unwrap_or(special.mask)),
        };
        let ends = wrap.between() == Between::Eos || frame == Frame::BosEos;
        let eos = needed("eos", special.eos, ends, "to end every document")?;
        let what = "to begin every row (the wrap `official` needs none)";
        let bos = needed("bos", special.bos, frame != Frame::Nothing, what)?;
        let ids = Ids { bos, eos, fill: special.pad.unwrap_or(eos) };
        let mut packing = Self { shard, wrap, length, ids, rows_before: vec![0] };
        let room = length - frame.tokens();
        let mut rows = 0;
        for group in 0..packing.shard.documents().div_ceil(packing.group()) {
            rows += wrap.rows(packing.group_tokens(group).len(), room);
            packing.rows_before.push(rows);
        }
        Ok(packing)
    }

    /// The shard.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows_before.last().copied().unwrap_or(0)
    }

    /// Length of a row.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Number of ids of a row that are text or frame.
    pub fn valid(&self, row: usize) -> usize {
        self.stream(row).len() + self.wrap.frame().tokens()
    }

    /// The document in which a row's first token lies.
    pub fn document(&self, row: usize) -> usize {
        self.find(self.stream(row).start)
    }

    /// The rows of a document under [`Wrap::Documents`] or [`Wrap::Starts`]; under another wrapping, of a group of documents.
    pub fn rows_of(&self, group: usize) -> Range<usize> {
        self.rows_before[group]..self.rows_before[group + 1]
    }

    /// Appends a row to a batch of the same length.
    pub fn push(&self, row: usize, batch: &mut Batch) {
        let (start, frame) = (batch.ids.len(), self.wrap.frame());
        if frame != Frame::Nothing {
            batch.ids.push(self.ids.bos);
        }
        self.read(self.stream(row), &mut batch.ids);
        if frame == Frame::BosEos {
            batch.ids.push(self.ids.eos);
        }
        batch.valid.push(batch.ids.len() - start);
        batch.ids.resize(start + self.length, self.ids.fill);
        batch.rows += 1;
    }

    /// Some rows in their order.
    pub fn batch(&self, rows: Range<usize>) -> Batch {
        let mut batch = Batch::new(self.length);
        rows.for_each(|row| self.push(row, &mut batch));
        batch
    }

    fn group(&self) -> usize {
        self.wrap.group(self.shard.documents())
    }

    /// Tokens after each document.
    fn after(&self) -> usize {
        usize::from(self.wrap.between() == Between::Eos)
    }

    /// Where a document begins in the stream (ids and the eos after each document); the end after the last.
    fn stream_start(&self, document: usize) -> usize {
        let start =
            if document < self.shard.documents() { self.shard.document(document).start } else { self.shard.len() };
        start + document * self.after()
    }

    fn group_tokens(&self, group: usize) -> Range<usize> {
        let first = group * self.group();
        let last = (first + self.group()).min(self.shard.documents());
        self.stream_start(first)..self.stream_start(last)
    }

    /// The part of the stream that a row holds.
    fn stream(&self, row: usize) -> Range<usize> {
        let group = self.rows_before.partition_point(|&before| before <= row) - 1;
        let tokens = self.group_tokens(group);
        let room = self.length - self.wrap.frame().tokens();
        let start = tokens.start + (row - self.rows_before[group]) * room;
        let end = if self.wrap == Wrap::Starts { self.stream_start(self.shard.documents()) } else { tokens.end };
        start..(start + room).min(end)
    }

    /// The document that holds a place of the stream (its eos included).
    fn find(&self, place: usize) -> usize {
        let (mut low, mut high) = (0, self.shard.documents());
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.stream_start(middle) <= place {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn read(&self, stream: Range<usize>, into: &mut Vec<u32>) {
        let mut place = stream.start;
        let mut document = self.find(place);
        while place < stream.end {
            let ids = self.shard.document(document);
            let from = ids.start + (place - self.stream_start(document));
            let until = ids.end.min(from + (stream.end - place));
            self.shard.read(from..until, into);
            place += until - from;
            if place < stream.end && self.after() == 1 {
                into.push(self.ids.eos);
                place += 1;
            }
            document += 1;
        }
    }
}
