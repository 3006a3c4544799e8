//! What holds for every rule and every revision, whatever the model proposes.

use std::time::Duration;

use bd3::event::EditKind;
use bd3::pass::Proposal;
use bd3::rng::Rng;
use bd3::sample::revise::edit::{Edited, Editing, edits};
use bd3::sample::revise::indel::{Indel, Outcome, State, apply};
use bd3::sample::revise::remdm::{Phase, Row, Span, Spread, Strength, remask};
use bd3::sample::revise::renoise::renoise;
use bd3::sample::rule::{Budget, Clock, Rule, Split, hasten, hurry};
use proptest::prelude::*;

const MASK: u32 = 0;
const DELETE: u32 = 1;
const SPLIT: u32 = 2;
const VOCAB: u32 = 9;

/// Probabilities with many ties and both ends.
fn prob(rng: &mut Rng) -> f64 {
    [0.0, 1.0, 0.5, 0.9, f64::MIN_POSITIVE, 1.0 - f64::EPSILON, rng.uniform(), rng.uniform()][rng.below(8)]
}

/// A proposal with a distribution over a few tokens; `lowest` is the smallest id.
fn proposal(row: usize, lowest: u32, rng: &mut Rng) -> Proposal {
    let mut tokens: Vec<u32> = (lowest..VOCAB).collect();
    rng.shuffle(&mut tokens);
    let mut left = 1.0;
    let mut alternatives: Vec<(u32, f64)> = Vec::new();
    for token in tokens {
        let share = left * prob(rng);
        left -= share;
        alternatives.push((token, share));
    }
    alternatives.sort_by(|a, b| b.1.total_cmp(&a.1));
    let drawn = alternatives[if rng.below(4) == 0 { rng.below(alternatives.len()) } else { 0 }];
    let runner_up = *alternatives.iter().find(|(id, _)| *id != drawn.0).unwrap();
    let entropy = alternatives.iter().filter(|(_, p)| *p > 0.0).map(|(_, p)| -p * p.ln()).sum::<f64>();
    Proposal {
        row,
        token: drawn.0,
        raw_prob: drawn.1,
        prob: drawn.1,
        entropy: entropy.max(0.0),
        runner_up,
        standing: prob(rng),
        alternatives,
        classes: Vec::new(),
    }
}

pub fn any_rule() -> impl Strategy<Value = Rule> {
    let share = || (1usize..9, prop::sample::select(vec![Split::Even, Split::Block, Split::Linear, Split::Dream]));
    let bar = || prop_oneof![Just(1.0), Just(0.5), 1e-9f64..1.0];
    prop_oneof![
        Just(Rule::FirstHitting),
        (1usize..9).prop_map(|steps| Rule::Ancestral { steps }),
        share().prop_map(|(steps, split)| Rule::Random { steps, split }),
        share().prop_map(|(steps, split)| Rule::LeftToRight { steps, split }),
        share().prop_map(|(steps, split)| Rule::Confidence { steps, split }),
        share().prop_map(|(steps, split)| Rule::Margin { steps, split }),
        share().prop_map(|(steps, split)| Rule::Entropy { steps, split }),
        bar().prop_map(|threshold| Rule::Threshold { threshold }),
        (bar(), share()).prop_map(|(threshold, (steps, split))| Rule::Dynamic { threshold, steps, split }),
        (1e-9f64..20.0).prop_map(|factor| Rule::Factor { factor }),
        prop_oneof![Just(0.0), 0.0f64..10.0].prop_map(|bound| Rule::EntropyBound { bound }),
        (bar(), 1e-9f64..1.0, 1usize..4).prop_map(|(threshold, drift, stable)| Rule::Klass {
            threshold,
            drift,
            stable
        }),
        (bar(), bar()).prop_map(|(a, b)| Rule::Hierarchy { threshold: a.max(b), low: a.min(b) }),
        bar().prop_map(|threshold| Rule::Credit { threshold }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn every_rule_settles_a_row_per_pass_and_keeps_its_budget(
        rule in any_rule(), block in 1usize..13, passes in prop::option::of(1usize..6), seed: u64,
    ) {
        rule.check().unwrap();
        let mut rng = Rng::new(seed);
        let budget = Budget { passes, ms: None };
        let mut masked: Vec<usize> = (0..block).filter(|_| rng.below(4) > 0).collect();
        let masks = masked.len();
        let mut clock = Clock::new(masks).of_block(block);
        let mut done = 0;
        while !masked.is_empty() {
            let least = budget.passes_left(done, Duration::ZERO).map_or(0, |left| hurry(masked.len(), left));
            let rows = rule.rows_at_least(&masked, least, &mut clock, &mut rng);
            prop_assert!(!rows.is_empty() && rows.is_sorted_by(|a, b| a < b));
            prop_assert!(rows.iter().all(|row| masked.contains(row)));
            let asked: Vec<Proposal> = rows.iter().map(|&row| proposal(row, 1, &mut rng)).collect();
            let accepted = hasten(rule.accept(&asked, &mut clock), &asked, least, |p| rule.score(p, &clock));
            prop_assert!(!accepted.is_empty() && accepted.is_sorted_by(|a, b| a.row < b.row));
            prop_assert!(accepted.iter().all(|accepted| rows.contains(&accepted.row)));
            masked.retain(|row| accepted.iter().all(|accepted| accepted.row != *row));
            done += 1;
        }
        prop_assert!(done <= masks);
        prop_assert!(passes.is_none_or(|passes| done <= passes), "{done} passes");
        prop_assert!(rule.steps().is_none_or(|steps| done <= steps), "{done} passes");
    }

    #[test]
    fn re_masking_keeps_the_share_of_masks_and_ends_without_any(
        eta in 0.0f64..1.0, doubt: bool, looped: bool, steps in 1usize..12, block in 1usize..9, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let strength = if eta < 0.5 { Strength::Cap(eta * 2.0) } else { Strength::Rescale(eta) };
        let spread = if doubt { Spread::Doubt } else { Spread::Even };
        let phase = if looped { Phase::Loop { on: 0.6, off: 0.2, visible: 0.9 } } else { Phase::Always };
        let mut rows = vec![Row::Mask; block];
        for step in 0..steps {
            let span = phase.span(step, steps);
            let sigma = span.sigma(strength);
            prop_assert!((0.0..=1.0).contains(&sigma));
            // The masks after the pass: those that stay, and tokens that are re-masked.
            let masks = (1.0 - span.now) * (1.0 - span.fill(sigma)) + span.now * sigma;
            prop_assert!((masks - (1.0 - span.then)).abs() < 1e-9, "{span:?} {sigma}");
            let uniforms: Vec<f64> = rows.iter().map(|_| rng.uniform()).collect();
            let out = remask(&rows, span, (strength, spread), &uniforms, MASK);
            for row in out.fill {
                prop_assert_eq!(rows[row], Row::Mask);
                rows[row] = Row::Filled(prob(&mut rng));
            }
            for change in out.changes {
                prop_assert!(matches!(rows[change.row], Row::Filled(_)) && change.kind == EditKind::Remask);
                rows[change.row] = Row::Mask;
            }
        }
        prop_assert!(!rows.contains(&Row::Mask));
        prop_assert_eq!(Span { now: 1.0, then: 1.0, remask: true }.most(), 0.0);
    }

    #[test]
    fn edits_end(block in 1usize..9, threshold in 0.0f64..1.0, passes in 1usize..6, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut ids: Vec<u32> = (0..block).map(|_| rng.below(VOCAB as usize) as u32).collect();
        let given = rng.below(block + 1);
        let before = ids.clone();
        let rule = Rule::Dynamic { threshold: threshold.max(1e-9), steps: block, split: Split::Even };
        let (mut clock, mut edited) = (Clock::new(block), Edited::default());
        let editing = Editing { threshold, passes };
        for done in 0.. {
            prop_assert!(done < block + passes);
            let all: Vec<Proposal> = (0..block).map(|row| proposal(row, 1, &mut rng)).collect();
            let (masks, known): (Vec<Proposal>, Vec<Proposal>) = all.into_iter().partition(|p| ids[p.row] == MASK);
            let known: Vec<Proposal> = known.into_iter().filter(|p| p.row >= given).collect();
            let changes = edits(&ids, &known, threshold);
            let accepted = if masks.is_empty() { Vec::new() } else { rule.accept(&masks, &mut clock) };
            for p in masks.iter().filter(|p| accepted.iter().any(|accepted| accepted.row == p.row)) {
                ids[p.row] = p.token;
            }
            for change in &changes {
                prop_assert!(change.row >= given && ids[change.row] != change.token);
                ids[change.row] = change.token;
            }
            if edited.done(masks.len(), changes.len(), editing) {
                break;
            }
        }
        prop_assert!(!ids.contains(&MASK));
        prop_assert!((0..given).all(|row| before[row] == MASK || ids[row] == before[row]));
    }

    #[test]
    fn insertions_and_deletions_end_in_a_clean_block(
        block in 1usize..9, threshold in 0.0f64..1.0, edit in 0.0f64..1.0, passes in 0usize..6, seed: u64,
    ) {
        let mut rng = Rng::new(seed);
        let indel = Indel { mask: MASK, delete: DELETE, split: SPLIT, threshold, edit, passes };
        let given = rng.below(block);
        let mut ids: Vec<u32> = (0..block).map(|row| if row < given { 3 + rng.below(6) as u32 } else { MASK }).collect();
        let before = ids.clone();
        let mut state = State::new(&ids, MASK);
        for done in 0.. {
            prop_assert!(done < block + passes + 2);
            let all: Vec<Proposal> = (0..block).map(|row| proposal(row, 0, &mut rng)).collect();
            let outcome = indel.pass(&ids, &all, &mut state);
            let last = !matches!(outcome, Outcome::Goes(_));
            if let Outcome::Goes(changes) | Outcome::Cleanup(changes) = outcome {
                changes.into_iter().for_each(|change| apply(&mut ids, change, MASK));
            }
            prop_assert_eq!(&ids[..given], &before[..given]);
            if last {
                break;
            }
        }
        prop_assert!(ids.iter().all(|id| ![MASK, DELETE, SPLIT].contains(id)), "{:?}", ids);
    }

    #[test]
    fn noise_and_draws_are_all_there_is(block in 1usize..9, bound in 0.0f64..5.0, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut any = || (0..block).map(|_| rng.below(VOCAB as usize) as u32).collect::<Vec<u32>>();
        let (before, noise) = (any(), any());
        let all: Vec<Proposal> = (0..block).map(|row| proposal(row, 0, &mut rng)).collect();
        let mut after = before.clone();
        for change in renoise(&before, &all, bound, &noise) {
            prop_assert!(after[change.row] != change.token);
            after[change.row] = change.token;
        }
        prop_assert!((0..block).all(|row| after[row] == all[row].token || after[row] == noise[row]));
        prop_assert!((0..block).any(|row| after[row] == all[row].token));
    }
}
