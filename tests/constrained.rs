//! Samples under a constraint: laws over random settings, and what is refused.

use std::time::{Duration, Instant};

use bd3::constraint::Constraint;
use bd3::event::{Event, Quiet, Reason};
use bd3::pass::{Denoiser, Filter};
use bd3::rng::Rng;
use bd3::sample::{Revise, Rule, SampleOptions, Sampler, Stop, run, step};
use proptest::prelude::*;

use crate::constraint::{EOS, PATTERNS, TEXTS, constraint, text, vocabulary, whole};
use crate::rules::any_rule;
use crate::samples::{MASK, any_options, options, sampler_for};
use crate::sampling::rebuild;
use crate::scripted::{Scripted, from_digest, round_numbers};

fn constrained(options: SampleOptions, pattern: &str) -> SampleOptions {
    let stop = Stop { eos: Some(EOS), low_entropy: None };
    SampleOptions { stop, constraint: Some(constraint(pattern)), ..options }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_constrained_sample_is_a_whole_text(
        options in any_options(),
        pattern in 0usize..PATTERNS.len(),
        prompt in prop::collection::vec(2u32..8, 1..20),
        seed in any::<u64>(),
    ) {
        let model = Scripted::new(MASK, from_digest(TEXTS.len()));
        let options = constrained(options, PATTERNS[pattern]);
        let writes = matches!(options.revise, Revise::Edit(_) | Revise::LookBack(_));
        let least = options.constraint.as_ref().map_or(0, Constraint::least);
        let Some(mut sampler) = sampler_for(&model, &options, &prompt, seed) else {
            prop_assume!(writes || options.max_new < least);
            return Ok(());
        };
        prop_assert!(!writes && options.max_new >= least);
        run(&model, &mut sampler, Quiet).unwrap();
        let (written, _) = text(sampler.new_ids()).expect("text alone");
        prop_assert!(whole(PATTERNS[pattern]).is_match(&written), "{written}");
        prop_assert!(matches!(sampler.reason(), Some(Reason::Eos | Reason::Length)));
        // Company changes nothing.
        let (mut pair, mut events) = (Vec::new(), vec![Vec::<Event>::new(); 2]);
        pair.extend(sampler_for(&model, &SampleOptions { constraint: None, ..options.clone() }, &prompt, seed ^ 1));
        pair.extend(sampler_for(&model, &options, &prompt, seed));
        while step(&model, &mut pair, &mut events[..]).unwrap() > 0 {}
        prop_assert_eq!(pair[1].ids(), sampler.ids());
        prop_assert_eq!(rebuild(&events[1]), sampler.ids());
    }

    #[test]
    fn a_constraint_that_allows_everything_changes_no_greedy_text(
        rule in any_rule(),
        block in 1usize..7,
        blocks in 1usize..5,
        seed in any::<u64>(),
    ) {
        // Rules that draw rows use other random numbers beside a constraint.
        prop_assume!(!matches!(rule, Rule::FirstHitting | Rule::Ancestral { .. } | Rule::Random { .. }));
        // No id but the mask is without text here, and none ends it: behind an end nothing would be written.
        let texts: Vec<Vec<u8>> = TEXTS.iter().map(|text| if text.is_empty() { "d" } else { text }.into()).collect();
        let any = Constraint::over("[abcd]*", &texts, MASK).unwrap();
        let stop = Stop { eos: Some(MASK), low_entropy: None };
        let options = SampleOptions { stop, filter: Filter::GREEDY, alternatives: 2, ..options(block, 3usize.next_multiple_of(block) - 3 + blocks * block, rule) };
        let model = Scripted::new(MASK, from_digest(TEXTS.len()));
        let prompt = [8, 2, 3];
        let Some(mut plain) = sampler_for(&model, &options, &prompt, seed) else { return Ok(()) };
        let with = SampleOptions { constraint: Some(any), ..options };
        let mut constrained = sampler_for(&model, &with, &prompt, seed).unwrap();
        let mut events: [Vec<Event>; 2] = Default::default();
        run(&model, &mut plain, &mut events[0]).unwrap();
        run(&model, &mut constrained, &mut events[1]).unwrap();
        prop_assert_eq!(&events[0], &events[1]);
    }
}

#[test]
fn a_text_that_is_determined_costs_a_pass_a_block() {
    let letters: Vec<Vec<u8>> = ["", "", "a", "b", "c"].map(|text| text.as_bytes().to_vec()).into();
    let only = Constraint::over("abcabcabc", &letters, EOS).unwrap();
    let model = Scripted::new(MASK, from_digest(letters.len()));
    let stop = Stop { eos: Some(EOS), low_entropy: None };
    for (rule, passes) in [(Rule::Threshold { threshold: 1.0 - 1e-9 }, 3), (Rule::EntropyBound { bound: 1e-9 }, 3)] {
        let options = SampleOptions { stop, constraint: Some(only.clone()), ..options(3, 9, rule) };
        let mut sampler = sampler_for(&model, &options, &[4, 4, 4], 1).unwrap();
        run(&model, &mut sampler, Quiet).unwrap();
        assert_eq!((sampler.new_ids(), sampler.passes()), (&[2, 3, 4, 2, 3, 4, 2, 3, 4][..], passes));
    }
}

#[test]
fn nothing_is_written_where_no_text_can_be() {
    let model = Scripted::new(MASK, from_digest(TEXTS.len()));
    for rule in [Rule::FirstHitting, Rule::Threshold { threshold: 0.9 }] {
        let mut sampler = sampler_for(&model, &constrained(options(64, 60, rule), "a|b|c"), &[8], 3).unwrap();
        run(&model, &mut sampler, Quiet).unwrap();
        assert_eq!((sampler.new_ids().len(), sampler.reason()), (1, Some(Reason::Eos)));
        assert!(sampler.passes() <= 2, "{}", sampler.passes());
    }
}

/// Tokens may be written behind an end before the end itself: what is left of the block is then given up, and the text must still end.
#[test]
fn what_is_given_up_has_ended_before() {
    let model = Scripted::new(MASK, from_digest(TEXTS.len()));
    let mut given_up = 0;
    for (seed, pattern) in (0..400).flat_map(|seed| PATTERNS.iter().map(move |pattern| (seed, pattern))) {
        let (block, max_new) = ([16, 32][seed as usize % 2], 8 + seed as usize % 40);
        let options = constrained(options(block, max_new, Rule::FirstHitting), pattern);
        let Some(mut sampler) = sampler_for(&model, &options, &[8], seed) else { continue };
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let (written, _) = text(sampler.new_ids()).expect("text alone");
        assert!(whole(pattern).is_match(&written), "{written} {pattern} {seed}");
        assert_eq!(rebuild(&events), sampler.ids());
        given_up += usize::from(sampler.passes() < max_new as u64);
    }
    assert!(given_up > 100, "{given_up}");
}

#[test]
fn a_model_that_does_not_tell_of_classes_is_an_error() {
    let model = Scripted::new(MASK, round_numbers);
    let mut sampler = sampler_for(&model, &constrained(options(4, 8, Rule::FirstHitting), "a*"), &[8], 1).unwrap();
    let error = run(&model, &mut sampler, Quiet).unwrap_err().to_string();
    assert!(error.contains("classes of tokens") && error.contains("found 0"), "{error}");
}

#[test]
fn what_would_take_long_is_refused_at_once() {
    let letters: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let start = Instant::now();
    // A chain is no trouble, however long; a machine that remembers much is.
    assert_eq!(Constraint::over("a{20000}", &letters, 0).unwrap().least(), 20_000);
    for (pattern, words) in [
        ("[ -~]*[aeiou][ -~]{16}", "states"),
        ("(?:[ab]*a[ab]{12}){2}", "regex: expected "),
        ("(?:.{1000}){1000}", "regex: expected "),
    ] {
        let error = Constraint::over(pattern, &letters, 0).unwrap_err().to_string();
        assert!(error.contains(words) && error.len() < 300, "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let model = Scripted::new(MASK, from_digest(256));
    let many = Constraint::over("[ -~]*[aeiou][ -~]{11}", &letters, 1).unwrap();
    let stop = Stop { eos: Some(1), low_entropy: None };
    let of = |block| SampleOptions { stop, constraint: Some(many.clone()), ..options(block, 2048, Rule::FirstHitting) };
    assert!(sampler_for(&model, &of(4), &[8], 1).is_some() && sampler_for(&model, &of(2048), &[8], 1).is_none());
}

#[test]
fn what_a_constraint_cannot_do_is_refused() {
    let model = Scripted::new(MASK, from_digest(TEXTS.len()));
    let plain = constrained(options(4, 8, Rule::FirstHitting), "(a|b){3}c{9}");
    let told = |options: SampleOptions, prompt: &[u32]| {
        Sampler::new(options, prompt, MASK, |size| model.cache(size), Rng::new(1)).err().map(|error| error.to_string())
    };
    let error = told(plain.clone(), &[8]).unwrap();
    assert_eq!(
        error,
        "new tokens: expected at least 11, the tokens of the shortest text that the constraint allows, found 8"
    );
    let error = told(SampleOptions { max_new: 11, ..plain.clone() }, &[8, MASK]).unwrap();
    assert_eq!(error, "constraint: expected a text that is continued, found one with gaps");
    let error = told(SampleOptions { max_new: 11, stop: Stop::default(), ..plain.clone() }, &[8]).unwrap();
    assert_eq!(error, "end of text: expected id 1, as in the constraint, found none");
    assert_eq!(told(SampleOptions { max_new: 11, ..plain }, &[8]), None);
    let error = Constraint::over("d+", &vocabulary(), EOS).unwrap_err().to_string();
    assert_eq!(error, "regex: expected an expression that a text of this vocabulary matches, found `d+`");
}
