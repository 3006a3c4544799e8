//! Text to batches: goldens of the official code, packing, resuming, hostile files, round trips.

mod files;

use std::path::Path;
use std::sync::Arc;

use bd3::data::pack::{Between, Frame};
use bd3::data::shard::Writer;
use bd3::data::{Detokenizer, Packing, Reader, Shard, Source, Tail, Wrap, toy};
use bd3::rng::Rng;
use bd3::tokenizer::{Special, Tokenizer, train_bpe};
use proptest::prelude::*;
use serde_json::Value;

use files::write;

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
fn a_tokenizer_that_cannot_frame_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shard = shard(dir.path(), &[vec![1, 2, 3]]);
    let pack = |wrap, special| Packing::new(shard.clone(), wrap, 4, special).map(|_| ()).map_err(|e| e.to_string());
    let (no_bos, no_eos) = (Special { bos: None, ..SPECIAL }, Special { eos: None, ..SPECIAL });
    let error = pack(Wrap::Stream, no_bos).unwrap_err();
    assert!(error.starts_with("bos") && error.contains("begin every row") && error.contains("official"), "{error}");
    let error = pack(Wrap::Stream, no_eos).unwrap_err();
    assert!(error.starts_with("eos") && error.contains("end every document"), "{error}");
    assert!(pack(Wrap::named("official").unwrap(), no_bos).is_ok());
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

#[test]
fn every_document_begins_a_row_that_the_next_ones_fill() {
    let dir = tempfile::tempdir().unwrap();
    let documents = [vec![1, 2, 3, 4, 5], vec![6], vec![7, 8]];
    let packing = Packing::new(shard(dir.path(), &documents), Wrap::Starts, 5, SPECIAL).unwrap();
    assert_eq!(rows(&packing), [[100, 1, 2, 3, 4], [100, 6, 101, 7, 8], [100, 7, 8, 101, 102]]);
    assert_eq!(packing.batch(0..3).valid, [5, 5, 4]);
    assert_eq!((packing.document(1), packing.rows_of(1)), (1, 1..2));
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

#[test]
fn a_reader_goes_on_in_no_other_text_of_as_many_rows() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let reader = |i: usize, last: u32| {
        let shard = shard(dirs[i].path(), &[vec![1; 20], vec![2, 3, last]]);
        let packing = Packing::new(shard, Wrap::Stream, 4, SPECIAL).unwrap();
        Reader::new(vec![Source { packing, weight: 1.0 }], &Rng::new(3), Tail::Drop).unwrap()
    };
    let mut first = reader(0, 4);
    first.next_batch(3);
    let refusal = reader(1, 5).seek(first.cursor()).unwrap_err().to_string();
    let path = dirs[1].path().join("train.bin").display().to_string();
    assert!(refusal.starts_with(&path) && refusal.contains("the text that the run was started with"), "{refusal}");
    reader(1, 4).seek(first.cursor()).unwrap();
    // What is not known is taken as it is, and known from then on.
    let old = r#"{"row":3,"sources":[{"rows":8,"weight":1.0,"epoch":0,"taken":3}]}"#;
    let mut other = reader(1, 5);
    other.seek(&serde_json::from_str(old).unwrap()).unwrap();
    assert_eq!((other.cursor().row, other.cursor().sources[0].taken), (3, 3));
    assert_eq!(other.cursor().sources[0].digest, reader(0, 5).cursor().sources[0].digest);
}
