//! `--trace FILE`: a sample's events into a file while they happen. The file is begun with the first event, not before.

use std::fs::File;
use std::io::LineWriter;
use std::path::PathBuf;
use std::time::Instant;

use bd3::event::{Event, Header, Sink, TraceWriter};
use bd3::{Error, Result};

use crate::view::Spell;

/// Lines are written as they come, so that a run that is killed leaves what it had done.
type Writer<'a> = TraceWriter<LineWriter<File>, Spell<'a>>;

/// A trace on its way to a file.
pub struct Recorder<'a> {
    path: PathBuf,
    header: Header,
    spell: Spell<'a>,
    writer: Option<Writer<'a>>,
    failure: Option<Error>,
}

impl<'a> Recorder<'a> {
    /// Nothing is written yet.
    pub fn new(path: PathBuf, header: Header, spell: Spell<'a>) -> Self {
        Self { path, header, spell, writer: None, failure: None }
    }

    /// Has the file been begun?
    pub fn has_begun(&self) -> bool {
        self.writer.is_some()
    }

    fn begin(&self) -> Result<Writer<'a>> {
        let file = File::create(&self.path).map_err(|e| Error::io(&self.path, e))?;
        let start = Instant::now();
        let clock = move || start.elapsed().as_secs_f64() * 1000.0;
        let writer = TraceWriter::new(LineWriter::new(file), &self.header, self.spell, clock);
        writer.map_err(|e| Error::Run(format!("{}: the trace: {e}", self.path.display())))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The first failure; it has stopped the sample.
    pub fn close(self) -> Result<()> {
        let closed = self.writer.map_or(Ok(()), TraceWriter::close);
        let named = |error: Error| Error::Run(format!("{}: {error}", self.path.display()));
        self.failure.map_or(closed.map_err(named), Err)
    }
}

impl Sink for Recorder<'_> {
    fn event(&mut self, event: &Event) -> bool {
        if self.failure.is_none() && self.writer.is_none() {
            match self.begin() {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => self.failure = Some(error),
            }
        }
        self.failure.is_none() && self.writer.as_mut().is_some_and(|writer| writer.event(event))
    }
}
