//! The products of `bf16.rs` with AVX-512 BF16.
//!
//! Both inputs are packed into panels of some lines (rows of `a`, columns of `b`) in pairs of depths, as `vdpbf16ps` wants
//! them: one lane takes two neighbours along the depth. A tile of 12 x 32 sums stays in registers.
//! Which sums are taken in which order depends on the shapes alone, not on the number of threads.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Matrix, Write};

/// Rows and columns of the sums in registers: 24 of 32 registers.
const ROWS: usize = 12;
const COLS: usize = 32;
/// Pairs of depths summed at a stretch: the panel of `b` stays in the first cache (16 KB).
const DEPTH: usize = 128;
/// Panels of `b` that one task packs.
const TOGETHER: usize = 4;

pub fn available() -> bool {
    is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// Lines of numbers, each `depth` long: the rows of a left input, the columns of a right one.
#[derive(Clone, Copy)]
struct Lines<'a> {
    data: &'a [f32],
    lines: usize,
    depth: usize,
    line_stride: usize,
    depth_stride: usize,
}

impl<'a> Lines<'a> {
    fn rows(m: Matrix<'a>) -> Self {
        let Matrix { data, rows: lines, cols: depth, row_stride: line_stride, col_stride: depth_stride } = m;
        Self { data, lines, depth, line_stride, depth_stride }
    }

    fn pairs(&self) -> usize {
        self.depth.div_ceil(2)
    }
}

thread_local! {
    /// Room for packed inputs, kept: fresh pages cost more than packing.
    static LEFT: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    static RIGHT: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// # Safety
/// With [`Write::Add`] all of `dst` must be numbers already, and [`available`] must have said yes.
pub unsafe fn fill(dst: &mut [MaybeUninit<f32>], a: Matrix, b: Matrix, write: Write) {
    if dst.is_empty() {
        return;
    }
    let (left, right) = (Lines::rows(a), Lines::rows(b.transposed()));
    let (width, pairs) = (b.cols, left.pairs());
    let mut packed = RIGHT.take();
    packed.resize(width.div_ceil(COLS) * pairs * COLS, 0);
    packed.par_chunks_mut(TOGETHER * pairs * COLS).enumerate().for_each(|(task, out)| {
        // SAFETY: the instructions are there, as the caller promises.
        unsafe { pack::<COLS>(&right, task * TOGETHER * COLS, pairs * COLS, out) }
    });
    // The more rows, the less often `b` is read; but every thread should have a task.
    let rows = ROWS * if a.rows >= 192 || rayon::current_num_threads() == 1 { 4 } else { 2 };
    dst.par_chunks_mut(rows * width).enumerate().for_each(|(task, dst)| {
        let mut panels = LEFT.take();
        let size = ROWS * pairs.next_multiple_of(DEPTH);
        panels.resize((dst.len() / width).div_ceil(ROWS) * size, 0);
        let job = Job { width, pairs, write };
        if left.depth_stride == 1 {
            // SAFETY: as above.
            unsafe {
                pack_rows(&left, task * rows, size, &mut panels);
                job.run::<DEPTH, 1>(dst, &panels, &packed);
            }
        } else {
            // SAFETY: as above.
            unsafe {
                pack::<ROWS>(&left, task * rows, size, &mut panels);
                job.run::<1, ROWS>(dst, &panels, &packed);
            }
        }
        LEFT.set(panels);
    });
    RIGHT.set(packed);
}

/// The rows of one task: all panels of `b` against each of its panels of `a`.
struct Job {
    /// Numbers in a row of the product.
    width: usize,
    pairs: usize,
    write: Write,
}

impl Job {
    /// `LINE` and `PAIR`: how far apart lines and pairs lie in a stretch of a left panel. With [`Write::Add`] all of `dst` must
    /// be numbers already.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn run<const LINE: usize, const PAIR: usize>(
        &self,
        dst: &mut [MaybeUninit<f32>],
        left: &[u32],
        right: &[u32],
    ) {
        let Self { width, pairs, write } = *self;
        for start in (0..pairs).step_by(DEPTH) {
            let depth = DEPTH.min(pairs - start);
            let add = start > 0 || write == Write::Add;
            for (panel, right) in right.chunks_exact(pairs * COLS).enumerate() {
                let right = &right[start * COLS..][..depth * COLS];
                let lefts = left.chunks_exact(ROWS * pairs.next_multiple_of(DEPTH));
                for (left, dst) in lefts.zip(dst.chunks_mut(ROWS * width)) {
                    let left = &left[start * ROWS..][..DEPTH * ROWS];
                    let place = Place { width, column: panel * COLS, add };
                    // SAFETY: what is read has been written by an earlier stretch, or is there as the caller promises.
                    unsafe { tile::<LINE, PAIR>(left, right, dst, place) }
                }
            }
        }
    }
}

/// Where a tile of sums belongs in its rows.
#[derive(Clone, Copy)]
struct Place {
    /// Numbers in a row.
    width: usize,
    column: usize,
    add: bool,
}

/// The sums of one panel of `a` and one of `b`, at `column` of the rows that `dst` holds (12 at most). If they are added, what
/// stands there must be numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn tile<const LINE: usize, const PAIR: usize>(
    left: &[u32],
    right: &[u32],
    dst: &mut [MaybeUninit<f32>],
    Place { width, column, add }: Place,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let right = right.as_chunks::<COLS>().0;
    assert!(left.len() > (ROWS - 1) * LINE + right.len().saturating_sub(1) * PAIR);
    for (pair, b) in right.iter().enumerate() {
        let b = [pairs_of(&b[..16]), pairs_of(&b[16..])];
        for (line, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the assertion above is about the last of these.
            let a = unsafe { *left.get_unchecked(line * LINE + pair * PAIR) };
            let a = bf16(_mm512_set1_epi32(a.cast_signed()));
            sums[0] = _mm512_dpbf16_ps(sums[0], a, b[0]);
            sums[1] = _mm512_dpbf16_ps(sums[1], a, b[1]);
        }
    }
    for (row, sums) in dst.chunks_exact_mut(width).zip(sums) {
        for (part, sum) in row[column..].chunks_mut(16).zip(sums) {
            let (mask, place) = (first(part.len()), part.as_mut_ptr().cast::<f32>());
            // SAFETY: the mask keeps to the numbers of `part`, which are there already if they are read.
            unsafe {
                let old = if add { _mm512_maskz_loadu_ps(mask, place) } else { _mm512_setzero_ps() };
                _mm512_mask_storeu_ps(place, mask, _mm512_add_ps(old, sum));
            }
        }
    }
}

/// Panels of 12 lines whose depths lie side by side, one every `size` of `out`, `[stretches, 12, DEPTH]`. Lines that do not
/// exist are 0; pairs beyond the last of a stretch are never read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_rows(source: &Lines, first_line: usize, size: usize, out: &mut [u32]) {
    for (panel, out) in out.chunks_exact_mut(size).enumerate() {
        for (stretch, out) in out.chunks_exact_mut(ROWS * DEPTH).enumerate() {
            for (line, out) in out.chunks_exact_mut(DEPTH).enumerate() {
                let line = first_line + panel * ROWS + line;
                if line >= source.lines {
                    out.fill(0);
                    continue;
                }
                let row = &source.data[line * source.line_stride..][..source.depth];
                let from = row.get(2 * DEPTH * stretch..).unwrap_or_default();
                for (from, out) in from.chunks(32).zip(out.as_chunks_mut::<16>().0) {
                    *out = both_halves(from);
                }
            }
        }
    }
}

/// Panels of `P` lines each from `first_line` on, one every `size` of `out`, `[pairs, P]`; what does not exist is 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack<const P: usize>(source: &Lines, first_line: usize, size: usize, out: &mut [u32]) {
    let count = (out.len() / size * P).min(source.lines - first_line);
    if !count.is_multiple_of(P) {
        out[count / P * size..][..size].fill(0);
    }
    if source.depth_stride == 1 {
        for line in 0..count {
            let from = &source.data[(first_line + line) * source.line_stride..][..source.depth];
            pack_line::<P>(from, line % P, &mut out[line / P * size..][..size]);
        }
        return;
    }
    assert_eq!(source.line_stride, 1, "a matrix is contiguous along one of its sides");
    // Some pairs of all panels, then the next ones: what lies side by side is read while it is in the cache.
    for first_pair in (0..source.pairs()).step_by(64) {
        let pairs = first_pair..source.pairs().min(first_pair + 64);
        for (panel, out) in out.chunks_exact_mut(size).enumerate() {
            for start in (0..P.min(count.saturating_sub(panel * P))).step_by(16) {
                let line = panel * P + start;
                let lanes = (P - start).min(count - line).min(16);
                pack_lanes::<P>(source, (first_line + line, lanes), pairs.clone(), &mut out[start..]);
            }
        }
    }
}

/// Up to sixteen lines that lie side by side, to the same lanes of every pair.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_lanes<const P: usize>(source: &Lines, (line, lanes): (usize, usize), pairs: Range<usize>, out: &mut [u32]) {
    let mask = first(lanes);
    let mut order = [0u16; 32];
    (0..32).for_each(|i| order[i as usize] = i / 2 + i % 2 * 16);
    // SAFETY: both are 64 bytes of plain numbers.
    let order = unsafe { std::mem::transmute::<[u16; 32], __m512i>(order) };
    for pair in pairs {
        let line_of = |depth: usize| &source.data[depth * source.depth_stride + line..][..lanes];
        let low = line_of(pair * 2);
        let high = if pair * 2 + 1 < source.depth { line_of(pair * 2 + 1) } else { &[] };
        let out = &mut out[pair * P..][..lanes];
        // SAFETY: the masks keep to the numbers of the three slices; the types in between are 64 bytes of plain numbers.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask, low.as_ptr());
            let high = _mm512_maskz_loadu_ps(if high.is_empty() { 0 } else { mask }, high.as_ptr());
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            let both = _mm512_permutexvar_epi16(order, both);
            _mm512_mask_storeu_epi32(out.as_mut_ptr().cast(), mask, both);
        }
    }
}

/// One line whose depths lie side by side, to its place in every pair of the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_line<const P: usize>(from: &[f32], line: usize, out: &mut [u32]) {
    for (from, out) in from.chunks(32).zip(out.chunks_mut(16 * P)) {
        for (out, pair) in out.as_chunks_mut::<P>().0.iter_mut().zip(both_halves(from)) {
            out[line] = pair;
        }
    }
}

/// The first 32 numbers of `x` as 16 pairs; those that do not exist are 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn both_halves(x: &[f32]) -> [u32; 16] {
    let both = _mm512_cvtne2ps_pbh(load(x, 16), load(x, 0));
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512bh, [u32; 16]>(both) }
}

/// Sixteen numbers of `x` from `start` on; those that do not exist are 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn load(x: &[f32], start: usize) -> __m512 {
    let x = x.get(start..).unwrap_or_default();
    // SAFETY: the mask keeps to the numbers of `x`.
    unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pairs_of(x: &[u32]) -> __m512bh {
    assert!(x.len() >= 16);
    // SAFETY: sixteen numbers are there.
    bf16(unsafe { _mm512_loadu_si512(x.as_ptr().cast()) })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn bf16(x: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of plain numbers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
}

/// The mask of the first `count` lanes, all sixteen if there are more.
fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}
