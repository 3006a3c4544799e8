//! Sampling on a scripted denoiser: rules case by case, laws over random settings, and golden event streams.

use bd3::event::{EditKind, Event, Quiet, Reason, Sink, State, Why};
use bd3::pass::{Cache, Denoiser, Filter, Nucleus, Query, propose};
use bd3::rng::Rng;
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::revise::edit::Editing;
use bd3::sample::revise::remdm::{Phase, Spread, Strength};
use bd3::sample::{LookBack, Revise, Rule, SampleOptions, Sampler, Split, Stop, Window, run, step};
use proptest::prelude::*;

use crate::samples::{MASK, any_options, any_prompt, options, sampler_for};
use crate::scripted::{Scripted, from_digest, round_numbers};

/// Runs one block, given as text with `_` for masks, with a script per mask (`word probability ...`), greedily, and compares
/// the text after each pass.
fn check(rule: Rule, before: &str, script: &[&str], after: &[&str]) {
    let mut words = vec!["_"];
    let mut id_of = |word: &'static str| {
        words.iter().position(|w| *w == word).unwrap_or_else(|| {
            words.push(word);
            words.len() - 1
        })
    };
    let leak = |text: &str| -> Vec<&'static str> { String::from(text).leak().split(' ').collect() };
    let prompt: Vec<u32> = leak(before).into_iter().map(|word| id_of(word) as u32).collect();
    let gaps: Vec<usize> = (0..prompt.len()).filter(|&row| prompt[row] == MASK).collect();
    let mut logits = vec![vec![f32::NEG_INFINITY; 32]; prompt.len()];
    for (row, line) in gaps.iter().zip(script) {
        for pair in leak(line).chunks(2) {
            logits[*row][id_of(pair[0])] = pair[1].parse::<f32>().unwrap().ln();
        }
    }
    let model = Scripted::new(MASK, |_: &[u32], _: &[u32], query: &Query| propose(&logits[query.row], query));
    let mut sampler = Sampler::new(
        SampleOptions { filter: Filter::GREEDY, ..options(prompt.len(), 0, rule) },
        &prompt,
        MASK,
        |size| model.cache(size),
        Rng::new(1),
    )
    .unwrap();
    let mut events: Vec<Event> = Vec::new();
    run(&model, &mut sampler, &mut events).unwrap();
    let mut ids = prompt.clone();
    let mut states = Vec::new();
    for event in &events {
        if let Event::Edited { edits, .. } = event {
            edits.iter().for_each(|edit| ids[edit.position] = edit.new);
            states.push(ids.iter().map(|&id| words[id as usize]).collect::<Vec<_>>().join(" "));
        }
    }
    assert_eq!(states, after, "{rule:?} on `{before}`");
}

#[test]
fn confidence_takes_its_share_of_the_best() {
    let script = ["cat 0.5 dog 0.4", "sat 0.9 ran 0.1", "on 0.6 by 0.3", "it 0.4 me 0.3 us 0.3"];
    let rule = |steps| Rule::Confidence { steps, split: Split::Even };
    check(rule(2), "the _ _ _ _", &script, &["the _ sat on _", "the cat sat on it"]);
    check(rule(3), "the _ _ _ _", &script, &["the _ sat on _", "the cat sat on _", "the cat sat on it"]);
    check(rule(1), "the _ _ _ _", &script, &["the cat sat on it"]);
    check(rule(9), "the _ sat _", &["cat 0.5 dog 0.5", "up 0.5 on 0.5"], &["the cat sat _", "the cat sat up"]);
}

#[test]
fn threshold_takes_all_above_it_and_at_least_the_best() {
    let rule = Rule::Threshold { threshold: 0.8 };
    check(rule, "the _ sat _", &["cat 0.9 dog 0.1", "on 0.5 up 0.5"], &["the cat sat _", "the cat sat on"]);
    check(rule, "the _ sat _", &["cat 0.9 dog 0.1", "on 0.85 up 0.15"], &["the cat sat on"]);
    check(rule, "the _ sat _", &["cat 0.3 dog 0.2 cow 0.5", "on 0.6 up 0.4"], &["the _ sat on", "the cow sat on"]);
}

#[test]
fn first_hitting_fills_one_position_per_pass() {
    let (model, mut events) = (Scripted::new(MASK, round_numbers), Vec::new());
    let options = options(4, 11, Rule::FirstHitting);
    let mut sampler = Sampler::new(options, &[9], MASK, |size| model.cache(size), Rng::new(3)).unwrap();
    run(&model, &mut sampler, &mut events).unwrap();
    let edits = events.iter().filter_map(|event| match event {
        Event::Edited { edits, .. } => Some(edits.len()),
        _ => None,
    });
    assert_eq!(edits.collect::<Vec<_>>(), [1; 11]);
    assert_eq!((sampler.passes(), model.lanes.get(), sampler.reason()), (11, 11, Some(Reason::Length)));
}

/// The law of the ancestral sampler: at step i of T, a token leaves the mask with probability 1 / (T - i), so that the step at
/// which it does is uniform.
#[test]
fn ancestral_spreads_tokens_evenly_over_its_steps() {
    let mut rng = Rng::new(5);
    let mut counts = [0u32; 4];
    for _ in 0..4000 {
        let (mut step, mut masked) = (0, vec![0, 1, 2]);
        while !masked.is_empty() {
            let freed = bd3::sample::rule::ancestral(&masked, 4, &mut step, || rng.uniform());
            counts[step - 1] += freed.len() as u32;
            masked.retain(|row| !freed.contains(row));
        }
    }
    assert!(counts.iter().all(|&count| count.abs_diff(3000) < 200), "{counts:?}");
}

/// One token per pass, each from the exact conditional, is a draw from the joint distribution, whatever the order: here three
/// tokens that depend on each other, in a block of 4 with bos.
#[test]
fn first_hitting_with_exact_conditionals_draws_from_the_joint_distribution() {
    let joint =
        |ids: [u32; 3]| [8.0, 1.0, 2.0, 5.0, 1.0, 7.0, 4.0, 4.0][ids.iter().fold(0, |i, id| 2 * i + *id as usize - 1)];
    let all = || (0..8u32).map(|i| [1 + (i >> 2), 1 + (i >> 1 & 1), 1 + (i & 1)]);
    let model = Scripted::new(MASK, |_: &[u32], open: &[u32], query: &Query| {
        let fits = |ids: &[u32; 3]| open[1..].iter().zip(ids).all(|(&known, &id)| known == MASK || known == id);
        let mut weights = [0.0; 3];
        all().filter(fits).for_each(|ids| weights[ids[query.row - 1] as usize] += joint(ids));
        propose(&weights.map(|w: f64| w.ln() as f32), query)
    });
    let mut counts = [0u32; 8];
    for seed in 0..8000 {
        let options = options(4, 3, Rule::FirstHitting);
        let mut sampler = Sampler::new(options, &[9], MASK, |size| model.cache(size), Rng::new(seed)).unwrap();
        run(&model, &mut sampler, Quiet).unwrap();
        counts[all().position(|ids| ids == sampler.new_ids()).unwrap()] += 1;
    }
    for (ids, count) in all().zip(counts) {
        let (share, expected) = (f64::from(count) / 8000.0, joint(ids) / 32.0);
        assert!((share - expected).abs() < 0.02, "{ids:?}: {share}, expected {expected}");
    }
}

#[test]
fn an_autoregressive_sample_stores_one_id_per_pass() {
    let model = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
        assert_eq!(open, [MASK]);
        let mut proposal = round_numbers(seen, open, query)?;
        proposal.token = seen.len() as u32;
        Ok(proposal)
    });
    let mut sampler =
        Sampler::new(options(1, 4, Rule::FirstHitting), &[9, 1, 2], MASK, |size| model.cache(size), Rng::new(1))
            .unwrap();
    run(&model, &mut sampler, Quiet).unwrap();
    assert_eq!((sampler.new_ids(), sampler.passes()), (&[3, 4, 5, 6][..], 4));
}

#[test]
fn a_sink_that_breaks_stops_the_sample_before_the_next_pass() {
    struct Breaks(usize, Vec<Event>);
    impl Sink for Breaks {
        fn event(&mut self, event: &Event) -> bool {
            self.1.push(event.clone());
            self.1.len() < self.0
        }
    }
    let model = Scripted::new(MASK, round_numbers);
    let split = Split::Even;
    let mut sampler = sampler_for(&model, &options(4, 40, Rule::LeftToRight { steps: 4, split }), &[9], 1).unwrap();
    run(&model, &mut sampler, &mut Breaks(4, Vec::new())).unwrap();
    assert_eq!(
        (sampler.passes(), sampler.written(), sampler.ids().len()),
        (2, 2, 3),
        "what is known before the first mask"
    );
    let mut sampler = sampler_for(&model, &options(4, 40, Rule::LeftToRight { steps: 4, split }), &[9], 1).unwrap();
    let mut events: Vec<Event> = Vec::new();
    step(&model, std::slice::from_mut(&mut sampler), std::slice::from_mut(&mut events)).unwrap();
    sampler.stop(&mut events);
    assert_eq!((sampler.passes(), sampler.written(), sampler.reason()), (1, 1, Some(Reason::Interrupted)));
    assert_eq!(rebuild(&events), sampler.ids());
    // A sink that has refused already hears of the end as well.
    let mut sampler = sampler_for(&model, &options(4, 40, Rule::LeftToRight { steps: 4, split }), &[9], 1).unwrap();
    let mut sink = Breaks(3, Vec::new());
    step(&model, std::slice::from_mut(&mut sampler), std::slice::from_mut(&mut sink)).unwrap();
    sampler.stop(&mut sink);
    assert_eq!((sampler.passes(), sampler.reason()), (1, Some(Reason::Interrupted)));
    assert!(matches!(sink.1.last(), Some(Event::Finished { reason: Reason::Interrupted, .. })));
    for (after, passes) in [(1, 0), (2, 0), (3, 1), (4, 2), (9, 5)] {
        let mut sampler =
            Sampler::new(options(4, 40, Rule::FirstHitting), &[9], MASK, |size| model.cache(size), Rng::new(1))
                .unwrap();
        let mut sink = Breaks(after, Vec::new());
        run(&model, &mut sampler, &mut sink).unwrap();
        assert_eq!((sampler.passes(), sampler.reason()), (passes, Some(Reason::Interrupted)), "{after}");
        let (length, tokens) = (sampler.ids().len(), sampler.written());
        assert_eq!(sink.1.last(), Some(&Event::Finished { length, passes, tokens, reason: Reason::Interrupted }));
        assert_eq!(rebuild(&sink.1), sampler.ids());
    }
}

#[test]
fn wrong_answers_and_wrong_options_are_errors() {
    let make = |options, prompt: &[u32]| {
        let model = Scripted::new(MASK, round_numbers);
        Sampler::new(options, prompt, MASK, |size| model.cache(size), Rng::new(1))
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    let good = options(4, 8, Rule::FirstHitting);
    assert!(make(good.clone(), &[9]).is_ok());
    assert!(make(good.clone(), &[]).unwrap_err().starts_with("prompt"));
    assert!(make(good.clone(), &[MASK]).unwrap_err().starts_with("prompt"));
    assert!(make(SampleOptions { block: 0, ..good.clone() }, &[9]).unwrap_err().starts_with("block"));
    assert!(make(SampleOptions { max_new: usize::MAX, ..good.clone() }, &[9]).is_err());
    assert!(make(SampleOptions { rule: Rule::Ancestral { steps: 0 }, ..good.clone() }, &[9]).is_err());
    let stop = Stop { eos: None, low_entropy: Some(f64::NAN) };
    assert!(make(SampleOptions { stop, ..good.clone() }, &[9]).unwrap_err().starts_with("least entropy"));
    let nucleus = Filter { temperature: 1.0, nucleus: Nucleus::Usual(2.0) };
    assert!(make(SampleOptions { filter: nucleus, ..good.clone() }, &[9]).is_err());

    let masks = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
        round_numbers(seen, open, query).map(|proposal| bd3::pass::Proposal { token: MASK, ..proposal })
    });
    let mut sampler = Sampler::new(good, &[9], MASK, |size| masks.cache(size), Rng::new(1)).unwrap();
    assert!(run(&masks, &mut sampler, Quiet).unwrap_err().to_string().contains("does not allow it"));
    assert!(step(&masks, &mut [sampler], &mut [Quiet, Quiet]).is_err());
}

/// The text that a stream of events tells.
pub fn rebuild(events: &[Event]) -> Vec<u32> {
    let mut state = State::new(MASK);
    events.iter().for_each(|event| state.apply(event).unwrap());
    state.text().to_vec()
}

/// Passes that a block of this many masks may take, at most.
fn passes_of_block(options: &SampleOptions, masks: usize) -> usize {
    let fills = masks.min(options.rule.steps().unwrap_or(usize::MAX));
    let fills = options.budget.passes.map_or(fills, |passes| passes.min(fills));
    match options.revise {
        _ if masks == 0 => 0,
        Revise::Remask { rounds, .. } => masks.min(options.rule.steps().unwrap_or(masks)) * rounds + fills,
        // A reading, and the fills of what it masks; the prompts here are stored beside.
        Revise::Corrector(Corrector { rounds, .. }) => {
            (masks.min(options.rule.steps().unwrap_or(masks)) + 1) * rounds + fills
        }
        Revise::Remdm { .. } => options.rule.steps().unwrap(),
        Revise::Edit(Editing { passes, .. }) => fills + passes,
        Revise::None | Revise::LookBack(_) => fills,
    }
}

/// Every kind of change happens, and says why.
#[test]
fn revisions_revise() {
    let look = LookBack { window: 8, every: 4, threshold: 0.2, budget: 3, groups: 0 };
    let corrector = Revise::Corrector(Corrector { threshold: 0.2, rounds: 2 });
    let remdm = Revise::Remdm { strength: Strength::Cap(0.5), spread: Spread::Even, phase: Phase::Always };
    for (rule, revise, kind, why) in [
        (Rule::FirstHitting, Revise::None, EditKind::Fill, Why::Rule),
        (Rule::FirstHitting, Revise::Remask { threshold: 0.5, rounds: 2 }, EditKind::Remask, Why::Unlikely),
        (Rule::FirstHitting, corrector, EditKind::Remask, Why::Unlikely),
        (Rule::Ancestral { steps: 8 }, remdm, EditKind::Remask, Why::Schedule),
        (Rule::FirstHitting, Revise::Edit(Editing { threshold: 0.1, passes: 4 }), EditKind::Revise, Why::Better),
        (Rule::FirstHitting, Revise::LookBack(look), EditKind::Fill, Why::Better),
    ] {
        let model = Scripted::new(MASK, from_digest(10));
        let mut sampler = sampler_for(&model, &SampleOptions { revise, ..options(4, 40, rule) }, &[9], 1).unwrap();
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let edits = events.iter().filter_map(|event| match event {
            Event::Edited { edits, .. } => Some(edits),
            _ => None,
        });
        assert!(edits.flatten().any(|edit| (edit.kind, edit.why) == (kind, why)), "{revise:?}");
        let retracted = events.iter().filter(|event| matches!(event, Event::Retracted { .. })).count();
        assert_eq!(retracted, if revise == Revise::LookBack(look) { 3 } else { 0 }, "{revise:?}");
    }
}

/// The model sees the newest text, without a hole, and as much of it as the window promises. Ids tell their position.
#[test]
fn each_window_shows_the_newest_text_in_order() {
    for (window, block, least) in [
        (Window::Grow, 4, None),
        (Window::Slide, 4, Some(12)),
        (Window::Slide, 8, Some(8)),
        (Window::Recompute, 4, Some(8)),
        (Window::Recompute, 1, Some(8)),
        (Window::Recompute, 16, Some(0)),
        (Window::Recompute, 12, Some(0)),
    ] {
        for prompt_length in [1, 3, 8, 15, 16, 17, 40] {
            let mut model = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
                let known = open.iter().position(|&id| id == MASK).unwrap();
                let sight: Vec<u32> = seen.iter().chain(&open[..known]).copied().collect();
                assert!(sight.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{window:?} {block}: {sight:?}");
                // Each block is decoded left to right below, so the next token is the one after the last seen.
                let mut proposal = round_numbers(seen, open, query)?;
                proposal.token = sight.last().map_or(1, |last| last + 1) + (query.row - known) as u32;
                Ok(proposal)
            });
            model.most_seen = if window == Window::Grow { usize::MAX } else { 16 };
            let prompt: Vec<u32> = (1..=prompt_length).collect();
            let options =
                SampleOptions { train_length: 16, window, ..options(block, 60, Rule::Threshold { threshold: 0.001 }) };
            let mut sampler = Sampler::new(options, &prompt, MASK, |size| model.cache(size), Rng::new(1)).unwrap();
            run(&model, &mut sampler, Quiet).unwrap();
            let expected: Vec<u32> = (1..=prompt_length + 60).collect();
            assert_eq!(sampler.ids(), expected, "{window:?}, block {block}, prompt {prompt_length}");
            // What the last pass saw: everything, or at least what the window keeps.
            let held = sampler.cache().held();
            assert!(least.is_none_or(|least| held >= least), "{window:?}, block {block}: {held}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn every_sample_keeps_the_laws(options in any_options(), prompt in any_prompt(), seed in 0u64..1000) {
        let mut model = Scripted::new(MASK, from_digest(10));
        if options.window != Window::Grow {
            model.most_seen = options.train_length;
        }
        let Some(mut sampler) = sampler_for(&model, &options, &prompt, seed) else { return Err(TestCaseError::reject("refused")) };
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();

        prop_assert_eq!(rebuild(&events), sampler.ids());
        prop_assert_eq!(sampler.new_ids().len(), options.max_new);
        prop_assert!(!sampler.ids().contains(&MASK));
        prop_assert!(sampler.ids().iter().zip(&prompt).all(|(id, given)| id == given || *given == MASK));
        prop_assert_eq!(sampler.passes(), model.lanes.get());
        let mut bound = options.revise.look_back().map_or(0, |how| prompt.len() / how.window);
        let mut left = options.revise.look_back().map_or(0, |how| how.budget);
        let mut open: Vec<u32> = Vec::new();
        for event in &events {
            match event {
                Event::BlockOpened { ids, .. } => {
                    bound += passes_of_block(&options, ids.iter().filter(|&&id| id == MASK).count());
                    open.clone_from(ids);
                }
                Event::BlockCommitted { ids, .. } => {
                    prop_assert!(open.iter().zip(ids).all(|(before, after)| before == after || *before == MASK));
                    // Each look may store a piece more.
                    bound += options.revise.look_back().map_or(0, |how| how.groups.max(1) + 1);
                }
                Event::Retracted { .. } => {
                    prop_assert!(left > 0, "more retractions than the budget allows");
                    left -= 1;
                }
                _ => {}
            }
        }
        prop_assert!(sampler.passes() <= bound as u64, "{} passes, bound {}", sampler.passes(), bound);
    }

    #[test]
    fn company_changes_nothing(
        samples in prop::collection::vec((any_options(), any_prompt(), 0u64..1000), 1..4),
    ) {
        let model = Scripted::new(MASK, from_digest(10));
        let all = || samples.iter().filter_map(|(options, prompt, seed)| sampler_for(&model, options, prompt, *seed));
        let alone: Vec<Vec<Event>> = all()
            .map(|mut sampler| {
                let mut events = Vec::new();
                run(&model, &mut sampler, &mut events).unwrap();
                events
            })
            .collect();
        let mut together: Vec<_> = all().collect();
        let mut events: Vec<Vec<Event>> = vec![Vec::new(); together.len()];
        while step(&model, &mut together, &mut events).unwrap() > 0 {}
        prop_assert_eq!(alone, events);
    }
}
