//! The sampler: a state that is stepped once per pass. [`step`] is how text is made: plan -> pass -> decide -> emit, for any
//! number of samples side by side. A sample depends on its own seed only, never on its company. Finished ids ride in front of the
//! next open block, so that no pass is spent on storing alone, but for a long prompt: that is stored in pieces.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::event::{Event, Reason, Sink};
use crate::pass::{Ask, Cache, Denoiser, Lane, Proposal};
use crate::rng::Rng;

use super::constrained::Chain;
use super::guide::Unguided;
use super::look_back::Watch;
use super::proof::Proof;
use super::revise::Reviser;
use super::rule::{Clock, hurry};
use super::{Canvas, OpenBlock, Revise, SampleOptions, Window};

/// One sample while it is made.
pub struct Sampler<C> {
    pub(super) options: SampleOptions,
    pub(super) canvas: Canvas,
    pub(super) cache: C,
    pub(super) rng: Rng,
    pub(super) clock: Clock,
    pub(super) reviser: Reviser,
    /// When the open block opened, and the passes spent on it.
    pub(super) opened: (Instant, usize),
    /// Rows that this pass must settle for the budget, at least.
    pub(super) least: usize,
    pub(super) ask: Ask,
    /// Absolute position up to which the next pass stores; before the open block where it stores a piece and no more.
    pub(super) until: usize,
    pub(super) chain: Option<Chain>,
    pub(super) guide: Option<Unguided<C>>,
    pub(super) watch: Option<Watch<C>>,
    pub(super) proof: Option<Proof<C>>,
    pub(super) passes: u64,
    pub(super) status: Status,
}

/// Ids that are stored in one pass, at most, or one block. More would not make the products faster (`bd3 bench pass --rows 16,32,64,256`),
/// and between two pieces a sink is heard and others have their turn.
const PIECE: usize = 64;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Status {
    New,
    /// A block is open.
    Running,
    /// Committed text is scored again.
    Looking,
    /// The open block is read at block size 1.
    Reading,
    /// The sink asked to stop.
    Interrupted,
    /// The text is cut to this length.
    Done(Reason, usize),
}

/// One pass over all samplers that are not done, each with its sink. Returns how many there were; 0 means that all are done
/// and no pass was made.
///
/// # Errors
/// When the model fails, or answers something else than it was asked.
pub fn step<D: Denoiser, S: Sink>(model: &D, samplers: &mut [Sampler<D::Cache>], sinks: &mut [S]) -> Result<usize> {
    if samplers.len() != sinks.len() {
        return Err(Error::value("sinks", format!("{} (one per sample)", samplers.len()), sinks.len().to_string()));
    }
    let mut pairs: Vec<_> = samplers.iter_mut().zip(sinks).collect();
    pairs.iter_mut().for_each(|(sampler, sink)| sampler.plan(sink));
    pairs.retain(|(sampler, _)| sampler.reason().is_none());
    if pairs.is_empty() {
        return Ok(0);
    }
    let mut lanes: Vec<_> = pairs.iter_mut().map(|(sampler, _)| sampler.lane()).collect();
    let answers = model.pass(&mut lanes)?;
    drop(lanes);
    if answers.len() != pairs.len() {
        return Err(Error::Run(format!("the model answered {} lanes of {}", answers.len(), pairs.len())));
    }
    for ((sampler, sink), proposals) in pairs.iter_mut().zip(&answers) {
        sampler.apply(proposals, sink)?;
    }
    Ok(answers.len())
}

/// Steps one sampler until it is done.
///
/// # Errors
/// As [`step`].
pub fn run<D: Denoiser, S: Sink>(model: &D, sampler: &mut Sampler<D::Cache>, mut sink: S) -> Result<()> {
    while step(model, std::slice::from_mut(sampler), std::slice::from_mut(&mut sink))? > 0 {}
    Ok(())
}

impl<C: Cache> Sampler<C> {
    /// A sample that continues `prompt` (bos first; mask ids in it are gaps to be filled). `caches` gives a cache of the model for a
    /// block size: first for the one that text is written at. What that one holds of the prompt's beginning (it may come from another
    /// sample's [`Sampler::into_cache`]) is not stored again.
    ///
    /// # Errors
    /// When the prompt does not start with a token, or an option is out of range.
    pub fn new(
        options: SampleOptions,
        prompt: &[u32],
        mask_id: u32,
        mut caches: impl FnMut(usize) -> C,
        mut rng: Rng,
    ) -> Result<Self> {
        let length = options.check(prompt, mask_id)?;
        let mut canvas = Canvas::new(prompt, options.block, mask_id);
        options.narrow(&mut canvas);
        if options.max_new == 0 {
            canvas.end_with_given();
        }
        let mut cache = caches(options.block);
        // A guide stores what its lane stores, so that neither may be ahead.
        cache.keep_equal(if options.guidance > 0.0 { &[] } else { options.kept(&canvas) });
        cache.reserve(options.window.most(length, options.train_length));
        let limit = prompt.len() + options.max_new;
        let chain = options.constraint.clone().map(|constraint| Chain::new(constraint, limit));
        let guide = (options.guidance > 0.0).then(|| Unguided::new(options.guidance, caches(options.block)));
        let watch = options.revise.look_back().map(|how| Watch::new(how, caches(how.window), &canvas));
        let most = options.window.most(length + options.block, options.train_length);
        let reads = matches!(options.revise, Revise::Corrector(_));
        let proof = reads.then(|| Proof::new(caches(1), &canvas, most));
        Ok(Self {
            canvas,
            cache,
            reviser: Reviser::new(options.revise, options.rule, &OpenBlock::default(), &mut rng),
            rng,
            clock: Clock::new(0),
            opened: (Instant::now(), 0),
            least: 0,
            ask: Ask::none(),
            until: 0,
            chain,
            guide,
            watch,
            proof,
            passes: 0,
            status: Status::New,
            options,
        })
    }

    /// Decides what the next pass is asked, once per pass. Afterwards the sampler has a [`Sampler::lane`] or is done.
    pub fn plan(&mut self, sink: &mut impl Sink) {
        if self.status == Status::New {
            self.begin(sink);
        }
        match (self.status, &mut self.watch, &mut self.proof) {
            (Status::Interrupted, ..) => {
                self.canvas.commit_known();
                let most = self.canvas.text().len().min(self.limit());
                self.finish(Reason::Interrupted, self.ended().unwrap_or(most), sink);
            }
            (Status::Looking, Some(watch), _) => watch.plan(&self.canvas, PIECE, &self.options),
            (Status::Reading, _, Some(proof)) => proof.plan(&self.canvas, PIECE, &self.options),
            (Status::Running, ..) => self.plan_block(),
            _ => {}
        }
    }

    /// A pass over the open block, or one that stores a piece of a long prompt.
    fn plan_block(&mut self) {
        let SampleOptions { window, block, train_length, .. } = self.options;
        let stored = self.canvas.base() + self.cache.end();
        let unstored = self.canvas.open_block().start() - stored;
        let piece = (PIECE / block).max(1) * block;
        self.ask = Ask::none();
        let mut fresh = piece;
        if unstored <= piece {
            self.ask = self.ask_block();
            fresh = unstored + block;
        }
        self.until = stored + piece.min(unstored);
        let oldest = window.drop((self.cache.held(), fresh), block, train_length);
        if oldest > 0 {
            self.cache.drop_oldest(oldest);
        }
        if let Some(guide) = &mut self.guide {
            guide.plan(&self.canvas, (stored, self.until), oldest);
        }
    }

    /// The rows of the open block to ask for: masked ones that the rule wants, known ones that the revision wants.
    fn ask_block(&mut self) -> Ask {
        // With what is known of it a text's end comes nearer; but what is known may be taken back by a revision.
        self.survey(self.options.revise == Revise::None);
        let SampleOptions { rule, budget, filter, alternatives, .. } = self.options;
        let bias = self.options.bias.clone();
        let open_block = self.canvas.open_block();
        let masked = open_block.masked();
        if self.opened.1 == 0 {
            // What it took to store a long prompt is not the block's.
            self.opened.0 = Instant::now();
        }
        self.least =
            budget.passes_left(self.opened.1, self.opened.0.elapsed()).map_or(0, |left| hurry(masked.len(), left));
        let mut rows = match masked.is_empty() || self.reviser.leads() {
            true => Vec::new(),
            false => rule.rows_at_least(&masked, self.least, &mut self.clock, &mut self.rng),
        };
        rows.extend(self.reviser.rows(open_block));
        rows.sort_unstable();
        let uniforms = rows.iter().map(|_| self.rng.uniform()).collect();
        let alternatives = alternatives.max(rule.alternatives());
        let ask = Ask { alternatives, bias, ..Ask::new(rows, uniforms, filter) };
        match &mut self.chain {
            Some(chain) => chain.widen(ask, &self.canvas, || self.rng.uniform()),
            None => ask,
        }
    }

    /// The lane of the next pass, as planned.
    pub fn lane(&mut self) -> Lane<'_, C> {
        let asks = self.asks();
        match (self.status, &mut self.watch, &mut self.proof) {
            (Status::Looking, Some(watch), _) => return watch.lane(&self.canvas),
            (Status::Reading, _, Some(proof)) => return proof.lane(),
            _ => {}
        }
        let stored = self.canvas.base() + self.cache.end();
        let store = &self.canvas.text()[stored..self.until];
        let open = if asks { self.canvas.open_block().ids() } else { &[] };
        let guide = self.guide.as_mut().map(|guide| guide.lead(asks));
        Lane { guide, ..Lane::new(&mut self.cache, store, open, &self.ask) }
    }

    /// Takes the answer of a pass: decides, edits, commits, looks back.
    ///
    /// # Errors
    /// When the proposals are not what was asked for.
    pub fn apply(&mut self, proposals: &[Proposal], sink: &mut impl Sink) -> Result<()> {
        self.passes += 1;
        let asked = match (self.status, &self.watch, &self.proof) {
            (Status::Looking, Some(watch), _) => watch.ask(),
            (Status::Reading, _, Some(proof)) => proof.ask(),
            _ => &self.ask,
        };
        if !proposals.iter().map(|proposal| proposal.row).eq(asked.rows.iter().copied()) {
            return Err(Error::Run("the model answered other rows than it was asked for".into()));
        }
        match self.status {
            Status::Looking => return self.look(proposals, sink),
            Status::Reading => return self.read(proposals, sink),
            _ => {}
        }
        let decides = self.asks();
        let edits = if decides { self.decide(proposals)? } else { Vec::new() };
        self.emit(&Event::Edited { pass: self.passes, edits }, sink);
        if decides {
            self.advance(sink);
        }
        Ok(())
    }

    /// Ends it between two passes, with the text so far: as a sink does that asks to stop. Nothing where it is done.
    pub fn stop(&mut self, sink: &mut impl Sink) {
        // A sink that has asked to stop was heard, but nothing was planned since.
        if self.is_live() || self.status == Status::Interrupted {
            self.status = Status::Interrupted;
            self.plan(sink);
        }
    }

    fn begin(&mut self, sink: &mut impl Sink) {
        self.status = Status::Running;
        let prompt = self.canvas.given().to_vec();
        let reach = self.options.revise.look_back().map_or(0, |how| how.window);
        self.emit(&Event::Started { prompt, block: self.options.block, reach }, sink);
        if self.canvas.text().len() >= self.limit() {
            return self.finish(Reason::Length, self.limit(), sink);
        }
        self.open_next(sink);
        self.advance(sink);
    }

    /// Commits the open block once it is settled, and opens the next one, until there is something to ask. Blocks without a mask
    /// (a prompt's, between two gaps) need no pass.
    pub(super) fn advance(&mut self, sink: &mut impl Sink) {
        if let Some(length) = self.ended_within() {
            self.canvas.commit_known();
            return self.finish(Reason::Eos, length, sink);
        }
        while self.reason().is_none() && self.reviser.is_settled(self.canvas.open_block()) {
            if self.canvas.open_block().is_cut() {
                // The text ends inside this block, which so never becomes whole.
                self.canvas.commit_known();
                let ended = self.ended().map(|length| (Reason::Eos, length));
                let (reason, length) = ended.unwrap_or((Reason::Length, self.limit().min(self.canvas.text().len())));
                return self.finish(reason, length, sink);
            }
            let (start, ids) = (self.canvas.open_block().start(), self.canvas.open_block().ids().to_vec());
            self.canvas.commit();
            self.emit(&Event::BlockCommitted { start, ids }, sink);
            let ends = self.verdict().map(|(_, length)| length);
            if self.watch.as_mut().is_some_and(|watch| watch.is_due(&self.canvas, ends)) {
                if self.status == Status::Running {
                    self.status = Status::Looking;
                }
                return;
            }
            self.open_or_finish(sink);
        }
        if self.status == Status::Running && self.reviser.reads(self.canvas.open_block()) {
            self.status = Status::Reading;
        }
    }

    fn verdict(&self) -> Option<(Reason, usize)> {
        self.options.stop.judge(self.canvas.text(), self.canvas.given().len(), self.limit())
    }

    /// The length of a committed text that holds its end.
    fn ended(&self) -> Option<usize> {
        self.verdict().filter(|(reason, _)| *reason == Reason::Eos).map(|(_, length)| length)
    }

    pub(super) fn open_or_finish(&mut self, sink: &mut impl Sink) {
        match self.verdict() {
            Some((reason, length)) => self.finish(reason, length, sink),
            None => self.open_next(sink),
        }
    }

    pub(super) fn open_next(&mut self, sink: &mut impl Sink) {
        // A sliding window restarts on a prompt alone; later it drops what is oldest.
        if self.options.window == Window::Recompute && self.options.narrow(&mut self.canvas) {
            self.cache.truncate(0);
            self.watch.iter_mut().for_each(Watch::restart);
            self.proof.iter_mut().for_each(Proof::restart);
            self.guide.iter_mut().for_each(|guide| guide.truncate(0));
        }
        self.canvas.open_next();
        self.survey(true);
        let open_block = self.canvas.open_block();
        self.clock = Clock::new(open_block.masked().len()).of_block(self.options.block);
        self.reviser = Reviser::new(self.options.revise, self.options.rule, open_block, &mut self.rng);
        self.opened = (Instant::now(), 0);
        let (start, ids) = (open_block.start(), open_block.ids().to_vec());
        self.emit(&Event::BlockOpened { start, ids }, sink);
    }

    /// Looks at the open block for a constraint. Rows that no text can reach are not to be filled, if they are to stay so.
    fn survey(&mut self, stays: bool) {
        let Some(chain) = &mut self.chain else { return };
        chain.survey(&self.canvas);
        if let Some(end) = stays.then(|| chain.cut()).flatten() {
            self.canvas.open_block_mut().end_at(end);
        }
    }

    fn finish(&mut self, reason: Reason, length: usize, sink: &mut impl Sink) {
        self.status = Status::Done(reason, length);
        let tokens = self.written();
        sink.event(&Event::Finished { length, passes: self.passes, tokens, reason });
    }

    pub(super) fn emit(&mut self, event: &Event, sink: &mut impl Sink) {
        if !sink.event(event) && self.is_live() {
            self.status = Status::Interrupted;
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.status, Status::Running | Status::Looking | Status::Reading)
    }

    /// Does the planned pass score the open block, or only store?
    fn asks(&self) -> bool {
        self.until == self.canvas.open_block().start()
    }

    /// The length of the whole text asked for.
    pub(super) fn limit(&self) -> usize {
        self.canvas.given().len() + self.options.max_new
    }
}
