//! Requests that are none: each gets a status of its own, no one an internal error, and the server answers the next.

use serde_json::{Value, json};

use super::Server;
use super::http::{Wire, request};

/// Sends bytes on a connection of its own; the status, 0 where it was closed without one.
fn status(server: &Server, bytes: &[u8]) -> u16 {
    let mut wire = Wire::open(server.address);
    wire.send(bytes);
    wire.head().map_or(0, |reply| reply.status)
}

#[test]
fn bodies_that_are_no_request() {
    let server = Server::shared();
    let post = |body: &[u8]| server.ask("POST", "/v1/completions", &[], Some(body));
    let deep = |open: &str, close: &str| format!("{{\"prompt\":{}{}}}", open.repeat(100_000), close.repeat(100_000));
    let bodies: [Vec<u8>; 14] = [
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"prompt\"".to_vec(),
        b"{\"prompt\": \"x\"} {}".to_vec(),
        b"{\"prompt\": NaN}".to_vec(),
        b"{\"temperature\": 1e999}".to_vec(),
        b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
        b"{\"prompt\": \"\\ud800\"}".to_vec(),
        b"{'prompt': 'x'}".to_vec(),
        vec![0; 1000],
        deep("[", "]").into_bytes(),
        deep("{\"a\":", "}").into_bytes(),
    ];
    for body in bodies {
        let reply = post(&body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!((reply.status, &reply.error()["type"]), (400, &json!("invalid_request_error")), "{shown}");
    }
    // Marks of byte order, surrogates in pairs, and fields said twice are JSON or not, but nothing to fail at.
    let paired = post(b"{\"prompt\": \"\\ud83d\\ude00 \\u0000 x\", \"max_tokens\": 1, \"max_tokens\": 2}");
    assert_eq!(paired.json()["usage"]["completion_tokens"], 2, "{}", paired.text());
    assert_eq!(post(b"\xef\xbb\xbf{}").status, 400);
    assert!(server.is_well());
}

#[test]
fn bodies_that_are_too_large_or_of_another_kind() {
    let server = Server::start(&["--body-kb", "64"]);
    let body = |size: usize| json!({ "prompt": "x".repeat(size), "max_tokens": 1 }).to_string();
    let reply = server.ask("POST", "/v1/completions", &[], Some(body(70_000).as_bytes()));
    assert_eq!((reply.status, &reply.error()["code"]), (413, &json!("body_too_large")));
    assert_eq!(server.ask("POST", "/v1/completions", &[], Some(body(60_000).as_bytes())).status, 200);
    // A length that is a lie, and one in pieces.
    let huge = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n";
    let mut wire = Wire::open(server.address);
    wire.send(huge);
    wire.send(&[b' '; 80_000]);
    assert_eq!(wire.reply("POST").unwrap().status, 413);
    let pieces = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = Wire::open(server.address);
    wire.send(&[&pieces[..], b"5\r\n{\"max\r\n10\r\n_tokens\": 1    }\r\n0\r\n\r\n"].concat());
    assert_eq!(wire.reply("POST").unwrap().status, 200);
    for broken in [&b"zz\r\n{}\r\n0\r\n\r\n"[..], b"ffffffffffffffffff\r\n{}\r\n", b"5\r\n{}"] {
        let mut wire = Wire::open(server.address);
        wire.send(&[&pieces[..], broken].concat());
        wire.end();
        let found = wire.head().map_or(0, |reply| reply.status);
        assert!([0, 400].contains(&found), "{found}");
    }
    let mut wire = Wire::open(server.address);
    wire.send(pieces);
    while wire.send(&[&b"1000\r\n"[..], &[b' '; 0x1000], b"\r\n"].concat()) && wire.waiting() == 0 {}
    assert_eq!(wire.head().map(|reply| reply.status), Some(413));
    for kind in [
        "",
        "Content-Type: text/plain",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: application/jsonx",
    ] {
        let raw =
            format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: 2\r\n\r\n{{}}")
                .replace("\r\n\r\nC", "\r\nC");
        assert_eq!(status(&server, raw.as_bytes()), 415, "{kind}");
    }
    let kind = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: Application/JSON ; charset=utf-8\r\nContent-Length: 16\r\n\r\n{\"max_tokens\":1}";
    assert_eq!(status(&server, kind), 200);
    assert!(server.is_well());
}

#[test]
fn paths_that_lead_nowhere() {
    let server = Server::shared();
    let long = format!("/{}", "a".repeat(20_000));
    let longer = format!("/{}", "a".repeat(2_000_000));
    for path in [
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%00",
        "/v1",
        "/v1/",
        "/v1//models",
        "/V1/models",
        "/health/",
        "/bd3/",
        "/Cargo.toml",
        "/\\..\\x",
        "/?x",
        &long,
    ] {
        let found = status(&server, &request("GET", path, &[], None));
        let expected: &[u16] = if path.starts_with("/?") { &[200, 404] } else { &[404] };
        assert!(expected.contains(&found), "{path:.60}: {found}");
    }
    for path in ["/%ff", "/v1/models/%ff%fe"] {
        let reply = server.get(path);
        assert_eq!(reply.status, 400);
        reply.error();
    }
    // Heads that are none, or too long.
    for head in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let found = status(&server, head);
        assert!([0, 400, 505].contains(&found), "{:?}: {found}", String::from_utf8_lossy(head));
    }
    assert!([0, 414, 431].contains(&status(&server, &request("GET", &longer, &[], None))));
    let fat = format!("X-A: {}", "a".repeat(1_000_000));
    assert!([0, 431].contains(&status(&server, &request("GET", "/health", &[&fat], None))));
    let many: Vec<String> = (0..500).map(|index| format!("X-{index}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!([0, 431].contains(&status(&server, &request("GET", "/health", &many, None))));
    assert!(server.is_well());
}

#[test]
fn methods_that_a_path_does_not_have() {
    let server = Server::shared();
    let json: &[u8] = b"{}";
    for (method, path, body, expected) in [
        ("PUT", "/v1/completions", Some(json), 405),
        ("GET", "/v1/completions", None, 405),
        ("GET", "/v1/chat/completions", None, 405),
        ("DELETE", "/v1/models/tiny", None, 405),
        ("PATCH", "/bd3/noise", Some(json), 405),
        ("POST", "/health", Some(json), 405),
        ("POST", "/metrics", Some(json), 405),
        ("POST", "/v1/models", Some(json), 405),
        ("TRACE", "/health", None, 405),
        ("BREW", "/v1/completions", None, 405),
        ("GET", "/bd3/noise", None, 405),
        ("POST", "/nowhere", Some(json), 405),
        ("POST", "/no/where", Some(json), 404),
    ] {
        let reply = server.ask(method, path, &[], body);
        assert_eq!(reply.status, expected, "{method} {path}: {}", reply.text());
        reply.error();
        assert!(expected != 405 || reply.header("allow").is_some(), "{method} {path}");
    }
    for path in ["/health", "/v1/models", "/metrics", "/bd3/model"] {
        let head = server.ask("HEAD", path, &[], None);
        let length = head.header("content-length").map(|length| length.parse::<usize>().unwrap());
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(length.is_some_and(|length| length > 10), "{path}");
    }
    assert_eq!(server.ask("HEAD", "/v1/completions", &[], None).status, 405);
    let options = server.ask("OPTIONS", "/v1/completions", &["Origin: https://evil.example"], None);
    assert_eq!((options.status, options.header("access-control-allow-origin")), (204, None));
    assert_eq!(status(&server, b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"), 204);
    assert_eq!(status(&server, b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n") / 100, 4);
    assert!(server.is_well());
}

#[test]
fn hosts_versions_and_expectations() {
    let server = Server::shared();
    let get = |head: &str| status(&server, format!("GET /v1/models {head}\r\n\r\n").as_bytes());
    for host in ["localhost", "localhost:1", "127.0.0.1", "[::1]:8333", "127.8.9.1:80"] {
        assert_eq!(get(&format!("HTTP/1.1\r\nHost: {host}")), 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "0.0.0.0",
        "10.0.0.1:80",
        "",
        "[::2]",
        "\u{e9}",
    ] {
        assert_eq!(get(&format!("HTTP/1.1\r\nHost: {host}")), 403, "{host}");
    }
    assert_eq!(get("HTTP/1.1"), 403);
    assert_eq!(get("HTTP/1.0"), 403);
    // An old client is answered, and the connection closed.
    let mut old = Wire::open(server.address);
    old.send(b"GET /v1/models HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(old.reply("GET").unwrap().status, 200);
    assert_eq!(old.rest(), b"");
    let body = json!({ "prompt": "The", "max_tokens": 4, "stream": true }).to_string();
    let mut old = Wire::open(server.address);
    let head = format!(
        "POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    old.send(head.as_bytes());
    let reply = old.reply("POST").unwrap();
    assert!(reply.text().ends_with("data: [DONE]\n\n"), "{}", reply.text());
    // Who asks first is told to go on, or at once what is wrong.
    let mut wire = Wire::open(server.address);
    let whole = request("POST", "/v1/completions", &["Expect: 100-continue"], Some(body.as_bytes()));
    let (head, rest) = whole.split_at(whole.len() - body.len());
    wire.send(head);
    assert_eq!(wire.head().unwrap().status, 100);
    wire.send(rest);
    assert_eq!(wire.reply("POST").unwrap().status, 200);
    let mut wire = Wire::open(server.address);
    wire.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.head().unwrap().status, 415);
    assert!(server.is_well());
}

#[test]
fn much_of_what_is_allowed() {
    let server = Server::shared();
    // A text of many tokens, ids up to the edge, and as many choices as may be.
    let long = "a".repeat(500_000);
    let reply = server.post("/bd3/tokenize", &json!({ "text": long }));
    assert_eq!(reply.status, 200);
    let all: Vec<u64> = (0..4095).collect();
    assert_eq!(server.complete(&json!({ "prompt": all, "max_tokens": 2 }))["usage"]["prompt_tokens"], 4096);
    let many = server.complete(&json!({ "prompt": "The", "n": 64, "max_tokens": 1, "temperature": 1e30 }));
    assert_eq!(many["choices"].as_array().map(Vec::len), Some(64));
    for temperature in [1e-308, 1e-10, 5e-324, 1e30] {
        let whole =
            server.complete(&json!({ "prompt": "The", "max_tokens": 4, "temperature": temperature, "top_p": 1e-300 }));
        assert_eq!(whole["usage"]["completion_tokens"], 4);
    }
    let budgets = [json!(0), json!(1e308), json!("1e-300"), json!(u64::MAX)];
    for budget in budgets {
        let reply = server
            .post("/v1/completions", &json!({ "prompt": "The", "max_tokens": 4, "bd3": { "budget_ms": budget } }));
        assert!([200, 400].contains(&reply.status), "{budget}: {}", reply.text());
    }
    let tokens: Value = (0..2000).map(|id| (id.to_string(), json!(-100))).collect();
    server.complete(&json!({ "prompt": "The", "max_tokens": 4, "logit_bias": tokens }));
    assert!(server.is_well());
}
