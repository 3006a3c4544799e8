//! What an ink looks like: one table for what is written in plain escape codes and what is drawn with a library. The colours are
//! those of the terminal's own palette, so that they suit its background.

use ratatui::style::{Color, Modifier, Style};

use super::cells::{Cell, Ink};

/// Whether cells are coloured by their probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inks {
    /// Yes.
    Colours,
    /// No escape sequence for colour or weight.
    None,
}

impl Inks {
    /// What the user asks for (see <https://no-color.org>).
    pub fn of_environment() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if no_color { Inks::None } else { Inks::Colours }
    }

    /// The look of an ink.
    pub fn look(self, ink: Ink) -> Look {
        match self {
            Inks::Colours => Look::of(ink),
            Inks::None => Look::default(),
        }
    }
}

/// Colour and weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// One of the palette's first eight colours.
    colour: Option<u8>,
    dim: bool,
    struck: bool,
}

impl Look {
    /// Red, yellow, cyan, green as the model is surer.
    fn of(ink: Ink) -> Self {
        let plain = Self::default();
        let colour = |colour| Self { colour: Some(colour), ..plain };
        match ink {
            Ink::Settled => plain,
            Ink::Given | Ink::Mask => Self { dim: true, ..plain },
            Ink::Inserted => colour(5),
            Ink::Struck => Self { struck: true, ..plain },
            Ink::Fading => Self { struck: true, dim: true, ..plain },
            Ink::Drawn(prob) if prob < 0.1 => colour(1),
            Ink::Drawn(prob) if prob < 0.5 => colour(3),
            Ink::Drawn(prob) if prob < 0.9 => colour(6),
            Ink::Drawn(_) => colour(2),
        }
    }

    /// The escape sequence that switches to it; empty for plain text.
    pub fn sgr(self) -> String {
        let mut codes = Vec::new();
        codes.extend(self.dim.then(|| "2".to_string()));
        codes.extend(self.struck.then(|| "9".to_string()));
        codes.extend(self.colour.map(|colour| format!("3{colour}")));
        if codes.is_empty() { String::new() } else { format!("\x1b[{}m", codes.join(";")) }
    }

    /// The same for `ratatui`.
    pub fn style(self) -> Style {
        let mut style = Style::new();
        if let Some(colour) = self.colour {
            style = style.fg(PALETTE[usize::from(colour)]);
        }
        if self.dim {
            style = style.add_modifier(Modifier::DIM);
        }
        if self.struck {
            style = style.add_modifier(Modifier::CROSSED_OUT);
        }
        style
    }
}

/// Cells as text with escape codes.
pub fn paint(cells: &[Cell], inks: Inks) -> String {
    let look = |cell: &Cell| inks.look(cell.ink);
    let run = |run: &[Cell]| {
        let text: String = run.iter().map(|cell| cell.ch).collect();
        run.first().map_or(String::new(), |cell| inked(look(cell), &text))
    };
    cells.chunk_by(|a, b| look(a) == look(b)).map(run).collect()
}

/// Text in one look.
pub fn inked(look: Look, text: &str) -> String {
    let sgr = look.sgr();
    if sgr.is_empty() { text.to_string() } else { format!("{sgr}{text}{RESET}") }
}

const RESET: &str = "\x1b[0m";

const PALETTE: [Color; 8] =
    [Color::Black, Color::Red, Color::Green, Color::Yellow, Color::Blue, Color::Magenta, Color::Cyan, Color::Gray];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surer_is_greener_and_no_colour_is_plain() {
        assert_eq!(Look::of(Ink::Drawn(0.05)).sgr(), "\x1b[31m");
        assert_eq!(Look::of(Ink::Drawn(0.95)).sgr(), "\x1b[32m");
        assert_eq!(Look::of(Ink::Fading).sgr(), "\x1b[2;9m");
        assert_eq!(Look::of(Ink::Drawn(0.95)).style(), Style::new().fg(Color::Green));
        assert_eq!(Inks::None.look(Ink::Drawn(0.05)).sgr(), "");
    }
}
