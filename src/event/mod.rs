//! What a sampler does, as data: ids and numbers only, no text. The same stream feeds the terminal, traces, servers and the
//! golden tests. Nothing here knows a model or a tokenizer.

mod state;
mod trace;

use serde::{Deserialize, Serialize};

pub use state::State;
pub use trace::{Header, Trace, TraceLines, TraceWriter, VERSION, piece_line};

/// How one position changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditKind {
    /// A mask became a token.
    Fill,
    /// A token became another token.
    Revise,
    /// A token became a mask again.
    Remask,
    /// A mask entered at the position; what stood there and behind it moved one place on, and `old` fell off the block's end.
    Insert,
    /// The token left; what stood behind it moved one place back, and a mask entered at the block's end.
    Delete,
}

/// Why one position changed, or a block was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The rule accepted the proposal.
    Rule,
    /// No proposal was good enough for the rule, and the best one is always taken.
    Best,
    /// The budget of the block would not last otherwise.
    Hurry,
    /// The noise schedule asked for it: a re-masked or re-noised token says nothing about its quality.
    Schedule,
    /// The token that stood there had become unlikely.
    Unlikely,
    /// Another token had become clearly more likely.
    Better,
    /// The model asked for it with a token of its own (delete, split).
    Asked,
    /// The block came back to a state that it had been in before.
    Loop,
    /// What must not stay in a final block was taken away.
    Cleanup,
}

/// One position that changed in one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Absolute position in the sequence (bos is 0).
    pub position: usize,
    /// What happened.
    pub kind: EditKind,
    /// The id that stood there before (after [`EditKind::Insert`]: the id that fell off the block's end).
    pub old: u32,
    /// The id that stands there now.
    pub new: u32,
    /// Probability of `old`, as last known, before temperature and nucleus; 0 for a mask.
    pub old_prob: f32,
    /// Probability of `new` before temperature and nucleus; 0 for a mask.
    pub prob: f32,
    /// The reason.
    pub why: Why,
    /// The most probable tokens of this position, best first, where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<(u32, f32)>,
}

impl Edit {
    /// A mask that became a token because the rule said so.
    pub fn fill(position: usize, mask_id: u32, new: u32, prob: f32) -> Self {
        let (kind, why) = (EditKind::Fill, Why::Rule);
        Self { position, kind, old: mask_id, new, old_prob: 0.0, prob, why, alternatives: Vec::new() }
    }
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
        /// How many ids at the end of the committed text may still be retracted; 0 where what is committed stays.
        #[serde(default)]
        reach: usize,
    },
    /// A block opens at `start` with these ids (masks and fixed tokens).
    BlockOpened {
        /// Absolute position of its first token.
        start: usize,
        /// Its ids as they are now.
        ids: Vec<u32>,
    },
    /// Positions of the open block changed in one pass; none in a pass that only stored, or read again and found nothing.
    Edited {
        /// The pass that led to it.
        pass: u64,
        /// What changed, in the order of application.
        edits: Vec<Edit>,
    },
    /// The open block is final, until it is retracted.
    BlockCommitted {
        /// Absolute position of its first token.
        start: usize,
        /// Its final ids.
        ids: Vec<u32>,
    },
    /// Committed text is taken back, to its end. It happens between a commit and the next opening: the block that holds `start`
    /// opens again, what stands before it in its block stays.
    Retracted {
        /// Absolute position of the first id taken back, which gave the reason; it was not a given one.
        start: usize,
        /// The ids taken back.
        ids: Vec<u32>,
        /// The pass that led to it.
        pass: u64,
        /// Probability of the first of them, given the text on both sides, before temperature and nucleus.
        prob: f32,
        /// The reason.
        why: Why,
    },
    /// The sample is done.
    Finished {
        /// Ids of the final text, prompt included: what is committed past it was more than asked for.
        length: usize,
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
