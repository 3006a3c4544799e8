//! Laws of the engine on tiny random models of both shapes: any number of threads and any company give a lane the same bits,
//! whatever the instructions; a cache cut, dropped and taken over is as good as a fresh one; quantised arithmetic stays near the
//! exact one; proposals are those of their definition; a loaded machine slows a decode, and no more.

mod beside;
mod lanes;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bd3::arch::{self, Arch, Llama, Objective, Shape, SizeClip, SpecialIds};
use bd3::engine::simd::Isa;
use bd3::engine::{Engine, KeyValues, Options};
use bd3::format::quant::quantise;
use bd3::format::{Stored, Type};
use bd3::pass::{Ask, Cache, Classes, Denoiser, Filter, Lane, Nucleus, Proposal, propose};
use bd3::rng::Rng;

const VOCAB: usize = 203;
const MASK: u32 = 202;

fn arch(shape: Shape, objective: Objective) -> Arch {
    Arch {
        vocab: VOCAB,
        mask: MASK,
        special: SpecialIds::default(),
        hidden: 96,
        layers: 3,
        heads: 6,
        length: 256,
        objective,
        block: 4,
        sizes: vec![SizeClip { size: 4, beta: 1e-3, omega: 1.0 }],
        visible_loss: false,
        shape,
    }
}

/// Everything that the Llama shape may have: grouped heads wider than the width allows, norms of q and k, biases, partial rotary.
fn llama() -> Shape {
    Shape::Llama(Llama {
        kv_heads: 2,
        head_dim: 24,
        feed_forward: 160,
        norm_eps: 1e-5,
        rotary_base: 1e4,
        rotary_dim: 16,
        qk_norm: true,
        qkv_bias: true,
        tied: true,
    })
}

/// As plain as it may be.
fn plain() -> Llama {
    let Shape::Llama(llama) = llama() else { unreachable!("a Llama") };
    Llama { rotary_dim: 64, qkv_bias: false, ..llama }
}

fn dit() -> Shape {
    Shape::Dit(arch::Dit { cond: 16, dropout: 0.0 })
}

fn engine(arch: &Arch, ty: Type, options: Options) -> Engine {
    let take = |name: &str, shape: &[usize]| {
        let mut rng = Rng::new(3).split(name);
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let spread = if name.contains("embed") { 1.0 } else { 0.15 };
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| (centre + spread * rng.normal()) as f32).collect();
        match shape {
            [_, inputs] if inputs.is_multiple_of(ty.block()) => {
                Ok(Stored { ty, shape: shape.to_vec(), bytes: quantise(ty, &numbers)?.into() })
            }
            _ => Ok(Stored::of_f32(shape, &numbers)),
        }
    };
    Engine::new(arch, take, options).unwrap()
}

fn text(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.below(VOCAB - 1) as u32).collect()
}

fn ask(rows: usize) -> Ask {
    Ask::new((0..rows).collect(), vec![0.5; rows], Filter::GREEDY)
}

/// Logits of an open block of masks behind a text.
fn after(engine: &Engine, cache: &mut KeyValues, store: &[u32], rows: usize) -> Vec<f32> {
    let open = vec![MASK; rows];
    engine.logits(&mut [Lane::new(cache, store, &open, &ask(rows))]).unwrap()
}

#[test]
fn threads_and_company_change_no_bit() {
    for (shape, ty) in [(dit(), Type::F32), (dit(), Type::Q8_0), (llama(), Type::Q4_0), (llama(), Type::F16)] {
        let arch = arch(shape, Objective::Masked);
        for isa in Isa::available() {
            let mut all = Vec::new();
            for threads in [1, 2, 5] {
                let engine = engine(&arch, ty, Options { threads, exact: false, isa: Some(isa) });
                let texts: Vec<Vec<u32>> = (0..5).map(|i| text(i, 8 * i as usize)).collect();
                let alone: Vec<Vec<f32>> =
                    texts.iter().map(|text| after(&engine, &mut engine.cache(4), text, 4)).collect();
                let mut caches: Vec<KeyValues> = texts.iter().map(|_| engine.cache(4)).collect();
                let (open, ask) = ([MASK; 4], ask(4));
                let mut lanes: Vec<Lane<'_, KeyValues>> = Vec::new();
                for (cache, store) in caches.iter_mut().zip(&texts) {
                    lanes.push(Lane::new(cache, store, &open, &ask));
                }
                assert!(engine.logits(&mut lanes).unwrap() == alone.concat(), "{ty:?} {} company", isa.name());
                all.push(alone.concat());
            }
            assert!(all.iter().all(|one| *one == all[0]), "{ty:?} {} threads", isa.name());
        }
    }
}

#[test]
fn stored_in_pieces_cut_or_taken_over_is_stored_at_once() {
    let arch = arch(llama(), Objective::Masked);
    let engine = engine(&arch, Type::F32, Options { exact: true, ..Options::default() });
    let text = text(9, 72);
    let whole = after(&engine, &mut engine.cache(4), &text, 4);
    let mut pieces = engine.cache(4);
    for piece in text[..64].chunks(12) {
        after(&engine, &mut pieces, piece, 4);
    }
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&after(&engine, &mut pieces, &text[64..], 4), &whole));
    // Other text behind 20 equal ids, then back.
    let other = [&text[..22], &[7; 50]].concat();
    assert_eq!(pieces.keep_equal(&other), 20);
    assert_eq!((pieces.end(), pieces.held(), pieces.ids()), (20, 20, &text[..20]));
    after(&engine, &mut pieces, &other[20..], 4);
    assert_eq!(pieces.keep_equal(&text), 20);
    assert!(close(&after(&engine, &mut pieces, &text[20..], 4), &whole));
    // Whether the oldest are dropped at once or bit by bit, memory moved or not, the rest is the same.
    let (mut at_once, mut bit_by_bit) = (engine.cache(4), engine.cache(4));
    for cache in [&mut at_once, &mut bit_by_bit] {
        after(&engine, cache, &text, 4);
    }
    at_once.drop_oldest(44);
    (0..11).for_each(|_| bit_by_bit.drop_oldest(4));
    let seen = after(&engine, &mut at_once, &[], 4);
    assert!(seen == after(&engine, &mut bit_by_bit, &[], 4) && !close(&seen, &whole));
    assert_eq!((bit_by_bit.end(), bit_by_bit.held(), bit_by_bit.keep_equal(&text)), (72, 28, 0));
}

#[test]
fn a_causal_cache_is_cut_anywhere() {
    let arch = Arch { block: 1, ..arch(llama(), Objective::NextToken) };
    let engine = engine(&arch, Type::F32, Options { exact: true, ..Options::default() });
    let text = text(4, 40);
    let mut cache = engine.cache(1);
    let mut first = Vec::new();
    engine.read(&mut cache, &text, |_, row| first.push(row.to_vec())).unwrap();
    assert_eq!(cache.keep_equal(&[&text[..17], &[1, 2]].concat()), 17);
    let mut again = Vec::new();
    engine.read(&mut cache, &text[17..], |_, row| again.push(row.to_vec())).unwrap();
    let worst = first[17..].concat().iter().zip(again.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

/// Against f32 arithmetic on the same weights: 8-bit activations and a half-precision cache move the logits by a few per cent of
/// their spread, and exact arithmetic is the same on every set of instructions.
#[test]
fn fast_arithmetic_stays_near_the_exact_one() {
    for shape in [dit(), llama()] {
        let arch = arch(shape, Objective::Masked);
        for ty in [Type::F16, Type::Bf16, Type::Q8_0, Type::Q4_0, Type::Q4_1] {
            let with = |exact, isa| {
                let engine = engine(&arch, ty, Options { threads: 2, exact, isa: Some(isa) });
                after(&engine, &mut engine.cache(4), &text(1, 40), 4)
            };
            let exact = with(true, Isa::best());
            let spread = (exact.iter().map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt();
            for isa in Isa::available() {
                let off = |other: &[f32]| {
                    let squares: f32 = exact.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum();
                    (squares / exact.len() as f32).sqrt() / spread
                };
                let (same, near) = (off(&with(true, isa)), off(&with(false, isa)));
                assert!(same < 1e-5 && near < 0.05, "{ty:?} {}: {same} {near}", isa.name());
            }
        }
    }
}

/// Blocks of 256 numbers of small random scales.
fn large_blocks(ty: Type, shape: &[usize], rng: &mut Rng) -> Stored<'static> {
    let blocks = shape.iter().product::<usize>() / ty.block();
    let mut bytes: Vec<u8> = (0..blocks * ty.block_bytes()).map(|_| rng.below(256) as u8).collect();
    let mut half =
        |to: &mut [u8], size| to.copy_from_slice(&quantise(Type::F16, &[size * (1.0 + rng.uniform() as f32)]).unwrap());
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        match ty {
            Type::Q4K => {
                half(&mut block[..2], 2e-4);
                half(&mut block[2..4], 1.5e-3);
            }
            _ => half(&mut block[208..], 3e-5),
        }
    }
    Stored { ty, shape: shape.to_vec(), bytes: bytes.into() }
}

/// A model of q4_k and q6_k is the model of the numbers that they stand for, and quantised arithmetic stays near it.
#[test]
fn large_blocks_are_the_numbers_that_they_stand_for() {
    let shape = Llama { kv_heads: 2, head_dim: 64, feed_forward: 512, qk_norm: false, ..plain() };
    let arch = Arch { hidden: 256, heads: 4, ..arch(Shape::Llama(shape), Objective::NextToken) };
    let arch = Arch { block: 1, sizes: vec![SizeClip { size: 1, ..arch.sizes[0] }], ..arch };
    for ty in [Type::Q4K, Type::Q6K] {
        let logits = |plain: bool, exact: bool| {
            let take = |name: &str, shape: &[usize]| {
                let mut rng = Rng::new(4).split(name);
                let stored = match shape {
                    [_, _] => large_blocks(ty, shape, &mut rng),
                    _ => Stored::of_f32(shape, &vec![1.0; shape[0]]),
                };
                Ok(if plain { Stored::of_f32(shape, &stored.f32()) } else { stored })
            };
            let engine = Engine::new(&arch, take, Options { exact, ..Options::default() }).unwrap();
            after(&engine, &mut engine.cache(1), &text(2, 20), 1)
        };
        let wanted = logits(true, true);
        let spread = (wanted.iter().map(|x| x * x).sum::<f32>() / wanted.len() as f32).sqrt();
        let off = |found: &[f32]| {
            let squares: f32 = wanted.iter().zip(found).map(|(a, b)| (a - b).powi(2)).sum();
            (squares / wanted.len() as f32).sqrt() / spread
        };
        let (same, near) = (off(&logits(false, true)), off(&logits(false, false)));
        assert!(spread > 0.01 && same < 1e-4 && near < 0.05, "{ty:?}: {spread} {same} {near}");
    }
}

/// A key that f16 can't hold is no infinity: the pass fails, and exact arithmetic goes on.
#[test]
fn a_key_too_large_for_the_cache_is_told() {
    let arch = arch(dit(), Objective::Masked);
    let take = |name: &str, shape: &[usize]| {
        let large = if name.ends_with("attn_qkv.weight") { 1e5 } else { 0.1 };
        let mut rng = Rng::new(3).split(name);
        Ok(Stored::of_f32(
            shape,
            &(0..shape.iter().product()).map(|_| large * rng.normal() as f32).collect::<Vec<f32>>(),
        ))
    };
    let pass = |exact| {
        let engine = Engine::new(&arch, take, Options { exact, ..Options::default() }).unwrap();
        let mut cache = engine.cache(4);
        let ids = text(1, 4);
        let pass = engine.pass(&mut [Lane::new(&mut cache, &ids, &[MASK; 4], &ask(4))]);
        (pass.map(|_| ()).map_err(|e| e.to_string()), cache.end())
    };
    let (told, end) = pass(false);
    let told = told.unwrap_err();
    assert!(told.contains("65504") && told.contains("--exact") && end == 0, "{told}");
    assert_eq!(pass(true), (Ok(()), 4));
}

#[test]
fn proposals_are_those_of_the_definition() {
    let arch = arch(llama(), Objective::Masked);
    let engine = engine(&arch, Type::Q8_0, Options::default());
    let text = text(2, 16);
    let mut rng = Rng::new(8);
    for (temperature, nucleus, alternatives) in [
        (0.0, Nucleus::Off, 3),
        (1.0, Nucleus::Off, 0),
        (0.6, Nucleus::Usual(0.8), 5),
        (1.7, Nucleus::Strict(0.7), 300),
        (5000.0, Nucleus::Off, 0),
        (1.0, Nucleus::Usual(0.05), 1),
    ] {
        for _ in 0..20 {
            let open = [5, MASK, 9, MASK];
            let uniforms: Vec<f64> = (0..4).map(|_| rng.uniform()).collect();
            let classes = Classes {
                of: (0..VOCAB as u32).map(|id| id * id % 7).collect(),
                allowed: vec![vec![true, false, true, true, true, false, true]; 4],
            };
            let ask = Ask::new(vec![0, 1, 2, 3], uniforms, Filter { temperature, nucleus });
            let ask = Ask { alternatives, classes: Some(classes), ..ask };
            let lane = |cache: &mut KeyValues| -> (Vec<Proposal>, Vec<f32>) {
                let logits = engine.logits(&mut [Lane::new(cache, &text, &open, &ask)]).unwrap();
                let mut fresh = engine.cache(4);
                let lane = Lane::new(&mut fresh, &text, &open, &ask);
                (engine.pass(&mut [lane]).unwrap().remove(0), logits)
            };
            let (found, logits) = lane(&mut engine.cache(4));
            for (i, (found, logits)) in found.iter().zip(logits.chunks(VOCAB)).enumerate() {
                let expected = propose(logits, &ask.query(i, &open, MASK)).unwrap();
                assert_eq!((found.row, found.token), (expected.row, expected.token));
                assert_eq!(found.runner_up.0, expected.runner_up.0);
                for (a, b) in [
                    (found.raw_prob, expected.raw_prob),
                    (found.prob, expected.prob),
                    (found.entropy, expected.entropy),
                    (found.runner_up.1, expected.runner_up.1),
                    (found.standing, expected.standing),
                ] {
                    assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} {b}");
                }
                let ids = |p: &Proposal| p.alternatives.iter().map(|(id, _)| *id).collect::<Vec<_>>();
                assert_eq!(ids(found), ids(&expected));
                assert_eq!(found.classes, expected.classes);
            }
        }
    }
}

/// Time of some passes over a model large enough for many parallel loops.
fn passes(engine: &Engine, cache: &mut KeyValues) -> Duration {
    let start = Instant::now();
    for _ in 0..150 {
        after(engine, cache, &[], 4);
    }
    start.elapsed()
}

/// One busy thread for each core halves what is left for a pass; waiting threads must not make more of it. Three tries, as other
/// work on the machine may come and go.
#[test]
fn a_loaded_machine_slows_a_pass_by_no_more_than_four() {
    let arch = Arch { hidden: 384, ..arch(dit(), Objective::Masked) };
    let engine = engine(&arch, Type::Q8_0, Options::default());
    let mut cache = engine.cache(4);
    after(&engine, &mut cache, &text(1, 64), 4);
    let mut ratios = Vec::new();
    for _ in 0..3 {
        passes(&engine, &mut cache);
        let free = passes(&engine, &mut cache);
        let stop = AtomicBool::new(false);
        let loaded = std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        black_box(0);
                    }
                });
            }
            let loaded = passes(&engine, &mut cache);
            stop.store(true, Ordering::Relaxed);
            loaded
        });
        ratios.push(loaded.as_secs_f64() / free.as_secs_f64());
        if ratios.iter().any(|ratio| *ratio <= 4.0) {
            return;
        }
    }
    panic!("a busy machine slows a pass by {ratios:?}");
}
