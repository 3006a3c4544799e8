//! The canvas against a tiny virtual terminal: what a reader sees after each event.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use bd3::event::{Edit, Event, Reason, Sink};
use unicode_width::UnicodeWidthChar;

use super::Show;
use super::canvas::{Canvas, Inks, Terminal};

const MASK: u32 = 300;

/// Understands what the canvas writes: text, `\n`, `\r`, cursor up, clear below, colours. Keeps what has scrolled away.
struct Screen {
    lines: Vec<String>,
    row: usize,
    column: usize,
    size: (usize, usize),
    colours: usize,
}

impl Screen {
    fn new(size: (usize, usize)) -> Self {
        Self { lines: vec![String::new()], row: 0, column: 0, size, colours: 0 }
    }

    fn feed(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(ch) = rest.next() {
            match ch {
                '\n' => self.line_feed(),
                '\r' => self.column = 0,
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['));
                    let digits: String = rest.clone().take_while(char::is_ascii_digit).collect();
                    let command = rest.nth(digits.len());
                    self.command(command.unwrap(), digits.parse().unwrap_or(0));
                }
                ch => self.put(ch),
            }
        }
    }

    fn command(&mut self, command: char, number: usize) {
        match command {
            'A' => {
                assert!(self.row - number >= self.lines.len().saturating_sub(self.size.1), "above the screen's top");
                self.row -= number;
            }
            'J' => {
                assert_eq!(self.column, 0);
                self.lines.truncate(self.row + 1);
                self.lines[self.row].clear();
            }
            'm' => self.colours += 1,
            other => panic!("unknown sequence {other}"),
        }
    }

    fn line_feed(&mut self) {
        (self.row, self.column) = (self.row + 1, 0);
        if self.row == self.lines.len() {
            self.lines.push(String::new());
        }
    }

    fn put(&mut self, ch: char) {
        let width = ch.width().unwrap_or(0);
        if self.column + width > self.size.0 {
            self.line_feed();
        }
        self.lines[self.row].push(ch);
        self.column += width;
    }

    /// All lines but the one of figures.
    fn text(&self) -> String {
        let lines: Vec<&str> =
            self.lines.iter().map(String::as_str).filter(|line| !line.starts_with("block ")).collect();
        lines.join("\n")
    }
}

/// What the canvas has written since it was last read.
#[derive(Clone, Default)]
struct Tape(Rc<RefCell<Vec<u8>>>);

impl Tape {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.borrow_mut())).unwrap()
    }
}

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn spell(id: u32) -> Vec<u8> {
    u8::try_from(id).map(|byte| vec![byte]).unwrap_or_default()
}

fn ids(text: &str) -> Vec<u32> {
    text.chars()
        .flat_map(|ch| if ch == '_' { vec![MASK] } else { ch.to_string().bytes().map(u32::from).collect() })
        .collect()
}

fn fill(pass: u64, position: usize, token: u32, prob: f32) -> Event {
    let edit = Edit::fill(position, MASK, token, prob);
    Event::Edited { pass, edits: vec![edit] }
}

/// What stands on a screen of this size after each event.
fn screens(size: &dyn Fn() -> (usize, usize), ink: Inks, events: &[Event]) -> (Vec<String>, usize) {
    let mut screen = Screen::new(size());
    let terminal = Terminal { size: Box::new(size), ink, pace: Duration::ZERO };
    let tape = Tape::default();
    let mut canvas = Canvas::new(tape.clone(), terminal, &spell, MASK);
    let mut shown = Vec::new();
    for event in events {
        assert!(canvas.event(event));
        screen.feed(&tape.take());
        shown.push(screen.text());
    }
    canvas.close().unwrap();
    (shown, screen.colours)
}

fn story() -> Vec<Event> {
    vec![
        Event::Started { prompt: ids("the"), block: 4, reach: 0 },
        Event::BlockOpened { start: 0, ids: ids("the_") },
        fill(1, 3, 32, 0.95),
        Event::BlockCommitted { start: 0, ids: ids("the ") },
        Event::BlockOpened { start: 4, ids: ids("____") },
        fill(2, 6, u32::from(b't'), 0.2),
        Event::BlockCommitted { start: 4, ids: ids("cats") },
        Event::BlockOpened { start: 8, ids: ids("____") },
        Event::BlockCommitted { start: 8, ids: ids(" sat") },
        Event::Finished { length: 10, passes: 9, tokens: 7, reason: Reason::Length },
    ]
}

#[test]
fn a_block_clears_in_place_and_settled_text_flows_above_it() {
    let (shown, colours) = screens(&|| (40, 10), Inks::Colours, &story());
    let expected = ["the", "the▢", "the ", "the ", "the ▢▢▢▢", "the ▢▢t▢", "the ▢▢t▢", "the cats▢▢▢▢", "the cats▢▢▢▢"];
    for (shown, expected) in shown.iter().zip(expected) {
        assert_eq!(shown.trim_end_matches('\n'), expected);
    }
    assert_eq!(shown.last().unwrap(), "the cats s\n", "seven new tokens, then a fresh line");
    assert!(colours > 0);
}

#[test]
fn no_color_means_no_colour() {
    assert_eq!(screens(&|| (40, 10), Inks::None, &story()).1, 0);
}

#[test]
fn words_wrap_and_full_rows_are_left_alone() {
    let (shown, _) = screens(&|| (8, 6), Inks::None, &story());
    assert_eq!(shown.last().unwrap(), "the \ncats s\n");
}

#[test]
fn a_resized_window_is_redrawn_without_leftovers() {
    let columns = Cell::new(30);
    let size = || (columns.get(), 20);
    let terminal = Terminal { size: Box::new(size), ink: Inks::None, pace: Duration::ZERO };
    let tape = Tape::default();
    let mut canvas = Canvas::new(tape.clone(), terminal, &spell, MASK);
    canvas.event(&Event::Started { prompt: ids("once"), block: 20, reach: 0 });
    canvas.event(&Event::BlockOpened { start: 0, ids: ids("once________________") });
    tape.take();
    columns.set(10);
    canvas.event(&fill(1, 5, 32, 1.0));
    let frame = tape.take();
    // 20 cells and a line of 26 columns, broken by the terminal into two and three rows: four above the cursor.
    assert!(frame.starts_with("\x1b[4A\r\x1b[J"), "{frame:?}");
}

#[test]
fn a_block_taller_than_the_screen_is_cut_until_it_settles() {
    let text = "lorem ipsum dolor sit amet ".repeat(4);
    let events = [
        Event::Started { prompt: Vec::new(), block: 108, reach: 0 },
        Event::BlockOpened { start: 0, ids: vec![MASK; 108] },
        fill(1, 0, u32::from(b'l'), 1.0),
        Event::BlockCommitted { start: 0, ids: ids(&text) },
        Event::Finished { length: 108, passes: 1, tokens: 108, reason: Reason::Length },
    ];
    let (shown, _) = screens(&|| (12, 5), Inks::None, &events);
    assert_eq!(shown.last().unwrap().split_whitespace().count(), 20);
}

#[test]
fn characters_wait_for_their_bytes() {
    let events = [
        Event::Started { prompt: Vec::new(), block: 2, reach: 0 },
        Event::BlockOpened { start: 0, ids: vec![MASK; 2] },
        fill(1, 0, 0xc3, 0.5),
        Event::BlockCommitted { start: 0, ids: vec![0xc3, 0xa9] },
        Event::Finished { length: 2, passes: 2, tokens: 2, reason: Reason::Length },
    ];
    let (shown, _) = screens(&|| (20, 5), Inks::None, &events);
    assert_eq!(shown[2].trim_end(), "░▢");
    assert_eq!(shown[4], "é\n");
}

#[test]
fn a_terminal_that_is_gone_stops_the_sample() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let terminal = Terminal { size: Box::new(|| (20, 5)), ink: Inks::None, pace: Duration::ZERO };
    let mut canvas = Canvas::new(Gone, terminal, &spell, MASK);
    assert!(!canvas.event(&Event::Started { prompt: Vec::new(), block: 2, reach: 0 }));
    assert!(canvas.close().is_err());
}

#[test]
fn words_are_quoted_where_a_shell_would_break_them() {
    assert_eq!(super::quoted("train.steps=100"), "train.steps=100");
    assert_eq!(super::quoted("my runs/it's"), "'my runs/it'\\''s'");
}
