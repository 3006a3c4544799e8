use super::*;

fn proposal(row: usize, prob: f64) -> Proposal {
    Proposal {
        row,
        token: 1,
        raw_prob: prob,
        prob: 1.0,
        entropy: 1.0 - prob,
        runner_up: (2, 0.0),
        standing: 0.0,
        alternatives: vec![(1, prob)],
        classes: Vec::new(),
    }
}

fn proposals(probs: &[f64]) -> Vec<Proposal> {
    probs.iter().enumerate().map(|(row, &prob)| proposal(row, prob)).collect()
}

fn rows(accepted: &[Accepted]) -> Vec<usize> {
    accepted.iter().map(|accepted| accepted.row).collect()
}

/// The smallest knobs that a rule of this name can do with.
fn knobs(name: &str) -> Knobs {
    let takes = |rules: &[&str]| rules.contains(&name);
    let counts = ["ancestral", "random", "left-to-right", "confidence", "margin", "entropy", "dynamic"];
    let bars = ["threshold", "dynamic", "klass", "hierarchy", "credit"];
    Knobs {
        steps: takes(&counts).then_some(4),
        threshold: takes(&bars).then_some(0.9),
        factor: takes(&["factor"]).then_some(1.0),
        bound: takes(&["entropy-bound"]).then_some(0.1),
        ..Knobs::default()
    }
}

#[test]
fn a_rule_takes_its_own_knobs_and_no_others() {
    for name in Rule::NAMES {
        let good = knobs(name);
        let rule = Rule::named(name, good).unwrap();
        assert_eq!(rule.name(), name);
        assert!(Rule::about(name).is_some());
        for (key, one_off) in [
            ("steps", Knobs { steps: if good.steps.is_none() { Some(4) } else { None }, ..good }),
            ("threshold", Knobs { threshold: if good.threshold.is_none() { Some(0.5) } else { None }, ..good }),
            ("factor", Knobs { factor: if good.factor.is_none() { Some(1.0) } else { None }, ..good }),
            ("bound", Knobs { bound: if good.bound.is_none() { Some(1.0) } else { None }, ..good }),
        ] {
            let error = Rule::named(name, one_off).unwrap_err().to_string();
            assert!(error.starts_with(key), "{name}: {error}");
        }
    }
    let share = Knobs { share: Some(Split::Dream), ..knobs("confidence") };
    assert_eq!(Rule::named("confidence", share).unwrap(), Rule::Confidence { steps: 4, split: Split::Dream });
    Rule::quality().check().unwrap();
    Rule::fast().check().unwrap();
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for (name, bad, key) in [
        ("best", Knobs::default(), "rule"),
        ("ancestral", Knobs { steps: Some(0), ..Knobs::default() }, "steps"),
        ("threshold", Knobs { threshold: Some(1.5), ..Knobs::default() }, "threshold"),
        ("threshold", Knobs { threshold: Some(f64::NAN), ..Knobs::default() }, "threshold"),
        ("factor", Knobs { factor: Some(0.0), ..Knobs::default() }, "factor"),
        ("factor", Knobs { factor: Some(f64::INFINITY), ..Knobs::default() }, "factor"),
        ("entropy-bound", Knobs { bound: Some(-0.1), ..Knobs::default() }, "bound"),
        ("klass", Knobs { drift: Some(0.0), ..knobs("klass") }, "drift"),
        ("klass", Knobs { stable: Some(0), ..knobs("klass") }, "stable"),
        ("hierarchy", Knobs { low: Some(0.95), ..knobs("hierarchy") }, "low"),
        ("confidence", Knobs { low: Some(0.5), ..knobs("confidence") }, "low"),
    ] {
        let error = Rule::named(name, bad).unwrap_err().to_string();
        assert!(error.starts_with(key), "{name}: {error}");
    }
    assert!(Split::named("odd").unwrap_err().to_string().starts_with("share"));
    for name in Split::NAMES {
        Split::named(name).unwrap();
    }
}

#[test]
fn splits_add_up_to_the_block() {
    for split in [Split::Even, Split::Block, Split::Linear, Split::Dream] {
        for masks in 1..20 {
            for steps in 1..25 {
                let mut clock = Clock::new(masks).of_block(20);
                let (mut left, mut passes) = (masks, 0);
                while left > 0 {
                    let count = clock.count(split, steps, left);
                    assert!((1..=left).contains(&count));
                    left -= count;
                    passes += 1;
                }
                assert!(passes <= steps.min(masks), "{split:?}: {masks} masks in {steps} steps took {passes}");
            }
        }
    }
}

#[test]
fn every_masked_row_has_its_share_of_the_uniform() {
    let rows = |uniforms: &[f64]| uniforms.iter().map(|&u| first_hitting(&[1, 4, 6], u)).collect::<Vec<_>>();
    assert_eq!(rows(&[0.0, 0.33, 0.34, 0.66, 0.67, 1.0 - f64::EPSILON / 2.0]), [1, 1, 4, 4, 6, 6]);
}

#[test]
fn every_subset_of_random_rows_is_as_likely() {
    let mut rng = Rng::new(3);
    let mut counts = std::collections::BTreeMap::<Vec<usize>, usize>::new();
    for _ in 0..6000 {
        *counts.entry(random(&[1, 3, 5, 9], 2, |n| rng.below(n))).or_default() += 1;
    }
    assert_eq!(counts.len(), 6);
    assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
}

#[test]
fn the_lower_row_wins_among_equals() {
    assert_eq!(confidence(&proposals(&[0.5, 0.9, 0.5, 0.9]), 3), [0, 1, 3]);
    assert_eq!(threshold(&proposals(&[0.5, 0.6, 0.6]), 0.7), [Accepted { row: 1, why: Why::Best }]);
    assert_eq!(rows(&threshold(&proposals(&[0.7, 0.6, 0.9]), 0.7)), [0, 2]);
}

#[test]
fn the_last_ancestral_step_leaves_no_mask() {
    let mut step = 3;
    assert_eq!(ancestral(&[0, 2], 4, &mut step, || 0.0), [0, 2]);
    let mut step = 0;
    assert_eq!(ancestral(&[0, 2], 4, &mut step, || 0.7), [0, 2]);
    assert_eq!(step, 2, "the first step would have kept both, and costs no pass");
}

#[test]
fn the_factor_rule_takes_what_its_bound_allows() {
    // (n + 1)(1 - p): 2 x 0.1 = 0.2, 3 x 0.2 = 0.6, 4 x 0.3 = 1.2.
    let all = proposals(&[0.8, 0.9, 0.7]);
    assert_eq!(rows(&factor(&all, 1.3)), [0, 1, 2]);
    assert_eq!(rows(&factor(&all, 1.0)), [0, 1]);
    assert_eq!(factor(&all, 0.1), [Accepted { row: 1, why: Why::Best }]);
}

#[test]
fn the_entropy_bound_counts_all_but_the_largest() {
    // Entropies 0.2, 0.1, 0.3.
    let all = proposals(&[0.8, 0.9, 0.7]);
    assert_eq!(entropy_bound(&all, 0.0), [1]);
    assert_eq!(entropy_bound(&all, 0.1), [0, 1]);
    assert_eq!(entropy_bound(&all, 0.31), [0, 1, 2]);
}

#[test]
fn a_gap_is_split_by_its_best_row() {
    // Two gaps: rows 0 to 2 and row 5.
    let all: Vec<Proposal> = [(0, 0.5), (1, 0.7), (2, 0.65), (5, 0.3)].map(|(row, prob)| proposal(row, prob)).into();
    assert_eq!(rows(&hierarchy(&all, 0.9, 0.6)), [1]);
    assert_eq!(rows(&hierarchy(&all, 0.9, 0.2)), [1, 5]);
    assert_eq!(rows(&hierarchy(&all, 0.6, 0.2)), [1, 2, 5]);
    assert_eq!(hierarchy(&all, 0.9, 0.8), [Accepted { row: 1, why: Why::Best }]);
}

#[test]
fn klass_waits_until_a_distribution_stands_still() {
    let rule = Rule::Klass { threshold: 0.8, drift: 0.01, stable: 2 };
    let mut clock = Clock::new(3);
    let pass = |clock: &mut Clock, probs: [f64; 2]| rule.accept(&proposals(&probs), clock);
    for probs in [[0.85, 0.9], [0.85, 0.7]] {
        assert_eq!(pass(&mut clock, probs)[0].why, Why::Best);
    }
    // Row 0 stood still twice, row 1 moved in between.
    assert_eq!(pass(&mut clock, [0.85, 0.9]), [Accepted { row: 0, why: Why::Rule }]);
}

#[test]
fn merging_tokens_never_adds_divergence() {
    let whole = |p: [f64; 3], q: [f64; 3]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    let (p, q) = ([0.6, 0.3, 0.1], [0.5, 0.2, 0.3]);
    let list = |p: [f64; 3], n| -> Vec<(u32, f64)> { (0..).zip(p).take(n).collect() };
    assert!((klass::divergence(&list(p, 3), &list(q, 3)) - whole(p, q)).abs() < 1e-5);
    assert!(klass::divergence(&list(p, 1), &list(q, 1)) < whole(p, q));
    assert_eq!(klass::divergence(&list(p, 2), &list(p, 2)), 0.0);
    assert_eq!(klass::divergence(&[(1, 1.0)], &[(2, 1.0)]), 0.0, "nothing in common is one class, which did not move");
    assert!(klass::divergence(&[(1, 0.5), (2, 0.5)], &[(1, 1.0)]) > 5.0, "half of it came from nowhere");
}

#[test]
fn credit_lets_a_token_pass_that_stays_on_top() {
    let rule = Rule::Credit { threshold: 0.8 };
    let mut clock = Clock::new(2);
    let all = proposals(&[0.95, 0.65]);
    let taken: Vec<usize> = (0..6).map(|_| rule.accept(&all, &mut clock).len()).collect();
    assert_eq!(taken[0], 1, "one pass earns too little");
    assert_eq!(taken[5], 2, "{taken:?}");
    let trusted = rule.score(&all[1], &clock);
    assert!(trusted > 0.8 && trusted < 1.0, "{trusted}");
    assert_eq!(rule.score(&all[1], &Clock::new(2)), 0.65, "no credit, no change");
}

#[test]
fn a_budget_shares_what_is_left() {
    let time = std::time::Duration::from_millis;
    assert_eq!([hurry(8, 4), hurry(9, 4), hurry(9, 1), hurry(9, 0), hurry(0, 3)], [2, 3, 9, 9, 0]);
    let passes = Budget { passes: Some(4), ms: None };
    assert_eq!([0, 3, 9].map(|done| passes.passes_left(done, time(0))), [Some(4), Some(1), Some(1)]);
    let both = Budget { passes: Some(40), ms: Some(100) };
    assert_eq!(both.passes_left(0, time(0)), Some(40), "nothing is known of the first pass");
    assert_eq!(both.passes_left(2, time(20)), Some(8));
    assert_eq!(both.passes_left(2, time(120)), Some(1));
    assert_eq!(Budget::default().passes_left(2, time(120)), None);
    assert!(Budget { passes: Some(0), ms: None }.check().is_err());
}

#[test]
fn hurry_takes_the_best_of_the_others() {
    let all = proposals(&[0.5, 0.9, 0.6, 0.2]);
    let hastened = hasten(threshold(&all, 0.8), &all, 3, |p| p.raw_prob);
    assert_eq!(rows(&hastened), [0, 1, 2]);
    assert_eq!(hastened.iter().map(|a| a.why).collect::<Vec<_>>(), [Why::Hurry, Why::Rule, Why::Hurry]);
    assert_eq!(rows(&hasten(threshold(&all, 0.8), &all, 1, |p| p.raw_prob)), [1]);
}

#[test]
fn rules_that_choose_before_the_pass_ask_for_more_in_a_hurry() {
    let masked = [0, 1, 2, 3];
    for (rule, first) in [
        (Rule::LeftToRight { steps: 4, split: Split::Even }, Some(vec![0, 1, 2])),
        (Rule::FirstHitting, None),
        (Rule::Threshold { threshold: 0.9 }, Some(vec![0, 1, 2, 3])),
    ] {
        let mut clock = Clock::new(4);
        let asked = rule.rows_at_least(&masked, 3, &mut clock, &mut Rng::new(1));
        assert!(first.is_none_or(|first| first == asked) && asked.len() >= 3 && asked.is_sorted());
        let accepted = rule.accept(&asked.iter().map(|&row| proposal(row, 0.5)).collect::<Vec<_>>(), &mut clock);
        let hurried = accepted.iter().filter(|a| a.why == Why::Hurry).count();
        assert_eq!(hurried, if matches!(rule, Rule::Threshold { .. }) { 0 } else { 2 });
    }
}
