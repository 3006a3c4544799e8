//! Keys and values of one sequence. Keeping them is no approximation: nothing that is stored in a block-causal model depends on what
//! comes after its block. Rotated keys stand in panels of 16 positions (`[panel][head_dim][16]`), so that a query meets 16 of them
//! at a time; values stand by position. Half precision by default, single on request.

use super::simd::{Isa, Kernel, LANES, Simd};
use crate::error::{Error, Result};
use crate::pass::Cache;

/// How precisely keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// f16: half the memory and half the reading.
    Half,
    /// f32.
    Single,
}

impl Precision {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
        }
    }

    /// Numbers below this are kept: in f16, what is rounded to 65504 at most.
    fn bound(self) -> f32 {
        match self {
            Self::Half => 65520.0,
            Self::Single => f32::INFINITY,
        }
    }
}

/// The stored keys and values of one sequence.
#[derive(Clone, Debug)]
pub struct KeyValues {
    block: usize,
    causal: bool,
    /// The ids behind what is held.
    ids: Vec<u32>,
    end: usize,
    /// Rows in front of the oldest held position that are no longer wanted.
    gone: usize,
    /// By layer and head.
    layers: Vec<Vec<Head>>,
}

/// Keys and values of one head of one layer.
#[derive(Clone, Debug)]
pub struct Head {
    /// Numbers of a head, filled up to a multiple of 16.
    width: usize,
    precision: Precision,
    /// A number of this pass could not be kept.
    overflow: bool,
    pub keys: Vec<u8>,
    pub values: Vec<u8>,
}

impl Head {
    /// Writes a key and a value, `[width]` each, at position `at` (counted from the first row in memory).
    pub fn put(&mut self, isa: Isa, at: usize, key: &[f32], value: &[f32]) {
        let needed = (at + 1).next_multiple_of(LANES) * self.width * self.precision.bytes();
        for numbers in [&mut self.keys, &mut self.values] {
            if numbers.capacity() < needed {
                // Vectors double; a cache is large.
                numbers.reserve_exact(needed + needed / SPARE - numbers.len());
            }
            if numbers.len() < needed {
                numbers.resize(needed, 0);
            }
        }
        isa.run(Put { head: self, at, key, value });
        let bound = self.precision.bound();
        let fits = |numbers: &[f32]| numbers.iter().fold(true, |fits, x| fits & (x.abs() < bound));
        self.overflow |= !(fits(key) & fits(value));
    }

    /// The bytes of the key and the value in row `at` of memory.
    fn get(&self, at: usize) -> [Vec<u8>; 2] {
        let (bytes, panel, lane) = (self.precision.bytes(), at / LANES * LANES * self.width, at % LANES);
        let key = (0..self.width).flat_map(|i| &self.keys[(panel + i * LANES + lane) * bytes..][..bytes]).copied();
        [key.collect(), self.values[at * self.width * bytes..][..self.width * bytes].to_vec()]
    }

    /// How precisely they are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Numbers of a head, filled up to a multiple of 16.
    pub fn width(&self) -> usize {
        self.width
    }
}

struct Put<'a> {
    head: &'a mut Head,
    at: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for Put<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { head, at, key, value } = self;
        match head.precision {
            Precision::Half => put::<S, Halves, 2, 32>(s, head, at, [key, value]),
            Precision::Single => put::<S, Singles, 4, 64>(s, head, at, [key, value]),
        }
    }
}

/// How sixteen numbers are kept, in N bytes.
pub trait Kept<const N: usize> {
    /// From memory.
    fn load<S: Simd>(s: S, from: &[u8; N]) -> S::F;
    /// To memory.
    fn store<S: Simd>(s: S, x: S::F, to: &mut [u8; N]);
}

/// Half precision.
pub struct Halves;
/// Single precision.
pub struct Singles;

impl Kept<32> for Halves {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u8; 32]) -> S::F {
        s.load_f16(from)
    }

    #[inline(always)]
    fn store<S: Simd>(s: S, x: S::F, to: &mut [u8; 32]) {
        s.store_f16(x, to);
    }
}

impl Kept<64> for Singles {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[u8; 64]) -> S::F {
        s.bits(s.load_i(from))
    }

    #[inline(always)]
    fn store<S: Simd>(s: S, x: S::F, to: &mut [u8; 64]) {
        let mut numbers = [0.0; LANES];
        s.store(x, &mut numbers);
        *to = bytemuck::cast(numbers);
    }
}

/// Numbers of B bytes each, sixteen in N.
#[inline(always)]
fn put<S: Simd, K: Kept<N>, const B: usize, const N: usize>(
    s: S,
    head: &mut Head,
    at: usize,
    [key, value]: [&[f32]; 2],
) {
    let width = head.width;
    let (panel, lane) = (at / LANES * width, at % LANES);
    let keys = &mut head.keys.as_chunks_mut::<N>().0[panel..panel + width];
    for (numbers, panel) in key.as_chunks::<LANES>().0.iter().zip(keys.chunks_exact_mut(LANES)) {
        let mut stored = [0; N];
        K::store(s, s.load(numbers), &mut stored);
        for (number, line) in stored.as_chunks::<B>().0.iter().zip(panel) {
            line.as_chunks_mut::<B>().0[lane] = *number;
        }
    }
    let start = at * width / LANES;
    let values = &mut head.values.as_chunks_mut::<N>().0[start..start + width / LANES];
    for (numbers, to) in value.as_chunks::<LANES>().0.iter().zip(values) {
        K::store(s, s.load(numbers), to);
    }
}

/// What a cache is made for.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Block size.
    pub block: usize,
    /// May be cut anywhere: each position was stored by itself.
    pub causal: bool,
    /// Layers.
    pub layers: usize,
    /// Heads of keys and values.
    pub heads: usize,
    /// Numbers in a head.
    pub width: usize,
    /// How precisely they are kept.
    pub precision: Precision,
}

impl KeyValues {
    /// Empty.
    pub fn new(kind: Kind) -> Self {
        let width = kind.width.next_multiple_of(LANES);
        let head = Head { width, precision: kind.precision, overflow: false, keys: Vec::new(), values: Vec::new() };
        Self {
            block: kind.block,
            causal: kind.causal,
            ids: Vec::new(),
            end: 0,
            gone: 0,
            layers: vec![vec![head; kind.heads]; kind.layers],
        }
    }

    /// The block size it belongs to.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The stored ids that are held.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Bytes of the keys and values in memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(|head| head.keys.len() + head.values.len()).sum()
    }

    /// Heads of a layer.
    pub(super) fn heads(&self, layer: usize) -> &[Head] {
        &self.layers[layer]
    }

    /// The same, to be written.
    pub(super) fn heads_mut(&mut self, layer: usize) -> &mut [Head] {
        &mut self.layers[layer]
    }

    /// The row in memory of the oldest held position, and of the next one.
    pub(super) fn span(&self) -> (usize, usize) {
        (self.gone, self.gone + self.ids.len())
    }

    /// Counts ids whose keys and values every layer now holds.
    ///
    /// # Errors
    /// A key or value of this pass, of an open row even, that can't be kept; then nothing is counted.
    pub(super) fn stored(&mut self, ids: &[u32]) -> Result<()> {
        let mut overflow = None;
        for head in self.layers.iter_mut().flatten().filter(|head| head.overflow) {
            (head.overflow, overflow) = (false, Some(head.precision));
        }
        let (kept, hint) = match overflow {
            Some(Precision::Half) => ("at most 65504 in size, as f16 holds them", " (--exact keeps f32)"),
            Some(Precision::Single) => ("that are finite", ""),
            None => {
                self.ids.extend(ids);
                self.end += ids.len();
                return Ok(());
            }
        };
        Err(Error::Run(format!("keys and values: expected numbers {kept}, found one that is not{hint}")))
    }
}

/// Equal caches hold the same ids at the same positions with the same bits of keys and values, wherever they lie in memory.
impl PartialEq for KeyValues {
    fn eq(&self, other: &Self) -> bool {
        let heads = |cache: &Self| cache.layers.iter().map(Vec::len).collect::<Vec<_>>();
        let same = |a: &Head, b: &Head| (0..self.ids.len()).all(|i| a.get(self.gone + i) == b.get(other.gone + i));
        (self.block, self.causal, self.end, &self.ids) == (other.block, other.causal, other.end, &other.ids)
            && heads(self) == heads(other)
            && self.layers.iter().flatten().zip(other.layers.iter().flatten()).all(|(a, b)| same(a, b))
    }
}

/// The share of a cache that may be held without being wanted is one over this.
const SPARE: usize = 8;
/// What is reserved ahead, at most: more may never come.
const AHEAD: usize = 1 << 16;

impl Cache for KeyValues {
    /// Memory that is reserved and not yet written costs nothing.
    fn reserve(&mut self, positions: usize) {
        let positions = positions.min(AHEAD);
        let positions = (positions + positions / SPARE).next_multiple_of(LANES);
        for head in self.layers.iter_mut().flatten() {
            let bytes = positions * head.width * head.precision.bytes();
            for numbers in [&mut head.keys, &mut head.values] {
                // Refused, the cache grows as it is written.
                let _ = numbers.try_reserve_exact(bytes.saturating_sub(numbers.len()));
            }
        }
    }

    fn end(&self) -> usize {
        self.end
    }

    fn held(&self) -> usize {
        self.ids.len()
    }

    fn truncate(&mut self, end: usize) {
        let oldest = self.end - self.ids.len();
        let border = self.causal || end.is_multiple_of(self.block);
        assert!(border && (oldest..=self.end).contains(&end), "a cut at a block border, inside");
        self.ids.truncate(end - oldest);
        self.end = end;
    }

    fn drop_oldest(&mut self, count: usize) {
        let whole = self.causal || count.is_multiple_of(self.block);
        assert!(whole && count <= self.ids.len(), "whole blocks, no more than is held");
        self.ids.drain(..count);
        self.gone += count;
        // Memory is moved once in a while, when a share of it is not wanted any more.
        let panels = self.gone / LANES;
        if self.gone > self.ids.len() / SPARE && panels > 0 {
            for head in self.layers.iter_mut().flatten() {
                let bytes = panels * LANES * head.width * head.precision.bytes();
                let bytes = bytes.min(head.keys.len());
                head.keys.drain(..bytes);
                head.values.drain(..bytes);
            }
            self.gone -= panels * LANES;
        }
    }

    fn keep_equal(&mut self, ids: &[u32]) -> usize {
        if self.end != self.ids.len() {
            self.ids.clear();
            (self.end, self.gone) = (0, 0);
            return 0;
        }
        let equal = self.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let kept = if self.causal { equal } else { equal / self.block * self.block };
        self.truncate(kept);
        kept
    }
}
