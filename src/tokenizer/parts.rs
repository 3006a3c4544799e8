//! A `tokenizer.json` in parts. Its vocabulary and merges are most of it and go straight into [`Names`] and a list of pairs; all the
//! rest is small and stays JSON, the skeleton. From both the library's tokenizer is put together.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, TokenizerBuilder};

use super::bpe::{Bpe, How, Inner, Names, Words};

/// What a file holds.
#[derive(Default)]
pub(super) struct Parts {
    /// All but what is below.
    pub skeleton: Value,
    /// Of a model that has a list of pairs.
    names: Names,
    merges: Merges,
    /// The vocabulary is no such thing.
    other: bool,
}

impl Parts {
    /// Takes a file apart.
    pub fn read(text: &str) -> serde_json::Result<Self> {
        let mut parts = Self::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        let skeleton = Root(&mut parts).deserialize(&mut reader)?;
        reader.end()?;
        parts.skeleton = skeleton;
        Ok(parts)
    }

    /// The tokenizer of a file that was taken apart.
    pub fn assemble(self, text: &str) -> Result<(Inner, Value), String> {
        let model = &self.skeleton["model"];
        let plain = |key: &str| matches!(&model[key], Value::Null) || model[key] == "";
        let undecided = model["dropout"].as_f64().is_some_and(|p| p > 0.0);
        let ours = model["type"] == "BPE"
            && !self.other
            && !undecided
            && plain("continuing_subword_prefix")
            && plain("end_of_word_suffix");
        if !ours {
            let inner = put_together(library(text)?, &self.skeleton)?;
            return Ok((inner, self.skeleton));
        }
        let flag = |key: &str| model[key] == true;
        let how = How {
            unknown: model["unk_token"].as_str().map(str::to_string),
            fuse_unknown: flag("fuse_unk"),
            byte_fallback: flag("byte_fallback"),
            whole_first: flag("ignore_merges"),
        };
        let bpe = Bpe::new(self.names, self.merges.iter(), how)
            .map_err(|[expected, found]| format!("{found}: {expected} are expected"))?;
        let inner = put_together(Words::Merged(bpe), &self.skeleton)?;
        Ok((inner, self.skeleton))
    }
}

/// Any model that the library knows.
fn library(text: &str) -> Result<Words, String> {
    let whole = tokenizers::Tokenizer::from_bytes(text).map_err(|e| e.to_string())?;
    Ok(Words::Library(whole.get_model().clone()))
}

/// A tokenizer over a vocabulary, with the steps and added tokens of a skeleton.
pub(super) fn put_together(words: Words, skeleton: &Value) -> Result<Inner, String> {
    fn step<T: for<'de> Deserialize<'de>>(skeleton: &Value, key: &str) -> Result<Option<T>, String> {
        Deserialize::deserialize(&skeleton[key]).map_err(|e| format!("{key}: {e}"))
    }
    if let Some(version) = skeleton.get("version").filter(|version| **version != "1.0") {
        return Err(format!("version {version}"));
    }
    let inner = TokenizerBuilder::new()
        .with_model(words)
        .with_normalizer(step(skeleton, "normalizer")?)
        .with_pre_tokenizer(step(skeleton, "pre_tokenizer")?)
        .with_post_processor(step(skeleton, "post_processor")?)
        .with_decoder(step(skeleton, "decoder")?);
    let mut inner = inner.build().map_err(|e| e.to_string())?;
    let added: Option<Vec<AddedToken>> = step(skeleton, "added_tokens")?;
    inner.add_tokens(added.unwrap_or_default()).map_err(|e| e.to_string())?;
    // The text of a document is text, even where it spells the name of a special token.
    inner.set_encode_special_tokens(true);
    Ok(inner)
}

/// The file of a vocabulary that came from elsewhere.
pub(super) fn whole(skeleton: &Value, bpe: &Bpe) -> String {
    let mut file = skeleton.clone();
    file["model"]["vocab"] =
        bpe.names().iter().map(|(name, id)| (name.to_string(), id.into())).collect::<Map<_, _>>().into();
    file["model"]["merges"] = bpe.pairs().into_iter().map(|(left, right)| json!([left, right])).collect();
    file.to_string()
}

/// Pairs of tokens, as one text.
#[derive(Default)]
struct Merges {
    text: String,
    /// The lengths of both.
    pairs: Vec<[u32; 2]>,
}

impl Merges {
    fn push(&mut self, left: &str, right: &str) {
        self.text.push_str(left);
        self.text.push_str(right);
        self.pairs.push([left.len() as u32, right.len() as u32]);
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let mut rest = self.text.as_str();
        self.pairs.iter().map(move |pair| {
            let [left, right] = pair.map(|bytes| bytes as usize);
            let (pair, more) = rest.split_at(left + right);
            rest = more;
            pair.split_at(left)
        })
    }
}

/// The whole file.
struct Root<'a>(&'a mut Parts);
/// Its model.
struct Model<'a>(&'a mut Parts);
/// The model's vocabulary.
struct Vocabulary<'a>(&'a mut Parts);
/// The model's merges.
struct MergeList<'a>(&'a mut Parts);

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut skeleton = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = if key == "model" { map.next_value_seed(Model(self.0))? } else { map.next_value()? };
            skeleton.insert(key, value);
        }
        Ok(skeleton.into())
    }
}

impl<'de> DeserializeSeed<'de> for Model<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object as `model`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut model = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = match key.as_str() {
                "vocab" => map.next_value_seed(Vocabulary(self.0))?,
                "merges" => map.next_value_seed(MergeList(self.0))?,
                _ => map.next_value()?,
            };
            model.insert(key, value);
        }
        Ok(model.into())
    }
}

impl<'de> DeserializeSeed<'de> for Vocabulary<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocabulary<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let parts = self.0;
        while let Some((token, id)) = map.next_entry::<std::borrow::Cow<'de, str>, u32>()? {
            // What our list can't hold, the library's perhaps can.
            parts.other |= parts.names.add(&token, id).is_err();
        }
        Ok(json!({}))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        self.0.other = true;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(json!([]))
    }
}

impl<'de> DeserializeSeed<'de> for MergeList<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MergeList<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while let Some(merge) = list.next_element::<Merge>()? {
            match &merge {
                Merge::Pair(left, right) => self.0.merges.push(left, right),
                Merge::Line(line) => match line.split_once(' ') {
                    Some((left, right)) if !right.contains(' ') => self.0.merges.push(left, right),
                    _ => return Err(A::Error::custom(format!("{line:?} is no merge of two tokens"))),
                },
            }
        }
        Ok(json!([]))
    }
}

/// Older files write a line with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}
