//! Text to batches: goldens of the official code, packing, resuming, hostile files, round trips.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bd3::data::build::{Folder, build};
use bd3::data::pack::{Between, Frame};
use bd3::data::shard::Writer;
use bd3::data::{Detokenizer, Packing, Reader, Shard, Shares, Source, Split, Tail, Texts, Wrap, toy};
use bd3::rng::Rng;
use bd3::tokenizer::{Special, Tokenizer, train_bpe};
use proptest::prelude::*;
use serde_json::Value;

const SPECIAL: Special = Special { bos: Some(100), eos: Some(101), mask: 103, pad: Some(102) };

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/bd3lm").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn shard(dir: &Path, documents: &[Vec<u32>]) -> Arc<Shard> {
    let path = dir.join("train.bin");
    let mut writer = Writer::create(&path, 104, "hash").unwrap();
    documents.iter().for_each(|ids| writer.push(ids, ids.len() as u64).unwrap());
    writer.finish().unwrap();
    Arc::new(Shard::open(&path).unwrap())
}

fn rows(packing: &Packing) -> Vec<Vec<u32>> {
    let batch = packing.batch(0..packing.rows());
    (0..batch.rows).map(|row| batch.row(row).to_vec()).collect()
}

#[test]
fn detokenizers_equal_the_official_ones() {
    let golden = golden("detokenizers.json");
    for (name, key) in [
        ("wikitext", "wt_detokenizer"),
        ("ptb", "ptb_detokenizer"),
        ("lm1b", "lm1b_detokenizer"),
        ("lambada", "lambada_detokenizer"),
        ("scientific-papers", "scientific_papers_detokenizer"),
    ] {
        let detokenizer = Detokenizer::named(name).unwrap();
        for pair in golden[key].as_array().unwrap() {
            assert_eq!(detokenizer.apply(pair[0].as_str().unwrap()), pair[1].as_str().unwrap(), "{name}");
        }
    }
}

/// The golden lists only the official rows. Its documents, an end-of-text id 9 already behind each, follow from them.
#[test]
fn official_wrapping_equals_group_texts() {
    let golden = golden("group_texts.json");
    let documents = [vec![1, 2, 3, 4, 9], vec![5, 6, 9], vec![7, 8, 1, 2, 3, 4, 5, 9]];
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), &documents);
    for (key, frame) in [("True", Frame::BosEos), ("False", Frame::Nothing)] {
        let wrap = Wrap::Official { eos: Between::Nothing, frame };
        let packing = Packing::new(shard.clone(), wrap, 6, SPECIAL).unwrap();
        let expected: Vec<Vec<u32>> = serde_json::from_value(golden[key].clone()).unwrap();
        assert_eq!(rows(&packing), expected);
    }
}

#[test]
fn the_official_remainder_is_dropped_per_thousand_documents() {
    let dir = tempfile::tempdir().unwrap();
    let documents: Vec<Vec<u32>> = (0..2001).map(|i| vec![i % 90]).collect();
    let wrap = Wrap::Official { eos: Between::Eos, frame: Frame::Nothing };
    let packing = Packing::new(shard(dir.path(), &documents), wrap, 300, SPECIAL).unwrap();
    // 2000 tokens a group, 6 rows of 300 each; the third group has 2 tokens and no row.
    assert_eq!(packing.rows(), 12);
    assert_eq!(packing.batch(6..7).ids[0], 1000 % 90);
    assert_eq!(packing.document(6), 1000);
}

#[test]
fn documents_have_rows_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let packing =
        Packing::new(shard(dir.path(), &[vec![1, 2, 3, 4, 5], vec![6]]), Wrap::Documents, 4, SPECIAL).unwrap();
    assert_eq!(rows(&packing), [[100, 1, 2, 3], [100, 4, 5, 101], [100, 6, 101, 102]]);
    assert_eq!(packing.batch(0..3).valid, [4, 4, 3]);
    assert_eq!((packing.rows_of(0), packing.rows_of(1)), (0..2, 2..3));
    assert_eq!((packing.document(1), packing.document(2)), (0, 1));
}

fn documents_strategy() -> impl Strategy<Value = Vec<Vec<u32>>> {
    prop::collection::vec(prop::collection::vec(0u32..100, 1..12), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packing_keeps_every_token(documents in documents_strategy(), length in 2usize..9) {
        let dir = tempfile::tempdir().unwrap();
        let shard = shard(dir.path(), &documents);
        let expected: Vec<u32> = documents.iter().flat_map(|ids| ids.iter().copied().chain([101])).collect();
        for wrap in [Wrap::Stream, Wrap::Documents] {
            let packing = Packing::new(shard.clone(), wrap, length, SPECIAL).unwrap();
            let batch = packing.batch(0..packing.rows());
            let text: Vec<u32> = (0..batch.rows).flat_map(|row| batch.row(row)[1..batch.valid[row]].to_vec()).collect();
            prop_assert_eq!(&text, &expected);
            prop_assert!((0..batch.rows).all(|row| batch.row(row)[0] == 100));
        }
    }

    #[test]
    fn a_resumed_reader_goes_on_with_the_next_row(documents in documents_strategy(), stop in 0usize..40, seed: u64) {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sources = || {
            let pack = |dir: &Path| Packing::new(shard(dir, &documents), Wrap::Stream, 5, SPECIAL).unwrap();
            vec![Source { packing: pack(one.path()), weight: 1.0 }, Source { packing: pack(two.path()), weight: 2.5 }]
        };
        let open = || Reader::new(sources(), &Rng::new(seed), Tail::Keep).unwrap();
        let mut whole = open();
        let all = whole.next_batch(80);
        let mut first = open();
        let mut ids = Vec::new();
        for _ in 0..stop {
            ids.extend(first.next_batch(1).ids);
        }
        let cursor = serde_json::from_str(&serde_json::to_string(first.cursor()).unwrap()).unwrap();
        let mut second = open();
        second.seek(&cursor).unwrap();
        ids.extend(second.next_batch(80 - stop).ids);
        prop_assert_eq!(ids, all.ids);
        prop_assert_eq!(second.cursor(), whole.cursor());
    }

    /// Whatever byte is changed: an open shard can be read to its end, another one is refused.
    #[test]
    fn a_damaged_shard_never_panics(documents in documents_strategy(), at: prop::sample::Index, with: u8) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(shard(dir.path(), &documents).path()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let path = write(dir.path(), "bad.bin", &bytes);
        if let Ok(shard) = Shard::open(path) {
            let packing = Packing::new(Arc::new(shard), Wrap::Documents, 5, SPECIAL).unwrap();
            packing.batch(0..packing.rows());
        }
    }

    #[test]
    fn a_damaged_tokenizer_never_panics(at: prop::sample::Index, with: u8, cut: bool) {
        let mut file = trained().file().to_vec();
        let at = at.index(file.len());
        file[at] = with;
        file.truncate(if cut { at } else { file.len() });
        if let Ok(tokenizer) = Tokenizer::from_bytes(&file) {
            let _ = tokenizer.encode("Once there was a fox.").map(|ids| tokenizer.decode(&ids));
        }
    }

    #[test]
    fn any_text_survives_the_tokenizers(text in any::<String>()) {
        for tokenizer in [&Tokenizer::bytes(), trained()] {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), &text);
            let joined: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
            prop_assert_eq!(joined, text.as_bytes());
            prop_assert!(ids.iter().all(|&id| !tokenizer.special().contains(id)));
        }
    }
}

fn trained() -> &'static Tokenizer {
    static TRAINED: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(|| {
        let mut rng = Rng::new(1);
        train_bpe((0..200).map(|_| toy::story(&mut rng).text), 600).unwrap()
    });
    &TRAINED
}

/// The tokenizers library's own trainer breaks ties in another way, so a few tokens may differ.
#[test]
fn a_trained_vocabulary_is_the_librarys_but_for_ties() {
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    let mut rng = Rng::new(1);
    let texts: Vec<String> = (0..200).map(|_| toy::story(&mut rng).text).collect();
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder().vocab_size(596).show_progress(false).initial_alphabet(alphabet).build();
    let mut library = tokenizers::Tokenizer::new(BPE::default());
    library.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    library.train(&mut tokenizers::models::TrainerWrapper::from(trainer), texts.iter()).unwrap();
    let known = library.get_vocab(false);
    let common = (0..596).filter(|&id| known.contains_key(&trained().name(id).unwrap())).count();
    assert!(common >= 590, "{common} of 596 tokens in common");
}

#[test]
fn names_of_special_tokens_in_a_text_are_text() {
    let text = "<bos><mask> [MASK] <eos>";
    let ids = trained().encode(text).unwrap();
    assert!(ids.iter().all(|&id| !trained().special().contains(id)));
    assert_eq!(trained().decode(&ids).unwrap(), text);
}

#[test]
fn an_epoch_reads_every_row_once_in_an_order_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let documents: Vec<Vec<u32>> = (0..50).map(|i| vec![i; 3]).collect();
    let packing = Packing::new(shard(dir.path(), &documents), Wrap::Documents, 5, SPECIAL).unwrap();
    let mut reader = Reader::new(vec![Source { packing, weight: 1.0 }], &Rng::new(3), Tail::Keep).unwrap();
    let firsts = |batch: &bd3::data::Batch| -> Vec<u32> { (0..batch.rows).map(|row| batch.row(row)[1]).collect() };
    let (one, two) = (firsts(&reader.next_batch(50)), firsts(&reader.next_batch(50)));
    assert_ne!(one, two);
    for mut epoch in [one, two] {
        epoch.sort_unstable();
        assert_eq!(epoch, (0..50).collect::<Vec<u32>>());
    }
}

#[test]
fn weights_are_shares_of_rows_and_may_change() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let source = |i: usize, weight| {
        let shard = shard(dirs[i].path(), &[vec![i as u32; 30]]);
        Source { packing: Packing::new(shard, Wrap::Stream, 4, SPECIAL).unwrap(), weight }
    };
    let sources = || vec![source(0, 1.0), source(1, 3.0)];
    let mut reader = Reader::new(sources(), &Rng::new(3), Tail::Drop).unwrap();
    let count = |batch: bd3::data::Batch| (0..batch.rows).filter(|&row| batch.row(row)[1] == 1).count();
    assert!((700..800).contains(&count(reader.next_batch(1000))));
    reader.set_weights(&[1.0, 0.0]).unwrap();
    assert_eq!(count(reader.next_batch(100)), 0);
    assert!(reader.set_weights(&[0.0, 0.0]).is_err() && reader.set_weights(&[1.0]).is_err());
    let other = Reader::new(vec![source(0, 1.0)], &Rng::new(3), Tail::Drop).unwrap();
    assert!(reader.seek(other.cursor()).unwrap_err().to_string().contains("2 sources"));
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read(path: &Path, separator: Option<&str>) -> bd3::Result<Vec<String>> {
    Texts::new(&[path.to_path_buf()], "text", separator)?.documents().collect()
}

#[test]
fn documents_come_out_of_every_kind_of_file() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"text\":\"one\\n\"}\n\n{\"id\":1,\"text\":\"zwölf\"}";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    let zstd = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    for (name, bytes) in [
        ("a.jsonl", lines.as_bytes().to_vec()),
        ("b.jsonl.gz", gzip.finish().unwrap()),
        ("c.jsonl", zstd.clone()),
        ("d.jsonl.zst", zstd),
    ] {
        assert_eq!(read(&write(dir.path(), name, &bytes), None).unwrap(), ["one\n", "zwölf"], "{name}");
    }
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    write(&dir.path().join("deep"), "e.txt", b"first<|end|>second<|end|>");
    write(&dir.path().join("deep"), "f.png", b"no text");
    let texts = Texts::new(&[dir.path().join("deep")], "text", Some("<|end|>")).unwrap();
    assert_eq!(texts.ignored().len(), 1);
    assert_eq!(texts.documents().collect::<bd3::Result<Vec<_>>>().unwrap(), ["first", "second"]);
    let whole = read(&dir.path().join("deep/e.txt"), None).unwrap();
    assert_eq!(whole, ["first<|end|>second<|end|>"]);
}

#[test]
fn a_separator_may_lie_across_two_reads() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("{}##b", "a".repeat((1 << 16) - 1));
    let pieces = read(&write(dir.path(), "a.txt", text.as_bytes()), Some("##")).unwrap();
    assert_eq!((pieces[0].len(), pieces[1].as_str()), ((1 << 16) - 1, "b"));
}

#[test]
fn hostile_texts_are_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, says) in [
        ("a.txt", &b"fine \xff"[..], "offset 5"),
        ("b.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}\n", "offset 22"),
        ("c.jsonl", b"{\"text\":\"a\"}\n{\"text\":\n", "`line 2`: expected one JSON object, found broken JSON"),
        ("d.jsonl", b"{\"body\":\"a\",\"id\":2}\n", "a field `text`, found only [body, id]"),
        ("e.jsonl", b"{\"text\":3}\n", "a string in field `text`"),
        ("f.jsonl", b"[1]\n", "JSON of another kind"),
        ("g.bin", b"x", "a name that ends in"),
        ("h.txt.gz", b"\x1f\x8b\x08\x00broken", "h.txt.gz"),
        ("i.txt.zst", b"\x28\xb5\x2f\xfdbroken", "i.txt.zst"),
    ] {
        let error = read(&write(dir.path(), name, bytes), None).unwrap_err();
        assert!(error.to_string().contains(says) && error.to_string().contains(name), "{error}");
        assert!(error.is_refusal());
    }
    let packed = zstd::encode_all("a sentence to be cut short. ".repeat(50).as_bytes(), 1).unwrap();
    for length in [10, packed.len() - 1] {
        assert!(read(&write(dir.path(), "j.txt.zst", &packed[..length]), None).is_err());
    }
    assert!(read(&dir.path().join("missing.txt"), None).is_err());
    assert!(Texts::new(&[], "text", None).is_err());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(Texts::new(&[empty], "text", None).unwrap_err().to_string().contains("text files"));
}

#[test]
fn hostile_tokenizers_are_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, says) in [
        (&b""[..], "an empty file"),
        (b"{\"model\":", "broken JSON"),
        (b"\xff\xfe", "not UTF-8 at offset 0"),
        (b"{\"type\":\"chars\"}", "`chars`"),
        (b"{\"type\":\"bytes\",\"version\":2}", "the byte tokenizer"),
        (b"{\"weights\":1}", "`model`"),
        (b"{\"model\":{\"type\":\"BPE\"}}", "refuses"),
    ] {
        let error = Tokenizer::load(write(dir.path(), "tokenizer.json", bytes)).unwrap_err();
        assert!(error.to_string().contains(says) && error.to_string().contains("tokenizer.json"), "{error}");
    }
}

/// A good shard, with its header or bytes changed, must not open.
#[test]
fn hostile_shards_are_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let good = shard(dir.path(), &[vec![1, 2, 3], vec![4, 5]]);
    let bytes = std::fs::read(good.path()).unwrap();
    let table = bytes.len() - 32;
    let header = |from: &str, to: &str| {
        let line = String::from_utf8(bytes[..512].to_vec()).unwrap().replace(from, to);
        let line = format!("{:<511}\n", line.trim_end());
        [line.as_bytes(), &bytes[512..]].concat()
    };
    let patch = |at: usize, value: u64| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let mut large_id = bytes.clone();
    large_id[512..514].copy_from_slice(&104u16.to_le_bytes());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "a file of 0 bytes"),
        (bytes[..300].to_vec(), "a file of 300 bytes"),
        (bytes[..bytes.len() - 1].to_vec(), "`length`"),
        ([&bytes[..], &[0]].concat(), "`length`"),
        (vec![b'x'; 600], "another beginning"),
        (header("\"width\":2", "\"width\":,"), "a broken header"),
        (header("\"width\":2", "\"depth\":2"), "a broken header"),
        (header("bd3-ids", "bd4-ids"), "`format`"),
        (header("\"version\":1", "\"version\":9"), "`version`: expected 1, found 9"),
        (header("\"width\":2", "\"width\":4"), "`width`"),
        (header("\"ids\":5", "\"ids\":5000"), "`length`"),
        (header("\"ids\":5", &format!("\"ids\":{}", u64::MAX)), "`length`"),
        (header("\"documents\":2", "\"documents\":3"), "`length`"),
        (header("\"bytes\":5", "\"bytes\":6"), "`bytes`: expected the sum over documents, 5, found 6"),
        (header("\"vocab_size\":104", "\"vocab_size\":5"), "`ids`: expected ids below vocab_size 5, found 5"),
        (large_id, "found 104"),
        (patch(table, 1), "`document 0`: expected a start at 0, found 1"),
        (patch(table + 16, 0), "`document 1`: expected a start after 0, found 0"),
        (patch(table + 16, 5), "`document 1`: expected a start before 5, found 5"),
    ];
    for (bytes, says) in cases {
        let error = Shard::open(write(dir.path(), "bad.bin", &bytes)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("bad.bin"), "{error} | {says}");
    }
}

#[test]
fn wide_vocabularies_take_four_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.bin");
    let mut writer = Writer::create(&path, 70_000, "hash").unwrap();
    writer.push(&[69_999, 1, 2], 9).unwrap();
    assert!(writer.push(&[70_000], 1).is_err());
    assert!(writer.push(&[], 1).is_err());
    writer.finish().unwrap();
    let shard = Shard::open(&path).unwrap();
    let mut ids = Vec::new();
    shard.read(0..3, &mut ids);
    assert_eq!((ids, shard.header().width), (vec![69_999, 1, 2], 4));
}

#[test]
fn a_shard_in_memory_reads_like_one_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let documents = [vec![1, 2, 3], vec![4, 5], vec![6]];
    let disk = shard(dir.path(), &documents);
    let documents = documents.into_iter().map(|ids| (ids.clone(), ids.len() as u64));
    let memory = Arc::new(Shard::in_memory("prompt", 104, documents).unwrap());
    assert_eq!((memory.header().bytes, memory.document(1), memory.document_bytes(2)), (6, 3..5, 1));
    let pack = |shard| Packing::new(shard, Wrap::Stream, 4, SPECIAL).unwrap();
    assert_eq!(rows(&pack(disk)), rows(&pack(memory)));
    assert!(Shard::in_memory("prompt", 4, [(vec![4], 1)].into_iter()).is_err());
}

#[test]
fn a_data_folder_holds_every_document_once() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("data");
    let mut rng = Rng::new(9);
    let mut texts: Vec<String> = (0..300).map(|_| toy::story(&mut rng).text).collect();
    let documents = texts.clone().into_iter().map(Ok).chain([Ok(" \n".to_string())]);
    let shares = Shares::parse("80,10,10").unwrap();
    let summary = build(documents, trained(), (shares, 1), &out, &mut |_| ()).unwrap();
    assert_eq!((summary.documents, summary.empty), (300, 1));
    let folder = Folder::open(&out).unwrap();
    let mut found = Vec::new();
    for split in Split::ALL {
        let shard = folder.shard(split).unwrap();
        assert_eq!(summary.splits[split.name()].documents, shard.documents() as u64);
        for document in 0..shard.documents() {
            let mut ids = Vec::new();
            shard.read(shard.document(document), &mut ids);
            let text = folder.tokenizer().decode(&ids).unwrap();
            assert_eq!(text.len() as u64, shard.document_bytes(document));
            found.push(text);
        }
    }
    texts.sort();
    found.sort();
    assert_eq!(texts, found);
    // Another tokenizer beside the shards is noticed.
    Tokenizer::bytes().save(&out).unwrap();
    let error = Folder::open(&out).unwrap().shard(Split::Train).unwrap_err().to_string();
    assert!(error.contains("`tokenizer`"), "{error}");
}

#[test]
fn a_refused_build_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let shares = Shares::parse("98,1,1").unwrap();
    let build = |documents: Vec<bd3::Result<String>>, out: &Path| {
        build(documents.into_iter(), &Tokenizer::bytes(), (shares, 1), out, &mut |_| ()).map(|_| ())
    };
    let out = dir.path().join("new/deep/data");
    let error = build(vec![Ok("one document".into())], &out).unwrap_err().to_string();
    assert!(error.contains("a document in every split"), "{error}");
    assert!(build(vec![Ok(" ".into())], &out).unwrap_err().to_string().contains("at least one document"));
    assert!(build(vec![Ok("a".into()), Err(bd3::Error::Run("broken".into()))], &out).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    write(dir.path(), "something", b"");
    assert!(build(vec![Ok("a".into())], dir.path()).unwrap_err().to_string().contains("new or empty folder"));
}
