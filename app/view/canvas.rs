//! The terminal view, in plain ANSI: settled text flows and scrolls like any output; below it stand the open block, as it
//! clears, and a line of figures, which are drawn anew in place. Nothing of the terminal's state is changed but the cursor's
//! place, so there is nothing to restore when the program ends early.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use bd3::event::{Event, Sink};

use super::cells::{Cell, Ink, Speller, shown, width, wrap};
use super::look::{inked, paint};
use super::words::{figures, fit_parts, fit_reason, lay, reason};
use super::{Inks, Page, Show, Slot, Spell};

/// Every pass is shown for one frame of a screen. A model that is faster than that waits: on a canvas it is watched.
pub const PACE: Duration = Duration::from_micros(16_667);

/// What the canvas is drawn on.
pub struct Terminal<'a> {
    /// Columns and rows as they are now; a window may be resized at any time.
    pub size: Box<dyn Fn() -> (usize, usize) + 'a>,
    /// Whether to colour (see <https://no-color.org>).
    pub ink: Inks,
    /// Least time between two drawings; zero never waits.
    pub pace: Duration,
}

impl Terminal<'_> {
    /// The one that stdout leads to; where that is none, 80 columns are assumed.
    pub fn of_stdout() -> Self {
        let size = || match crossterm::terminal::size() {
            Ok((columns, rows)) if columns > 1 && rows > 1 => (usize::from(columns), usize::from(rows)),
            _ => (80, 24),
        };
        Self { size: Box::new(size), ink: Inks::of_environment(), pace: PACE }
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

    /// What is committed and can't be taken back becomes text that is never drawn again.
    fn settle(&mut self) {
        let safe = self.page.safe().max(self.settled);
        let slots = self.page.slots(self.settled);
        let kept = slots.iter().filter(|slot| matches!(slot, Slot::Given(_) | Slot::Settled(_)));
        let kept: Vec<Slot> = kept.take(safe - self.settled).copied().collect();
        lay(&kept, self.spell, self.terminal.ink, &mut self.speller, &mut self.tail);
        self.settled = safe;
    }

    /// The unfinished row of settled text and everything after it; the first cell that may still change.
    fn live(&self) -> (Vec<Cell>, usize) {
        let (mut cells, mut speller) = (self.tail.clone(), self.speller.clone());
        lay(&self.page.slots(self.settled), self.spell, self.terminal.ink, &mut speller, &mut cells);
        speller.give_up(&mut cells);
        let fixed = |cell: &Cell| matches!(cell.ink, Ink::Settled | Ink::Given);
        let open = cells.iter().position(|cell| !fixed(cell)).unwrap_or(cells.len());
        (cells, open)
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
            frame += &paint(&self.tail[row.clone()], self.terminal.ink);
            frame.push('\n');
        }
        self.tail.drain(..unfinished.start);
        if last {
            let cells = std::mem::take(&mut self.tail);
            frame += &paint(&cells, self.terminal.ink);
            frame.push('\n');
        } else {
            self.draw_live((width, height), &mut frame);
        }
        self.last = Some(Instant::now());
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    fn draw_live(&mut self, (columns, height): (usize, usize), frame: &mut String) {
        let (live, open) = self.live();
        let rows = wrap(&live, columns);
        let status = self.status(columns);
        // What does not fit on the screen can't be drawn in place; it is shown when it has settled.
        let room = height.saturating_sub(1 + status.len()).max(1);
        for row in &rows[shown(&rows, open, room)] {
            let cells = &live[row.clone()];
            *frame += &paint(cells, self.terminal.ink);
            frame.push('\n');
            self.drawn.push(cells.iter().map(|cell| cell.width).sum());
        }
        for (index, line) in status.iter().enumerate() {
            *frame += if index > 0 { "\n" } else { "" };
            *frame += &inked(self.terminal.ink.look(Ink::Given), line);
            self.drawn.push(width(line));
        }
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

    /// The figures and the last reason: one line where both fit.
    fn status(&self, columns: usize) -> Vec<String> {
        let busy = self.started.elapsed().saturating_sub(self.waited);
        let figures = figures(&self.page, busy.as_secs_f64());
        // Three columns are left for the `^C` that a terminal echoes.
        let columns = columns.saturating_sub(3);
        let fitted = fit_parts(&figures, columns).to_string();
        match reason(&self.page, self.spell) {
            None => vec![fitted],
            Some(reason) if width(&figures) + 3 + width(&reason) <= columns => vec![format!("{figures} · {reason}")],
            Some(reason) => vec![fitted, fit_reason(&reason, columns)],
        }
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
