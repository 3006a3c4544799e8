//! Text on its way to a client: whole characters only, nothing behind a stop sequence, and nothing that may yet become one.

use crate::view::{lossy, take_text};

/// Bytes become text, up to the first stop sequence.
#[derive(Default)]
pub struct Text {
    stops: Vec<String>,
    /// Bytes of a character whose other bytes are not there yet.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop sequence.
    held: String,
    stopped: bool,
}

impl Text {
    /// Nothing yet.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, ..Self::default() }
    }

    /// Has a stop sequence come?
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Takes bytes in which no stop sequence is looked for; gives their text.
    pub fn echo(&mut self, bytes: &[u8]) -> String {
        self.bytes.extend_from_slice(bytes);
        take_text(&mut self.bytes)
    }

    /// Takes more bytes; gives the text that can be told.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        self.held.push_str(&take_text(&mut self.bytes));
        self.tell()
    }

    /// The text that was still waiting at the end.
    pub fn end(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(&lossy(std::mem::take(&mut self.bytes)));
        let told = self.tell();
        told + &std::mem::take(&mut self.held)
    }

    fn tell(&mut self) -> String {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let could_begin = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let rest = self.held.char_indices().map(|(at, _)| at).find(could_begin).unwrap_or(self.held.len());
        let rest = self.held.split_off(rest);
        std::mem::replace(&mut self.held, rest)
    }
}

/// Where the tokens of a text begin in it, in characters. Tokens that share one begin with it.
#[derive(Clone, Default)]
pub struct Offsets {
    /// Characters that are whole.
    whole: usize,
    /// Bytes of one whose other bytes are not there yet.
    bytes: Vec<u8>,
}

impl Offsets {
    /// Where the next token begins, which has these bytes.
    pub fn next(&mut self, bytes: &[u8]) -> usize {
        let (before, begun) = (self.whole, self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        // What it does not go on with stands before it as U+FFFD.
        let first = self.bytes.utf8_chunks().next().map(|chunk| (chunk.valid().len(), chunk.invalid().len()));
        let broken = begun > 0 && !bytes.is_empty() && first == Some((0, begun));
        self.whole += take_text(&mut self.bytes).chars().count();
        before + usize::from(broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_waits_while_it_may_be_a_stop_and_ends_at_one() {
        let mut text = Text::new(vec!["\n\n".into(), "END".into()]);
        assert_eq!(text.push(b"one\n"), "one");
        assert_eq!(text.push(b"two E"), "\ntwo ");
        assert_eq!(text.push(b"N"), "");
        assert_eq!(text.push(b"T\n"), "ENT");
        assert_eq!(text.push(b"\nmore"), "");
        assert!(text.is_stopped() && text.push(b"x").is_empty() && text.end().is_empty());
    }

    #[test]
    fn what_is_echoed_stops_nothing() {
        let mut text = Text::new(vec!["END".into()]);
        assert_eq!(text.echo(b"the END\xc3"), "the END");
        assert_eq!(text.push(b"\xa9 EN"), "\u{e9} ");
        assert_eq!((text.push(b"D!"), text.is_stopped()), (String::new(), true));
    }

    #[test]
    fn a_token_begins_behind_the_characters_that_are_whole() {
        let mut offsets = Offsets::default();
        // An e with an accent in two tokens, a token without bytes, a character that is never whole, one that is.
        let tokens: [&[u8]; 9] = [b"caf", b"\xc3", b"", b"\xa9 ", b"x\xe6", b"\x97", b"yz", b"\xe6\x97\xa5", b"."];
        let found: Vec<usize> = tokens.iter().map(|bytes| offsets.next(bytes)).collect();
        assert_eq!(lossy(tokens.concat()), "caf\u{e9} x\u{fffd}yz\u{65e5}.");
        assert_eq!(found, [0, 3, 3, 3, 5, 6, 7, 9, 10]);
    }

    proptest! {
        #[test]
        fn text_behind_a_token_that_begins_a_character_begins_with_it(
            bytes in prop::collection::vec(prop::sample::select(b"ab\xc3\xa9\xe6\x97\xa5\xf0\x9f".to_vec()), 1..40),
            cuts in prop::collection::vec(1usize..40, 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let (whole, mut offsets) = (lossy(bytes.clone()), Offsets::default());
            for cut in cuts.windows(2) {
                let offset = offsets.next(&bytes[cut[0]..cut[1]]);
                let behind: String = whole.chars().skip(offset).collect();
                let own = behind == lossy(bytes[cut[0]..].to_vec());
                // In the middle of a character it is that one which stands there.
                let shared = (1..=3.min(cut[0])).any(|back| behind == lossy(bytes[cut[0] - back..].to_vec()));
                prop_assert!(own || shared && !bytes[cut[0]].is_ascii(), "{offset} {behind:?} at {cut:?}");
            }
        }

        #[test]
        fn however_it_comes_the_text_is_the_same(
            bytes in prop::collection::vec(prop::sample::select(b"abAB\n\xc3\xa9\xf0\x9f".to_vec()), 0..40),
            cuts in prop::collection::vec(0usize..41, 0..6),
            stops in prop::collection::vec("[ab\n]{1,3}", 0..3),
        ) {
            let whole = lossy(bytes.clone());
            let end = stops.iter().filter_map(|stop| whole.find(stop)).min();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut text = Text::new(stops);
            let mut told: String = cuts.windows(2).map(|cut| text.push(&bytes[cut[0]..cut[1]])).collect();
            prop_assert_eq!(text.is_stopped(), text.is_stopped() && end.is_some());
            told += &text.end();
            prop_assert_eq!(told, &whole[..end.unwrap_or(whole.len())]);
        }
    }
}
