//! The canvas against a tiny virtual terminal: what a reader sees after each event.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use bd3::event::{Edit, EditKind, Event, Reason, Sink, Why};
use unicode_width::UnicodeWidthChar;

use super::Inks;
use super::Show;
use super::canvas::{Canvas, Terminal};

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
                    let digits: String = rest.clone().take_while(|ch| !ch.is_alphabetic()).collect();
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

/// Fills positions from `start` on; those of `_` stay.
fn fills(pass: u64, start: usize, text: &str) -> Event {
    let edits = (start..).zip(ids(text)).filter(|&(_, id)| id != MASK);
    Event::Edited { pass, edits: edits.map(|(position, id)| Edit::fill(position, MASK, id, 1.0)).collect() }
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
        fills(3, 4, "ca_s"),
        Event::BlockCommitted { start: 4, ids: ids("cats") },
        Event::BlockOpened { start: 8, ids: ids("____") },
        fills(4, 8, " sat"),
        Event::BlockCommitted { start: 8, ids: ids(" sat") },
        Event::Finished { length: 10, passes: 9, tokens: 7, reason: Reason::Length },
    ]
}

#[test]
fn a_block_clears_in_place_and_settled_text_flows_above_it() {
    let (shown, colours) = screens(&|| (40, 10), Inks::Colours, &story());
    let cats = ["the ▢▢▢▢", "the ▢▢t▢", "the cats", "the cats", "the cats▢▢▢▢", "the cats sat", "the cats sat"];
    let expected = [&["the", "the▢", "the ", "the "], &cats[..]].concat();
    assert_eq!(shown.len(), expected.len() + 1);
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
    // 20 cells and a line of 16 columns, each broken by the terminal into two rows: three above the cursor.
    assert!(frame.starts_with("\x1b[3A\r\x1b[J"), "{frame:?}");
}

#[test]
fn a_block_taller_than_the_screen_is_cut_until_it_settles() {
    let text = "lorem ipsum dolor sit amet ".repeat(4);
    let events = [
        Event::Started { prompt: Vec::new(), block: 108, reach: 0 },
        Event::BlockOpened { start: 0, ids: vec![MASK; 108] },
        fill(1, 0, u32::from(b'l'), 1.0),
        fills(2, 1, &text[1..]),
        Event::BlockCommitted { start: 0, ids: ids(&text) },
        Event::Finished { length: 108, passes: 2, tokens: 108, reason: Reason::Length },
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
        fill(2, 1, 0xa9, 0.5),
        Event::BlockCommitted { start: 0, ids: vec![0xc3, 0xa9] },
        Event::Finished { length: 2, passes: 2, tokens: 2, reason: Reason::Length },
    ];
    let (shown, _) = screens(&|| (20, 5), Inks::None, &events);
    assert_eq!(shown[2].trim_end(), "░▢");
    assert_eq!(shown[5], "é\n");
}

/// A sample whose model changes its mind: "the cat" -> "the dog", and takes " dog" back.
fn second_thoughts() -> Vec<Event> {
    let revise = |position: usize, (old, new): (char, char)| Edit {
        kind: EditKind::Revise,
        old: old as u32,
        old_prob: 0.12,
        why: Why::Better,
        ..Edit::fill(position, MASK, new as u32, 0.87)
    };
    let edits = vec![revise(4, ('c', 'd')), revise(5, ('a', 'o')), revise(6, ('t', 'g'))];
    vec![
        Event::Started { prompt: ids("the"), block: 7, reach: 7 },
        Event::BlockOpened { start: 0, ids: ids("the____") },
        fills(1, 3, " cat"),
        Event::Edited { pass: 2, edits },
        Event::BlockCommitted { start: 0, ids: ids("the dog") },
        Event::BlockOpened { start: 7, ids: ids("__") },
        fills(3, 7, "s."),
        Event::BlockCommitted { start: 7, ids: ids("s.") },
        Event::Retracted { start: 3, ids: ids(" dogs."), pass: 9, prob: 0.03, why: Why::Unlikely },
        Event::BlockOpened { start: 0, ids: ids("the____") },
        fills(20, 3, " end"),
        Event::BlockCommitted { start: 0, ids: ids("the end") },
        Event::Finished { length: 7, passes: 20, tokens: 4, reason: Reason::Length },
    ]
}

#[test]
fn second_thoughts_are_struck_through_and_told() {
    let events = second_thoughts();
    let (shown, _) = screens(&|| (140, 10), Inks::Colours, &events);
    let seen: Vec<&str> = shown.iter().map(|text| text.trim_end_matches('\n')).collect();
    assert_eq!(seen[3], "the cdaotg", "each token before its successor");
    assert_eq!(seen[9], "the dogs.▢▢▢▢", "what was taken back stays a while where it began");
    assert_eq!(seen[10], "the end", "nothing lingers");
    assert_eq!(shown[12], "the end\n");
    let plain = screens(&|| (140, 10), Inks::None, &events).0;
    assert_eq!(plain[3].trim_end(), "the dog", "without weights only the reason tells");
}

#[test]
fn what_may_be_taken_back_is_not_left_to_the_terminal() {
    let (shown, _) = screens(&|| (8, 12), Inks::None, &second_thoughts());
    let text: Vec<&str> = shown[12].split_whitespace().collect();
    assert_eq!(text, ["the", "end"]);
}

#[test]
fn the_last_reason_stands_beside_the_figures_or_below_them() {
    for (columns, lines) in [(120, 1), (60, 2)] {
        let terminal = Terminal { size: Box::new(move || (columns, 20)), ink: Inks::None, pace: Duration::ZERO };
        let tape = Tape::default();
        let mut canvas = Canvas::new(tape.clone(), terminal, &spell, MASK);
        second_thoughts()[..4].iter().for_each(|event| assert!(canvas.event(event)));
        let frame = tape.take();
        let drawn = &frame[frame.rfind("block ").unwrap()..];
        assert!(drawn.ends_with("revised \"t\" -> \"g\": better (.12 -> .87)"), "{drawn:?}");
        assert_eq!(drawn.lines().count(), lines, "{drawn:?}");
    }
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
