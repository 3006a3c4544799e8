//! Likelihood on the engine is that of the trainable network: the same draws, the same figures.

use std::sync::Arc;

use bd3::arch::{self, Arch, Llama, Objective, Shape, SizeClip, SpecialIds};
use bd3::data::pack::{Between, Frame};
use bd3::data::{Packing, Shard, Wrap};
use bd3::engine::{Engine, Options};
use bd3::format::Stored;
use bd3::likelihood::judge::{Judge, Passage};
use bd3::likelihood::{Estimator, Likelihood, Measure, RowNats, Scorer, measure};
use bd3::model::Dit;
use bd3::pass::Denoiser;
use bd3::rng::Rng;
use bd3::tokenizer::{Special, Tokenizer};
use burn::tensor::Device;

const LENGTH: usize = 16;
const SPECIAL: Special = Special { bos: Some(0), eos: Some(1), mask: 19, pad: None };

fn arch(objective: Objective, shape: Shape) -> Arch {
    Arch {
        vocab: 20,
        mask: SPECIAL.mask,
        special: SpecialIds { bos: SPECIAL.bos, eos: SPECIAL.eos, pad: None },
        hidden: 24,
        layers: 3,
        heads: 3,
        length: LENGTH,
        objective,
        block: 1,
        sizes: vec![SizeClip { size: 1, beta: 1e-3, omega: 1.0 }],
        visible_loss: false,
        shape,
    }
}

fn dit(objective: Objective) -> Arch {
    let cond = if objective == Objective::NextToken { 0 } else { 8 };
    arch(objective, Shape::Dit(arch::Dit { cond, dropout: 0.0 }))
}

/// Random weights, large enough that attention and every branch matter.
fn parameters(name: &str, shape: &[usize]) -> bd3::Result<Vec<f32>> {
    let mut rng = Rng::new(12).split(name);
    let centre = if name.contains("norm") { 1.0 } else { 0.0 };
    let spread = if name.contains("embedding") { 1.0 } else { 0.3 };
    Ok((0..shape.iter().product()).map(|_| (centre + spread * rng.normal()) as f32).collect())
}

fn engine(arch: &Arch) -> Engine {
    let take = |name: &str, shape: &[usize]| Ok(Stored::of_f32(shape, &parameters(name, shape)?));
    Engine::new(arch, take, Options { exact: true, ..Options::default() }).unwrap()
}

/// Documents of random ids, so that rows cross their borders and the last one is short.
fn text(documents: &[usize], wrap: Wrap, length: usize) -> Packing {
    let mut rng = Rng::new(4);
    let document = |&ids: &usize| ((0..ids).map(|_| 2 + rng.below(17) as u32).collect::<Vec<u32>>(), ids as u64);
    let documents: Vec<_> = documents.iter().map(document).collect();
    let shard = Shard::in_memory("random", 20, documents.into_iter()).unwrap();
    Packing::new(Arc::new(shard), wrap, length, SPECIAL).unwrap()
}

fn found(model: &impl Scorer, text: &Packing, how: Measure) -> Likelihood {
    measure(model, text, 0..text.rows(), &how, |_| true).unwrap()
}

#[track_caller]
fn same(a: &Likelihood, b: &Likelihood, tolerance: f64) {
    assert_eq!((a.rows.len(), a.exact, a.draws), (b.rows.len(), b.exact, b.draws));
    for (a, b) in a.rows.iter().zip(&b.rows) {
        assert_eq!(a.tokens, b.tokens);
        assert!((a.nats - b.nats).abs() <= tolerance * a.tokens as f64, "{a:?} {b:?}");
    }
}

#[test]
fn the_engine_measures_what_the_network_does() {
    let arch = dit(Objective::Masked);
    let model = Dit::from_parameters(&arch, &Device::flex(), parameters).unwrap();
    let engine = engine(&arch);
    let text = text(&[20, 3, 41, 9], Wrap::Stream, LENGTH);
    assert!(text.valid(text.rows() - 1) < LENGTH);
    for block in [1, 4, LENGTH] {
        for estimator in [Estimator::Subset, Estimator::Official] {
            let how = |batch| Measure { block, draws: 3, estimator, batch, seed: 5 };
            let ours = found(&engine, &text, how(3));
            same(&ours, &found(&model, &text, how(2)), 1e-5);
            // Company changes no bit.
            assert_eq!(ours.rows, found(&engine, &text, how(1)).rows);
        }
    }
}

#[test]
fn next_token_models_are_measured_on_both() {
    let arch = dit(Objective::NextToken);
    let model = Dit::from_parameters(&arch, &Device::flex(), parameters).unwrap();
    let how = |batch| Measure { block: 1, draws: 2, estimator: Estimator::Subset, batch, seed: 5 };
    for wrap in [Wrap::Stream, Wrap::Documents] {
        let text = text(&[20, 3, 41, 9], wrap, LENGTH);
        let ours = found(&engine(&arch), &text, how(3));
        assert!(ours.exact);
        same(&ours, &found(&model, &text, how(2)), 1e-5);
    }
}

/// Rows longer than one piece, a text shorter than a row, a mask beyond the vocabulary.
#[test]
fn a_llama_shape_reads_a_text_shorter_than_its_context() {
    let llama = Llama {
        kv_heads: 1,
        head_dim: 8,
        feed_forward: 40,
        norm_eps: 1e-5,
        rotary_base: 10_000.0,
        rotary_dim: 8,
        qk_norm: false,
        qkv_bias: false,
        tied: true,
    };
    let arch = Arch { mask: 20, length: 512, ..arch(Objective::NextToken, Shape::Llama(llama)) };
    let (engine, text) = (engine(&arch), text(&[150], Wrap::Stream, 512));
    let how = Measure { block: 1, draws: 1, estimator: Estimator::Subset, batch: 1, seed: 5 };
    let ours = found(&engine, &text, how);
    let row = text.batch(0..1);
    assert_eq!((text.rows(), row.valid[0], ours.tokens()), (1, 152, 151));
    let mut nats = 0.0;
    let next = |at: usize, logits: &[f32]| nats += bd3::loss::nll(logits, row.ids[at + 1], 20);
    engine.read(&mut engine.cache(1), &row.ids[..151], next).unwrap();
    assert!((ours.rows[0].nats - nats).abs() < 1e-5 * 151.0, "{} {nats}", ours.rows[0].nats);
}

/// A model over bytes, so that texts can be read.
fn reader(objective: Objective) -> (Engine, Tokenizer) {
    let tokenizer = Tokenizer::bytes();
    let Special { bos, eos, mask, pad } = tokenizer.special();
    let arch = Arch { vocab: tokenizer.vocab_size(), mask, special: SpecialIds { bos, eos, pad }, ..dit(objective) };
    (engine(&arch), tokenizer)
}

/// A judge reads as the exact likelihood does: text behind its beginning, rows as long as the model's.
#[test]
fn a_judge_finds_the_exact_likelihood() {
    let text = "The cat and the dog sat, and sat.";
    for objective in [Objective::NextToken, Objective::Masked] {
        let (engine, tokenizer) = reader(objective);
        let exact = |text: &str, length: usize| {
            let ids = tokenizer.encode(text).unwrap();
            let shard = Shard::in_memory("text", 260, std::iter::once((ids, text.len() as u64))).unwrap();
            let wrap = Wrap::Official { eos: Between::Nothing, frame: Frame::Bos };
            let text = Packing::new(Arc::new(shard), wrap, length, tokenizer.special()).unwrap();
            let how = Measure { block: 1, draws: 1, estimator: Estimator::Subset, batch: 2, seed: 0 };
            let rows = found(&engine, &text, how).rows;
            (rows.iter().map(|row| row.nats).sum::<f64>(), rows.iter().map(|row| row.tokens).sum::<usize>())
        };
        let judge = Judge::new(&engine, &tokenizer);
        let passage = |given: &str, text: &str| Passage { given: given.into(), text: text.into() };
        let short = &text[..10];
        let samples = [
            vec![passage("", short)],
            vec![passage("The ", &text[4..10])],
            // Two rows of the model's length, and what is left.
            vec![passage("", &text[..30])],
            vec![passage("", "A"), passage("", short)],
            vec![],
        ];
        let read = judge.read(&samples).unwrap();
        let near = |found: RowNats, (nats, tokens): (f64, usize)| {
            assert!(
                found.tokens == tokens && (found.nats - nats).abs() < 1e-4,
                "{objective:?} {found:?} {nats} {tokens}"
            );
        };
        let (whole, front, letter) = (exact(short, 11), exact("The ", 5), exact("A", 2));
        near(read[0], whole);
        near(read[1], (whole.0 - front.0, 6));
        near(read[2], exact(&text[..30], LENGTH));
        near(read[3], (letter.0 + whole.0, 11));
        near(read[4], (0.0, 0));
        // What is side by side changes nothing.
        let alone: Vec<RowNats> =
            samples.iter().flat_map(|sample| judge.read(std::slice::from_ref(sample)).unwrap()).collect();
        assert_eq!(alone, read, "{objective:?}");
    }
}

/// Without a beginning of text there is nothing to predict the first token from.
#[test]
fn a_judge_without_bos_does_not_judge_the_first_token() {
    let (engine, tokenizer) = reader(Objective::NextToken);
    let special = Special { bos: None, ..tokenizer.special() };
    let tokenizer = tokenizer.with_special(special).unwrap();
    let judge = Judge::new(&engine, &tokenizer);
    let passage = |given: &str, text: &str| vec![Passage { given: given.into(), text: text.into() }];
    let read = judge.read(&[passage("", "cats"), passage("c", "ats"), passage("", "c")]).unwrap();
    assert_eq!((read[0].tokens, read[2]), (3, RowNats::default()));
    assert_eq!(read[0], read[1]);
}
