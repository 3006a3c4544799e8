//! The sampler: a state that is stepped once per pass. [`step`] is how text is made: plan -> pass -> decide -> emit, for any
//! number of samples side by side. A sample depends on its own seed only, never on its company. Finished ids ride in front of the
//! next open block, so that no pass is spent on storing alone, but for a long prompt: that is stored in pieces.

use crate::error::{Error, Result};
use crate::event::{Edit, Event, Reason, Sink};
use crate::pass::{Ask, Cache, Denoiser, Filter, Lane, Proposal};
use crate::rng::Rng;

use super::rule::Clock;
use super::{Canvas, Rule, Stop, Window};

/// How a sample is made.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleOptions {
    /// Block size. The open block always has full size, as in training; the text is cut afterwards.
    pub block: usize,
    /// New tokens after the prompt, at most.
    pub max_new: usize,
    /// Which rows become known in a pass.
    pub rule: Rule,
    /// How logits become a distribution.
    pub filter: Filter,
    /// The length that the model was trained for.
    pub train_length: usize,
    /// What happens past it.
    pub window: Window,
    /// What ends a sample early.
    pub stop: Stop,
}

/// One sample while it is made.
pub struct Sampler<C> {
    options: SampleOptions,
    canvas: Canvas,
    cache: C,
    rng: Rng,
    clock: Clock,
    ask: Ask,
    /// Absolute position up to which the next pass stores; before the open block where it stores a piece and no more.
    until: usize,
    passes: u64,
    status: Status,
}

/// Ids that are stored in one pass, at most, or one block. More would not make the products faster, and a sink is heard between
/// two pieces.
const PIECE: usize = 256;

#[derive(Clone, Copy, PartialEq)]
enum Status {
    New,
    Running,
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

impl SampleOptions {
    /// Leaves behind what a window does not show beside the next block; true where that is anything.
    fn narrow(&self, canvas: &mut Canvas) -> bool {
        let Self { window, block, train_length, .. } = *self;
        let narrow = window != Window::Grow && canvas.next_start() - canvas.base() + block > train_length;
        if narrow {
            canvas.restart(window.keep(block, train_length));
        }
        narrow
    }

    /// What a cache may keep of the ids that stand before the first block. A next-token model answers from the last id that it
    /// stores, so that at block size 1 the last one is stored in any case.
    fn kept<'a>(&self, canvas: &'a Canvas) -> &'a [u32] {
        let ids = &canvas.text()[canvas.base()..canvas.next_start()];
        if self.block == 1 { &ids[..ids.len().saturating_sub(1)] } else { ids }
    }
}

impl<C: Cache> Sampler<C> {
    /// A sample that continues `prompt` (bos first; mask ids in it are gaps to be filled). `cache` must belong to the model and
    /// block size; what it holds of the prompt's beginning (it may come from another sample's [`Sampler::into_cache`]) is not
    /// stored again.
    ///
    /// # Errors
    /// When the prompt does not start with a token, or an option is out of range.
    pub fn new(options: SampleOptions, prompt: &[u32], mask_id: u32, mut cache: C, rng: Rng) -> Result<Self> {
        if prompt.first().is_none_or(|&bos| bos == mask_id) {
            let found = if prompt.is_empty() { "no token" } else { "the mask" };
            return Err(Error::value("prompt", "a first token (beginning of text)", found));
        }
        options.rule.check()?;
        options.filter.check()?;
        options.stop.check()?;
        let gaps = prompt.iter().filter(|&&id| id == mask_id).count();
        // Whole blocks, as the last one is decoded whole. The window refuses a block of 0.
        let length = prompt.len().checked_add(options.max_new);
        let length = length.and_then(|length| length.checked_next_multiple_of(options.block.max(1)));
        let length = length
            .ok_or_else(|| Error::value("new tokens", "a number that memory can hold", options.max_new.to_string()))?;
        options.window.check(options.block, options.train_length, (length, gaps))?;
        let mut canvas = Canvas::new(prompt, options.block, mask_id);
        options.narrow(&mut canvas);
        cache.keep_equal(options.kept(&canvas));
        cache.reserve(options.window.most(length, options.train_length));
        let ask = Ask { rows: Vec::new(), uniforms: Vec::new(), filter: options.filter, alternatives: 0 };
        Ok(Self { options, canvas, cache, rng, clock: Clock::new(0), ask, until: 0, passes: 0, status: Status::New })
    }

    /// Decides what the next pass is asked, once per pass. Afterwards the sampler has a [`Sampler::lane`] or is done.
    pub fn plan(&mut self, sink: &mut impl Sink) {
        if self.status == Status::New {
            self.begin(sink);
        }
        if self.status == Status::Interrupted {
            self.finish(Reason::Interrupted, self.canvas.text().len().min(self.limit()), sink);
        }
        if self.reason().is_some() {
            return;
        }
        let SampleOptions { window, block, train_length, .. } = self.options;
        let stored = self.canvas.base() + self.cache.end();
        let unstored = self.canvas.start() - stored;
        let piece = (PIECE / block).max(1) * block;
        self.ask.rows.clear();
        self.ask.uniforms.clear();
        let mut fresh = piece;
        if unstored <= piece {
            self.ask.rows = self.options.rule.rows(&self.canvas.masked(), &mut self.clock, &mut self.rng);
            self.ask.uniforms.extend(self.ask.rows.iter().map(|_| self.rng.uniform()));
            fresh = unstored + block;
        }
        self.until = stored + piece.min(unstored);
        let oldest = window.drop((self.cache.held(), fresh), block, train_length);
        if oldest > 0 {
            self.cache.drop_oldest(oldest);
        }
    }

    /// The lane of the next pass, as planned.
    pub fn lane(&mut self) -> Lane<'_, C> {
        let stored = self.canvas.base() + self.cache.end();
        let store = &self.canvas.text()[stored..self.until];
        let open = if self.asks() { self.canvas.open() } else { &[] };
        Lane { cache: &mut self.cache, store, open, ask: &self.ask }
    }

    /// Takes the answer of a pass: decides, edits, commits.
    ///
    /// # Errors
    /// When the proposals are not what was asked for.
    pub fn apply(&mut self, proposals: &[Proposal], sink: &mut impl Sink) -> Result<()> {
        self.passes += 1;
        if !proposals.iter().map(|proposal| proposal.row).eq(self.ask.rows.iter().copied()) {
            return Err(Error::Run("the model answered other rows than it was asked for".into()));
        }
        if !self.asks() {
            self.emit(&Event::Edited { pass: self.passes, edits: Vec::new() }, sink);
            return Ok(());
        }
        let accepted = self.options.rule.accept(proposals, &mut self.clock);
        let mut edits = Vec::with_capacity(accepted.len());
        for proposal in proposals.iter().filter(|proposal| accepted.contains(&proposal.row)) {
            let old = self.canvas.open()[proposal.row];
            if proposal.token == old || !self.canvas.fill(proposal.row, proposal.token) {
                return Err(Error::Run("the model proposed a mask, or a token where none was asked for".into()));
            }
            let position = self.canvas.start() + proposal.row;
            let prob = proposal.raw_prob as f32;
            edits.push(Edit::fill(position, old, proposal.token, prob));
        }
        self.emit(&Event::Edited { pass: self.passes, edits }, sink);
        self.advance(sink);
        Ok(())
    }

    /// Why it is done; `None` while it is not.
    pub fn reason(&self) -> Option<Reason> {
        match self.status {
            Status::Done(reason, _) => Some(reason),
            _ => None,
        }
    }

    /// Forward evaluations so far.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Keys and values as the last pass left them.
    pub fn cache(&self) -> &C {
        &self.cache
    }

    /// The same, for a later sample: see [`Sampler::new`].
    pub fn into_cache(self) -> C {
        self.cache
    }

    /// The text so far: the prompt and what is committed after it, cut to the length asked for.
    pub fn ids(&self) -> &[u32] {
        let text = self.canvas.text();
        match self.status {
            Status::Done(_, length) => &text[..length],
            _ => &text[..text.len().min(self.limit())],
        }
    }

    /// The committed tokens after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        self.ids().get(self.canvas.given().len()..).unwrap_or_default()
    }

    fn begin(&mut self, sink: &mut impl Sink) {
        self.status = Status::Running;
        let prompt = self.canvas.given().to_vec();
        self.emit(&Event::Started { prompt, block: self.options.block, reach: 0 }, sink);
        if self.canvas.text().len() >= self.limit() {
            return self.finish(Reason::Length, self.limit(), sink);
        }
        self.open_next(sink);
        self.advance(sink);
    }

    /// Commits the open block once nothing in it is masked, and opens the next one, until there is something to ask. Blocks
    /// without a mask (a prompt's, between two gaps) need no pass.
    fn advance(&mut self, sink: &mut impl Sink) {
        while self.canvas.masked().is_empty() {
            let (start, ids) = (self.canvas.start(), self.canvas.open().to_vec());
            self.canvas.commit();
            self.emit(&Event::BlockCommitted { start, ids }, sink);
            let fresh = start.max(self.canvas.given().len());
            if let Some((reason, length)) = self.options.stop.judge(self.canvas.text(), fresh, self.limit()) {
                return self.finish(reason, length, sink);
            }
            self.open_next(sink);
        }
    }

    fn open_next(&mut self, sink: &mut impl Sink) {
        // A sliding window restarts on a prompt alone; later it drops what is oldest.
        if self.options.window == Window::Recompute && self.options.narrow(&mut self.canvas) {
            self.cache.truncate(0);
        }
        self.canvas.open_next();
        self.clock = Clock::new(self.canvas.masked().len());
        let (start, ids) = (self.canvas.start(), self.canvas.open().to_vec());
        self.emit(&Event::BlockOpened { start, ids }, sink);
    }

    fn finish(&mut self, reason: Reason, length: usize, sink: &mut impl Sink) {
        self.status = Status::Done(reason, length);
        let tokens = self.new_ids().len() + self.canvas.gaps_filled();
        sink.event(&Event::Finished { length, passes: self.passes, tokens, reason });
    }

    fn emit(&mut self, event: &Event, sink: &mut impl Sink) {
        if !sink.event(event) && self.status == Status::Running {
            self.status = Status::Interrupted;
        }
    }

    /// Does the planned pass score the open block, or only store?
    fn asks(&self) -> bool {
        self.until == self.canvas.start()
    }

    /// The length of the whole text asked for.
    fn limit(&self) -> usize {
        self.canvas.given().len() + self.options.max_new
    }
}
