//! What lanes do beside scoring: caches that are cut, and guides.

use bd3::arch::Objective;
use bd3::engine::{KeyValues, Options};
use bd3::format::Type;
use bd3::pass::{Ask, Cache, Denoiser, Filter, Guide, Lane, propose};
use bd3::rng::Rng;

use super::{MASK, VOCAB, after, arch, ask, dit, engine, llama, text};

#[test]
fn a_guide_leads_by_the_difference() {
    let engine = engine(&arch(dit(), Objective::Masked), Type::F32, Options { exact: true, ..Options::default() });
    let (texts, open) = ([text(3, 8), text(4, 16), text(5, 12)], [5, MASK, MASK, MASK]);
    let ask = Ask { standing: vec![7, 8], ..Ask::new(vec![1, 3], vec![0.3, 0.9], Filter::NONE) };
    let alone = |text: &[u32]| engine.logits(&mut [Lane::new(&mut engine.cache(4), text, &open, &ask)]).unwrap();
    let plain: Vec<Vec<f32>> = texts.iter().map(|text| alone(text)).collect();
    let mut caches: Vec<KeyValues> = (0..4).map(|_| engine.cache(4)).collect();
    let [first, second, other, third] = &mut caches[..] else { unreachable!() };
    let guide = Guide { cache: other, store: &texts[2], open: &open, weight: 1.5 };
    let mut lanes = [
        Lane::new(first, &texts[0], &open, &ask),
        Lane { guide: Some(guide), ..Lane::new(second, &texts[1], &open, &ask) },
        Lane::new(third, &texts[2], &open, &ask),
    ];
    let led: Vec<f32> = plain[1].iter().zip(&plain[2]).map(|(a, b)| a + 1.5 * (a - b)).collect();
    assert!(engine.logits(&mut lanes).unwrap() == [plain[0].clone(), led.clone(), plain[2].clone()].concat());
    assert_eq!(caches.iter().map(Cache::end).collect::<Vec<_>>(), [8, 16, 12, 12]);
    let guide = Guide { cache: &mut engine.cache(4), store: &texts[2], open: &open, weight: 1.5 };
    let mut fresh = engine.cache(4);
    let lane = Lane { guide: Some(guide), ..Lane::new(&mut fresh, &texts[1], &open, &ask) };
    let found = engine.pass(&mut [lane]).unwrap().remove(0);
    for (i, (found, logits)) in found.iter().zip(led.chunks(VOCAB)).enumerate() {
        let expected = propose(logits, &ask.query(i, &open, MASK)).unwrap();
        assert_eq!((found.row, found.token), (expected.row, expected.token));
        assert!(found.standing > 0.0 && (found.standing - expected.standing).abs() < 1e-5);
    }
    let short = Guide { cache: &mut engine.cache(4), store: &[], open: &open[..2], weight: 1.0 };
    let mut fresh = engine.cache(4);
    let lane = Lane { guide: Some(short), ..Lane::new(&mut fresh, &[], &open, &ask) };
    assert!(engine.pass(&mut [lane]).unwrap_err().to_string().contains("a guide"));
}

/// A lane whose logits are no numbers, or that is led by one whose keys can't be kept, fails alone.
#[test]
fn who_has_no_answer_fails_alone() {
    let engine = engine(&arch(dit(), Objective::Masked), Type::Q8_0, Options { threads: 2, ..Options::default() });
    let (ids, open, good) = (text(4, 8), [MASK; 4], ask(4));
    let bad = Ask { bias: vec![(3, f32::INFINITY)].into(), ..ask(4) };
    let mut caches = [4; 3].map(|block| engine.cache(block));
    let [first, second, third] = &mut caches;
    let mut lanes = [
        Lane::new(first, &ids, &open, &good),
        Lane::new(second, &ids, &open, &bad),
        Lane::new(third, &ids, &open, &good),
    ];
    let answers = engine.each(&mut lanes).unwrap();
    let alone = engine.pass(&mut [Lane::new(&mut engine.cache(4), &ids, &open, &good)]).unwrap().remove(0);
    assert_eq!((answers.len(), answers[0].as_ref().unwrap(), answers[2].as_ref().unwrap()), (3, &alone, &alone));
    assert!(answers[1].is_err(), "{answers:?}");
    assert!(engine.pass(&mut lanes[1..]).is_err());
}

/// After any sequence of commits and retractions the cache is the one that the text alone would have made, bit for bit: what follows it
/// is answered with the same bits, whatever lies in memory behind its end.
#[test]
fn a_cache_that_was_cut_equals_one_built_from_scratch() {
    let how = |threads, exact| Options { threads, exact, isa: None };
    let engines = [
        (dit(), Type::Q8_0, how(1, false)),
        (llama(), Type::F16, how(1, false)),
        (dit(), Type::F32, how(1, true)),
        (llama(), Type::Q4_0, how(2, false)),
    ]
    .map(|(shape, ty, options)| engine(&arch(shape, Objective::Masked), ty, options));
    let mut rng = Rng::new(11);
    for sequence in 0..1000 {
        let (engine, block) = (&engines[sequence % engines.len()], [1, 2, 4, 8][rng.below(4)]);
        let (mut cache, mut text) = (engine.cache(block), Vec::new());
        for _ in 0..1 + rng.below(6) {
            // A pass stores blocks while others are open; then some of what is stored is taken back.
            let fresh: Vec<u32> = (0..block * rng.below(4)).map(|_| rng.below(VOCAB - 1) as u32).collect();
            text.extend(&fresh);
            after(engine, &mut cache, &fresh, block);
            if rng.below(2) == 0 {
                text.truncate(rng.below(text.len() / block + 1) * block);
                cache.truncate(text.len());
            }
        }
        assert_eq!(cache.ids(), text);
        let mut fresh = engine.cache(block);
        let more: Vec<u32> = (0..block).map(|_| rng.below(VOCAB - 1) as u32).collect();
        let scratch = after(engine, &mut fresh, &[&text[..], &more].concat(), block);
        assert!(after(engine, &mut cache, &more, block) == scratch, "sequence {sequence}");
        assert!(cache == fresh, "sequence {sequence}");
    }
}
