//! Constraints: sums over all fillings of a block held to counting them one by one, and laws over random samples.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use bd3::constraint::{Constraint, Lattice, Slot, schema};
use bd3::event::{Event, Quiet, Reason};
use bd3::format::gguf::Gguf;
use bd3::pass::{Denoiser, Filter, Nucleus, Query, propose};
use bd3::rng::Rng;
use bd3::sample::{Revise, Rule, SampleOptions, Sampler, Stop, run};
use bd3::tokenizer::Tokenizer;
use proptest::prelude::*;
use regex::Regex;
use serde_json::json;

use crate::rules::any_rule;
use crate::samples::{MASK, any_options, options, sampler_for};
use crate::scripted::{Scripted, from_digest};

const EOS: u32 = 1;
/// By id: mask, end of text, texts, and one special id.
const TEXTS: [&str; 9] = ["", "", "a", "b", "ab", "ba", "c", "aa", ""];
const PATTERNS: [&str; 8] =
    ["a*", "(ab)*c?", "a|b|c", "[ab]*c[ab]*", "(a|b){3}", "a(ba)*b?", "(abc|acb|bac)+", "[abc]*"];

fn vocabulary() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn constraint(pattern: &str) -> Constraint {
    Constraint::over(pattern, &vocabulary(), EOS).unwrap()
}

/// The text before the first end of text; `None` where a mask or a special id stands in it.
fn text(ids: &[u32]) -> Option<(String, bool)> {
    let end = ids.iter().position(|&id| id == EOS);
    let written = &ids[..end.unwrap_or(ids.len())];
    let is_text = written.iter().all(|&id| !TEXTS[id as usize].is_empty());
    is_text.then(|| (written.iter().map(|&id| TEXTS[id as usize]).collect(), end.is_some()))
}

/// Do ids, followed by at most `left` tokens, come to a text that matches? By trying all of them.
fn fits(regex: &Regex, ids: &[u32], left: usize) -> bool {
    let Some((written, ended)) = text(ids) else { return false };
    regex.is_match(&written)
        || !ended
            && left > 0
            && (2..TEXTS.len() as u32)
                .filter(|&id| !TEXTS[id as usize].is_empty())
                .any(|id| fits(regex, &[ids, &[id]].concat(), left - 1))
}

fn whole(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

/// All fillings of the masks among `ids`.
fn fillings(ids: &[u32]) -> Vec<Vec<u32>> {
    let Some(row) = ids.iter().position(|&id| id == MASK) else { return vec![ids.to_vec()] };
    let filled = (1..TEXTS.len() as u32).flat_map(|id| {
        let mut ids = ids.to_vec();
        ids[row] = id;
        fillings(&ids)
    });
    filled.collect()
}

/// Probabilities of ids by row, the mask having none.
fn distributions(rows: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = Rng::new(seed);
    let row = |_| {
        let weights: Vec<f64> =
            (0..TEXTS.len()).map(|id| if id == 0 { 0.0 } else { (2.0 * rng.normal()).exp() }).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    (0..rows).map(row).collect()
}

/// Whole texts with their probabilities, given that they fit, by counting.
fn counted(regex: &Regex, before: &[u32], block: &[u32], left: usize, probs: &[Vec<f64>]) -> BTreeMap<Vec<u32>, f64> {
    let mut counted = BTreeMap::new();
    for filled in fillings(block) {
        if fits(regex, &[before, &filled].concat(), left) {
            let drawn = filled.iter().enumerate().filter(|&(row, _)| block[row] == MASK);
            counted.insert(filled.clone(), drawn.map(|(row, &id)| probs[row][id as usize]).product());
        }
    }
    let sum: f64 = counted.values().sum();
    counted.values_mut().for_each(|prob| *prob /= sum);
    counted
}

#[test]
fn classes_say_of_tokens_what_the_expression_says() {
    for pattern in PATTERNS {
        let (constraint, regex) = (constraint(pattern), whole(pattern));
        assert!(constraint.classes() <= TEXTS.len() && constraint.class_of().len() == TEXTS.len());
        for ids in (0..4).flat_map(|rows| fillings(&vec![MASK; rows])) {
            let expected = text(&ids).is_some_and(|(written, _)| regex.is_match(&written));
            // What stands behind an end of text is free.
            assert_eq!(constraint.accepts(&ids), expected, "{pattern} {ids:?}");
        }
    }
    // Tokens that never matter are one class; so are those that always do the same.
    assert_eq!(constraint("[abc]*").classes(), 3);
}

#[test]
fn sums_over_a_block_are_those_of_counting() {
    let mut ways = 0;
    for (case, pattern) in (0..).zip(PATTERNS.iter().cycle().take(64)) {
        let (constraint, regex) = (constraint(pattern), whole(pattern));
        let mut rng = Rng::new(case);
        let (rows, left) = (1 + rng.below(3), rng.below(3));
        let probs = distributions(rows, case);
        let before: Vec<u32> = (0..rng.below(3)).map(|_| 2 + rng.below(6) as u32).collect();
        let block: Vec<u32> =
            (0..rows).map(|_| if rng.below(4) == 0 { 2 + rng.below(6) as u32 } else { MASK }).collect();
        let counted = counted(&regex, &before, &block, left, &probs);
        let class = |id: u32| constraint.class_of()[id as usize];
        let slot = |&id: &u32| if id == MASK { Slot::Open } else { Slot::Fixed(class(id)) };
        let Some(start) = constraint.follow(0, &before) else {
            assert!(counted.is_empty(), "{pattern} {before:?}");
            continue;
        };
        let lattice = Lattice::new(&constraint, start, block.iter().map(slot).collect(), left);
        assert_eq!(lattice.is_empty(), counted.is_empty(), "{pattern} {before:?} {block:?} {left}");
        if counted.is_empty() {
            continue;
        }
        ways += 1;
        let mut weights = vec![Vec::new(); rows];
        for row in (0..rows).filter(|&row| block[row] == MASK) {
            weights[row] = vec![0.0; constraint.classes()];
            (1..TEXTS.len()).for_each(|id| weights[row][class(id as u32) as usize] += probs[row][id]);
        }
        let sums = lattice.sum(&constraint, &weights);
        let marginals = lattice.marginals(&constraint, &sums, &[0, 1, 2]);
        for row in (0..rows).filter(|&row| block[row] == MASK) {
            let mut expected = vec![0.0; constraint.classes()];
            counted.iter().for_each(|(filled, prob)| expected[class(filled[row]) as usize] += prob);
            let allowed = lattice.allowed(&constraint, row);
            for (name, &expected) in expected.iter().enumerate() {
                assert!((marginals[row][name] - expected).abs() < 1e-12, "{pattern} {block:?} {row} {name}");
                assert_eq!(allowed[name], expected > 0.0, "{pattern} {block:?} {row} {name}");
            }
        }
    }
    assert!(ways > 30, "{ways}");
}

/// A block of masks behind `before`, all of whose rows are taken in one pass.
fn draw(
    pattern: &str,
    before: &[u32],
    rows: usize,
    filter: Filter,
    probs: &[Vec<f64>],
    seed: u64,
) -> (Vec<u32>, Vec<f32>) {
    let logits: Vec<Vec<f32>> = probs.iter().map(|row| row.iter().map(|p| p.ln() as f32).collect()).collect();
    let logits: Vec<Vec<f32>> = logits.into_iter().map(|row| row.iter().map(|x| x.max(-1e4)).collect()).collect();
    let model = Scripted::new(MASK, |_: &[u32], _: &[u32], query: &Query| propose(&logits[query.row], query));
    let stop = Stop { eos: Some(EOS), low_entropy: None };
    let options = SampleOptions {
        filter,
        stop,
        constraint: Some(constraint(pattern)),
        ..options(rows, rows, Rule::Ancestral { steps: 1 })
    };
    // The prompt takes whole blocks, so that the constrained text begins a block.
    let prompt = vec![8; rows];
    let mut sampler = Sampler::new(options, &prompt, MASK, |size| model.cache(size), Rng::new(seed)).unwrap();
    let mut events: Vec<Event> = Vec::new();
    run(&model, &mut sampler, &mut events).unwrap();
    assert!(before.is_empty());
    let edits =
        events.iter().flat_map(|event| if let Event::Edited { edits, .. } = event { edits.clone() } else { vec![] });
    let mut edits: Vec<_> = edits.collect();
    edits.sort_by_key(|edit| edit.position);
    (edits.iter().map(|edit| edit.new).collect(), edits.iter().map(|edit| edit.prob).collect())
}

#[test]
fn blocks_are_drawn_as_often_as_counting_says() {
    const DRAWS: usize = 4000;
    for (pattern, rows, seed) in [("[ab]*c[ab]*", 3, 5), ("(abc|acb|bac)+", 3, 2), ("(ab)*c?", 2, 3), ("a|b|c", 1, 4)] {
        let probs = distributions(rows, seed);
        let expected = counted(&whole(pattern), &[], &vec![MASK; rows], 0, &probs);
        let mut found: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        for draw_seed in 0..DRAWS as u64 {
            let (ids, told) = draw(pattern, &[], rows, Filter::NONE, &probs, draw_seed);
            for row in 0..rows {
                let marginal: f64 = expected.iter().filter(|(filled, _)| filled[row] == ids[row]).map(|(_, p)| p).sum();
                assert!((marginal - f64::from(told[row])).abs() < 1e-5, "{pattern}: {marginal} {}", told[row]);
            }
            *found.entry(ids).or_default() += 1;
        }
        let mut chi = 0.0;
        for (filled, prob) in &expected {
            let count = found.remove(filled).unwrap_or_default() as f64;
            let mean = prob * DRAWS as f64;
            chi += (count - mean).powi(2) / mean.max(1.0);
        }
        assert!(found.is_empty(), "{pattern}: {found:?}");
        let free = expected.len() as f64;
        assert!(chi < free + 5.0 * (2.0 * free).sqrt(), "{pattern}: {chi} for {free}");
    }
}

#[test]
fn greedy_blocks_are_the_most_probable_texts() {
    for (case, pattern) in (0..).zip(PATTERNS.iter().cycle().take(40)) {
        let rows = 1 + case as usize % 3;
        let probs = distributions(rows, case);
        let counted = counted(&whole(pattern), &[], &vec![MASK; rows], 0, &probs);
        let Some(most) = counted.values().copied().max_by(f64::total_cmp) else { continue };
        let (ids, _) = draw(pattern, &[], rows, Filter::GREEDY, &probs, case);
        assert!(counted[&ids] > most * (1.0 - 1e-5), "{pattern}: {ids:?} {} of {most}", counted[&ids]);
    }
}

#[test]
fn a_nucleus_gives_way_only_where_nothing_else_fits() {
    // `c` has a thousandth of the probability, and stands outside the nucleus of both rows.
    let probs: Vec<f64> = vec![0.0, 1e-4, 0.5, 0.3, 1e-4, 1e-4, 1e-3, 0.198, 1e-4];
    let filter = Filter { temperature: 1.0, nucleus: Nucleus::Usual(0.9) };
    for seed in 0..200 {
        let (ids, _) = draw("[ab]c|[ab]{2}", &[], 2, filter, &[probs.clone(), probs.clone()], seed);
        assert!(ids.iter().all(|&id| id == 2 || id == 3), "{ids:?}");
        let (ids, _) = draw("[ab]c", &[], 2, filter, &[probs.clone(), probs.clone()], seed);
        assert!(matches!(ids[..], [2 | 3, 6]), "{ids:?}");
    }
}

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
    }

    #[test]
    fn a_constraint_that_allows_everything_changes_no_greedy_text(
        rule in any_rule(),
        block in 1usize..7,
        max_new in 0usize..30,
        seed in any::<u64>(),
    ) {
        // Rules that draw rows use other random numbers beside a constraint.
        prop_assume!(!matches!(rule, Rule::FirstHitting | Rule::Ancestral { .. } | Rule::Random { .. }));
        // No id but the mask is without text here.
        let texts: Vec<Vec<u8>> = TEXTS.iter().map(|text| if text.is_empty() { "d" } else { text }.into()).collect();
        let any = Constraint::over("[abcd]*", &texts, EOS).unwrap();
        let stop = Stop { eos: Some(EOS), low_entropy: None };
        let options = SampleOptions { stop, filter: Filter::GREEDY, alternatives: 2, ..options(block, max_new, rule) };
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

/// Prints what docs/constraints.md tells: of the tokenizer of the model inside the binary, and of SmolLM2's where BD3_SMOLLM2 names it.
#[test]
fn many_tokens_are_few_classes() {
    let tiny = Tokenizer::load(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap();
    let smollm2 = std::env::var_os("BD3_SMOLLM2").map(|path| Gguf::open(Path::new(&path)).unwrap());
    let smollm2 = smollm2.map(|file| Tokenizer::from_gguf(&file).unwrap());
    let cat = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "kind": { "enum": ["cat", "dog", "fox"] },
            "friends": { "type": "array", "items": { "type": "string", "maxLength": 12 }, "maxItems": 3 },
        },
        "required": ["name", "age", "kind"],
    });
    for (name, pattern, states, classes) in [
        ("three words", "yes|no|maybe".to_string(), 20, 20),
        ("any text", "(?s).*".to_string(), 20, 20),
        ("the schema of a cat", schema::pattern(&cat).unwrap(), 2000, 400),
        ("any JSON object", schema::any_object(3), 2000, 200),
    ] {
        for tokenizer in [Some(&tiny), smollm2.as_ref()].into_iter().flatten() {
            let start = Instant::now();
            let made = Constraint::new(&pattern, tokenizer, tokenizer.special().eos.unwrap()).unwrap();
            let (tokens, ms) = (made.class_of().len(), start.elapsed().as_millis());
            println!("{name}: {tokens} tokens in {} classes, {} states, {ms} ms", made.classes(), made.states().len());
            assert!(made.states().len() < states && made.classes() < classes, "{name}");
        }
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
