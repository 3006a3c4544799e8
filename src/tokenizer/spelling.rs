//! How a vocabulary spells bytes: the byte-level alphabet of GPT-2, SentencePiece's `▁` and `<0xAB>`, WordPiece's `##`, or
//! the text itself. Used to undo the spelling of one token.

use std::sync::LazyLock;

use serde_json::Value;

use super::bpe::Inner;
use super::{Kind, Tokenizer};

impl Tokenizer {
    /// True for a token beside the vocabulary, as special tokens are; an ordinary one ends no text.
    pub fn is_added(&self, id: u32) -> bool {
        match &self.kind {
            Kind::Bytes => u8::try_from(id).is_err(),
            Kind::Model { inner, .. } => inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id),
        }
    }
}

/// A vocabulary's way to write tokens down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Every byte is one visible character (GPT-2).
    ByteLevel,
    /// `▁` is a space and `<0xAB>` one byte.
    Sentence,
    /// The prefix marks a token that continues a word; all others begin with a space.
    WordPiece(String),
    /// The token is its text.
    Plain,
}

impl Spelling {
    /// Read from the decoder of a `tokenizer.json`, or from its pre-tokenizer where it has no decoder.
    pub(super) fn of(json: &Value) -> Self {
        let mut parts = Vec::new();
        components(&json["decoder"], &mut parts);
        components(&json["pre_tokenizer"], &mut parts);
        let find = |name: &str| parts.iter().copied().find(|part| part["type"] == name);
        if find("ByteLevel").is_some() {
            Spelling::ByteLevel
        } else if let Some(part) = find("WordPiece") {
            Spelling::WordPiece(part["prefix"].as_str().unwrap_or("##").to_string())
        } else if find("Metaspace").is_some() || find("ByteFallback").is_some() {
            Spelling::Sentence
        } else {
            Spelling::Plain
        }
    }

    /// True when any text can be written: always, as far as is known, but for the byte alphabet every byte must be there.
    pub(super) fn is_complete(&self, vocabulary: &Inner) -> bool {
        *self != Spelling::ByteLevel || (0..=255).all(|byte| has_byte(byte, vocabulary))
    }

    /// True when a character can be written.
    pub(super) fn has(&self, c: char, vocabulary: &Inner) -> bool {
        *self != Spelling::ByteLevel || c.encode_utf8(&mut [0; 4]).bytes().all(|byte| has_byte(byte, vocabulary))
    }

    /// The bytes that a token of the vocabulary stands for.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => token.chars().flat_map(char_bytes).collect(),
            Spelling::Sentence => match one_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            Spelling::WordPiece(prefix) => match token.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {token}").into_bytes(),
            },
            Spelling::Plain => token.as_bytes().to_vec(),
        }
    }
}

fn has_byte(byte: u8, vocabulary: &Inner) -> bool {
    vocabulary.token_to_id(byte_char(byte).encode_utf8(&mut [0; 4])).is_some()
}

/// A component and, for a `Sequence`, all parts of it.
fn components<'a>(part: &'a Value, into: &mut Vec<&'a Value>) {
    for key in ["decoders", "pretokenizers"] {
        for inner in part[key].as_array().into_iter().flatten() {
            components(inner, into);
        }
    }
    into.push(part);
}

/// `<0xAB>` is the byte 0xAB.
fn one_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

/// Bytes that GPT-2's alphabet writes as themselves; the others are numbered from U+0100.
fn is_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes that are not themselves, in order.
static OTHERS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=255u8).filter(|&byte| !is_itself(byte)).collect());

/// The visible character that stands for a byte (GPT-2's `bytes_to_unicode`).
pub(super) fn byte_char(byte: u8) -> char {
    match OTHERS.binary_search(&byte) {
        Ok(place) => char::from_u32(0x100 + place as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        Err(_) => char::from(byte),
    }
}

/// The byte behind a character of that alphabet; a character outside it (in tokens added by hand) is itself.
fn char_bytes(c: char) -> Vec<u8> {
    let code = c as u32;
    let byte = match code {
        0x100.. => OTHERS.get(code as usize - 0x100).copied(),
        _ => u8::try_from(code).ok().filter(|&b| is_itself(b)),
    };
    byte.map_or_else(|| c.to_string().into_bytes(), |b| vec![b])
}

/// True when a text may be cut before a space between two ASCII letters without changing its ids: no normalizer, and
/// GPT-2's own way to cut words, for which ` word` always begins a word.
pub(super) fn cuts_at_words(json: &Value) -> bool {
    let cut = &json["pre_tokenizer"];
    json["normalizer"].is_null()
        && cut["type"] == "ByteLevel"
        && cut["add_prefix_space"] == false
        && cut["use_regex"] != false
        && json["model"]["type"] == "BPE"
}

/// A text in pieces of about `size` bytes, each but the first beginning with a space between two ASCII letters.
pub(super) fn pieces(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let bytes = rest.as_bytes();
        let is_cut = |at: &usize| {
            bytes[*at] == b' ' && bytes[at - 1].is_ascii_alphabetic() && bytes[at + 1].is_ascii_alphabetic()
        };
        let cut = (size.max(1)..bytes.len().saturating_sub(1)).find(is_cut).unwrap_or(bytes.len());
        let piece = &rest[..cut];
        rest = &rest[cut..];
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_one_to_one() {
        for byte in 0..=255u8 {
            assert_eq!(char_bytes(byte_char(byte)), [byte]);
        }
        assert_eq!(byte_char(b' '), 'Ġ');
        assert_eq!(byte_char(b'\n'), 'Ċ');
    }

    #[test]
    fn pieces_are_cut_between_letters_only() {
        let text = "one two, three  four fi ve ";
        let cut: Vec<&str> = pieces(text, 1).collect();
        assert_eq!(cut, ["one", " two, three  four", " fi", " ve "]);
        assert_eq!(pieces(text, 12).collect::<Vec<_>>(), ["one two, three  four", " fi ve "]);
        assert_eq!(pieces("", 5).count(), 0);
    }

    #[test]
    fn each_spelling_is_undone() {
        assert_eq!(Spelling::ByteLevel.bytes("Ġthe"), b" the");
        assert_eq!(Spelling::Sentence.bytes("▁the"), b" the");
        assert_eq!(Spelling::Sentence.bytes("<0xE2>"), [0xe2]);
        assert_eq!(Spelling::WordPiece("##".into()).bytes("##ing"), b"ing");
        assert_eq!(Spelling::WordPiece("##".into()).bytes("the"), b" the");
        assert_eq!(Spelling::Plain.bytes("x"), b"x");
    }
}
