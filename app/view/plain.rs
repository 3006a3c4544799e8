//! The text view: exactly the new text, written and flushed block by block. It knows nothing of terminals.

use std::io::{self, Write};
use std::time::Duration;

use bd3::event::{Event, Sink};

use super::{Page, Show, Spell};

/// Writes new text as it becomes final.
pub struct Plain<'a, W> {
    out: W,
    spell: Spell<'a>,
    page: Page,
    written: usize,
    /// Bytes of a character whose other bytes are not there yet.
    waiting: Vec<u8>,
    failure: Option<io::Error>,
}

impl<'a, W: Write> Plain<'a, W> {
    /// A view that writes to `out`; `mask` is the id of the mask.
    pub fn new(out: W, spell: Spell<'a>, mask: u32) -> Self {
        Self { out, spell, page: Page::new(mask), written: 0, waiting: Vec::new(), failure: None }
    }

    fn write(&mut self, last: bool) -> io::Result<()> {
        // What may still be retracted waits: nothing that is written can be taken back.
        let end = self.page.safe();
        let from = self.written.max(self.page.own()).min(end);
        for &id in &self.page.ids()[from..end] {
            self.waiting.extend((self.spell)(id));
        }
        self.written = self.written.max(end);
        let text = if last { lossy(std::mem::take(&mut self.waiting)) } else { take_text(&mut self.waiting) };
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Sink for Plain<'_, W> {
    fn event(&mut self, event: &Event) -> bool {
        self.page.follow(event);
        // A committed block may still be cut if the sample ends with it, so it waits for the next event.
        let written = match event {
            Event::BlockOpened { .. } => self.write(false),
            Event::Finished { .. } => self.write(true),
            Event::Started { .. } => {
                self.written = 0;
                Ok(())
            }
            Event::Edited { .. } | Event::BlockCommitted { .. } | Event::Retracted { .. } => Ok(()),
        };
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
        self.failure.is_none()
    }
}

impl<W: Write> Show for Plain<'_, W> {
    fn close(&mut self) -> io::Result<Duration> {
        self.failure.take().map_or(Ok(Duration::ZERO), Err)
    }
}

/// Takes all complete characters from the front; bytes that can't become one are replaced.
pub fn take_text(bytes: &mut Vec<u8>) -> String {
    let incomplete = match bytes.utf8_chunks().last() {
        Some(chunk) => match std::str::from_utf8(chunk.invalid()) {
            Err(error) if error.error_len().is_none() => chunk.invalid().len(),
            _ => 0,
        },
        None => 0,
    };
    let rest = bytes.split_off(bytes.len() - incomplete);
    lossy(std::mem::replace(bytes, rest))
}

/// The text of bytes; those that are no UTF-8 become U+FFFD.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bd3::event::{Edit, Reason};
    use proptest::prelude::*;

    const MASK: u32 = 300;

    fn spell(id: u32) -> Vec<u8> {
        u8::try_from(id).map(|byte| vec![byte]).unwrap_or_default()
    }

    fn commit(start: usize, text: &[u8]) -> [Event; 3] {
        let ids: Vec<u32> = text.iter().map(|&b| u32::from(b)).collect();
        let edits = (start..).zip(&ids).map(|(position, &id)| Edit::fill(position, MASK, id, 1.0)).collect();
        [
            Event::BlockOpened { start, ids: vec![MASK; ids.len()] },
            Event::Edited { pass: 1, edits },
            Event::BlockCommitted { start, ids },
        ]
    }

    #[test]
    fn text_appears_when_the_next_block_opens_and_is_cut_at_the_end() {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out, &spell, MASK);
        plain.event(&Event::Started { prompt: vec![299, 65], block: 2, reach: 0 });
        for event in commit(2, "bé".as_bytes()).iter().chain(&commit(5, b"cde")) {
            assert!(plain.event(event));
        }
        assert_eq!(plain.out.as_slice(), "bé".as_bytes());
        plain.event(&Event::Finished { length: 6, passes: 4, tokens: 4, reason: Reason::Length });
        plain.close().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "béc");
    }

    #[test]
    fn what_may_be_retracted_waits() {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out, &spell, MASK);
        plain.event(&Event::Started { prompt: vec![299], block: 2, reach: 4 });
        for event in commit(1, b"ab").iter().chain(&commit(3, b"cd")).chain(&commit(5, b"ef")) {
            plain.event(event);
        }
        assert_eq!(plain.out.as_slice(), b"");
        let (pass, prob, why) = (1, 0.0, bd3::event::Why::Unlikely);
        plain.event(&Event::Retracted { start: 3, ids: b"cdef".map(u32::from).to_vec(), pass, prob, why });
        for event in commit(3, b"xy") {
            plain.event(&event);
        }
        plain.event(&Event::Finished { length: 5, passes: 4, tokens: 4, reason: Reason::Length });
        plain.close().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "abxy");
    }

    #[test]
    fn a_reader_that_is_gone_stops_the_sample() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut plain = Plain::new(Gone, &spell, MASK);
        plain.event(&Event::Started { prompt: vec![299], block: 2, reach: 0 });
        assert!(commit(1, b"ab").iter().all(|event| plain.event(event)));
        assert!(!plain.event(&Event::BlockOpened { start: 3, ids: vec![MASK] }));
        assert_eq!(plain.close().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    proptest! {
        #[test]
        fn streamed_text_is_the_whole_text(bytes in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..40) {
            let cut = cut.min(bytes.len());
            let mut waiting = bytes[..cut].to_vec();
            let mut text = take_text(&mut waiting);
            waiting.extend(&bytes[cut..]);
            text += &lossy(waiting);
            prop_assert_eq!(text, lossy(bytes));
        }
    }
}
