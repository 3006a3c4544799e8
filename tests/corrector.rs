//! The corrector on a scripted denoiser whose ids tell their positions: what it reads, what it takes back, and what that costs.

use bd3::event::{Edit, EditKind, Event, Why};
use bd3::pass::{Denoiser, Proposal, Query};
use bd3::rng::Rng;
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::{Revise, Rule, SampleOptions, Sampler, Split, Window, run};

use crate::samples::{MASK, options};
use crate::scripted::{Scripted, round_numbers};

/// Stands where a wrong token was drawn.
const WRONG: u32 = 1 << 20;

/// A model that counts. A block of nothing but masks gets a wrong token in every third place of the text; otherwise all is right. At block
/// size 1 a wrong token is unlikely, every other one sure.
fn counts(seen: &[u32], open: &[u32], query: &Query) -> bd3::Result<Proposal> {
    let answer = round_numbers(seen, open, query)?;
    if open.len() == 1 {
        assert_eq!(open, [MASK]);
        // What stands before the token, and all of it, in order.
        let right = |pair: &[u32]| pair.contains(&WRONG) || pair[0] + 1 == pair[1];
        assert!(!seen.is_empty() && seen.windows(2).all(right) && !seen.contains(&MASK), "{seen:?}");
        let standing = if query.standing == WRONG { 0.25 } else { 1.0 };
        return Ok(Proposal { standing, ..answer });
    }
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
    let id = seen.last().map_or(1, |last| last + 1) + query.row as u32;
    let wrong = open.iter().all(|&id| id == MASK) && id.is_multiple_of(3);
    Ok(Proposal { token: if wrong { WRONG } else { id }, ..answer })
}

fn corrected(block: usize, window: Window, how: Corrector) -> SampleOptions {
    let revise = Revise::Corrector(how);
    SampleOptions { window, revise, ..options(block, 60, Rule::Confidence { steps: 1, split: Split::Even }) }
}

/// Whatever the window and however long the prompt, what is read is the text and the block, and what is wrong goes.
#[test]
fn what_is_unlikely_from_left_to_right_is_drawn_again() {
    let how = Corrector { threshold: 0.5, rounds: 3 };
    for (window, train_length) in [(Window::Grow, 1 << 20), (Window::Slide, 24), (Window::Recompute, 24)] {
        for (block, length) in [2, 4, 8].into_iter().flat_map(|b| [1, 3, 8, 17, 40, 255, 257, 600].map(|l| (b, l))) {
            let mut model = Scripted::new(MASK, counts);
            model.most_seen = train_length;
            let prompt: Vec<u32> = (1..=length).collect();
            let options = SampleOptions { train_length, ..corrected(block, window, how) };
            let mut sampler = Sampler::new(options, &prompt, MASK, |size| model.cache(size), Rng::new(1)).unwrap();
            let mut events: Vec<Event> = Vec::new();
            run(&model, &mut sampler, &mut events).unwrap();
            let expected: Vec<u32> = (1..=length + 60).collect();
            assert_eq!(sampler.ids(), expected, "{window:?}, block {block}, prompt {length}");
            let edits = events.iter().filter_map(|event| match event {
                Event::Edited { edits, .. } => Some(edits),
                _ => None,
            });
            let gone: Vec<&Edit> = edits.flatten().filter(|edit| edit.kind == EditKind::Remask).collect();
            let told = |edit: &&Edit| (edit.old, edit.old_prob, edit.why) == (WRONG, 0.25, Why::Unlikely);
            assert!(!gone.is_empty() && gone.iter().all(told), "{window:?}, block {block}, prompt {length}");
        }
    }
}

/// Ids 5 to 8, where 6 is wrong at first: each reading is a pass, and what was read and stays is neither stored nor read again.
#[test]
fn a_reading_is_one_pass_and_rounds_bound_them() {
    for (rounds, passes, stored) in [(0, 1, 4), (1, 3, 12), (2, 4, 15), (3, 4, 15)] {
        let model = Scripted::new(MASK, counts);
        let options = SampleOptions { max_new: 4, ..corrected(4, Window::Grow, Corrector { threshold: 0.5, rounds }) };
        let mut sampler = Sampler::new(options, &[1, 2, 3, 4], MASK, |size| model.cache(size), Rng::new(1)).unwrap();
        let mut events: Vec<Event> = Vec::new();
        run(&model, &mut sampler, &mut events).unwrap();
        let ids: &[u32] = if rounds == 0 { &[5, WRONG, 7, 8] } else { &[5, 6, 7, 8] };
        assert_eq!((sampler.new_ids(), sampler.passes()), (ids, passes), "{rounds} rounds");
        assert_eq!(model.stored.get(), stored, "{rounds} rounds");
    }
}

#[test]
fn a_corrector_that_makes_no_sense_is_refused() {
    let refused = |block, threshold| {
        let model = Scripted::new(MASK, counts);
        let options = corrected(block, Window::Grow, Corrector { threshold, rounds: 1 });
        let sampler = Sampler::new(options, &[1], MASK, |size| model.cache(size), Rng::new(1));
        sampler.err().unwrap().to_string()
    };
    assert!(refused(1, 0.5).contains("block size of the corrector"));
    for threshold in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(refused(4, threshold).contains("threshold of the corrector"));
    }
}
