//! What a sampler does, as data: ids and numbers only, no text. The same stream feeds the terminal, traces, servers and the
//! golden tests. Nothing here knows a model or a tokenizer.

use serde::{Deserialize, Serialize};

/// Why one position changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditKind {
    /// A mask became a token.
    Fill,
    /// A token became another token.
    Revise,
    /// A token became a mask again.
    Remask,
}

/// One position that changed in one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Absolute position in the sequence (bos is 0).
    pub position: usize,
    /// What happened.
    pub kind: EditKind,
    /// The id that stood there before.
    pub old: u32,
    /// The id that stands there now.
    pub new: u32,
    /// Probability of `new` before temperature and nucleus.
    pub prob: f32,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The number of tokens asked for was reached.
    Length,
    /// An end-of-text token was committed.
    Eos,
    /// The entropy stop rule fired.
    Entropy,
    /// The sink asked to stop.
    Interrupted,
}

/// What a sampler does. `pass` counts forward evaluations of this sample, from 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A sample starts. Blocks that the prompt fills are final as they stand and are not opened.
    Started {
        /// The given ids, bos first; a mask id among them is a gap to be filled.
        prompt: Vec<u32>,
        /// The block size.
        block: usize,
    },
    /// A block opens at `start` with these ids (masks and fixed tokens).
    BlockOpened {
        /// Absolute position of its first token.
        start: usize,
        /// Its ids as they are now.
        ids: Vec<u32>,
    },
    /// Positions of the open block changed in one pass; none in a pass that only stored a piece of a long prompt.
    Edited {
        /// The pass that led to it.
        pass: u64,
        /// What changed, by position.
        edits: Vec<Edit>,
    },
    /// The open block is final.
    BlockCommitted {
        /// Absolute position of its first token.
        start: usize,
        /// Its final ids.
        ids: Vec<u32>,
    },
    /// The sample is done.
    Finished {
        /// Forward evaluations spent.
        passes: u64,
        /// New tokens: after the prompt, after the cut to the length asked for, and those that filled gaps of the prompt.
        tokens: usize,
        /// Why it ended.
        reason: Reason,
    },
}

/// Takes the events of one sample as they happen.
pub trait Sink {
    /// One event. `false` asks the sampler to stop at the next pass.
    fn event(&mut self, event: &Event) -> bool;
}

impl Sink for Vec<Event> {
    fn event(&mut self, event: &Event) -> bool {
        self.push(event.clone());
        true
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn event(&mut self, event: &Event) -> bool {
        (**self).event(event)
    }
}

impl<S: Sink + ?Sized> Sink for Box<S> {
    fn event(&mut self, event: &Event) -> bool {
        (**self).event(event)
    }
}

/// A sink that ignores everything.
pub struct Quiet;

impl Sink for Quiet {
    fn event(&mut self, _: &Event) -> bool {
        true
    }
}
