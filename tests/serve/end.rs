//! How a server begins and ends: signals, ports, keys.

use std::io::Read;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Wire, request};
use super::{Server, serve};

/// Longer than the server gives to answers that are under way.
const SOON: Duration = Duration::from_secs(10);

fn long() -> Value {
    json!({ "prompt": "Once", "max_tokens": 4000, "seed": 1, "temperature": 1.5, "logit_bias": { "4093": -100 }, "bd3": { "block": 256, "events": true } })
}

fn refused(flags: &[&str]) -> String {
    let Output { status, stdout, stderr } = serve(flags).output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len(), error.lines().count()), (Some(2), 0, 1), "{flags:?}: {error}");
    assert!(error.starts_with("error: "), "{error}");
    error
}

#[test]
fn a_port_that_is_taken_and_an_address_without_a_key_are_refused() {
    let server = Server::shared();
    let port = server.address.port().to_string();
    assert!(refused(&["--port", &port]).contains("--port"));
    for host in ["0.0.0.0", "::", "192.0.2.1"] {
        let error = refused(&["--host", host]);
        assert!(error.contains("--api-key") && error.contains("--no-key"), "{error}");
    }
    assert!(refused(&["--port", "65536"]).contains("--port"));
    assert!(refused(&["--no-key", "--api-key", "x"]).contains("--api-key"));
    assert!(refused(&["nowhere"]).contains("nowhere"));
    for origin in ["*", "https://example.org/", "example.org"] {
        assert!(refused(&["--cors", origin]).contains("--cors"), "{origin}");
    }
    // Said aloud it is allowed.
    let open = Server::start(&["--host", "0.0.0.0", "--no-key"]);
    assert!(open.ask("GET", "/health", &[], None).status == 200);
}

#[test]
fn a_signal_lets_streams_end_in_order() {
    let mut server = Server::start(&["--lanes", "2"]);
    let streams: Vec<_> = (0..2).map(|_| server.stream("/v1/completions", &long())).collect();
    let short = server.stream("/v1/completions", &json!({ "prompt": "The", "max_tokens": 4, "seed": 1 }));
    server.wait_for("bd3_lanes", 2.0);
    let whole = Wire::open(server.address);
    whole.send(&request("POST", "/v1/completions", &[], Some(long().to_string().as_bytes())));
    server.wait_for("bd3_waiting", 2.0);
    let start = Instant::now();
    server.signal("-TERM");
    // Who waited is told at once, who was under way has what is there, and how it ended.
    let waited: Vec<String> = short.collect();
    assert!(waited[0].contains("shutting_down"), "{waited:?}");
    let mut whole = whole;
    let reply = whole.reply("POST").unwrap();
    assert_eq!((reply.status, &reply.error()["code"]), (503, &json!("shutting_down")));
    for stream in streams {
        let events: Vec<String> = stream.collect();
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
        assert_eq!(
            (&last["choices"][0]["finish_reason"], &last["bd3"]["reason"]),
            (&json!("length"), &json!("interrupted"))
        );
    }
    let status = server.ended(SOON);
    assert_eq!(status.code(), Some(0), "after {:?}", start.elapsed());
    assert!(Wire::try_open(server.address).is_err());
}

#[test]
fn an_answer_that_is_nearly_done_is_given_whole() {
    let mut server = Server::start(&[]);
    let body = json!({ "prompt": "The", "max_tokens": 40, "seed": 1 });
    let expected = server.text(&body);
    let mut wire = Wire::open(server.address);
    wire.send(&request("POST", "/v1/completions", &[], Some(body.to_string().as_bytes())));
    // The answer to one that came later says that the first has been read.
    assert!(server.is_well());
    server.signal("-TERM");
    let reply = wire.reply("POST").unwrap();
    assert_eq!((reply.status, &reply.json()["choices"][0]["text"]), (200, &json!(expected)));
    assert_eq!(server.ended(SOON).code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&[]);
    let mut stream = server.stream("/v1/completions", &long());
    assert!(stream.next().is_some());
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(150));
    let start = Instant::now();
    server.signal("-INT");
    assert_eq!(server.ended(SOON).code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_ne!(stream.last().as_deref(), Some("[DONE]"));
}

#[test]
fn an_idle_server_ends_at_once_and_says_nothing() {
    let mut server = Server::start(&[]);
    let idle: Vec<Wire> = (0..3).map(|_| Wire::open(server.address)).collect();
    assert!(server.is_well());
    let start = Instant::now();
    server.signal("-INT");
    assert_eq!(server.ended(SOON).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let mut notes = String::new();
    server.notes.read_to_string(&mut notes).unwrap();
    assert_eq!(notes, "");
    drop(idle);
}

#[test]
fn a_key_opens_the_door() {
    let server = Server::start(&["--api-key", "se cret"]);
    let ask = |path: &str, headers: &[&str]| server.ask("GET", path, headers, None);
    for path in ["/v1/models", "/v1/models/tiny", "/bd3/model", "/bd3/curve", "/metrics"] {
        for headers in
            [&[][..], &["Authorization: Bearer wrong"], &["Authorization: se cret"], &["Authorization: Bearer \u{e9}"]]
        {
            let reply = ask(path, headers);
            assert_eq!(
                (reply.status, &reply.error()["type"]),
                (401, &json!("authentication_error")),
                "{path} {headers:?}"
            );
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(ask(path, &["Authorization: Bearer se cret"]).status, 200, "{path}");
    }
    // The page is open, what nobody has named is not.
    for (path, status) in
        [("/", 200), ("/main.js", 200), ("/openapi.json", 200), ("/v2/models", 401), ("/main.jsx", 401)]
    {
        assert_eq!(ask(path, &[]).status, status, "{path}");
    }
    assert_eq!(ask("/v2/models", &["Authorization: Bearer se cret"]).status, 404);
    // Before the body is read.
    let reply = server.ask("POST", "/v1/completions", &[], Some(b"{"));
    assert_eq!(reply.status, 401);
    // With a key any name will do; that there is a server is no secret.
    assert_eq!(ask("/health", &[]).status, 200);
    let mut wire = Wire::open(server.address);
    wire.send(b"GET /v1/models HTTP/1.1\r\nHost: models.example\r\nAuthorization: Bearer se cret\r\n\r\n");
    assert_eq!(wire.reply("GET").unwrap().status, 200);
}

#[test]
fn a_key_of_the_environment_locks_the_door_unless_it_is_to_be_open() {
    for (flags, status) in [(&[][..], 401), (&["--no-key"], 200), (&["--no-key", "--host", "0.0.0.0"], 200)] {
        let mut command = serve(flags);
        command.env("BD3_API_KEY", "se cret");
        assert_eq!(Server::of(command).get("/v1/models").status, status, "{flags:?}");
    }
}

#[test]
fn a_page_elsewhere_reads_what_it_was_allowed_to() {
    let server = Server::start(&["--cors", "https://example.org"]);
    let allowed = |origin: &str| {
        let reply = server.ask("GET", "/v1/models", &[&format!("Origin: {origin}")], None);
        reply.header("access-control-allow-origin").map(str::to_string)
    };
    assert_eq!(allowed("https://example.org").as_deref(), Some("https://example.org"));
    assert_eq!((allowed("https://evil.example"), allowed("null")), (None, None));
    let preflight = server.ask(
        "OPTIONS",
        "/v1/completions",
        &["Origin: https://example.org", "Access-Control-Request-Method: POST"],
        None,
    );
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("content-type"));
}
