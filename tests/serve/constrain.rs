//! Answers that have to match, over the API: as OpenAI's `response_format`, or as a regular expression.

use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};

use super::{Server, sampled, text_of};

const PATH: &str = "/v1/completions";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "old": { "type": "boolean" } },
        "required": ["name", "old"],
        "additionalProperties": false,
    })
}

fn with(format: &Value) -> Value {
    json!({ "prompt": "Once upon a time", "max_tokens": 30, "seed": 7, "response_format": format })
}

#[test]
fn answers_are_json_of_the_schema() {
    let server = Server::shared();
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": schema() } });
    for bd3 in [json!({}), json!({ "block": 32, "rule": "threshold", "threshold": 0.7 }), json!({ "block": 1 })] {
        let mut body = with(&format);
        (body["n"], body["bd3"]) = (json!(3), bd3);
        let choices = server.complete(&body)["choices"].clone();
        assert_eq!(choices.as_array().unwrap().len(), 3);
        for choice in choices.as_array().unwrap() {
            let text = choice["text"].as_str().unwrap();
            let object: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(object["name"].is_string() && object["old"].is_boolean(), "{text}");
            // Whole, and so no client need take it for cut.
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
        }
    }
    // In pieces it is the same text.
    let body = with(&json!({ "type": "json_object" }));
    let text = server.text(&body);
    assert!(serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object()), "{text}");
    assert_eq!(text_of(&server.chunks(PATH, &body), 0), text);
    assert_eq!(text, sampled(&["-p", "Once upon a time", "-n", "30", "--seed", "7", "--json"])["text"]);
    // What was asked for before, and text as ever.
    assert_eq!(server.text(&body), text);
    assert_eq!(server.text(&with(&json!({ "type": "text" }))), server.text(&with(&Value::Null)));
}

#[test]
fn answers_match_an_expression_in_company() {
    let server = Server::shared();
    let whole = Regex::new("^(yes|no|maybe)$").unwrap();
    let body = json!({ "prompt": ["Is it?", "Was it?"], "n": 8, "max_tokens": 9, "logprobs": 2, "bd3": { "regex": "yes|no|maybe" } });
    let reply = server.complete(&body);
    for choice in reply["choices"].as_array().unwrap() {
        assert!(whole.is_match(choice["text"].as_str().unwrap()), "{choice}");
        assert_eq!(choice["finish_reason"], "stop");
    }
    // Probabilities are those among what may stand there: at the first token all of it adds up to 1.
    let body =
        json!({ "prompt": "Is it?", "max_tokens": 9, "logprobs": 20, "bd3": { "regex": "yes|no|maybe", "block": 1 } });
    let top = server.complete(&body)["choices"][0]["logprobs"]["top_logprobs"][0].clone();
    let sum: f64 = top.as_object().unwrap().values().map(|log| log.as_f64().unwrap().exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5 && top.as_object().unwrap().len() >= 3, "{top}");
    // What can't stand there may be as likely as it likes.
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 30, "seed": 4, "bd3": { "regex": "[a-z ]{20,30}", "block": 4 } });
    let mut biased = body.clone();
    biased["logit_bias"] = json!({ "57": 100 });
    assert_eq!(server.text(&body), server.text(&biased));
}

#[test]
fn small_requests_are_read_while_constraints_are_made() {
    let server = Server::start(&[]);
    let server = &server;
    std::thread::scope(|scope| {
        let hard: Vec<_> = (0..8)
            .map(|more| {
                let pattern = format!("[ -~]*[aeiou][ -~]{{13}}{}", "x".repeat(more));
                let body = json!({ "prompt": "x", "max_tokens": 40, "bd3": { "regex": pattern } });
                scope.spawn(move || server.post(PATH, &body).status)
            })
            .collect();
        let start = Instant::now();
        for _ in 0..5 {
            server.complete(&json!({ "prompt": "Hi", "max_tokens": 2 }));
        }
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        for status in hard.into_iter().map(|hard| hard.join().unwrap()) {
            assert!(matches!(status, 200 | 400 | 429), "{status}");
        }
    });
}

#[test]
fn what_is_no_constraint_is_refused_by_its_field() {
    let server = Server::shared();
    let of = |schema: Value| json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    for (format, param, words) in [
        (json!({ "type": "xml" }), "response_format.type", "json_schema"),
        (json!("json"), "response_format", "an object"),
        (json!({ "type": "json_object", "x": 1 }), "response_format.x", "not supported"),
        (json!({ "type": "json_schema" }), "response_format.json_schema.schema", "a JSON schema"),
        (json!({ "type": "json_schema", "json_schema": [] }), "response_format.json_schema", "an object"),
        (of(json!({ "type": "objec" })), "response_format.json_schema.schema", "#/type"),
        (of(json!({ "$ref": "#" })), "response_format.json_schema.schema", "recursi"),
        (of(json!({ "type": "string", "minLength": 900 })), "max_tokens", "at least"),
    ] {
        let told = server.refuses(PATH, &with(&format), 400, Some(param));
        assert!(told.contains(words), "{told}");
    }
    let regex = |pattern: &str, more: Value| {
        let mut body = json!({ "prompt": "x", "bd3": { "regex": pattern } });
        more.as_object().into_iter().flatten().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    let told = server.refuses(PATH, &regex("(", json!({})), 400, Some("bd3.regex"));
    assert!(told.contains("unclosed group"), "{told}");
    server.refuses(PATH, &regex("a", json!({ "response_format": { "type": "json_object" } })), 400, Some("bd3.regex"));
    server.refuses(PATH, &regex("a", json!({ "suffix": "b" })), 400, None);
    server.refuses(PATH, &json!({ "bd3": { "regex": "a", "stop_entropy": 4 } }), 400, Some("bd3.stop_entropy"));
    server.refuses(PATH, &json!({ "bd3": { "json_schema": "/etc/passwd" } }), 400, Some("bd3.json_schema"));
    server.refuses(PATH, &regex(&"(a|b)".repeat(400_000), json!({})), 413, None);
    server.refuses(PATH, &regex("(?:.{1000}){1000}", json!({})), 400, Some("bd3.regex"));
    assert!(server.is_well());
}
