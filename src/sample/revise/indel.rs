//! Insertion and deletion inside a block of fixed size (LLaDA2.2, `JointThresholdInDel`): the model can write a token that deletes
//! its row, or one that puts a mask in front of it. Masks are filled and tokens edited in the same pass.

use crate::event::{EditKind, Why};
use crate::pass::Proposal;

use super::Change;
use super::edit::Seen;

/// The numbers of the loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Indel {
    /// The mask.
    pub mask: u32,
    /// The token that deletes its row.
    pub delete: u32,
    /// The token that puts a mask in front of what stands in its row.
    pub split: u32,
    /// The probability that a proposal for a mask must exceed. Published: 0.5.
    pub threshold: f64,
    /// The probability that another token must exceed. Published: 0.
    pub edit: f64,
    /// Passes over a block without any of its first masks, at most. Published: 16.
    pub passes: usize,
}

/// How many alternatives a row needs: the three tokens that may not stay, and some that were tried before.
pub const ALTERNATIVES: usize = 8;

/// Where the loop stands in its block.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Rows at the beginning that are given and never change.
    pub given: usize,
    /// For each row, whether it descends from a mask of the block as it was opened.
    pub original: Vec<bool>,
    /// Passes that began without an original mask.
    pub post: usize,
    /// All passes.
    pub updates: usize,
    seen: Seen,
    /// Tokens written so far, for each row.
    tried: Vec<Vec<u32>>,
}

/// What a pass leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing is left to change: the block is final.
    Settled,
    /// These changes, one after the other: see [`apply`].
    Goes(Vec<Change>),
    /// These changes, after which the block is final, come what may.
    Cleanup(Vec<Change>),
}

/// A token to be written to a row, its probability, and why.
#[derive(Clone, Copy)]
struct Write {
    row: usize,
    token: u32,
    prob: f64,
    why: Why,
}

impl State {
    /// A block opens. What stands before its first mask is given.
    pub fn new(block: &[u32], mask: u32) -> Self {
        Self {
            given: block.iter().take_while(|&&id| id != mask).count(),
            original: block.iter().map(|&id| id == mask).collect(),
            post: 0,
            updates: 0,
            seen: Seen::default(),
            tried: vec![Vec::new(); block.len()],
        }
    }
}

impl Indel {
    /// Decides a pass. There is one proposal for each row, with alternatives to fall back on. The state moves on with the changes.
    ///
    /// A block ends within as many passes as it has rows and [`Indel::passes`], and two more.
    pub fn pass(&self, block: &[u32], proposals: &[Proposal], state: &mut State) -> Outcome {
        let originals = (0..block.len()).filter(|&row| block[row] == self.mask && state.original[row]).count();
        let mut writes = self.fills(block, proposals, (originals, &state.original));
        writes.extend(self.edits(block, proposals, state.given));
        state.updates += 1;
        state.post += usize::from(originals == 0);
        if writes.is_empty() {
            return Outcome::Settled;
        }
        writes.sort_unstable_by_key(|write| write.row);
        let again = state.seen.again(block);
        let cleanup = state.post > self.passes || state.updates > block.len() + self.passes;
        if cleanup {
            self.clean(block, proposals, &mut writes);
        } else if again {
            self.turn(block, proposals, state, &mut writes);
        }
        for write in &writes {
            state.tried[write.row].push(write.token);
        }
        let changes = self.changes(block, &writes);
        changes.iter().for_each(|change| shift(&mut state.original, *change, false));
        if cleanup { Outcome::Cleanup(changes) } else { Outcome::Goes(changes) }
    }

    /// What is written to masks: all of them once no original one is left; else those above the threshold, where they are at
    /// least one more than the introduced ones, or else so many of the most probable ones.
    fn fills(&self, block: &[u32], proposals: &[Proposal], (originals, original): (usize, &[bool])) -> Vec<Write> {
        let write = |p: &Proposal| {
            let own = original[p.row] && p.token == self.mask;
            let (token, prob) = if own { best(p, |id| id != self.mask) } else { (p.token, p.raw_prob) };
            Write { row: p.row, token, prob, why: Why::Rule }
        };
        let masks: Vec<Write> = proposals.iter().filter(|p| block[p.row] == self.mask).map(write).collect();
        if originals == 0 {
            return masks;
        }
        let required = 1 + masks.len() - originals;
        let passed: Vec<Write> = masks.iter().copied().filter(|write| write.prob > self.threshold).collect();
        if passed.len() >= required {
            return passed;
        }
        let mut order = masks;
        order.sort_by(|a, b| b.prob.total_cmp(&a.prob).then(a.row.cmp(&b.row)));
        order.truncate(required);
        order.iter().map(|write| Write { why: Why::Best, ..*write }).collect()
    }

    /// What is written over known tokens.
    fn edits(&self, block: &[u32], proposals: &[Proposal], given: usize) -> Vec<Write> {
        let other = |p: &&Proposal| {
            let id = block[p.row];
            p.row >= given && id != self.mask && p.token != id && p.raw_prob > self.edit
        };
        let write = |p: &Proposal| Write { row: p.row, token: p.token, prob: p.raw_prob, why: Why::Better };
        proposals.iter().filter(other).map(write).collect()
    }

    /// The last pass: every mask is filled, and nothing is written that may not stay in a text.
    fn clean(&self, block: &[u32], proposals: &[Proposal], writes: &mut Vec<Write>) {
        let stays = |id: u32| ![self.mask, self.delete, self.split].contains(&id);
        for p in proposals.iter().filter(|p| block[p.row] == self.mask) {
            if writes.iter().all(|write| write.row != p.row) {
                writes.push(Write { row: p.row, token: p.token, prob: p.raw_prob, why: Why::Cleanup });
            }
        }
        for write in writes.iter_mut().filter(|write| !stays(write.token)) {
            if let Some(p) = proposals.iter().find(|p| p.row == write.row) {
                let (token, prob) = best(p, stays);
                *write = Write { token, prob, why: Why::Cleanup, ..*write };
            }
        }
        writes.sort_unstable_by_key(|write| write.row);
    }

    /// The block was in this state before: the least certain row takes the best token that was never written to it.
    fn turn(&self, block: &[u32], proposals: &[Proposal], state: &State, writes: &mut [Write]) {
        let changing = writes.iter_mut().filter(|write| block[write.row] != write.token);
        let Some(write) = changing.min_by(|a, b| a.prob.total_cmp(&b.prob)) else { return };
        if let Some(p) = proposals.iter().find(|p| p.row == write.row) {
            let (token, prob) = best(p, |id| !state.tried[p.row].contains(&id));
            *write = Write { token, prob, why: Why::Loop, ..*write };
        }
    }

    /// Tokens first, then deletions and insertions, each from the last row to the first, so that rows stand for what they did
    /// before. Deletions come first: what they make room for is not lost at the end of the block.
    fn changes(&self, block: &[u32], writes: &[Write]) -> Vec<Change> {
        let (mut tokens, mut deletions, mut insertions) = (Vec::new(), Vec::new(), Vec::new());
        for write in writes {
            let kind = match (block[write.row] == self.mask, write.token) {
                (_, token) if token == self.delete => EditKind::Delete,
                (_, token) if token == self.split => EditKind::Insert,
                (_, token) if token == block[write.row] => continue,
                (true, _) => EditKind::Fill,
                (false, token) if token == self.mask => EditKind::Remask,
                (false, _) => EditKind::Revise,
            };
            let change = Change { row: write.row, kind, token: write.token, why: write.why };
            let asked = |row| Change { row, token: self.mask, why: Why::Asked, ..change };
            match kind {
                EditKind::Delete => deletions.insert(0, asked(write.row)),
                EditKind::Insert => insertions.insert(0, asked(write.row - deletions.len())),
                _ => tokens.push(change),
            }
        }
        tokens.into_iter().chain(deletions).chain(insertions).collect()
    }
}

/// Applies a change to the ids of a block. [`EditKind::Insert`] moves what follows one row on, and the last id is lost;
/// [`EditKind::Delete`] moves what follows one row back, and `mask` enters at the end.
pub fn apply(block: &mut [u32], change: Change, mask: u32) {
    match change.kind {
        EditKind::Insert | EditKind::Delete => shift(block, change, mask),
        _ => block[change.row] = change.token,
    }
}

fn shift<T: Copy>(items: &mut [T], change: Change, new: T) {
    let tail = &mut items[change.row..];
    let last = tail.len() - 1;
    match change.kind {
        EditKind::Insert => {
            tail.rotate_right(1);
            tail[0] = new;
        }
        EditKind::Delete => {
            tail.rotate_left(1);
            tail[last] = new;
        }
        _ => {}
    }
}

/// The best allowed token of a proposal with its probability: the one proposed, or an alternative; the one proposed where none
/// is allowed.
fn best(proposal: &Proposal, allowed: impl Fn(u32) -> bool) -> (u32, f64) {
    let own = [(proposal.token, proposal.raw_prob), proposal.runner_up];
    let known = own.into_iter().chain(proposal.alternatives.iter().copied());
    let best = known.filter(|&(id, _)| allowed(id)).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    best.unwrap_or(own[0])
}
