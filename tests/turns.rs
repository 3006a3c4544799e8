//! Many samples over one model: what each writes does not depend on its company, nobody waits for long ones, a pass is bounded.

use bd3::event::{Event, Quiet, Sink};
use bd3::pass::{Denoiser, Filter, Query};
use bd3::rng::Rng;
use bd3::sample::{self, Rule, SampleOptions, Sampler, Turns, Window};
use proptest::prelude::*;

use super::scripted::{Kept, Scripted, from_digest, round_numbers};

const MASK: u32 = 0;
const VOCAB: usize = 12;

#[derive(Clone, Debug)]
struct Wanted {
    block: usize,
    prompt: usize,
    max_new: usize,
    seed: u64,
    /// The pass before which it comes.
    comes: usize,
    window: Window,
    guidance: f32,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let window = prop_oneof![Just(Window::Grow), Just(Window::Slide), Just(Window::Recompute)];
    let numbers = (prop::sample::select(vec![1usize, 2, 4, 8]), 1usize..300, 0usize..40, any::<u64>(), 0usize..30);
    let guidance = prop::sample::select(vec![0.0f32, 0.0, 1.5]);
    (numbers, window, guidance).prop_map(|((block, prompt, max_new, seed, comes), window, guidance)| Wanted {
        block,
        prompt,
        max_new,
        seed,
        comes,
        window,
        guidance,
    })
}

fn sampler<D: Denoiser>(model: &D, wanted: &Wanted) -> Sampler<D::Cache> {
    let options = SampleOptions {
        filter: Filter::NONE,
        train_length: 64,
        window: wanted.window,
        guidance: wanted.guidance,
        ..SampleOptions::new(wanted.block, wanted.max_new, Rule::Threshold { threshold: 0.4 })
    };
    let (prompt, rng) = drawn(wanted);
    Sampler::new(options, &prompt, MASK, |block| model.cache(block), rng).unwrap()
}

/// A prompt, and what is random after it.
fn drawn(wanted: &Wanted) -> (Vec<u32>, Rng) {
    let mut rng = Rng::new(wanted.seed);
    ((0..wanted.prompt).map(|_| 1 + rng.below(VOCAB - 1) as u32).collect(), rng)
}

fn prompt_of(wanted: &Wanted) -> Vec<u32> {
    drawn(wanted).0
}

/// The events of each, all together.
fn together<D: Denoiser>(model: &D, all: &[Wanted], most: usize) -> Vec<Vec<Event>> {
    struct Numbered(usize, Vec<Event>);
    impl Sink for Numbered {
        fn event(&mut self, event: &Event) -> bool {
            self.1.event(event)
        }
    }
    let mut turns = Turns::new(most);
    let mut events = vec![Vec::new(); all.len()];
    for pass in 0.. {
        for (index, wanted) in all.iter().enumerate().filter(|(_, wanted)| wanted.comes == pass) {
            turns.add(sampler(model, wanted), Numbered(index, Vec::new()));
        }
        let (turn, ended) = turns.pass(model, |_| false);
        assert!(turn.rows <= most || turn.lanes == 1, "{turn:?} of {most}");
        for ended in ended {
            assert!(ended.failure.is_none());
            events[ended.sink.0] = ended.sink.1;
        }
        if turns.is_empty() && pass > 30 {
            return events;
        }
    }
    unreachable!()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_writes_what_it_writes_alone(all in prop::collection::vec(wanted(), 1..9), most in 1usize..120) {
        let model = Scripted::new(MASK, from_digest(VOCAB));
        for (wanted, events) in all.iter().zip(together(&model, &all, most)) {
            let (mut sampler, mut alone) = (sampler(&model, wanted), Vec::new());
            sample::run(&model, &mut sampler, &mut alone).unwrap();
            prop_assert_eq!(alone, events);
        }
    }
}

/// Passes until a sample that comes behind others is done.
fn passes_behind(long: &Wanted, count: usize, short: &Wanted) -> usize {
    let model = Scripted::new(MASK, round_numbers);
    let mut turns: Turns<Kept, Box<dyn Sink>> = Turns::new(32);
    for _ in 0..count {
        turns.add(sampler(&model, long), Box::new(Quiet));
    }
    // They are no newcomers any more.
    (0..60).for_each(|_| assert!(turns.pass(&model, |_| false).1.is_empty()));
    turns.add(sampler(&model, short), Box::new(Quiet));
    (1..10_000)
        .find(|_| turns.pass(&model, |_| false).1.iter().any(|ended| ended.sampler.new_ids().len() == short.max_new))
        .unwrap()
}

#[test]
fn a_short_sample_behind_long_ones_is_done_in_as_many_passes_as_alone() {
    let short = Wanted { block: 4, prompt: 5, max_new: 7, seed: 1, comes: 0, window: Window::Grow, guidance: 0.0 };
    let alone = passes_behind(&short, 0, &short);
    for long in [
        // Prompts that are stored in many pieces, one token at a time, and whole texts at once.
        Wanted { prompt: 20_000, max_new: 400, ..short.clone() },
        Wanted { block: 1, max_new: 4000, ..short.clone() },
        Wanted { block: 32, max_new: 4000, ..short.clone() },
    ] {
        let behind = passes_behind(&long, 7, &short);
        // Every fourth pass may be another's.
        assert!(behind <= alone + 2, "{behind} passes behind {long:?}, {alone} alone");
    }
}

#[test]
fn nobody_starves() {
    // A long prompt among a stream of short ones that fill every pass.
    let model = Scripted::new(MASK, round_numbers);
    let wide = Wanted { block: 8, prompt: 3, max_new: 50, seed: 3, comes: 0, window: Window::Grow, guidance: 0.0 };
    let long = Wanted { prompt: 2000, max_new: 9, ..wide.clone() };
    let mut turns = Turns::new(16);
    turns.add(sampler(&model, &long), Quiet);
    for _ in 0..20_000 {
        while turns.len() < 6 {
            turns.add(sampler(&model, &wide), Quiet);
        }
        if turns.pass(&model, |_| false).1.iter().any(|ended| ended.sampler.new_ids().len() == long.max_new) {
            return;
        }
    }
    panic!("the long one never came to its end");
}

#[test]
fn a_model_that_fails_ends_those_who_took_part() {
    let fails = |_: &[u32], open: &[u32], query: &Query| match open.len() {
        8 => Err(bd3::Error::Run("broken".into())),
        _ => round_numbers(&[], open, query),
    };
    let model = Scripted::new(MASK, fails);
    let good = Wanted { block: 4, prompt: 5, max_new: 7, seed: 1, comes: 0, window: Window::Grow, guidance: 0.0 };
    let mut turns = Turns::new(4);
    turns.add(sampler(&model, &Wanted { block: 8, ..good.clone() }), Quiet);
    turns.add(sampler(&model, &good), Quiet);
    let mut ended = Vec::new();
    while !turns.is_empty() {
        ended.extend(
            turns.pass(&model, |_| false).1.into_iter().map(|ended| ended.failure.map(|error| error.to_string())),
        );
    }
    assert_eq!(ended.iter().flatten().collect::<Vec<_>>(), ["broken"]);
    assert_eq!(ended.len(), 2);
}

#[test]
fn who_has_no_answer_ends_alone() {
    // Two lanes of block 8 among others of block 4, all in one pass: one of the two meets a text that the model can't answer.
    let bad = Wanted { block: 8, prompt: 5, max_new: 40, seed: 1, comes: 0, window: Window::Grow, guidance: 0.0 };
    let poison = prompt_of(&bad);
    let fails = move |seen: &[u32], open: &[u32], query: &Query| {
        let all = [seen, open].concat();
        // After its first block.
        if all.len() > 8 && all[..5] == poison[..] {
            return Err(bd3::Error::Run("a logit is no number".into()));
        }
        from_digest(VOCAB)(seen, open, query)
    };
    let good = Scripted::new(MASK, from_digest(VOCAB));
    let others = [2u64, 3, 4].map(|seed| Wanted { block: 4, seed, ..bad.clone() });
    let model = Scripted::new(MASK, fails);
    let mut turns: Turns<Kept, Vec<Event>> = Turns::new(64);
    turns.add(sampler(&model, &others[0]), Vec::new());
    turns.add(sampler(&model, &bad), Vec::new());
    turns.add(sampler(&model, &others[1]), Vec::new());
    turns.add(sampler(&model, &others[2]), Vec::new());
    let (mut failed, mut whole, mut shared) = (Vec::new(), Vec::new(), 0);
    while !turns.is_empty() {
        let (turn, ended) = turns.pass(&model, |_| false);
        for ended in ended {
            match ended.failure {
                Some(error) => {
                    shared = turn.lanes;
                    failed.push(error.to_string());
                }
                None => whole.push(ended.sink),
            }
        }
    }
    assert_eq!(failed, ["a logit is no number"]);
    assert!(shared > 1, "it failed in a pass of its own");
    // The others wrote what they write alone.
    for wanted in &others {
        let (mut sampler, mut alone) = (sampler(&good, wanted), Vec::new());
        sample::run(&good, &mut sampler, &mut alone).unwrap();
        assert!(whole.contains(&alone));
    }
    assert_eq!(whole.len(), others.len());
}

#[test]
fn who_waits_takes_no_part_and_holds_nobody_up() {
    let model = Scripted::new(MASK, round_numbers);
    let wanted = Wanted { block: 4, prompt: 5, max_new: 40, seed: 1, comes: 0, window: Window::Grow, guidance: 0.0 };
    let mut turns: Turns<Kept, Vec<Event>> = Turns::new(32);
    turns.add(sampler(&model, &wanted), Vec::new());
    turns.add(sampler(&model, &Wanted { seed: 2, ..wanted.clone() }), Vec::new());
    // After its first edits the one of them is not read any more.
    let waits = |events: &Vec<Event>| {
        let edited = events.iter().any(|event| matches!(event, Event::Edited { .. }));
        edited && matches!(&events[0], Event::Started { prompt, .. } if prompt[1] == first(&wanted))
    };
    let ended = (0..200).flat_map(|_| turns.pass(&model, waits).1).count();
    assert_eq!((ended, turns.len(), turns.pass(&model, waits).0.lanes), (1, 1, 0));
    assert_eq!(turns.sinks().next().unwrap().iter().filter(|event| matches!(event, Event::Edited { .. })).count(), 1);
}

/// The first drawn id of a prompt.
fn first(wanted: &Wanted) -> u32 {
    prompt_of(wanted)[1]
}
