//! Multi-head attention under the block masks of training, with rotary inside, forward and backward.
//!
//! Two operations cover BD3-LM's training pass (Arriola et al. 2025, the vectorised mask) and its limits:
//! `block_causal` for the clean stream (and, with block 1 or block = length, for causal and full attention), and
//! `offset_block` for the noised stream, which sees its own noised block and the strictly earlier clean ones.
//!
//! Work is done per (sequence, head), in tiles of about 64 queries against all keys that any of them may see: products of
//! matrices, then a softmax over each row's own part. Nothing is kept for the backward pass: it computes the
//! probabilities again, which costs one product of five and saves `[batch, heads, length, keys]`.

use std::ops::Range;

use rayon::prelude::*;

use super::pieces;
use super::rotary::Rotary;
use super::simd::vectorised;
use super::tile::{Tile, causal_tiles, offset_tiles};

/// What the operations need to know of their inputs.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub length: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers of each head.
    pub head_dim: usize,
    /// Tokens of a block; divides the length.
    pub block: usize,
}

impl Shape {
    fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn rows(&self) -> usize {
        self.batch * self.length
    }

    fn check(&self, rotary: &Rotary) {
        assert!(self.block > 0 && self.length.is_multiple_of(self.block), "the block divides the length");
        assert_eq!(rotary.head_dim(), self.head_dim, "head_dim of the rotary tables");
        assert!(rotary.length() >= self.length, "the rotary tables reach to the last position");
    }
}

/// Where the keys and values of a stream lie: rows of `stride` numbers, the keys at `offset`, the values `d` after them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyValueLayout {
    /// Numbers in a row: 3d in `(q|k|v)`, 2d in `(k|v)`.
    pub stride: usize,
    /// Place of the keys in a row: d in `(q|k|v)`, 0 in `(k|v)`.
    pub offset: usize,
}

impl KeyValueLayout {
    /// Rows `(q|k|v)` of a stream of width `d`.
    pub fn qkv(d: usize) -> Self {
        Self { stride: 3 * d, offset: d }
    }

    /// Rows `(k|v)` of a stream of width `d`.
    pub fn kv(d: usize) -> Self {
        Self { stride: 2 * d, offset: 0 }
    }
}

/// Each position sees the positions of its own and all earlier blocks. `qkv [rows, 3d]` to `[rows, d]`.
pub fn block_causal(qkv: &[f32], shape: Shape, rotary: &Rotary) -> Vec<f32> {
    let d = shape.width();
    check(qkv, shape, KeyValueLayout::qkv(d), rotary);
    let tiles = causal_tiles(shape.length, shape.block);
    build_by_head(shape, 1, no_extra(shape), |head, scratch, _, out| {
        scratch.load_queries(qkv, head, rotary);
        scratch.load_past(qkv, KeyValueLayout::qkv(d), head, rotary);
        tiles.iter().for_each(|tile| scratch.forward(tile, out));
    })
}

/// From `grad [rows, d]` the gradient `[rows, 3d]` of `qkv`.
pub fn block_causal_backward(grad: &[f32], qkv: &[f32], shape: Shape, rotary: &Rotary) -> Vec<f32> {
    let d = shape.width();
    check(qkv, shape, KeyValueLayout::qkv(d), rotary);
    assert_eq!(grad.len(), shape.rows() * d, "one gradient for each output");
    let tiles = causal_tiles(shape.length, shape.block);
    build_by_head(shape, 3, no_extra(shape), |head, scratch, _, out| {
        scratch.load_queries(qkv, head, rotary);
        scratch.load_past(qkv, KeyValueLayout::qkv(d), head, rotary);
        scratch.load_grad(grad, head);
        tiles.iter().for_each(|tile| scratch.backward(tile));
        let (queries, key_values) = out.split_at_mut(shape.length);
        scratch.add_query_grad(queries, rotary);
        add_key_value_grad(&scratch.past_grad, key_values, rotary);
    })
}

/// Each noised position sees its own noised block and the clean blocks before it. `noised [rows, 3d]` and the clean keys and
/// values (laid out as `layout` says) to `[rows, d]`. Both streams have positions `0..length`.
pub fn offset_block(noised: &[f32], clean: (&[f32], KeyValueLayout), shape: Shape, rotary: &Rotary) -> Vec<f32> {
    let d = shape.width();
    check(noised, shape, KeyValueLayout::qkv(d), rotary);
    check(clean.0, shape, clean.1, rotary);
    let tiles = offset_tiles(shape.length, shape.block);
    build_by_head(shape, 1, no_extra(shape), |head, scratch, _, out| {
        scratch.load_queries(noised, head, rotary);
        scratch.load_own(noised, KeyValueLayout::qkv(d), head, rotary);
        scratch.load_past(clean.0, clean.1, head, rotary);
        tiles.iter().for_each(|tile| scratch.forward(tile, out));
    })
}

/// From `grad [rows, d]` the gradient `[rows, 3d]` of `noised`; that of the clean keys and values is added to `clean_grad`,
/// which is laid out like `clean`.
pub fn offset_block_backward(
    grad: &[f32],
    noised: &[f32],
    clean: (&[f32], KeyValueLayout),
    clean_grad: &mut [f32],
    (shape, rotary): (Shape, &Rotary),
) -> Vec<f32> {
    let d = shape.width();
    check(noised, shape, KeyValueLayout::qkv(d), rotary);
    check(clean.0, shape, clean.1, rotary);
    assert_eq!(clean_grad.len(), clean.0.len(), "the gradient is laid out like the clean keys and values");
    assert_eq!(grad.len(), shape.rows() * d, "one gradient for each output");
    let tiles = offset_tiles(shape.length, shape.block);
    let layout = clean.1;
    let extra = clean_grad.par_chunks_mut(shape.length * layout.stride);
    let extra = extra.map(|rows| rows_by_head(rows, layout, 2, shape));
    build_by_head(shape, 3, extra, |head, scratch, clean_rows, out| {
        scratch.load_queries(noised, head, rotary);
        scratch.load_own(noised, KeyValueLayout::qkv(d), head, rotary);
        scratch.load_past(clean.0, clean.1, head, rotary);
        scratch.load_grad(grad, head);
        tiles.iter().for_each(|tile| scratch.backward(tile));
        let (queries, key_values) = out.split_at_mut(shape.length);
        scratch.add_query_grad(queries, rotary);
        add_key_value_grad(&scratch.own_grad, key_values, rotary);
        add_key_value_grad(&scratch.past_grad, clean_rows, rotary);
    })
}

fn check(data: &[f32], shape: Shape, layout: KeyValueLayout, rotary: &Rotary) {
    shape.check(rotary);
    assert_eq!(data.len(), shape.rows() * layout.stride, "numbers of a stream");
    assert!(layout.offset + 2 * shape.width() <= layout.stride, "keys and values lie inside a row");
}

/// Which (sequence, head) a task works on.
#[derive(Clone, Copy)]
struct Head {
    sequence: usize,
    index: usize,
}

/// The parts of one head in the rows of one sequence, section by section: all queries, then all keys, then all values.
type HeadRows<'a> = Vec<&'a mut [f32]>;

/// Splits one sequence's rows between the heads. The heads of a section lie side by side, the sections one after the other.
fn rows_by_head(rows: &mut [f32], layout: KeyValueLayout, sections: usize, shape: Shape) -> Vec<HeadRows<'_>> {
    let mut parts: Vec<HeadRows> = (0..sections * shape.heads).map(|_| Vec::with_capacity(shape.length)).collect();
    for row in rows.chunks_exact_mut(layout.stride) {
        for (part, into) in row[layout.offset..].chunks_exact_mut(shape.head_dim).zip(&mut parts) {
            into.push(part);
        }
    }
    let mut heads: Vec<HeadRows> = (0..shape.heads).map(|_| Vec::with_capacity(sections * shape.length)).collect();
    for (i, part) in parts.into_iter().enumerate() {
        heads[i % shape.heads].extend(part);
    }
    heads
}

/// For operations that write one output only.
fn no_extra<'a>(shape: Shape) -> impl IndexedParallelIterator<Item = Vec<HeadRows<'a>>> {
    (0..shape.batch).into_par_iter().map(move |_| (0..shape.heads).map(|_| Vec::new()).collect())
}

/// A new `[rows, sections * d]`, cleared and then filled by one task for each (sequence, head); each task also gets its
/// head's part of the sequence's item of `extra`.
fn build_by_head<'a>(
    shape: Shape,
    sections: usize,
    extra: impl IndexedParallelIterator<Item = Vec<HeadRows<'a>>>,
    work: impl Fn(Head, &mut Scratch, &mut [&mut [f32]], &mut [&mut [f32]]) + Sync,
) -> Vec<f32> {
    let width = sections * shape.width();
    let layout = KeyValueLayout { stride: width, offset: 0 };
    let sequences = pieces::whole_groups(shape.batch, shape.length);
    pieces::build(&sequences, width, extra, |piece, out, extra| {
        let heads = rows_by_head(out, layout, sections, shape);
        heads.into_par_iter().zip(extra).enumerate().for_each_init(
            || Scratch::new(shape),
            |scratch, (index, (mut out, mut extra))| {
                work(Head { sequence: piece.group, index }, scratch, &mut extra, &mut out);
            },
        );
    })
}

/// Keys and values of one head, or their gradients, `[length, head_dim]` each, contiguous.
#[derive(Default)]
struct KeyValues {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// A thread's working memory for one head; what an operation does not use stays empty.
struct Scratch {
    shape: Shape,
    /// Turned and scaled by 1/sqrt(head_dim).
    queries: Vec<f32>,
    query_grad: Vec<f32>,
    /// The stream's own keys and values (`offset_block` only).
    own: KeyValues,
    own_grad: KeyValues,
    /// The keys and values that blocks see up to a limit.
    past: KeyValues,
    past_grad: KeyValues,
    out_grad: Vec<f32>,
    probabilities: Vec<f32>,
    probability_grad: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            queries: Vec::new(),
            query_grad: Vec::new(),
            own: KeyValues::default(),
            own_grad: KeyValues::default(),
            past: KeyValues::default(),
            past_grad: KeyValues::default(),
            out_grad: Vec::new(),
            probabilities: Vec::new(),
            probability_grad: Vec::new(),
            out: Vec::new(),
        }
    }

    fn len(&self) -> usize {
        self.shape.length * self.shape.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    fn load_queries(&mut self, qkv: &[f32], head: Head, rotary: &Rotary) {
        let stride = 3 * self.shape.width();
        let from = from_head(qkv, KeyValueLayout { stride, offset: 0 }, head, self.shape);
        self.queries.resize(self.len(), 0.0);
        rotary.turn(from, stride, self.scale(), &mut self.queries);
    }

    fn load_own(&mut self, data: &[f32], layout: KeyValueLayout, head: Head, rotary: &Rotary) {
        load_key_values(&mut self.own, data, layout, (head, self.shape), rotary);
    }

    fn load_past(&mut self, data: &[f32], layout: KeyValueLayout, head: Head, rotary: &Rotary) {
        load_key_values(&mut self.past, data, layout, (head, self.shape), rotary);
    }

    /// Loads the gradient of the output and clears those that are summed.
    fn load_grad(&mut self, grad: &[f32], head: Head) {
        let layout = KeyValueLayout { stride: self.shape.width(), offset: 0 };
        let len = self.len();
        copy_rows(from_head(grad, layout, head, self.shape), layout.stride, self.shape, &mut self.out_grad);
        self.query_grad.resize(len, 0.0);
        for (grad, of) in [(&mut self.own_grad, &self.own), (&mut self.past_grad, &self.past)] {
            for (grad, of) in [(&mut grad.keys, &of.keys), (&mut grad.values, &of.values)] {
                grad.clear();
                grad.resize(of.len(), 0.0);
            }
        }
    }

    fn of_tile(&self, tile: &Tile) -> Range<usize> {
        tile.rows.start * self.shape.head_dim..tile.rows.end * self.shape.head_dim
    }

    fn forward(&mut self, tile: &Tile, out: &mut [&mut [f32]]) {
        let d = self.shape.head_dim;
        let at = self.of_tile(tile);
        self.probabilities.resize(tile.rows.len() * tile.width(), 0.0);
        self.out.resize(at.len(), 0.0);
        tile.against(&self.queries[at], (&self.past.keys, &self.own.keys), d, &mut self.probabilities);
        tile.softmax(&mut self.probabilities);
        tile.weighted(&self.probabilities, (&self.past.values, &self.own.values), d, &mut self.out);
        for (from, to) in self.out.chunks_exact(d).zip(&mut out[tile.rows.clone()]) {
            to.copy_from_slice(from);
        }
    }

    /// Writes the gradient of the tile's queries and adds to those of keys and values.
    fn backward(&mut self, tile: &Tile) {
        let d = self.shape.head_dim;
        let at = self.of_tile(tile);
        let size = tile.rows.len() * tile.width();
        self.probabilities.resize(size, 0.0);
        self.probability_grad.resize(size, 0.0);
        let (queries, out_grad) = (&self.queries[at.clone()], &self.out_grad[at.clone()]);
        tile.against(queries, (&self.past.keys, &self.own.keys), d, &mut self.probabilities);
        tile.softmax(&mut self.probabilities);
        tile.against(out_grad, (&self.past.values, &self.own.values), d, &mut self.probability_grad);
        let (past_grad, own_grad) = (&mut self.past_grad, &mut self.own_grad);
        tile.spread(&self.probabilities, out_grad, d, (&mut past_grad.values, &mut own_grad.values));
        tile.score_grad(&self.probabilities, &mut self.probability_grad);
        tile.spread(&self.probability_grad, queries, d, (&mut past_grad.keys, &mut own_grad.keys));
        let query_grad = &mut self.query_grad[at];
        tile.weighted(&self.probability_grad, (&self.past.keys, &self.own.keys), d, query_grad);
    }

    fn add_query_grad(&self, out: &mut [&mut [f32]], rotary: &Rotary) {
        rotary.add_turned_back(&self.query_grad, self.scale(), out);
    }
}

/// The part of a stream that starts with one head's first row in one section.
fn from_head(data: &[f32], layout: KeyValueLayout, head: Head, shape: Shape) -> &[f32] {
    let sequence = &data[head.sequence * shape.length * layout.stride..][..shape.length * layout.stride];
    &sequence[layout.offset + head.index * shape.head_dim..]
}

/// One head's rows, made contiguous.
fn copy_rows(from: &[f32], stride: usize, shape: Shape, to: &mut Vec<f32>) {
    to.clear();
    for row in from.chunks(stride) {
        to.extend_from_slice(&row[..shape.head_dim]);
    }
}

fn load_key_values(
    into: &mut KeyValues,
    data: &[f32],
    layout: KeyValueLayout,
    (head, shape): (Head, Shape),
    rotary: &Rotary,
) {
    into.keys.resize(shape.length * shape.head_dim, 0.0);
    rotary.turn(from_head(data, layout, head, shape), layout.stride, 1.0, &mut into.keys);
    let values = KeyValueLayout { offset: layout.offset + shape.width(), ..layout };
    copy_rows(from_head(data, values, head, shape), layout.stride, shape, &mut into.values);
}

/// Adds one head's gradients to its rows, keys first, with the rotation undone.
fn add_key_value_grad(from: &KeyValues, rows: &mut [&mut [f32]], rotary: &Rotary) {
    let (keys, values) = rows.split_at_mut(rows.len() / 2);
    rotary.add_turned_back(&from.keys, 1.0, keys);
    add_rows(&from.values, values);
}

vectorised! {
    fn add_rows(from: &[f32], rows: &mut [&mut [f32]]) {
        let width = from.len() / rows.len();
        for (from, to) in from.chunks_exact(width).zip(rows) {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        }
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
