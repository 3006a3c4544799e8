//! The text that events tell. Every event is checked against the state it meets, so that a stream that contradicts itself is
//! noticed at its first wrong event, and every state has a hash, so that two readers can compare theirs.

use super::{Edit, EditKind, Event};
use crate::error::{Error, Result};

/// What stands after the events so far.
#[derive(Clone, Debug)]
pub struct State {
    mask_id: u32,
    given: Vec<u32>,
    text: Vec<u32>,
    /// The hash of each beginning of `text`, so that a state's own costs no more than its open block.
    hashes: Vec<u64>,
    start: usize,
    open: Option<Vec<u32>>,
    pass: u64,
    /// How far a retraction may reach, from the longest that the committed text has been.
    reach: usize,
    longest: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Running,
    Finished,
}

impl State {
    /// Nothing yet, of a model whose mask has this id.
    pub fn new(mask_id: u32) -> Self {
        Self {
            mask_id,
            given: Vec::new(),
            text: Vec::new(),
            hashes: vec![FNV_OFFSET],
            start: 0,
            open: None,
            pass: 0,
            reach: 0,
            longest: 0,
            phase: Phase::Empty,
        }
    }

    /// Committed ids, prompt first.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// Absolute position and ids of the open block.
    pub fn open(&self) -> Option<(usize, &[u32])> {
        self.open.as_deref().map(|ids| (self.start, ids))
    }

    /// The given ids, gaps as masks.
    pub fn given(&self) -> &[u32] {
        &self.given
    }

    /// The position from which on the text is the sample's: after the prompt, or after the first id where the prompt has gaps.
    pub fn own(&self) -> usize {
        if self.given.contains(&self.mask_id) { 1 } else { self.given.len() }
    }

    /// Has the sample ended?
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Is the id at this position committed or given, so that no edit may change it?
    pub fn is_fixed(&self, position: usize) -> bool {
        position < self.text.len() || self.given.get(position).is_some_and(|&id| id != self.mask_id)
    }

    /// 64-bit FNV-1a over the committed ids and, where a block is open, its start and its ids; each number as 8 bytes, little end first.
    pub fn hash(&self) -> u64 {
        let committed = self.hashes[self.text.len()];
        match &self.open {
            None => committed,
            Some(ids) => {
                let open = std::iter::once(self.start as u64 | OPEN).chain(ids.iter().map(|&id| u64::from(id)));
                open.fold(committed, add)
            }
        }
    }

    /// Takes one event in.
    ///
    /// # Errors
    /// When the event contradicts what stands; the state is then as it was.
    pub fn apply(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Started { prompt, reach, .. } => self.begin(prompt, *reach),
            _ if self.phase != Phase::Running => contradiction("an event while a sample runs", self.phase),
            Event::BlockOpened { start, ids } => self.open_block(*start, ids),
            Event::Edited { pass, edits } => self.edit(*pass, edits),
            Event::BlockCommitted { start, ids } => self.commit(*start, ids),
            Event::Retracted { start, ids, pass, .. } => self.retract(*start, ids, *pass),
            Event::Finished { length, passes, .. } => self.finish(*length, *passes),
        }
    }

    fn begin(&mut self, prompt: &[u32], reach: usize) -> Result<()> {
        if self.phase != Phase::Empty {
            return contradiction("the only start of a sample", "a second one");
        }
        self.phase = Phase::Running;
        self.given = prompt.to_vec();
        self.reach = reach;
        let known = prompt.iter().position(|&id| id == self.mask_id).unwrap_or(prompt.len());
        self.put(0, &prompt[..known]);
        Ok(())
    }

    fn open_block(&mut self, start: usize, ids: &[u32]) -> Result<()> {
        if self.open.is_some() {
            return contradiction("a block opened after the last one was committed", "a block that is still open");
        }
        if start > self.text.len() || start + ids.len() <= self.text.len() {
            let expected = format!("a block that holds position {}", self.text.len());
            return contradiction(&expected, format!("{} ids from {start}", ids.len()));
        }
        for (position, &id) in (start..).zip(ids) {
            let stands = self.text.get(position).or(self.given.get(position)).copied().unwrap_or(self.mask_id);
            if id != stands {
                return contradiction(&format!("id {stands} at position {position}"), id);
            }
        }
        (self.start, self.open) = (start, Some(ids.to_vec()));
        Ok(())
    }

    fn edit(&mut self, pass: u64, edits: &[Edit]) -> Result<()> {
        self.check_pass(pass)?;
        let Some(mut ids) = self.open.clone() else {
            // A pass that only stores changes nothing.
            if !edits.is_empty() {
                return contradiction("an open block", "edits of none");
            }
            self.pass = pass;
            return Ok(());
        };
        for edit in edits {
            let row = edit.position.checked_sub(self.start).filter(|&row| row < ids.len());
            let Some(row) = row else {
                let expected = format!("a position from {} to {}", self.start, self.start + ids.len() - 1);
                return contradiction(&expected, edit.position);
            };
            // A shift moves everything behind it.
            let shifts = matches!(edit.kind, EditKind::Insert | EditKind::Delete);
            let mut moved = edit.position..if shifts { self.start + ids.len() } else { edit.position + 1 };
            if moved.any(|position| self.is_fixed(position)) {
                return contradiction("fixed ids left as they are", format!("an edit of position {}", edit.position));
            }
            self.one(&mut ids, row, edit)?;
        }
        self.open = Some(ids);
        self.pass = pass;
        Ok(())
    }

    fn one(&self, ids: &mut Vec<u32>, row: usize, edit: &Edit) -> Result<()> {
        let mask = self.mask_id;
        let old = ids[if edit.kind == EditKind::Insert { ids.len() - 1 } else { row }];
        if edit.old != old {
            return contradiction(&format!("id {old} before the edit of position {}", edit.position), edit.old);
        }
        let sound = match edit.kind {
            EditKind::Fill => old == mask && edit.new != mask,
            EditKind::Revise => old != mask && edit.new != mask && edit.new != old,
            EditKind::Remask => old != mask && edit.new == mask,
            EditKind::Insert => edit.new == mask,
            EditKind::Delete => old != mask && edit.new == ids.get(row + 1).copied().unwrap_or(mask),
        };
        if !sound {
            return contradiction(
                &format!("a {:?} that fits position {}", edit.kind, edit.position),
                format!("id {old} to id {}", edit.new),
            );
        }
        match edit.kind {
            EditKind::Fill | EditKind::Revise | EditKind::Remask => ids[row] = edit.new,
            EditKind::Insert => {
                ids.insert(row, mask);
                ids.pop();
            }
            EditKind::Delete => {
                ids.remove(row);
                ids.push(mask);
            }
        }
        Ok(())
    }

    fn commit(&mut self, start: usize, ids: &[u32]) -> Result<()> {
        match &self.open {
            Some(open) if (self.start, &open[..]) == (start, ids) && !ids.contains(&self.mask_id) => {
                self.open = None;
                self.put(start, ids);
                Ok(())
            }
            _ => contradiction("the open block as it stands, without a mask", format!("{} ids at {start}", ids.len())),
        }
    }

    fn retract(&mut self, start: usize, ids: &[u32], pass: u64) -> Result<()> {
        self.check_pass(pass)?;
        if self.open.is_some() || self.text.get(start..) != Some(ids) || ids.is_empty() {
            return contradiction(&format!("the committed ids from {start} on, and no open block"), "others");
        }
        // The first id taken back must have been the model's.
        if self.given.get(start).is_some_and(|&id| id != self.mask_id) {
            return contradiction("fixed ids left as they are", format!("position {start} taken back"));
        }
        let earliest = self.longest.saturating_sub(self.reach);
        if start < earliest {
            let expected = format!("nothing taken back before position {earliest}");
            return contradiction(&expected, start);
        }
        self.put(start, &[]);
        self.pass = pass;
        Ok(())
    }

    fn finish(&mut self, length: usize, passes: u64) -> Result<()> {
        self.check_pass(passes)?;
        // A sample that is stopped keeps what is known at the beginning of its open block.
        let open = self.open.as_deref().unwrap_or_default();
        let known: Vec<u32> = open.iter().copied().take_while(|&id| id != self.mask_id).collect();
        let most = if known.is_empty() { self.text.len() } else { self.text.len().max(self.start + known.len()) };
        if length > most {
            return contradiction(&format!("at most {most} ids"), length);
        }
        if length > self.text.len() {
            self.put(self.start, &known[..length - self.start]);
        } else {
            self.put(length, &[]);
        }
        self.open = None;
        self.phase = Phase::Finished;
        Ok(())
    }

    fn check_pass(&self, pass: u64) -> Result<()> {
        if pass < self.pass { contradiction(&format!("pass {} or a later one", self.pass), pass) } else { Ok(()) }
    }

    /// Replaces the text from `start` on.
    fn put(&mut self, start: usize, ids: &[u32]) {
        self.text.truncate(start);
        self.hashes.truncate(start + 1);
        for &id in ids {
            self.text.push(id);
            self.hashes.push(add(self.hashes[self.text.len() - 1], u64::from(id)));
        }
        self.longest = self.longest.max(self.text.len());
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
/// Marks the start of an open block, since no id reaches so far.
const OPEN: u64 = 1 << 63;

fn add(hash: u64, number: u64) -> u64 {
    bytes(hash, &number.to_le_bytes())
}

/// 64-bit FNV-1a, continued.
pub(super) fn bytes(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

/// The hash of nothing.
pub(super) const EMPTY: u64 = FNV_OFFSET;

fn contradiction<T>(expected: &str, found: impl std::fmt::Debug) -> Result<T> {
    Err(Error::value("event", expected, format!("{found:?}").trim_matches('"').to_string()))
}
