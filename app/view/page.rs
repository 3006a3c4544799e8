//! What a sample looks like after the events so far: settled ids and the open block. It knows no text and no terminal.

use bd3::event::{Edit, EditKind, Event};

/// One position of the open block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// Not known yet.
    Mask,
    /// Known when the block opened.
    Given(u32),
    /// Drawn by the model.
    Drawn {
        /// The token.
        id: u32,
        /// Its probability before temperature and nucleus.
        prob: f32,
    },
}

/// The state that events describe.
#[derive(Debug)]
pub struct Page {
    mask: u32,
    given: usize,
    ids: Vec<u32>,
    start: usize,
    slots: Vec<Slot>,
    blocks: usize,
    passes: u64,
    drawn: usize,
}

impl Page {
    /// An empty page of a model whose mask has this id.
    pub fn new(mask: u32) -> Self {
        Self { mask, given: 0, ids: Vec::new(), start: 0, slots: Vec::new(), blocks: 0, passes: 0, drawn: 0 }
    }

    /// Takes one event in.
    pub fn follow(&mut self, event: &Event) {
        match event {
            Event::Started { prompt, .. } => {
                *self = Self::new(self.mask);
                self.given = prompt.len();
                self.ids.clone_from(prompt);
            }
            Event::BlockOpened { start, ids } => {
                self.blocks += 1;
                self.start = *start;
                self.slots = ids.iter().map(|&id| if id == self.mask { Slot::Mask } else { Slot::Given(id) }).collect();
            }
            Event::Edited { pass, edits } => {
                self.passes = *pass;
                edits.iter().for_each(|edit| self.edit(edit));
            }
            Event::BlockCommitted { start, ids } => {
                self.slots.clear();
                self.ids.truncate(*start);
                self.ids.extend_from_slice(ids);
            }
            Event::Retracted { start, pass, .. } => {
                self.passes = *pass;
                self.slots.clear();
                self.ids.truncate(*start);
            }
            Event::Finished { length, passes, .. } => {
                self.passes = *passes;
                self.slots.clear();
                self.ids.truncate(*length);
            }
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let Some(row) = edit.position.checked_sub(self.start).filter(|&row| row < self.slots.len()) else {
            return;
        };
        match edit.kind {
            EditKind::Fill | EditKind::Revise => self.slots[row] = Slot::Drawn { id: edit.new, prob: edit.prob },
            EditKind::Remask => self.slots[row] = Slot::Mask,
            EditKind::Insert => {
                self.slots.insert(row, Slot::Mask);
                self.slots.pop();
            }
            EditKind::Delete => {
                self.slots.remove(row);
                self.slots.push(Slot::Mask);
            }
        }
        self.drawn += usize::from(edit.kind == EditKind::Fill);
    }

    /// How many ids the prompt has, bos included.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The prompt and every committed block. The last block may still be cut when the sample ends.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What the open block adds after [`Page::ids`].
    pub fn open(&self) -> &[Slot] {
        self.slots.get(self.ids.len().saturating_sub(self.start)..).unwrap_or_default()
    }

    /// Blocks opened so far.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Forward evaluations so far.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Masks that became tokens so far.
    pub fn drawn(&self) -> usize {
        self.drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bd3::event::Reason;

    #[test]
    fn a_page_follows_a_sample_to_its_cut() {
        const M: u32 = 9;
        let mut page = Page::new(M);
        page.follow(&Event::Started { prompt: vec![0, 1], block: 4, reach: 0 });
        page.follow(&Event::BlockOpened { start: 0, ids: vec![0, 1, M, M] });
        assert_eq!(page.open(), [Slot::Mask, Slot::Mask]);
        let edit = Edit::fill(3, M, 5, 0.5);
        page.follow(&Event::Edited { pass: 1, edits: vec![edit] });
        assert_eq!(page.open(), [Slot::Mask, Slot::Drawn { id: 5, prob: 0.5 }]);
        page.follow(&Event::BlockCommitted { start: 0, ids: vec![0, 1, 4, 5] });
        assert_eq!((page.ids(), page.open()), (&[0, 1, 4, 5][..], &[][..]));
        page.follow(&Event::Finished { length: 3, passes: 2, tokens: 1, reason: Reason::Length });
        assert_eq!((page.ids(), page.passes()), (&[0, 1, 4][..], 2));
    }
}
