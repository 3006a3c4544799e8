//! What stands between two products: rows are normed, quantised, added up, sent through the activation. Rows of numbers stand in
//! blocks of 32, `[block][row][32]`: a panel's outputs are the next product's block of inputs.

use super::panel::{BLOCK, GROUP, OUTPUTS};
use super::product::Input;
use super::quants::quantise;
use super::simd::{Isa, Kernel, LANES, Simd, gelu, silu};
use super::team::Team;
use super::weights::{Map, Norm};

/// Where the inputs of a product are kept: as floats, as quantised bytes, or both.
#[derive(Default)]
pub struct Inputs {
    floats: Vec<f32>,
    quants: Vec<Line>,
    /// Bytes of `quants` in use.
    used: usize,
}

/// A cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Which forms of an input are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    pub floats: bool,
    pub quants: bool,
}

impl Forms {
    /// What some maps read.
    pub fn of(maps: &[Map], exact: bool) -> Self {
        let integers = |map: &Map| map.weights.is_integer() && !exact;
        Self { floats: !maps.iter().all(integers), quants: maps.iter().any(integers) }
    }
}

impl Inputs {
    /// As the product of a map reads it.
    pub fn of(&self, map: &Map, exact: bool) -> Input<'_> {
        match map.weights.is_integer() && !exact {
            true => Input::Quants(&bytemuck::cast_slice(&self.quants)[..self.used]),
            false => Input::Floats(&self.floats),
        }
    }

    /// Makes them from rows, normed or as they are. `x`: `[blocks][rows][32]`, of which `width` numbers of a row count.
    pub fn fill(&mut self, team: &mut Team, isa: Isa, forms: Forms, source: Source<'_>) {
        let lines = source.rows.div_ceil(GROUP) * source.blocks();
        // A row or two are done before another thread wakes up to them.
        let pieces = if source.rows * source.width < SMALL { 1 } else { 2 * team.threads() };
        let share = lines.div_ceil(pieces);
        if forms.floats {
            self.floats.resize(lines * GROUP * BLOCK, 0.0);
            team.each(&mut self.floats, share * GROUP * BLOCK, |index, out| {
                isa.run(ToFloats { source, first: index * share, out });
            });
        }
        if forms.quants {
            let size = isa.run(QuantBytes);
            self.used = lines * GROUP * size;
            self.quants.resize(self.used.div_ceil(64), Line([0; 64]));
            let quants = &mut bytemuck::cast_slice_mut(&mut self.quants)[..self.used];
            team.each(quants, share * GROUP * size, |index, out| {
                isa.run(ToQuants { source, first: index * share, out });
            });
        }
    }
}

/// Fewer numbers than this are not worth a second thread.
const SMALL: usize = 4096;

/// Rows to make inputs from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub x: &'a [f32],
    pub rows: usize,
    /// Numbers of a row that count.
    pub width: usize,
    pub norm: Option<&'a Norm>,
}

impl Source<'_> {
    /// Blocks of a row.
    fn blocks(self) -> usize {
        self.width.div_ceil(BLOCK)
    }
}

struct QuantBytes;

impl Kernel for QuantBytes {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        size_of::<S::Q>()
    }
}

struct ToFloats<'a> {
    source: Source<'a>,
    /// The first line of `out`.
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for ToFloats<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        fill::<S, Floats>(s, self.source, self.first, self.out.as_chunks_mut::<BLOCK>().0);
    }
}

struct ToQuants<'a> {
    source: Source<'a>,
    first: usize,
    out: &'a mut [u8],
}

impl Kernel for ToQuants<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        fill::<S, Bytes>(s, self.source, self.first, bytemuck::cast_slice_mut(self.out));
    }
}

/// What becomes of a block of numbers.
trait Form<S: Simd> {
    type Block;
    fn of(s: S, numbers: [f32; BLOCK]) -> Self::Block;
}

struct Floats;
struct Bytes;

impl<S: Simd> Form<S> for Floats {
    type Block = [f32; BLOCK];

    #[inline(always)]
    fn of(_: S, numbers: [f32; BLOCK]) -> [f32; BLOCK] {
        numbers
    }
}

impl<S: Simd> Form<S> for Bytes {
    type Block = S::Q;

    #[inline(always)]
    fn of(s: S, numbers: [f32; BLOCK]) -> S::Q {
        quantise(s, &numbers)
    }
}

/// Fills lines of [`GROUP`] blocks, one for each row of a group: line l is block `l % blocks` of group `l / blocks`.
#[inline(always)]
fn fill<S: Simd, F: Form<S>>(s: S, source: Source<'_>, first: usize, lines: &mut [F::Block]) {
    let blocks = source.blocks();
    let mut moments = [Moments::NONE; GROUP];
    let mut known = usize::MAX;
    for (line, to) in (first..).zip(lines.chunks_exact_mut(GROUP)) {
        let (group, block) = (line / blocks, line % blocks);
        if group != known {
            measure(s, source, group, &mut moments);
            known = group;
        }
        let rows = group * GROUP..((group + 1) * GROUP).min(source.rows);
        for ((row, to), moments) in rows.zip(to).zip(&moments) {
            *to = F::of(s, normed(s, source, (row, block), moments));
        }
    }
}

/// What the norm of a row needs.
#[derive(Clone, Copy)]
struct Moments {
    /// Sums of each sixteenth of the numbers.
    sums: [f32; LANES],
    mean: f32,
    /// One over the deviation.
    scale: f32,
}

impl Moments {
    const NONE: Self = Self { sums: [0.0; LANES], mean: 0.0, scale: 1.0 };
}

/// A block of a row.
#[inline(always)]
fn block<'a>(source: Source<'a>, row: usize, block: usize) -> &'a [f32; BLOCK] {
    &source.x.as_chunks::<BLOCK>().0[block * source.rows + row]
}

/// Mean and deviation of a group of rows, as their norm wants them. Blocks are the outer loop: rows of one block lie side by side.
#[inline(always)]
fn measure<S: Simd>(s: S, source: Source<'_>, group: usize, moments: &mut [Moments; GROUP]) {
    *moments = [Moments::NONE; GROUP];
    let Some(norm) = source.norm else { return };
    let width = source.width as f32;
    let blocks = source.x.as_chunks::<BLOCK>().0.chunks_exact(source.rows).take(source.blocks());
    if norm.centred {
        for block in blocks.clone() {
            for (line, moments) in block[group * GROUP..].iter().zip(moments.iter_mut()) {
                let (halves, _) = line.as_chunks::<LANES>();
                let sum = s.add(s.load(&halves[0]), s.load(&halves[1]));
                s.store(s.add(s.load(&moments.sums), sum), &mut moments.sums);
            }
        }
        for moments in moments.iter_mut() {
            moments.mean = s.sum(s.load(&moments.sums)) / width;
            moments.sums = [0.0; LANES];
        }
    }
    for block in blocks {
        for (line, moments) in block[group * GROUP..].iter().zip(moments.iter_mut()) {
            let mean = s.splat(moments.mean);
            let (halves, _) = line.as_chunks::<LANES>();
            let (a, b) = (s.sub(s.load(&halves[0]), mean), s.sub(s.load(&halves[1]), mean));
            s.store(s.fma(a, a, s.fma(b, b, s.load(&moments.sums))), &mut moments.sums);
        }
    }
    // Numbers that only fill up the last block are zeros: each adds the square of the mean.
    let surplus = (source.blocks() * BLOCK - source.width) as f32;
    for moments in moments.iter_mut() {
        // Rounding may take away more than is there.
        let squares = (s.sum(s.load(&moments.sums)) - surplus * moments.mean * moments.mean).max(0.0);
        moments.scale = 1.0 / (squares / width + norm.eps).sqrt();
    }
}

/// A block of a row after its norm, if it has one.
#[inline(always)]
fn normed<S: Simd>(s: S, source: Source<'_>, (row, index): (usize, usize), moments: &Moments) -> [f32; BLOCK] {
    let x = block(source, row, index);
    let (mean, scale) = (moments.mean, moments.scale);
    let Some(norm) = source.norm else { return *x };
    let mut out = [0.0; BLOCK];
    let range = index * BLOCK..((index + 1) * BLOCK).min(source.width);
    let (weight, bias) = (&norm.weight[range.clone()], norm.bias.get(range).unwrap_or_default());
    if let (Some(weight), true) = (weight.first_chunk::<BLOCK>(), bias.is_empty() || bias.len() == BLOCK) {
        let (mean, scale) = (s.splat(mean), s.splat(scale));
        for half in 0..2 {
            let weight = s.load(&weight.as_chunks::<LANES>().0[half]);
            let x = s.mul(s.sub(s.load(&x.as_chunks::<LANES>().0[half]), mean), scale);
            let y = match bias.as_chunks::<LANES>().0.get(half) {
                Some(bias) => s.fma(x, weight, s.load(bias)),
                None => s.mul(x, weight),
            };
            s.store(y, &mut out.as_chunks_mut::<LANES>().0[half]);
        }
        return out;
    }
    for (i, weight) in weight.iter().enumerate() {
        out[i] = (x[i] - mean) * scale * weight + bias.get(i).copied().unwrap_or(0.0);
    }
    out
}

/// What happens to the outputs of a product, panel by panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// `out = W x + bias`
    Bias,
    /// `out = gelu(W x + bias)`
    Gelu,
    /// `out = silu(out) (W x + bias)`: `out` holds the gate.
    Swiglu,
    /// `out += scale (W x) + bias`
    Residual,
}

/// Finishes a panel. `product`, `out`: `[rows][32]`.
pub struct Finished<'a> {
    pub how: Finish,
    pub map: &'a Map,
    /// Which of the map's.
    pub panel: usize,
    pub product: &'a [f32],
    pub out: &'a mut [f32],
}

impl Kernel for Finished<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for half in 0..2 {
            let at = self.panel * OUTPUTS + half * LANES;
            let scale = vector(s, &self.map.scale, at, 1.0);
            let bias = vector(s, &self.map.bias, at, 0.0);
            let rows = self.product.as_chunks::<LANES>().0.iter().zip(self.out.as_chunks_mut::<LANES>().0);
            for (product, out) in rows.skip(half).step_by(2) {
                let y = s.fma(s.load(product), scale, bias);
                let y = match self.how {
                    Finish::Bias => y,
                    Finish::Gelu => gelu(s, y),
                    Finish::Swiglu => s.mul(silu(s, s.load(out)), y),
                    Finish::Residual => s.add(s.load(out), y),
                };
                s.store(y, out);
            }
        }
    }
}

/// Sixteen numbers from a place on, or the same everywhere where there are none.
#[inline(always)]
fn vector<S: Simd>(s: S, numbers: &[f32], at: usize, else_: f32) -> S::F {
    match numbers.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => s.load(chunk),
        None => s.splat(else_),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 33 equal numbers have no variance, and the 31 zeros after them must not give them a negative one.
    #[test]
    fn a_row_of_one_number_is_normed_to_nothing() {
        let norm = Norm { centred: true, eps: 1e-5, weight: vec![1.0; 33], bias: Vec::new() };
        let mut team = Team::new(1).unwrap();
        for mean in (0..200).map(|i| 3e4 + 7.3 * i as f32) {
            let mut x = [0.0; 2 * BLOCK];
            x[..33].fill(mean);
            let mut inputs = Inputs::default();
            let source = Source { x: &x, rows: 1, width: 33, norm: Some(&norm) };
            inputs.fill(&mut team, Isa::best(), Forms { floats: true, quants: false }, source);
            assert!(inputs.floats.iter().all(|x| x.abs() < 10.0), "{mean}: {:?}", inputs.floats);
        }
    }
}
