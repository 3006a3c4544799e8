//! train_trajectory_block*.safetensors: steps of the official training loop, replayed from the recorded noise.

use std::path::Path;

use bd3::loss::{self, Terms};
use bd3::model::dit::View;
use bd3::model::ops;
use bd3::train::learning_rate;
use bd3::train::optim::{Optimizer, Update, gradients};
use burn::tensor::Device;

use super::golden::{Check, Golden, Tensor, close};
use super::network::{FORMS, Kind, network};

pub fn train(dir: &Path, path: &Path) -> Check {
    let golden = Golden::read(path)?;
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let block: usize = name.rsplit("block").next().and_then(|b| b.parse().ok()).ok_or("no block size in its name")?;
    let meta = |key| golden.meta(key)?.parse::<f64>().map_err(|e| format!("{key}: {e}"));
    schedule(&golden, meta("lr")?, meta("warmup")?)?;
    let (x0, xt, t) = (golden.get("x0")?, golden.get("xt")?, golden.get("t")?);
    let (steps, batch, length) = (x0.shape[0], x0.shape[1], x0.shape[2]);
    close("ema_num_updates", &[steps as f64], &[meta("ema_num_updates")?], (0.0, 0.0))?;
    for form in FORMS {
        let mut model = network(dir, Kind::Masked, block, &Device::flex().autodiff())?;
        model.form = form;
        model.require_grad();
        let mut optimizer = Optimizer::new(&model);
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for step in 0..steps {
            let (x0, xt, t) = (x0.at(step).ids(), xt.at(step).ids(), t.at(step));
            let stream = model.paired(&xt, &x0, &View::plain(batch, block)).map_err(|e| e.to_string())?;
            // One level for each token, or for each row where the row is one block.
            let tokens = batch * length / t.data.len();
            let terms = Terms::masked(&x0, &xt, model.arch.mask, length, |i| 1.0 / t.data[i / tokens]);
            let (loss, _) =
                loss::cross_entropy(&model, stream, &terms, (batch * length) as f64).map_err(|e| e.to_string())?;
            let grads = gradients(&mut model, loss.backward());
            let lr = golden.get("lr")?.data[step];
            let update =
                Update { lr, betas: [0.9, 0.999], weight_decay: 0.0, max_norm: meta("clip")?, ema: 0.9999, muon: None };
            norms.push(optimizer.update(&mut model, grads, &update).map_err(|e| e.to_string())?);
            losses.push(f64::from(ops::to_vec(loss).map_err(|e| e.to_string())?[0]));
        }
        close("loss", &losses, &golden.get("loss")?.data, (1e-4, 0.0))?;
        close("gnorm", &norms, &golden.get("gnorm")?.data, (0.0, 1e-4))?;
        let rates: f64 = golden.get("lr")?.data.iter().sum();
        for ((name, data), slot) in model.parameters().map_err(|e| e.to_string())?.into_iter().zip(&optimizer.slots) {
            parameter(&format!("final.backbone.{name}"), &data, &golden, rates)?;
            let ema = ops::to_vec(slot.ema.clone()).map_err(|e| e.to_string())?;
            parameter(&format!("ema.backbone.{name}"), &ema, &golden, rates)?;
        }
        let listed = golden.tensors.keys().filter(|k| k.starts_with("final.") || k.starts_with("ema.")).count();
        close("number of parameters", &[2.0 * optimizer.slots.len() as f64], &[listed as f64], (0.0, 0.0))?;
    }
    Ok(())
}

/// Linear warm-up from 0, then constant.
fn schedule(golden: &Golden, lr: f64, warmup: f64) -> Check {
    let rates = golden.get("lr")?;
    let (steps, warmup) = (rates.data.len() as u64, warmup as u64);
    let text = format!("steps = {steps}\nbatch = 2\nlr = {lr:e}\nwarmup = {warmup}");
    let train: bd3::recipe::Train = toml::from_str(&text).map_err(|e| e.to_string())?;
    let ours: Vec<f64> = (0..steps).map(|step| learning_rate(&train, step)).collect();
    close("lr", &ours, &rates.data, (1e-9, 1e-6))
}

/// Mean difference 1e-5, and none above twice the summed learning rates: an Adam step at a gradient near 0 may go either way.
fn parameter(key: &str, found: &[f32], golden: &Golden, rates: f64) -> Check {
    let Tensor { data, .. } = golden.get(key)?;
    let found: Vec<f64> = found.iter().map(|&x| f64::from(x)).collect();
    close(key, &found, data, (2.0 * rates, 0.0))?;
    let mean = found.iter().zip(data).map(|(a, b)| (a - b).abs()).sum::<f64>() / data.len() as f64;
    if mean <= 1e-5 { Ok(()) } else { Err(format!("{key}: mean difference {mean}")) }
}
