//! Many samples of one job: side by side, where only the texts count, or one alone, where its time does. Both give the same texts,
//! as a lane's numbers do not depend on its company.

use std::time::Instant;

use bd3::Result;
use bd3::event::{Event, Quiet, Reason, Sink};
use bd3::pass::Denoiser;
use bd3::sample;

use crate::interrupt;
use crate::job::Job;

/// Samples in one pass, at most: each has a cache of its own.
const MOST_LANES: u64 = 16;

/// What a sample came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Forward evaluations.
    pub passes: u64,
}

/// How long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    /// From the first pass to the last.
    pub seconds: f64,
    /// From the same moment until the first block was final.
    pub first_block: f64,
}

/// The first `count` samples, side by side. `progress` hears how many are done.
///
/// # Errors
/// When the model fails.
pub fn side_by_side(
    job: &Job<'_>,
    denoiser: &impl Denoiser,
    count: u64,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for first in (0..count).step_by(MOST_LANES as usize) {
        let indices = first..count.min(first + MOST_LANES);
        let mut samplers = indices.map(|index| job.sampler(denoiser, index)).collect::<Result<Vec<_>>>()?;
        let mut sinks: Vec<Quiet> = samplers.iter().map(|_| Quiet).collect();
        while sample::step(denoiser, &mut samplers, &mut sinks)? > 0 {}
        samples.extend(samplers.iter().map(|s| Sample { ids: s.new_ids().to_vec(), passes: s.passes() }));
        progress(samples.len() as u64);
    }
    Ok(samples)
}

/// One sample and its times; `None` when the user asked to stop.
///
/// # Errors
/// When the model fails.
pub fn alone(job: &Job<'_>, denoiser: &impl Denoiser, index: u64) -> Result<Option<(Sample, Times)>> {
    let mut sampler = job.sampler(denoiser, index)?;
    let mut watch = Watch { start: Instant::now(), first_block: None };
    sample::run(denoiser, &mut sampler, &mut watch)?;
    let seconds = watch.start.elapsed().as_secs_f64();
    if sampler.reason() == Some(Reason::Interrupted) {
        return Ok(None);
    }
    let sample = Sample { ids: sampler.new_ids().to_vec(), passes: sampler.passes() };
    Ok(Some((sample, Times { seconds, first_block: watch.first_block.unwrap_or(seconds) })))
}

/// Notes when the first block is final.
struct Watch {
    start: Instant,
    first_block: Option<f64>,
}

impl Sink for Watch {
    fn event(&mut self, event: &Event) -> bool {
        if matches!(event, Event::BlockCommitted { .. }) && self.first_block.is_none() {
            self.first_block = Some(self.start.elapsed().as_secs_f64());
        }
        !interrupt::asked()
    }
}
