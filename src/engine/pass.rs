//! One pass through the network: a few parallel loops for each layer, and nothing written that is not read again.
//!
//! A layer: norm -> q, k, v -> keys and values to the caches -> attention -> out, added to the rows -> norm -> up (and gate),
//! activation -> down, added to the rows. In the last layer the stored rows need keys and values only, so only the rows that somebody
//! asks for go on.

use std::cell::RefCell;
use std::ops::Range;

use super::attention::{Attention, ROWS, Sight};
use super::cache::{Head, KeyValues};
use super::panel::{BLOCK, OUTPUTS};
use super::plan::{Plan, Tiles};
use super::product::{Input, Product, Unpack};
use super::rows::{Finish, Finished, Forms, Inputs, Source};
use super::simd::{Isa, Kernel, LANES, Simd};
use super::team::Team;
use super::weights::{Layer, Map, Weights};
use crate::arch::Arch;
use crate::pass::Lane;

/// Numbers of a head, at most: what a tile of queries has room for.
pub const WIDEST_HEAD: usize = 256;

/// What a pass works with.
pub struct Machine {
    pub team: Team,
    pub isa: Isa,
    /// No quantised activations, and keys and values in single precision.
    pub exact: bool,
}

/// Memory that a pass needs, kept from one to the next.
#[derive(Default)]
pub struct Scratch {
    pub plan: Plan,
    inputs: Inputs,
    /// The rows, `[blocks][rows][32]`.
    x: Vec<f32>,
    /// Queries, keys, values; then the feed-forward branch: `[blocks][rows][32]`.
    wide: Vec<f32>,
    /// What attention gives, by tile `[ROWS][width]`.
    tiles: Vec<f32>,
    /// The same, `[blocks][rows][32]`.
    attended: Vec<f32>,
    /// `[panels][rows asked for][32]`
    pub logits: Vec<f32>,
}

thread_local! {
    /// A panel's product before it is finished.
    static PRODUCT: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Machine {
    /// Computes the planned rows: keys and values of the stored ones go to the caches, logits of those asked for to the scratch.
    pub fn pass(&mut self, arch: &Arch, weights: &Weights, scratch: &mut Scratch, lanes: &mut [Lane<'_, KeyValues>]) {
        self.embed(arch, weights, scratch);
        let Scratch { plan, inputs, x, wide, tiles, attended, logits } = scratch;
        let mut rows = plan.ids.len();
        for (index, layer) in weights.layers.iter().enumerate() {
            let last = index + 1 == weights.layers.len();
            let source = Source { x, rows, width: arch.hidden, norm: Some(&layer.norm1) };
            inputs.fill(&mut self.team, self.isa, Forms::of(&layer.qkv, self.exact), source);
            let columns = self.queries(arch, weights, (layer, inputs, rows), wide);
            let work = Work { arch, layer, plan, wide, columns };
            self.append(&work, lanes, index);
            let cut = if last { &plan.last } else { &plan.all };
            self.attend(&work, cut, lanes, index, tiles);
            if last {
                pick(x, rows, &plan.asked);
                rows = plan.asked.len();
            }
            if rows == 0 {
                break;
            }
            gather(&work, cut, tiles, attended);
            let source = Source { x: attended, rows, width: arch.heads * arch.head_dim(), norm: None };
            inputs.fill(&mut self.team, self.isa, Forms::of(one(&layer.out), self.exact), source);
            self.product(weights, (one(&layer.out), inputs, rows), Finish::Residual, x);
            let source = Source { x, rows, width: arch.hidden, norm: Some(&layer.norm2) };
            inputs.fill(&mut self.team, self.isa, Forms::of(&layer.up, self.exact), source);
            self.up(weights, (layer, inputs, rows), wide);
            let source = Source { x: wide, rows, width: arch.feed_forward(), norm: None };
            inputs.fill(&mut self.team, self.isa, Forms::of(one(&layer.down), self.exact), source);
            self.product(weights, (one(&layer.down), inputs, rows), Finish::Residual, x);
        }
        if rows == 0 {
            logits.clear();
        } else {
            let source = Source { x, rows, width: arch.hidden, norm: Some(&weights.norm) };
            let head = &weights.head;
            inputs.fill(&mut self.team, self.isa, Forms::of(one(head), self.exact), source);
            logits.resize(head.weights.panels() * rows * OUTPUTS, 0.0);
            self.product(weights, (one(head), inputs, rows), Finish::Bias, logits);
        }
    }

    fn embed(&mut self, arch: &Arch, weights: &Weights, scratch: &mut Scratch) {
        let (isa, map, ids) = (self.isa, &weights.embedding, &scratch.plan.ids);
        scratch.x.resize(arch.hidden.div_ceil(BLOCK) * ids.len() * BLOCK, 0.0);
        // A few rows are done before another thread wakes up to them.
        let share = if ids.len() * arch.hidden < SMALL { map.blocks() } else { 1 };
        self.team.each(&mut scratch.x, share * ids.len() * BLOCK, |chunk, out| {
            for (index, out) in out.chunks_exact_mut(ids.len() * BLOCK).enumerate() {
                for (&id, to) in ids.iter().zip(out.chunks_exact_mut(BLOCK)) {
                    let (panel, output) = (id as usize / OUTPUTS, id as usize % OUTPUTS);
                    let panel = weights.panels(map, panel..panel + 1);
                    to.copy_from_slice(&isa.run(Unpack { ty: map.ty, panel, output, block: chunk * share + index }));
                }
            }
        });
    }

    /// Queries, keys and values of all rows. Gives the columns where each begin.
    fn queries(
        &mut self,
        arch: &Arch,
        weights: &Weights,
        (layer, inputs, rows): (&Layer, &Inputs, usize),
        wide: &mut Vec<f32>,
    ) -> [usize; 3] {
        let panels: usize = layer.qkv.iter().map(|map| map.weights.panels()).sum();
        wide.resize(panels * rows * OUTPUTS, 0.0);
        let mut columns = [0; 3];
        for (index, map) in layer.qkv.iter().enumerate().take(2) {
            columns[index + 1] = columns[index] + map.weights.panels() * OUTPUTS;
        }
        self.product(weights, (&layer.qkv, inputs, rows), Finish::Bias, wide);
        match layer.qkv.len() {
            1 => [0, arch.heads * arch.head_dim(), (arch.heads + arch.kv_heads()) * arch.head_dim()],
            _ => columns,
        }
    }

    /// Rotates keys and writes them, and values, to the caches.
    fn append(&mut self, work: &Work<'_>, lanes: &mut [Lane<'_, KeyValues>], index: usize) {
        let (isa, dim) = (self.isa, work.arch.head_dim());
        let width = dim.next_multiple_of(LANES);
        for (lane, part) in lanes.iter_mut().zip(&work.plan.lanes) {
            let write = |number: usize, head: &mut Head| {
                let (mut key, mut value) = ([0.0; WIDEST_HEAD], [0.0; WIDEST_HEAD]);
                for row in part.rows.clone() {
                    let column = work.columns[1] + number * dim;
                    isa.run(Rotated {
                        work,
                        row,
                        column,
                        norm: &work.layer.qk_norm[1],
                        scale: 1.0,
                        to: &mut key[..dim],
                    });
                    work.copy(row, work.columns[2] + number * dim, &mut value[..dim]);
                    head.put(isa, work.plan.places[row].0, &key[..width], &value[..width]);
                }
            };
            let heads = lane.cache.heads_mut(index);
            let share = heads.len().div_ceil(self.team.threads());
            self.team.each(heads, share, |chunk, heads| {
                heads.iter_mut().enumerate().for_each(|(i, head)| write(chunk * share + i, head));
            });
        }
    }

    /// Attention of all tiles: `[tiles][ROWS][width]`.
    fn attend(
        &mut self,
        work: &Work<'_>,
        cut: &Tiles,
        lanes: &[Lane<'_, KeyValues>],
        index: usize,
        out: &mut Vec<f32>,
    ) {
        let isa = self.isa;
        let (dim, group) = (work.arch.head_dim(), work.arch.heads / work.arch.kv_heads());
        let (width, scale) = (dim.next_multiple_of(LANES), 1.0 / (dim as f32).sqrt());
        out.resize(cut.tiles.len() * ROWS * width, 0.0);
        self.team.each(out, ROWS * width, |number, out| {
            let tile = &cut.tiles[number];
            let mut queries = [0.0; ROWS * WIDEST_HEAD];
            let mut seen = [Sight::default(); ROWS];
            let mut numbers = [0.0; WIDEST_HEAD];
            for ((column, query), seen) in tile.queries.clone().enumerate().zip(&mut seen) {
                let row = cut.rows[tile.first + query / group];
                let head = tile.head * group + query % group;
                let (from, norm) = (work.columns[0] + head * dim, work.layer.qk_norm[0].as_slice());
                isa.run(Rotated { work, row, column: from, norm, scale, to: &mut numbers[..dim] });
                for (number, line) in numbers[..width].iter().zip(queries.as_chunks_mut::<ROWS>().0) {
                    line[column] = *number;
                }
                *seen = work.plan.places[row].1;
            }
            let cache = &lanes[tile.lane].cache;
            isa.run(Attention {
                head: &cache.heads(index)[tile.head],
                start: cache.span().0,
                seen: &seen[..tile.queries.len()],
                queries: &queries[..ROWS * width],
                out,
            });
        });
    }

    /// The feed-forward branch up to its activation.
    fn up(&mut self, weights: &Weights, (layer, inputs, rows): (&Layer, &Inputs, usize), wide: &mut Vec<f32>) {
        let [first, rest @ ..] = layer.up.as_slice() else { return };
        wide.resize(first.weights.panels() * rows * OUTPUTS, 0.0);
        let [up] = rest else {
            return self.product(weights, (&layer.up, inputs, rows), Finish::Gelu, wide);
        };
        let (isa, exact) = (self.isa, self.exact);
        let share = self.share(first.weights.panels());
        self.team.each(wide, share * rows * OUTPUTS, |chunk, out| {
            let gate = Part { weights, map: first, input: inputs.of(first, exact), rows, first: chunk * share };
            gate.run(isa, Finish::Bias, out);
            Part { map: up, input: inputs.of(up, exact), ..gate }.run(isa, Finish::Swiglu, out);
        });
    }

    /// Maps side by side, all rows. `out`: `[panels][rows][32]`.
    fn product(&mut self, weights: &Weights, from: (&[Map], &Inputs, usize), finish: Finish, out: &mut [f32]) {
        let (isa, exact) = (self.isa, self.exact);
        let (maps, inputs, rows) = from;
        let share = self.share(maps.iter().map(|map| map.weights.panels()).sum());
        self.team.each(out, share * rows * OUTPUTS, |chunk, mut out| {
            let mut first = chunk * share;
            for map in maps {
                let panels = map.weights.panels();
                if first < panels {
                    let count = (panels - first).min(out.len() / (rows * OUTPUTS));
                    let (now, rest) = out.split_at_mut(count * rows * OUTPUTS);
                    Part { weights, map, input: inputs.of(map, exact), rows, first }.run(isa, finish, now);
                    (out, first) = (rest, 0);
                } else {
                    first -= panels;
                }
                if out.is_empty() {
                    break;
                }
            }
        });
    }

    /// Panels that are handed out at once.
    fn share(&self, panels: usize) -> usize {
        (panels / (self.team.threads() * SHARES)).max(1)
    }
}

/// Fewer numbers than this are not worth a second thread.
const SMALL: usize = 4096;

/// Pieces that each thread's part of a product is handed out in: few, as each is one stream of memory, and enough for the faster
/// thread to help the slower one.
const SHARES: usize = 6;

/// One map as a list of maps.
fn one(map: &Map) -> &[Map] {
    std::slice::from_ref(map)
}

/// Some panels of a map.
#[derive(Clone, Copy)]
struct Part<'a> {
    weights: &'a Weights,
    map: &'a Map,
    input: Input<'a>,
    rows: usize,
    /// The first panel.
    first: usize,
}

impl Part<'_> {
    /// Multiplies and finishes. `out`: `[panels][rows][32]`.
    fn run(self, isa: Isa, finish: Finish, out: &mut [f32]) {
        let (packed, rows) = (&self.map.weights, self.rows);
        let product = |panels: Range<usize>, out: &mut [f32]| {
            let panels = self.weights.panels(packed, panels);
            isa.run(Product { ty: packed.ty, panels, blocks: packed.blocks(), input: self.input, rows, out });
        };
        if finish == Finish::Bias && self.map.bias.is_empty() {
            return product(self.first..self.first + out.len() / (rows * OUTPUTS), out);
        }
        PRODUCT.with_borrow_mut(|buffer| {
            buffer.resize(rows * OUTPUTS, 0.0);
            for (panel, out) in (self.first..).zip(out.chunks_exact_mut(rows * OUTPUTS)) {
                product(panel..panel + 1, buffer);
                isa.run(Finished { how: finish, map: self.map, panel, product: buffer, out });
            }
        });
    }
}

/// A layer's queries, keys and values, and whose they are.
struct Work<'a> {
    arch: &'a Arch,
    layer: &'a Layer,
    plan: &'a Plan,
    /// `[blocks][rows][32]`
    wide: &'a [f32],
    /// Columns where queries, keys and values begin.
    columns: [usize; 3],
}

impl Work<'_> {
    /// Some columns of a row.
    fn copy(&self, row: usize, column: usize, to: &mut [f32]) {
        let rows = self.plan.ids.len();
        let mut done = 0;
        while done < to.len() {
            let (block, at) = ((column + done) / BLOCK, (column + done) % BLOCK);
            let count = (BLOCK - at).min(to.len() - done);
            to[done..done + count].copy_from_slice(&self.wide[(block * rows + row) * BLOCK + at..][..count]);
            done += count;
        }
    }
}

/// A head's query or key: normed, where the network does, rotated (number i with number i + half), scaled. `to`: `[head_dim]`.
struct Rotated<'a, 'w> {
    work: &'a Work<'w>,
    row: usize,
    /// Where it stands among the columns.
    column: usize,
    norm: &'a [f32],
    scale: f32,
    to: &'a mut [f32],
}

impl Kernel for Rotated<'_, '_> {
    type Output = ();

    /// Plain loops, which the compiler makes vectors of.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { work, row, column, norm, scale, to } = self;
        work.copy(row, column, to);
        if !norm.is_empty() {
            let square = to.iter().map(|x| x * x).sum::<f32>() / to.len() as f32;
            let scale = 1.0 / (square + work.arch.norm_eps()).sqrt();
            to.iter_mut().zip(norm).for_each(|(x, weight)| *x *= scale * weight);
        }
        let half = work.arch.rotary_dim() / 2;
        let cosines = &work.plan.cosines[row * half..][..half];
        let sines = &work.plan.sines[row * half..][..half];
        let (low, high) = to.split_at_mut(half);
        for (((a, b), cosine), sine) in low.iter_mut().zip(&mut high[..half]).zip(cosines).zip(sines) {
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
        if scale != 1.0 {
            to.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// Attention's tiles back into rows, `[blocks][rows][32]`.
fn gather(work: &Work<'_>, cut: &Tiles, tiles: &[f32], to: &mut Vec<f32>) {
    let dim = work.arch.head_dim();
    let (width, rows) = (dim.next_multiple_of(LANES), cut.rows.len());
    let group = work.arch.heads / work.arch.kv_heads();
    to.clear();
    to.resize((work.arch.heads * dim).div_ceil(BLOCK) * rows * BLOCK, 0.0);
    for (tile, from) in cut.tiles.iter().zip(tiles.chunks_exact(ROWS * width)) {
        for (query, from) in tile.queries.clone().zip(from.chunks_exact(width)) {
            let row = tile.first + query / group;
            let column = (tile.head * group + query % group) * dim;
            let mut done = 0;
            while done < dim {
                let (block, at) = ((column + done) / BLOCK, (column + done) % BLOCK);
                let count = (BLOCK - at).min(dim - done);
                to[(block * rows + row) * BLOCK + at..][..count].copy_from_slice(&from[done..done + count]);
                done += count;
            }
        }
    }
}

/// Keeps some rows of `[blocks][rows][32]`.
fn pick(x: &mut Vec<f32>, rows: usize, wanted: &[usize]) {
    let blocks = x.len() / (rows * BLOCK).max(1);
    let mut picked = Vec::with_capacity(blocks * wanted.len() * BLOCK);
    for block in 0..blocks {
        for row in wanted {
            picked.extend_from_slice(&x[(block * rows + row) * BLOCK..][..BLOCK]);
        }
    }
    x.clear();
    x.extend_from_slice(&picked);
}
