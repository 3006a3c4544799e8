//! From the events of a sample to what its client is told, on the model's thread. What has been told is never taken back: committed text
//! within reach of a retraction waits, and events, where they are asked for, run ahead of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Served;
use super::channel::Sender;
use super::text::Text;
use crate::view::Page;
use bd3::event::{Event, Header, Reason, Sink, TraceLines};

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its probability when it was drawn, before temperature and nucleus; none for one that was given.
    pub prob: Option<f32>,
    /// The most probable tokens there, best first.
    pub alternatives: Vec<(u32, f32)>,
}

/// What a choice has to say.
#[derive(Debug, Default)]
pub struct Delta {
    /// Which choice.
    pub index: usize,
    /// More of the text.
    pub text: String,
    /// The tokens whose text that is (characters may be shared between tokens, so that it may lag behind).
    pub tokens: Vec<Token>,
    /// More lines of the trace, where events are asked for.
    pub trace: Vec<String>,
    /// It is done.
    pub end: Option<End>,
    /// It failed.
    pub failure: Option<String>,
}

impl Delta {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        let token = |token: &Token| size_of::<Token>() + size_of_val(token.alternatives.as_slice());
        let lines: usize = self.trace.iter().map(String::len).sum();
        size_of::<Self>() + self.text.len() + lines + self.tokens.iter().map(token).sum::<usize>()
    }
}

/// How a choice ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why the sample ended; `None` where the text met a stop sequence.
    pub reason: Option<Reason>,
    /// A text of full length is whole: a constraint had it end there.
    pub whole: bool,
    /// Tokens written.
    pub tokens: usize,
    /// Forward evaluations.
    pub passes: u64,
    /// Time from the first pass to the last.
    pub seconds: f64,
}

/// What a client wants to hear.
#[derive(Clone, Debug)]
pub struct ChoiceOptions {
    /// Which choice this is.
    pub index: usize,
    /// Positions of the text that are told: from, to.
    pub range: (usize, usize),
    /// Sequences that end the text.
    pub stops: Vec<String>,
    /// Token by token.
    pub tokens: bool,
    /// Events.
    pub header: Option<Header>,
    /// It has a constraint, and so is whole where it is done.
    pub whole: bool,
    /// No longer than this.
    pub limit: Duration,
}

/// The bytes that an id adds to a text, told on another thread.
pub type Spell = Box<dyn Fn(u32) -> Vec<u8> + Send>;

/// The sink of one choice.
pub struct Relay {
    served: Arc<Served>,
    to: Sender<Delta>,
    options: ChoiceOptions,
    page: Page,
    text: Text,
    /// Positions told so far.
    told: usize,
    /// Tokens told, without those that were given, until a stop sequence was whole.
    tokens: usize,
    /// Whether an id was given, by position.
    given: Vec<bool>,
    /// What was drawn, by position.
    drawn: Vec<Option<Token>>,
    trace: Option<TraceLines<Spell>>,
    /// It has failed: nothing more is told.
    failed: bool,
    asked: Instant,
    begun: Option<Instant>,
    first_block: bool,
}

impl Relay {
    /// Tells `to` what the `options` ask for.
    pub fn new(served: Arc<Served>, to: Sender<Delta>, options: ChoiceOptions) -> Self {
        let mask = served.mask();
        let trace = options.header.as_ref().map(|_| {
            let served = served.clone();
            let spell: Spell = Box::new(move |id| served.spell(id));
            TraceLines::new(mask, spell)
        });
        Self {
            page: Page::new(mask),
            text: Text::new(options.stops.clone()),
            told: options.range.0,
            tokens: 0,
            given: Vec::new(),
            drawn: Vec::new(),
            trace,
            failed: false,
            asked: Instant::now(),
            begun: None,
            first_block: false,
            served,
            to,
            options,
        }
    }

    /// Nobody listens any more, or its time is up, or all is said.
    pub fn is_over(&self) -> bool {
        self.failed
            || self.is_gone()
            || self.text.is_stopped()
            || self.asked.elapsed() > self.options.limit
            || self.served.is_hurried()
    }

    /// Its client is so far behind that others should go first.
    pub fn is_behind(&self) -> bool {
        self.to.is_behind()
    }

    /// Nobody listens any more.
    pub fn is_gone(&self) -> bool {
        self.to.is_closed()
    }

    /// Says that it failed, once.
    pub fn fail(&mut self, failure: String) {
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        self.say(Delta { failure: Some(failure), ..Delta::default() });
    }

    /// What is given has these probabilities, by position.
    pub fn scored(&mut self, tokens: Vec<Option<Token>>) {
        self.drawn = tokens;
    }

    fn say(&self, delta: Delta) {
        let bytes = delta.bytes();
        let _ = self.to.send(Delta { index: self.options.index, ..delta }, bytes);
    }

    fn note(&mut self, event: &Event) {
        let Event::Edited { edits, .. } = event else { return };
        for edit in edits.iter().filter(|_| self.options.tokens) {
            if self.drawn.len() <= edit.position {
                self.drawn.resize(edit.position + 1, None);
            }
            let (id, prob, alternatives) = (edit.new, Some(edit.prob), edit.alternatives.clone());
            self.drawn[edit.position] = Some(Token { id, prob, alternatives });
        }
    }

    /// What is final and not yet told. A committed block may still be cut if the sample ends with it, so it waits for the next event.
    fn fresh(&mut self, delta: &mut Delta) {
        let end = self.page.safe().min(self.options.range.1);
        // Before the first id that was not given there is nothing that a stop sequence could end.
        let own = self.given.iter().position(|given| !given).unwrap_or(self.given.len());
        while self.told < end && !self.text.is_stopped() {
            let id = self.page.ids()[self.told];
            let (bytes, given) = (self.served.spell(id), self.given.get(self.told) == Some(&true));
            delta.text += &if self.told < own { self.text.echo(&bytes) } else { self.text.push(&bytes) };
            if self.options.tokens {
                let drawn = self.drawn.get_mut(self.told).and_then(Option::take).filter(|token| token.id == id);
                delta.tokens.push(drawn.unwrap_or(Token { id, prob: None, alternatives: Vec::new() }));
            }
            self.told += 1;
            self.tokens += usize::from(!given);
        }
    }

    fn end(&mut self, event: &Event, delta: &mut Delta) {
        let Event::Finished { passes, tokens, reason, .. } = event else { return };
        delta.text += &self.text.end();
        let stopped = self.text.is_stopped();
        let seconds = self.begun.map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let tokens = if stopped { self.tokens } else { *tokens };
        let reason = Some(*reason).filter(|_| !stopped);
        delta.end = Some(End { reason, whole: self.options.whole, tokens, passes: *passes, seconds });
    }

    fn lines(&mut self, event: &Event, begun: Instant) -> bd3::Result<Vec<String>> {
        let Some(trace) = &mut self.trace else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        if let (Event::Started { .. }, Some(header)) = (event, &self.options.header) {
            lines.extend(serde_json::to_string(header));
        }
        lines.extend(trace.of(event, begun.elapsed().as_secs_f64() * 1000.0)?);
        Ok(lines)
    }
}

impl Sink for Relay {
    fn event(&mut self, event: &Event) -> bool {
        if self.failed {
            return false;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let trace = match self.lines(event, begun) {
            Ok(trace) => trace,
            Err(error) => {
                // Without these lines the hashes of those that follow would be wrong.
                self.fail(format!("the trace: {error}"));
                return false;
            }
        };
        self.page.follow(event);
        self.note(event);
        let mut delta = Delta { trace, ..Delta::default() };
        match event {
            Event::Started { prompt, .. } => {
                let mask = self.served.mask();
                self.given = prompt.iter().map(|&id| id != mask).collect();
            }
            Event::BlockOpened { .. } => self.fresh(&mut delta),
            Event::BlockCommitted { .. } if !self.first_block => {
                self.first_block = true;
                self.served.metrics.first_block(self.asked.elapsed());
            }
            Event::Finished { .. } => {
                self.fresh(&mut delta);
                self.end(event, &mut delta);
            }
            _ => {}
        }
        let silent = delta.text.is_empty() && delta.tokens.is_empty() && delta.trace.is_empty() && delta.end.is_none();
        if !silent {
            self.say(delta);
        }
        !self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ServeArgs;
    use crate::serve::channel::channel;
    use bd3::event::VERSION;
    use serde_json::Value;

    #[test]
    fn an_event_that_the_trace_refuses_ends_the_choice_with_an_error() {
        let served = Arc::new(ServeArgs::bare().served(0, crate::model::open(None).unwrap()).unwrap());
        let mask = served.mask();
        let header =
            Header { version: VERSION, model: "m".into(), tokenizer: "t".into(), mask, seed: 0, settings: Value::Null };
        let options = ChoiceOptions {
            index: 3,
            range: (1, usize::MAX),
            stops: Vec::new(),
            tokens: false,
            header: Some(header),
            whole: false,
            limit: Duration::from_secs(60),
        };
        let (to, mut from) = channel();
        let mut relay = Relay::new(served, to, options);
        assert!(relay.event(&Event::Started { prompt: vec![1], block: 4, reach: 0 }));
        assert!(!relay.is_over());
        // No block is open.
        assert!(!relay.event(&Event::BlockCommitted { start: 0, ids: vec![1, 2, 3, 4] }));
        assert!(relay.is_over());
        // Its sampler is stopped, and says so.
        assert!(!relay.event(&Event::Finished { length: 1, passes: 0, tokens: 0, reason: Reason::Interrupted }));
        drop(relay);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut told = Vec::new();
        while let Some(message) = runtime.block_on(from.recv()) {
            told.push(message);
        }
        assert_eq!((told.len(), told[0].failure.is_none(), told[1].index), (2, true, 3));
        assert!(told[1].failure.as_ref().unwrap().starts_with("the trace: "), "{told:?}");
        assert!(told[1].end.is_none() && told[1].trace.is_empty());
    }
}
