//! The terminal view, in plain ANSI: settled text flows and scrolls like any output; below it stand the open block, as it
//! clears, and a line of figures, which are drawn anew in place. Nothing of the terminal's state is changed but the cursor's
//! place, so there is nothing to restore when the program ends early.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use bd3::event::{Event, Sink};

use super::cells::{Cell, Ink, Speller, wrap};
use super::{Page, Show, Slot, Spell};

/// Every pass is shown for one frame of a screen. A model that is faster than that waits: on a canvas it is watched.
const PACE: Duration = Duration::from_micros(16_667);
const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

/// What the canvas is drawn on.
pub struct Terminal<'a> {
    /// Columns and rows as they are now; a window may be resized at any time.
    pub size: Box<dyn Fn() -> (usize, usize) + 'a>,
    /// Whether to colour (see <https://no-color.org>).
    pub ink: Inks,
    /// Least time between two drawings; zero never waits.
    pub pace: Duration,
}

/// Whether cells are coloured by their probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inks {
    /// Yes.
    Colours,
    /// No escape sequence for colour or weight.
    None,
}

impl Terminal<'_> {
    /// The one that stdout leads to; where that is none, 80 columns are assumed.
    pub fn of_stdout() -> Self {
        let size = || match crossterm::terminal::size() {
            Ok((columns, rows)) if columns > 1 && rows > 1 => (usize::from(columns), usize::from(rows)),
            _ => (80, 24),
        };
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { size: Box::new(size), ink: if no_color { Inks::None } else { Inks::Colours }, pace: PACE }
    }
}

/// Draws one sample.
pub struct Canvas<'a, W> {
    out: W,
    terminal: Terminal<'a>,
    spell: Spell<'a>,
    page: Page,
    /// Ids of the page that `tail` holds or the terminal has scrolled away.
    settled: usize,
    speller: Speller,
    /// Settled cells of the row that is not full yet.
    tail: Vec<Cell>,
    /// Widths of the rows that the next drawing replaces.
    drawn: Vec<usize>,
    started: Instant,
    last: Option<Instant>,
    waited: Duration,
    failure: Option<io::Error>,
}

impl<'a, W: Write> Canvas<'a, W> {
    /// A canvas on `out`; `mask` is the id of the mask.
    pub fn new(out: W, terminal: Terminal<'a>, spell: Spell<'a>, mask: u32) -> Self {
        Self {
            out,
            terminal,
            spell,
            page: Page::new(mask),
            settled: 0,
            speller: Speller::default(),
            tail: Vec::new(),
            drawn: Vec::new(),
            started: Instant::now(),
            last: None,
            waited: Duration::ZERO,
            failure: None,
        }
    }

    /// Everything committed becomes text that is never drawn again.
    fn settle(&mut self) {
        let (mut cells, mut speller) = (std::mem::take(&mut self.tail), std::mem::take(&mut self.speller));
        self.spell_committed(&mut speller, &mut cells);
        (self.tail, self.speller) = (cells, speller);
        self.settled = self.page.ids().len();
    }

    fn spell_committed(&self, speller: &mut Speller, cells: &mut Vec<Cell>) {
        for (position, &id) in self.page.ids().iter().enumerate().skip(self.settled) {
            let ink = if position < self.page.given() { Ink::Given } else { Ink::Settled };
            speller.push(&(self.spell)(id), ink, cells);
        }
    }

    /// The unfinished row of settled text and everything after it.
    fn live(&self) -> Vec<Cell> {
        let (mut cells, mut speller) = (self.tail.clone(), self.speller.clone());
        self.spell_committed(&mut speller, &mut cells);
        for slot in self.page.open() {
            match *slot {
                Slot::Mask => speller.push_mask(&mut cells),
                Slot::Given(id) => speller.push(&(self.spell)(id), Ink::Given, &mut cells),
                Slot::Drawn { id, prob } => speller.push(&(self.spell)(id), Ink::Drawn(prob), &mut cells),
            }
        }
        speller.give_up(&mut cells);
        cells
    }

    /// Leaves the last drawing on the screen for as long as the pace says.
    fn wait(&mut self) {
        let left = self.last.map_or(Duration::ZERO, |last| self.terminal.pace.saturating_sub(last.elapsed()));
        std::thread::sleep(left);
        self.waited += left;
    }

    fn draw(&mut self, last: bool) -> io::Result<()> {
        self.wait();
        let (columns, height) = (self.terminal.size)();
        // A row that fills the last column leaves the cursor in a place that terminals disagree about.
        let width = columns.saturating_sub(1).max(1);
        let mut frame = String::new();
        self.erase(columns, &mut frame);
        let rows = wrap(&self.tail, width);
        let (unfinished, finished) = rows.split_last().map_or((0..0, &[][..]), |(last, rows)| (last.clone(), rows));
        for row in finished {
            self.paint(&self.tail[row.clone()], &mut frame);
            frame.push('\n');
        }
        self.tail.drain(..unfinished.start);
        if last {
            let cells = std::mem::take(&mut self.tail);
            self.paint(&cells, &mut frame);
            frame.push('\n');
        } else {
            let live = self.live();
            // What does not fit on the screen can't be drawn in place; it is shown when it has settled.
            for row in wrap(&live, width).into_iter().take(height.saturating_sub(2).max(1)) {
                let cells = &live[row];
                self.paint(cells, &mut frame);
                frame.push('\n');
                self.drawn.push(cells.iter().map(|cell| cell.width).sum());
            }
            // Three columns are left for the `^C` that a terminal echoes.
            let status: String = self.status().chars().take(width.saturating_sub(3)).collect();
            self.drawn.push(status.chars().count());
            frame += &self.inked(DIM, &status);
        }
        self.last = Some(Instant::now());
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    /// Goes back to the first row drawn and clears from there. Rows that no longer fit have been broken by the terminal.
    fn erase(&mut self, columns: usize, frame: &mut String) {
        let high: usize = self.drawn.drain(..).map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        match high {
            0 => {}
            1 => *frame += "\r\x1b[J",
            high => {
                let _ = write!(frame, "\x1b[{}A\r\x1b[J", high - 1);
            }
        }
    }

    fn paint(&self, cells: &[Cell], frame: &mut String) {
        for same in cells.chunk_by(|a, b| sgr(a.ink) == sgr(b.ink)) {
            let text: String = same.iter().map(|cell| cell.ch).collect();
            *frame += &self.inked(same.first().map_or("", |cell| sgr(cell.ink)), &text);
        }
    }

    fn inked(&self, sgr: &str, text: &str) -> String {
        match self.terminal.ink {
            Inks::Colours if !sgr.is_empty() => format!("{sgr}{text}{RESET}"),
            _ => text.to_string(),
        }
    }

    fn status(&self) -> String {
        let (passes, drawn) = (self.page.passes(), self.page.drawn());
        let per_pass = drawn as f64 / passes.max(1) as f64;
        let busy = self.started.elapsed().saturating_sub(self.waited);
        let rate = drawn as f64 / busy.as_secs_f64().max(1e-9);
        format!("block {} · pass {passes} · {per_pass:.2} tokens/pass · {rate:.0} tokens/s", self.page.blocks())
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started { .. } => {
                self.started = Instant::now();
                self.settled = 0;
            }
            Event::BlockOpened { .. } => self.settle(),
            Event::Edited { .. } | Event::Retracted { .. } => {}
            // The block stands as it was edited until the next one opens.
            Event::BlockCommitted { .. } => return Ok(()),
            Event::Finished { .. } => {
                self.settle();
                self.speller.give_up(&mut self.tail);
                return self.draw(true);
            }
        }
        self.draw(false)
    }
}

/// Colours of the terminal's own palette, so that they suit its background: red, yellow, cyan, green as the model is surer.
fn sgr(ink: Ink) -> &'static str {
    match ink {
        Ink::Settled => "",
        Ink::Given | Ink::Mask => DIM,
        Ink::Drawn(prob) if prob < 0.1 => "\x1b[31m",
        Ink::Drawn(prob) if prob < 0.5 => "\x1b[33m",
        Ink::Drawn(prob) if prob < 0.9 => "\x1b[36m",
        Ink::Drawn(_) => "\x1b[32m",
    }
}

impl<W: Write> Sink for Canvas<'_, W> {
    fn event(&mut self, event: &Event) -> bool {
        self.page.follow(event);
        if let Err(error) = self.show(event) {
            self.failure.get_or_insert(error);
        }
        self.failure.is_none()
    }
}

impl<W: Write> Show for Canvas<'_, W> {
    fn close(&mut self) -> io::Result<Duration> {
        self.failure.take().map_or(Ok(self.waited), Err)
    }
}
