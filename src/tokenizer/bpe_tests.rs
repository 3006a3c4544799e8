use serde_json::{Value, json};

use super::super::{Kind, Tokenizer, train_bpe};
use super::*;
use crate::rng::Rng;

/// Texts of a few characters, at random.
fn texts(alphabet: &str) -> impl Iterator<Item = String> {
    let letters: Vec<char> = alphabet.chars().collect();
    let mut rng = Rng::new(5);
    (0..2000).map(move |i| (0..i % 30).map(|_| letters[rng.below(letters.len())]).collect())
}

fn same_ids(file: &Value, alphabet: &str) {
    let ours = Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap();
    let Kind::Model { inner, .. } = &ours.kind else { panic!("a tokenizer of bytes") };
    assert!(matches!(inner.get_model(), Words::Merged(_)));
    let library = tokenizers::Tokenizer::from_bytes(file.to_string()).unwrap();
    for text in texts(alphabet) {
        let theirs = library.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(ours.encode(&text).unwrap(), theirs.get_ids(), "{text:?} {}", file["model"]["unk_token"]);
        assert_eq!(ours.decode(theirs.get_ids()).unwrap(), library.decode(theirs.get_ids(), true).unwrap());
    }
}

#[test]
fn ids_are_those_of_the_library() {
    let text = "the cat sat on the mat, the cats' hats; 12 and 121 éé ".repeat(3);
    let trained = train_bpe(std::iter::once(text.as_str()), 280).unwrap();
    let mut file: Value = serde_json::from_slice(trained.file()).unwrap();
    for whole_first in [false, true] {
        file["model"]["ignore_merges"] = whole_first.into();
        same_ids(&file, "thecas on12é'\n");
    }
    // One text that no step cuts into words.
    file["pre_tokenizer"] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    same_ids(&file, "thecas on12é");
}

#[test]
fn what_is_no_token_becomes_what_the_library_makes_of_it() {
    let vocab = json!({"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6, "<0xC3>": 7, "<0xA9>": 8, "aa": 9,
        "<unk><unk>": 10, "aaaa": 12});
    for [unknown, fuse, bytes] in (0..8).map(|i| [i & 1, i & 2, i & 4].map(|bit| bit > 0)) {
        let file = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "model": {"type": "BPE", "dropout": null,
            "unk_token": if unknown { json!("<unk>") } else { Value::Null }, "continuing_subword_prefix": null,
            "end_of_word_suffix": "", "fuse_unk": fuse, "byte_fallback": bytes, "ignore_merges": false, "vocab": vocab,
            "merges": ["b c", "a b", "a bc", "ab c", "a a", "aa aa", "<unk> <unk>"]}});
        same_ids(&file, "aabcéx☃");
    }
}

#[test]
fn a_name_is_found_by_its_id_and_an_id_by_its_name() {
    let mut names = Names::default();
    for id in (0..5000).rev() {
        names.add(&format!("t{id}"), id).unwrap();
    }
    assert!((0..5000).all(|id| names.name(id) == Some(&format!("t{id}")) && names.id(&format!("t{id}")) == Some(id)));
    assert_eq!((names.id("t5000"), names.name(5000), names.iter().count()), (None, None, 5000));
    assert_eq!(names.add("t7", 5001).unwrap_err(), ["each token once", "\"t7\" as 7 and 5001"]);
    assert_eq!(names.add("new", 7).unwrap_err(), ["each id once", "7 for \"t7\" and \"new\""]);
    assert!(names.add("far", 1 << 30).unwrap_err()[1].contains("after 5000 tokens"));
}
