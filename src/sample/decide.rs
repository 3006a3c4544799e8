//! What follows from the answers of a pass: fills, revisions, and the backspace. The other half of [`Sampler`]; `step.rs` says when.

use super::look_back::{Regret, Watch};
use super::revise::Change;
use super::rule::{Clock, hasten};
use super::step::Status;
use super::{Accepted, Revise, Sampler};
use crate::error::Result;
use crate::event::{Edit, EditKind, Event, Sink, Why};
use crate::pass::{Cache, Proposal};

impl<C: Cache> Sampler<C> {
    /// The edits that follow from a pass: first the rule fills, then the revision changes what is known.
    pub(super) fn decide(&mut self, proposals: &[Proposal]) -> Result<Vec<Edit>> {
        self.opened.1 += 1;
        let conditioned = self.chain.as_ref().map(|chain| chain.condition(proposals)).transpose()?;
        let proposals = conditioned.as_deref().unwrap_or(proposals);
        let rule = self.options.rule;
        let open_block = self.canvas.open_block_mut();
        let masked: Vec<Proposal> =
            proposals.iter().filter(|p| open_block.ids()[p.row] == open_block.mask_id()).cloned().collect();
        let accepted = match self.reviser.leads() {
            true => masked.iter().map(|proposal| Accepted { row: proposal.row, why: Why::Rule }).collect(),
            false if masked.is_empty() => Vec::new(),
            false => rule.accept(&masked, &mut self.clock),
        };
        let accepted = hasten(accepted, &masked, self.least, |proposal| rule.score(proposal, &self.clock));
        let mut edits = Vec::new();
        let masks = open_block.masked().len();
        for Accepted { row, why } in &accepted {
            let Some(proposal) = masked.iter().find(|proposal| proposal.row == *row) else { continue };
            let change = Change { row: *row, kind: EditKind::Fill, token: proposal.token, why: *why };
            edits.push(open_block.change(change, proposal.raw_prob as f32)?);
        }
        edits.extend(self.revise(&accepted, masks, proposals)?);
        self.report(&mut edits, proposals);
        Ok(edits)
    }

    /// What the revision changes after the rule's fills.
    fn revise(&mut self, accepted: &[Accepted], masks: usize, proposals: &[Proposal]) -> Result<Vec<Edit>> {
        let open_block = self.canvas.open_block_mut();
        let filled: Vec<usize> = accepted.iter().map(|accepted| accepted.row).collect();
        for proposal in proposals.iter().filter(|proposal| !filled.contains(&proposal.row)) {
            if open_block.ids()[proposal.row] != open_block.mask_id() {
                open_block.rescored(proposal.row, proposal.standing as f32);
            }
        }
        let full = open_block.masked().is_empty();
        let mut edits = Vec::new();
        for change in self.reviser.changes(open_block, &filled, masks, proposals) {
            let same = |p: &&Proposal| (p.row, p.token) == (change.row, change.token);
            let prob = proposals.iter().find(same).map_or(0.0, |proposal| proposal.raw_prob);
            edits.push(open_block.change(change, prob as f32)?);
        }
        for change in self.reviser.roll(open_block, &mut self.rng) {
            edits.push(open_block.change(change, 0.0)?);
        }
        let left = open_block.masked().len();
        if full && left > 0 {
            // The rule begins anew with what is masked again.
            self.clock = Clock::new(left).of_block(self.options.block);
        }
        Ok(edits)
    }

    /// Adds the alternatives that were asked for.
    fn report(&self, edits: &mut [Edit], proposals: &[Proposal]) {
        let (start, count) = (self.canvas.open_block().start(), self.options.alternatives);
        for edit in edits.iter_mut().filter(|_| count > 0) {
            if let Some(proposal) = proposals.iter().find(|proposal| start + proposal.row == edit.position) {
                let most = proposal.alternatives.iter().take(count);
                edit.alternatives = most.map(|&(id, prob)| (id, prob as f32)).collect();
            }
        }
    }

    /// The length of a text that an end of text ends inside the open block, once all before it is known: where nothing that is known changes
    /// any more, what stands behind it would only be cut.
    pub(super) fn ended_within(&self) -> Option<usize> {
        let eos =
            self.options.stop.eos.filter(|_| self.status == Status::Running && self.options.revise == Revise::None)?;
        let open_block = self.canvas.open_block();
        let fresh = self.canvas.given().len().saturating_sub(open_block.start());
        let known = open_block.ids().iter().take_while(|&&id| id != open_block.mask_id()).count();
        // A full block is committed as any other.
        let known = open_block.ids().get(fresh..known.min(self.limit() - open_block.start()))?;
        let end =
            known.iter().position(|&id| id == eos).filter(|_| open_block.ids().contains(&open_block.mask_id()))?;
        Some(open_block.start() + fresh + end)
    }

    /// Takes the answer of a reading of the open block.
    pub(super) fn read(&mut self, proposals: &[Proposal], sink: &mut impl Sink) -> Result<()> {
        let Some(read) = self.proof.as_ref().and_then(|proof| proof.read(proposals)) else {
            self.emit(&Event::Edited { pass: self.passes, edits: Vec::new() }, sink);
            return Ok(());
        };
        self.status = Status::Running;
        let edits = self.correct(&read)?;
        self.emit(&Event::Edited { pass: self.passes, edits }, sink);
        self.advance(sink);
        Ok(())
    }

    /// The edits that follow from it: unlikely tokens become masks, and the rule begins anew with them.
    fn correct(&mut self, read: &[Proposal]) -> Result<Vec<Edit>> {
        let open_block = self.canvas.open_block_mut();
        read.iter().for_each(|proposal| open_block.rescored(proposal.row, proposal.standing as f32));
        let changes = self.reviser.correct(open_block, read).into_iter();
        let mut edits = changes.map(|change| open_block.change(change, 0.0)).collect::<Result<Vec<Edit>>>()?;
        self.clock = Clock::new(edits.len()).of_block(self.options.block);
        if let (Some(first), Some(proof)) = (edits.first(), &mut self.proof) {
            proof.forget(first.position, &self.canvas);
        }
        self.report(&mut edits, read);
        Ok(edits)
    }

    /// Takes the answer of a look at committed text.
    pub(super) fn look(&mut self, proposals: &[Proposal], sink: &mut impl Sink) -> Result<()> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let done = watch.take(proposals, &self.canvas);
        self.emit(&Event::Edited { pass: self.passes, edits: Vec::new() }, sink);
        if !done {
            return Ok(());
        }
        if self.status == Status::Looking {
            self.status = Status::Running;
        }
        // Of what a sliding window has dropped nothing can be written again.
        let (dropped, block) = (self.cache.end() - self.cache.held(), self.options.block);
        let border = |regret: &Regret| (regret.position - self.canvas.base()) / block * block;
        let regret = self.watch.as_mut().and_then(Watch::verdict);
        match regret.filter(|regret| border(regret) >= dropped) {
            Some(regret) => self.retract(regret, sink)?,
            None => self.open_or_finish(sink),
        }
        self.advance(sink);
        Ok(())
    }

    /// The backspace: text is taken back to a token, the cache cut at its block, and the better token written there.
    fn retract(&mut self, regret: Regret, sink: &mut impl Sink) -> Result<()> {
        let Regret { position, prob, better: (token, better), alternatives } = regret;
        let ids = self.canvas.retract(position);
        let stored = self.cache.end().min(self.canvas.next_start() - self.canvas.base());
        self.cache.truncate(stored);
        self.guide.iter_mut().for_each(|guide| guide.truncate(stored));
        self.emit(&Event::Retracted { start: position, ids, pass: self.passes, prob, why: Why::Unlikely }, sink);
        self.open_next(sink);
        let row = position - self.canvas.open_block().start();
        let change = Change { row, kind: EditKind::Fill, token, why: Why::Better };
        let edit = Edit { alternatives, ..self.canvas.open_block_mut().change(change, better)? };
        self.emit(&Event::Edited { pass: self.passes, edits: vec![edit] }, sink);
        Ok(())
    }
}
