//! Laws: what must hold for any weights, on a tiny random model. The definitions they are held to are written out here.

use bd3::arch::{self, Arch, Objective, Shape, SizeClip, SpecialIds};
use bd3::block::Layout;
use bd3::engine::{Engine, KeyValues, Options};
use bd3::format::Stored;
use bd3::loss::{self, Terms};
use bd3::model::dit::View;
use bd3::model::{Dit, Dropout, Form, Precision, ops};
use bd3::noise::all_subsets;
use bd3::pass::{Ask, Cache, Denoiser, Filter, Lane, Nucleus, Place};
use bd3::rng::Rng;
use burn::tensor::{Device, Tensor, TensorData};

const MASK: u32 = 19;
const LENGTH: usize = 16;

fn arch(objective: Objective) -> Arch {
    let sizes = [1, 2, 4, 8, 16].map(|size| SizeClip { size, beta: 1e-3, omega: 1.0 });
    let cond = if objective == Objective::NextToken { 0 } else { 8 };
    Arch {
        vocab: 20,
        mask: MASK,
        special: SpecialIds { bos: Some(0), eos: Some(1), pad: None },
        hidden: 24,
        layers: 3,
        heads: 3,
        length: LENGTH,
        objective,
        block: 4,
        sizes: sizes.to_vec(),
        visible_loss: false,
        shape: Shape::Dit(arch::Dit { cond, dropout: 0.0 }),
    }
}

/// Random weights, large enough that attention and every branch matter.
fn parameters() -> impl FnMut(&str, &[usize]) -> bd3::Result<Vec<f32>> {
    |name: &str, shape: &[usize]| {
        let mut rng = Rng::new(11).split(name);
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let spread = if name.contains("embedding") { 1.0 } else { 0.3 };
        Ok((0..shape.iter().product()).map(|_| (centre + spread * rng.normal()) as f32).collect())
    }
}

fn model(objective: Objective) -> Dit {
    let arch = arch(objective);
    Dit::from_parameters(&arch, &Device::flex(), parameters()).unwrap()
}

fn decoder(objective: Objective) -> Engine {
    let (arch, mut parameters) = (arch(objective), parameters());
    let take = |name: &str, shape: &[usize]| Ok(Stored::of_f32(shape, &parameters(name, shape)?));
    Engine::new(&arch, take, Options { exact: true, ..Options::default() }).unwrap()
}

fn text(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|i| if i % LENGTH == 0 { 0 } else { 2 + rng.below(17) as u32 }).collect()
}

fn half_masked(ids: &[u32], seed: u64) -> Vec<u32> {
    let mut rng = Rng::new(seed);
    let hide = |(i, &id): (usize, &u32)| if i % LENGTH != 0 && rng.uniform() < 0.5 { MASK } else { id };
    ids.iter().enumerate().map(hide).collect()
}

fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    ops::to_vec(tensor).unwrap()
}

fn logits(model: &Dit, xt: &[u32], x0: &[u32], block: usize) -> Vec<f32> {
    numbers(model.logits(model.paired(xt, x0, &View::plain(xt.len() / LENGTH, block)).unwrap()))
}

#[track_caller]
fn close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance, "entry {i}: {a} and {b}");
    }
}

/// -log softmax(logits without the mask)[target].
fn nll(logits: &[f32], target: u32) -> f64 {
    let sum: f64 =
        logits.iter().enumerate().filter(|(v, _)| *v != MASK as usize).map(|(_, x)| f64::from(*x).exp()).sum();
    sum.ln() - f64::from(logits[target as usize])
}

/// p(x) = product over i of p(x_i | x_<i): the prefix runs block-causally at size 1, then one mask is asked, nothing else.
#[test]
fn block_size_one_is_autoregressive() {
    let (model, decoder) = (model(Objective::Masked), decoder(Objective::Masked));
    let x0 = text(1, LENGTH);
    let xt: Vec<u32> = x0.iter().enumerate().map(|(i, &id)| if i == 0 { id } else { MASK }).collect();
    let stream = model.paired(&xt, &x0, &View::plain(1, 1)).unwrap();
    let terms = Terms::masked(&x0, &xt, MASK, LENGTH, |_| 1.0);
    let (_, bound) = loss::cross_entropy(&model, stream, &terms, 1.0).unwrap();
    for (i, bound) in (1..LENGTH).zip(bound) {
        let answer = answer(&decoder, &mut decoder.cache(1), &x0[..i], &[MASK]);
        assert!((nll(&answer, x0[i]) - bound).abs() < 1e-4);
    }
}

/// One block as long as the text sees everything at once, and never the clean text.
#[test]
fn one_block_is_masked_diffusion() {
    let model = model(Objective::Masked);
    let (x0, other) = (text(2, 2 * LENGTH), text(3, 2 * LENGTH));
    let xt = half_masked(&x0, 4);
    let plain = numbers(model.logits(model.single(&xt, &View::plain(2, LENGTH)).unwrap()));
    close(&logits(&model, &xt, &x0, LENGTH), &plain, 0.0);
    close(&logits(&model, &xt, &other, LENGTH), &plain, 0.0);
}

#[test]
fn the_noised_half_never_sees_its_own_clean_block() {
    let model = model(Objective::Masked);
    let x0 = text(5, LENGTH);
    let xt = half_masked(&x0, 6);
    for block in [1, 2, 4, 8] {
        let before = logits(&model, &xt, &x0, block);
        for changed in 0..LENGTH / block {
            let mut other = x0.clone();
            other[changed * block..].iter_mut().for_each(|id| *id = 2 + (*id + 5) % 17);
            let after = logits(&model, &xt, &other, block);
            let seen = (changed + 1) * block * 20;
            close(&after[..seen], &before[..seen], 1e-5);
            let differs = after[seen..].iter().zip(&before[seen..]).any(|(a, b)| (a - b).abs() > 1e-3);
            assert_eq!(differs, seen < after.len(), "later blocks see the clean ones before them");
        }
    }
}

fn ask(rows: usize) -> Ask {
    let filter = Filter { temperature: 1.0, nucleus: Nucleus::Off };
    Ask::new((0..rows).collect(), vec![0.5; rows], filter)
}

fn answer(decoder: &Engine, cache: &mut KeyValues, store: &[u32], open: &[u32]) -> Vec<f32> {
    decoder.logits(&mut [Lane::new(cache, store, open, &ask(open.len()))]).unwrap()
}

/// The decoder with its cache equals the paired pass, which has none, at every block size.
#[test]
fn cached_equals_uncached_and_the_trained_network() {
    let (model, decoder) = (model(Objective::Masked), decoder(Objective::Masked));
    let x0 = text(7, LENGTH);
    let xt = half_masked(&x0, 8);
    for block in [1, 2, 4, 8, 16] {
        let paired = logits(&model, &xt, &x0, block);
        // The paired pass itself, in one lane.
        let (mut cache, all) = (decoder.cache(block), ask(LENGTH));
        let lane = Lane { place: Place::Beside, ..Lane::new(&mut cache, &x0, &xt, &all) };
        close(&decoder.logits(&mut [lane]).unwrap(), &paired, 1e-4);
        let mut cache = decoder.cache(block);
        for start in (0..LENGTH).step_by(block) {
            let open = &xt[start..start + block];
            let expected = &paired[start * 20..(start + block) * 20];
            close(&answer(&decoder, &mut cache, &x0[start.saturating_sub(block)..start], open), expected, 1e-4);
            close(&answer(&decoder, &mut decoder.cache(block), &x0[..start], open), expected, 1e-4);
        }
        // Cut at a border and go on with other text, as if the first had never been.
        if block <= 4 {
            cache.truncate(4);
            let other = text(9, LENGTH);
            let joined = [&x0[..4], &other[4..8]].concat();
            let after = answer(&decoder, &mut cache, &other[4..8], &xt[8..8 + block]);
            close(&after, &answer(&decoder, &mut decoder.cache(block), &joined, &xt[8..8 + block]), 1e-5);
        }
    }
}

/// A next-token model stores and predicts in one row.
#[test]
fn a_next_token_model_decodes_what_it_was_trained_for() {
    let (model, decoder) = (model(Objective::NextToken), decoder(Objective::NextToken));
    let x0 = text(10, LENGTH);
    let all = numbers(model.logits(model.single(&x0, &View::plain(1, 1)).unwrap()));
    let mut cache = decoder.cache(1);
    for i in 0..LENGTH {
        close(&answer(&decoder, &mut cache, &x0[i..=i], &[MASK]), &all[i * 20..(i + 1) * 20], 1e-4);
    }
}

#[test]
fn a_lane_equals_the_lane_alone() {
    let decoder = decoder(Objective::Masked);
    let texts: Vec<Vec<u32>> = (0..3).map(|i| text(20 + i, LENGTH)).collect();
    let opens: Vec<Vec<u32>> = texts.iter().map(|t| half_masked(t, 30)).collect();
    let (blocks, starts) = ([4usize, 1, 8], [8usize, 5, 8]);
    let mut caches: Vec<KeyValues> = blocks.iter().map(|&b| decoder.cache(b)).collect();
    let asks = blocks.map(ask);
    let mut lanes: Vec<Lane<'_, KeyValues>> = Vec::new();
    for (i, cache) in caches.iter_mut().enumerate() {
        let open = &opens[i][starts[i]..starts[i] + blocks[i]];
        lanes.push(Lane::new(cache, &texts[i][..starts[i]], open, &asks[i]));
    }
    let together = decoder.logits(&mut lanes).unwrap();
    let alone: Vec<f32> = (0..3)
        .flat_map(|i| {
            let open = &opens[i][starts[i]..starts[i] + blocks[i]];
            answer(&decoder, &mut decoder.cache(blocks[i]), &texts[i][..starts[i]], open)
        })
        .collect();
    close(&together, &alone, 1e-5);
}

/// The bound by subsets: the mean of draws over the exact sum, for a block small enough to enumerate; and the paper's estimator
/// has the same mean. Both are of one block behind a clean prefix.
#[test]
fn subset_draws_and_noise_levels_estimate_the_exact_sum() {
    let model = model(Objective::Masked);
    let x0 = text(40, LENGTH);
    let block = 4;
    let start = 8;
    let value = |members: &[usize]| {
        let mut xt = x0.clone();
        members.iter().for_each(|&m| xt[start + m] = MASK);
        let all = logits(&model, &xt, &x0, block);
        members.iter().map(|&m| nll(&all[(start + m) * 20..(start + m + 1) * 20], x0[start + m])).sum::<f64>()
    };
    let mut table = vec![0.0; 1 << block];
    let mut exact = 0.0;
    for subset in all_subsets(block).unwrap() {
        let bits: usize = subset.members.iter().map(|m| 1 << m).sum();
        table[bits] = value(&subset.members);
        exact += subset.probability * subset.weight * table[bits];
    }
    let mut rng = Rng::new(41);
    let draws = 20_000;
    let mean_and_error = |values: &mut dyn FnMut() -> f64| {
        let all: Vec<f64> = (0..draws).map(|_| values()).collect();
        let mean = all.iter().sum::<f64>() / draws as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws as f64;
        (mean, (variance / draws as f64).sqrt())
    };
    let (mean, error) = mean_and_error(&mut || {
        let subset = bd3::noise::draw_subset(block, &mut rng);
        subset.weight * table[subset.members.iter().map(|m| 1 << m).sum::<usize>()]
    });
    assert!((mean - exact).abs() < 4.0 * error, "subsets: {mean} +- {error}, exact {exact}");
    let mut rng = Rng::new(42);
    let (mean, error) = mean_and_error(&mut || {
        let t = 1e-3 + (1.0 - 1e-3) * rng.uniform();
        let bits = (0..block).map(|i| usize::from(rng.uniform() <= t) << i).sum::<usize>();
        table[bits] / t
    });
    assert!((mean - exact).abs() < 4.0 * error + 2e-3 * exact, "levels: {mean} +- {error}, exact {exact}");
}

/// Both forms of every hot operation: the same losses and gradients, dropout included.
#[test]
fn fused_equals_composed() {
    for (objective, block) in [(Objective::Masked, 4), (Objective::Masked, 16), (Objective::NextToken, 1)] {
        let arch = arch(objective);
        let x0 = text(50, 2 * LENGTH);
        let xt = half_masked(&x0, 51);
        let results = [Form::Composed, Form::Fused(Precision::F32)].map(|form| {
            let mut model = Dit::from_parameters(&arch, &Device::flex().autodiff(), parameters()).unwrap();
            model.form = form;
            model.require_grad();
            let view = View { dropout: Dropout { key: 9, keep: 0.8 }, ..View::plain(2, block) };
            let (stream, terms) = match objective {
                Objective::NextToken => {
                    let inputs: Vec<u32> = x0.chunks(LENGTH).flat_map(|r| &r[..LENGTH - 1]).copied().collect();
                    (model.single(&inputs, &view).unwrap(), Terms::next_token(&x0, LENGTH))
                }
                _ => {
                    let terms = Terms::masked(&x0, &xt, MASK, LENGTH, |i| 1.0 + i as f64);
                    (model.paired(&xt, &x0, &view).unwrap(), terms)
                }
            };
            let (loss, _) = loss::cross_entropy(&model, stream, &terms, 32.0).unwrap();
            let grads = bd3::train::optim::gradients(&mut model, loss.backward());
            (numbers(loss)[0], grads.into_iter().map(numbers).collect::<Vec<_>>())
        });
        let [composed, fused] = results;
        assert!((composed.0 - fused.0).abs() < 1e-3 * composed.0.abs());
        for (a, b) in composed.1.iter().zip(&fused.1) {
            let largest = a.iter().fold(0f32, |m, x| m.max(x.abs()));
            close(a, b, 1e-3 * largest + 1e-6);
        }
    }
}

/// Both forms of a Muon step, for one matrix and for three in one parameter.
#[test]
fn muon_is_the_same_in_both_forms() {
    use bd3::train::optim::Muon;
    for (rows, parts, cols) in [(16, 3, 16), (48, 1, 12), (12, 1, 48)] {
        let settings = Muon { lr: 0.02, momentum: 0.95, weight_decay: 0.1, clip: 0.5, rows };
        let random = |seed| {
            let mut rng = Rng::new(seed);
            let data: Vec<f32> = (0..rows * parts * cols).map(|_| rng.uniform() as f32 - 0.5).collect();
            Tensor::<2>::from_data(TensorData::new(data, [rows * parts, cols]), &Device::flex())
        };
        let state = || [random(1), random(2), random(3), random(4)];
        let after = |form| ops::muon(form, &settings, 0.9, random(5), state()).map(numbers);
        let (composed, fused) = (after(Form::Composed), after(Form::Fused(Precision::F32)));
        for (a, b) in composed.iter().zip(&fused) {
            close(a, b, 1e-5);
        }
        assert_eq!(fused[2], numbers(random(3)), "the second moment is left alone");
        assert_ne!(fused[0], numbers(random(1)));
    }
}

/// What every denominator counts.
#[test]
fn every_token_but_bos_is_noisable_once() {
    for size in [1, 2, 4, 8, 16] {
        let layout = Layout::new(LENGTH, size).unwrap();
        assert_eq!((0..layout.blocks()).map(|b| layout.noisable(b)).sum::<usize>(), LENGTH - 1);
    }
}
