//! Long prompts and kept caches: what is stored, in how many passes, and that the answers are those of a fresh start.

use bd3::arch::{self, Arch, Objective, Shape, SpecialIds};
use bd3::engine::{Engine, Options};
use bd3::event::{Event, Quiet, Reason, Sink};
use bd3::format::Stored;
use bd3::pass::{Cache, Denoiser};
use bd3::rng::Rng;
use bd3::sample::{Rule, SampleOptions, Sampler, Window, run};

use crate::scripted::{PIECE, Scripted, from_digest};

const MASK: u32 = 0;

fn options(block: usize, max_new: usize) -> SampleOptions {
    SampleOptions { train_length: 1 << 20, ..SampleOptions::new(block, max_new, Rule::FirstHitting) }
}

fn prompt(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| 1 + rng.below(9) as u32).collect()
}

fn sampler<D: Denoiser>(model: &D, options: &SampleOptions, prompt: &[u32], cache: D::Cache) -> Sampler<D::Cache> {
    let mut cache = Some(cache);
    let caches = |_| cache.take().expect("one cache");
    Sampler::new(options.clone(), prompt, model.mask_id(), caches, Rng::new(3)).unwrap()
}

/// How many edits each pass made.
fn edits(events: &[Event]) -> Vec<usize> {
    let edits = |event: &Event| match event {
        Event::Edited { edits, .. } => Some(edits.len()),
        _ => None,
    };
    events.iter().filter_map(edits).collect()
}

#[test]
fn a_long_prompt_is_stored_in_pieces_and_the_rest_with_the_first_block() {
    for (block, length, pieces) in [
        (4, 64, 0),
        (4, 67, 0),
        (4, 68, 1),
        (4, 1000, 15),
        (1, 65, 1),
        (100, 200, 1),
        (100, 300, 2),
        (300, 300, 0),
        (300, 700, 1),
    ] {
        let model = Scripted::new(MASK, from_digest(10));
        let mut events = Vec::new();
        let mut sampler = sampler(&model, &options(block, 8), &prompt(1, length), model.cache(block));
        run(&model, &mut sampler, &mut events).unwrap();
        let edits = edits(&events);
        assert!(edits[..pieces].iter().all(|&count| count == 0), "{block} {length}: {edits:?}");
        assert!(edits[pieces..].iter().all(|&count| count == 1), "{block} {length}: {edits:?}");
        assert_eq!((sampler.passes(), sampler.passes()), (model.lanes.get(), edits.len() as u64));
        assert_eq!(model.stored.get(), sampler.cache().end(), "each id once");
    }
}

#[test]
fn a_sink_stops_a_sample_between_two_pieces() {
    struct Breaks(usize);
    impl Sink for Breaks {
        fn event(&mut self, _: &Event) -> bool {
            self.0 -= usize::from(self.0 > 0);
            self.0 > 0
        }
    }
    let model = Scripted::new(MASK, from_digest(10));
    let mut sampler = sampler(&model, &options(4, 8), &prompt(1, 2000), model.cache(4));
    // Started, opened, two pieces.
    run(&model, &mut sampler, Breaks(4)).unwrap();
    assert_eq!((sampler.passes(), sampler.reason(), model.stored.get()), (2, Some(Reason::Interrupted), 2 * PIECE));
    assert_eq!(sampler.new_ids(), [] as [u32; 0]);
}

/// Of a prompt longer than the window, only what is seen is stored.
#[test]
fn a_window_stores_only_what_it_shows_of_a_long_prompt() {
    for (window, block, seen) in [
        (Window::Slide, 4, 596),
        (Window::Slide, 100, 500),
        (Window::Recompute, 4, 300),
        (Window::Recompute, 1, 300),
        (Window::Recompute, 600, 0),
    ] {
        let mut model = Scripted::new(MASK, from_digest(10));
        model.most_seen = 600;
        let options = SampleOptions { train_length: 600, window, ..options(block, 1) };
        let prompt = prompt(1, 2000);
        let mut sampler = sampler(&model, &options, &prompt, model.cache(block));
        run(&model, &mut sampler, Quiet).unwrap();
        assert_eq!((model.stored.get(), sampler.cache().held()), (seen, seen), "{window:?} {block}");
        assert_eq!((sampler.ids().len(), &sampler.ids()[..2000]), (2001, &prompt[..]));
    }
}

/// Two requests, the second with an equal beginning, on a kept cache and on a fresh one.
fn requests<D: Denoiser>(
    model: &D,
    options: &SampleOptions,
    prompts: [&[u32]; 2],
    count: impl Fn() -> usize,
) -> [(Vec<u32>, u64, usize); 2] {
    let mut first = sampler(model, options, prompts[0], model.cache(options.block));
    run(model, &mut first, Quiet).unwrap();
    [first.into_cache(), model.cache(options.block)].map(|cache| {
        let before = count();
        let mut second = sampler(model, options, prompts[1], cache);
        run(model, &mut second, Quiet).unwrap();
        (second.ids().to_vec(), second.passes(), count() - before)
    })
}

#[test]
fn a_kept_cache_saves_what_it_holds_and_changes_no_answer() {
    let model = Scripted::new(MASK, from_digest(10));
    let long = prompt(1, 1000);
    let other = [&long[..601], &prompt(2, 399)].concat();
    for (block, second, saved) in [
        (4, &long[..], 1000),
        (4, &long[..998], 996),
        (4, &other, 600),
        (4, &other[..30], 28),
        // At block size 1, one id is always stored.
        (1, &long, 999),
        (7, &other, 595),
        (4, &prompt(3, 50), 0),
    ] {
        let [kept, fresh] = requests(&model, &options(block, 20), [&long, second], || model.stored.get());
        assert_eq!(kept.0, fresh.0, "{block}");
        assert_eq!(fresh.2 - kept.2, saved, "{block}");
        let pieces = |ids: usize| ids.div_ceil(PIECE / block * block).saturating_sub(1) as u64;
        let waiting = second.len() / block * block;
        assert_eq!(fresh.1 - kept.1, pieces(waiting) - pieces(waiting - saved), "{block}");
    }
}

/// The last answer, with a further question behind it: all of it but its last block is there.
#[test]
fn a_conversation_stores_only_what_is_new() {
    let model = Scripted::new(MASK, from_digest(10));
    let mut first = sampler(&model, &options(4, 40), &prompt(1, 100), model.cache(4));
    run(&model, &mut first, Quiet).unwrap();
    let longer = [first.ids(), &prompt(2, 20)].concat();
    let [kept, fresh] = requests(&model, &options(4, 40), [&prompt(1, 100), &longer], || model.stored.get());
    assert_eq!((kept.0, fresh.2 - kept.2), (fresh.0, 136));
}

/// A window's cache that has dropped or left behind something is used only where it is equal from its beginning.
#[test]
fn windows_and_kept_caches_do_not_mix_texts() {
    let mut model = Scripted::new(MASK, from_digest(10));
    model.most_seen = 64;
    let long = prompt(1, 90);
    for window in [Window::Slide, Window::Recompute] {
        for (first, second) in [(90, 90), (90, 86), (50, 90), (90, 50), (40, 44)] {
            for max_new in [1, 60] {
                let options = SampleOptions { train_length: 64, window, ..options(4, max_new) };
                let prompts = [&long[..first], &long[..second]];
                let [kept, fresh] = requests(&model, &options, prompts, || model.stored.get());
                assert_eq!(kept.0, fresh.0, "{window:?} {first} {second}");
            }
        }
    }
}

fn engine(objective: Objective) -> Engine {
    let arch = Arch {
        vocab: 20,
        mask: 19,
        special: SpecialIds::default(),
        hidden: 32,
        layers: 2,
        heads: 2,
        length: 1024,
        objective,
        block: 1,
        sizes: Vec::new(),
        visible_loss: false,
        shape: Shape::Dit(arch::Dit { cond: if objective == Objective::NextToken { 0 } else { 8 }, dropout: 0.0 }),
    };
    let take = |name: &str, shape: &[usize]| {
        let mut rng = Rng::new(11).split(name);
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let numbers = (0..shape.iter().product()).map(|_| (centre + 0.5 * rng.normal()) as f32);
        Ok(Stored::of_f32(shape, &numbers.collect::<Vec<_>>()))
    };
    Engine::new(&arch, take, Options::default()).unwrap()
}

/// The real executor: the events of both are equal to the last bit, probabilities included.
#[test]
fn the_engine_gives_the_same_bits_with_a_kept_cache() {
    let long = prompt(1, 600);
    let other = [&long[..333], &prompt(2, 200)].concat();
    for (objective, block) in [(Objective::Masked, 4), (Objective::Masked, 1), (Objective::NextToken, 1)] {
        let model = engine(objective);
        let mut first = sampler(&model, &options(block, 20), &long, model.cache(block));
        run(&model, &mut first, Quiet).unwrap();
        let [kept, fresh] = [first.into_cache(), model.cache(block)].map(|cache| {
            let mut events: Vec<Event> = Vec::new();
            let mut second = sampler(&model, &options(block, 20), &other, cache);
            run(&model, &mut second, &mut events).unwrap();
            let made = events.into_iter().filter_map(|event| match event {
                Event::Edited { edits, .. } => Some(edits),
                _ => None,
            });
            (made.flatten().collect::<Vec<_>>(), second.passes())
        });
        assert_eq!(kept.0, fresh.0, "{objective:?} {block}");
        // 533 ids in pieces of 64, or the 200 that are new.
        assert_eq!(fresh.1 - kept.1, 5, "{objective:?} {block}");
    }
}
