//! Block layout, and who may attend to whom. The predicates are the definition; nothing computes with a dense mask but the
//! composed form of attention and the tests.

use crate::error::{Error, Result};

/// One position of the paired pass: the noised copy of the text beside the clean one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// A position of x_t.
    Noised,
    /// A position of x_0.
    Clean,
}

/// A query or key of the paired pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which copy of the text.
    pub half: Half,
    /// Which block, from 0.
    pub block: usize,
}

/// Same copy, same block (M_BD of BD3-LM, section 3.1).
pub fn block_diagonal(query: Place, key: Place) -> bool {
    query.half == key.half && query.block == key.block
}

/// A noised query sees the clean blocks strictly before its own (M_OBC).
pub fn offset_block_causal(query: Place, key: Place) -> bool {
    query.half == Half::Noised && key.half == Half::Clean && query.block > key.block
}

/// A clean query sees the clean blocks up to its own (M_BC).
pub fn block_causal(query: Place, key: Place) -> bool {
    query.half == Half::Clean && key.half == Half::Clean && query.block >= key.block
}

/// May this query attend to this key? The union of the three.
pub fn attends(query: Place, key: Place) -> bool {
    block_diagonal(query, key) || offset_block_causal(query, key) || block_causal(query, key)
}

/// How a row of `length` tokens falls into blocks of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Tokens in a row.
    pub length: usize,
    /// Tokens in a block; divides `length`.
    pub size: usize,
}

impl Layout {
    /// Refuses a size that does not divide the length.
    ///
    /// # Errors
    /// As said; a size of 0 divides nothing.
    pub fn new(length: usize, size: usize) -> Result<Self> {
        if size == 0 || !length.is_multiple_of(size) {
            return Err(Error::value("block size", format!("a divisor of the length {length}"), size.to_string()));
        }
        Ok(Self { length, size })
    }

    /// Blocks in a row.
    pub fn blocks(self) -> usize {
        self.length / self.size
    }

    /// A position's place in the paired pass, where noised positions come first.
    pub fn place(self, index: usize) -> Place {
        let half = if index < self.length { Half::Noised } else { Half::Clean };
        Place { half, block: index % self.length / self.size }
    }

    /// How many noisable positions a block has: position 0 (bos) is never noised.
    pub fn noisable(self, block: usize) -> usize {
        if block == 0 { self.size - 1 } else { self.size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paired_mask_drawn_as_text() {
        let layout = Layout::new(4, 2).unwrap();
        let row = |q| (0..8).map(|k| if attends(layout.place(q), layout.place(k)) { '#' } else { '.' }).collect();
        let drawn: Vec<String> = (0..8).map(row).collect();
        let noised = ["##......", "##......", "..####..", "..####.."];
        let clean = ["....##..", "....##..", "....####", "....####"];
        assert_eq!(drawn, [noised, clean].concat());
    }

    #[test]
    fn a_size_that_does_not_divide_is_refused() {
        for (length, size) in [(8, 3), (8, 0), (8, 16)] {
            let message = Layout::new(length, size).unwrap_err().to_string();
            assert!(message.contains("a divisor of the length 8"), "{message}");
        }
    }
}
