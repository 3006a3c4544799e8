//! Samples side by side on the whole terminal: one lane each, its text above its figures.

use bd3::event::Reason;
use ratatui::Frame;
use ratatui::layout::{Constraint, Direction, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

use super::cells::{Ink, Speller};
use super::screen::lines;
use super::words::{fit_parts, lay};
use super::{Inks, Page, Spell};

/// From so many columns on, lanes stand beside each other.
const WIDE: u16 = 100;

/// What a lane shows.
pub struct LaneView<'a> {
    /// Its name.
    pub title: String,
    /// Its text so far.
    pub page: &'a Page,
    /// Time of its own.
    pub seconds: f64,
    /// Why it ended; `None` while it runs.
    pub reason: Option<Reason>,
}

/// Draws lanes side by side, or stacked where the window is narrow.
pub fn draw_lanes(frame: &mut Frame, lanes: &[LaneView], spell: Spell, inks: Inks) {
    let direction = if frame.area().width >= WIDE { Direction::Horizontal } else { Direction::Vertical };
    let areas = Layout::new(direction, lanes.iter().map(|_| Constraint::Fill(1))).split(frame.area());
    for (lane, &area) in lanes.iter().zip(areas.iter()) {
        draw_lane(frame, area, lane, (spell, inks));
    }
}

fn draw_lane(frame: &mut Frame, area: Rect, lane: &LaneView, (spell, inks): (Spell, Inks)) {
    let dim = inks.look(Ink::Given).style();
    let border = Block::bordered().title(title(lane)).border_style(dim);
    let inner = border.inner(area);
    frame.render_widget(border, area);
    let [text, foot]: [Rect; 2] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(inner);
    let (mut speller, mut cells) = (Speller::default(), Vec::new());
    lay(&lane.page.slots(0), spell, inks, &mut speller, &mut cells);
    speller.give_up(&mut cells);
    let size = (usize::from(text.width), usize::from(text.height));
    frame.render_widget(Paragraph::new(lines(&cells, inks, size)), text);
    frame.render_widget(Line::styled(fit_parts(&figures(lane), size.0).to_string(), dim), foot);
}

fn title(lane: &LaneView) -> String {
    format!(" {}{} ", lane.title, if lane.reason.is_some() { " · done" } else { "" })
}

fn figures(lane: &LaneView) -> String {
    let (passes, drawn) = (lane.page.passes(), lane.page.drawn());
    let rate = drawn as f64 / lane.seconds.max(1e-9);
    format!("{passes} passes · {:.2} s · {rate:.0} tokens/s", lane.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bd3::event::{Edit, Event};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const M: u32 = 300;

    fn spell(id: u32) -> Vec<u8> {
        u8::try_from(id).map(|byte| vec![byte]).unwrap_or_default()
    }

    fn page(text: &[u8]) -> Page {
        let mut page = Page::new(M);
        page.follow(&Event::Started { prompt: vec![299], block: 4, reach: 0 });
        page.follow(&Event::BlockOpened { start: 1, ids: vec![M; 8] });
        let edits = (1..).zip(text).map(|(position, &id)| Edit::fill(position, M, id.into(), 0.5)).collect();
        page.follow(&Event::Edited { pass: 1, edits });
        page
    }

    fn rows(size: (u16, u16)) -> Vec<String> {
        let pages = [page(b"one"), page(b"two..")];
        let view = |(index, page)| LaneView {
            title: format!("block {index}"),
            page,
            seconds: 0.5,
            reason: (index > 0).then_some(Reason::Length),
        };
        let lanes: Vec<LaneView> = pages.iter().enumerate().map(view).collect();
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal.draw(|frame| draw_lanes(frame, &lanes, &spell, Inks::Colours)).unwrap();
        let buffer = terminal.backend().buffer();
        (0..size.1).map(|y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect()).collect()
    }

    #[test]
    fn lanes_stand_side_by_side_where_there_is_room() {
        let wide = rows((120, 8));
        assert!(wide[0].contains("block 0") && wide[0].contains("block 1"), "{}", wide[0]);
        assert!(wide[1].contains("one▢▢▢▢▢") && wide[1].contains("two..▢▢▢"), "{}", wide[1]);
        assert!(wide[6].contains("1 passes · 0.50 s · 6 tokens/s") && wide[6].contains("10 tokens/s"));
        assert!(wide[0].contains("block 1 · done") && !wide[0].contains("block 0 · done"));
        let narrow = rows((60, 12));
        assert!(narrow[1].contains("one▢") && narrow[7].contains("two..▢"), "{narrow:?}");
    }

    #[test]
    fn a_tiny_window_is_no_failure() {
        for size in [(1, 1), (5, 2), (100, 1)] {
            assert_eq!(rows(size).len(), usize::from(size.1));
        }
    }
}
