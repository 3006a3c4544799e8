//! Events as a language of their own: a stream tells one text and nothing else, a trace keeps it, and what contradicts itself or
//! was changed on the way is refused in a sentence.

use std::path::Path;

use bd3::event::{Edit, EditKind, Event, Header, Reason, State, Trace, TraceWriter, VERSION, Why};
use bd3::sample::run;
use proptest::prelude::*;
use serde_json::json;

use crate::samples::{MASK, any_options, any_prompt, sampler_for};
use crate::scripted::{Scripted, from_digest};

pub fn header() -> Header {
    let (model, tokenizer) = ("scripted".to_string(), "none".to_string());
    Header { version: VERSION, model, tokenizer, mask: MASK, seed: 1, settings: json!({ "block": 4 }) }
}

/// An id as bytes: text for most, a piece of a character for some.
fn spell(id: u32) -> Vec<u8> {
    if id.is_multiple_of(5) { vec![0xc3, id as u8 | 0x80] } else { format!("w{id} ").into_bytes() }
}

pub fn write(events: &[Event]) -> Vec<u8> {
    use bd3::event::Sink;
    let (mut out, mut ms) = (Vec::new(), 0.0);
    let clock = move || {
        ms += 1.25;
        ms
    };
    let mut writer = TraceWriter::new(&mut out, &header(), spell, clock).unwrap();
    for event in events {
        writer.event(event);
    }
    writer.close().unwrap();
    out
}

fn read(file: &[u8]) -> Result<Trace, String> {
    Trace::parse(Path::new("t.jsonl"), file).map_err(|error| error.to_string())
}

fn started() -> Event {
    Event::Started { prompt: vec![9, 1, MASK, 3], block: 4, reach: 2 }
}

fn opened() -> Event {
    Event::BlockOpened { start: 0, ids: vec![9, 1, MASK, 3] }
}

fn committed() -> Event {
    Event::BlockCommitted { start: 0, ids: vec![9, 1, 5, 3] }
}

fn edited(edits: Vec<Edit>) -> Event {
    Event::Edited { pass: 1, edits }
}

fn edit(position: usize, kind: EditKind, (old, new): (u32, u32)) -> Edit {
    Edit { kind, old, new, ..Edit::fill(position, MASK, new, 0.5) }
}

fn finished(length: usize) -> Event {
    Event::Finished { length, passes: 2, tokens: 1, reason: Reason::Length }
}

fn retracted(start: usize, ids: Vec<u32>) -> Event {
    Event::Retracted { start, ids, pass: 2, prob: 0.1, why: Why::Unlikely }
}

#[test]
fn every_contradiction_is_noticed_where_it_stands() {
    let filled = || edited(vec![Edit::fill(2, MASK, 5, 0.5)]);
    let free = || Event::BlockOpened { start: 4, ids: vec![MASK; 4] };
    let good = [started(), opened(), filled(), committed(), free()];
    let wrong: [(usize, Event); 22] = [
        (0, opened()),
        (1, started()),
        (1, Event::BlockOpened { start: 0, ids: vec![9, 1, MASK, 4] }),
        (1, Event::BlockOpened { start: 0, ids: vec![9, 1] }),
        (1, Event::BlockOpened { start: 4, ids: vec![MASK; 4] }),
        (1, filled()),
        (1, finished(3)),
        (2, opened()),
        (2, edited(vec![Edit::fill(2, MASK, MASK, 0.5)])),
        (2, edited(vec![Edit::fill(4, MASK, 5, 0.5)])),
        (2, edited(vec![edit(1, EditKind::Revise, (1, 2))])),
        (2, edited(vec![edit(3, EditKind::Remask, (3, MASK))])),
        // The id that the insertion would push out is a given one.
        (2, edited(vec![edit(2, EditKind::Insert, (3, MASK))])),
        (2, edited(vec![edit(2, EditKind::Remask, (MASK, MASK))])),
        (2, Event::BlockCommitted { start: 0, ids: vec![9, 1, MASK, 3] }),
        (3, Event::BlockCommitted { start: 0, ids: vec![9, 1, 6, 3] }),
        (3, Event::Edited { pass: 0, edits: Vec::new() }),
        (4, retracted(1, vec![1, 5, 3])),
        (4, retracted(2, vec![5])),
        // It reaches no further than two ids.
        (4, retracted(1, vec![1, 5, 3])),
        (5, Event::Edited { pass: 0, edits: Vec::new() }),
        (5, edited(vec![edit(4, EditKind::Delete, (MASK, MASK))])),
    ];
    for (at, event) in wrong {
        let mut state = State::new(MASK);
        good[..at].iter().for_each(|event| state.apply(event).unwrap());
        let before = (state.hash(), state.text().to_vec());
        assert!(state.apply(&event).is_err(), "after {at}: {event:?}");
        assert_eq!((state.hash(), state.text().to_vec()), before, "{event:?} left a trace");
    }
}

#[test]
fn every_kind_of_edit_does_what_it_says() {
    let mut state = State::new(MASK);
    let block = |ids: &[u32]| Event::BlockOpened { start: 1, ids: ids.to_vec() };
    for event in [Event::Started { prompt: vec![9], block: 4, reach: 4 }, block(&[MASK; 4])] {
        state.apply(&event).unwrap();
    }
    let steps: [(Edit, [u32; 4]); 7] = [
        (edit(2, EditKind::Fill, (MASK, 5)), [MASK, 5, MASK, MASK]),
        (edit(4, EditKind::Fill, (MASK, 7)), [MASK, 5, MASK, 7]),
        (edit(2, EditKind::Insert, (7, MASK)), [MASK, MASK, 5, MASK]),
        (edit(3, EditKind::Revise, (5, 6)), [MASK, MASK, 6, MASK]),
        (edit(3, EditKind::Delete, (6, MASK)), [MASK; 4]),
        (edit(1, EditKind::Fill, (MASK, 8)), [8, MASK, MASK, MASK]),
        (edit(1, EditKind::Remask, (8, MASK)), [MASK; 4]),
    ];
    for (edit, after) in steps {
        state.apply(&edited(vec![edit])).unwrap();
        assert_eq!(state.open(), Some((1, &after[..])));
    }
    state.apply(&edited((1..5).map(|p| Edit::fill(p, MASK, 3, 0.5)).collect())).unwrap();
    state.apply(&Event::BlockCommitted { start: 1, ids: vec![3; 4] }).unwrap();
    state.apply(&retracted(3, vec![3, 3])).unwrap();
    assert_eq!(state.text(), [9, 3, 3]);
    state.apply(&block(&[3, 3, MASK, MASK])).unwrap();
}

#[test]
fn the_hash_tells_states_apart_and_nothing_else() {
    let hash = |events: &[Event]| {
        let mut state = State::new(MASK);
        events.iter().for_each(|event| state.apply(event).unwrap());
        state.hash()
    };
    let fill = |token| edited(vec![Edit::fill(2, MASK, token, 0.5)]);
    assert_eq!(
        hash(&[started(), opened(), fill(5)]),
        hash(&[started(), opened(), fill(4), edited(vec![edit(2, EditKind::Revise, (4, 5))])])
    );
    let all = [
        hash(&[started()]),
        hash(&[started(), opened()]),
        hash(&[started(), opened(), fill(5)]),
        hash(&[started(), opened(), fill(6)]),
    ];
    assert!((1..4).all(|i| !all[..i].contains(&all[i])));
    // FNV-1a of 9 and 1 as 8 bytes each.
    let bytes = [9u64, 1].map(u64::to_le_bytes).concat();
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(all[0], fnv);
}

#[test]
fn a_newer_version_is_refused_in_a_sentence() {
    let file = String::from_utf8(write(&[started()])).unwrap();
    let newer = file.replacen("\"bd3_trace\":1", "\"bd3_trace\":2", 1);
    let error = read(newer.as_bytes()).unwrap_err();
    assert_eq!(error, "t.jsonl: expected a trace of version 1, found version 2: a newer bd3 can read it");
    for (file, word) in [("", "empty"), ("{}\n", "something else"), ("\u{0}", "something else")] {
        assert!(read(file.as_bytes()).unwrap_err().contains(word), "{file}");
    }
    assert!(read(&[b'{', 0xff]).unwrap_err().contains("offset 1"));
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(1000) })]

    /// Replaying a trace gives the final text and every state hash; a changed byte is noticed.
    #[test]
    fn a_trace_tells_the_text_and_keeps_every_byte(
        options in any_options(), prompt in any_prompt(), seed in 0u64..1000, at in any::<prop::sample::Index>(), byte in 1u8..,
    ) {
        let model = Scripted::new(MASK, from_digest(12));
        let Some(mut sampler) = sampler_for(&model, &options, &prompt, seed) else { return Err(TestCaseError::reject("refused")) };
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let mut file = write(&events);
        let trace = read(&file).unwrap();
        prop_assert_eq!(trace.last.text(), sampler.ids());
        prop_assert!(trace.last.is_finished());
        prop_assert_eq!(&trace.header, &header());
        let replayed: Vec<Event> = trace.events.iter().map(|(_, event)| event.clone()).collect();
        prop_assert_eq!(&replayed, &events);
        let known = if prompt.contains(&MASK) { 1 } else { prompt.len() };
        let text: Vec<u8> = sampler.ids()[known..].iter().flat_map(|&id| spell(id)).collect();
        prop_assert_eq!(trace.text(), text);
        let at = at.index(file.len());
        file[at] ^= byte;
        prop_assert!(read(&file).is_err(), "a changed byte at {at} was not noticed");
        // So is a line that went missing, but for the last ones: then the trace says that it is not finished.
        file[at] ^= byte;
        let ends: Vec<usize> = (0..file.len()).filter(|&i| file[i] == b'\n').collect();
        let cut = ends[at % (ends.len() - 1)] + 1;
        prop_assert!(read(&file[..cut]).is_ok_and(|trace| !trace.last.is_finished()));
        prop_assert!(read(&[&file[..ends[0] + 1], &file[cut.max(ends[1] + 1)..]].concat()).is_err() || cut == ends[0] + 1);
    }
}
