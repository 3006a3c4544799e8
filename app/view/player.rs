//! A trace under the keys: which of its events have happened at a time, and what that looks like. It reads no clock and no keys.

use std::time::Duration;

use bd3::event::Trace;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::cells::{Ink, Speller, fit};
use super::screen::{Key, lines};
use super::words::{figures, fit_parts, fit_reason, lay, reason};
use super::{Inks, Page};

const FASTEST: f64 = 64.0;
const SLOWEST: f64 = 1.0 / 64.0;
const KEYS: &str = "space pause · ←/→ event · home/end · +/- speed · q quit";

/// Where a replay stands.
pub struct Player<'a> {
    trace: &'a Trace,
    page: Page,
    /// Events that have happened.
    at: usize,
    /// Milliseconds of the recording that have passed.
    clock: f64,
    speed: f64,
    paused: bool,
}

impl<'a> Player<'a> {
    /// At the beginning, so many times as fast as recorded; at the end where `speed` is 0.
    pub fn new(trace: &'a Trace, speed: f64) -> Self {
        let page = Page::new(trace.header.mask);
        let mut player = Self { trace, page, at: 0, clock: 0.0, speed, paused: false };
        if speed == 0.0 {
            player.speed = 1.0;
            player.jump(trace.events.len());
        }
        player
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        if self.paused || self.at == self.trace.events.len() {
            return;
        }
        self.clock += time.as_secs_f64() * 1000.0 * self.speed;
        while let Some((ms, event)) = self.trace.events.get(self.at).filter(|(ms, _)| *ms <= self.clock) {
            self.page.follow(event);
            self.at += 1;
            if self.at == self.trace.events.len() {
                self.clock = *ms;
            }
        }
    }

    /// How long nothing will happen without a key.
    pub fn idle(&self) -> Duration {
        const LONGEST: Duration = Duration::from_millis(250);
        match self.trace.events.get(self.at) {
            Some((ms, _)) if !self.paused => {
                let left = ((ms - self.clock) / self.speed / 1000.0).max(0.0);
                Duration::try_from_secs_f64(left).map_or(LONGEST, |left| left.min(LONGEST))
            }
            _ => LONGEST,
        }
    }

    /// Does what a key says.
    pub fn press(&mut self, key: Key) {
        match key {
            Key::Char(' ') if self.at == self.trace.events.len() => {
                self.jump(0);
                self.paused = false;
            }
            Key::Char(' ') => self.paused = !self.paused,
            Key::Left => self.step(self.at.saturating_sub(1)),
            Key::Right => self.step(self.at + 1),
            Key::Home => self.step(0),
            Key::End => self.step(self.trace.events.len()),
            Key::Char('+' | '=') => self.speed = (self.speed * 2.0).min(FASTEST),
            Key::Char('-') => self.speed = (self.speed / 2.0).max(SLOWEST),
            Key::Char(_) | Key::Quit => {}
        }
    }

    fn step(&mut self, at: usize) {
        self.paused = true;
        self.jump(at);
    }

    /// Stands after so many events. What lies before is told again: a page can't go back.
    fn jump(&mut self, at: usize) {
        let at = at.min(self.trace.events.len());
        if at < self.at {
            self.page = Page::new(self.trace.header.mask);
            self.at = 0;
        }
        for (_, event) in &self.trace.events[self.at..at] {
            self.page.follow(event);
        }
        self.at = at;
        self.clock = at.checked_sub(1).map_or(0.0, |last| self.trace.events[last].0);
    }

    /// Draws what stands: the text, where the replay is, the figures and the last reason, the keys.
    pub fn draw(&self, frame: &mut Frame, inks: Inks) {
        let areas: [_; 2] = Layout::vertical([Constraint::Min(1), Constraint::Length(4)]).areas(frame.area());
        let spell = |id| self.trace.piece(id).to_vec();
        let (mut speller, mut cells) = (Speller::default(), Vec::new());
        lay(&self.page.slots(0), &spell, inks, &mut speller, &mut cells);
        speller.give_up(&mut cells);
        let size = (usize::from(areas[0].width), usize::from(areas[0].height));
        frame.render_widget(Paragraph::new(lines(&cells, inks, size)), areas[0]);
        let parts = |line: &str| fit_parts(line, size.0).to_string();
        let foot = [
            parts(&figures(&self.page, self.clock / 1000.0)),
            fit_reason(&reason(&self.page, &spell).unwrap_or_default(), size.0),
            parts(&self.place()),
            fit(KEYS, size.0),
        ];
        let dim = inks.look(Ink::Given).style();
        let foot: Vec<Line> = foot.into_iter().map(|line| Line::styled(line, dim)).collect();
        frame.render_widget(Paragraph::new(foot), areas[1]);
    }

    fn place(&self) -> String {
        let events = &self.trace.events;
        let end = events.last().map_or(0.0, |(ms, _)| ms / 1000.0);
        let state = match () {
            () if self.at < events.len() && self.paused => "paused",
            () if self.at < events.len() => "playing",
            () if self.trace.last.is_finished() => "the end",
            () => "cut short here",
        };
        let (at, clock, speed) = (self.at, self.clock / 1000.0, self.speed);
        format!("{state} · event {at}/{} · {clock:.2}/{end:.2} s · {speed}x", events.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bd3::event::{Edit, Event, Header, Reason, Sink, TraceWriter, VERSION};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::path::Path;

    const M: u32 = 300;

    /// "abcd" in two passes; one event every 10 ms.
    fn trace(events: usize) -> Trace {
        let edits = |pass, ids: &[(usize, u8)]| {
            let edits = ids.iter().map(|&(position, id)| Edit::fill(position, M, id.into(), 0.5)).collect();
            Event::Edited { pass, edits }
        };
        let all = [
            Event::Started { prompt: vec![0], block: 4, reach: 0 },
            Event::BlockOpened { start: 1, ids: vec![M; 4] },
            edits(1, &[(2, b'b'), (3, b'c')]),
            edits(2, &[(1, b'a'), (4, b'd')]),
            Event::BlockCommitted { start: 1, ids: b"abcd".map(u32::from).to_vec() },
            Event::Finished { length: 5, passes: 2, tokens: 4, reason: Reason::Length },
        ];
        let header = Header {
            version: VERSION,
            model: "none".into(),
            tokenizer: "none".into(),
            mask: M,
            seed: 0,
            settings: serde_json::Value::Null,
        };
        let spell =
            |id: u32| u8::try_from(id).map(|byte| if byte == 0 { vec![] } else { vec![byte] }).unwrap_or_default();
        let (mut file, mut ms) = (Vec::new(), -10.0);
        let clock = move || {
            ms += 10.0;
            ms
        };
        let mut writer = TraceWriter::new(&mut file, &header, spell, clock).unwrap();
        all[..events].iter().for_each(|event| assert!(writer.event(event)));
        writer.close().unwrap();
        Trace::parse(Path::new("t"), &file).unwrap()
    }

    fn rows(player: &Player, size: (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| player.draw(frame, Inks::Colours)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string();
        (0..size.1).map(row).collect()
    }

    #[test]
    fn time_and_keys_move_through_a_trace() {
        let trace = trace(6);
        let mut player = Player::new(&trace, 2.0);
        let text = |player: &Player| rows(player, (60, 6))[0].clone();
        assert_eq!(text(&player), "");
        player.advance(Duration::from_millis(10));
        assert_eq!((text(&player).as_str(), player.at), ("▢bc▢", 3), "20 ms of the recording");
        assert_eq!(player.idle(), Duration::from_millis(5));
        player.press(Key::Right);
        assert_eq!((text(&player).as_str(), player.paused), ("abcd", true));
        player.advance(Duration::from_secs(9));
        assert_eq!(player.at, 4, "paused");
        player.press(Key::Left);
        player.press(Key::Left);
        assert_eq!(text(&player), "▢▢▢▢");
        player.press(Key::Char(' '));
        player.advance(Duration::from_secs(9));
        assert_eq!(rows(&player, (60, 6))[4], "the end · event 6/6 · 0.05/0.05 s · 2x");
        player.press(Key::Home);
        assert_eq!((player.at, text(&player).as_str()), (0, ""));
        player.press(Key::End);
        player.press(Key::Char(' '));
        assert_eq!((player.at, player.paused), (0, false), "once more from the beginning");
        (0..99).for_each(|_| player.press(Key::Char('+')));
        assert_eq!(player.speed, FASTEST);
    }

    #[test]
    fn speed_0_is_the_end_and_a_cut_trace_says_so() {
        let trace = trace(3);
        let player = Player::new(&trace, 0.0);
        let rows = rows(&player, (72, 8));
        assert_eq!(rows[0], "▢bc▢");
        assert_eq!(rows[6], "cut short here · event 3/3 · 0.02/0.02 s · 1x");
        assert_eq!(rows[7], KEYS);
    }

    #[test]
    fn a_tiny_window_is_no_failure() {
        let trace = trace(6);
        for size in [(1, 1), (2, 3), (9, 5)] {
            assert_eq!(rows(&Player::new(&trace, 0.0), size).len(), usize::from(size.1));
        }
    }
}
