//! Clients that dawdle, hang, or come in crowds: each is closed in its time, and the server lives on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Server;
use super::http::{Wire, request};

/// The server gives a head, and then a body, so many seconds.
const TIME: u64 = 15;

/// Sends one more byte each second until the server has had enough; what it said then.
fn drip(server: &Server, start: &[u8], drop: &[u8]) -> (Duration, String) {
    let wire = Wire::open(server.address);
    wire.send(start);
    let begun = Instant::now();
    let mut told = 0;
    while begun.elapsed() < Duration::from_secs(2 * TIME + 10) && told == 0 {
        std::thread::sleep(Duration::from_millis(500));
        wire.send(drop);
        told = wire.waiting();
    }
    (begun.elapsed(), String::from_utf8_lossy(&wire.rest()).into_owned())
}

#[test]
fn heads_and_bodies_that_drip_are_closed() {
    let server = Server::shared();
    let silent = Wire::open(server.address);
    let idle = {
        let mut idle = Wire::open(server.address);
        idle.send(&request("GET", "/health", &[], None));
        assert_eq!(idle.reply("GET").unwrap().status, 200);
        idle
    };
    let body = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n{";
    let (head, body) = std::thread::scope(|scope| {
        let head = scope.spawn(|| drip(&server, b"GET /health HTTP/1.1\r\nX-A: ", b"a"));
        let body = scope.spawn(|| drip(&server, body, b" "));
        (head.join().unwrap(), body.join().unwrap())
    });
    let time = Duration::from_secs(TIME - 2)..Duration::from_secs(2 * TIME);
    assert!(time.contains(&head.0), "a head was waited for {:?}", head.0);
    assert!(head.1.is_empty() || head.1.starts_with("HTTP/1.1 408"), "{}", head.1);
    assert!(time.contains(&body.0), "a body was waited for {:?}", body.0);
    assert!(body.1.starts_with("HTTP/1.1 408") && body.1.contains("\"timeout\""), "{}", body.1);
    // Who says nothing is closed too, before or after a first request.
    assert_eq!((silent.rest().len(), idle.rest().len()), (0, 0));
    assert!(server.is_well());
}

#[test]
fn half_open_connections_get_what_they_asked_for() {
    let server = Server::shared();
    let body = json!({ "prompt": "The", "max_tokens": 2, "seed": 1 }).to_string();
    // All of a request, half of one, none.
    let mut whole = Wire::open(server.address);
    whole.send(&request("GET", "/health", &["Connection: close"], None));
    whole.end();
    assert!(whole.reply("GET").is_none_or(|reply| reply.status == 200));
    let half = Wire::open(server.address);
    half.send(&request("POST", "/v1/completions", &[], Some(body.as_bytes()))[..100]);
    half.end();
    let rest = String::from_utf8(half.rest()).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400"), "{rest}");
    let none = Wire::open(server.address);
    none.end();
    assert_eq!(none.rest(), b"");
    assert!(server.is_well());
}

#[test]
fn a_crowd_is_let_in_as_far_as_there_are_seats() {
    // Few files for one of them, so that it runs out of them; more connections than it has seats for the other.
    let mut command = std::process::Command::new("sh");
    let serve = format!("ulimit -n 150; exec '{}' serve --port 0", env!("CARGO_BIN_EXE_bd3"));
    command.args(["-c", &serve]).stderr(std::process::Stdio::piped()).env_remove("BD3_API_KEY");
    for (server, size) in [(Server::of(command), 250), (Server::start(&[]), 1100)] {
        let crowd: Vec<Wire> = (0..size).map_while(|_| Wire::try_open(server.address).ok()).collect();
        assert!(crowd.len() > 200, "{}", crowd.len());
        crowd.iter().for_each(|wire| {
            wire.send(b"GET /hea");
        });
        #[cfg(target_os = "linux")]
        assert!(server.busy(Duration::from_millis(500)) < 0.5, "the server does not rest");
        drop(crowd);
        let start = Instant::now();
        let mut well = false;
        while !well && start.elapsed() < Duration::from_secs(10) {
            let mut wire = Wire::open(server.address);
            wire.send(&request("GET", "/health", &[], None));
            well = wire.reply("GET").is_some_and(|reply| reply.status == 200);
        }
        assert!(well);
        server.complete(&json!({ "prompt": "The", "max_tokens": 2 }));
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::shared();
    let mut wire = Wire::open(server.address);
    let bodies: Vec<String> =
        (0..5).map(|seed| json!({ "prompt": "The", "max_tokens": 4, "seed": seed }).to_string()).collect();
    let mut all: Vec<u8> =
        bodies.iter().flat_map(|body| request("POST", "/v1/completions", &[], Some(body.as_bytes()))).collect();
    all.extend(request("GET", "/nowhere", &[], None));
    all.extend(request("GET", "/health", &["Connection: close"], None));
    wire.send(&all);
    for seed in 0..5 {
        assert_eq!(wire.reply("POST").unwrap().json()["bd3"]["seed"], seed);
    }
    assert_eq!(wire.reply("GET").unwrap().status, 404);
    assert_eq!(wire.reply("GET").unwrap().status, 200);
    assert_eq!(wire.rest(), b"");
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_it() {
    let server = Server::shared();
    let body = json!({ "prompt": "The", "max_tokens": 60, "seed": 3, "bd3": { "events": true, "alternatives": 20 } });
    let quick = server.chunks("/v1/completions", &body);
    let slow = server.stream("/v1/completions", &body).inspect(|_| std::thread::sleep(Duration::from_millis(10)));
    assert_eq!(slow.count(), quick.len() + 1);
}
