//! Golden files that need the network: logits, hidden states, losses and gradients of the official code.

use std::collections::HashMap;
use std::path::Path;

use bd3::arch::{ROTARY_BASE, rotary_frequencies};
use bd3::block::{Layout, attends, block_causal};
use bd3::checkpoint::{Checkpoint, Config};
use bd3::engine::{Engine, KeyValues, Options};
use bd3::format::{Stored, safetensors::Tensors};
use bd3::loss::{self, ScoreNoise, Terms};
use bd3::model::dit::{View, sinusoids};
use bd3::model::{Dit, Form, Precision, Rotary, ops};
use bd3::pass::{Ask, Denoiser, Filter, Lane, Nucleus};
use burn::tensor::{Device, Tensor};
use serde_json::json;

use super::golden::{Check, Golden, close, config};
use super::sampling::last_sigma;

/// Absolute, on logits, hidden states and losses.
const TIGHT: (f64, f64) = (1e-4, 0.0);

/// What kind of network a golden file speaks of.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Masked,
    Score,
    NextToken,
}

/// The network of an oracle folder, loaded by the same code as any published checkpoint.
pub fn network(dir: &Path, kind: Kind, block: usize, device: &Device) -> Result<Dit, String> {
    let int = |key| config(dir, key);
    let (causal, score) = (kind == Kind::NextToken, kind == Kind::Score);
    let text = json!({
        "model_type": "bd3lm", "vocab_size": int("vocab_size_with_mask")?, "mask_token_id": int("mask_id")?,
        "bos_token_id": int("bos_id")?, "eos_token_id": int("eos_id")?, "hidden_dim": int("hidden")?,
        "cond_dim": int("cond_dim")?, "n_blocks": int("n_blocks")?, "n_heads": int("n_heads")?,
        "model_length": int("length")?, "causal": causal, "time_conditioning": score, "cross_attn": true,
        "block_size": block, "dropout": 0.0,
    });
    let config = Config::parse(&dir.join("config.json"), text.to_string().as_bytes()).map_err(|e| e.to_string())?;
    let weights = if causal { "weights_ar.safetensors" } else { "weights.safetensors" };
    let tensors = Tensors::open(&dir.join(weights)).map_err(|e| e.to_string())?;
    let model = Checkpoint::new(&config, tensors).and_then(|c| c.model(device));
    model.map_err(|e| e.to_string())
}

/// Both forms of the hot operations: each must match the goldens.
pub const FORMS: [Form; 2] = [Form::Composed, Form::Fused(Precision::F32)];

fn device() -> Device {
    Device::flex().autodiff()
}

fn numbers(tensor: Tensor<2>) -> Result<Vec<f64>, String> {
    Ok(ops::to_vec(tensor).map_err(|e| e.to_string())?.into_iter().map(f64::from).collect())
}

/// Log-probabilities: 1e-4, and where the golden is below -1e5 ours is as well.
pub fn close_log_probs(name: &str, found: &[f64], expected: &[f64]) -> Check {
    let floor = |x: &f64| if *x < -1e5 { -1e5 } else { *x };
    close(name, &found.iter().map(floor).collect::<Vec<_>>(), &expected.iter().map(floor).collect::<Vec<_>>(), TIGHT)
}

/// bd3lm_block*.safetensors and mdlm_block*.safetensors: the paired pass with everything the official code computes.
pub fn masked(dir: &Path, path: &Path) -> Check {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(name) = name.strip_suffix("_beta_gt_half.safetensors") {
        let block = name.rsplit("block").next().and_then(|b| b.parse().ok());
        return unweighted(dir, path, block.ok_or("no block size in its name")?);
    }
    let golden = Golden::read(path)?;
    let block: usize = golden.meta("block_size")?.parse().map_err(|e| format!("block_size: {e}"))?;
    let x0 = golden.get("x0")?;
    let [batch, length] = x0.shape[..] else { return Err("x0: not [batch, length]".into()) };
    let (x0, xt) = (x0.ids(), golden.get("xt")?.ids());
    noise_columns(&golden, block, length)?;
    masks(&golden, block, length)?;
    let scale = golden.get("loss_scale")?;
    let wide = scale.data.len() / batch;
    let weight = |i: usize| -scale.data[i / length * wide + if wide == 1 { 0 } else { i % length }];
    for form in FORMS {
        let mut model = network(dir, Kind::Masked, block, &device())?;
        model.form = form;
        model.require_grad();
        hidden(&model, &golden, (&x0, &xt), block)?;
        let stream = model.paired(&xt, &x0, &View::plain(batch, block)).map_err(|e| e.to_string())?;
        logits(&model, &golden, stream.clone(), &xt)?;
        let terms = Terms::masked(&x0, &xt, model.arch.mask, length, weight);
        losses(&mut model, &golden, stream, &terms, (batch, length))?;
    }
    Ok(())
}

/// t by block, t by token, mask probability and weight belong together (loglinear).
fn noise_columns(golden: &Golden, block: usize, length: usize) -> Check {
    let token = golden.get("t_tok")?;
    let per_block = golden.get("t_block")?;
    let blocks = per_block.shape[1];
    let spread: Vec<f64> = if token.shape[1] == length {
        per_block
            .data
            .chunks(blocks)
            .flat_map(|row| (0..length).map(move |i| row[(i / block).min(blocks - 1)]))
            .collect()
    } else {
        per_block.data.clone()
    };
    close("t_tok", &spread, &token.data, (0.0, 0.0))?;
    let wide = golden.get("move_chance")?.shape[1] / token.shape[1];
    let t: Vec<f64> = token.data.iter().flat_map(|&t| std::iter::repeat_n(t, wide)).collect();
    close("move_chance", &t, &golden.get("move_chance")?.data, (1e-6, 0.0))?;
    let scale: Vec<f64> = t.iter().map(|t| -1.0 / t).collect();
    close("loss_scale", &scale, &golden.get("loss_scale")?.data, (0.0, 1e-6))?;
    let counted = golden.get("token_mask")?.data.len();
    let counted: Vec<f64> = (0..counted).map(|i| if i % length == 0 { 0.0 } else { 1.0 }).collect();
    close("token_mask", &counted, &golden.get("token_mask")?.data, (0.0, 0.0))
}

/// The dense masks of the official code, from our predicates.
fn masks(golden: &Golden, block: usize, length: usize) -> Check {
    let layout = Layout::new(length, block).map_err(|e| e.to_string())?;
    let bit = |b: bool| f64::from(u8::from(b));
    let square = |from: usize, n: usize, see: &dyn Fn(usize, usize) -> bool| -> Vec<f64> {
        (from..from + n).flat_map(|q| (from..from + n).map(move |k| (q, k))).map(|(q, k)| bit(see(q, k))).collect()
    };
    if golden.tensors.contains_key("mask_train") {
        let train = square(0, 2 * length, &|q, k| attends(layout.place(q), layout.place(k)));
        close("mask_train", &train, &golden.get("mask_train")?.data, (0.0, 0.0))?;
        let window = square(length, length, &|q, k| block_causal(layout.place(q), layout.place(k)));
        close("mask_sample_noncached", &window, &golden.get("mask_sample_noncached")?.data, (0.0, 0.0))?;
    }
    Ok(())
}

/// The residual streams after every layer. The clean one is a stream of its own (it never sees the noised one); the noised one is
/// checked through the model cut after that layer.
fn hidden(model: &Dit, golden: &Golden, (x0, xt): (&[u32], &[u32]), block: usize) -> Check {
    let shape = &golden.get("hidden_0")?.shape;
    let (batch, rows, width) = (shape[0], shape[1], shape[2]);
    let view = View::plain(batch, block);
    let clean = model.hidden(x0, &view).map_err(|e| e.to_string())?;
    let noised = model.paired_hidden(xt, x0, &view).map_err(|e| e.to_string())?;
    let length = x0.len() / batch;
    for (layer, (noised, clean)) in noised.into_iter().zip(clean).enumerate() {
        let (noised, clean) = (numbers(noised)?, numbers(clean)?);
        let both: Vec<f64> = noised
            .chunks(length * width)
            .zip(clean.chunks(length * width))
            .flat_map(|(n, c)| n.iter().chain(if rows > length { c } else { &[] }))
            .copied()
            .collect();
        close(&format!("hidden_{layer}"), &both, &golden.get(&format!("hidden_{layer}"))?.data, TIGHT)?;
    }
    Ok(())
}

fn logits(model: &Dit, golden: &Golden, stream: Tensor<2>, xt: &[u32]) -> Check {
    let found = numbers(model.logits(stream))?;
    close("logits", &found, &golden.get("logits")?.data, TIGHT)?;
    let mut log_probs: Vec<f32> = found.iter().map(|&x| x as f32).collect();
    loss::subs_log_probs(&mut log_probs, xt, model.arch.vocab, model.arch.mask);
    let log_probs: Vec<f64> = log_probs.into_iter().map(f64::from).collect();
    close_log_probs("log_probs", &log_probs, &golden.get("log_probs")?.data)
}

/// Per-token bound, both losses, and every gradient of the evaluation loss.
fn losses(
    model: &mut Dit,
    golden: &Golden,
    stream: Tensor<2>,
    terms: &Terms,
    (batch, length): (usize, usize),
) -> Check {
    let denominator = (batch * (length - 1)) as f64;
    let (loss, nll) = loss::cross_entropy(model, stream, terms, denominator).map_err(|e| e.to_string())?;
    let per_token = terms.per_position(&nll, batch * length);
    close("nlls", &per_token, &golden.get("nlls")?.data, TIGHT)?;
    let total: f64 = per_token.iter().sum();
    close("loss_eval", &[total / denominator], &golden.get("loss_eval")?.data, TIGHT)?;
    close("loss_train", &[total / (batch * length) as f64], &golden.get("loss_train")?.data, TIGHT)?;
    close("loss_eval (tensor)", &numbers(loss.clone())?, &golden.get("loss_eval")?.data, TIGHT)?;
    gradients(model, golden, &loss)
}

/// Every gradient, within 1e-3 of its tensor's largest entry.
pub fn gradients(model: &mut Dit, golden: &Golden, loss: &Tensor<2>) -> Check {
    let mut grads = loss.backward();
    let mut result = Ok(());
    let mut seen = 0;
    model.visit(&mut |name, tensor| {
        let key = format!("grad.backbone.{name}");
        let Some(expected) = golden.tensors.get(&key) else {
            result = result.clone().and(Err(format!("{key}: not in the golden file")));
            return;
        };
        seen += 1;
        let largest = expected.data.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let found = match tensor.grad_remove(&mut grads) {
            Some(grad) => numbers(grad),
            None => Ok(vec![0.0; expected.data.len()]),
        };
        let check = found.and_then(|found| close(&key, &found, &expected.data, (1e-3 * largest, 0.0)));
        result = result.clone().and(check);
    });
    result?;
    let listed = golden.tensors.keys().filter(|k| k.starts_with("grad.")).count();
    if listed == seen { Ok(()) } else { Err(format!("{listed} gradients in the file, {seen} in the model")) }
}

/// bd3lm_block1_nll.safetensors: everything masked at block size 1 is the exact negative log-likelihood.
pub fn exact_nll(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let x0 = golden.get("x0")?;
    let (batch, length, x0) = (x0.shape[0], x0.shape[1], x0.ids());
    for form in FORMS {
        let mut model = network(dir, Kind::Masked, 1, &device())?;
        model.form = form;
        let mask = model.arch.mask;
        let xt: Vec<u32> = x0.iter().enumerate().map(|(i, &id)| if i % length == 0 { id } else { mask }).collect();
        hidden(&model, &golden, (&x0, &xt), 1)?;
        let stream = model.paired(&xt, &x0, &View::plain(batch, 1)).map_err(|e| e.to_string())?;
        logits(&model, &golden, stream.clone(), &xt)?;
        let terms = Terms::masked(&x0, &xt, mask, length, |_| 1.0);
        let (_, nll) = loss::cross_entropy(&model, stream, &terms, 1.0).map_err(|e| e.to_string())?;
        let per_token = terms.per_position(&nll, batch * length);
        close("nlls", &per_token, &golden.get("nlls")?.data, TIGHT)?;
        let mean = per_token.iter().sum::<f64>() / (batch * (length - 1)) as f64;
        close("loss_eval", &[mean], &golden.get("loss_eval")?.data, TIGHT)?;
    }
    Ok(())
}

/// bd3lm_block*_beta_gt_half.safetensors: the official code drops the weight where the interval starts above one half.
fn unweighted(dir: &Path, path: &Path, block: usize) -> Check {
    let golden = Golden::read(path)?;
    let x0 = golden.get("x0")?;
    let (batch, length, x0) = (x0.shape[0], x0.shape[1], x0.ids());
    let mut xt = golden.get("xt")?.ids();
    let mask = config(dir, "mask_id")? as u32;
    if let Some(i) = xt.iter().zip(&x0).position(|(t, c)| t != c && *t != mask) {
        return Err(format!("xt[{i}]: neither the mask nor the token of x0"));
    }
    // The official forward restores bos before the network sees it.
    xt.iter_mut().zip(&x0).step_by(length).for_each(|(noised, clean)| *noised = *clean);
    if let Some(t) = golden.get("t_tok")?.data.iter().find(|t| !(0.5..=1.0).contains(*t)) {
        return Err(format!("t_tok: {t} is not above one half"));
    }
    for (row, t) in golden.get("t_tok")?.rows().enumerate() {
        if let Some(bad) = t.chunks(block).position(|c| c.iter().any(|x| x != &c[0])) {
            return Err(format!("t_tok: row {row}, block {bad}: several noise levels"));
        }
    }
    let model = network(dir, Kind::Masked, block, &device())?;
    let stream = model.paired(&xt, &x0, &View::plain(batch, block)).map_err(|e| e.to_string())?;
    let terms = Terms::masked(&x0, &xt, model.arch.mask, length, |_| 1.0);
    let (_, nll) = loss::cross_entropy(&model, stream, &terms, 1.0).map_err(|e| e.to_string())?;
    let per_token = terms.per_position(&nll, batch * length);
    close("nlls", &per_token, &golden.get("nlls")?.data, TIGHT)?;
    let mean = per_token.iter().sum::<f64>() / (batch * (length - 1)) as f64;
    close("loss_eval", &[mean], &golden.get("loss_eval")?.data, TIGHT)
}

/// ar.safetensors: the next-token model.
pub fn next_token(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let x0 = golden.get("x0")?;
    let (batch, length, x0) = (x0.shape[0], x0.shape[1], x0.ids());
    let inputs: Vec<u32> = x0.chunks(length).flat_map(|row| &row[..length - 1]).copied().collect();
    let targets: Vec<u32> = x0.chunks(length).flat_map(|row| &row[1..]).copied().collect();
    for (name, ours) in [("inputs", &inputs), ("targets", &targets)] {
        let ours: Vec<f64> = ours.iter().map(|&id| f64::from(id)).collect();
        close(name, &ours, &golden.get(name)?.data, (0.0, 0.0))?;
    }
    for form in FORMS {
        let mut model = network(dir, Kind::NextToken, 1, &device())?;
        model.form = form;
        model.require_grad();
        let stream = model.single(&inputs, &View::plain(batch, 1)).map_err(|e| e.to_string())?;
        close("logits_raw", &numbers(model.logits(stream.clone()))?, &golden.get("logits_raw")?.data, TIGHT)?;
        let terms = Terms::next_token(&x0, length);
        let denominator = terms.rows.len() as f64;
        let (loss, nll) = loss::cross_entropy(&model, stream, &terms, denominator).map_err(|e| e.to_string())?;
        close("nlls", &terms.per_position(&nll, inputs.len()), &golden.get("nlls")?.data, TIGHT)?;
        close("loss", &numbers(loss.clone())?, &golden.get("loss")?.data, TIGHT)?;
        gradients(&mut model, &golden, &loss)?;
    }
    Ok(())
}

/// sedd.safetensors, the part that needs the network: log-scores and score entropy.
pub fn score(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let x0 = golden.get("x0")?;
    let (batch, length, x0) = (x0.shape[0], x0.shape[1], x0.ids());
    let xt = golden.get("xt")?.ids();
    let t = golden.get("t")?.f32s();
    let sigma: Vec<f64> = t.iter().map(|&t| -(1.0 - f64::from(t)).ln()).collect();
    close("sigma", &sigma, &golden.get("sigma")?.data, (1e-6, 0.0))?;
    let sigma = golden.get("sigma")?.f32s();
    let per_position = |sigma: &[f32], rate: &dyn Fn(usize) -> f64| -> Vec<ScoreNoise> {
        let row = |i: usize| i / length;
        (0..batch * length).map(|i| ScoreNoise { sigma: f64::from(sigma[row(i)]), rate: rate(row(i)) }).collect()
    };
    for form in FORMS {
        let mut model = network(dir, Kind::Score, length, &device())?;
        model.form = form;
        let scores = |sigma: &[f32], noise: &[ScoreNoise]| {
            let view = View { sigma: Some(sigma), ..View::plain(batch, length) };
            let stream = model.single(&xt, &view).map_err(|e| e.to_string())?;
            Ok::<_, String>(loss::log_score(model.logits(stream), &xt, noise))
        };
        // The recorded log-scores are those of the last, denoising step.
        let end = vec![last_sigma(&golden)?; batch];
        let found = scores(&end, &per_position(&end, &|_| 1.0))?;
        close("log_score", &numbers(found)?, &golden.get("log_score")?.data, (1e-4, 1e-5))?;
        let noise = per_position(&sigma, &|b| 1.0 / (1.0 - f64::from(t[b])));
        let entropy = loss::score_entropy(scores(&sigma, &noise)?, &x0, &xt, model.arch.mask, &noise);
        close("nlls", &numbers(entropy)?, &golden.get("nlls")?.data, TIGHT)?;
    }
    Ok(())
}

/// embedders.safetensors: sinusoids, the conditioning network, the rotary table.
pub fn embedders(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let sigma = golden.get("sigma")?.f32s();
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    close("freq", &wide(&sinusoids(&sigma)), &golden.get("freq")?.data, (1e-5, 0.0))?;
    let model = network(dir, Kind::Score, config(dir, "length")?, &device())?;
    let (out, silu) = model.embed_sigma(&sigma).ok_or("the network has no conditioning")?;
    close("out", &numbers(out)?, &golden.get("out")?.data, TIGHT)?;
    close("silu_out", &numbers(silu)?, &golden.get("silu_out")?.data, TIGHT)?;
    let cos = golden.get("cos")?;
    let (length, dim) = (cos.shape[0], cos.shape[1]);
    let rotary = Rotary::new(length, dim, ROTARY_BASE);
    let doubled = |half: &[f32]| half.chunks(dim / 2).flat_map(|r| [r, r].concat()).map(f64::from).collect::<Vec<_>>();
    close("cos", &doubled(rotary.cos()), &cos.data, (1e-5, 0.0))?;
    close("sin", &doubled(rotary.sin()), &golden.get("sin")?.data, (1e-5, 0.0))?;
    close("inv_freq", &wide(&rotary_frequencies(dim, ROTARY_BASE)), &golden.get("inv_freq")?.data, (0.0, 1e-5))
}

/// weights*.safetensors: loads whole, nothing left over.
pub fn weights(dir: &Path, path: &Path) -> Check {
    let causal = path.ends_with("weights_ar.safetensors");
    let kind = if causal { Kind::NextToken } else { Kind::Masked };
    let model = network(dir, kind, 1, &device())?;
    let golden = Golden::read(path)?;
    let frequencies = rotary_frequencies(model.arch.head_dim(), ROTARY_BASE);
    let frequencies: Vec<f64> = frequencies.into_iter().map(f64::from).collect();
    close("inv_freq", &frequencies, &golden.get("backbone.rotary_emb.inv_freq")?.data, (0.0, 1e-5))?;
    for (name, data) in model.parameters().map_err(|e| e.to_string())? {
        let key = format!("backbone.{name}");
        close(&key, &data.into_iter().map(f64::from).collect::<Vec<_>>(), &golden.get(&key)?.data, (0.0, 0.0))?;
    }
    Ok(())
}

/// sample_block*.safetensors, the part that needs the network: log-probabilities of every block behind its clean prefix, with the
/// cache filled block by block, and filled at once.
pub fn decode(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let block: usize = golden.meta("block_size")?.parse().map_err(|e| format!("block_size: {e}"))?;
    let (clean, noisy) = (golden.get("x_clean")?, golden.get("x_noisy")?);
    let length = clean.shape.last().copied().unwrap_or_default();
    let (clean, noisy) = (clean.ids(), noisy.ids());
    let decoder = decoder(dir, Kind::Masked, block)?;
    let mut kept = decoder.cache(block);
    let (mut cached, mut fresh) = (Vec::new(), Vec::new());
    for start in (0..clean.len()).step_by(block) {
        let open = &noisy[start..start + block];
        let row = start / length * length;
        let log_probs = |cache: &mut KeyValues, store: &[u32]| {
            let ask = Ask::new((0..block).collect(), vec![0.0; block], PLAIN);
            let mut logits = decoder.logits(&mut [Lane::new(cache, store, open, &ask)]).map_err(|e| e.to_string())?;
            loss::subs_log_probs(&mut logits, open, decoder.arch().vocab, decoder.mask_id());
            Ok::<_, String>(logits.into_iter().map(f64::from).collect::<Vec<_>>())
        };
        if start == row {
            kept = decoder.cache(block);
        }
        cached.extend(log_probs(&mut kept, &clean[start.saturating_sub(block).max(row)..start])?);
        fresh.extend(log_probs(&mut decoder.cache(block), &clean[row..start])?);
    }
    close_log_probs("log_probs_cached", &cached, &golden.get("log_probs_cached")?.data)?;
    close_log_probs("log_probs_noncached", &fresh, &golden.get("log_probs_noncached")?.data)
}

const PLAIN: Filter = Filter { temperature: 1.0, nucleus: Nucleus::Off };

/// The same on the engine.
pub fn decoder(dir: &Path, kind: Kind, block: usize) -> Result<Engine, String> {
    let model = network(dir, kind, block, &device())?;
    let parameters: HashMap<String, Vec<f32>> = model.parameters().map_err(|e| e.to_string())?.into_iter().collect();
    let take = |name: &str, shape: &[usize]| Ok(Stored::of_f32(shape, &parameters[name]));
    Engine::new(&model.arch, take, Options { exact: true, ..Options::default() }).map_err(|e| e.to_string())
}
