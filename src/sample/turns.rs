//! Many samples over one model, each with its own length, block size and place: who takes part in the next pass. A pass computes a
//! bounded number of rows, so that nobody waits long for it. Newcomers come first until they have had a few rows, then whoever has had
//! the fewest, as in fair queueing (Demers, Keshav and Shenker 1989): a short request behind long ones is answered soon, a long prompt is
//! stored between other samples' passes, and nobody starves. What a sample writes does not depend on any of this.

use super::Sampler;
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::pass::{Cache, Denoiser};

/// Samples that take turns.
pub struct Turns<C, S> {
    runs: Vec<Run<C, S>>,
    most: usize,
    /// Rows that somebody would have had by now who had been there all the time.
    now: usize,
    passes: u64,
}

struct Run<C, S> {
    sampler: Sampler<C>,
    sink: S,
    /// Rows it has had, and those it would have had if it had been there from the beginning.
    had: usize,
    /// Of these, its own.
    own: usize,
    /// Rows of its next pass, where that is planned.
    rows: Option<usize>,
    /// Does it take no part in the next pass?
    waits: bool,
    /// Why its last pass failed, if it did.
    failure: Option<Error>,
}

/// A sample that is done, or that failed.
pub struct Ended<C, S> {
    /// The sample.
    pub sampler: Sampler<C>,
    /// Its sink.
    pub sink: S,
    /// Why it failed, if it did.
    pub failure: Option<Error>,
}

/// What one pass was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Samples that took part.
    pub lanes: usize,
    /// Rows computed.
    pub rows: usize,
}

/// Rows of a sample that come before those of others: its first block, mostly.
const OWED: usize = 64;
/// Every so many passes newcomers are not preferred, so that a stream of them does not hold up the others.
const FAIR: u64 = 4;

impl<C: Cache, S: Sink> Turns<C, S> {
    /// Nobody yet. `most`: rows in a pass, unless a single sample wants more.
    pub fn new(most: usize) -> Self {
        Self { runs: Vec::new(), most, now: 0, passes: 0 }
    }

    /// A new sample.
    pub fn add(&mut self, sampler: Sampler<C>, sink: S) {
        self.runs.push(Run { sampler, sink, had: self.now, own: 0, rows: None, waits: false, failure: None });
    }

    /// Samples that are not done.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The sinks of the samples that are not done.
    pub fn sinks(&self) -> impl Iterator<Item = &S> {
        self.runs.iter().map(|run| &run.sink)
    }

    /// Ends those samples between two passes, with the text so far.
    pub fn stop(&mut self, which: impl Fn(&S) -> bool) -> Vec<Ended<C, S>> {
        // Asked once: a sink may come to another answer meanwhile.
        let stopped = self.runs.extract_if(.., |run| which(&run.sink)).map(|mut run| {
            run.sampler.stop(&mut run.sink);
            run.end()
        });
        stopped.collect()
    }

    /// One pass over those whose turn it is, but for those that wait. Gives those that ended, before it or with it. One that the model
    /// has no answer for ends alone; where the model itself fails, all that took part end.
    pub fn pass<D: Denoiser<Cache = C>>(&mut self, model: &D, waits: impl Fn(&S) -> bool) -> (Turn, Vec<Ended<C, S>>) {
        for run in self.runs.iter_mut().filter(|run| run.rows.is_none()) {
            run.sampler.plan(&mut run.sink);
            run.rows = run.sampler.reason().is_none().then(|| run.sampler.lane().rows());
        }
        let mut ended = self.take(|run| run.rows.is_none());
        let taking_part = self.whose_turn(waits);
        let company = self.runs.len().max(1);
        let turn = Turn { lanes: taking_part, rows: self.runs[..taking_part].iter().filter_map(|run| run.rows).sum() };
        self.now += turn.rows.div_ceil(company);
        self.passes += 1;
        let part = &mut self.runs[..taking_part];
        if !part.is_empty()
            && let Err(error) = together(model, part)
        {
            let told = error.to_string();
            part.iter_mut().for_each(|run| run.failure = Some(Error::Run(told.clone())));
        }
        ended.extend(self.take(|run| run.failure.is_some() || run.sampler.reason().is_some()));
        (turn, ended)
    }

    /// Moves those that take part to the front; how many.
    fn whose_turn(&mut self, waits: impl Fn(&S) -> bool) -> usize {
        let fair = self.passes.is_multiple_of(FAIR);
        // Asked once: answers that change while there is sorting would be no order.
        self.runs.iter_mut().for_each(|run| run.waits = waits(&run.sink));
        self.runs.sort_by_key(|run| {
            let new = !fair && run.own < OWED;
            (run.waits, !new, if new { run.own } else { run.had })
        });
        let ready = self.runs.iter().take_while(|run| !run.waits).count();
        // Who waits for a first block does not wait for many others in the same pass.
        let new = !fair && ready > 0 && self.runs[0].own < OWED;
        let most = if new { self.most / 2 } else { self.most };
        let (mut count, mut rows) = (0, 0);
        for index in 0..ready {
            let more = self.runs[index].rows.unwrap_or(0);
            if count == 0 || rows + more <= most {
                self.runs[count..=index].rotate_right(1);
                (count, rows) = (count + 1, rows + more);
            }
        }
        count
    }

    fn take(&mut self, mut ends: impl FnMut(&Run<C, S>) -> bool) -> Vec<Ended<C, S>> {
        self.runs.extract_if(.., |run| ends(run)).map(Run::end).collect()
    }
}

impl<C, S> Run<C, S> {
    fn end(self) -> Ended<C, S> {
        Ended { sampler: self.sampler, sink: self.sink, failure: self.failure }
    }
}

/// One pass over these, as planned. Those of them that fail keep why.
fn together<D: Denoiser, S: Sink>(model: &D, runs: &mut [Run<D::Cache, S>]) -> Result<()> {
    let answers = model.each(&mut runs.iter_mut().map(|run| run.sampler.lane()).collect::<Vec<_>>())?;
    if answers.len() != runs.len() {
        return Err(Error::Run(format!("the model answered {} lanes of {}", answers.len(), runs.len())));
    }
    for (run, answer) in runs.iter_mut().zip(answers) {
        let rows = run.rows.take().unwrap_or(0);
        (run.had, run.own) = (run.had + rows, run.own + rows);
        run.failure = answer.and_then(|proposals| run.sampler.apply(&proposals, &mut run.sink)).err();
    }
    Ok(())
}
