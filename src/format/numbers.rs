//! How numbers are stored: plain floats, and the block formats of GGUF in which a few numbers share a scale. It knows sizes and
//! names; `quant` knows what the bytes mean.

use std::borrow::Cow;

/// A type of stored numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 nibbles around 8 and a scale.
    Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1,
    /// 256 nibbles, in eights a 6-bit scale and a 6-bit minimum, and a scale for each of these.
    Q4K,
    /// 256 six-bit numbers around 32, in sixteens a signed byte as scale, and a scale for these.
    Q6K,
}

impl Type {
    /// Every type, plain ones first.
    pub const ALL: [Self; 8] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q4K, Self::Q6K];

    /// Its name, as GGUF and the command line write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q4K => "q4_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Numbers in a block: a row of a matrix is whole blocks.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `count` numbers; `None` where they are not whole blocks.
    pub fn bytes(self, count: usize) -> Option<usize> {
        count.is_multiple_of(self.block()).then(|| count / self.block() * self.block_bytes())
    }
}

/// A tensor as its file holds it.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    /// What the bytes are.
    pub ty: Type,
    /// Outermost axis first: a matrix that maps `[columns]` to `[rows]` is `[rows, columns]`.
    pub shape: Vec<usize>,
    /// Row after row, each of whole blocks.
    pub bytes: Cow<'a, [u8]>,
}

impl Stored<'_> {
    /// Single-precision numbers as a file would hold them.
    pub fn of_f32(shape: &[usize], numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { ty: Type::F32, shape: shape.to_vec(), bytes: Cow::Owned(bytes) }
    }
}
