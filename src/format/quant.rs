//! What the bytes of each [`Type`] mean. The block formats are GGUF's; the formulas, the order of their operations included, are
//! those of its reference (the Python package `gguf`, `quants.py`), so that the same bytes give the same bits. It knows no file.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Stored, Type};
use crate::error::{Error, Result};

/// Numbers that one task of a thread pool reads: whole blocks of every type.
const TASK: usize = 1 << 16;

impl Stored<'_> {
    /// All numbers, row after row.
    pub fn f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.shape.iter().product()];
        let task = TASK / self.ty.block() * self.ty.block_bytes();
        out.par_chunks_mut(TASK).zip(self.bytes.par_chunks(task)).for_each(|(out, bytes)| {
            dequantise(self.ty, bytes, out);
        });
        out
    }
}

/// The numbers that bytes stand for.
///
/// # Panics
/// Where the bytes are not those of `out.len()` numbers.
pub fn dequantise(ty: Type, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(ty.bytes(out.len()), Some(bytes.len()), "the bytes of {} numbers of type {}", out.len(), ty.name());
    match ty {
        Type::F32 => each(bytes, out, |b, [x]| *x = f32::from_le_bytes(*b)),
        Type::F16 => each(bytes, out, |b, [x]| *x = f16::from_le_bytes(*b).to_f32()),
        Type::Bf16 => each(bytes, out, |b, [x]| *x = bf16::from_le_bytes(*b).to_f32()),
        Type::Q8_0 => each(bytes, out, read_q8_0),
        Type::Q4_0 => each(bytes, out, read_q4_0),
        Type::Q4_1 => each(bytes, out, read_q4_1),
        Type::Q4K => each(bytes, out, read_q4_k),
        Type::Q6K => each(bytes, out, read_q6_k),
    }
}

/// Goes through blocks of `N` bytes and `M` numbers side by side.
fn each<const N: usize, const M: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn(&[u8; N], &mut [f32; M])) {
    for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        read(block, out);
    }
}

/// The half at this place of a block.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Scale, 32 signed bytes.
fn read_q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (x, &q) in out.iter_mut().zip(&block[2..]) {
        *x = f32::from(q as i8) * scale;
    }
}

/// Scale, 16 bytes: low nibbles are the first 16 numbers, high ones the last.
fn read_q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (i, &pair) in block[2..].iter().enumerate() {
        out[i] = scale * (f32::from(pair & 15) - 8.0);
        out[i + 16] = scale * (f32::from(pair >> 4) - 8.0);
    }
}

/// Scale, minimum, 16 bytes as in [`read_q4_0`].
fn read_q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (scale, min) = (half_at(block, 0), half_at(block, 2));
    for (i, &pair) in block[4..].iter().enumerate() {
        out[i] = scale * f32::from(pair & 15) + min;
        out[i + 16] = scale * f32::from(pair >> 4) + min;
    }
}

/// Scale of the scales, scale of the minima, 12 bytes of these, 128 bytes: the low nibbles of each 32 bytes are one group of 32
/// numbers, the high ones the next.
fn read_q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (scale, min_scale) = (half_at(block, 0), half_at(block, 2));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (s, m) = scale_min(&block[4..16], group);
        let (d, min) = (scale * f32::from(s), min_scale * f32::from(m));
        let bytes = &block[16 + group / 2 * 32..][..32];
        let shift = 4 * (group % 2);
        for (x, &pair) in out.iter_mut().zip(bytes) {
            *x = d * f32::from((pair >> shift) & 15) - min;
        }
    }
}

/// The 6-bit scale and minimum of one of eight groups: the first four are whole in bytes 0..4 and 4..8, the others have their
/// low nibbles in 8..12 and their upper two bits above those.
fn scale_min(packed: &[u8], group: usize) -> (u8, u8) {
    let place = group % 4;
    let (s, m, low) = (packed[place], packed[place + 4], packed[place + 8]);
    if group < 4 { (s & 63, m & 63) } else { (low & 15 | s >> 2 & 48, low >> 4 | m >> 2 & 48) }
}

/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, scale of the scales. In each half of the block, of 128
/// numbers, the group `k` of 32 has nibble `k / 2` of the bytes from `k % 2 * 32` on, and bit pair `k`.
fn read_q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (part, k) = (group / 4, group % 4);
        let low = &block[part * 64 + k % 2 * 32..][..32];
        let high = &block[128 + part * 32..][..32];
        for (i, x) in out.iter_mut().enumerate() {
            let d = scale * f32::from(block[192 + group * 2 + i / 16] as i8);
            let q = low[i] >> (k / 2 * 4) & 15 | (high[i] >> (k * 2) & 3) << 4;
            *x = d * (f32::from(q) - 32.0);
        }
    }
}

/// The bytes of numbers, row after row, each row of whole blocks.
///
/// # Errors
/// Numbers that are not whole blocks, that are not finite, or whose half (the scale, or the number itself) is not; a type that
/// is only read.
pub fn quantise(ty: Type, values: &[f32]) -> Result<Vec<u8>> {
    let Some(size) = ty.bytes(values.len()) else {
        let expected = format!("a multiple of {} for the type {}", ty.block(), ty.name());
        return Err(Error::value("number of values", expected, values.len().to_string()));
    };
    if let Some(i) = values.iter().position(|x| !x.is_finite()) {
        return Err(Error::value("values", "finite numbers", format!("{} at index {i}", values[i])));
    }
    let mut bytes = vec![0; size];
    match ty {
        Type::F32 => blocks(values, &mut bytes, |[x], out| {
            *out = x.to_le_bytes();
            Some(())
        }),
        Type::F16 => blocks(values, &mut bytes, |[x], out: &mut [u8; 2]| write_half(*x, out)),
        Type::Bf16 => blocks(values, &mut bytes, |[x], out| {
            *out = bf16::from_f32(*x).to_le_bytes();
            bf16::from_le_bytes(*out).is_finite().then_some(())
        }),
        Type::Q8_0 => blocks(values, &mut bytes, write_q8_0),
        Type::Q4_0 => blocks(values, &mut bytes, write_q4_0),
        Type::Q4_1 => blocks(values, &mut bytes, write_q4_1),
        Type::Q4K | Type::Q6K => {
            let writable: Vec<&str> = Type::ALL.into_iter().filter(|ty| ty.block() < 256).map(Type::name).collect();
            return Err(Error::value(
                "type to write",
                writable.join(", "),
                format!("{}, which is only read", ty.name()),
            ));
        }
    }
    .map_err(|i| {
        let expected = format!("numbers within the range of {}", ty.name());
        Error::value("values", expected, format!("{} in the block from index {i}", largest(&values[i..][..ty.block()])))
    })?;
    Ok(bytes)
}

/// Goes through blocks of `M` numbers and `N` bytes side by side; fails with the index where a block starts that can't be written.
fn blocks<const M: usize, const N: usize>(
    values: &[f32],
    out: &mut [u8],
    write: impl Fn(&[f32; M], &mut [u8; N]) -> Option<()> + Sync,
) -> Result<(), usize> {
    let pairs = values.as_chunks().0.par_iter().zip(out.as_chunks_mut().0).enumerate();
    match pairs.find_map_first(|(i, (block, out))| write(block, out).is_none().then_some(i * M)) {
        None => Ok(()),
        Some(at) => Err(at),
    }
}

/// Writes a number as a half; `None` where it is beyond the largest.
fn write_half(x: f32, out: &mut [u8]) -> Option<()> {
    let half = f16::from_f32(x);
    out.copy_from_slice(&half.to_le_bytes());
    half.is_finite().then_some(())
}

/// The number furthest from zero, the first of equals.
fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |most: f32, &x| if x.abs() > most.abs() { x } else { most })
}

/// One over a scale, and zero for a block of zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Two nibbles of a byte: the `i`-th number and the one 16 further.
fn nibbles(block: &[f32; 32], out: &mut [u8], nibble: impl Fn(f32) -> f32) {
    // A number is at least -0.5 scales off, so that the conversion, which cuts towards zero, rounds.
    let four_bits = |x: f32| (nibble(x) as u8).min(15);
    for (i, pair) in out.iter_mut().enumerate() {
        *pair = four_bits(block[i]) | four_bits(block[i + 16]) << 4;
    }
}

fn write_q8_0(block: &[f32; 32], out: &mut [u8; 34]) -> Option<()> {
    let scale = largest(block).abs() / 127.0;
    let by = inverse(scale);
    for (q, x) in out[2..].iter_mut().zip(block) {
        *q = (x * by).round() as i8 as u8;
    }
    write_half(scale, &mut out[..2])
}

/// The number furthest from zero becomes -8.
fn write_q4_0(block: &[f32; 32], out: &mut [u8; 18]) -> Option<()> {
    let scale = largest(block) / -8.0;
    let by = inverse(scale);
    nibbles(block, &mut out[2..], |x| x * by + 8.5);
    write_half(scale, &mut out[..2])
}

fn write_q4_1(block: &[f32; 32], out: &mut [u8; 20]) -> Option<()> {
    let max = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = block.iter().copied().fold(f32::INFINITY, f32::min);
    let scale = (max - min) / 15.0;
    let by = inverse(scale);
    nibbles(block, &mut out[4..], |x| (x - min) * by + 0.5);
    write_half(scale, &mut out[..2])?;
    write_half(min, &mut out[2..4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITABLE: [Type; 6] = [Type::F32, Type::F16, Type::Bf16, Type::Q8_0, Type::Q4_0, Type::Q4_1];

    /// Largest error of one number of a block, by the block's extremes: half a step, and the rounding of the halves beside it.
    fn bound(ty: Type, block: &[f32]) -> f32 {
        let (most, range) = (largest(block).abs(), largest(block).abs() * 2.0);
        match ty {
            Type::F32 => 0.0,
            Type::F16 => most / 2048.0 + 1e-7,
            Type::Bf16 => most / 256.0,
            Type::Q8_0 => most / 127.0 * 0.5 + most / 1000.0 + 1e-5,
            // The end opposite the largest number has seven steps only, so that one more step can be lost.
            Type::Q4_0 => most / 8.0 + most / 1000.0 + 1e-6,
            _ => range / 15.0 * 0.5 + range / 1000.0 + 1e-6,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_nearly(values in prop::collection::vec(-100f32..100.0, 64), ty in prop::sample::select(&WRITABLE)) {
            let stored = Stored { ty, shape: vec![2, 32], bytes: quantise(ty, &values).unwrap().into() };
            let back = stored.f32();
            for (block, read) in values.chunks(32).zip(back.chunks(32)) {
                for (x, y) in block.iter().zip(read) {
                    prop_assert!((x - y).abs() <= bound(ty, block), "{ty:?}: {x} became {y}");
                }
            }
        }

        #[test]
        fn any_bytes_are_numbers(bytes in prop::collection::vec(any::<u8>(), 420)) {
            for ty in Type::ALL {
                let count = bytes.len() / ty.block_bytes() * ty.block();
                dequantise(ty, &bytes[..ty.bytes(count).unwrap()], &mut vec![0.0; count]);
            }
        }
    }

    #[test]
    fn tasks_join_to_the_whole() {
        for ty in WRITABLE {
            let values: Vec<f32> = (0..TASK + 4096).map(|i| (i % 1000) as f32 / 8.0 - 50.0).collect();
            let bytes = quantise(ty, &values).unwrap();
            let mut whole = vec![0.0; values.len()];
            dequantise(ty, &bytes, &mut whole);
            assert_eq!(Stored { ty, shape: vec![values.len()], bytes: bytes.into() }.f32(), whole);
        }
    }

    #[test]
    fn what_cannot_be_written_is_said() {
        let refused = |ty, values: &[f32], parts: &[&str]| {
            let message = quantise(ty, values).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        };
        let mut values = vec![1.0; 256];
        refused(Type::Q4K, &values, &["f32, f16, bf16, q8_0, q4_0, q4_1", "found q4_k, which is only read"]);
        refused(Type::Q8_0, &values[..33], &["a multiple of 32 for the type q8_0", "found 33"]);
        values[40] = 1e9;
        refused(Type::F16, &values, &["within the range of f16", "1000000000 in the block from index 40"]);
        refused(Type::Q4_1, &values, &["within the range of q4_1", "1000000000 in the block from index 32"]);
        values[41] = f32::MAX;
        refused(Type::Bf16, &values, &["within the range of bf16", "from index 41"]);
        values[41] = f32::NAN;
        refused(Type::F32, &values, &["finite", "NaN at index 41"]);
    }
}
