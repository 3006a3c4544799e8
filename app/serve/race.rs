//! `POST /bd3/race`: one prompt at several block sizes on one clock. On the model's thread it is a task, called for one pass at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bd3::engine::{Engine, KeyValues};
use bd3::event::{Event, Header, Sink, TraceLines, VERSION};
use bd3::pass::Denoiser;
use bd3::rng::Rng;
use bd3::sample::{SampleOptions, Sampler};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::Served;
use super::answer::{ending, late};
use super::channel::{Sender, channel};
use super::error::ApiError;
use super::fields::{Fields, whole};
use super::queue::{Progress, Task, Turned};
use super::relay::Spell;
use super::request::{GenerationRequest, begun, check_guidance};
use crate::race::{self, Lane};

/// Lanes of a race, at most.
const MOST_LANES: usize = 8;

/// A lane's events on their way to the page.
struct Track {
    lane: usize,
    block: usize,
    to: Sender<Value>,
    lines: TraceLines<Spell>,
    header: Option<String>,
    /// Why the trace refused an event, if it did.
    failure: Option<bd3::Error>,
    passes: u64,
    /// The lane's clock when its turn began, and when that was.
    turn: (Duration, Instant),
}

impl Sink for &mut Track {
    fn event(&mut self, event: &Event) -> bool {
        let ms = (self.turn.0 + self.turn.1.elapsed()).as_secs_f64() * 1000.0;
        match event {
            Event::Edited { pass, .. } => self.passes = *pass,
            Event::Finished { passes, .. } => self.passes = *passes,
            _ => {}
        }
        let lines = match self.lines.of(event, ms) {
            Ok(lines) => lines,
            Err(error) => {
                self.failure = Some(error);
                return false;
            }
        };
        let lines: Vec<String> = self.header.take().into_iter().chain(lines).collect();
        let trace_bytes = 4 * lines.iter().map(String::len).sum::<usize>();
        let trace: Vec<Value> = lines.into_iter().filter_map(|line| serde_json::from_str(&line).ok()).collect();
        let (lane, block, passes) = (self.lane, self.block, self.passes);
        let told = json!({ "lane": lane, "block": block, "ms": ms, "passes": passes, "trace": trace });
        // Values take about so much.
        let bytes = 1024 + trace_bytes;
        self.to.send(told, bytes)
    }
}

/// A race that is asked for.
struct Course {
    served: Arc<Served>,
    ids: Vec<u32>,
    seed: u64,
    options: Vec<SampleOptions>,
    /// Of keys and values.
    bytes: usize,
}

impl Course {
    fn take(served: &Arc<Served>, body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let (mut request, bd3) = GenerationRequest::take(served, &mut fields)?;
        let prompt = fields.text("prompt")?.unwrap_or_default();
        let most = served.limits.max_tokens;
        let max_tokens = fields.count("max_tokens", 1..=most)?.unwrap_or(most.min(128)) as usize;
        let blocks = fields.value("blocks");
        for (name, given) in
            [("n", request.n != 1), ("stop", !request.stops.is_empty()), ("logit_bias", !request.bias.is_empty())]
        {
            if given {
                return Err(ApiError::unsupported(name));
            }
        }
        request.take_flags(bd3)?;
        fields.end()?;
        let arch = &served.model.checkpoint.arch;
        let blocks: Vec<usize> = match &blocks {
            None => race::blocks(arch, request.block).map_err(|_| {
                ApiError::refused(format!(
                    "a race: expected a model that writes blocks of several sizes, found {}",
                    served.name
                ))
            })?,
            Some(value) => {
                let list = value.as_array().filter(|list| !list.is_empty() && list.len() <= MOST_LANES);
                let sizes = list.map(|list| list.iter().map(|size| whole(size).map(|size| size as usize)).collect());
                let wrong = || ApiError::field("blocks", format!("up to {MOST_LANES} block sizes"), value.to_string());
                sizes.flatten().ok_or_else(wrong)?
            }
        };
        let ids = served.model.tokenizer.encode(&prompt).map_err(|e| ApiError::of(&e))?;
        let ids = begun(served, ids)?;
        let args = request.args()?;
        let constraint = request.constraint.as_ref().map(|asked| asked.constraint(served)).transpose()?;
        let eos = served.model.tokenizer.special().eos.filter(|_| !prompt.is_empty() || constraint.is_some());
        let option = |&block: &usize| {
            let options = args.options(&served.model, (eos, block))?;
            let (constraint, alternatives) = (constraint.clone(), request.alternatives);
            let options = SampleOptions { max_new: max_tokens, constraint, alternatives, ..options };
            check_guidance(&options)?;
            let length = options.check(&ids, served.mask())?;
            let bytes = served.cache_bytes(&options, length);
            Ok((options, bytes))
        };
        let options = blocks.iter().map(option).collect::<bd3::Result<Vec<_>>>().map_err(|e| ApiError::of(&e))?;
        let bytes = options.iter().map(|(_, bytes)| bytes).sum();
        served.check_bytes(bytes)?;
        let options = options.into_iter().map(|(options, _)| options).collect();
        Ok(Self { served: served.clone(), ids, seed: request.seed, options, bytes })
    }

    fn lanes(&self, engine: &Engine, to: &Sender<Value>) -> bd3::Result<Vec<Lane<KeyValues, Track>>> {
        let lane = |(index, options): (usize, &SampleOptions)| {
            let rng = Rng::new(self.seed).split_at("sample", 0);
            let sampler = Sampler::new(options.clone(), &self.ids, engine.mask_id(), |size| engine.cache(size), rng)?;
            let sink = self.track(index, options, to.clone());
            Ok(Lane { block: options.block, sampler, sink, spent: Duration::ZERO })
        };
        self.options.iter().enumerate().map(lane).collect()
    }

    fn track(&self, lane: usize, options: &SampleOptions, to: Sender<Value>) -> Track {
        let (served, mask) = (self.served.clone(), self.served.mask());
        let (model, tokenizer) = (served.name.clone(), served.model.tokenizer.hash().to_string());
        let settings = json!({ "options": options });
        let header = Header { version: VERSION, model, tokenizer, mask, seed: self.seed, settings };
        let spell: Spell = Box::new(move |id| served.spell(id));
        Track {
            lane,
            block: options.block,
            to,
            lines: TraceLines::new(mask, spell),
            header: serde_json::to_string(&header).ok(),
            failure: None,
            passes: 0,
            turn: (Duration::ZERO, Instant::now()),
        }
    }
}

/// A race as a task: one pass of one lane at a time.
struct Race {
    course: Course,
    to: Sender<Value>,
    begun: Instant,
    /// None before its first turn.
    lanes: Option<Vec<Lane<KeyValues, Track>>>,
}

impl Task for Race {
    fn bytes(&self) -> usize {
        self.course.bytes
    }

    fn is_over(&self) -> bool {
        let served = &self.course.served;
        self.to.is_closed() || self.begun.elapsed() > served.limits.time || served.is_hurried()
    }

    fn turn(&mut self, engine: &Engine) -> Progress {
        let over = self.is_over();
        let lanes = match &mut self.lanes {
            Some(lanes) => lanes,
            none => match self.course.lanes(engine, &self.to) {
                Ok(made) => none.insert(made),
                Err(error) => return fail(&self.to, &error),
            },
        };
        if over {
            lanes.iter_mut().for_each(|lane| lane.sampler.stop(&mut &mut lane.sink));
            return Progress::Done;
        }
        if self.to.is_behind() {
            return Progress::Waits;
        }
        let turned = race::turn(engine, lanes, |lane| lane.sink.turn = (lane.spent, Instant::now()));
        let failure = lanes.iter_mut().find_map(|lane| lane.sink.failure.take());
        match failure.map_or(turned, Err) {
            Ok(true) => Progress::Pass,
            Ok(false) => Progress::Done,
            Err(error) => fail(&self.to, &error),
        }
    }
}

fn fail(to: &Sender<Value>, error: &bd3::Error) -> Progress {
    to.send(ApiError::of(error).body(), 0);
    Progress::Done
}

/// Answers with the events of all lanes.
pub async fn race(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let of = served.clone();
    let course = served.desk(&body).blocking(move || Course::take(&of, &body)).await?;
    let (to, from) = channel();
    let task = Race { course, to, begun: Instant::now(), lanes: None };
    served.queue.push_task(Box::new(task)).map_err(|turned| match turned {
        Turned::Full => {
            ApiError::coded(StatusCode::TOO_MANY_REQUESTS, "queue_full", "the server is busy with other races")
        }
        Turned::Closed => ending(),
    })?;
    let told = stream::unfold((from, served, false), |(mut from, served, heard)| async move {
        let told = match from.recv().await {
            Some(told) => told,
            // It never began.
            None if !heard => late(&served).body(),
            None => return None,
        };
        Some((Sent::default().data(told.to_string()), (from, served, true)))
    });
    let done = VecDeque::from([Sent::default().data("[DONE]")]);
    let events = told.chain(stream::iter(done)).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
