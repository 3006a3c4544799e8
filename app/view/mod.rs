//! What a sample looks like while it is made. Every view is a sink of events: the canvas for a terminal, plain text for a pipe,
//! and nothing at all where only the result counts. A view knows how an id is spelled, and nothing of models and samplers.

mod canvas;
mod cells;
mod lanes;
mod look;
mod page;
mod plain;
mod player;
mod screen;
#[cfg(test)]
mod tests;
mod words;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use bd3::event::{Event, Sink};

pub use canvas::{Canvas, PACE, Terminal};
pub use cells::{Ink, Speller};
pub use lanes::{LaneView, draw_lanes};
pub use look::{Inks, paint};
pub use page::{Page, Slot};
pub use plain::{Plain, lossy, take_text};
pub use player::Player;
pub use screen::{Key, Screen};

/// The bytes that an id adds to a text.
pub type Spell<'a> = &'a dyn Fn(u32) -> Vec<u8>;

/// The name of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum View {
    /// The open block is shown as it clears
    Canvas,
    /// Exactly the new text, block by block
    Text,
    /// One object per sample
    Json,
}

impl View {
    /// The canvas on a terminal that can draw, text elsewhere.
    pub fn of_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !dumb { View::Canvas } else { View::Text }
    }

    /// Opens a view of one sample on stdout; `mask` is the id of the mask.
    pub fn open<'a>(self, spell: Spell<'a>, mask: u32) -> Box<dyn Show + 'a> {
        match self {
            View::Canvas => Box::new(Canvas::new(io::stdout(), Terminal::of_stdout(), spell, mask)),
            View::Text => Box::new(Plain::new(io::stdout(), spell, mask)),
            View::Json => Box::new(Nothing),
        }
    }
}

/// A sink that shows what it takes.
pub trait Show: Sink {
    /// How long it made the sampler wait, or the first failure to write, which has stopped the sample.
    fn close(&mut self) -> io::Result<Duration>;
}

/// Shows nothing: the result is printed when the sample is done.
struct Nothing;

impl Sink for Nothing {
    fn event(&mut self, _: &Event) -> bool {
        true
    }
}

impl Show for Nothing {
    fn close(&mut self) -> io::Result<Duration> {
        Ok(Duration::ZERO)
    }
}

/// One JSON value on a line of stdout.
pub fn print_json(value: &serde_json::Value) -> io::Result<()> {
    print(&format!("{value}\n"))
}

/// Text on stdout, at once. (`print!` would panic when the reader is gone.)
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+".contains(c);
    if word.chars().all(plain) { word.to_string() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
