//! Constraints: sums over all fillings of a block held to counting them one by one, and laws over random samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use bd3::constraint::{Constraint, Lattice, Slot, schema};
use bd3::event::Event;
use bd3::format::gguf::Gguf;
use bd3::pass::{Denoiser, Filter, Nucleus, Query, propose};
use bd3::rng::Rng;
use bd3::sample::{Rule, SampleOptions, Sampler, Stop, run};
use bd3::tokenizer::Tokenizer;
use regex::Regex;
use serde_json::json;

use crate::samples::{MASK, options};
use crate::scripted::Scripted;

pub const EOS: u32 = 1;
/// By id: mask, end of text, texts, and one special id.
pub const TEXTS: [&str; 9] = ["", "", "a", "b", "ab", "ba", "c", "aa", ""];
pub const PATTERNS: [&str; 8] =
    ["a*", "(ab)*c?", "a|b|c", "[ab]*c[ab]*", "(a|b){3}", "a(ba)*b?", "(abc|acb|bac)+", "[abc]*"];

pub fn vocabulary() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub fn constraint(pattern: &str) -> Constraint {
    Constraint::over(pattern, &vocabulary(), EOS).unwrap()
}

/// The text before the first end of text; `None` where a mask or a special id stands in it.
pub fn text(ids: &[u32]) -> Option<(String, bool)> {
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

pub fn whole(pattern: &str) -> Regex {
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

/// The texts that fillings of a block come to, up to their ends, with their probabilities by counting; and the ids that any of them has
/// in each row, which are all that a row is asked for. What stands behind an end counts for nothing.
fn counted(
    regex: &Regex,
    before: &[u32],
    block: &[u32],
    left: usize,
    probs: &[Vec<f64>],
) -> (BTreeMap<Vec<u32>, f64>, Vec<BTreeSet<u32>>) {
    let fitting = fillings(block).into_iter().filter(|filled| fits(regex, &[before, filled].concat(), left));
    let texts: BTreeSet<Vec<u32>> = fitting
        .map(|filled| {
            let end = filled.iter().position(|&id| id == EOS).map_or(filled.len(), |end| end + 1);
            filled[..end].to_vec()
        })
        .collect();
    let ids = |row: usize| texts.iter().filter_map(|text| text.get(row).copied()).collect();
    let allowed: Vec<BTreeSet<u32>> = (0..block.len()).map(ids).collect();
    let prob = |row: usize, id: u32| {
        let all: f64 = allowed[row].iter().map(|&id| probs[row][id as usize]).sum();
        if block[row] == MASK { probs[row][id as usize] / all } else { 1.0 }
    };
    let weigh = |text: Vec<u32>| {
        let weight: f64 = text.iter().enumerate().map(|(row, &id)| prob(row, id)).product();
        (text, weight)
    };
    let mut counted: BTreeMap<Vec<u32>, f64> = texts.iter().cloned().map(weigh).collect();
    let sum: f64 = counted.values().sum();
    counted.values_mut().for_each(|prob| *prob /= sum);
    (counted, allowed)
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
        let (counted, allowed) = counted(&regex, &before, &block, left, &probs);
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
            allowed[row].iter().for_each(|&id| weights[row][class(id) as usize] += probs[row][id as usize]);
            let all: f64 = weights[row].iter().sum();
            weights[row].iter_mut().for_each(|weight: &mut f64| *weight = (*weight / all).ln());
        }
        let sums = lattice.sum(&constraint, &weights);
        let marginals = lattice.marginals(&constraint, &sums, &[0, 1, 2]);
        for row in (0..rows).filter(|&row| block[row] == MASK) {
            let mut expected = vec![0.0; constraint.classes()];
            let standing = counted.iter().filter_map(|(text, prob)| Some((class(*text.get(row)?), prob)));
            standing.for_each(|(class, prob)| expected[class as usize] += prob);
            let allowed = lattice.allowed(&constraint, row);
            for (name, &expected) in expected.iter().enumerate() {
                assert!((marginals[row][name] - expected).abs() < 1e-12, "{pattern} {block:?} {row} {name}");
                assert_eq!(allowed[name], expected > 0.0, "{pattern} {block:?} {row} {name}");
            }
        }
    }
    assert!(ways > 30, "{ways}");
}

/// A block of masks, all of whose rows are taken in one pass.
fn draw(pattern: &str, rows: usize, filter: Filter, probs: &[Vec<f64>], seed: u64) -> (Vec<u32>, Vec<f32>) {
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
    let edits =
        events.iter().flat_map(|event| if let Event::Edited { edits, .. } = event { edits.clone() } else { vec![] });
    let mut edits: Vec<_> = edits.collect();
    edits.sort_by_key(|edit| edit.position);
    (edits.iter().map(|edit| edit.new).collect(), edits.iter().map(|edit| edit.prob).collect())
}

#[test]
fn blocks_are_drawn_as_often_as_counting_says() {
    const DRAWS: usize = 4000;
    let cold = Filter { temperature: 0.6, nucleus: Nucleus::Off };
    for (pattern, rows, seed, filter) in [
        ("[ab]*c[ab]*", 3, 5, Filter::NONE),
        ("(abc|acb|bac)+", 3, 2, Filter::NONE),
        ("(ab)*c?", 2, 3, Filter::NONE),
        ("a|b|c", 1, 4, Filter::NONE),
        ("[ab]*c[ab]*", 3, 5, cold),
        ("(ab)*c?", 2, 3, cold),
    ] {
        let probs = distributions(rows, seed);
        let (told_by, _) = counted(&whole(pattern), &[], &vec![MASK; rows], 0, &probs);
        let tempered = |row: &Vec<f64>| row.iter().map(|prob| prob.powf(1.0 / filter.temperature)).collect();
        let tempered: Vec<Vec<f64>> = probs.iter().map(tempered).collect();
        let (expected, _) = counted(&whole(pattern), &[], &vec![MASK; rows], 0, &tempered);
        let mut found: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        for draw_seed in 0..DRAWS as u64 {
            let (mut ids, told) = draw(pattern, rows, filter, &probs, draw_seed);
            ids.truncate(ids.iter().position(|&id| id == EOS).map_or(rows, |end| end + 1));
            for row in 0..ids.len() {
                let same = |text: &Vec<u32>| text.get(row) == Some(&ids[row]);
                let marginal: f64 = told_by.iter().filter(|(text, _)| same(text)).map(|(_, p)| p).sum();
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
        let (texts, allowed) = counted(&whole(pattern), &[], &vec![MASK; rows], 0, &probs);
        // Each token beside the best one that could stand in its row.
        let best = |row: usize| allowed[row].iter().map(|&id| probs[row][id as usize]).fold(0.0, f64::max);
        let score = |text: &[u32]| -> f64 {
            text.iter().enumerate().map(|(row, &id)| (probs[row][id as usize] / best(row)).ln()).sum()
        };
        let Some(most) = texts.keys().map(|text| score(text)).max_by(f64::total_cmp) else { continue };
        // Temperatures close to 0 come close to it.
        for temperature in [0.0, 1e-4, 1e-6, 1e-300] {
            let filter = Filter { temperature, nucleus: Nucleus::Off };
            let (mut ids, _) = draw(pattern, rows, filter, &probs, case);
            ids.truncate(ids.iter().position(|&id| id == EOS).map_or(rows, |end| end + 1));
            assert!(score(&ids) > most - 1e-3, "{pattern}, {temperature}: {ids:?} {} of {most}", score(&ids));
        }
    }
}

#[test]
fn a_nucleus_gives_way_only_where_nothing_else_fits() {
    // `c` has a thousandth of the probability, and stands outside the nucleus of both rows.
    let probs: Vec<f64> = vec![0.0, 1e-4, 0.5, 0.3, 1e-4, 1e-4, 1e-3, 0.198, 1e-4];
    let filter = Filter { temperature: 1.0, nucleus: Nucleus::Usual(0.9) };
    for seed in 0..200 {
        let (ids, _) = draw("[ab]c|[ab]{2}", 2, filter, &[probs.clone(), probs.clone()], seed);
        assert!(ids.iter().all(|&id| id == 2 || id == 3), "{ids:?}");
        let (ids, _) = draw("[ab]c", 2, filter, &[probs.clone(), probs.clone()], seed);
        assert!(matches!(ids[..], [2 | 3, 6]), "{ids:?}");
        // However improbable a long text is, one that keeps to the nucleus goes before one token that does not.
        let first = vec![0.0, 1e-9, 0.02, 1e-9, 1e-9, 1e-9, 0.98, 1e-9, 1e-9];
        let rest = vec![0.0, 1e-9, 0.11, 0.49, 1e-9, 1e-9, 0.4, 1e-9, 1e-9];
        let rows: Vec<Vec<f64>> = std::iter::once(first).chain(vec![rest; 15]).collect();
        let (ids, _) = draw("ab{15}|ca{15}", 16, filter, &rows, seed);
        assert_eq!(ids, [&[6][..], &[2; 15]].concat());
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
        (
            "a string of 1000 characters",
            schema::pattern(&json!({ "type": "string", "maxLength": 1000 })).unwrap(),
            20_000,
            400,
        ),
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
