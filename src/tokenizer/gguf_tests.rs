use std::path::Path;

use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::super::Kind as Inner;
use super::super::spelling::byte_char;
use super::*;
use crate::format::gguf::{Kind as ValueKind, Value as Meta, write};

type Metadata = Vec<(&'static str, Meta)>;

/// All 256 bytes, two merges and two tokens beside text.
fn metadata(pre: &str) -> Metadata {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_char(byte).to_string()).collect();
    tokens.extend(["th", "the", "<|end|>", "<tool>"].map(String::from));
    let kind = |id: usize| {
        Meta::I32(match id {
            258 => 3,
            259 => 4,
            _ => 1,
        })
    };
    vec![
        (MODEL, Meta::Text("gpt2".into())),
        (PRE, Meta::Text(pre.into())),
        (KINDS, Meta::List(ValueKind::I32, (0..tokens.len()).map(kind).collect())),
        (TOKENS, Meta::texts(tokens)),
        (MERGES, Meta::texts(["t h", "th e"].map(String::from))),
        ("tokenizer.ggml.eos_token_id", Meta::U32(258)),
    ]
}

fn open(metadata: &[(&str, Meta)]) -> Gguf {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.gguf");
    write(&path, metadata, &[], |_| Ok(Vec::new().into())).unwrap();
    Gguf::open(&path).unwrap()
}

fn with(key: &'static str, value: Option<Meta>) -> Metadata {
    let mut metadata = metadata("gpt-2");
    metadata.retain(|(name, _)| *name != key);
    metadata.extend(value.map(|value| (key, value)));
    metadata
}

#[test]
fn a_vocabulary_becomes_a_tokenizer() {
    let file = open(&metadata("gpt-2"));
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    assert_eq!(tokenizer.special(), Special { bos: None, eos: Some(258), mask: 260, pad: None });
    assert_eq!(tokenizer.vocab_size(), 261);
    let ids = tokenizer.encode_template("the<|end|>th<tool>é").unwrap();
    assert_eq!(ids, [257, 258, 256, 259, 0xc3, 0xa9]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "theth<tool>é");
    assert_eq!(tokenizer.encode("<|end|>").unwrap().len(), 7);
    assert_eq!(tokenizer.token_bytes(257), b"the");
    let again = Tokenizer::from_bytes(tokenizer.file()).unwrap();
    assert_eq!(again.hash(), tokenizer.hash());
    let inside = with("tokenizer.huggingface.json", Some(Meta::Text(String::from_utf8(again.file().into()).unwrap())));
    let inside = open(&inside.into_iter().filter(|(key, _)| !key.contains("ggml")).collect::<Metadata>());
    assert_eq!(Tokenizer::from_gguf(&inside).unwrap().hash(), tokenizer.hash());
}

/// The expected pieces, but for `default`, are those of the Python package `tokenizers` 0.23.3 with the published settings.
#[test]
fn words_are_cut_as_the_family_cuts_them() {
    let text = "It'S 12345 a\u{301}pfel\n\n  x_y=(z) 9";
    let cases = [
        ("default", "It|'|S| |123|45| a|\u{301}|pfel|\n\n | x|_|y|=(|z|)| |9"),
        ("gpt-2", "It|'|S| 12345| a|\u{301}|pfel|\n\n | x|_|y|=(|z|)| 9"),
        ("smollm", "It|'|S| |1|2|3|4|5| a|\u{301}|pfel|\n\n | x|_|y|=(|z|)| |9"),
        ("llama-bpe", "It|'S| |123|45| a|\u{301}pfel|\n\n| | x|_y|=(|z|)| |9"),
        ("qwen2", "It|'S| |1|2|3|4|5| a|\u{301}pfel|\n\n| | x|_y|=(|z|)| |9"),
        ("llada-moe", "It|'S| |1|2|3|4|5| a|\u{301}pfel|\n\n| | x|_y|=(|z|)| |9"),
    ];
    for (pre, expected) in cases {
        let tokenizer = Tokenizer::from_gguf(&open(&metadata(pre))).unwrap();
        let Inner::Model { inner, spelling, .. } = &tokenizer.kind else { panic!("a tokenizer of bytes") };
        let mut cut = PreTokenizedString::from(text);
        inner.get_pre_tokenizer().unwrap().pre_tokenize(&mut cut).unwrap();
        let pieces = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let pieces: Vec<String> =
            pieces.iter().map(|(piece, ..)| String::from_utf8(spelling.bytes(piece)).unwrap()).collect();
        assert_eq!(pieces.join("|"), expected, "{pre}");
        assert_eq!(tokenizer.decode(&tokenizer.encode("It'S 12\n x").unwrap()).unwrap(), "It'S 12\n x", "{pre}");
    }
}

#[test]
fn the_composed_form_is_where_the_family_has_it() {
    let ids = |pre| Tokenizer::from_gguf(&open(&metadata(pre))).unwrap().encode("e\u{301}").unwrap();
    assert_eq!(ids("qwen2"), [0xc3, 0xa9]);
    assert_eq!(ids("gpt-2"), [0x65, 0xcc, 0x81]);
}

#[test]
fn bos_is_added_where_the_file_or_its_family_says_so() {
    let said = |metadata: Metadata| adds_bos(&open(&metadata)).unwrap();
    assert!(!said(metadata("gpt-2")));
    assert!(said(metadata("llama-bpe")));
    assert!(said(with(MODEL, Some(Meta::Text("llama".into())))));
    assert!(said(with("tokenizer.ggml.add_bos_token", Some(Meta::Bool(true)))));
}

/// Ids of the Python package `sentencepiece` 0.2.3, for a model trained on a text of our own.
#[test]
fn sentencepiece_is_reproduced() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/gguf/sentencepiece.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let list = |key: &str| golden[key].as_array().unwrap().clone();
    let kinds = list("kinds").iter().map(|kind| Meta::I32(kind.as_i64().unwrap() as i32)).collect();
    let scores = list("scores").iter().map(|score| Meta::F32(score.as_f64().unwrap() as f32)).collect();
    let metadata = vec![
        (MODEL, Meta::Text("llama".into())),
        (TOKENS, Meta::texts(list("tokens").iter().map(|token| token.as_str().unwrap().to_string()))),
        (KINDS, Meta::List(ValueKind::I32, kinds)),
        (SCORES, Meta::List(ValueKind::F32, scores)),
    ];
    let tokenizer = Tokenizer::from_gguf(&open(&metadata)).unwrap();
    assert_eq!(tokenizer.special(), Special { bos: Some(1), eos: Some(2), mask: 3, pad: None });
    for case in list("cases") {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
        assert_eq!(bytes, if text.is_empty() { String::new() } else { format!(" {text}") }.into_bytes());
    }
    let without: Metadata = [metadata, vec![(SPACE_PREFIX, Meta::Bool(false))]].concat();
    let tokenizer = Tokenizer::from_gguf(&open(&without)).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("the sea ").unwrap()).unwrap(), "the sea ");
    assert_ne!(tokenizer.name(tokenizer.encode("the").unwrap()[0]).unwrap().chars().next(), Some('▁'));
}

#[test]
fn what_a_vocabulary_lacks_is_said() {
    let refused = |metadata: Metadata, parts: &[&str]| {
        let message = Tokenizer::from_gguf(&open(&metadata)).unwrap_err().to_string();
        assert!(message.contains("f.gguf") && message.lines().count() == 1, "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let text = |text: &str| Some(Meta::Text(text.into()));
    refused(with(MODEL, None), &["`tokenizer.ggml.model`", "gpt2", "no such key"]);
    refused(with(MODEL, text("bert")), &["`tokenizer.ggml.model`", "SentencePiece", "found bert"]);
    refused(with(MODEL, text("llama")), &["`tokenizer.ggml.scores`", "no such key"]);
    refused(with(PRE, None), &["`tokenizer.ggml.pre`", "smollm", "no such key"]);
    refused(with(PRE, text("viking")), &["`tokenizer.ggml.pre`", "default", "qwen2", "found viking"]);
    refused(with(TOKENS, None), &["`tokenizer.ggml.tokens`", "no such key"]);
    refused(with(TOKENS, Some(Meta::U8(1))), &["`tokenizer.ggml.tokens`", "a list of texts", "found 1"]);
    refused(
        with(TOKENS, Some(Meta::texts(["a", "b", "a"].map(String::from)))),
        &["each token once", "\"a\" as 0 and 2"],
    );
    refused(with(KINDS, Some(Meta::List(ValueKind::U8, vec![Meta::U8(9)]))), &["kinds from 1 to 6", "9"]);
    refused(with(KINDS, Some(Meta::List(ValueKind::U8, vec![]))), &["260 values, as there are tokens", "found 0"]);
    refused(with(MERGES, None), &["`tokenizer.ggml.merges`", "no such key"]);
    refused(with(MERGES, Some(Meta::texts(["the".to_string()]))), &["two tokens with one space between", "\"the\""]);
    refused(with(MERGES, Some(Meta::texts(["a b".to_string()]))), &["merges of tokens", "\"ab\"", "\"a\" and \"b\""]);
    refused(with("tokenizer.ggml.eos_token_id", Some(Meta::U32(260))), &["eos_token_id`", "below 260", "found 260"]);
    refused(with("tokenizer.ggml.mask_token_id", Some(Meta::U32(261))), &["mask_token_id`", "below 261", "found 261"]);
    refused(with("tokenizer.huggingface.json", text("{")), &["a tokenizer", "broken JSON"]);
}
