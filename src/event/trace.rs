//! A sample as a file: JSON lines that can be shown again without the model. The first line names version, model and settings;
//! the bytes of an id stand before its first use; every event has its time, the hash of the state it leads to, and every line
//! ends with a sum over the file so far, so that a changed byte is noticed. `docs/events.md` is the description for readers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::{EMPTY, State, bytes};
use super::{Event, Sink};
use crate::error::{Error, Result};

/// The version that is written, and the newest that is read.
pub const VERSION: u64 = 1;

/// What a trace says of itself, in its first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the schema.
    #[serde(rename = "bd3_trace")]
    pub version: u64,
    /// The model's name.
    pub model: String,
    /// A hash of the tokenizer.
    pub tokenizer: String,
    /// The id of the mask.
    pub mask: u32,
    /// The seed.
    pub seed: u64,
    /// How the sample was made, as the program that made it says it; for people.
    pub settings: Value,
}

/// The bytes of an id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    piece: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Where the id's bytes are no text by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<u8>>,
}

impl Piece {
    fn new(piece: u32, bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { piece, text: Some(text), bytes: None },
            Err(error) => Self { piece, text: None, bytes: Some(error.into_bytes()) },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Timed {
    #[serde(flatten)]
    event: Event,
    ms: f64,
    state: String,
}

/// The lines of a trace, without their sums: what a stream carries.
pub struct TraceLines<P> {
    piece: P,
    state: State,
    seen: Vec<bool>,
}

impl<P: Fn(u32) -> Vec<u8>> TraceLines<P> {
    /// Nothing has happened. `mask` is the id of the mask, `piece` gives the bytes of an id.
    pub fn new(mask: u32, piece: P) -> Self {
        Self { piece, state: State::new(mask), seen: Vec::new() }
    }

    /// The lines of an event that comes so many milliseconds after the first: pieces not yet known, and the event. Objects in JSON.
    ///
    /// # Errors
    /// An event that contradicts what stands.
    pub fn of(&mut self, event: &Event, ms: f64) -> Result<Vec<String>> {
        self.state.apply(event)?;
        let mut lines = Vec::new();
        for id in ids_of(event) {
            let index = id as usize;
            if self.seen.get(index) == Some(&true) {
                continue;
            }
            self.seen.resize(self.seen.len().max(index + 1), false);
            self.seen[index] = true;
            lines.push(json(&Piece::new(id, (self.piece)(id)))?);
        }
        let ms = (ms * 1000.0).round() / 1000.0;
        lines.push(json(&Timed { event: event.clone(), ms, state: format!("{:016x}", self.state.hash()) })?);
        Ok(lines)
    }
}

/// The line that gives the bytes of an id: an object in JSON, without a sum.
pub fn piece_line(id: u32, bytes: Vec<u8>) -> String {
    serde_json::to_string(&Piece::new(id, bytes)).unwrap_or_default()
}

fn json(line: &impl Serialize) -> Result<String> {
    serde_json::to_string(line).map_err(|e| Error::Run(format!("the trace: {e}")))
}

/// Writes a trace as its events happen. A failure to write stops the sample.
pub struct TraceWriter<W, P> {
    out: W,
    lines: TraceLines<P>,
    sum: u64,
    clock: Clock,
    failure: Option<Error>,
}

/// Milliseconds since the first event.
type Clock = Box<dyn FnMut() -> f64>;

impl<W: Write, P: Fn(u32) -> Vec<u8>> TraceWriter<W, P> {
    /// Begins a trace. `piece` gives the bytes of an id, `clock` the milliseconds since the sample began.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(out: W, header: &Header, piece: P, clock: impl FnMut() -> f64 + 'static) -> io::Result<Self> {
        let (lines, clock) = (TraceLines::new(header.mask, piece), Box::new(clock));
        let mut writer = Self { out, lines, sum: EMPTY, clock, failure: None };
        writer.line(serde_json::to_string(header)?)?;
        Ok(writer)
    }

    /// Ends the file; the first failure, if there was one.
    ///
    /// # Errors
    /// As said.
    pub fn close(mut self) -> Result<()> {
        match self.failure.take() {
            Some(error) => Err(error),
            None => self.out.flush().map_err(|e| Error::Run(format!("the trace: {e}"))),
        }
    }

    fn line(&mut self, mut text: String) -> io::Result<()> {
        text.pop();
        self.sum = bytes(self.sum, text.as_bytes());
        writeln!(self.out, "{text},\"sum\":\"{:016x}\"}}", self.sum)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let ms = (self.clock)();
        let lines = self.lines.of(event, ms)?;
        let written = lines.into_iter().try_for_each(|line| self.line(line));
        written.map_err(|e| Error::Run(format!("the trace: {e}")))
    }
}

impl<W: Write, P: Fn(u32) -> Vec<u8>> Sink for TraceWriter<W, P> {
    fn event(&mut self, event: &Event) -> bool {
        if self.failure.is_none() {
            self.failure = self.write(event).err();
        }
        self.failure.is_none()
    }
}

/// Every id that an event names.
fn ids_of(event: &Event) -> Vec<u32> {
    match event {
        Event::Started { prompt: ids, .. }
        | Event::BlockOpened { ids, .. }
        | Event::BlockCommitted { ids, .. }
        | Event::Retracted { ids, .. } => ids.clone(),
        Event::Edited { edits, .. } => edits
            .iter()
            .flat_map(|edit| [edit.old, edit.new].into_iter().chain(edit.alternatives.iter().map(|&(id, _)| id)))
            .collect(),
        Event::Finished { .. } => Vec::new(),
    }
}

/// A trace that was read and found sound.
#[derive(Debug)]
pub struct Trace {
    /// The first line.
    pub header: Header,
    /// The bytes of every id that occurs.
    pub pieces: BTreeMap<u32, Vec<u8>>,
    /// The events, each with its milliseconds since the first.
    pub events: Vec<(f64, Event)>,
    /// The state after the last event; not finished where the file ends early.
    pub last: State,
}

impl Trace {
    /// Reads a file; every sum, event and state is checked.
    ///
    /// # Errors
    /// A newer version; a line that is not as it was written; an event that contradicts the ones before it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(path, &file)
    }

    /// Reads bytes; `path` names them in errors.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(file).map_err(|e| {
            Error::file(path, "JSON lines in UTF-8", format!("a wrong byte at offset {}", e.valid_up_to()))
        })?;
        let mut lines = text.split_inclusive('\n').enumerate();
        let (_, first) = lines.next().ok_or_else(|| Error::file(path, "a trace", "an empty file"))?;
        // The version first: a newer one may differ in everything else.
        let version = serde_json::from_str::<Value>(first).ok().and_then(|line| line.get("bd3_trace")?.as_u64());
        match version {
            Some(VERSION) => {}
            Some(other) => {
                let hint = if other > VERSION { ": a newer bd3 can read it" } else { "" };
                let found = format!("version {other}{hint}");
                return Err(Error::file(path, format!("a trace of version {VERSION}"), found));
            }
            None => return Err(Error::file(path, "a trace (first line with \"bd3_trace\")", "something else")),
        }
        let mut sum = EMPTY;
        let header: Header = parse_line(&mut sum, first).map_err(|found| at(path, 1, &found))?;
        let last = State::new(header.mask);
        let mut trace = Self { header, pieces: BTreeMap::new(), events: Vec::new(), last };
        for (index, line) in lines {
            trace.line(&mut sum, line).map_err(|found| at(path, index + 1, &found))?;
        }
        Ok(trace)
    }

    fn line(&mut self, sum: &mut u64, line: &str) -> Result<(), String> {
        if line.starts_with("{\"piece\"") {
            let Piece { piece, text, bytes } = parse_line(sum, line)?;
            let spelled = bytes.or(text.map(String::into_bytes)).ok_or("a piece without text or bytes")?;
            self.pieces.insert(piece, spelled);
            return Ok(());
        }
        let Timed { event, ms, state } = parse_line(sum, line)?;
        if let Some(id) = ids_of(&event).into_iter().find(|id| !self.pieces.contains_key(id)) {
            return Err(format!("id {id}, whose piece did not stand before it"));
        }
        self.last.apply(&event).map_err(|error| error.to_string())?;
        let hash = format!("{:016x}", self.last.hash());
        if hash != state {
            return Err(format!("state {state:?} where the events lead to {hash}"));
        }
        self.events.push((ms, event));
        Ok(())
    }

    /// The bytes of an id; none for one that does not occur.
    pub fn piece(&self, id: u32) -> &[u8] {
        self.pieces.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The bytes of the text that is the sample's own: after the prompt, or all of it where the prompt had gaps.
    pub fn text(&self) -> Vec<u8> {
        self.last.text().iter().skip(self.last.own()).flat_map(|&id| self.piece(id).to_vec()).collect()
    }
}

/// Checks and drops the sum, then reads the line.
fn parse_line<T: for<'de> Deserialize<'de>>(sum: &mut u64, line: &str) -> Result<T, String> {
    const TAIL: usize = ",\"sum\":\"0123456789abcdef\"}\n".len();
    let body = line.len().checked_sub(TAIL).filter(|&body| line.is_char_boundary(body));
    let body = &line[..body.ok_or("a line that is cut short")?];
    *sum = bytes(*sum, body.as_bytes());
    if line[body.len()..] != format!(",\"sum\":\"{sum:016x}\"}}\n") {
        return Err("a line that is not as it was written (its sum differs)".into());
    }
    serde_json::from_str(&format!("{body}}}")).map_err(|error| error.to_string())
}

fn at(path: &Path, line: usize, found: &str) -> Error {
    Error::file(path, format!("a sound line {line}"), found.to_string())
}
