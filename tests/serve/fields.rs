//! Fields that can't be followed: each is refused by its name, and no body whatever makes the server fail.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::Server;

const PATH: &str = "/v1/completions";

/// A body that asks for little, with one thing changed.
fn with(path: &[&str], value: &Value) -> Value {
    let mut body = json!({ "prompt": "Once upon a time", "max_tokens": 2 });
    let mut at = &mut body;
    for name in path {
        at = &mut at[*name];
    }
    *at = value.clone();
    body
}

#[test]
fn every_field_refuses_what_is_not_its_own() {
    let server = Server::shared();
    let odd = [
        json!(-1),
        json!(1e308),
        json!(-1e-308),
        json!(18_446_744_073_709_551_615_u64),
        json!(0.5),
        json!("NaN"),
        json!("\u{0}"),
        json!(true),
        json!([]),
        json!([[1]]),
        json!({}),
        json!({ "x": null }),
    ];
    let fields: [(&[&str], &[usize]); 19] = [
        // The field, and which of the above are values of it.
        (&["max_tokens"], &[]),
        (&["n"], &[]),
        (&["seed"], &[0, 3]),
        (&["temperature"], &[3, 4]),
        (&["top_p"], &[4]),
        (&["stop"], &[5, 6, 8]),
        (&["logprobs"], &[]),
        (&["logit_bias"], &[10]),
        (&["echo"], &[7]),
        (&["stream_options"], &[10, 11]),
        (&["suffix"], &[5, 6]),
        (&["user"], &[5, 6]),
        (&["model"], &[]),
        (&["presence_penalty"], &[]),
        (&["best_of"], &[]),
        (&["bd3"], &[10, 11]),
        (&["bd3", "block"], &[]),
        (&["bd3", "alternatives"], &[]),
        (&["bd3", "events"], &[7]),
    ];
    for (path, fine) in fields {
        for (index, value) in odd.iter().enumerate() {
            let reply = server.post(PATH, &with(path, value));
            if fine.contains(&index) {
                assert_eq!(reply.status, 200, "{path:?} {value}: {}", reply.text());
                continue;
            }
            assert!(
                reply.status == 400 || reply.status == 404 && path == ["model"],
                "{path:?} {value}: {}",
                reply.text()
            );
            let error = reply.error();
            let param = error["param"].as_str().unwrap_or_default().to_string();
            assert!(param.starts_with(path[0]), "{path:?} {value}: {error}");
            assert!(error["message"].as_str().unwrap().contains(path[path.len() - 1]), "{path:?} {value}: {error}");
        }
    }
    assert!(server.is_well());
}

/// What can't be followed, and the field that is named.
fn wrong() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "promt": "x" }), "promt"),
        (json!({ "bd3": { "blok": 4 } }), "bd3.blok"),
        (json!({ "bd3": { "temperature": 1 } }), "bd3.temperature"),
        (json!({ "bd3": { "model": "/etc/passwd" } }), "bd3.model"),
        (json!({ "bd3": { "prompt_file": "/etc/passwd" } }), "bd3.prompt_file"),
        (json!({ "bd3": { "trace": "/tmp/x" } }), "bd3.trace"),
        (json!({ "prompt": 3 }), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": ["x", 3] }), "prompt"),
        (json!({ "prompt": [1, "x"] }), "prompt"),
        (json!({ "prompt": [4096] }), "prompt"),
        (json!({ "prompt": [[1], [-1]] }), "prompt"),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), "stop"),
        (json!({ "stop": [""] }), "stop"),
        (json!({ "logprobs": 21 }), "logprobs"),
        (json!({ "logit_bias": { "4096": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias"),
        (json!({ "logit_bias": { "one": 1 } }), "logit_bias"),
        (json!({ "stream_options": { "include_usage": true } }), "stream_options"),
        (json!({ "stream_options": { "x": 1 } }), "stream_options.x"),
        (json!({ "frequency_penalty": 0.5 }), "frequency_penalty"),
        (json!({ "best_of": 2 }), "best_of"),
        (json!({ "max_tokens": 4097 }), "max_tokens"),
        (json!({ "n": 65 }), "n"),
        (json!({ "temperature": -0.1 }), "temperature"),
        (json!({ "top_p": 0 }), "top_p"),
        (json!({ "top_p": 1.5 }), "top_p"),
    ]
}

/// The same of gaps and of the flags of `bd3 sample`.
fn wrong_flags() -> Vec<(Value, &'static str)> {
    vec![
        (json!({ "suffix": "x", "prompt": ["a"] }), "prompt"),
        (json!({ "bd3": { "gap": [1, 2] } }), "bd3.gap"),
        (json!({ "suffix": "x", "bd3": { "gap": [3, 2] } }), "bd3.gap"),
        (json!({ "suffix": "x", "bd3": { "gap": [0, 2] } }), "bd3.gap"),
        (json!({ "suffix": "x", "bd3": { "gap": 2 } }), "bd3.gap"),
        (json!({ "suffix": "x", "max_tokens": 300 }), "suffix"),
        (json!({ "suffix": "x", "max_tokens": 0 }), "max_tokens"),
        (json!({ "bd3": { "infill": "a ___ b" }, "prompt": "x" }), "bd3.infill"),
        (json!({ "bd3": { "infill": "a ___ b" }, "suffix": "x" }), "bd3.infill"),
        (json!({ "bd3": { "infill": "no gap" } }), "bd3.infill"),
        (json!({ "bd3": { "infill": "___{9,1}" } }), "bd3.infill"),
        (json!({ "bd3": { "infill": "___{65536} x".repeat(40_000) } }), "bd3.infill"),
        (json!({ "bd3": { "block": 512 } }), "bd3.block"),
        (json!({ "bd3": { "rule": "nonsense" } }), "bd3"),
        (json!({ "bd3": { "rule": true } }), "bd3.rule"),
        (json!({ "bd3": { "quality": "yes" } }), "bd3.quality"),
        (json!({ "echo": true, "suffix": " end" }), "echo"),
        (json!({ "bd3": { "rule": ["threshold"] } }), "bd3.rule"),
        (json!({ "bd3": { "threshold": 0.5 } }), "bd3.threshold"),
        (json!({ "bd3": { "rule": "threshold", "threshold": "nan" } }), "bd3.threshold"),
        (json!({ "bd3": { "stop_entropy": "inf" } }), "bd3.stop_entropy"),
        (json!({ "bd3": { "guidance": 1e38 } }), "bd3.guidance"),
        (json!({ "bd3": { "guidance": "inf" } }), "bd3.guidance"),
        (json!({ "bd3": { "guidance": -1 } }), "bd3.guidance"),
        (json!({ "bd3": { "passes": 0 } }), "bd3.passes"),
        (json!({ "bd3": { "revise": "edit", "revise_threshold": 7 } }), "bd3.revise_threshold"),
        (json!({ "bd3": { "eta": 0.5 } }), "bd3"),
    ]
}

#[test]
fn what_does_not_go_together_is_named() {
    let server = Server::shared();
    let mut amiss = Vec::new();
    for (mut body, param) in wrong().into_iter().chain(wrong_flags()) {
        if body["prompt"].is_null() && body["bd3"]["infill"].is_null() && body["suffix"].is_null() {
            body["prompt"] = json!("Once");
        }
        let reply = server.post(PATH, &body);
        let told = reply.json()["error"].clone();
        if reply.status != 400 || told["param"] != param {
            amiss.push(format!("{} for {param}: {:.200} -> {:.200}", reply.status, body.to_string(), told.to_string()));
        }
    }
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
    // A mask cannot be the first id, behind the beginning of the text it can.
    let mask = server.get("/bd3/model").json()["mask"].clone();
    server.complete(&json!({ "prompt": [mask], "max_tokens": 0 }));
    for (path, body, param) in [
        ("/bd3/noise", json!({ "text": "" }), Some("text")),
        ("/bd3/noise", json!({ "text": "x", "levels": 102 }), Some("levels")),
        ("/bd3/noise", json!({ "text": "x", "kinds": ["pink"] }), None),
        ("/bd3/noise", json!({ "text": "x ".repeat(2000) }), Some("text")),
        ("/bd3/tokenize", json!({ "text": 3 }), Some("text")),
        ("/bd3/tokenize", json!({ "ids": [] }), Some("ids")),
        ("/bd3/race", json!({ "max_tokens": 0 }), Some("max_tokens")),
        ("/bd3/race", json!({ "bd3": { "guidance": 1e38 } }), Some("bd3.guidance")),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text());
        assert!(param.is_none_or(|param| reply.error()["param"] == param), "{path} {body}: {}", reply.text());
    }
}

/// A value of any kind, often at the edge of something.
fn anything() -> impl Strategy<Value = Value> {
    let edges = [
        json!(null),
        json!(0),
        json!(1),
        json!(2),
        json!(-1),
        json!(4),
        json!(256),
        json!(4095),
        json!(1e308),
        json!(1e-308),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(true),
        json!(false),
        json!("NaN"),
        json!("-inf"),
        json!("x ___"),
        json!("--help"),
        json!("\u{0}\u{fffd}"),
        json!([]),
        json!({}),
    ];
    let leaf = prop_oneof![
        6 => prop::sample::select(edges.to_vec()),
        1 => any::<i32>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[a-z_]{1,8}", inner), 0..3).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Valid bodies of every path.
fn valid() -> Vec<(&'static str, Value)> {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    let many = json!({
        "prompt": "Once upon a time", "max_tokens": 3, "n": 2, "stop": ["x", "yz"], "temperature": 0.8, "top_p": 0.9, "seed": 3,
        "logprobs": 2, "logit_bias": { "300": 5 }, "stream": false, "user": "me",
        "bd3": { "block": 8, "rule": "threshold", "threshold": 0.9, "revise": "look-back", "revise_threshold": 0.1,
                 "revise_rounds": 2, "passes": 3, "budget_ms": 50, "guidance": 1.5, "alternatives": 2, "events": true,
                 "stop_entropy": 1.0, "window": "slide", "nucleus": "strict" },
    });
    vec![
        (PATH, many),
        (PATH, json!({ "prompt": [[1, 2], [3, 4095, 5]], "max_tokens": 2, "echo": true })),
        (PATH, json!({ "prompt": "Lily", "suffix": " ran.", "max_tokens": 3, "bd3": { "gap": [1, 3] } })),
        (
            PATH,
            json!({ "bd3": { "infill": "Once ___ there ___{2}", "revise": "remdm-cap", "eta": 0.3, "rule": "ancestral", "steps": 3 } }),
        ),
        ("/v1/chat/completions", json!({ "messages": messages, "max_tokens": 2 })),
        ("/bd3/tokenize", json!({ "text": "Once" })),
        ("/bd3/noise", json!({ "text": "Once upon", "kinds": ["mask"], "levels": 3, "seed": 1 })),
        ("/bd3/race", json!({ "prompt": "The", "max_tokens": 3, "seed": 1, "blocks": [1, 4], "bd3": { "passes": 2 } })),
    ]
}

/// The places of a value, as pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_string());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), found))
        }
        _ => {}
    }
}

#[test]
fn bodies_that_were_changed_anywhere_are_answered_or_refused() {
    let server = Server::start(&["--max-tokens", "64"]);
    let valid = valid();
    for (path, body) in &valid {
        let reply = server.post(path, body);
        assert!(reply.status == 200 || path.contains("chat"), "{path} {body}: {}", reply.text());
    }
    let change = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), anything(), any::<prop::sample::Index>());
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let answered = std::cell::Cell::new(0);
    let outcome = runner.run(&change, |(which, place, value, cut)| {
        let (path, body) = which.get(&valid[..]);
        let mut found = Vec::new();
        places(body, "", &mut found);
        let mut body = body.clone();
        *body.pointer_mut(place.get(&found[..]).as_str()).unwrap() = value;
        let mut bytes = body.to_string().into_bytes();
        // Now and then the bytes are broken as well.
        if cut.index(8) == 0 {
            let at = cut.index(bytes.len());
            bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(7);
        }
        let reply = server.ask("POST", path, &[], Some(&bytes));
        prop_assert!(
            [200, 400, 404].contains(&reply.status),
            "{path} {}: {}",
            String::from_utf8_lossy(&bytes),
            reply.text()
        );
        answered.set(answered.get() + u32::from(reply.status == 200));
        if reply.status != 200 {
            reply.error();
        }
        Ok(())
    });
    outcome.unwrap();
    assert!((4..380).contains(&answered.get()), "{} of 400 were answered", answered.get());
    assert!(server.is_well());
}
