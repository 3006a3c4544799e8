//! Each rule and each revision as a picture: a block as text, `_` for a mask, after every pass.

use bd3::event::{EditKind, Why};
use bd3::pass::Proposal;
use bd3::rng::Rng;
use bd3::sample::OpenBlock;
use bd3::sample::revise::Change;
use bd3::sample::revise::corrector::unlikely;
use bd3::sample::revise::edit::{Editing, Seen, edits};
use bd3::sample::revise::indel::{Indel, Outcome, State, apply};
use bd3::sample::revise::remdm::{Phase, Row, Spread, Strength, remask};
use bd3::sample::revise::renoise::renoise;
use bd3::sample::rule::{Clock, Rule, Split, hasten, hurry};

const MASK: u32 = '_' as u32;
const DELETE: u32 = '<' as u32;
const SPLIT: u32 = '>' as u32;

fn ids(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

fn text(ids: &[u32]) -> String {
    ids.iter().map(|&id| char::from_u32(id).unwrap()).collect()
}

/// A proposal for each row: letters, and their probabilities in tenths.
fn proposals(letters: &str, tenths: &str) -> Vec<Proposal> {
    let proposal = |(row, (letter, digit)): (usize, (char, char))| {
        let prob = f64::from(digit.to_digit(10).unwrap()) / 10.0;
        Proposal {
            row,
            token: letter as u32,
            raw_prob: prob,
            prob,
            entropy: 1.0 - prob,
            runner_up: ('?' as u32, (1.0 - prob) / 2.0),
            standing: 0.0,
            alternatives: vec![(letter as u32, prob)],
            classes: Vec::new(),
        }
    };
    letters.chars().zip(tenths.chars()).enumerate().map(proposal).collect()
}

/// The block after every pass, with the same proposals for every pass.
fn passes(rule: Rule, letters: &str, tenths: &str, at_least: impl Fn(usize, usize) -> usize) -> Vec<String> {
    let all = proposals(letters, tenths);
    let mut block = vec![MASK; all.len()];
    let (mut clock, mut rng) = (Clock::new(block.len()), Rng::new(1));
    let mut pictures = Vec::new();
    while block.contains(&MASK) {
        let masked: Vec<usize> = (0..block.len()).filter(|&row| block[row] == MASK).collect();
        let least = at_least(masked.len(), pictures.len());
        let rows = rule.rows_at_least(&masked, least, &mut clock, &mut rng);
        let asked: Vec<Proposal> = rows.iter().map(|&row| all[row].clone()).collect();
        let accepted = rule.accept(&asked, &mut clock);
        for accepted in hasten(accepted, &asked, least, |p| rule.score(p, &clock)) {
            block[accepted.row] = all[accepted.row].token;
        }
        pictures.push(text(&block));
    }
    pictures
}

#[test]
fn every_rule_has_its_picture() {
    let split = Split::Even;
    let pictures: [(Rule, &[&str]); 14] = [
        (Rule::FirstHitting, &["_____p", "__t__p", "__t_up", "__tsup", "_atsup", "catsup"]),
        (Rule::Ancestral { steps: 3 }, &["c_tsup", "catsup"]),
        (Rule::Random { steps: 2, split }, &["c__s_p", "catsup"]),
        (Rule::LeftToRight { steps: 3, split }, &["ca____", "cats__", "catsup"]),
        (Rule::Confidence { steps: 3, split }, &["c_t___", "cat_u_", "catsup"]),
        (Rule::Margin { steps: 2, split }, &["c_t_u_", "catsup"]),
        // Half of six rows, a little less, truncated.
        (Rule::Entropy { steps: 2, split: Split::Dream }, &["c_t___", "catsup"]),
        (Rule::Threshold { threshold: 0.5 }, &["cat_u_", "catsu_", "catsup"]),
        (Rule::Dynamic { threshold: 0.5, steps: 2, split }, &["c_t_u_", "catsup"]),
        (Rule::Factor { factor: 1.0 }, &["c_t___", "c_t_u_", "cat_u_", "catsu_", "catsup"]),
        (Rule::EntropyBound { bound: 0.35 }, &["c_t_u_", "cat_u_", "catsu_", "catsup"]),
        (Rule::Klass { threshold: 0.5, drift: 0.1, stable: 2 }, &["c_____", "c_t___", "cat_u_", "catsu_", "catsup"]),
        (Rule::Hierarchy { threshold: 0.7, low: 0.2 }, &["c_t___", "cat_u_", "catsu_", "catsup"]),
        (Rule::Credit { threshold: 0.85 }, &["c_t___", "c_t_u_", "cat_u_", "catsu_", "catsup"]),
    ];
    for (rule, picture) in pictures {
        assert_eq!(passes(rule, "catsup", "958361", |_, _| 0), picture, "{}", rule.name());
    }
}

#[test]
fn a_budget_has_its_picture() {
    let within = |passes: usize| move |masked, done| hurry(masked, passes - done);
    let rule = Rule::Threshold { threshold: 0.85 };
    assert_eq!(passes(rule, "catsup", "958361", |_, _| 0).len(), 6);
    assert_eq!(passes(rule, "catsup", "958361", within(3)), ["c_t___", "cat_u_", "catsup"]);
    assert_eq!(passes(Rule::FirstHitting, "catsup", "958361", within(2)).len(), 2);
}

#[test]
fn edits_replace_what_has_become_less_likely() {
    let changes = edits(&ids("cets"), &proposals("cats", "9789"), 0.6);
    assert_eq!(changes.iter().map(|c| (c.row, c.token, c.why)).collect::<Vec<_>>(), [(1, 'a' as u32, Why::Better)]);
    for (threshold, passes, good) in
        [(0.9, 16, true), (0.0, 1, true), (1.0, 1, false), (f64::NAN, 1, false), (0.5, 0, false)]
    {
        assert_eq!(Editing { threshold, passes }.check().is_ok(), good);
    }
    assert!(edits(&ids("cets"), &proposals("cats", "9789"), 0.7).is_empty(), "the bar itself is not enough");
}

#[test]
fn a_block_that_goes_in_circles_is_recognised() {
    let (all, mut seen) = ([proposals("on", "99"), proposals("no", "99")], Seen::default());
    let mut block = ids("no");
    let mut turns = 0;
    while !seen.again(&block) {
        edits(&block, &all[turns % 2], 0.5).iter().for_each(|change| block[change.row] = change.token);
        turns += 1;
    }
    assert_eq!((turns, text(&block)), (2, "no".into()));
}

#[test]
fn schedules_take_tokens_back() {
    // Half is visible, and two thirds shall be: sigma is at most (1 - 2/3) / (1/2) = 2/3.
    let span = Phase::Always.span(3, 6);
    let (mask, sure, doubtful) = (Row::Mask, Row::Filled(0.9), Row::Filled(0.1));
    let rows = [Row::Given, sure, doubtful, mask, mask, sure];
    let picture = |how, uniforms: [f64; 6]| {
        let out = remask(&rows, span, how, &uniforms, MASK);
        let mut block = ids("catsup");
        rows.iter().zip(&mut block).filter(|(row, _)| **row == mask).for_each(|(_, id)| *id = MASK);
        out.fill.iter().for_each(|&row| block[row] = ids("catsup")[row]);
        out.changes.iter().for_each(|change| block[change.row] = change.token);
        text(&block)
    };
    let all = [0.0; 6];
    assert_eq!(picture((Strength::Cap(0.0), Spread::Even), all), "catsup");
    assert_eq!(picture((Strength::Cap(1.0), Spread::Even), all), "c__su_");
    assert_eq!(picture((Strength::Cap(0.1), Spread::Even), [0.0, 0.2, 0.05, 0.99, 0.42, 0.09]), "ca__u_");
    assert_eq!(picture((Strength::Rescale(0.5), Spread::Even), [0.5, 0.32, 0.34, 0.66, 0.67, 0.34]), "c_ts_p");
    // Doubt shares sigma by exp(-p): 0.24, 0.53 and 0.24 of 2/3.
    assert_eq!(picture((Strength::Cap(1.0), Spread::Doubt), [0.3, 0.3, 0.3, 0.3, 0.4, 0.3]), "ca_s_p");
    assert!(Strength::Cap(1.5).check().is_err() && Strength::Rescale(1.0).check().is_ok());
    assert!(Phase::Loop { on: 0.2, off: 0.5, visible: 0.5 }.check().is_err());
    assert!(Phase::Loop { on: 0.5, off: 0.2, visible: 1.0 }.check().is_err());
    let around = Phase::Loop { on: 0.6, off: 0.25, visible: 0.8 };
    let shares: Vec<f64> = (0..=10).map(|step| (around.span(step, 10).now * 100.0).round()).collect();
    assert_eq!(shares, [0.0, 20.0, 40.0, 60.0, 80.0, 80.0, 80.0, 80.0, 84.0, 92.0, 100.0]);
    let masks: Vec<usize> = (0..10).filter(|&step| around.span(step, 10).remask).collect();
    assert_eq!(masks, [4, 5, 6, 7]);
}

#[test]
fn a_block_loses_and_gains_rows() {
    let indel = Indel { mask: MASK, delete: DELETE, split: SPLIT, threshold: 0.5, edit: 0.3, passes: 2 };
    let mut block = ids("c____");
    let mut state = State::new(&block, MASK);
    let mut pass = |letters, tenths| {
        let outcome = indel.pass(&block, &proposals(letters, tenths), &mut state);
        let last = matches!(outcome, Outcome::Cleanup(_));
        if let Outcome::Goes(changes) | Outcome::Cleanup(changes) = outcome {
            changes.into_iter().for_each(|change| apply(&mut block, change, MASK));
        }
        text(&block) + if last { "!" } else { "" }
    };
    assert_eq!(pass("caats", "96666"), "caats");
    assert_eq!(pass("ca<ts", "99299"), "caats", "a deletion has to be asked for clearly");
    assert_eq!(pass("ca<ts", "99999"), "cats_");
    assert_eq!(pass("cats<", "99999"), "cats?!", "the last pass writes what may stay");
    let mut block = ids("ct___");
    let mut state = State::new(&block, MASK);
    let Outcome::Goes(changes) = indel.pass(&block, &proposals("ctsup", "99999"), &mut state) else { panic!() };
    changes.into_iter().for_each(|change| apply(&mut block, change, MASK));
    assert_eq!(text(&block), "ctsup");
    let Outcome::Goes(changes) = indel.pass(&block, &proposals("ct>up", "99999"), &mut state) else { panic!() };
    changes.into_iter().for_each(|change| apply(&mut block, change, MASK));
    assert_eq!(text(&block), "ct_su", "the last token fell off");
}

#[test]
fn what_is_not_accepted_becomes_noise() {
    let block = ids("qwerty");
    let changes = renoise(&block, &proposals("catsup", "958361"), 0.35, &ids("zxcvby"));
    let mut after = block.clone();
    changes.iter().for_each(|change| after[change.row] = change.token);
    assert_eq!(text(&after), "cxtvuy");
    assert_eq!(changes.len(), 5, "the last row is y before and after");
}

#[test]
fn what_is_unlikely_from_left_to_right_becomes_a_mask() {
    for (opened, full, tenths, after) in [
        ("______", "catsup", "915181", "c_t_u_"),
        ("ca____", "catsup", "115181", "cat_u_"),
        ("______", "catsup", "999999", "catsup"),
        ("___sup", "catsup", "222000", "___sup"),
    ] {
        let mut open_block = OpenBlock::new(8, ids(opened), MASK);
        for (row, &token) in ids(full).iter().enumerate().filter(|(row, _)| ids(opened)[*row] == MASK) {
            open_block.change(Change { row, kind: EditKind::Fill, token, why: Why::Rule }, 0.0).unwrap();
        }
        let read = proposals(&"?".repeat(6), tenths).into_iter();
        let read: Vec<Proposal> = read.map(|p| Proposal { standing: p.raw_prob, ..p }).collect();
        for change in unlikely(&open_block, &read, 0.5) {
            assert_eq!((change.kind, change.why), (EditKind::Remask, Why::Unlikely));
            open_block.change(change, 0.0).unwrap();
        }
        assert_eq!(text(open_block.ids()), after);
    }
}
