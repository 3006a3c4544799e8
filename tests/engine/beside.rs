//! Ids that stand open beside stored ones: the same numbers as block by block, the same cache, and nobody else notices.

use bd3::arch::{Objective, SizeClip};
use bd3::engine::{Engine, KeyValues, Options};
use bd3::event::{EditKind, Event};
use bd3::format::Type;
use bd3::pass::{Ask, Cache, Denoiser, Filter, Guide, Lane, Place};
use bd3::rng::Rng;
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::{Revise, Rule, SampleOptions, Sampler, run};

use super::{MASK, VOCAB, after, arch, ask, dit, engine, llama, text};

/// Some ids of a text masked.
fn noised(ids: &[u32]) -> Vec<u32> {
    ids.iter().enumerate().map(|(i, &id)| if i % 3 == 1 { id } else { MASK }).collect()
}

/// Logits of `open` block by block: each is scored behind the blocks before it, which are stored then.
fn one_by_one(engine: &Engine, cache: &mut KeyValues, (store, open): (&[u32], &[u32])) -> Vec<f32> {
    let (block, mut logits) = (cache.block(), Vec::new());
    for (store, open) in store.chunks(block).zip(open.chunks(block)) {
        let ask = ask(block);
        logits.extend(engine.logits(&mut [Lane::new(cache, &[], open, &ask)]).unwrap());
        engine.logits(&mut [Lane::new(cache, store, &[], &Ask::none())]).unwrap();
    }
    logits
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Texts longer and shorter than a tile of attention, behind a cache that holds much, little, nothing, or has dropped its oldest.
#[test]
fn open_beside_is_block_by_block_in_one_pass() {
    let engines = [(dit(), Type::F32), (llama(), Type::Q4_0)]
        .map(|(shape, ty)| engine(&arch(shape, Objective::Masked), ty, Options { exact: true, ..Options::default() }));
    for engine in &engines {
        for block in [1, 4, 8] {
            for (held, stored, opened, dropped) in
                [(0, 24, 24, 0), (8, 8, 8, 0), (200, 40, 16, 0), (16, 320, 160, 0), (160, 24, 8, 40)]
            {
                let text = text(5, held + stored);
                let (before, store) = text.split_at(held);
                let (plain, last) = store.split_at(stored - opened);
                let open = noised(last);
                let mut caches = [engine.cache(block), engine.cache(block), engine.cache(block)];
                for cache in &mut caches {
                    engine.logits(&mut [Lane::new(cache, before, &[], &Ask::none())]).unwrap();
                    cache.drop_oldest(dropped);
                }
                let [beside, steps, ordinary] = &mut caches;
                let all = ask(opened);
                let lane = Lane { place: Place::Beside, ..Lane::new(beside, store, &open, &all) };
                let found = engine.logits(&mut [lane]).unwrap();
                engine.logits(&mut [Lane::new(steps, plain, &[], &Ask::none())]).unwrap();
                let expected = one_by_one(engine, steps, (last, &open));
                let worst = worst(&found, &expected);
                assert!(worst < 1e-4, "block {block}, {opened} beside {stored} behind {held}: {worst}");
                engine.logits(&mut [Lane::new(ordinary, store, &[], &Ask::none())]).unwrap();
                assert!(beside == ordinary, "block {block}, {opened} beside {stored} behind {held}: the cache");
            }
        }
    }
}

#[test]
fn lanes_of_both_places_keep_their_bits() {
    let engine = engine(&arch(llama(), Objective::Masked), Type::Q8_0, Options { threads: 2, ..Options::default() });
    let texts = [text(1, 24), text(2, 136), text(3, 40)];
    let open = [noised(&texts[0]), vec![MASK; 8], noised(&texts[2][24..])];
    let places = [Place::Beside, Place::After, Place::Beside];
    let blocks = [4, 8, 1];
    let asks = [ask(24), ask(8), Ask::new(vec![3, 9], vec![0.5; 2], Filter::GREEDY)];
    let alone = |i: usize| {
        let mut cache = engine.cache(blocks[i]);
        let lane = Lane { place: places[i], ..Lane::new(&mut cache, &texts[i], &open[i], &asks[i]) };
        engine.logits(&mut [lane]).unwrap()
    };
    let alone = [0, 1, 2].map(alone);
    assert_eq!(alone.each_ref().map(Vec::len), [24 * VOCAB, 8 * VOCAB, 2 * VOCAB]);
    assert!(alone[1] == after(&engine, &mut engine.cache(8), &texts[1], 8));
    let mut caches = blocks.map(|block| engine.cache(block));
    let mut lanes = Vec::new();
    for (i, cache) in caches.iter_mut().enumerate() {
        lanes.push(Lane { place: places[i], ..Lane::new(cache, &texts[i], &open[i], &asks[i]) });
    }
    assert!(engine.logits(&mut lanes).unwrap() == alone.concat());
    assert_eq!(caches.each_ref().map(Cache::end), [24, 136, 40]);
    let mut cache = engine.cache(1);
    let lane = Lane { place: places[2], ..Lane::new(&mut cache, &texts[2], &open[2], &asks[2]) };
    let proposals = engine.pass(&mut [lane]).unwrap();
    assert_eq!(proposals[0].iter().map(|proposal| proposal.row).collect::<Vec<_>>(), [3, 9]);
}

#[test]
fn what_cannot_stand_beside_is_refused() {
    let masked = engine(&arch(dit(), Objective::Masked), Type::F32, Options::default());
    let refused = |engine: &Engine, block, store: &[u32], open: &[u32]| {
        let (mut cache, ask) = (engine.cache(block), ask(open.len()));
        let lane = Lane { place: Place::Beside, ..Lane::new(&mut cache, store, open, &ask) };
        engine.logits(&mut [lane]).unwrap_err().to_string()
    };
    let store = text(1, 8);
    assert!(refused(&masked, 4, &store, &[MASK; 6]).contains("whole blocks of 4"));
    assert!(refused(&masked, 4, &store[..4], &[MASK; 8]).contains("at most the 4"));
    let next = engine(&arch(llama(), Objective::NextToken), Type::F32, Options::default());
    assert!(refused(&next, 1, &store, &[MASK]).contains("fills masks"));
    let (mut cache, mut other, ask) = (masked.cache(4), masked.cache(4), ask(4));
    let guide = Guide { cache: &mut other, store: &store, open: &[MASK; 4], weight: 1.0 };
    let lane = Lane::new(&mut cache, &store, &[MASK; 4], &ask);
    let told = masked.logits(&mut [Lane { place: Place::Beside, guide: Some(guide), ..lane }]).unwrap_err();
    assert!(told.to_string().contains("no guide"), "{told}");
}

/// What a corrector says of a token it takes back is the probability that block size 1 gives it, beside a cache that was filled on the way.
#[test]
fn a_corrector_reads_what_block_size_1_says() {
    let mut arch = arch(dit(), Objective::Masked);
    arch.sizes.push(SizeClip { size: 1, ..arch.sizes[0] });
    let engine = engine(&arch, Type::F32, Options { exact: true, ..Options::default() });
    let revise = Revise::Corrector(Corrector { threshold: 0.02, rounds: 2 });
    let options = SampleOptions { revise, ..SampleOptions::new(4, 40, Rule::FirstHitting) };
    let caches = |size| engine.cache(size);
    let mut sampler = Sampler::new(options, &text(3, 7), MASK, caches, Rng::new(2)).unwrap();
    let mut events: Vec<Event> = Vec::new();
    run(&engine, &mut sampler, &mut events).unwrap();
    let (mut ids, mut looked) = (text(3, 7), 0);
    for event in &events {
        match event {
            Event::BlockOpened { start, ids: open } => {
                ids.truncate(*start);
                ids.extend(open);
            }
            Event::Edited { edits, .. } => {
                for edit in edits.iter().filter(|edit| edit.kind == EditKind::Remask) {
                    let store = &ids[..edit.position];
                    let ask = Ask { standing: vec![edit.old], ..Ask::new(vec![0], vec![0.5], Filter::NONE) };
                    let mut cache = engine.cache(1);
                    let answers = engine.pass(&mut [Lane::new(&mut cache, store, &[MASK], &ask)]).unwrap();
                    let expected = answers[0][0].standing;
                    assert!((f64::from(edit.old_prob) - expected).abs() < 1e-5 && expected < 0.02, "{edit:?}");
                    looked += 1;
                }
                edits.iter().for_each(|edit| ids[edit.position] = edit.new);
            }
            _ => {}
        }
    }
    assert!(looked > 10, "{looked} tokens were taken back");
}
