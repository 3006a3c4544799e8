//! A client that goes away takes its work with it.

use serde_json::{Value, json};

use super::Server;
use super::http::{Wire, request};

/// Work for long: a pass over 256 rows for each few tokens.
fn long(stream: bool) -> Value {
    json!({ "prompt": "Once", "max_tokens": 4000, "seed": 1, "temperature": 1.5, "stream": stream, "logit_bias": { "0": -100 }, "bd3": { "block": 256, "events": stream } })
}

fn ask(server: &Server, body: &Value) -> Wire {
    let wire = Wire::open(server.address);
    assert!(wire.send(&request("POST", "/v1/completions", &[], Some(body.to_string().as_bytes()))));
    wire
}

/// Nothing is under way, and no pass more is made.
fn rests(server: &Server, passes: f64) {
    server.wait_for("bd3_lanes", 0.0);
    let after = server.metric("bd3_passes_total");
    assert!(after - passes <= 12.0, "{} passes after its client had gone", after - passes);
    std::thread::sleep(std::time::Duration::from_millis(250));
    let later = server.metrics();
    assert_eq!((later["bd3_passes_total"], later["bd3_lanes"], later["bd3_waiting"]), (after, 0.0, 0.0));
    assert!(server.is_well());
}

#[test]
fn work_ends_when_its_client_leaves() {
    let server = Server::start(&[]);
    for stream in [true, false] {
        let mut wire = ask(&server, &long(stream));
        if stream {
            assert_eq!(wire.head().unwrap().status, 200);
            (0..3).for_each(|_| assert!(wire.piece().is_some()));
        }
        server.wait_for("bd3_lanes", 1.0);
        let passes = server.metric("bd3_passes_total");
        drop(wire);
        rests(&server, passes);
    }
    assert_eq!(server.metric("bd3_samples_total"), 2.0);
    // What the samples spent is counted though they were left.
    assert!(server.metric("bd3_sample_passes_total") >= 2.0);
}

#[test]
fn who_waits_may_leave_too() {
    let server = Server::start(&["--lanes", "1", "--queue", "3"]);
    let first = ask(&server, &long(true));
    server.wait_for("bd3_lanes", 1.0);
    let waiting: Vec<Wire> = (0..3).map(|index| ask(&server, &long(index == 1))).collect();
    server.wait_for("bd3_waiting", 3.0);
    // No more may wait: that is announced.
    let reply = server.post("/v1/completions", &long(false));
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")), "{}", reply.text());
    assert_eq!(reply.error()["code"], "queue_full");
    drop(waiting);
    server.wait_for("bd3_waiting", 0.0);
    assert_eq!(server.metric("bd3_lanes"), 1.0);
    drop(first);
    server.wait_for("bd3_lanes", 0.0);
    assert_eq!(server.complete(&json!({ "prompt": "Once", "max_tokens": 5 }))["usage"]["completion_tokens"], 5);
}

#[test]
fn a_race_that_waits_leaves_its_place() {
    let server = Server::start(&[]);
    let race = json!({ "max_tokens": 4000, "blocks": [256], "temperature": 1.5 });
    let mut first = server.stream("/bd3/race", &race);
    assert!(first.next().is_some());
    let waiting: Vec<_> = (0..4).map(|_| server.stream("/bd3/race", &race)).collect();
    server.refuses("/bd3/race", &race, 429, None);
    drop(waiting);
    let status = || {
        let mut wire = Wire::open(server.address);
        wire.send(&request("POST", "/bd3/race", &[], Some(race.to_string().as_bytes())));
        wire.head().unwrap().status
    };
    // The server hears that they left a moment later.
    let mut statuses = (0..400).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        status()
    });
    assert_eq!(statuses.find(|&status| status != 429), Some(200));
    assert!(first.next().is_some_and(|event| event != "[DONE]"));
}

#[test]
fn a_race_and_a_limit_of_time_end_too() {
    let server = Server::start(&["--time-limit", "1"]);
    let body = json!({ "prompt": "Once", "max_tokens": 4000, "blocks": [256], "temperature": 1.5 });
    let mut race = server.stream("/bd3/race", &body);
    assert!(race.next().is_some());
    drop(race);
    // A text that takes longer than the limit ends there, in order.
    let chunks = server.chunks("/v1/completions", &long(true));
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["choices"][0]["finish_reason"], &last["bd3"]["reason"]),
        (&json!("length"), &json!("interrupted"))
    );
    let whole = server.complete(&long(false));
    assert_eq!(whole["choices"][0]["bd3"]["reason"], "interrupted");
    assert!(whole["usage"]["seconds"].as_f64().unwrap() < 5.0);
    rests(&server, server.metric("bd3_passes_total"));
}
