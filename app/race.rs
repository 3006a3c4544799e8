//! `bd3 sample --race`: one checkpoint at several block sizes, one lane each. Lanes take turns on one machine and each has a clock
//! of its own, which runs only while it is its turn; the lane whose clock is behind is always the next. So each shows the pace
//! that it would have alone, and on the screen they stay abreast in time.

use std::io;
use std::slice::from_mut;
use std::time::{Duration, Instant};

use bd3::arch::Arch;
use bd3::event::{Reason, Sink};
use bd3::pass::{Cache, Denoiser};
use bd3::rng::Rng;
use bd3::sample::{self, SampleOptions, Sampler};
use bd3::{Error, Result};

use crate::interrupt;
use crate::job::{Made, object};
use crate::model::Model;
use crate::view::{self, Inks, Key, LaneView, PACE, Page, Screen, View, draw_lanes};

/// What the lanes share, and the options in which they differ.
pub struct Course<'a> {
    /// The model.
    pub model: &'a Model,
    /// The prompt as the user wrote it.
    pub prompt: Option<String>,
    /// The same as ids.
    pub ids: Vec<u32>,
    /// The seed; a lane writes what `bd3 sample` writes with it at the same block size.
    pub seed: u64,
    /// One per lane.
    pub options: Vec<SampleOptions>,
    /// How it is shown.
    pub view: Option<View>,
}

/// The block sizes of a race: 1, the chosen one, and the largest that the model was trained at.
///
/// # Errors
/// When they are all one.
pub fn blocks(arch: &Arch, chosen: Option<usize>) -> Result<Vec<usize>> {
    let largest = arch.block_sizes().iter().copied().max().unwrap_or(arch.block);
    let mut blocks = vec![1, chosen.unwrap_or(arch.block), largest];
    blocks.sort_unstable();
    blocks.dedup();
    if blocks.len() < 2 {
        let found = "one whose only block size is 1";
        return Err(Error::value("--race", "a model that writes blocks of several sizes", found));
    }
    Ok(blocks)
}

/// One of them.
pub struct Lane<C, S> {
    /// Its block size.
    pub block: usize,
    /// Its sample.
    pub sampler: Sampler<C>,
    /// Who sees it.
    pub sink: S,
    /// Its clock.
    pub spent: Duration,
}

/// Runs the race.
pub fn run(course: &Course, denoiser: &impl Denoiser) -> anyhow::Result<()> {
    let mask = denoiser.mask_id();
    let lane = |options: &SampleOptions| -> Result<_> {
        let rng = Rng::new(course.seed).split_at("sample", 0);
        let sampler = Sampler::new(options.clone(), &course.ids, mask, |size| denoiser.cache(size), rng)?;
        Ok(Lane { block: options.block, sampler, sink: Page::new(mask), spent: Duration::ZERO })
    };
    let mut lanes = course.options.iter().map(lane).collect::<Result<Vec<_>>>()?;
    let terminal = View::of_stdout() == View::Canvas && course.view.is_none_or(|view| view == View::Canvas);
    if terminal {
        interrupt::watch_screen()?;
        watch(course, denoiser, &mut lanes)?;
    } else {
        interrupt::watch()?;
        while turn(denoiser, &mut lanes, |_| ())? && !interrupt::asked() {}
    }
    lanes.iter_mut().for_each(|lane| lane.sampler.stop(&mut &mut lane.sink));
    lanes.iter().enumerate().try_for_each(|(index, lane)| report(course, index, lane))?;
    Ok(())
}

/// One pass of the lane whose clock is behind, which is told before it; false where all are done.
///
/// # Errors
/// When the model fails.
pub fn turn<D: Denoiser, S>(
    denoiser: &D,
    lanes: &mut [Lane<D::Cache, S>],
    before: impl FnOnce(&mut Lane<D::Cache, S>),
) -> Result<bool>
where
    for<'s> &'s mut S: Sink,
{
    let clocks: Vec<_> = lanes.iter().map(|lane| lane.sampler.reason().is_none().then_some(lane.spent)).collect();
    let Some(next) = behind(&clocks) else { return Ok(false) };
    let lane = &mut lanes[next];
    before(lane);
    let start = Instant::now();
    sample::step(denoiser, from_mut(&mut lane.sampler), from_mut(&mut &mut lane.sink))?;
    lane.spent += start.elapsed();
    Ok(true)
}

/// The first of those that still run whose clock shows the least.
fn behind(clocks: &[Option<Duration>]) -> Option<usize> {
    let running = clocks.iter().enumerate().filter_map(|(index, clock)| clock.map(|clock| (clock, index)));
    running.min().map(|(_, index)| index)
}

/// The race on the whole terminal. Every pass is shown for one frame of a screen, which is on nobody's clock.
fn watch<D: Denoiser>(course: &Course, denoiser: &D, lanes: &mut [Lane<D::Cache, Page>]) -> anyhow::Result<()> {
    let inks = Inks::of_environment();
    let spell = |id| course.model.tokenizer.token_bytes(id);
    let mut screen = Screen::open()?;
    loop {
        let shown = Instant::now();
        screen.draw(|frame| draw_lanes(frame, &views(lanes), &spell, inks))?;
        let running = turn(denoiser, lanes, |_| ())?;
        let key = screen.key(PACE.saturating_sub(shown.elapsed()))?;
        if !running || key == Some(Key::Quit) || interrupt::asked() {
            return Ok(());
        }
    }
}

fn views<C: Cache>(lanes: &[Lane<C, Page>]) -> Vec<LaneView<'_>> {
    lanes.iter().map(Lane::view).collect()
}

impl<C: Cache> Lane<C, Page> {
    fn view(&self) -> LaneView<'_> {
        let (title, seconds) = (format!("block {}", self.block), self.spent.as_secs_f64());
        LaneView { title, page: &self.sink, seconds, reason: self.sampler.reason() }
    }
}

/// A lane's result: one object, or one line.
fn report<C: Cache>(course: &Course, index: usize, lane: &Lane<C, Page>) -> io::Result<()> {
    let made = Made {
        ids: lane.sampler.new_ids(),
        tokens: lane.sampler.written(),
        passes: lane.sampler.passes(),
        seconds: lane.spent.as_secs_f64(),
        reason: lane.sampler.reason().unwrap_or(Reason::Interrupted),
    };
    let mut result = object(course.model, course.seed, course.prompt.as_deref(), &made);
    if course.view == Some(View::Json) {
        result["lane"] = index.into();
        result["block"] = lane.block.into();
        return view::print_json(&result);
    }
    let text = result["text"].as_str().unwrap_or_default().replace('\n', "⏎");
    let (passes, rate) = (made.passes, made.rate());
    view::print(&format!(
        "block {} · {passes} passes · {:.2} s · {rate:.0} tokens/s · {text}\n",
        lane.block, made.seconds
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_that_is_behind_is_next() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(behind(&[ms(3), ms(1), ms(2)]), Some(1));
        assert_eq!(behind(&[ms(3), None, ms(2)]), Some(2));
        assert_eq!(behind(&[ms(0), ms(0)]), Some(0));
        assert_eq!(behind(&[None, None]), None);
    }
}
