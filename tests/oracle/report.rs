//! config.json and report.json: numbers that repeat what the other files hold must agree with them.

use std::path::Path;

use bd3::arch;

use super::golden::{self, Check, Golden, close};

/// config.json: what is fixed in the family is what our code has.
pub fn config(_: &Path, path: &Path) -> Check {
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
    let x0 = Golden::read(&path.with_file_name("ar.safetensors"))?;
    let shape = &x0.get("x0")?.shape;
    let listed = [config["batch"].as_f64(), config["length"].as_f64()].map(|v| v.unwrap_or(f64::NAN));
    close("batch, length", &[shape[0] as f64, shape[1] as f64], &listed, (0.0, 0.0))
}

/// report.json: losses, learning rates, rounds and evaluations as the files have them; the official code's own differences between
/// two of its ways are within its tolerance.
pub fn report(dir: &Path, path: &Path) -> Check {
    let report = golden::json(path)?;
    for (key, value) in report.as_object().ok_or("not an object")? {
        entry(dir, key, value).map_err(|e| format!("{key}: {e}"))?;
    }
    Ok(())
}

fn entry(dir: &Path, key: &str, value: &serde_json::Value) -> Check {
    let file = |name: &str| Golden::read(&dir.join(format!("{name}.safetensors")));
    let number = || value.as_f64().ok_or("not a number".to_string());
    if let Some(name) = key.strip_suffix("_loss_eval") {
        return close(key, &[number()?], &file(name)?.get("loss_eval")?.data, (1e-6, 0.0));
    }
    if let Some(rest) = key.strip_prefix("resample_") {
        let letter = rest.trim_end_matches("_rounds");
        let rounds = file("resample")?.get(&format!("{letter}.draws"))?.shape[0];
        return close(key, &[number()?], &[rounds as f64], (0.0, 0.0));
    }
    if key.starts_with("cache_vs_noncache") || key == "hf_vs_native_maxabs" {
        return close(key, &[number()?], &[0.0], (1e-5, 0.0));
    }
    if let Some(block) = key.strip_prefix("fh_bs") {
        return evaluations(value, &file(&format!("traj_first_hitting_block{block}"))?);
    }
    if let Some(rest) = key.strip_prefix("ddpm_") {
        let name = rest.replace("bs", "block");
        return ancestral(value, &file(&format!("traj_ddpm_{name}"))?);
    }
    let list = || -> Result<Vec<f64>, String> {
        value.as_array().ok_or("not a list")?.iter().map(|v| v.as_f64().ok_or("not numbers".into())).collect()
    };
    match key {
        "bd3lm_block1_nll" => close(key, &[number()?], &file("bd3lm_block1_nll")?.get("loss_eval")?.data, (1e-6, 0.0)),
        "ar_loss" => close(key, &[number()?], &file("ar")?.get("loss")?.data, (1e-6, 0.0)),
        "train_losses" => close(key, &list()?, &trajectory(dir)?.get("loss")?.data, (1e-5, 0.0)),
        "lrs" => close(key, &list()?, &trajectory(dir)?.get("lr")?.data, (1e-8, 0.0)),
        "clip_grid_sizes" => grid_sizes(dir, value),
        "hf_missing" | "hf_unexpected" => value.as_array().map(|_| ()).ok_or("not a list".into()),
        _ => Err("an entry that no check knows".into()),
    }
}

fn trajectory(dir: &Path) -> Result<Golden, String> {
    let entries = std::fs::read_dir(dir).map_err(|e| e.to_string())?;
    let mut paths = entries.flatten().map(|e| e.path());
    let is_trajectory = |p: &std::path::PathBuf| p.to_string_lossy().contains("train_trajectory_");
    Golden::read(&paths.find(is_trajectory).ok_or("no train_trajectory file")?)
}

/// First hitting spends one evaluation a token, bos excepted, with and without a cache.
fn evaluations(value: &serde_json::Value, golden: &Golden) -> Check {
    let steps = golden.get("x")?.shape[0] as f64;
    let nfe: f64 = golden.meta("nfe")?.parse().map_err(|e| format!("nfe: {e}"))?;
    let listed = ["nfe_nocache", "nfe_cache"].map(|k| value[k].as_f64().unwrap_or(f64::NAN));
    close("nfe", &listed, &[nfe, nfe], (0.0, 0.0))?;
    close("steps", &[steps], &[nfe], (0.0, 0.0))?;
    if value["same_tokens"] == true { Ok(()) } else { Err("same_tokens: not true".into()) }
}

fn ancestral(value: &serde_json::Value, golden: &Golden) -> Check {
    let nfe: f64 = golden.meta("nfe")?.parse().map_err(|e| format!("nfe: {e}"))?;
    let listed = ["nfe", "forward_calls", "leftover_masks"].map(|k| value[k].as_f64().unwrap_or(f64::NAN));
    close("nfe, forward_calls, leftover_masks", &listed, &[nfe, golden.get("x")?.shape[0] as f64, 0.0], (0.0, 0.0))
}

fn grid_sizes(dir: &Path, value: &serde_json::Value) -> Check {
    let grid = golden::json(&dir.join("clip_grid.json"))?;
    for (size, count) in value.as_object().ok_or("not an object")? {
        let found = grid[size].as_array().map_or(f64::NAN, |g| g.len() as f64);
        close(size, &[found], &[count.as_f64().unwrap_or(f64::NAN)], (0.0, 0.0))?;
    }
    Ok(())
}
