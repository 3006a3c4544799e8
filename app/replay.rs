//! `bd3 replay`: a trace shown again, without the model. On a terminal it takes the whole of it and obeys keys.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bd3::event::{Sink, Trace};
use bd3::{Error, Result};
use clap::{Args, ValueEnum};

use crate::interrupt;
use crate::view::{self, Canvas, Inks, Key, Player, Screen, Show, Terminal, View};

/// Show a trace of `bd3 sample --trace` again, without the model
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  bd3 replay story.jsonl --speed 0.1\n\nKeys: space pauses, left and right step by one \
                        event, home, end, + and - for the speed, q quits."
)]
pub struct ReplayArgs {
    /// The trace
    trace: PathBuf,
    /// How it is shown; default: canvas on a terminal, text on a pipe
    #[arg(long, value_enum)]
    view: Option<ReplayView>,
    /// How many times as fast as recorded; 0: the end at once
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 1.0)]
    speed: f64,
}

/// The views that a trace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReplayView {
    /// Event by event
    Canvas,
    /// Exactly the final text
    Text,
}

/// Runs the command.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    if !(args.speed >= 0.0 && args.speed.is_finite()) {
        return Err(Error::value("--speed", "a number of at least 0", args.speed.to_string()).into());
    }
    let (trace, whole) = read(&args.trace)?;
    let terminal = View::of_stdout() == View::Canvas;
    match args.view {
        Some(ReplayView::Text) => view::print(&view::lossy(trace.text()))?,
        None if !terminal => view::print(&view::lossy(trace.text()))?,
        _ if terminal => play(&trace, args.speed)?,
        _ => flow(&trace, args.speed)?,
    }
    if trace.last.is_finished() && whole {
        return Ok(());
    }
    let (path, events) = (args.trace.display(), trace.events.len());
    Err(Error::Run(format!("{path}: expected a trace to its sample's end, found one cut short after {events} events or followed by half a line"))
        .into())
}

/// A trace, as far as it goes, and whether its last line is whole: one that is not was being written when its run ended.
fn read(path: &Path) -> Result<(Trace, bool)> {
    let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let whole = file.iter().rposition(|&byte| byte == b'\n').map_or(file.len(), |last| last + 1);
    Ok((Trace::parse(path, &file[..whole])?, whole == file.len()))
}

/// On the whole terminal, until q.
fn play(trace: &Trace, speed: f64) -> anyhow::Result<()> {
    interrupt::watch_screen()?;
    let inks = Inks::of_environment();
    let (mut screen, mut player) = (Screen::open()?, Player::new(trace, speed));
    let mut last = Instant::now();
    while !interrupt::asked() {
        screen.draw(|frame| player.draw(frame, inks))?;
        let key = screen.key(player.idle())?;
        player.advance(last.elapsed());
        last = Instant::now();
        match key {
            Some(Key::Quit) => break,
            Some(key) => player.press(key),
            None => {}
        }
    }
    Ok(())
}

/// As `bd3 sample` would have drawn it.
fn flow(trace: &Trace, speed: f64) -> anyhow::Result<()> {
    interrupt::watch()?;
    let spell = |id| trace.piece(id).to_vec();
    let terminal = Terminal { pace: Duration::ZERO, ..Terminal::of_stdout() };
    let mut canvas = Canvas::new(std::io::stdout(), terminal, &spell, trace.header.mask);
    let start = Instant::now();
    for (ms, event) in &trace.events {
        let due = Duration::try_from_secs_f64(ms / speed / 1000.0).unwrap_or_default();
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        if !canvas.event(event) || interrupt::asked() {
            break;
        }
    }
    canvas.close()?;
    Ok(())
}
