//! How samples end.

use bd3::event::{Event, Quiet, Reason, Sink};
use bd3::pass::{Denoiser, Query};
use bd3::rng::Rng;
use bd3::sample::{Revise, Rule, SampleOptions, Sampler, Split, Stop, run};
use proptest::prelude::*;

use crate::samples::{MASK, any_options, any_prompt, options, sampler_for};
use crate::sampling::rebuild;
use crate::scripted::{Scripted, from_digest, round_numbers};

#[test]
fn end_of_text_ends_a_sample_only_when_asked_to_and_is_not_text() {
    let model = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
        let mut proposal = round_numbers(seen, open, query)?;
        proposal.token = if seen.len() + query.row == 6 { 5 } else { 1 };
        Ok(proposal)
    });
    let ids = |eos| {
        let options = SampleOptions { stop: Stop { eos, low_entropy: None }, ..options(4, 9, Rule::FirstHitting) };
        let mut sampler = Sampler::new(options, &[5, 1], MASK, |size| model.cache(size), Rng::new(1)).unwrap();
        let mut events = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        assert_eq!(rebuild(&events), sampler.ids());
        (sampler.new_ids().to_vec(), sampler.reason().unwrap())
    };
    assert_eq!(ids(Some(5)), (vec![1, 1, 1, 1], Reason::Eos));
    assert_eq!(ids(None), (vec![1, 1, 1, 1, 5, 1, 1, 1, 1], Reason::Length));
}

/// A revision may still change what stands before an end, but nobody gets what stands behind it.
#[test]
fn an_interrupted_sample_ends_at_its_end_of_text() {
    struct Breaks(usize);
    impl Sink for Breaks {
        fn event(&mut self, event: &Event) -> bool {
            self.0 -= usize::from(matches!(event, Event::Edited { .. }));
            self.0 > 0
        }
    }
    let model = Scripted::new(MASK, |seen: &[u32], open: &[u32], query: &Query| {
        let mut proposal = round_numbers(seen, open, query)?;
        proposal.token = if query.row == 3 { 5 } else { 1 };
        Ok(proposal)
    });
    let rule = Rule::LeftToRight { steps: 8, split: Split::Even };
    let revise = Revise::Remask { threshold: 1e-9, rounds: 1 };
    let options = SampleOptions { stop: Stop { eos: Some(5), low_entropy: None }, revise, ..options(8, 40, rule) };
    for edits in [3, 4, 6] {
        let mut sampler = Sampler::new(options.clone(), &[9], MASK, |size| model.cache(size), Rng::new(1)).unwrap();
        run(&model, &mut sampler, Breaks(edits)).unwrap();
        assert_eq!((sampler.ids().len(), sampler.reason()), (3, Some(Reason::Interrupted)), "{edits}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn what_stands_behind_an_end_is_not_waited_for(options in any_options(), prompt in any_prompt(), seed in 0u64..1000) {
        const EOS: u32 = 3;
        let model = Scripted::new(MASK, from_digest(10));
        let options = SampleOptions { revise: Revise::None, max_new: options.max_new + 4, ..options };
        let ending = SampleOptions { stop: Stop { eos: Some(EOS), low_entropy: None }, ..options.clone() };
        let (Some(mut whole), Some(mut ended)) =
            (sampler_for(&model, &options, &prompt, seed), sampler_for(&model, &ending, &prompt, seed))
        else {
            return Err(TestCaseError::reject("refused"));
        };
        let mut events = Vec::new();
        run(&model, &mut whole, Quiet).unwrap();
        run(&model, &mut ended, &mut events).unwrap();
        // The text is that of a sample which goes on, cut at its first end of text.
        let end = whole.new_ids().iter().position(|&id| id == EOS).unwrap_or(options.max_new);
        prop_assert_eq!(ended.new_ids(), &whole.new_ids()[..end]);
        prop_assert_eq!(rebuild(&events), ended.ids());
        let reason = if end < options.max_new { Reason::Eos } else { Reason::Length };
        prop_assert_eq!(ended.reason(), Some(reason));
        prop_assert!(ended.passes() <= whole.passes());
    }
}
