//! What one client may take from the others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Server;

const RACE: &str = "/bd3/race";
const COMPLETIONS: &str = "/v1/completions";

#[test]
fn races_wait_for_each_other_and_hold_up_nobody() {
    let server = Server::start(&[]);
    let race = json!({ "prompt": "Once", "max_tokens": 100, "blocks": [1, 4, 8, 32, 256] });
    let statuses: Vec<u16> = thread::scope(|scope| {
        let races: Vec<_> = (0..16).map(|_| scope.spawn(|| server.post(RACE, &race).status)).collect();
        // Beside them a text is written as always.
        for _ in 0..3 {
            server.complete(&json!({ "prompt": "Once upon a time", "max_tokens": 10 }));
        }
        races.into_iter().map(|race| race.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|&&found| found == status).count();
    assert!(of(200) >= 1 && of(429) >= 8 && of(200) + of(429) == 16, "{statuses:?}");
    assert!(server.is_well());
}

#[test]
fn a_race_keeps_to_the_time_limit_and_to_memory() {
    let server = Server::start(&["--time-limit", "1"]);
    let race = json!({ "prompt": "Once", "max_tokens": 4096, "blocks": [256], "seed": 1 });
    let begun = Instant::now();
    let chunks = server.chunks(RACE, &race);
    assert!(begun.elapsed() < Duration::from_secs(8));
    let last = chunks.last().unwrap()["trace"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["event"], &last["reason"]), (&json!("finished"), &json!("interrupted")));
    let small = Server::start(&["--cache-mb", "1"]);
    small.refuses(RACE, &json!({ "prompt": "Once", "blocks": [1, 4, 8, 32, 256] }), 400, None);
    small.refuses(RACE, &json!({ "prompt": "Once", "n": 2 }), 400, Some("n"));
}

#[test]
fn a_race_and_a_text_beside_it_keep_to_memory() {
    let server = Server::start(&["--cache-mb", "1"]);
    // Either of them takes three quarters of it.
    let race = json!({ "max_tokens": 200, "blocks": [1], "seed": 1 });
    let text = json!({ "max_tokens": 200, "bd3": { "block": 1 }, "seed": 1 });
    let mut events = server.stream(RACE, &race);
    events.next().unwrap();
    let most = thread::scope(|scope| {
        let text = scope.spawn(|| server.complete(&text));
        let mut most = 0.0f64;
        while !text.is_finished() {
            most = most.max(server.metric("bd3_cache_bytes"));
        }
        text.join().unwrap();
        most
    });
    assert!(most > 0.0 && most <= f64::from(1 << 20), "{most} bytes");
    assert_eq!(events.last().as_deref(), Some("[DONE]"));
}

#[test]
fn a_stream_of_small_texts_holds_up_no_race() {
    let server = Server::start(&["--cache-mb", "1"]);
    let (over, texts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let lengths = [31, 34, 37, 39, 40, 41];
    thread::scope(|scope| {
        for max_tokens in lengths {
            let (server, over, texts) = (&server, &over, &texts);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    server.complete(&json!({ "max_tokens": max_tokens, "bd3": { "block": 1 } }));
                    texts.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        server.wait_for("bd3_lanes", lengths.len() as f64);
        let before = texts.load(Ordering::Relaxed);
        // It fits beside none of them: those that came before it come to their end, and no more.
        let mut events = server.stream(RACE, &json!({ "max_tokens": 240, "blocks": [4] }));
        events.next().unwrap();
        let meanwhile = texts.load(Ordering::Relaxed) - before;
        over.store(true, Ordering::Relaxed);
        assert_eq!(events.last().as_deref(), Some("[DONE]"));
        assert!(meanwhile <= 2 * lengths.len(), "{meanwhile} texts came first");
    });
}

/// To score a prompt takes all of it at once, which a text that goes on from it does not.
#[test]
fn a_prompt_that_could_never_be_scored_is_refused() {
    let server = Server::start(&["--cache-mb", "2", "--time-limit", "6"]);
    let body = json!({ "prompt": "the cat sat ".repeat(1000), "max_tokens": 0, "echo": true, "logprobs": 0 });
    let told = server.refuses(COMPLETIONS, &body, 400, None);
    assert!(told.contains("memory"), "{told}");
    server.complete(&json!({ "prompt": "the cat sat ".repeat(1000), "max_tokens": 4 }));
}

#[test]
fn prompts_that_are_scored_and_a_text_do_not_wait_for_each_other() {
    // Either takes three quarters of the memory and more, and one text fills the queue.
    let server = Server::start(&["--cache-mb", "1", "--queue", "1", "--time-limit", "30"]);
    let prompts: Vec<String> = (0..60).map(|number| format!("{number} dogs and a cat ran home. ").repeat(20)).collect();
    let scored = json!({ "prompt": prompts, "max_tokens": 0, "echo": true, "logprobs": 0 });
    let text = json!({ "max_tokens": 200, "bd3": { "block": 1 }, "seed": 1 });
    thread::scope(|scope| {
        let scored = scope.spawn(|| server.complete(&scored));
        while server.metric("bd3_cache_bytes") == 0.0 && !scored.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let text = scope.spawn(|| server.complete(&text));
        server.wait_for("bd3_waiting", 1.0);
        assert!(!scored.is_finished());
        // Nobody else is let in.
        let busy = server.post(COMPLETIONS, &json!({ "max_tokens": 0, "echo": true, "logprobs": 0 }));
        assert_eq!((busy.status, &busy.error()["code"]), (429, &json!("queue_full")));
        assert!(text.join().unwrap()["usage"]["completion_tokens"].as_u64().unwrap() > 0);
        assert_eq!(scored.join().unwrap()["choices"].as_array().unwrap().len(), 60);
    });
}

#[test]
fn noise_is_made_for_one_at_a_time() {
    let server = Server::start(&[]);
    let noise = json!({ "text": "Once upon a time there was a little dog. ".repeat(20), "levels": 40, "seed": 1 });
    let statuses: Vec<u16> = thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(|| server.post("/bd3/noise", &noise).status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let of = |status: u16| statuses.iter().filter(|&&found| found == status).count();
    assert!(of(200) >= 5 && of(429) >= 1 && of(200) + of(429) == 16, "{statuses:?}");
    assert!(server.is_well());
}

#[test]
fn an_answer_in_one_piece_has_bounds_that_a_stream_has_not() {
    let server = Server::shared();
    let long = json!({ "prompt": "x", "n": 32, "max_tokens": 2048, "bd3": { "events": true, "alternatives": 20 } });
    let told = server.refuses("/v1/completions", &long, 400, None);
    assert!(told.contains("2730") && told.contains("stream"), "{told}");
    let short = json!({ "prompt": "x", "n": 2, "max_tokens": 4, "bd3": { "events": true, "alternatives": 20 } });
    server.complete(&short);
}

#[test]
fn a_curve_that_fails_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--curve", dir.path().to_str().unwrap(), "--curve-flags", "--judge nowhere"];
    let server = Server::start(&flags);
    server.chunks("/bd3/curve", &json!({}));
    for _ in 0..2 {
        let stands = server.get("/bd3/curve").json();
        assert_eq!(stands["state"], "failed");
        assert!(stands["message"].as_str().unwrap().contains("nowhere"), "{stands}");
    }
}

#[test]
fn a_curve_that_is_there_is_measured_again() {
    let dir = tempfile::tempdir().unwrap();
    let curve_flags = "--block 1 --rule first-hitting --samples 2 -n 8";
    let server = Server::start(&["--curve", dir.path().to_str().unwrap(), "--curve-flags", curve_flags]);
    let record = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let measure = || {
        let last = server.chunks("/bd3/curve", &json!({})).pop().unwrap();
        assert_eq!((&last["state"], &last["done"], &last["of"]), (&json!("done"), &json!(4), &json!(4)), "{last}");
        record("points.jsonl")
    };
    let first = measure();
    let second = measure();
    assert_eq!((record("points.old.jsonl"), second == first), (first, false));
    // One that was stopped goes on.
    let begun: String = second.split_inclusive('\n').take(2).collect();
    std::fs::write(dir.path().join("points.jsonl"), &begun).unwrap();
    assert!(measure().starts_with(&begun));
}
