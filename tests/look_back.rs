//! What a look at committed text owes to the options of its sample.

use bd3::Result;
use bd3::event::{Event, Why};
use bd3::pass::{Denoiser, Lane, Proposal};
use bd3::rng::Rng;
use bd3::sample::{LookBack, Revise, Rule, SampleOptions, Sampler, run};

use crate::samples::{MASK, options, sampler_for};
use crate::scripted::{Kept, Scripted, from_digest};

/// Refuses lanes whose ask is not bound by the bias.
struct Bound<D> {
    model: D,
    bias: Vec<(u32, f32)>,
}

impl<D: Denoiser<Cache = Kept>> Denoiser for Bound<D> {
    type Cache = Kept;

    fn mask_id(&self) -> u32 {
        self.model.mask_id()
    }

    fn cache(&self, block: usize) -> Kept {
        self.model.cache(block)
    }

    fn each(&self, lanes: &mut [Lane<'_, Kept>]) -> Result<Vec<Result<Vec<Proposal>>>> {
        for lane in lanes.iter().filter(|lane| !lane.ask.rows.is_empty()) {
            assert_eq!(lane.ask.bias[..], self.bias[..], "rows {:?}", lane.ask.rows);
        }
        self.model.each(lanes)
    }
}

fn looking(max_new: usize) -> SampleOptions {
    let look = LookBack { window: 8, every: 4, threshold: 0.2, budget: 3, groups: 0 };
    SampleOptions { revise: Revise::LookBack(look), ..options(4, max_new, Rule::FirstHitting) }
}

#[test]
fn a_look_is_bound_by_the_bias_and_tells_alternatives() {
    let bias = vec![(3, -100.0), (4, 2.0)];
    let model = Bound { model: Scripted::new(MASK, from_digest(10)), bias: bias.clone() };
    let options = SampleOptions { bias: bias.into(), alternatives: 3, ..looking(40) };
    let mut sampler = sampler_for(&model, &options, &[9], 1).unwrap();
    let mut events: Vec<Event> = Vec::new();
    run(&model, &mut sampler, &mut events).unwrap();
    let edits = events.iter().filter_map(|event| match event {
        Event::Edited { edits, .. } => Some(edits),
        _ => None,
    });
    let better: Vec<_> = edits.flatten().filter(|edit| edit.why == Why::Better).collect();
    assert_eq!(better.len(), 3);
    assert!(better.iter().all(|edit| edit.alternatives.len() == 3 && edit.alternatives[0].0 == edit.new));
}

#[test]
fn a_template_within_one_block_is_refused() {
    let model = Scripted::new(MASK, from_digest(10));
    let make =
        |prompt: &[u32]| Sampler::new(looking(0), prompt, MASK, |size| model.cache(size), Rng::new(1)).map(|_| ());
    let refused = make(&[9, 1, MASK, 2]).unwrap_err().to_string();
    assert!(refused.contains("within one block of 4") && refused.contains("look-back"), "{refused}");
    make(&[9, 1, MASK, 2, MASK]).unwrap();
}
