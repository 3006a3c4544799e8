//! Templates: no fixed token is ever changed, and every gap has a length that was asked for.

use bd3::event::{Event, State};
use bd3::rng::Rng;
use bd3::sample::{Part, Rule, SampleOptions, Template, Window, run};
use proptest::prelude::*;

use crate::samples::{MASK, any_options, sampler_for};
use crate::scripted::{Scripted, from_digest};

/// A template as text, and what its parts are: texts as numbers of tokens, gaps as bounds.
fn any_template() -> impl Strategy<Value = (String, Vec<(bool, usize, usize)>)> {
    let part = prop_oneof![
        (1usize..6).prop_map(|count| (false, count, count)),
        (1usize..5, 0usize..5).prop_map(|(least, more)| (true, least, least + more)),
    ];
    let one_gap = |parts: &Vec<(bool, usize, usize)>| {
        parts.iter().any(|part| part.0) && parts.windows(2).all(|pair| pair[0].0 || pair[1].0)
    };
    prop::collection::vec(part, 1..6).prop_filter("a gap, and no two texts side by side", one_gap).prop_map(|parts| {
        let text = parts.iter().map(|&(gap, least, most)| match gap {
            true => format!("___{{{least},{most}}}"),
            false => "abcdefg"[..least].to_string(),
        });
        (text.collect(), parts)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(10_000) })]

    #[test]
    fn fixed_tokens_stay_and_gaps_have_the_lengths_asked_for(
        (text, parts) in any_template(), options in any_options(), seed in 0u64..1000,
    ) {
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.parts().len(), parts.len());
        let mut rng = Rng::new(seed);
        let encode = |text: &str| Ok(text.bytes().map(|byte| 1 + u32::from(byte) % 9).collect());
        let ids = template.ids(encode, MASK, |least, most| least + rng.below(most - least + 1)).unwrap();
        let runs: Vec<usize> = ids.chunk_by(|a, b| (*a == MASK) == (*b == MASK)).map(<[u32]>::len).collect();
        let mut merged: Vec<(bool, usize, usize)> = Vec::new();
        for &(gap, least, most) in &parts {
            match merged.last_mut() {
                Some(last) if last.0 == gap => (last.1, last.2) = (last.1 + least, last.2 + most),
                _ => merged.push((gap, least, most)),
            }
        }
        prop_assert!(runs.iter().zip(&merged).all(|(&length, &(_, least, most))| (least..=most).contains(&length)));
        prop_assert_eq!(runs.len(), merged.len());
        for (part, (_, least, most)) in template.parts().iter().zip(&parts).filter(|(_, part)| part.0) {
            prop_assert_eq!(part, &Part::Gap { least: *least, most: *most });
        }

        let prompt: Vec<u32> = std::iter::once(9).chain(ids).collect();
        let options = SampleOptions { max_new: 0, window: Window::Grow, train_length: 1 << 20, ..options };
        let model = Scripted::new(MASK, from_digest(10));
        let Some(mut sampler) = sampler_for(&model, &options, &prompt, seed) else { return Err(TestCaseError::reject("refused")) };
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        // The state refuses every edit of a fixed token, at any time, even one that is taken back later.
        let mut state = State::new(MASK);
        events.iter().for_each(|event| state.apply(event).unwrap());
        prop_assert_eq!(state.text(), sampler.ids());
        prop_assert_eq!(sampler.ids().len(), prompt.len());
        let kept = |(id, given): (&u32, &u32)| (*given == MASK) == (id != given) && *id != MASK;
        prop_assert!(sampler.ids().iter().zip(&prompt).all(kept));
        prop_assert_eq!(sampler.written(), prompt.iter().filter(|&&id| id == MASK).count());
    }
}

/// What lies past a template's end, in its last block, costs nothing.
#[test]
fn only_gaps_are_filled() {
    let model = Scripted::new(MASK, from_digest(10));
    for (block, prompt) in [(32, &[9, 1, MASK, MASK, 2][..]), (4, &[9, MASK, 3, 3, MASK, MASK]), (2, &[9, 1, MASK])] {
        let options = SampleOptions::new(block, 0, Rule::FirstHitting);
        let mut sampler = sampler_for(&model, &options, prompt, 1).unwrap();
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let gaps = prompt.iter().filter(|&&id| id == MASK).count();
        assert_eq!((sampler.passes(), sampler.written(), sampler.ids().len()), (gaps as u64, gaps, prompt.len()));
        let filled = events.iter().filter_map(|event| match event {
            Event::Edited { edits, .. } => edits.iter().map(|edit| edit.position).max(),
            _ => None,
        });
        assert!(filled.max().unwrap() < prompt.len());
    }
}
