//! A revision at work in one block: what it asks for, what it changes after a pass, and when the block may be committed. The ideas
//! themselves are pure functions in the files beside this one.

use super::corrector;
use super::edit::{Edited, Editing, Seen, edits};
use super::remdm::{self, Remasked, Row};
use super::{Change, Revise, remask};
use crate::pass::Proposal;
use crate::rng::Rng;
use crate::sample::{OpenBlock, Rule};

/// See the module.
#[derive(Clone, Debug)]
pub struct Reviser {
    how: Revise,
    /// Rounds of re-masking or reading done, or steps of a schedule.
    round: usize,
    /// Of a schedule: how many steps, and what the next one that fills anything does.
    steps: usize,
    next: Remasked,
    edited: Edited,
    seen: Seen,
    done: bool,
}

impl Reviser {
    /// A block opens.
    pub fn new(how: Revise, rule: Rule, open_block: &OpenBlock, rng: &mut Rng) -> Self {
        let steps = rule.steps().unwrap_or(0);
        let (edited, seen) = (Edited::default(), Seen::default());
        let done = open_block.masked().is_empty();
        let mut reviser = Self { how, round: 0, steps, next: Remasked::default(), edited, seen, done };
        // Nothing is drawn yet, so nothing can be re-masked.
        reviser.roll(open_block, rng);
        reviser
    }

    /// Whether it says itself which masks are filled, in the rule's stead.
    pub fn leads(&self) -> bool {
        matches!(self.how, Revise::Remdm { .. })
    }

    /// Rows to ask for in the next pass, ascending: known ones, and where it [`Reviser::leads`] the masked ones to fill.
    pub fn rows(&self, open_block: &OpenBlock) -> Vec<usize> {
        match self.how {
            Revise::Remdm { .. } => self.next.fill.clone(),
            Revise::Edit(_) => open_block.drawn(),
            _ => Vec::new(),
        }
    }

    /// What changes after a pass. `open_block` holds the fills of this pass, whose rows are `filled`; `masks` were masked before it.
    pub fn changes(
        &mut self,
        open_block: &OpenBlock,
        filled: &[usize],
        masks: usize,
        proposals: &[Proposal],
    ) -> Vec<Change> {
        match self.how {
            Revise::Remask { threshold, rounds } if self.round < rounds => {
                let changes = remask(open_block, filled, threshold);
                self.round += usize::from(!changes.is_empty());
                changes
            }
            Revise::Remdm { .. } => std::mem::take(&mut self.next.changes),
            Revise::Edit(editing) => self.edit(editing, (open_block, filled, masks), proposals),
            _ => Vec::new(),
        }
    }

    /// May the block be read at block size 1?
    pub fn reads(&self, open_block: &OpenBlock) -> bool {
        matches!(self.how, Revise::Corrector(how) if self.round < how.rounds)
            && !self.done
            && open_block.masked().is_empty()
    }

    /// What changes after it was read.
    pub fn correct(&mut self, open_block: &OpenBlock, read: &[Proposal]) -> Vec<Change> {
        let Revise::Corrector(how) = self.how else { return Vec::new() };
        let changes = corrector::unlikely(open_block, read, how.threshold);
        self.round += 1;
        self.done = changes.is_empty();
        changes
    }

    fn edit(
        &mut self,
        editing: Editing,
        (open_block, filled, masks): (&OpenBlock, &[usize], usize),
        proposals: &[Proposal],
    ) -> Vec<Change> {
        let known: Vec<Proposal> = proposals.iter().filter(|p| !filled.contains(&p.row)).cloned().collect();
        let known: Vec<Proposal> =
            known.into_iter().filter(|p| open_block.ids()[p.row] != open_block.mask_id()).collect();
        let changes = edits(open_block.ids(), &known, editing.threshold);
        self.done = self.edited.done(masks, changes.len(), editing);
        if masks == 0 && self.seen.again(open_block.ids()) {
            // Going round in circles ends nowhere.
            self.done = true;
            return Vec::new();
        }
        changes
    }

    /// Of a schedule: goes on to the next step that fills a mask. The tokens that steps before it re-mask need no pass.
    pub fn roll(&mut self, open_block: &OpenBlock, rng: &mut Rng) -> Vec<Change> {
        let Revise::Remdm { strength, spread, phase } = self.how else { return Vec::new() };
        let mask = open_block.mask_id();
        let mut rows: Vec<Row> = (0..open_block.ids().len())
            .map(|row| match open_block.ids()[row] {
                _ if open_block.is_fixed(row) => Row::Given,
                id if id == mask => Row::Mask,
                _ => Row::Filled(f64::from(open_block.prob(row))),
            })
            .collect();
        let mut all = Vec::new();
        self.next = Remasked::default();
        while self.round < self.steps {
            let uniforms: Vec<f64> = rows.iter().map(|_| rng.uniform()).collect();
            let span = phase.span(self.round, self.steps);
            self.round += 1;
            let step = remdm::remask(&rows, span, (strength, spread), &uniforms, mask);
            if !step.fill.is_empty() {
                self.next = step;
                break;
            }
            step.changes.iter().for_each(|change| rows[change.row] = Row::Mask);
            all.extend(step.changes);
        }
        all
    }

    /// May the block be committed as it stands?
    pub fn is_settled(&self, open_block: &OpenBlock) -> bool {
        open_block.masked().is_empty()
            && match self.how {
                Revise::Remdm { .. } => self.next.fill.is_empty(),
                Revise::Edit(_) => self.done,
                Revise::Corrector(_) => !self.reads(open_block),
                _ => true,
            }
    }
}
