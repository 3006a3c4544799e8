//! Nobody's text depends on who else is there, nor on what was stored before.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use super::{Server, text_of};

const PATH: &str = "/v1/completions";

/// Sixteen that have nothing in common.
fn different() -> Vec<Value> {
    let long =
        "Once upon a time there was a little girl named Lily who loved to play with her dog in the park. ".repeat(3);
    let longer = long.repeat(4);
    let flags = [
        json!({ "block": 1 }),
        json!({ "block": 4, "rule": "threshold", "threshold": 0.8 }),
        json!({ "block": 8, "passes": 3 }),
        json!({ "block": 32, "rule": "entropy-bound", "bound": 0.7 }),
        json!({ "block": 256, "rule": "confidence", "steps": 12 }),
        json!({ "block": 4, "revise": "look-back", "revise_threshold": 0.2 }),
        json!({ "block": 4, "guidance": 1.5 }),
        json!({ "block": 8, "rule": "ancestral", "steps": 6, "revise": "remdm-cap" }),
    ];
    let prompts = ["Once upon a time", &long, "", &longer];
    let body = |index: usize| {
        let mut bd3 = flags[index % flags.len()].clone();
        bd3["alternatives"] = json!(index % 3);
        json!({
            "prompt": prompts[(index + index / 8) % 4], "max_tokens": 8 + 5 * (index % 7), "seed": 100 + index,
            "temperature": 0.5 + 0.1 * (index % 8) as f64, "top_p": 0.95, "logprobs": index % 4, "bd3": bd3,
        })
    };
    (0..16)
        .map(body)
        .map(|mut body| {
            // Guidance leads away from a text without a prompt.
            if body["bd3"]["guidance"].is_number() {
                body["prompt"] = json!("The big dog");
            }
            body
        })
        .collect()
}

/// The choices but for their passes: what is stored already need not be stored again.
fn choices(server: &Server, body: &Value) -> Value {
    let mut choices = server.complete(body)["choices"].clone();
    for choice in choices.as_array_mut().unwrap() {
        assert!(choice["bd3"].as_object_mut().unwrap().remove("passes").is_some());
    }
    choices
}

fn together(server: &Server, bodies: &[Value]) -> Vec<Value> {
    let start = Barrier::new(bodies.len());
    thread::scope(|scope| {
        let one = |body| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                choices(server, body)
            })
        };
        let threads: Vec<_> = bodies.iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn company_changes_no_bit_of_a_text() {
    let bodies = different();
    // Each alone on a server whose stored prefixes are of no use: what it held was written at another block size.
    let alone: Vec<Value> = {
        let server = Server::shared();
        bodies.iter().map(|body| choices(&server, body)).collect()
    };
    let server = Server::start(&["--lanes", "12"]);
    for round in 0..2 {
        for (index, (found, expected)) in together(&server, &bodies).iter().zip(&alone).enumerate() {
            assert_eq!(found, expected, "round {round}: {}", bodies[index]);
        }
    }
    assert!(server.metric("bd3_reused_ids_total") > 0.0);
    let (shared, each) = (server.metric("bd3_passes_total"), server.metric("bd3_sample_passes_total"));
    assert!(shared < 0.7 * each, "{shared} passes for {each}: nobody shared any");
}

#[test]
fn what_was_stored_before_changes_no_bit_of_a_text() {
    let long = "One day a boy named Tim went to the park with his mom and saw a big red ball under a tree. ".repeat(2);
    let body = |prompt: &str, block: usize| json!({ "prompt": prompt, "max_tokens": 24, "seed": 9, "logprobs": 2, "bd3": { "block": block } });
    for block in [1, 4, 32] {
        // Fresh: nothing is stored.
        let fresh = Server::start(&[]);
        let expected = choices(&fresh, &body(&format!("{long}Tim was very"), block));
        assert_eq!(fresh.metric("bd3_reused_ids_total"), 0.0);
        let used = Server::start(&[]);
        choices(&used, &body(&long, block));
        choices(&used, &body(&format!("{long}Then another"), block));
        assert_eq!(choices(&used, &body(&format!("{long}Tim was very"), block)), expected, "{block}");
        assert!(used.metric("bd3_reused_ids_total") > 20.0);
        // Behind its own text as well.
        let text = expected[0]["text"].as_str().unwrap();
        let longer = format!("{long}Tim was very{text}");
        assert_eq!(
            choices(&used, &body(&longer, block)),
            choices(&Server::start(&[]), &body(&longer, block)),
            "{block}"
        );
    }
}

#[test]
fn streams_side_by_side_do_not_mix() {
    let server = Server::shared();
    let bodies: Vec<Value> =
        (0..8).map(|seed| json!({ "prompt": "The", "max_tokens": 30, "seed": seed, "n": 2 })).collect();
    let texts = |body: &Value| {
        let chunks = server.chunks(PATH, body);
        assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
        [text_of(&chunks, 0), text_of(&chunks, 1)]
    };
    let alone: Vec<_> = bodies.iter().map(texts).collect();
    let side_by_side = thread::scope(|scope| {
        let threads: Vec<_> = bodies.iter().map(|body| scope.spawn(|| texts(body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(side_by_side, alone);
}
