use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::format::quant::quantise;

/// A file made by hand, part by part, so that each part can lie.
#[derive(Clone)]
struct Raw {
    magic: [u8; 4],
    version: u32,
    tensors: u64,
    keys: u64,
    /// Key, type, value.
    metadata: Vec<(Vec<u8>, u32, Vec<u8>)>,
    /// Name, axes as in the file, type, offset.
    table: Vec<(Vec<u8>, Vec<u64>, u32, u64)>,
    data: usize,
}

fn raw() -> Raw {
    Raw {
        magic: MAGIC,
        version: 3,
        tensors: 2,
        keys: 1,
        metadata: vec![(b"a.b".to_vec(), 4, vec![7, 0, 0, 0])],
        table: vec![(b"x.weight".to_vec(), vec![32, 2], 8, 0), (b"y".to_vec(), vec![3], 0, 96)],
        data: 108,
    }
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

impl Raw {
    fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.keys.to_le_bytes());
        for (key, kind, value) in &self.metadata {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for (name, axes, ty, offset) in &self.table {
            out.extend(text(name));
            out.extend((axes.len() as u32).to_le_bytes());
            axes.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(ty.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32) + self.data, 0);
        out
    }
}

fn open(bytes: &[u8]) -> Result<Gguf> {
    Gguf::parse(Path::new("f.gguf"), Bytes::Static(bytes.to_vec().leak()))
}

#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) {
    let message = open(bytes).err().expect("a damaged file was read").to_string();
    assert!(message.starts_with("f.gguf: ") && message.lines().count() == 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

#[track_caller]
fn refused_with(change: impl Fn(&mut Raw), parts: &[&str]) {
    let mut raw = raw();
    change(&mut raw);
    refused(&raw.bytes(), parts);
}

#[test]
fn a_file_made_by_hand_is_read() {
    let mut made = raw();
    for version in VERSIONS {
        made.version = version;
        let file = open(&made.bytes()).unwrap();
        assert_eq!(file.count("a.b").unwrap(), Some(7));
        assert_eq!(file.count("a.c").unwrap(), None);
        assert_eq!(file.names().collect::<Vec<_>>(), ["x.weight", "y"]);
        assert_eq!((file.shape("x.weight"), file.type_of("x.weight")), (Some(&[2, 32][..]), Some(Type::Q8_0)));
        assert_eq!(file.f32("y", &[3]).unwrap(), [0.0; 3]);
    }
}

#[test]
fn a_damaged_header_is_one_sentence() {
    refused_with(|f| f.magic = *b"PK\x03\x04", &["a GGUF file", "begins with \"PK"]);
    refused_with(|f| f.version = 1, &["version 2 or 3", "version 1"]);
    refused_with(|f| f.version = 3u32.swap_bytes(), &["big-endian"]);
    refused_with(|f| f.keys = u64::MAX, &["keys, as the rest of the file can hold", "18446744073709551615"]);
    refused_with(|f| f.tensors = 1 << 40, &["tensors, as the rest of the file can hold", "1099511627776"]);
    refused_with(|f| f.keys = 2, &["tensor 1 of 2", "bytes of text"]);
    let good = raw().bytes();
    for end in 0..good.len() {
        refused(&good[..end], &["expected"]);
    }
    refused(&good[..3], &["4 bytes in the header at byte 0", "the end of the file after 3"]);
}

#[test]
fn damaged_metadata_are_one_sentence() {
    let put = |kind: u32, value: Vec<u8>| move |f: &mut Raw| (f.metadata[0].1, f.metadata[0].2) = (kind, value.clone());
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    refused_with(put(13, vec![]), &["value of `a.b`", "a type of value below 13", "found 13"]);
    refused_with(put(7, vec![2]), &["value of `a.b`", "0 or 1", "found 2"]);
    refused_with(put(8, text(b"a\xff")), &["value of `a.b`", "UTF-8", "offset 1"]);
    refused_with(put(8, u64::MAX.to_le_bytes().to_vec()), &["value of `a.b`", "bytes of text"]);
    refused_with(put(9, list(10, 1 << 60)), &["value of `a.b`", "values, as the rest of the file"]);
    refused_with(put(9, list(9, 1).repeat(40)), &["value of `a.b`", "lists at most 8 deep"]);
    refused_with(|f| f.metadata[0].0 = b"\xff".to_vec(), &["key 1 of 1", "UTF-8"]);
    refused_with(|f| f.metadata[0].0 = b"a\nb".to_vec(), &["key 1 of 1", "control characters", "a\\nb"]);
    let twice = |f: &mut Raw| (f.keys, f.metadata) = (2, [f.metadata.clone(), f.metadata.clone()].concat());
    refused_with(twice, &["`a.b`", "each key once"]);
    for (kind, value) in [(4, 24u32.to_le_bytes()), (4, [0; 4]), (6, f32::NAN.to_le_bytes()), (5, 32i32.to_le_bytes())]
    {
        let align = |f: &mut Raw| f.metadata[0] = (ALIGNMENT_KEY.into(), kind, value.to_vec());
        refused_with(align, &["`general.alignment`", "a power of two of type U32"]);
    }
}

#[test]
fn a_damaged_tensor_table_is_one_sentence() {
    refused_with(|f| f.table[1].2 = 6, &["`y`", "f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q6_k", "type 6 (q5_0)"]);
    refused_with(|f| f.table[1].2 = 99, &["`y`", "type 99 (unknown)"]);
    refused_with(|f| f.table[1].1 = vec![1; 5], &["`y`", "at most 4 axes", "found 5"]);
    refused_with(|f| f.table[0].1 = vec![16, 4], &["`x.weight`", "rows of a multiple of 32", "found 16"]);
    refused_with(|f| f.table[1].1 = vec![1 << 40, 1 << 40], &["`y`", "fits into memory"]);
    refused_with(|f| f.table[1].1 = vec![1 << 62], &["`y`", "fits into memory"]);
    refused_with(|f| f.table[1].3 = u64::MAX - 31, &["`y`", "`y`: expected"]);
    refused_with(|f| f.table[1].3 = 100, &["`y`", "a multiple of 32", "offset 100"]);
    refused_with(|f| f.table[1].3 = 128, &["`y`", "12 bytes inside the file", "offset 128"]);
    refused_with(|f| f.table[1].3 = 64, &["`y`", "bytes of its own", "`x.weight`"]);
    refused_with(|f| f.table[1].0 = b"x.weight".to_vec(), &["`x.weight`", "each tensor once"]);
    refused_with(|f| f.table[1].0 = vec![0xc0], &["tensor 2 of 2", "UTF-8"]);
    refused_with(|f| f.data -= 1, &["`y`", "12 bytes inside the file"]);
}

#[test]
fn what_a_file_lacks_is_said() {
    let file = open(&raw().bytes()).unwrap();
    let said = |e: Error, parts: &[&str]| {
        let message = e.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    said(file.stored("z.weight", &[1]).unwrap_err(), &["`z.weight`", "[1]", "no such tensor among 2"]);
    said(file.stored("y", &[1, 3]).unwrap_err(), &["`y`", "[1, 3]", "found f32 of shape [3]"]);
    said(file.text("a.b").unwrap_err(), &["`a.b`: expected a text, found 7"]);
    said(file.missing("a.c", "a count"), &["`a.c`: expected a count, found no such key"]);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::Text),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let list = |items: Vec<Value>| {
        let kind = items.first().map_or(Kind::U16, Value::kind);
        Value::List(kind, items.into_iter().filter(|item| item.kind() == kind).collect())
    };
    scalar().prop_recursive(3, 30, 8, move |inner| prop::collection::vec(inner, 0..8).prop_map(list))
}

fn written(metadata: &[(&str, Value)], tensors: &[(Header, Vec<f32>)]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gguf");
    let headers: Vec<Header> = tensors.iter().map(|(header, _)| header.clone()).collect();
    let mut rest = tensors.iter();
    let result = write(&path, metadata, &headers, |header| {
        let (_, numbers) = rest.next().filter(|(next, _)| next == header).expect("asked in order");
        Ok(quantise(header.ty, numbers)?.into())
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), usize::from(result.is_ok()));
    result.map(|()| std::fs::read(&path).unwrap())
}

fn header(name: &str, ty: Type, shape: &[usize]) -> Header {
    Header { name: name.into(), ty, shape: shape.into() }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        metadata in prop::collection::btree_map("[a-z.é]{0,12}", value(), 0..6),
        tensors in prop::collection::btree_map("[a-z.]{1,12}", (0usize..6, 0usize..4, 0usize..3), 0..5),
    ) {
        const TYPES: [Type; 6] = [Type::F32, Type::F16, Type::Bf16, Type::Q8_0, Type::Q4_0, Type::Q4_1];
        let pairs: Vec<(&str, Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let tensors: Vec<(Header, Vec<f32>)> = tensors.iter().map(|(name, &(ty, rows, columns))| {
            let (ty, shape) = (TYPES[ty], [rows, columns * TYPES[ty].block()]);
            let numbers = (0..shape[0] * shape[1]).map(|i| (i as f32 * 0.7).sin()).collect();
            (header(name, ty, &shape), numbers)
        }).collect();
        let file = open(&written(&pairs, &tensors).unwrap()).unwrap();
        let same: BTreeMap<String, String> = metadata.iter().map(|(k, v)| (k.clone(), format!("{v:?}"))).collect();
        let read: BTreeMap<String, String> = file.values("").unwrap().into_iter().map(|(k, v)| (k, format!("{v:?}"))).collect();
        prop_assert_eq!(read, same);
        prop_assert_eq!(file.names().count(), tensors.len());
        for (header, numbers) in &tensors {
            let stored = file.stored(&header.name, &header.shape).unwrap();
            prop_assert_eq!(stored.ty, header.ty);
            prop_assert_eq!(&stored.bytes[..], &quantise(header.ty, numbers).unwrap()[..]);
        }
    }

    /// Any bytes in any place: an answer or a sentence, never a panic.
    #[test]
    fn spoilt_bytes_never_panic(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = raw().bytes();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        if let Err(e) = open(&bytes) {
            prop_assert_eq!(e.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn noise_is_no_file(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = raw().bytes()[..24].to_vec();
        bytes.extend(noise);
        if let Err(e) = open(&bytes) {
            prop_assert_eq!(e.to_string().lines().count(), 1);
        }
    }
}

#[test]
fn what_cannot_be_written_is_said_and_leaves_nothing() {
    let said = |metadata: &[(&str, Value)], tensors: &[(Header, Vec<f32>)], parts: &[&str]| {
        let message = written(metadata, tensors).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let one = (header("x", Type::F32, &[2]), vec![1.0, 2.0]);
    said(&[("a", Value::U8(1)), ("a", Value::U8(1))], &[], &["`a`", "each key once"]);
    said(&[(ALIGNMENT_KEY, Value::U32(64))], &[], &["`general.alignment`", "32", "found 64"]);
    let mixed = Value::List(Kind::U8, vec![Value::U8(1), Value::Bool(true)]);
    said(&[("a", mixed)], &[], &["`a`", "U8 only", "one of type Bool"]);
    said(&[], &[one.clone(), one.clone()], &["`x`", "each tensor once"]);
    said(&[], &[(header("x", Type::Q8_0, &[2, 16]), vec![])], &["`x`", "a multiple of 32", "[2, 16]"]);
    said(&[], &[one, (header("y", Type::F32, &[2]), vec![1.0])], &["`y`", "8 bytes", "found 4"]);
    said(&[], &[(header("x", Type::F16, &[1]), vec![1e9])], &["values", "within the range of f16"]);
}

#[test]
fn a_released_tensor_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gguf");
    let numbers: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let tensors = [header("x", Type::F32, &[10]), header("y", Type::F32, &[100_000])];
    write(&path, &[], &tensors, |header| Ok(quantise(header.ty, &numbers[..header.shape[0]])?.into())).unwrap();
    let file = Gguf::open(&path).unwrap();
    for _ in 0..2 {
        assert_eq!(file.f32("x", &[10]).unwrap(), numbers[..10]);
        assert_eq!(file.f32("y", &[100_000]).unwrap(), numbers);
        let held = resident_kb(&path);
        file.release("y");
        file.release("no such tensor");
        let left = resident_kb(&path);
        assert!(held.zip(left).is_none_or(|(held, left)| held >= 390 && left < 100), "{held:?} kB, then {left:?}");
    }
}

/// Memory that the mapping of a file holds, where the system says so.
fn resident_kb(path: &Path) -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
    let mapping = maps.split(path.to_str()?).nth(1)?;
    mapping.lines().find_map(|line| line.strip_prefix("Rss:"))?.trim().strip_suffix(" kB")?.parse().ok()
}
