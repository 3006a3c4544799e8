//! Many clients at once, well-behaved and not, for as long as `BD3_LOAD_SECONDS` says: no error but those announced, answers as if alone,
//! memory that does not grow.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;
use super::http::{Events, Wire, request};

const CLIENTS: usize = 64;
const PATH: &str = "/v1/completions";

/// What the clients did.
#[derive(Default)]
struct Counts {
    whole: AtomicU64,
    streams: AtomicU64,
    left: AtomicU64,
    refused: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }
}

fn bodies() -> Vec<Value> {
    let long = "One day a boy named Tim went to the park with his mom and saw a big red ball under a tree. ".repeat(4);
    let prompts = ["Once upon a time", "The dog", "Lily and Tom", &long];
    let flags = [
        json!({ "block": 4 }),
        json!({ "block": 8, "rule": "threshold", "threshold": 0.8 }),
        json!({ "block": 1 }),
        json!({ "block": 4, "revise": "look-back" }),
        json!({ "block": 32, "passes": 6 }),
        json!({ "block": 4, "guidance": 1.0 }),
    ];
    let body = |index: usize| {
        let (prompt, bd3) = (prompts[index % 4], &flags[index % 6]);
        json!({ "prompt": prompt, "max_tokens": 8 + 3 * (index % 9), "seed": index, "top_p": 0.9, "bd3": bd3 })
    };
    (0..24).map(body).collect()
}

/// A client's next request: which body, how it is read.
fn client(server: &Server, number: usize, bodies: &[(Value, String)], (counts, end): (&Counts, Instant)) {
    let mut round = number;
    while Instant::now() < end {
        let (body, expected) = &bodies[round * 7 % bodies.len()];
        match (number + round) % 4 {
            0 | 1 => whole(server, body, expected, counts),
            2 => stream(server, body, expected, counts),
            _ => leave(server, body, round, counts),
        }
        round += 1;
    }
}

/// Sends a body; none where the server said that it is busy.
fn ask(server: &Server, body: &Value, counts: &Counts) -> Option<Wire> {
    let mut wire = Wire::open(server.address);
    wire.send(&request("POST", PATH, &[], Some(body.to_string().as_bytes())));
    // The head of a whole answer comes with it.
    let head = wire.head();
    match head.as_ref().map(|head| head.status) {
        Some(200) => return Some(wire),
        Some(429) if head.is_some_and(|head| head.header("retry-after") == Some("1")) => Counts::add(&counts.refused),
        other => counts.wrong(format!("{other:?} to {body}")),
    }
    thread::sleep(Duration::from_millis(100));
    None
}

fn whole(server: &Server, body: &Value, expected: &str, counts: &Counts) {
    let mut wire = Wire::open(server.address);
    wire.send(&request("POST", PATH, &[], Some(body.to_string().as_bytes())));
    match wire.reply("POST") {
        Some(reply) if reply.status == 200 => {
            let text = reply.json()["choices"][0]["text"].as_str().unwrap_or_default().to_string();
            if text != expected {
                counts.wrong(format!("{text:?} to {body}, alone {expected:?}"));
            }
            Counts::add(&counts.whole);
        }
        Some(reply) if reply.status == 429 && reply.header("retry-after") == Some("1") => {
            Counts::add(&counts.refused);
            thread::sleep(Duration::from_millis(100));
        }
        other => counts.wrong(format!("{other:?} to {body}")),
    }
}

fn streamed(body: &Value) -> Value {
    let mut body = body.clone();
    (body["stream"], body["bd3"]["events"]) = (json!(true), json!(true));
    body
}

/// Reads a stream slowly.
fn stream(server: &Server, body: &Value, expected: &str, counts: &Counts) {
    let Some(wire) = ask(server, &streamed(body), counts) else { return };
    let (mut text, mut last) = (String::new(), String::new());
    for event in Events::new(wire) {
        let chunk: Value = serde_json::from_str(&event).unwrap_or_default();
        text += chunk["choices"][0]["text"].as_str().unwrap_or_default();
        last = event;
        thread::sleep(Duration::from_millis(3));
    }
    if last != "[DONE]" || text != expected {
        counts.wrong(format!("{text:?} and {last:.200} to {body}, alone {expected:?}"));
    }
    Counts::add(&counts.streams);
}

/// Goes away in the middle.
fn leave(server: &Server, body: &Value, round: usize, counts: &Counts) {
    let mut body = streamed(body);
    (body["max_tokens"], body["stream"]) = (json!(400), json!(round % 8 < 6));
    if body["stream"] == true {
        let Some(wire) = ask(server, &body, counts) else { return };
        Events::new(wire).take(round % 9).for_each(drop);
    } else {
        let wire = Wire::open(server.address);
        wire.send(&request("POST", PATH, &[], Some(body.to_string().as_bytes())));
        thread::sleep(Duration::from_millis(30));
    }
    Counts::add(&counts.left);
}

/// Memory once in a while, until the end.
#[cfg(target_os = "linux")]
fn watch(server: &Server, end: Instant) -> Vec<u64> {
    let mut seen = Vec::new();
    while Instant::now() < end {
        seen.push(server.memory());
        thread::sleep(Duration::from_millis(250));
    }
    seen
}

#[cfg(target_os = "linux")]
#[test]
fn a_crowd_of_clients_for_a_while() {
    let seconds = std::env::var("BD3_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let server = Server::start(&["--queue", "40"]);
    let bodies: Vec<(Value, String)> = bodies().into_iter().map(|body| (body.clone(), server.text(&body))).collect();
    let counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let memory = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, bodies, counts) = (&server, &bodies, &counts);
            scope.spawn(move || client(server, number, bodies, (counts, end)));
        }
        watch(&server, end)
    });
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (whole, streams, left, refused) =
        (get(&counts.whole), get(&counts.streams), get(&counts.left), get(&counts.refused));
    let wrong = counts.wrong.into_inner().unwrap();
    // Warm after a third of the time; then the mean of the next third and of the last.
    let third = memory.len() / 3;
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let (warm, late) = (mean(&memory[third..2 * third]), mean(&memory[2 * third..]));
    let passes = server.metric("bd3_passes_total");
    println!(
        "{seconds} s, {CLIENTS} clients: {whole} whole, {streams} streams, {left} left, {refused} refused with 429, {} wrong; \
         {passes} passes; memory {:.1} MB, then {:.1} MB ({:+.2} %), {:.1} MB at most",
        wrong.len(),
        warm / 1e6,
        late / 1e6,
        100.0 * (late / warm - 1.0),
        memory.iter().max().copied().unwrap_or(0) as f64 / 1e6,
    );
    assert!(wrong.is_empty(), "{} wrong, the first: {:.600}", wrong.len(), wrong[0]);
    assert!(whole > 20 && streams > 5 && left > 5, "{whole} {streams} {left}");
    // A short run does not get warm: caches that are kept for later grow to the longest texts.
    let most = if seconds < 60 { 1.2 } else { 1.05 };
    assert!(late / warm < most, "memory grew from {warm} to {late} bytes");
    // Everybody is gone, and so is their work.
    server.wait_for("bd3_lanes", 0.0);
    server.wait_for("bd3_waiting", 0.0);
    let (body, expected) = &bodies[0];
    assert_eq!(server.text(body), *expected);
}
