//! From the bytes of tokens to cells of a terminal, and from cells to rows. A token may hold a part of a character, or several
//! characters, wide ones too; a mask is one cell. It knows no escape sequences.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

/// Stands for a position that is not known yet.
const MASK: char = '▢';
/// Stands for the same, where there was no position before.
const INSERTED: char = '⊞';
/// Stands for bytes of a character whose other bytes are not known yet.
const PARTIAL: char = '░';
const TAB: usize = 4;

/// What a cell means; the canvas picks a colour for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ink {
    /// Final text.
    Settled,
    /// The prompt.
    Given,
    /// Not known yet.
    Mask,
    /// The same, where there was no position before.
    Inserted,
    /// Taken away just now.
    Struck,
    /// Taken away, and soon gone.
    Fading,
    /// In the open block, with its probability.
    Drawn(f32),
}

/// One character on the screen; a combining one has width 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The character; `\n` ends a row.
    pub ch: char,
    /// Columns that it takes.
    pub width: usize,
    /// What it means.
    pub ink: Ink,
}

/// Joins the bytes of tokens to characters. Bytes of a character that is still incomplete wait for the next token.
#[derive(Clone, Debug, Default)]
pub struct Speller {
    waiting: Vec<u8>,
    ink: Option<Ink>,
}

impl Speller {
    /// Adds the bytes of one token.
    pub fn push(&mut self, bytes: &[u8], ink: Ink, cells: &mut Vec<Cell>) {
        for &byte in bytes {
            let first = *self.ink.get_or_insert(ink);
            self.waiting.push(byte);
            match std::str::from_utf8(&self.waiting) {
                Ok(text) => {
                    cells.extend(text.chars().flat_map(|ch| cells_of(ch, first)));
                    self.clear();
                }
                Err(error) if error.error_len().is_some() => {
                    // The byte ends what waited before it, and may begin a character itself.
                    let alone = self.waiting.len() == 1;
                    self.give_up(cells);
                    if !alone {
                        self.push(&[byte], ink, cells);
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Adds a mask. What waits can't be completed for now.
    pub fn push_mask(&mut self, ink: Ink, cells: &mut Vec<Cell>) {
        self.give_up(cells);
        let ch = if ink == Ink::Inserted { INSERTED } else { MASK };
        cells.push(Cell { ch, width: 1, ink });
    }

    /// Shows what waits as one character that is not known.
    pub fn give_up(&mut self, cells: &mut Vec<Cell>) {
        if let Some(ink) = self.ink {
            let ch = if matches!(ink, Ink::Settled | Ink::Given) { char::REPLACEMENT_CHARACTER } else { PARTIAL };
            cells.push(Cell { ch, width: 1, ink });
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.ink = None;
    }
}

/// A character as cells. Control characters must not reach the terminal.
fn cells_of(ch: char, ink: Ink) -> impl Iterator<Item = Cell> {
    let (ch, count) = match ch {
        '\n' => ('\n', 1),
        '\r' => ('\r', 0),
        '\t' => (' ', TAB),
        ch if ch.is_control() => (char::REPLACEMENT_CHARACTER, 1),
        ch => (ch, 1),
    };
    std::iter::repeat_n(Cell { ch, width: ch.width().unwrap_or(0), ink }, count)
}

/// Breaks cells into rows of at most `columns`, at spaces where possible; a space that does not fit is dropped with the break.
/// All rows but the last stay as they are when cells are added.
pub fn wrap(cells: &[Cell], columns: usize) -> Vec<Range<usize>> {
    let mut rows = Vec::new();
    let (mut start, mut used, mut seam) = (0, 0, None);
    for (at, cell) in cells.iter().enumerate() {
        let full = used + cell.width > columns && at > start;
        if cell.ch == '\n' || (full && cell.ch == ' ') {
            rows.push(start..at);
            (start, used, seam) = (at + 1, 0, None);
            continue;
        }
        if full {
            let end = seam.take().unwrap_or(at);
            rows.push(start..end);
            start = end;
            used = cells[start..at].iter().map(|cell| cell.width).sum();
        }
        used += cell.width;
        if cell.ch == ' ' || cell.width > 1 || matches!(cell.ink, Ink::Mask | Ink::Inserted) {
            seam = Some(at + 1);
        }
    }
    rows.push(start..cells.len());
    rows
}

/// Which of these rows are shown where only `height` fit: the last ones, but from `first`, that of the first open cell, on.
pub fn shown(rows: &[Range<usize>], first: usize, height: usize) -> Range<usize> {
    let open = rows.iter().rposition(|row| row.start <= first).unwrap_or(0);
    let top = rows.len().saturating_sub(height).min(open);
    top..rows.len().min(top + height)
}

/// As much of a line as fits into so many columns.
pub fn fit(line: &str, columns: usize) -> String {
    let mut used = 0;
    let fits = |ch: &char| {
        used += ch.width().unwrap_or(0);
        used <= columns
    };
    line.chars().take_while(fits).collect()
}

/// Columns that a line takes.
pub fn width(line: &str) -> usize {
    line.chars().map(|ch| ch.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spell(parts: &[&[u8]], ink: Ink) -> String {
        let (mut speller, mut cells) = (Speller::default(), Vec::new());
        parts.iter().for_each(|part| speller.push(part, ink, &mut cells));
        speller.give_up(&mut cells);
        cells.iter().map(|cell| cell.ch).collect()
    }

    fn rows(text: &str, columns: usize) -> Vec<String> {
        let mut cells = Vec::new();
        Speller::default().push(text.as_bytes(), Ink::Settled, &mut cells);
        wrap(&cells, columns).into_iter().map(|row| cells[row].iter().map(|cell| cell.ch).collect()).collect()
    }

    #[test]
    fn a_character_may_be_spread_over_tokens() {
        assert_eq!(spell(&[b"na", &[0xc3], &[0xaf], b"ve"], Ink::Settled), "naïve");
        assert_eq!(spell(&[&[0xe4, 0xb8]], Ink::Drawn(1.0)), "░");
        assert_eq!(spell(&[&[0xe4, 0xb8], b"x", &[0xff]], Ink::Settled), "\u{fffd}x\u{fffd}");
        assert_eq!(spell(&[b"\x1b[2J\ta"], Ink::Settled), "\u{fffd}[2J    a");
    }

    #[test]
    fn rows_break_at_spaces_and_wide_characters_count_twice() {
        assert_eq!(rows("the cat sat", 7), ["the cat", "sat"]);
        assert_eq!(rows("the cats sat", 7), ["the ", "cats ", "sat"]);
        assert_eq!(rows("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(rows("日本語", 4), ["日本", "語"]);
        assert_eq!(rows("a\n\nb\n", 4), ["a", "", "b", ""]);
    }

    #[test]
    fn the_open_block_stays_in_sight() {
        let rows: Vec<Range<usize>> = (0..10).map(|row| row * 5..row * 5 + 5).collect();
        assert_eq!(shown(&rows, 43, 4), 6..10);
        assert_eq!(shown(&rows, 22, 4), 4..8, "a block of many rows from its first one on");
        assert_eq!(shown(&rows, 22, 20), 0..10);
        assert_eq!(shown(&rows[..1], 0, 4), 0..1);
        assert_eq!((fit("a日本", 4).as_str(), fit("a日本", 5).as_str(), width("a日本")), ("a日", "a日本", 5));
    }

    proptest! {
        #[test]
        fn settled_bytes_read_as_lossy_utf8(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text: String = String::from_utf8_lossy(&bytes).chars().filter(|&c| !c.is_control()).collect();
            let clean: Vec<u8> = text.clone().into_bytes();
            prop_assert_eq!(spell(&[&clean[..clean.len() / 2], &clean[clean.len() / 2..]], Ink::Settled), text);
        }

        #[test]
        fn finished_rows_stay(text in "[a-c日 \n]{0,60}", more in "[a-c日 \n]{0,20}", columns in 2usize..9) {
            let (before, after) = (rows(&text, columns), rows(&(text.clone() + &more), columns));
            prop_assert_eq!(&before[..before.len() - 1], &after[..before.len() - 1]);
        }
    }
}
