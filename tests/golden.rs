//! Golden event streams: every rule and every revision on a scripted denoiser, so that no machine's last bits decide.
//! `BLESS=1 cargo test golden` writes the files anew.

use std::path::Path;

use bd3::event::Event;
use bd3::pass::{Proposal, Query};
use bd3::rng::Rng;
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::revise::edit::Editing;
use bd3::sample::revise::remdm::{Phase, Spread, Strength};
use bd3::sample::{Budget, LookBack, Revise, Rule, SampleOptions, Sampler, Split, run};

use crate::samples::{MASK, options};
use crate::scripted::{Scripted, digest, round_numbers};

/// Rules with knobs that show their character on a block of 4.
fn rules() -> Vec<Rule> {
    let split = Split::Even;
    let rules = vec![
        Rule::FirstHitting,
        Rule::Ancestral { steps: 3 },
        Rule::Random { steps: 2, split },
        Rule::LeftToRight { steps: 2, split },
        Rule::Confidence { steps: 2, split },
        Rule::Margin { steps: 2, split },
        Rule::Entropy { steps: 2, split },
        Rule::Threshold { threshold: 0.7 },
        Rule::Dynamic { threshold: 0.5, steps: 2, split },
        Rule::Factor { factor: 0.9 },
        Rule::EntropyBound { bound: 0.1 },
        Rule::Klass { threshold: 0.3, drift: 10.0, stable: 1 },
        Rule::Hierarchy { threshold: 0.8, low: 0.3 },
        Rule::Credit { threshold: 0.7 },
    ];
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    let mut all = Rule::NAMES.to_vec();
    names.sort_unstable();
    all.sort_unstable();
    assert_eq!(names, all, "every rule has a golden stream");
    rules
}

/// Revisions, each with a rule and a block size that show its character.
fn revisions() -> Vec<(&'static str, SampleOptions)> {
    let remdm = |strength, spread, phase| Revise::Remdm { strength, spread, phase };
    let cycle = Phase::Loop { on: 0.6, off: 0.2, visible: 0.7 };
    let look = |groups| Revise::LookBack(LookBack { window: 8, every: 4, threshold: 0.1, budget: 2, groups });
    let with = |block, rule, revise| SampleOptions { revise, ..options(block, 12, rule) };
    let ancestral = Rule::Ancestral { steps: 10 };
    vec![
        ("remask", with(4, Rule::FirstHitting, Revise::Remask { threshold: 0.3, rounds: 2 })),
        ("remdm-cap", with(8, ancestral, remdm(Strength::Cap(0.3), Spread::Even, Phase::Always))),
        ("remdm-rescale", with(8, ancestral, remdm(Strength::Rescale(0.3), Spread::Even, Phase::Always))),
        ("remdm-conf", with(8, ancestral, remdm(Strength::Rescale(1.0), Spread::Doubt, Phase::Always))),
        ("remdm-loop", with(8, ancestral, remdm(Strength::Cap(0.3), Spread::Even, cycle))),
        ("corrector", with(4, Rule::FirstHitting, Revise::Corrector(Corrector { threshold: 0.4, rounds: 2 }))),
        ("edit", with(4, Rule::FirstHitting, Revise::Edit(Editing { threshold: 0.7, passes: 3 }))),
        ("look-back", with(4, Rule::FirstHitting, look(0))),
        ("look-back-masked", with(4, Rule::FirstHitting, look(3))),
        (
            "budget",
            SampleOptions {
                budget: Budget { passes: Some(2), ms: None },
                alternatives: 2,
                ..options(4, 12, Rule::Threshold { threshold: 1.0 })
            },
        ),
    ]
}

#[test]
fn golden_event_streams() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let rules = rules().into_iter().map(|rule| (rule.name(), options(4, 9, rule)));
    for (name, options) in rules.chain(revisions()) {
        // A token that is read from left to right has a round probability too.
        let reads = matches!(options.revise, Revise::Corrector(_));
        let model = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
            let answer = round_numbers(seen, open, query)?;
            let standing = if reads { (digest(seen, &[query.standing], query.row) % 64) as f64 / 64.0 } else { 0.0 };
            Ok(Proposal { standing, ..answer })
        });
        let caches = |size| bd3::pass::Denoiser::cache(&model, size);
        let mut sampler = Sampler::new(options, &[9, 1, 2, 3, 4, 5], MASK, caches, Rng::new(7)).unwrap();
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let found: String = events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
        let path = dir.join(format!("{name}.jsonl"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(expected, found, "{}", path.display());
    }
}
