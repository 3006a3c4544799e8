//! Files: texts and shards of every kind come in whole, and what is damaged is refused in one sentence.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bd3::data::build::{Folder, build};
use bd3::data::shard::Writer;
use bd3::data::{Packing, Shard, Shares, Split, Texts, Wrap, toy};
use bd3::rng::Rng;
use bd3::tokenizer::{Special, Tokenizer};

use super::{SPECIAL, rows, shard, trained};

pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
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
fn a_folder_is_read_once_and_nothing_hidden_in_it() {
    let dir = tempfile::tempdir().unwrap();
    for deep in ["b", ".git"] {
        std::fs::create_dir(dir.path().join(deep)).unwrap();
    }
    for (name, text) in [("a.txt", "a"), ("b/b.txt", "b"), (".git/c.txt", "c"), (".d.txt", "d")] {
        write(dir.path(), name, text.as_bytes());
    }
    #[cfg(unix)]
    for (link, to) in [("loop", "."), ("b/up", ".."), ("again", "b")] {
        std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
    }
    let texts = Texts::new(&[dir.path().to_path_buf()], "text", None).unwrap();
    let mut found = texts.documents().collect::<bd3::Result<Vec<_>>>().unwrap();
    found.sort();
    assert_eq!(found, ["a", "b"]);
    let left_out: Vec<_> = texts.ignored().iter().map(|(path, _)| path.strip_prefix(dir.path()).unwrap()).collect();
    assert!(left_out.contains(&Path::new(".git")) && left_out.contains(&Path::new(".d.txt")), "{left_out:?}");
    assert_eq!(left_out.len(), if cfg!(unix) { 5 } else { 2 }, "{left_out:?}");
    // Named by itself, it is asked for.
    assert_eq!(read(&dir.path().join(".git"), None).unwrap(), ["c"]);
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
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&[b'a'; 5000]).unwrap();
    let packed = gzip.finish().unwrap();
    let cut = read(&write(dir.path(), "k.txt.gz", &packed[..packed.len() / 2]), None).unwrap_err().to_string();
    assert!(cut.contains("whole gzip or zstd data") && cut.contains("can't be unpacked"), "{cut}");
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
        (b"{\"model\":{\"type\":\"BPE\"}}", "at least one token"),
        (b"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "\"b\" in the merge of"),
        (b"{\"model\":{\"type\":\"Bigram\",\"vocab\":{\"a\":0}}}", "refuses"),
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
fn a_document_that_holds_the_mask_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("data");
    let special = Special { mask: u32::from(b'#'), ..Tokenizer::bytes().special() };
    let tokenizer = Tokenizer::bytes().with_special(special).unwrap();
    let shares = (Shares::parse("100,0,0").unwrap(), 1);
    let documents = ["one", "no. #2"].map(|text| Ok(text.to_string()));
    let error = build(documents.into_iter(), &tokenizer, shares, &out, &mut |_| ()).unwrap_err();
    assert!(error.is_refusal());
    let expected = "texts: expected no document with the mask, which is id 35, found it as token 4 of the document that \
                    begins \"no. #2\"";
    assert_eq!(error.to_string(), expected);
    assert!(!out.exists());
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
