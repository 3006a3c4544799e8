//! `/v1/completions`, field by field: what each does, whole and in pieces.

use serde_json::{Value, json};

use super::{Server, sampled, text_of};

const PATH: &str = "/v1/completions";

fn story(more: &Value) -> Value {
    let mut body = json!({ "prompt": "Once upon a time", "max_tokens": 48, "seed": 7, "top_p": 0.9 });
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body
}

fn ids(server: &Server, text: &str) -> Vec<u64> {
    let reply = server.post("/bd3/tokenize", &json!({ "text": text })).json();
    reply["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn a_seed_gives_the_text_that_the_command_gives() {
    let server = Server::shared();
    let cases: [(Value, &[&str]); 5] = [
        (json!({}), &[]),
        (
            json!({ "temperature": 0.7, "top_p": 0.5, "bd3": { "block": 8 } }),
            &["--temperature", "0.7", "--top-p", "0.5", "--block", "8"],
        ),
        (
            json!({ "bd3": { "rule": "threshold", "threshold": 0.9, "block": 32 } }),
            &["--rule", "threshold", "--threshold", "0.9", "--block", "32"],
        ),
        (json!({ "bd3": { "revise": "look-back", "block": 4 } }), &["--revise", "look-back", "--block", "4"]),
        (json!({ "bd3": { "guidance": 1.5, "passes": 2 } }), &["--guidance", "1.5", "--passes", "2"]),
    ];
    for (more, flags) in cases {
        let flags = [&["-p", "Once upon a time", "-n", "48", "--seed", "7"], flags].concat();
        let whole = server.complete(&story(&more));
        let command = sampled(&flags);
        assert_eq!(whole["choices"][0]["text"], command["text"], "{more}");
        for (of, name) in [("completion_tokens", "tokens"), ("passes", "passes")] {
            assert_eq!(whole["usage"][of], command[name], "{more}");
        }
        assert_eq!(whole["bd3"]["seed"], 7);
        assert_eq!(text_of(&server.chunks(PATH, &story(&more)), 0), command["text"].as_str().unwrap());
    }
    // OpenAI's defaults, not the command's.
    let bare = json!({ "prompt": "Once upon a time", "seed": 7 });
    let command = sampled(&["-p", "Once upon a time", "-n", "16", "--seed", "7"]);
    assert_eq!(server.text(&bare), command["text"].as_str().unwrap());
}

#[test]
fn a_seed_that_is_not_given_is_told() {
    let server = Server::shared();
    let body = json!({ "prompt": "One day", "max_tokens": 24 });
    let first = server.complete(&body);
    let mut again = body.clone();
    again["seed"] = first["bd3"]["seed"].clone();
    assert_eq!(server.complete(&again)["choices"], first["choices"]);
    assert_ne!(server.complete(&body)["choices"], first["choices"]);
    // In a stream the end tells it.
    let chunks = server.chunks(PATH, &body);
    again["seed"] = chunks.last().unwrap()["bd3"]["seed"].clone();
    assert_eq!(server.text(&again), text_of(&chunks, 0));
}

#[test]
fn a_stream_has_the_shape_of_openai_and_the_text_of_the_whole() {
    let server = Server::shared();
    let body = story(&json!({ "n": 3, "stream_options": { "include_usage": true } }));
    let chunks = server.chunks(PATH, &body);
    let (last, chunks) = chunks.split_last().unwrap();
    for chunk in chunks {
        assert_eq!((&chunk["object"], &chunk["model"]), (&json!("text_completion"), &json!("tiny")));
        assert_eq!((chunk["choices"].as_array().unwrap().len(), &chunk["usage"]), (1, &Value::Null));
        assert_eq!((&chunk["id"], &chunk["created"]), (&last["id"], &last["created"]));
    }
    let whole = server.complete(&story(&json!({ "n": 3 })));
    for index in 0..3 {
        assert_eq!(whole["choices"][index]["text"], text_of(chunks, index as u64));
        let ends: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|c| c["index"] == index)
            .map(|c| &c["finish_reason"])
            .filter(|end| !end.is_null())
            .collect();
        assert_eq!(ends, [&whole["choices"][index]["finish_reason"]]);
    }
    assert_eq!(last["choices"], json!([]));
    let count = |usage: &Value| {
        ["prompt_tokens", "completion_tokens", "total_tokens", "passes"].map(|name| usage[name].as_u64().unwrap())
    };
    let [prompt, written, total, passes] = count(&last["usage"]);
    assert_eq!([prompt, written, total, passes], count(&whole["usage"]));
    assert_eq!((prompt, total), (ids(&server, "Once upon a time").len() as u64 + 1, prompt + written));
    assert!(written > 48 && passes > 0);
    assert_eq!(whole["choices"][0]["text"], server.text(&story(&json!({}))));
    assert_ne!(whole["choices"][0]["text"], whole["choices"][1]["text"]);
}

#[test]
fn a_stop_sequence_ends_the_text_wherever_it_falls() {
    let server = Server::shared();
    let more = |stop: &Value| story(&json!({ "stop": stop, "bd3": { "block": 4 } }));
    let text = server.text(&more(&Value::Null));
    // Longer than a token, often longer than a block.
    for length in [1, 5, 17] {
        for at in (0..text.len().saturating_sub(length)).step_by(19) {
            let Some(stop) = text.get(at..at + length) else { continue };
            let end = text.find(stop).unwrap();
            let whole = server.complete(&more(&json!(stop)));
            assert_eq!(whole["choices"][0]["text"], text[..end], "{stop:?}");
            assert_eq!(whole["choices"][0]["finish_reason"], "stop");
            assert_eq!(text_of(&server.chunks(PATH, &more(&json!(["@@@@", stop]))), 0), text[..end], "{stop:?}");
        }
    }
    // What begins like one is told once it is none.
    let almost = format!("{}@", &text[text.len() - 6..]);
    let whole = server.complete(&more(&json!([almost])));
    assert_eq!((&whole["choices"][0]["text"], &whole["choices"][0]["finish_reason"]), (&json!(text), &json!("length")));
}

#[test]
fn an_echo_stands_before_the_text_and_stops_nothing() {
    let server = Server::shared();
    let text = server.text(&story(&json!({})));
    let echoed = server.complete(&story(&json!({ "echo": true, "stop": "upon" })));
    assert_eq!(echoed["choices"][0]["text"], format!("Once upon a time{text}"));
    assert_eq!(echoed["usage"]["completion_tokens"], 48);
    assert_eq!(text_of(&server.chunks(PATH, &story(&json!({ "echo": true }))), 0), format!("Once upon a time{text}"));
    let stop = &text[10..16];
    let stopped = server.complete(&story(&json!({ "echo": true, "stop": stop })));
    assert_eq!(stopped["choices"][0]["text"], format!("Once upon a time{}", &text[..text.find(stop).unwrap()]));
    let tokens = stopped["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(tokens > 0 && tokens < 24, "{tokens}");
    // Nothing is written, and that is told.
    for (echo, expected) in [(false, ""), (true, "Once upon a time")] {
        let none = server.complete(&story(&json!({ "max_tokens": 0, "echo": echo })));
        assert_eq!(
            (&none["choices"][0]["text"], &none["choices"][0]["finish_reason"]),
            (&json!(expected), &json!("length"))
        );
        assert_eq!((&none["usage"]["completion_tokens"], &none["usage"]["passes"]), (&json!(0), &json!(0)));
    }
}

#[test]
fn logprobs_are_those_of_the_tokens_of_the_text() {
    let server = Server::shared();
    let body = story(&json!({ "logprobs": 3, "temperature": 0 }));
    let choice = server.complete(&body)["choices"][0].clone();
    let list = |name: &str| choice["logprobs"][name].as_array().unwrap().clone();
    let tokens: Vec<String> = list("tokens").iter().map(|token| token.as_str().unwrap().to_string()).collect();
    assert_eq!((tokens.concat(), tokens.len()), (choice["text"].as_str().unwrap().to_string(), 48));
    let mut offset = 0;
    for (index, token) in tokens.iter().enumerate() {
        let (logprob, top) = (list("token_logprobs")[index].as_f64().unwrap(), list("top_logprobs")[index].clone());
        assert!(logprob <= 0.0 && logprob > -50.0, "{token:?} {logprob}");
        // At temperature 0 the token is the most probable one.
        let top: Vec<(&String, f64)> =
            top.as_object().unwrap().iter().map(|(token, p)| (token, p.as_f64().unwrap())).collect();
        assert!(
            top.len() == 3 && top[0] == (token, logprob) && top[0].1 >= top[1].1 && top[1].1 >= top[2].1,
            "{top:?}"
        );
        assert!(top.iter().map(|(_, logprob)| logprob.exp()).sum::<f64>() <= 1.0 + 1e-6);
        assert_eq!(list("text_offset")[index], offset);
        offset += token.chars().count();
    }
    // In pieces the same.
    let chunks = server.chunks(PATH, &body);
    let pieces =
        chunks.iter().flat_map(|chunk| chunk["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone());
    assert_eq!(pieces.collect::<Vec<_>>(), list("token_logprobs"));
    let none = server.complete(&story(&json!({ "logprobs": 0 })));
    assert_eq!(none["choices"][0]["logprobs"]["top_logprobs"][0], json!({}));
}

#[test]
fn a_token_stands_behind_so_many_characters() {
    let server = Server::shared();
    let text = "A caf\u{e9} in \u{65e5}\u{672c}, said the dog.";
    let body = json!({ "prompt": text, "max_tokens": 0, "logprobs": 0, "echo": true });
    let told = |choice: &Value| -> Vec<(String, usize)> {
        let list = |name: &str| choice["logprobs"][name].as_array().unwrap().clone().into_iter();
        let tokens = list("tokens").map(|token| token.as_str().unwrap().to_string());
        tokens.zip(list("text_offset").map(|offset| offset.as_u64().unwrap() as usize)).collect()
    };
    let whole = told(&server.complete(&body)["choices"][0]);
    for (token, offset) in &whole {
        let behind: String = text.chars().skip(*offset).collect();
        match token.strip_prefix("bytes:") {
            // A part stands where its character does.
            Some(_) => assert!(!behind.is_ascii() && !behind.starts_with([' ', ',']), "{token:?} at {offset}"),
            None => assert!(behind.starts_with(token), "{token:?} at {offset}"),
        }
    }
    let (last, offset) = whole.last().unwrap();
    assert_eq!(offset + last.chars().count(), text.chars().count());
    assert!(whole.iter().any(|(token, _)| token.starts_with("bytes:")));
    let chunks = server.chunks(PATH, &body);
    assert_eq!(chunks.iter().flat_map(|chunk| told(&chunk["choices"][0])).collect::<Vec<_>>(), whole);
}

/// As a harness asks: what the prompt's tokens have is what `bd3 eval` gives the text.
#[test]
fn an_echo_with_logprobs_scores_the_prompt() {
    let server = Server::shared();
    let text = "Once upon a time, there was a little dog named Max. He liked to run in the park with his friends, and one day he \
                saw a big red ball. He wanted to play with it, but it was too high up in the tree. Max was very sad and went home. \
                The next day his friend Lily came with a long rope, and they got the ball down together.";
    let scores = |choice: &Value| -> Vec<f64> {
        let list = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        list.iter().map(|logprob| logprob.as_f64().unwrap()).collect()
    };
    let body = json!({ "prompt": [text, "Once upon a time"], "max_tokens": 1, "logprobs": 2, "echo": true, "n": 2 });
    let choices = server.complete(&body)["choices"].as_array().unwrap().clone();
    let of_text = scores(&choices[0])[..scores(&choices[0]).len() - 1].to_vec();
    assert!(choices.len() == 4 && of_text.len() > 64 && choices[0]["text"].as_str().unwrap().starts_with(text));
    assert_eq!(scores(&choices[1])[..of_text.len()], of_text);
    // The beginning of a text is as likely by itself.
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(near(&scores(&choices[2])[..4], &of_text[..4]), "{:?} {of_text:?}", scores(&choices[2]));
    // Nothing more is written; in pieces it is the same.
    let alone = json!({ "prompt": text, "max_tokens": 0, "logprobs": 0, "echo": true });
    let choice = server.complete(&alone)["choices"][0].clone();
    assert_eq!((choice["text"].as_str().unwrap(), scores(&choice)), (text, of_text.clone()));
    let chunks = server.chunks(PATH, &alone);
    assert_eq!(chunks.iter().flat_map(|chunk| scores(&chunk["choices"][0])).collect::<Vec<_>>(), of_text);
    // `bd3 eval` reads the end of the text, too.
    let config: Value = serde_json::from_slice(&std::fs::read("models/tiny/config.json").unwrap()).unwrap();
    let mut ids = server.post("/bd3/tokenize", &json!({ "text": text })).json()["ids"].as_array().unwrap().clone();
    ids.push(config["eos_token_id"].clone());
    let whole =
        scores(&server.complete(&json!({ "prompt": ids, "max_tokens": 0, "logprobs": 0, "echo": true }))["choices"][0]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.txt");
    std::fs::write(&path, text).unwrap();
    let mut eval = std::process::Command::new(env!("CARGO_BIN_EXE_bd3"));
    let output =
        eval.args(["eval", "tiny", path.to_str().unwrap(), "--block", "1", "--json", "--each"]).output().unwrap();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nats = read["rows"][0]["each"][0][0].as_f64().unwrap();
    assert!((nats + whole.iter().sum::<f64>()).abs() < 1e-2 * nats, "{nats} {whole:?}");
    let masked = json!({ "prompt": [[1, 2], [3, 4095, 5]], "max_tokens": 2, "echo": true, "logprobs": 1 });
    assert_eq!(server.post(PATH, &masked).json()["error"]["param"], "prompt");
}

/// Parts of characters are told by their bytes, so that each has a name of its own.
#[test]
fn a_token_that_is_no_text_is_named_by_its_bytes() {
    let server = Server::shared();
    let ids = server.post("/bd3/tokenize", &json!({ "text": "\u{65e5}" })).json()["ids"].clone();
    let bias = json!({ ids[0].to_string(): 100 });
    let logprobs = server.complete(&story(&json!({ "logprobs": 2, "temperature": 0, "logit_bias": bias })))["choices"]
        [0]["logprobs"]
        .clone();
    assert_eq!(logprobs["tokens"][0], "bytes:\\xe6");
    assert!(logprobs["top_logprobs"][0].as_object().unwrap().contains_key("bytes:\\xe6"), "{logprobs}");
}

#[test]
fn a_bias_bans_a_token_or_leaves_no_other() {
    let server = Server::shared();
    let the = ids(&server, " the");
    assert_eq!(the.len(), 1);
    let id = the[0].to_string();
    let forced = story(&json!({ "max_tokens": 8, "logit_bias": { &id: 100 } }));
    assert_eq!(server.text(&forced), " the".repeat(8));
    for seed in 0..4 {
        let body = |bias: i32| json!({ "prompt": "They went to", "max_tokens": 48, "seed": seed, "logprobs": 0, "logit_bias": { &id: bias } });
        let has = |bias| {
            server.complete(&body(bias))["choices"][0]["logprobs"]["tokens"]
                .as_array()
                .unwrap()
                .contains(&json!(" the"))
        };
        assert!(has(5) && !has(-100), "{seed}");
    }
}

#[test]
fn prompts_come_as_texts_and_as_ids() {
    let server = Server::shared();
    let (one, two) = ("Once upon a time", "The dog and the cat");
    let of = |prompt: Value| story(&json!({ "prompt": prompt, "max_tokens": 20 }));
    let alone = [server.text(&of(json!(one))), server.text(&of(json!(two)))];
    let both = [ids(&server, one), ids(&server, two)];
    let bos = server.get("/bd3/model").json()["bos"].clone();
    let begun: Vec<Value> = std::iter::once(bos).chain(both[0].iter().map(|&id| json!(id))).collect();
    for prompt in [json!([one, two]), json!([both[0], both[1]]), json!([begun, both[1]])] {
        let whole = server.complete(&of(prompt.clone()));
        assert_eq!([&whole["choices"][0]["text"], &whole["choices"][1]["text"]], [&alone[0], &alone[1]], "{prompt}");
    }
    assert_eq!(server.text(&of(json!(both[1]))), alone[1]);
    // Choices stand prompt by prompt.
    let many = server.complete(&story(&json!({ "prompt": [one, two], "n": 2, "max_tokens": 20 })));
    let texts: Vec<&Value> = many["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!((texts[0], texts[2], texts.len()), (&json!(alone[0]), &json!(alone[1]), 4));
    let none = json!({ "max_tokens": 8, "seed": 1 });
    assert_eq!(server.text(&none), server.text(&json!({ "prompt": "", "max_tokens": 8, "seed": 1 })));
}

#[test]
fn gaps_are_filled() {
    let server = Server::shared();
    // A template: the whole text, as the command gives it.
    for (template, seed) in
        [("Once ___{4} there was ___ dog.", 1), ("___{2,9}, said the cat.", 2), ("A \\_ and ___{3}", 3)]
    {
        let body = json!({ "bd3": { "infill": template }, "seed": seed, "top_p": 0.9, "logprobs": 1 });
        let (whole, command) = (server.complete(&body), sampled(&["--infill", template, "--seed", &seed.to_string()]));
        assert_eq!(whole["choices"][0]["text"], command["text"], "{template}");
        assert_eq!(whole["usage"]["completion_tokens"], command["tokens"], "{template}");
        assert_eq!(text_of(&server.chunks(PATH, &body), 0), command["text"].as_str().unwrap());
        // What was given was not drawn.
        let drawn = whole["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!(drawn.iter().filter(|prob| !prob.is_null()).count() as u64, command["tokens"].as_u64().unwrap());
    }
    // A suffix: the text of the gap.
    let body = |more: &Value| {
        story(
            &json!({ "prompt": "Once upon a time there was", "suffix": " was very happy.", "max_tokens": 5, "bd3": more }),
        )
    };
    let whole = server.complete(&body(&json!({})));
    assert_eq!(whole["usage"]["completion_tokens"], 5);
    let text = whole["choices"][0]["text"].as_str().unwrap();
    let template = "Once upon a time there was___{5} was very happy.";
    let filled = server.text(&story(&json!({ "prompt": null, "bd3": { "infill": template } })));
    assert_eq!(format!("Once upon a time there was{text} was very happy."), filled);
    let tokens = |seed: u64| {
        let mut body = body(&json!({ "gap": [2, 6] }));
        body["seed"] = seed.into();
        server.complete(&body)["usage"]["completion_tokens"].as_u64().unwrap()
    };
    let lengths: Vec<u64> = (0..12).map(tokens).collect();
    assert!(lengths.iter().all(|n| (2..=6).contains(n)) && lengths.iter().any(|n| *n != lengths[0]), "{lengths:?}");
    // Ids with masks.
    let mask = server.get("/bd3/model").json()["mask"].as_u64().unwrap();
    let prompt = [ids(&server, "The little"), vec![mask; 3], ids(&server, " ran home.")].concat();
    let whole = server.complete(&story(&json!({ "prompt": prompt, "max_tokens": 0 })));
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("The little") && text.ends_with(" ran home."), "{text}");
    assert_eq!(whole["usage"]["completion_tokens"], 3);
    let longer = server.complete(&story(&json!({ "prompt": prompt, "max_tokens": 4, "bd3": { "block": 32 } })));
    assert_eq!(longer["usage"]["completion_tokens"], 7);
}
