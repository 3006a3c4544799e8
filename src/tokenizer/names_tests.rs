use std::time::{Duration, Instant};

use super::*;
use crate::tokenizer::train_bpe;

/// Byte level, with `<bos>`, `<eos>`, `<pad>` and `<mask>`.
fn bpe() -> Tokenizer {
    train_bpe(std::iter::once("the cat sat on the mat, the end of it"), 262).unwrap()
}

/// Names that lie in one another, and one of a single character.
fn nested() -> Tokenizer {
    let name = |(id, name): (usize, &&str)| {
        format!(
            "{{\"id\":{id},\"content\":\"{name}\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}}"
        )
    };
    let names: Vec<String> = ["ab", "abc", "bcd", "#"].iter().enumerate().map(|(i, n)| name((i + 6, n))).collect();
    let file = format!(
        "{{\"version\":\"1.0\",\"added_tokens\":[{}],\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":null,
        \"model\":{{\"type\":\"BPE\",\"vocab\":{{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"#\":4,\"x\":5}},\"merges\":[]}}}}",
        names.join(",")
    );
    Tokenizer::from_bytes(file.as_bytes()).unwrap()
}

#[test]
fn a_text_of_nothing_but_names_takes_one_pass() {
    let tokenizer = bpe();
    let count = 200_000;
    let start = Instant::now();
    // The other names stand nowhere, so that whoever looks for them after each hit reads all of the rest.
    let ids = tokenizer.encode_template(&"<eos>".repeat(count)).unwrap();
    assert_eq!(ids, vec![tokenizer.special().eos.unwrap(); count]);
    // Three names and 200 thousand rests of half a megabyte are 300 GB to read.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn the_first_name_counts_and_of_those_the_longest() {
    let tokenizer = nested();
    let ids = |text: &str| tokenizer.encode_template(text).unwrap();
    let [ab, abc, bcd, hash] = ["ab", "abc", "bcd", "#"].map(|name| ids(name)[0]);
    assert_eq!(ids("abx"), [ab, 5]);
    assert_eq!(ids("abcd"), [abc, 3]);
    assert_eq!(ids("xbcd#abc"), [5, bcd, hash, abc]);
    assert_eq!(ids(""), [0u32; 0]);
}

#[test]
fn under_a_veil_no_name_stands_and_all_is_text() {
    let tokenizer = nested();
    let names = tokenizer.names().unwrap().unwrap();
    let text = "abcd#xab\u{fdd0}";
    let veil = Veil::over(names, &[text, "x"], "").unwrap().unwrap();
    let hidden = veil.hide(names, text);
    assert!(!names.is_in(&hidden) && hidden.chars().count() == text.chars().count(), "{hidden:?}");
    assert_eq!(veil.lift(&hidden), text);
    let around = format!("ab{}", veil.hide(names, "abcd#x"));
    let ab = tokenizer.encode_template("ab").unwrap()[0];
    assert_eq!(tokenizer.encode_under(Some(&veil), &around).unwrap(), [&[ab][..], &[0, 1, 2, 3, 4, 5]].concat());
    assert!(Veil::over(names, &["xa", "b"], "ab").unwrap().is_none());
    let all: String = STAND_INS.into_iter().flatten().collect();
    assert!(Veil::over(names, &["ab", &all], "").is_err());
    assert!(Veil::over(names, &["ab"], &all).is_err());
}
