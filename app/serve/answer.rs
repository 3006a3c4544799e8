//! Answers in OpenAI's shapes: whole, or in pieces as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bd3::event::Reason;
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Map, Value, json};

use super::Served;
use super::channel::{Receiver, channel};
use super::error::ApiError;
use super::queue::Turned;
use super::relay::{Delta, End, Token};
use super::request::GenerationRequest;
use super::scoring;
use super::text::Offsets;

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Of `/v1/completions`.
    Completion,
    /// Of `/v1/chat/completions`.
    Chat,
}

/// An answer that is being made.
pub struct Answer {
    served: Arc<Served>,
    shape: Shape,
    request: GenerationRequest,
    id: String,
    created: u64,
    prompt_tokens: usize,
    choices: usize,
    from: Receiver<Delta>,
    /// Ends so far.
    ends: Vec<End>,
    /// How far the text has been told, by choice, for `text_offset`.
    offsets: Vec<Offsets>,
}

impl Answer {
    /// Orders what is asked for.
    pub fn order(served: &Arc<Served>, request: GenerationRequest, shape: Shape) -> Result<Self, ApiError> {
        let (to, from) = channel();
        let (orders, prompt_tokens) = request.orders(served, &to)?;
        let choices = orders.len();
        let pushed = match request.logprobs.filter(|_| request.scored) {
            Some(top) => served.queue.push_task(scoring::task(served, orders, top)?),
            None => served.queue.push(orders),
        };
        pushed.map_err(|turned| match turned {
            Turned::Full => {
                let message = "the server is busy: as many requests wait as may";
                ApiError::coded(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
            }
            Turned::Closed => ending(),
        })?;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let id = format!("{}-{:016x}", if shape == Shape::Chat { "chatcmpl" } else { "cmpl" }, served.number());
        let (ends, offsets) = (Vec::new(), vec![Offsets::default(); choices]);
        Ok(Self { served: served.clone(), shape, request, id, created, prompt_tokens, choices, from, ends, offsets })
    }

    /// The answer.
    pub async fn respond(self) -> Result<Response, ApiError> {
        if self.request.stream { Ok(self.stream()) } else { self.whole().await }
    }

    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut choices: Vec<Whole> = (0..self.choices).map(|_| Whole::default()).collect();
        while self.ends.len() < self.choices {
            let delta = match self.from.recv().await {
                Some(delta) => delta,
                // The time was up before all choices had their turn: those that had are the answer.
                None if !self.ends.is_empty() => break,
                None => return Err(late(&self.served)),
            };
            if let Some(failure) = delta.failure {
                return Err(ApiError::coded(StatusCode::INTERNAL_SERVER_ERROR, "model_failed", failure));
            }
            self.ends.extend(delta.end.clone());
            choices[delta.index].take(delta);
        }
        let choices: Vec<Value> = choices.into_iter().enumerate().map(|(i, choice)| self.choice(i, choice)).collect();
        let object = if self.shape == Shape::Chat { "chat.completion" } else { "text_completion" };
        let mut body = self.head(object);
        body["choices"] = choices.into();
        body["usage"] = self.usage();
        body["bd3"] = json!({ "seed": self.request.told_seed() });
        Ok(Json(body).into_response())
    }

    /// The fields that every object of this answer has.
    fn head(&self, object: &str) -> Value {
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.served.name })
    }

    fn choice(&mut self, index: usize, choice: Whole) -> Value {
        let logprobs = self.logprobs(index, &choice.tokens);
        let end = choice.end.as_ref();
        let mut bd3 = json!({ "reason": end.map_or("interrupted", reason), "passes": end.map_or(0, |end| end.passes) });
        if self.request.events {
            bd3["trace"] = lines(&choice.trace);
        }
        let mut value =
            json!({ "index": index, "finish_reason": end.map_or("length", finish), "logprobs": logprobs, "bd3": bd3 });
        match self.shape {
            Shape::Completion => value["text"] = choice.text.into(),
            Shape::Chat => value["message"] = json!({ "role": "assistant", "content": choice.text, "refusal": null }),
        }
        value
    }

    fn usage(&self) -> Value {
        let tokens: usize = self.ends.iter().map(|end| end.tokens).sum();
        let passes: u64 = self.ends.iter().map(|end| end.passes).sum();
        let seconds = self.ends.iter().map(|end| end.seconds).fold(0.0, f64::max);
        json!({
            "prompt_tokens": self.prompt_tokens, "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens, "passes": passes, "seconds": seconds,
        })
    }

    fn stream(self) -> Response {
        let first: Vec<Event> = match self.shape {
            Shape::Chat => (0..self.choices)
                .map(|index| self.piece(index, &json!({ "role": "assistant", "content": "" })))
                .collect(),
            Shape::Completion => Vec::new(),
        };
        let events = stream::iter(first).chain(pieces(self));
        Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response()
    }

    /// A chunk with one choice; `what` is its text or delta.
    fn piece(&self, index: usize, what: &Value) -> Event {
        data(&self.chunk(&json!({ "index": index, "finish_reason": null, "logprobs": null, self.word(): what })))
    }

    fn word(&self) -> &'static str {
        if self.shape == Shape::Chat { "delta" } else { "text" }
    }

    fn chunk(&self, choice: &Value) -> Value {
        let mut chunk = self.head(if self.shape == Shape::Chat { "chat.completion.chunk" } else { "text_completion" });
        chunk["choices"] = json!([choice]);
        if self.request.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// What is sent for what was told.
    fn chunks_of(&mut self, delta: Delta) -> Vec<Event> {
        let index = delta.index;
        if let Some(failure) = delta.failure {
            let error = ApiError::coded(StatusCode::INTERNAL_SERVER_ERROR, "model_failed", failure);
            self.ends.push(End { reason: None, whole: false, tokens: 0, passes: 0, seconds: 0.0 });
            return vec![data(&error.body())];
        }
        let what = match self.shape {
            Shape::Completion => json!(delta.text),
            Shape::Chat if delta.text.is_empty() => json!({}),
            Shape::Chat => json!({ "content": delta.text }),
        };
        let logprobs = self.logprobs(index, &delta.tokens);
        let finish = delta.end.as_ref().map(finish);
        let mut chunk =
            self.chunk(&json!({ "index": index, "finish_reason": finish, "logprobs": logprobs, self.word(): what }));
        if !delta.trace.is_empty() {
            chunk["bd3"] = json!({ "index": index, "trace": lines(&delta.trace) });
        }
        if let Some(end) = delta.end {
            chunk["bd3"]["index"] = index.into();
            chunk["bd3"]["reason"] = reason(&end).into();
            chunk["bd3"]["passes"] = end.passes.into();
            chunk["bd3"]["seed"] = self.request.told_seed();
            self.ends.push(end);
        }
        vec![data(&chunk)]
    }

    /// What ends a stream.
    fn last(&self) -> Vec<Event> {
        let mut last = Vec::new();
        if self.request.include_usage {
            let mut chunk = self.chunk(&Value::Null);
            (chunk["choices"], chunk["usage"]) = (json!([]), self.usage());
            last.push(data(&chunk));
        }
        last.push(Event::default().data("[DONE]"));
        last
    }

    fn logprobs(&mut self, index: usize, tokens: &[Token]) -> Value {
        let Some(top) = self.request.logprobs else { return Value::Null };
        let served = &self.served;
        match self.shape {
            Shape::Chat => {
                let one = |id: u32, prob: Option<f32>| json!({ "token": served.word(id), "logprob": prob.map(log), "bytes": served.spell(id) });
                let each = |token: &Token| {
                    let mut value = one(token.id, token.prob);
                    let others = token.alternatives.iter().take(top);
                    value["top_logprobs"] = others.map(|&(id, prob)| one(id, Some(prob))).collect::<Vec<_>>().into();
                    value
                };
                json!({ "content": tokens.iter().map(each).collect::<Vec<_>>(), "refusal": null })
            }
            Shape::Completion => {
                let told = &mut self.offsets[index];
                let offsets: Vec<usize> = tokens.iter().map(|token| told.next(&served.spell(token.id))).collect();
                json!({
                    "tokens": tokens.iter().map(|token| key(&served.spell(token.id))).collect::<Vec<_>>(),
                    "token_logprobs": tokens.iter().map(|token| token.prob.map(log)).collect::<Vec<_>>(),
                    "top_logprobs": tokens.iter().map(|token| most_likely(served, token, top)).collect::<Vec<_>>(),
                    "text_offset": offsets,
                })
            }
        }
    }
}

/// A token as a name: its text, or its bytes where they are not all of a character, as OpenAI writes them.
fn key(bytes: &[u8]) -> String {
    let escaped = || bytes.iter().fold("bytes:".to_string(), |text, byte| text + &format!("\\x{byte:02x}"));
    std::str::from_utf8(bytes).map_or_else(|_| escaped(), str::to_string)
}

/// The most probable tokens, and the drawn one where it is none of them.
fn most_likely(served: &Served, token: &Token, top: usize) -> Map<String, Value> {
    let mut likely = Map::new();
    let drawn = token.prob.map(|prob| (token.id, prob)).filter(|_| top > 0);
    for (id, prob) in token.alternatives.iter().take(top).copied().chain(drawn) {
        // Tokens that are spelled alike are told apart by nothing: the most probable one is first.
        likely.entry(key(&served.spell(id))).or_insert_with(|| json!(log(prob)));
    }
    likely
}

/// A choice that is collected.
#[derive(Default)]
struct Whole {
    text: String,
    tokens: Vec<Token>,
    trace: Vec<String>,
    end: Option<End>,
}

impl Whole {
    fn take(&mut self, delta: Delta) {
        self.text += &delta.text;
        self.tokens.extend(delta.tokens);
        self.trace.extend(delta.trace);
        self.end = self.end.take().or(delta.end);
    }
}

/// The rest of a stream, piece by piece.
fn pieces(answer: Answer) -> impl Stream<Item = Event> {
    let state = (answer, VecDeque::new(), false);
    stream::unfold(state, |(mut answer, mut ready, mut over)| async move {
        loop {
            if let Some(event) = ready.pop_front() {
                return Some((event, (answer, ready, over)));
            }
            if over {
                return None;
            }
            if answer.ends.len() == answer.choices {
                (ready, over) = (answer.last().into(), true);
                continue;
            }
            match answer.from.recv().await {
                Some(delta) => ready = answer.chunks_of(delta).into(),
                None => (ready, over) = (VecDeque::from([data(&late(&answer.served).body())]), true),
            }
        }
    })
}

/// The client hears nothing of a choice any more: its time passed while it waited, or the server ends.
pub fn late(served: &Served) -> ApiError {
    if served.queue.is_closed() {
        return ending();
    }
    ApiError::coded(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the time limit passed while the request waited")
}

/// Nothing is taken any more.
pub fn ending() -> ApiError {
    ApiError::coded(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
}

fn data(value: &impl serde::Serialize) -> Event {
    Event::default().data(serde_json::to_string(value).unwrap_or_default())
}

/// Lines of a trace as they are.
fn lines(trace: &[String]) -> Value {
    trace.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
}

fn log(prob: f32) -> f64 {
    f64::from(prob).max(f64::MIN_POSITIVE).ln()
}

/// As OpenAI tells it.
fn finish(end: &End) -> &'static str {
    match end.reason {
        None | Some(Reason::Eos | Reason::Entropy) => "stop",
        Some(Reason::Length) if end.whole => "stop",
        Some(Reason::Length | Reason::Interrupted) => "length",
    }
}

/// As it was.
fn reason(end: &End) -> &'static str {
    match end.reason {
        None => "stop",
        Some(Reason::Eos) => "eos",
        Some(Reason::Entropy) => "entropy",
        Some(Reason::Length) => "length",
        Some(Reason::Interrupted) => "interrupted",
    }
}
