//! A stream with events tells a trace: applied line after line it gives every state, and its text is the one that is told beside it.
//! What is told as text is never taken back, whatever is retracted.

use std::collections::BTreeMap;

use bd3::event::{Event, Header, State};
use serde_json::{Value, json};

use super::{Server, text_of};

const PATH: &str = "/v1/completions";

/// What the lines of one choice lead to.
struct Told {
    header: Header,
    pieces: BTreeMap<u32, Vec<u8>>,
    state: State,
    retractions: usize,
    last: Option<Event>,
}

impl Told {
    fn of(lines: &[Value]) -> Self {
        let header: Header = serde_json::from_value(lines[0].clone()).unwrap();
        let state = State::new(header.mask);
        let mut told = Self { header, pieces: BTreeMap::new(), state, retractions: 0, last: None };
        let mut ms = 0.0;
        for line in &lines[1..] {
            if let Some(id) = line["piece"].as_u64() {
                let bytes = line["text"].as_str().map(|text| text.as_bytes().to_vec());
                let bytes = bytes.unwrap_or_else(|| serde_json::from_value(line["bytes"].clone()).unwrap());
                assert!(told.pieces.insert(id as u32, bytes).is_none(), "a piece told twice: {line}");
                continue;
            }
            let event: Event = serde_json::from_value(line.clone()).unwrap();
            told.state.apply(&event).unwrap();
            assert_eq!(line["state"], format!("{:016x}", told.state.hash()), "{line}");
            assert!(line["ms"].as_f64().unwrap() >= ms);
            ms = line["ms"].as_f64().unwrap();
            told.retractions += usize::from(matches!(event, Event::Retracted { .. }));
            told.last = Some(event);
        }
        assert!(told.state.is_finished());
        told
    }

    /// The text from this position on.
    fn text(&self, from: usize) -> String {
        let bytes: Vec<u8> = self.state.text()[from..].iter().flat_map(|id| self.pieces[id].clone()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The lines of a choice, from its chunks.
fn lines(chunks: &[Value], index: u64) -> Vec<Value> {
    let of = chunks.iter().filter(|chunk| chunk["bd3"]["index"] == index);
    of.flat_map(|chunk| chunk["bd3"]["trace"].as_array().cloned().unwrap_or_default()).collect()
}

fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body["bd3"][name] = value;
    body
}

/// Bodies of all rules and revisions at several block sizes: those that the server follows.
fn bodies(server: &Server) -> Vec<Value> {
    let about = server.get("/bd3/model").json();
    let (rules, revisions) = (about["rules"].as_array().unwrap(), about["revisions"].as_array().unwrap());
    let knobs = json!({ "steps": 5, "threshold": 0.8, "factor": 1.0, "bound": 0.7, "low": 0.3 });
    let mut bodies = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        for (more, revision) in revisions.iter().enumerate() {
            // Half of the pairs, but whatever may go with the rule of most revisions and with no revision.
            if (index + more) % 2 == 1 && rule["name"] != "ancestral" && revision["name"] != "none" {
                continue;
            }
            let block = [1, 4, 8, 32][(index + more) % 4];
            let prompt = ["Once upon a time", "The dog", "", "One day a girl named Lily found"][(index + 2 * more) % 4];
            let mut bd3 = json!({ "rule": rule["name"], "revise": revision["name"], "block": block });
            for knob in rule["knobs"].as_array().unwrap().iter().map(|knob| knob.as_str().unwrap()) {
                bd3[knob] = knobs[knob].clone();
            }
            bodies.push(json!({ "prompt": prompt, "max_tokens": 13, "seed": 3 * index + more, "bd3": bd3 }));
        }
    }
    bodies
}

#[test]
fn events_lead_to_the_text_that_is_told_whatever_rule_and_revision() {
    let server = Server::shared();
    let (mut followed, mut refused) = (0, Vec::new());
    for body in bodies(&server) {
        let plain = server.post(PATH, &body);
        if plain.status != 200 {
            assert_eq!(plain.status, 400, "{body}: {}", plain.text());
            refused.push(plain.error()["message"].as_str().unwrap().to_string());
            continue;
        }
        followed += 1;
        let text = plain.json()["choices"][0]["text"].as_str().unwrap().to_string();
        let chunks = server.chunks(PATH, &with(&body, "events", json!(true)));
        let told = Told::of(&lines(&chunks, 0));
        assert_eq!(told.text(told.state.own()), text, "{body}");
        assert_eq!(text_of(&chunks, 0), text, "{body}");
        assert_eq!(told.header.seed, body["seed"].as_u64().unwrap());
    }
    refused.sort();
    refused.dedup();
    assert!(followed > 30, "{followed} followed; refused: {refused:?}");
}

#[test]
fn a_plain_client_never_takes_anything_back() {
    let server = Server::shared();
    let mut retractions = 0;
    for seed in 0..6 {
        let bd3 = json!({ "block": 4, "revise": "look-back", "revise_threshold": 0.3, "revise_rounds": 8 });
        let body = json!({ "prompt": "One day", "max_tokens": 60, "seed": seed, "temperature": 1.3, "bd3": bd3 });
        let whole = server.text(&body);
        // Piece by piece the text only grows, and each piece stays a beginning of the whole.
        let mut sent = String::new();
        for chunk in server.chunks(PATH, &body) {
            assert_eq!(chunk["bd3"]["trace"], Value::Null);
            sent += chunk["choices"][0]["text"].as_str().unwrap();
            assert!(whole.starts_with(&sent), "{sent:?} is no beginning of {whole:?}");
        }
        assert_eq!(sent, whole);
        // With events too; and at no time does the text tell what was retracted later.
        let chunks = server.chunks(PATH, &with(&body, "events", json!(true)));
        assert_eq!(text_of(&chunks, 0), whole);
        let told = Told::of(&lines(&chunks, 0));
        assert_eq!(told.text(told.state.own()), whole);
        retractions += told.retractions;
    }
    assert!(retractions >= 4, "{retractions}");
}

#[test]
fn events_of_gaps_choices_and_alternatives() {
    let server = Server::shared();
    for seed in 0..4 {
        let body = json!({ "seed": seed, "bd3": { "infill": "___{2,5} there was ___ who", "events": true, "alternatives": 3 } });
        let chunks = server.chunks(PATH, &body);
        let trace = lines(&chunks, 0);
        let edits = trace.iter().flat_map(|line| line["edits"].as_array().cloned().unwrap_or_default());
        let counts: Vec<usize> = edits.map(|edit| edit["alternatives"].as_array().map_or(0, Vec::len)).collect();
        assert!(!counts.is_empty() && counts.iter().all(|&count| count == 3), "{counts:?}");
        assert_eq!(Told::of(&trace).text(1), text_of(&chunks, 0));
        // Not in pieces: the same lines in one list, but for the clock.
        let whole = server.complete(&body);
        assert_eq!(whole["choices"][0]["text"], text_of(&chunks, 0));
        let timeless = |lines: &[Value]| {
            lines
                .iter()
                .cloned()
                .map(|mut line| {
                    line["ms"] = Value::Null;
                    line
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(timeless(whole["choices"][0]["bd3"]["trace"].as_array().unwrap()), timeless(&trace));
    }
    // The gap before a suffix: the events tell all of the text, the answer its gap.
    let body = json!({ "prompt": "Lily had a", "suffix": " and it was red.", "max_tokens": 4, "seed": 5, "bd3": { "events": true } });
    let chunks = server.chunks(PATH, &body);
    let all = Told::of(&lines(&chunks, 0)).text(1);
    assert_eq!(all, format!("Lily had a{} and it was red.", text_of(&chunks, 0)));
    // Several choices, each with a trace of its own.
    let body = json!({ "prompt": "The cat", "max_tokens": 20, "n": 3, "seed": 5, "bd3": { "events": true } });
    let chunks = server.chunks(PATH, &body);
    for index in 0..3 {
        let told = Told::of(&lines(&chunks, index));
        assert_eq!(told.text(told.state.own()), text_of(&chunks, index));
    }
    // A stop sequence: the events end with the pass, the text before the sequence.
    let body = json!({ "prompt": "The cat", "max_tokens": 60, "seed": 5, "stop": " ", "bd3": { "events": true } });
    let chunks = server.chunks(PATH, &body);
    let told = Told::of(&lines(&chunks, 0));
    assert!(told.text(told.state.own()).starts_with(&text_of(&chunks, 0)));
    assert!(!text_of(&chunks, 0).contains(' '));
    assert!(matches!(told.last, Some(Event::Finished { tokens, .. }) if tokens < 60), "{:?}", told.last);
}

#[test]
fn a_race_tells_a_trace_of_each_lane() {
    let server = Server::shared();
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 24, "seed": 4, "top_p": 0.9, "blocks": [1, 4, 32], "bd3": { "alternatives": 2 } });
    let events = server.chunks("/bd3/race", &body);
    for (lane, block) in [(0, 1), (1, 4), (2, 32)] {
        let of: Vec<&Value> = events.iter().filter(|event| event["lane"] == lane).collect();
        assert!(of.iter().all(|event| event["block"] == block));
        let trace: Vec<Value> = of.iter().flat_map(|event| event["trace"].as_array().unwrap().clone()).collect();
        let told = Told::of(&trace);
        let alone = json!({ "prompt": "Once upon a time", "max_tokens": 24, "seed": 4, "top_p": 0.9, "bd3": { "block": block } });
        assert_eq!(told.text(told.state.own()), server.text(&alone));
        let mut edits = trace.iter().filter_map(|line| line["edits"].as_array()).flatten();
        assert!(edits.all(|edit| edit["alternatives"].as_array().is_some_and(|ids| ids.len() == 2)));
        assert!(of.windows(2).all(|pair| pair[0]["ms"].as_f64() <= pair[1]["ms"].as_f64()));
    }
    for (more, param) in [
        (json!([0]), None),
        (json!([]), Some("blocks")),
        (json!(["4"]), Some("blocks")),
        (json!([3.5]), Some("blocks")),
    ] {
        let mut body = body.clone();
        body["blocks"] = more;
        let reply = server.post("/bd3/race", &body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(param.is_none() || reply.error()["param"] == param.unwrap(), "{}", reply.text());
    }
}
