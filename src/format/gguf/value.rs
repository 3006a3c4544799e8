//! A value of the metadata. Its integer types differ in width only, so that readers ask for a count or a number, whatever the
//! width.

use std::fmt;

/// The type of a value, in the order of the numbers by which the file knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Floating point, 32 bits.
    F32,
    /// One byte, 0 or 1.
    Bool,
    /// UTF-8.
    Text,
    /// Values of one type.
    List,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// Floating point, 64 bits.
    F64,
}

impl Kind {
    /// Every type, each at the place of its number.
    pub const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::List,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Fewest bytes that a value of this type takes.
    pub(super) fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::Text | Self::U64 | Self::I64 | Self::F64 => 8,
            Self::List => 12,
        }
    }
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// Floating point, 32 bits.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Values of one type, which an empty list has, too.
    List(Kind, Vec<Value>),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// Floating point, 64 bits.
    F64(f64),
}

impl Value {
    /// A list of texts.
    pub fn texts(items: impl IntoIterator<Item = String>) -> Self {
        Self::List(Kind::Text, items.into_iter().map(Self::Text).collect())
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::List(..) => Kind::List,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    /// A text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// True or false.
    pub fn as_flag(&self) -> Option<bool> {
        if let Self::Bool(flag) = self { Some(*flag) } else { None }
    }

    /// The values of a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(_, items) = self { Some(items) } else { None }
    }

    /// An integer of any width that is not negative.
    pub fn as_count(&self) -> Option<usize> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => usize::try_from(n).ok(),
            Self::U64(n) => usize::try_from(n).ok(),
            Self::I8(n) => usize::try_from(n).ok(),
            Self::I16(n) => usize::try_from(n).ok(),
            Self::I32(n) => usize::try_from(n).ok(),
            Self::I64(n) => usize::try_from(n).ok(),
            _ => None,
        }
    }

    /// A finite number of any type; 64-bit integers that f64 can't hold are none.
    pub fn as_number(&self) -> Option<f64> {
        let exact = |n: i128| (n.unsigned_abs() <= 1 << 53).then_some(n as f64);
        match *self {
            Self::F32(x) => Some(x.into()).filter(|x: &f64| x.is_finite()),
            Self::F64(x) => Some(x).filter(|x| x.is_finite()),
            Self::I8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::I64(n) => exact(n.into()),
            Self::U64(n) => exact(n.into()),
            _ => self.as_count().map(|n| n as f64),
        }
    }
}

/// For error sentences: long texts and lists are cut.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        match self {
            Self::U8(n) => write!(f, "{n}"),
            Self::I8(n) => write!(f, "{n}"),
            Self::U16(n) => write!(f, "{n}"),
            Self::I16(n) => write!(f, "{n}"),
            Self::U32(n) => write!(f, "{n}"),
            Self::I32(n) => write!(f, "{n}"),
            Self::U64(n) => write!(f, "{n}"),
            Self::I64(n) => write!(f, "{n}"),
            Self::F32(x) => write!(f, "{x}"),
            Self::F64(x) => write!(f, "{x}"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Text(text) => {
                let start: String = text.chars().take(SHOWN).collect();
                write!(f, "{start:?}{}", if start.len() < text.len() { " ..." } else { "" })
            }
            Self::List(kind, items) => write!(f, "a list of {} values of type {kind:?}", items.len()),
        }
    }
}
