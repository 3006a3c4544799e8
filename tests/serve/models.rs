//! What the server says of itself, and chat.

use serde_json::{Value, json};

use super::{Server, text_of};

const CHAT: &str = "/v1/chat/completions";

#[test]
fn the_model_that_is_served_is_listed() {
    let server = Server::shared();
    let list = server.get("/v1/models").json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 1));
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["object"]), (&json!("tiny"), &json!("model")));
    assert_eq!(server.get("/v1/models/tiny").json(), list["data"][0]);
    let other = server.get("/v1/models/gpt-4/x");
    assert_eq!((other.status, &other.error()["code"]), (404, &json!("model_not_found")));
    server.refuses("/v1/completions", &json!({ "model": "gpt-4", "prompt": "x" }), 404, Some("model"));
    server.complete(&json!({ "model": "tiny", "prompt": "x", "max_tokens": 1 }));
    let about = server.get("/bd3/model").json();
    for name in ["vocab", "parameters", "length", "block", "mask", "bos", "eos"] {
        assert!(about[name].is_u64(), "{name}: {about}");
    }
    assert_eq!(about["block_sizes"], json!([1, 4, 8, 32, 256]));
    assert_eq!(about["chat"], false);
}

#[test]
fn an_alias_is_the_name() {
    let server = Server::start(&["--alias", "some/model of mine"]);
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "some/model of mine");
    assert_eq!(server.get("/v1/models/some/model%20of%20mine").status, 200);
    assert_eq!(
        server.complete(&json!({ "model": "some/model of mine", "max_tokens": 1 }))["model"],
        "some/model of mine"
    );
}

#[test]
fn a_model_without_a_template_does_not_chat() {
    let server = Server::shared();
    let reply = server.post(CHAT, &json!({ "messages": [{ "role": "user", "content": "Hello" }] }));
    assert_eq!((reply.status, &reply.error()["code"]), (400, &json!("no_chat_template")));
}

#[test]
fn numbers_of_the_server_are_prometheus_and_only_grow() {
    let server = Server::start(&[]);
    let text = server.get("/metrics");
    assert!(text.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let line =
        regex::Regex::new(r#"^(# (HELP|TYPE) bd3_[a-z_]+ .+|bd3_[a-z_]+(\{(status|le)="[0-9.+Inf]+"\})? [0-9.e+-]+)$"#)
            .unwrap();
    text.text().lines().for_each(|told| assert!(line.is_match(told), "{told:?}"));
    let types = regex::Regex::new(r"(?m)^# TYPE (\S+) (counter|gauge|histogram)$").unwrap();
    let text = text.text();
    let kinds: Vec<(&str, &str)> = types.captures_iter(&text).map(|found| found.extract::<2>().1.into()).collect();
    assert!(
        kinds.len() >= 10
            && text.lines().all(|told| told.starts_with('#') || kinds.iter().any(|(name, _)| told.starts_with(name)))
    );
    let mut before = server.metrics();
    for round in 0..4 {
        server.complete(&json!({ "prompt": "Once upon a time", "max_tokens": 20, "n": 2 }));
        server.refuses("/v1/completions", &json!({ "n": -1 }), 400, Some("n"));
        server.wait_for("bd3_lanes", 0.0);
        let now = server.metrics();
        for (name, value) in &before {
            let gauge = kinds.iter().any(|(kind, what)| *what == "gauge" && name == kind);
            assert!(gauge || now[name] >= *value, "{name}: {value}, then {}", now[name]);
        }
        let samples = 2.0 * f64::from(round + 1);
        assert_eq!((now["bd3_samples_total"], now["bd3_waiting"]), (samples, 0.0));
        assert!(now["bd3_tokens_total"] <= 20.0 * samples && now["bd3_tokens_total"] > before["bd3_tokens_total"]);
        assert!(now["bd3_sample_passes_total"] >= now["bd3_passes_total"] && now["bd3_passes_total"] > 0.0);
        assert_eq!(now["bd3_first_block_seconds_count"], now["bd3_first_block_seconds_bucket{le=\"+Inf\"}"]);
        assert_eq!(now["bd3_first_block_seconds_count"], samples);
        assert_eq!(now["bd3_answers_total{status=\"400\"}"], f64::from(round + 1));
        before = now;
    }
    assert!(before["bd3_reused_ids_total"] > 0.0 && before["bd3_cache_bytes"] > 0.0);
    assert!(server.is_well());
}

#[test]
fn a_model_with_a_template_chats() {
    let Ok(path) = std::env::var("BD3_SMOLLM2") else {
        println!("skipped: BD3_SMOLLM2 names no SmolLM2-135M-Instruct as GGUF");
        return;
    };
    let server = Server::start(&[&path, "--alias", "smol", "--exact"]);
    let messages = json!([{ "role": "system", "content": "You are helpful." }, { "role": "user", "content": [{ "type": "text", "text": "What is the capital of France?" }] }]);
    let body = |more: &Value| {
        let mut body = json!({ "messages": messages, "temperature": 0, "max_tokens": 24, "seed": 1 });
        more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    let reply = server.post(CHAT, &body(&json!({ "logprobs": true, "top_logprobs": 2 })));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let whole = reply.json();
    assert_eq!(whole["object"], "chat.completion");
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    let text = message["content"].as_str().unwrap();
    assert!(text.contains("Paris"), "{text}");
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let spelled: String = content.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert!(spelled.starts_with(text) && content[0]["top_logprobs"].as_array().unwrap().len() == 2, "{spelled}");
    let chunks = server.chunks(CHAT, &body(&json!({})));
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(text_of(&chunks, 0), text);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
    let newer = body(&json!({ "max_tokens": null, "max_completion_tokens": 3 }));
    assert_eq!(server.post(CHAT, &newer).json()["usage"]["completion_tokens"], 3);
    for (more, param) in [
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "robot", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": 3 }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": "x", "tool_calls": [] }] }), "messages[0].tool_calls"),
        (json!({ "tools": [{}] }), "tools"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "prompt": "x" }), "prompt"),
    ] {
        server.refuses(CHAT, &body(&more), 400, Some(param));
    }
    scores_what_it_wrote(&server);
}

/// What was as likely when it was written is as likely when it is read: `echo` beside `logprobs` of a next-token model.
fn scores_what_it_wrote(server: &Server) {
    let prompt = "The capital of France is";
    let written = server.complete(&json!({ "prompt": prompt, "max_tokens": 70, "temperature": 0, "logprobs": 1 }));
    let choice = &written["choices"][0];
    let text = prompt.to_string() + choice["text"].as_str().unwrap();
    let read = server.complete(&json!({ "prompt": text, "max_tokens": 0, "logprobs": 1, "echo": true }));
    let scores = |choice: &Value| -> Vec<f64> {
        let list = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        list.iter().map(|logprob| logprob.as_f64().unwrap()).collect()
    };
    let (then, now) = (scores(choice), scores(&read["choices"][0]));
    assert!(then.len() > 60 && now.len() > then.len(), "{written}");
    let now = &now[now.len() - then.len()..];
    assert!(then.iter().zip(now).all(|(a, b)| (a - b).abs() < 1e-3), "{then:?} {now:?}");
}
