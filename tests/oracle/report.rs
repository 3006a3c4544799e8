//! config.json and report.json: numbers that repeat what the other files hold must agree with them.

use std::path::Path;

use bd3::arch;
use serde_json::Value;

use super::golden::{self, Check, Golden, close};

/// config.json: what is fixed in the family is what our code has; batch and length are those of a file.
pub fn config(dir: &Path, path: &Path) -> Check {
    let config = golden::json(path)?;
    for (key, ours) in [
        ("mlp_ratio", arch::MLP_RATIO as f64),
        ("rotary_base", arch::ROTARY_BASE),
        ("ln_eps", f64::from(arch::NORM_EPS)),
        ("freq_embed", arch::FREQUENCIES as f64),
    ] {
        let value = config[key].as_f64().ok_or(format!("{key}: not a number"))?;
        close(key, &[ours], &[value], (0.0, 1e-6))?;
    }
    let listed = ["batch", "length"].map(|key| config[key].as_u64().map(|n| n as usize));
    let shapes = x0_shapes(dir)?;
    let fits = |shape: &Vec<usize>| shape.iter().rev().copied().map(Some).eq(listed.into_iter().rev());
    if shapes.is_empty() || shapes.iter().any(fits) {
        return Ok(());
    }
    Err(format!("batch, length: {listed:?}, the x0 of the files have {shapes:?}"))
}

/// `[batch, length]` of every golden file with clean ids.
fn x0_shapes(dir: &Path) -> Result<Vec<Vec<usize>>, String> {
    let mut shapes = Vec::new();
    for path in golden::paths(dir)?.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
        if let Some(x0) = Golden::read(path)?.tensors.get("x0") {
            shapes.push(x0.shape[x0.shape.len().saturating_sub(2)..].to_vec());
        }
    }
    Ok(shapes)
}

/// report.json: losses, learning rates, rounds and evaluations as the files have them; the official code's own differences between
/// two of its ways are within its tolerance. An entry about a file that the folder leaves out has nothing to agree with.
pub fn report(dir: &Path, path: &Path) -> Check {
    let report = golden::json(path)?;
    for (key, value) in report.as_object().ok_or("not an object")? {
        entry(dir, key, value).map_err(|e| format!("{key}: {e}"))?;
    }
    Ok(())
}

fn entry(dir: &Path, key: &str, value: &Value) -> Check {
    let number = || value.as_f64().map(|number| vec![number]).ok_or("not a number".to_string());
    let list = || -> Result<Vec<f64>, String> {
        value.as_array().ok_or("not a list")?.iter().map(|v| v.as_f64().ok_or("not numbers".into())).collect()
    };
    let tensor = |file: &str, tensor: &str, listed: Vec<f64>, tolerance: f64| {
        with(dir, file, |golden| close(key, &listed, &golden.get(tensor)?.data, (tolerance, 0.0)))
    };
    if let Some(name) = key.strip_suffix("_loss_eval") {
        return tensor(name, "loss_eval", number()?, 1e-6);
    }
    if let Some(case) = key.strip_prefix("resample_").map(|rest| rest.trim_end_matches("_rounds")) {
        let listed = number()?;
        let rounds = |golden: &Golden| Ok::<_, String>(golden.get(&format!("{case}.draws"))?.shape[0] as f64);
        return with(dir, "resample", |golden| close(key, &listed, &[rounds(golden)?], (0.0, 0.0)));
    }
    if key.starts_with("cache_vs_noncache") || key == "hf_vs_native_maxabs" {
        return close(key, &number()?, &[0.0], (1e-4, 0.0));
    }
    if let Some(block) = key.strip_prefix("fh_bs") {
        return with(dir, &format!("traj_first_hitting_block{block}"), |golden| evaluations(value, golden));
    }
    if let Some(rest) = key.strip_prefix("ddpm_") {
        return with(dir, &format!("traj_ddpm_{}", rest.replace("bs", "block")), |golden| ancestral(value, golden));
    }
    match key {
        "bd3lm_block1_nll" => tensor("bd3lm_block1_nll", "loss_eval", number()?, 1e-6),
        "ar_loss" => tensor("ar", "loss", number()?, 1e-6),
        "train_losses" => trajectory(dir, "loss", (&list()?, 1e-5)),
        "lrs" => trajectory(dir, "lr", (&list()?, 1e-8)),
        "clip_grid_sizes" => grid_sizes(dir, value),
        "hf_missing" | "hf_unexpected" => value.as_array().map(|_| ()).ok_or("not a list".into()),
        _ => Err("an entry that no check knows".into()),
    }
}

/// Checks with a file of the folder; nothing to check where it is absent.
fn with(dir: &Path, name: &str, check: impl Fn(&Golden) -> Check) -> Check {
    let path = dir.join(name).with_extension("safetensors");
    if path.exists() { check(&Golden::read(&path)?) } else { Ok(()) }
}

/// The list is that of a training trajectory in the folder, if it has one.
fn trajectory(dir: &Path, tensor: &str, (listed, tolerance): (&[f64], f64)) -> Check {
    let mut result = Ok(());
    for path in golden::paths(dir)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("train_trajectory_")) {
            result = close(tensor, listed, &Golden::read(&path)?.get(tensor)?.data, (tolerance, 0.0));
            if result.is_ok() {
                break;
            }
        }
    }
    result
}

/// First hitting spends one evaluation a token, bos excepted, with and without a cache.
fn evaluations(value: &Value, golden: &Golden) -> Check {
    let steps = golden.get("x")?.shape[0] as f64;
    let nfe: f64 = golden.meta("nfe")?.parse().map_err(|e| format!("nfe: {e}"))?;
    let listed = ["nfe_nocache", "nfe_cache"].map(|k| value[k].as_f64().unwrap_or(f64::NAN));
    close("nfe", &listed, &[nfe, nfe], (0.0, 0.0))?;
    close("steps", &[steps], &[nfe], (0.0, 0.0))?;
    if value["same_tokens"] == true { Ok(()) } else { Err("same_tokens: not true".into()) }
}

fn ancestral(value: &Value, golden: &Golden) -> Check {
    let nfe: f64 = golden.meta("nfe")?.parse().map_err(|e| format!("nfe: {e}"))?;
    let listed = ["nfe", "forward_calls", "leftover_masks"].map(|k| value[k].as_f64().unwrap_or(f64::NAN));
    close("nfe, forward_calls, leftover_masks", &listed, &[nfe, golden.get("x")?.shape[0] as f64, 0.0], (0.0, 0.0))
}

fn grid_sizes(dir: &Path, value: &Value) -> Check {
    let path = dir.join("clip_grid.json");
    if !path.exists() {
        return Ok(());
    }
    let grid = golden::json(&path)?;
    for (size, count) in value.as_object().ok_or("not an object")? {
        let found = grid[size].as_array().map_or(f64::NAN, |g| g.len() as f64);
        close(size, &[found], &[count.as_f64().unwrap_or(f64::NAN)], (0.0, 0.0))?;
    }
    Ok(())
}
