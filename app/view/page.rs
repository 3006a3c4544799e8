//! What a sample looks like after the events so far: the state that they tell, how sure the model was, and, for some passes,
//! what has just been taken away. It knows no text and no terminal.

use bd3::event::{Edit, EditKind, Event, Sink, State, Why};

/// For how many passes a token that was taken away stands beside what came after it.
pub const LINGER: u64 = 6;

/// What is shown at one place; a position has as many as it needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// Not known yet.
    Mask,
    /// The same, where there was no position before.
    Inserted,
    /// A token of the prompt.
    Given(u32),
    /// A committed token.
    Settled(u32),
    /// A token of the open block.
    Drawn {
        /// The token.
        id: u32,
        /// Its probability before temperature and nucleus.
        prob: f32,
    },
    /// A token that was taken away just now; it stands before what came after it.
    Struck(u32),
    /// The same some passes later, and a token that was retracted.
    Fading(u32),
}

/// The last thing that was no plain filling of a mask.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An edit of the open block.
    Edited(Edit),
    /// Committed tokens taken back.
    Retracted {
        /// How many.
        count: usize,
        /// Probability of the first of them.
        prob: f32,
        /// The reason.
        why: Why,
    },
}

/// How a position of the open block came to what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Opened,
    Inserted,
    Drawn(f32),
}

#[derive(Clone, Copy, Debug)]
struct Struck {
    position: usize,
    id: u32,
    pass: u64,
    retracted: bool,
}

/// The state that events describe, and its recent past.
#[derive(Debug)]
pub struct Page {
    mask: u32,
    state: State,
    reach: usize,
    marks: Vec<Mark>,
    struck: Vec<Struck>,
    last: Option<Change>,
    blocks: usize,
    passes: u64,
}

impl Page {
    /// An empty page of a model whose mask has this id.
    pub fn new(mask: u32) -> Self {
        let (state, marks, struck) = (State::new(mask), Vec::new(), Vec::new());
        Self { mask, state, reach: 0, marks, struck, last: None, blocks: 0, passes: 0 }
    }

    /// Takes one event in. One that contradicts what stands changes nothing: it is for whoever makes or reads it to notice.
    pub fn follow(&mut self, event: &Event) {
        if matches!(event, Event::Started { .. }) {
            *self = Self::new(self.mask);
        }
        if self.state.apply(event).is_err() {
            return;
        }
        match event {
            Event::Started { reach, .. } => self.reach = *reach,
            Event::BlockOpened { ids, .. } => {
                self.blocks += 1;
                self.marks = vec![Mark::Opened; ids.len()];
            }
            Event::Edited { pass, edits } => {
                self.pass(*pass);
                edits.iter().for_each(|edit| self.edit(edit));
            }
            Event::BlockCommitted { .. } => self.marks.clear(),
            Event::Retracted { start, ids, pass, prob, why } => {
                self.pass(*pass);
                // All of it where it began: as one piece it can be read while the masks after it are filled.
                let taken = |&id| Struck { position: *start, id, pass: *pass, retracted: true };
                self.struck.extend(ids.iter().map(taken));
                self.last = Some(Change::Retracted { count: ids.len(), prob: *prob, why: *why });
            }
            Event::Finished { passes, .. } => {
                self.passes = *passes;
                self.marks.clear();
                self.struck.clear();
            }
        }
    }

    fn pass(&mut self, pass: u64) {
        self.passes = pass;
        self.struck.retain(|struck| struck.pass + LINGER > pass);
    }

    fn edit(&mut self, edit: &Edit) {
        let Some((start, _)) = self.state.open() else { return };
        let row = edit.position - start;
        let (position, id, pass) = (edit.position, edit.old, self.passes);
        let moved = |struck: &mut Struck, by: fn(usize) -> usize| {
            if struck.position > position && !struck.retracted {
                struck.position = by(struck.position);
            }
        };
        match edit.kind {
            EditKind::Fill | EditKind::Revise => self.marks[row] = Mark::Drawn(edit.prob),
            EditKind::Remask => self.marks[row] = Mark::Opened,
            EditKind::Insert => {
                self.marks.insert(row, Mark::Inserted);
                self.marks.pop();
                self.struck.iter_mut().for_each(|struck| moved(struck, |at| at + 1));
            }
            EditKind::Delete => {
                self.marks.remove(row);
                self.marks.push(Mark::Opened);
                self.struck.iter_mut().for_each(|struck| moved(struck, |at| at - 1));
            }
        }
        if matches!(edit.kind, EditKind::Revise | EditKind::Remask | EditKind::Delete) {
            self.struck.push(Struck { position, id, pass, retracted: false });
        }
        if edit.kind != EditKind::Fill {
            self.last = Some(Change::Edited(edit.clone()));
        }
    }

    /// What is shown from this position on: committed tokens, the open block, and what of the prompt comes after it.
    pub fn slots(&self, from: usize) -> Vec<Slot> {
        let mut struck: Vec<&Struck> = self.struck.iter().filter(|struck| struck.position >= from).collect();
        struck.sort_by_key(|struck| struck.position);
        let mut struck = struck.into_iter().peekable();
        let gone = |struck: &Struck| {
            let late = struck.retracted || struck.pass + LINGER / 2 <= self.passes;
            if late { Slot::Fading(struck.id) } else { Slot::Struck(struck.id) }
        };
        let mut slots = Vec::new();
        for position in from..self.end() {
            while let Some(before) = struck.next_if(|struck| struck.position <= position) {
                slots.push(gone(before));
            }
            slots.push(self.slot(position));
        }
        slots.extend(struck.map(gone));
        slots
    }

    fn slot(&self, position: usize) -> Slot {
        let given = self.state.given().get(position).copied().filter(|&id| id != self.mask);
        if let Some(id) = given {
            return Slot::Given(id);
        }
        if let Some(&id) = self.state.text().get(position) {
            return Slot::Settled(id);
        }
        let open = self.state.open().and_then(|(start, ids)| {
            let row = position.checked_sub(start)?;
            Some((*ids.get(row)?, *self.marks.get(row)?))
        });
        match open {
            Some((id, Mark::Drawn(prob))) if id != self.mask => Slot::Drawn { id, prob },
            Some((_, Mark::Inserted)) => Slot::Inserted,
            _ => Slot::Mask,
        }
    }

    fn end(&self) -> usize {
        let open = self.state.open().map_or(0, |(start, ids)| start + ids.len());
        let given = if self.state.is_finished() { 0 } else { self.state.given().len() };
        self.state.text().len().max(open).max(given)
    }

    /// The position from which on the text is the sample's: after the prompt, or after bos where the prompt has gaps.
    pub fn own(&self) -> usize {
        self.state.own()
    }

    /// The prompt and every committed block. The last block may still be cut when the sample ends.
    pub fn ids(&self) -> &[u32] {
        self.state.text()
    }

    /// How many of [`Page::ids`] no event can take back, but for that cut.
    pub fn safe(&self) -> usize {
        let length = self.ids().len();
        if self.state.is_finished() { length } else { length.saturating_sub(self.reach) }
    }

    /// The last revision, re-masking, insertion, deletion or retraction.
    pub fn last(&self) -> Option<&Change> {
        self.last.as_ref()
    }

    /// Blocks opened so far.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Forward evaluations so far.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Tokens of the model that stand now, committed or not.
    pub fn drawn(&self) -> usize {
        let open = self.state.open().map_or(&[][..], |(start, ids)| &ids[self.ids().len() - start..]);
        let known = self.ids().len() + open.iter().filter(|&&id| id != self.mask).count();
        let given =
            self.state.given().iter().take(self.ids().len() + open.len()).filter(|&&id| id != self.mask).count();
        known.saturating_sub(given)
    }
}

impl Sink for Page {
    fn event(&mut self, event: &Event) -> bool {
        self.follow(event);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bd3::event::Reason;

    const M: u32 = 9;

    fn page(events: &[Event]) -> Page {
        let mut page = Page::new(M);
        events.iter().for_each(|event| page.follow(event));
        page
    }

    fn drawn(id: u32) -> Slot {
        Slot::Drawn { id, prob: 0.5 }
    }

    fn edits(pass: u64, edits: Vec<Edit>) -> Event {
        Event::Edited { pass, edits }
    }

    fn edit(position: usize, kind: EditKind, (old, new): (u32, u32)) -> Edit {
        Edit { kind, old, new, why: Why::Better, ..Edit::fill(position, M, new, 0.5) }
    }

    fn fills(pass: u64, start: usize, ids: &[u32]) -> Event {
        edits(pass, (start..).zip(ids).map(|(position, &id)| Edit::fill(position, M, id, 0.5)).collect())
    }

    fn opened() -> Vec<Event> {
        vec![
            Event::Started { prompt: vec![0, 1], block: 4, reach: 4 },
            Event::BlockOpened { start: 0, ids: vec![0, 1, M, M] },
        ]
    }

    #[test]
    fn a_page_follows_a_sample_to_its_cut() {
        let mut page = page(&opened());
        assert_eq!(page.slots(2), [Slot::Mask, Slot::Mask]);
        page.follow(&fills(1, 3, &[5]));
        assert_eq!(page.slots(1), [Slot::Given(1), Slot::Mask, drawn(5)]);
        page.follow(&fills(2, 2, &[4]));
        page.follow(&Event::BlockCommitted { start: 0, ids: vec![0, 1, 4, 5] });
        assert_eq!((page.ids(), page.safe(), page.drawn()), (&[0, 1, 4, 5][..], 0, 2));
        assert_eq!(page.slots(2), [Slot::Settled(4), Slot::Settled(5)]);
        page.follow(&Event::Finished { length: 3, passes: 2, tokens: 1, reason: Reason::Length });
        assert_eq!((page.ids(), page.passes(), page.safe()), (&[0, 1, 4][..], 2, 3));
    }

    #[test]
    fn what_is_taken_away_stands_struck_beside_its_successor_and_fades() {
        let mut page = page(&opened());
        page.follow(&fills(1, 2, &[4, 5]));
        page.follow(&edits(2, vec![edit(2, EditKind::Revise, (4, 6)), edit(3, EditKind::Remask, (5, M))]));
        assert_eq!(page.slots(2), [Slot::Struck(4), drawn(6), Slot::Struck(5), Slot::Mask]);
        assert_eq!(page.drawn(), 1);
        let Some(Change::Edited(last)) = page.last() else { panic!("no change") };
        assert_eq!((last.kind, last.old, last.why), (EditKind::Remask, 5, Why::Better));
        let mut seen = Vec::new();
        for pass in 3..12 {
            page.follow(&edits(pass, Vec::new()));
            seen.push(page.slots(2)[0]);
        }
        let expected = [Slot::Struck(4), Slot::Struck(4), Slot::Fading(4), Slot::Fading(4), Slot::Fading(4), drawn(6)];
        assert_eq!(seen[..6], expected);
        assert_eq!(page.slots(2), [drawn(6), Slot::Mask]);
    }

    #[test]
    fn positions_enter_and_leave_and_struck_tokens_move_along() {
        let mut page = Page::new(M);
        page.follow(&Event::Started { prompt: vec![0], block: 4, reach: 0 });
        page.follow(&Event::BlockOpened { start: 1, ids: vec![M; 4] });
        page.follow(&fills(1, 1, &[2, 3, 4]));
        page.follow(&edits(2, vec![edit(3, EditKind::Revise, (4, 5))]));
        page.follow(&edits(3, vec![edit(2, EditKind::Insert, (M, M))]));
        assert_eq!(page.slots(1), [drawn(2), Slot::Inserted, drawn(3), Slot::Struck(4), drawn(5)]);
        page.follow(&edits(4, vec![edit(1, EditKind::Delete, (2, M))]));
        assert_eq!(page.slots(1)[..3], [Slot::Struck(2), Slot::Inserted, drawn(3)]);
        assert_eq!(page.slots(1)[3..], [Slot::Struck(4), drawn(5), Slot::Mask]);
    }

    #[test]
    fn retracted_text_fades_where_it_stood() {
        let mut page = page(&opened());
        page.follow(&fills(1, 2, &[4, 5]));
        page.follow(&Event::BlockCommitted { start: 0, ids: vec![0, 1, 4, 5] });
        page.follow(&Event::Retracted { start: 3, ids: vec![5], pass: 2, prob: 0.1, why: Why::Unlikely });
        assert_eq!(page.slots(2), [Slot::Settled(4), Slot::Fading(5)]);
        assert_eq!(page.last(), Some(&Change::Retracted { count: 1, prob: 0.1, why: Why::Unlikely }));
        page.follow(&Event::BlockOpened { start: 0, ids: vec![0, 1, 4, M] });
        assert_eq!(page.slots(2), [Slot::Settled(4), Slot::Fading(5), Slot::Mask]);
        page.follow(&edits(2 + LINGER, Vec::new()));
        assert_eq!(page.slots(2), [Slot::Settled(4), Slot::Mask]);
    }

    #[test]
    fn gaps_of_a_prompt_are_masks_and_its_end_is_shown_before_it_is_reached() {
        let page = page(&[Event::Started { prompt: vec![0, M, 1, 2], block: 2, reach: 0 }]);
        assert_eq!(page.slots(0), [Slot::Given(0), Slot::Mask, Slot::Given(1), Slot::Given(2)]);
        assert_eq!((page.own(), page.drawn()), (1, 0));
    }

    #[test]
    fn an_event_that_contradicts_the_page_changes_nothing() {
        let mut page = page(&opened());
        page.follow(&Event::BlockCommitted { start: 0, ids: vec![0, 1, 4, 5] });
        page.follow(&fills(1, 7, &[5]));
        assert_eq!(page.slots(2), [Slot::Mask, Slot::Mask]);
        assert_eq!(page.passes(), 0);
    }
}
