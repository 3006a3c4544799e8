//! Random ways to make a sample, for laws that hold in all of them.

use bd3::pass::{Denoiser, Filter, Nucleus};
use bd3::rng::Rng;
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::revise::edit::Editing;
use bd3::sample::revise::remdm::{Phase, Spread, Strength};
use bd3::sample::{Budget, LookBack, Revise, Rule, SampleOptions, Sampler, Window};
use proptest::prelude::*;

use crate::rules::any_rule;

/// The mask of scripted models.
pub const MASK: u32 = 0;

/// The model's own distribution, far below its training length.
pub fn options(block: usize, max_new: usize, rule: Rule) -> SampleOptions {
    SampleOptions { train_length: 1 << 20, ..SampleOptions::new(block, max_new, rule) }
}

/// A rule with a revision that goes with it.
fn any_revision() -> impl Strategy<Value = (Rule, Revise)> {
    let strength = prop_oneof![(0.0f64..=1.0).prop_map(Strength::Cap), (0.0f64..=1.0).prop_map(Strength::Rescale)];
    let phase = prop_oneof![Just(Phase::Always), Just(Phase::Loop { on: 0.6, off: 0.2, visible: 0.7 })];
    let spread = prop_oneof![Just(Spread::Even), Just(Spread::Doubt)];
    let remdm = (1usize..12, strength, spread, phase).prop_map(|(steps, strength, spread, phase)| {
        (Rule::Ancestral { steps }, Revise::Remdm { strength, spread, phase })
    });
    let remask = (any_rule(), 0.1f64..=1.0, 0usize..4)
        .prop_map(|(rule, threshold, rounds)| (rule, Revise::Remask { threshold, rounds }));
    let edit = (any_rule(), 0.0f64..1.0, 1usize..5)
        .prop_map(|(rule, threshold, passes)| (rule, Revise::Edit(Editing { threshold, passes })));
    let corrector = (any_rule(), 0.01f64..=1.0, 0usize..4)
        .prop_map(|(rule, threshold, rounds)| (rule, Revise::Corrector(Corrector { threshold, rounds })));
    prop_oneof![any_rule().prop_map(|rule| (rule, Revise::None)), remdm, remask, edit, corrector]
}

/// Looking back, at a multiple of the block size.
fn any_look(block: usize) -> impl Strategy<Value = LookBack> {
    (2usize..5, 1usize..12, 0.05f64..0.9, 0usize..6, 0usize..4).prop_map(
        move |(times, every, threshold, budget, groups)| LookBack {
            window: times * block,
            every,
            threshold,
            budget,
            groups,
        },
    )
}

pub fn any_options() -> impl Strategy<Value = SampleOptions> {
    let window = prop_oneof![Just(Window::Grow), Just(Window::Slide), Just(Window::Recompute)];
    let nucleus = prop_oneof![Just(Nucleus::Off), Just(Nucleus::Usual(0.8)), Just(Nucleus::Strict(0.8))];
    let temperature = prop_oneof![Just(0.0), Just(1.0), Just(0.7)];
    let filter = (temperature, nucleus).prop_map(|(temperature, nucleus)| Filter { temperature, nucleus });
    let budget = prop::option::weighted(0.3, 1usize..5).prop_map(|passes| Budget { passes, ms: None });
    let more = (prop_oneof![Just(0.0f32), Just(1.5)], 0usize..3);
    (1usize..7, 0usize..40, any_revision(), filter, 0usize..16, (window, budget, more)).prop_flat_map(
        |(block, max_new, (rule, revise), filter, longer, (window, budget, (guidance, alternatives)))| {
            let train_length = block + longer;
            let budget = if revise == Revise::None { budget } else { Budget::default() };
            let plain = SampleOptions { budget, guidance, alternatives, ..options(block, max_new, rule) };
            let plain = SampleOptions { filter, train_length, window, revise, ..plain };
            let look = SampleOptions { train_length: 8 * block + longer, ..plain.clone() };
            let look =
                any_look(block).prop_map(move |how| SampleOptions { revise: Revise::LookBack(how), ..look.clone() });
            prop_oneof![3 => Just(plain), 1 => look]
        },
    )
}

/// A prompt with bos first, and gaps where the window allows them.
pub fn any_prompt() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![9 => 1u32..9, 1 => Just(MASK)], 0..30)
        .prop_map(|tail| std::iter::once(9).chain(tail).collect())
}

pub fn sampler_for<D: Denoiser>(
    model: &D,
    options: &SampleOptions,
    prompt: &[u32],
    seed: u64,
) -> Option<Sampler<D::Cache>> {
    Sampler::new(options.clone(), prompt, MASK, |size| model.cache(size), Rng::new(seed)).ok()
}
