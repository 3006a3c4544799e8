//! The whole terminal, for what is steered or stands side by side. The terminal is given back as it was, also after a panic.

use std::io;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use ratatui::text::{Line, Span};
use ratatui::{DefaultTerminal, Frame};

use super::Inks;
use super::cells::{Cell, Ink, shown, wrap};

/// The terminal while it is ours.
pub struct Screen {
    terminal: DefaultTerminal,
}

/// What the user pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Left arrow.
    Left,
    /// Right arrow.
    Right,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// q, Esc or Ctrl-C.
    Quit,
}

impl Screen {
    /// Takes the terminal that stdout leads to.
    pub fn open() -> io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()? })
    }

    /// Draws it anew; what has not changed is not written.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_| ())
    }

    /// Waits for a key, but not longer than this. A resized window ends the wait too.
    pub fn key(&mut self, wait: Duration) -> io::Result<Option<Key>> {
        if !poll(wait)? {
            return Ok(None);
        }
        let Event::Key(key) = read()? else { return Ok(None) };
        if key.kind == KeyEventKind::Release {
            return Ok(None);
        }
        Ok(match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char(ch) => Some(Key::Char(ch)),
            KeyCode::Left => Some(Key::Left),
            KeyCode::Right => Some(Key::Right),
            KeyCode::Home => Some(Key::Home),
            KeyCode::End => Some(Key::End),
            _ => None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Cells as lines of at most this size, so that the open block is in sight.
pub fn lines(cells: &[Cell], inks: Inks, (columns, height): (usize, usize)) -> Vec<Line<'static>> {
    let fixed = |cell: &Cell| matches!(cell.ink, Ink::Settled | Ink::Given);
    let open = cells.iter().position(|cell| !fixed(cell)).unwrap_or(cells.len());
    let rows = wrap(cells, columns.max(1));
    let line = |row: &std::ops::Range<usize>| {
        let runs = cells[row.clone()].chunk_by(|a, b| a.ink == b.ink);
        let span = |run: &[Cell]| {
            let text: String = run.iter().map(|cell| cell.ch).collect();
            Span::styled(text, inks.look(run[0].ink).style())
        };
        Line::from_iter(runs.map(span))
    };
    rows[shown(&rows, open, height)].iter().map(line).collect()
}
