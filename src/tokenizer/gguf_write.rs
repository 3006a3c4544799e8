//! A tokenizer as the metadata of a GGUF file: the whole `tokenizer.json`, which reads back as it was, and for a byte-level BPE
//! whose way to cut words llama.cpp has a name for, the vocabulary in its keys. It knows no tensors but the number of rows that
//! the table of embeddings has.

use serde_json::{Value as Json, json};

use super::Tokenizer;
use super::gguf::{self, Kind};
use crate::error::{Error, Result};
use crate::format::gguf::{Kind as Type, Value};

/// The key of the whole file.
pub(super) const WHOLE: &str = "tokenizer.huggingface.json";

/// A tokenizer's keys in a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// Keys and values, without special ids, which the model has.
    pub keys: Vec<(String, Value)>,
    /// Why llama.cpp can't read the vocabulary, where it can't.
    pub missing: Option<String>,
}

impl Tokenizer {
    /// Its keys in a GGUF file of a model with so many embeddings; rows beyond the vocabulary get tokens that stand for nothing.
    ///
    /// # Errors
    /// More tokens than embeddings.
    pub fn to_gguf(&self, rows: usize) -> Result<Keys> {
        if self.size > rows {
            return Err(Error::value("tokenizer", format!("at most {rows} tokens"), self.size.to_string()));
        }
        let file = String::from_utf8_lossy(self.file()).into_owned();
        let json: Json = serde_json::from_str(&file).unwrap_or_default();
        let mut keys = vec![(WHOLE.to_string(), Value::Text(file))];
        let missing = match byte_level(&json, rows) {
            Ok(more) => {
                keys.extend(more);
                None
            }
            Err(why) => Some(why),
        };
        Ok(Keys { keys, missing })
    }
}

/// llama.cpp's keys of a byte-level BPE, or what is in their way.
fn byte_level(json: &Json, rows: usize) -> Result<Vec<(String, Value)>, String> {
    let model = &json["model"];
    let decodes_bytes = json["decoder"]["type"] == "ByteLevel";
    let (Some(vocab), Some(merges), true) = (model["vocab"].as_object(), model["merges"].as_array(), decodes_bytes)
    else {
        return Err("it is no byte-level BPE".into());
    };
    let pre = named(json).ok_or("its way to cut words has no name")?;
    let merge = |merge: &Json| match merge {
        Json::String(merge) => Some(merge.clone()),
        pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
    };
    let merges: Vec<String> = merges.iter().map(merge).collect::<Option<_>>().ok_or("a merge is no pair")?;
    let mut tokens: Vec<(String, Kind)> = (0..rows).map(|id| (format!("[PAD{id}]"), Kind::Unused)).collect();
    let mut put = |id: &Json, token: &str, kind| {
        let place = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        place.map(|place| *place = (token.to_string(), kind)).ok_or(format!("token {token:?} has no place"))
    };
    for (token, id) in vocab {
        put(id, token, Kind::Normal)?;
    }
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { Kind::Control } else { Kind::UserDefined };
        put(&token["id"], token["content"].as_str().unwrap_or_default(), kind)?;
    }
    let kinds = tokens.iter().map(|(_, kind)| Value::I32(*kind as i32)).collect();
    Ok(vec![
        (gguf::MODEL.into(), Value::Text("gpt2".into())),
        (gguf::PRE.into(), Value::Text(pre.into())),
        (gguf::TOKENS.into(), Value::texts(tokens.into_iter().map(|(token, _)| token))),
        (gguf::KINDS.into(), Value::List(Type::I32, kinds)),
        (gguf::MERGES.into(), Value::texts(merges)),
        (gguf::ADDS_BOS.into(), Value::Bool(begins_with_special(&json["post_processor"]))),
    ])
}

/// llama.cpp's name of the way in which a tokenizer cuts words.
fn named(json: &Json) -> Option<&'static str> {
    let cut = |cut: &&gguf::Cut| {
        let (normalizer, pre) = gguf::before_merges(cut);
        let whole_first = json["model"]["ignore_merges"] == true;
        essence(&pre) == essence(&json["pre_tokenizer"])
            && normalizer["type"] == json["normalizer"]["type"]
            && cut.whole_first == whole_first
    };
    gguf::CUTS.iter().find(cut).and_then(|cut| cut.names.first().copied())
}

/// The steps of a pre-tokenizer, without what changes no id: how they are nested, offsets, single digits in two spellings.
fn essence(pre: &Json) -> Vec<Json> {
    match pre["type"].as_str() {
        Some("Sequence") => pre["pretokenizers"].as_array().into_iter().flatten().flat_map(essence).collect(),
        Some("ByteLevel") => vec![json!([pre["type"], pre["add_prefix_space"], pre["use_regex"]])],
        Some("Digits") if pre["individual_digits"] == true => vec![json!(["Split", r"\p{N}", "Isolated", false])],
        Some("Split") => vec![json!([pre["type"], pre["pattern"]["Regex"], pre["behavior"], pre["invert"]])],
        _ => vec![pre.clone()],
    }
}

/// Does a post-processor put a special token before a text?
fn begins_with_special(post: &Json) -> bool {
    match post["type"].as_str() {
        Some("Sequence") => post["processors"].as_array().into_iter().flatten().any(begins_with_special),
        Some("TemplateProcessing") => post["single"][0].get("SpecialToken").is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte-level BPE of a few merges, with a special token, cut by these steps.
    fn tokenizer(pre: &Json, normalizer: &Json, post: &Json) -> Tokenizer {
        let mut tokenizer = super::super::train_bpe(["the cat sat on the mat", "the hat 12"].into_iter(), 262).unwrap();
        let mut json: Json = serde_json::from_slice(tokenizer.file()).unwrap();
        for (key, value) in [("pre_tokenizer", pre), ("normalizer", normalizer), ("post_processor", post)] {
            json[key] = value.clone();
        }
        tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
        tokenizer
    }

    fn value<'a>(keys: &'a Keys, key: &str) -> Option<&'a Value> {
        keys.keys.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    #[test]
    fn the_published_ways_to_cut_words_have_their_names() {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex});
        let sequence = |parts: &[Json]| json!({"type": "Sequence", "pretokenizers": parts});
        let qwen = concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        let split = json!({"type": "Split", "pattern": {"Regex": qwen}, "behavior": "Isolated", "invert": false});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let nfc = json!({"type": "NFC"});
        for (pre, normalizer, name) in [
            (bytes(true), Json::Null, Some("gpt-2")),
            (sequence(&[digits, bytes(true)]), Json::Null, Some("smollm")),
            (sequence(&[split.clone(), bytes(false)]), nfc.clone(), Some("qwen2")),
            (sequence(&[split, bytes(false)]), Json::Null, None),
            (bytes(true), nfc, None),
        ] {
            let keys = tokenizer(&pre, &normalizer, &Json::Null).to_gguf(300).unwrap();
            assert_eq!(value(&keys, gguf::PRE).and_then(Value::as_text), name);
            assert_eq!(keys.missing.is_none(), name.is_some(), "{:?}", keys.missing);
        }
    }

    #[test]
    fn a_vocabulary_fills_the_table_of_embeddings() {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
        let bos = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<bos>": {"id": "<bos>", "ids": [0], "tokens": ["<bos>"]}}});
        let tokenizer = tokenizer(&bytes, &Json::Null, &bos);
        let keys = tokenizer.to_gguf(tokenizer.size + 2).unwrap();
        let tokens = value(&keys, gguf::TOKENS).unwrap().as_list().unwrap();
        assert_eq!(tokens.len(), tokenizer.size + 2);
        for (id, token) in tokens.iter().take(tokenizer.size).enumerate() {
            assert_eq!(token.as_text(), tokenizer.name(id as u32).as_deref());
        }
        assert_eq!(tokens[tokenizer.size].as_text(), Some(&*format!("[PAD{}]", tokenizer.size)));
        let kinds = value(&keys, gguf::KINDS).unwrap().as_list().unwrap();
        let kind = |id: u32| kinds[id as usize].as_count();
        assert_eq!(kind(tokenizer.special().mask), Some(Kind::Control as usize));
        assert_eq!(kinds.last().unwrap().as_count(), Some(Kind::Unused as usize));
        assert_eq!(value(&keys, gguf::ADDS_BOS), Some(&Value::Bool(true)));
        assert_eq!(value(&keys, WHOLE).unwrap().as_text().unwrap().as_bytes(), tokenizer.file());
        assert!(tokenizer.to_gguf(tokenizer.size - 1).unwrap_err().to_string().contains("at most"));
        assert!(Tokenizer::bytes().to_gguf(300).unwrap().missing.unwrap().contains("byte-level"));
    }
}
