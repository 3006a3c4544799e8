//! Schedules and acceptance of other families, as their code computes them.

use std::path::Path;

use bd3::pass::Proposal;
use bd3::sample::rule::{Split, entropy_bound};
use serde_json::Value;

use crate::oracle::golden::Golden;

use super::canvas::counts;

fn json(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/families/ops").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The rows settled per step by a split, step after step.
fn tokens(split: Split, (block, masks): (usize, usize), steps: usize) -> Vec<usize> {
    let mut left = masks;
    let share = |step| {
        let count = split.quota((block, masks, left), steps, step);
        left -= count;
        count
    };
    (0..steps).map(share).collect()
}

#[test]
fn splits_share_masks_as_the_families_do() {
    let schedules = json("schedules.json");
    for (key, split, of) in [
        ("llada_even_split", Split::Even, "masks"),
        ("sdar_llada2_block_schedule", Split::Block, "block"),
        ("dream_static", Split::Dream, "masks"),
    ] {
        let cases = schedules[key].as_array().unwrap();
        assert!(cases.len() > 3, "{key}");
        for case in cases {
            let (rows, steps) = (case[of].as_u64().unwrap() as usize, case["steps"].as_u64().unwrap() as usize);
            assert_eq!(tokens(split, (rows, rows), steps), counts(&case["tokens"]), "{key}: {rows} in {steps}");
        }
    }
    let table = json("dllm_linear_table.json");
    let table = table.as_object().unwrap();
    assert!(table.len() > 1000);
    for (key, recorded) in table {
        let (masks, steps) = key.split_once(',').unwrap();
        let (masks, steps) = (masks.parse().unwrap(), steps.parse().unwrap());
        let mut ours = tokens(Split::Linear, (masks, masks), steps);
        ours.retain(|&count| count > 0);
        assert_eq!(ours, counts(recorded), "{masks} masks in {steps} steps");
    }
}

#[test]
fn the_entropy_bound_accepts_what_diffusion_gemma_accepts() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/families/ops/ops.safetensors");
    let golden = Golden::read(&path).unwrap();
    let entropies = &golden.get("entropy_nats").unwrap().data;
    let proposal = |(row, &entropy): (usize, &f64)| Proposal {
        row,
        token: 1,
        raw_prob: 0.5,
        prob: 1.0,
        entropy,
        runner_up: (2, 0.0),
        standing: 0.0,
        alternatives: Vec::new(),
        classes: Vec::new(),
    };
    let proposals: Vec<Proposal> = entropies.iter().enumerate().map(proposal).collect();
    let mut checked = 0;
    for (key, accepted) in &golden.tensors {
        let Some(bound) = key.strip_prefix("entropy_bound_").and_then(|rest| rest.strip_suffix(".accepted")) else {
            continue;
        };
        let recorded: Vec<usize> = (0..accepted.data.len()).filter(|&row| accepted.data[row] != 0.0).collect();
        assert_eq!(entropy_bound(&proposals, bound.parse().unwrap()), recorded, "{key}");
        checked += 1;
    }
    assert!(checked > 2);
}
