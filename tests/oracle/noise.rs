//! Noise against the official code: schedules, noise levels, resampling, the clip grid and the variance search.

use std::path::Path;

use bd3::noise::{self, Clip, Grid, Schedule, Spread};

use super::golden::{Check, Golden, close, config, json};

/// `schedules.safetensors`: five schedules on a grid of t, and sigma and rate of the loglinear one. f32 against f64.
pub fn schedules(_dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let times = &golden.get("t")?.data;
    for (key, expected) in golden.tensors.iter().filter(|(key, _)| *key != "t") {
        let (name, quantity) = key.split_once('.').ok_or(format!("{key}: no schedule"))?;
        let schedule: Schedule = name.parse().map_err(|e| format!("{key}: {e}"))?;
        let at_each = |f: &dyn Fn(f64) -> f64| times.iter().map(|&t| f(t)).collect::<Vec<f64>>();
        let found = match quantity {
            "move_chance" => at_each(&|t| schedule.mask_prob(t)),
            "loss_scale" => at_each(&|t| -schedule.weight(t)),
            "total_noise" => at_each(&noise::total_noise),
            "rate_noise" => at_each(&noise::rate_noise),
            "sigma_max" => vec![noise::sigma_max()],
            _ => return Err(format!("{key}: unknown quantity")),
        };
        close(key, &found, &expected.data, (1e-6, 2e-5))?;
    }
    Ok(())
}

/// `sample_t.safetensors`: noise levels per token from recorded uniforms, for each block size, spread and interval.
pub fn sample_t(_dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    for (key, expected) in golden.tensors.iter().filter(|(key, _)| key.ends_with(".t")) {
        let parts = key.strip_suffix(".t").and_then(|k| k.split_once(".anti"));
        let (size, rest) = parts.ok_or(format!("{key}: unknown name"))?;
        let (anti, interval) = rest.split_once('.').ok_or(format!("{key}: no interval"))?;
        let spread = if anti == "1" { Spread::Antithetic } else { Spread::Independent };
        let uniforms = golden.get(&format!("{size}.u"))?;
        let times = noise::official_times(&uniforms.f32s(), clip(interval)?, spread);
        let block = expected.data.len() / times.len();
        let found: Vec<f64> = times.iter().flat_map(|&t| std::iter::repeat_n(f64::from(t), block)).collect();
        close(key, &found, &expected.data, (1.2e-7, 0.0))?;
    }
    Ok(())
}

fn clip(interval: &str) -> Result<Clip, String> {
    // An end may be written with a minus of its own, as in 1e-3.
    let mut splits = interval.match_indices('-');
    let ends = splits.find_map(|(i, _)| Some((interval[..i].parse().ok()?, interval[i + 1..].parse().ok()?)));
    let (beta, omega) = ends.ok_or(format!("`{interval}` is no interval"))?;
    Clip::new(beta, omega).map_err(|e| e.to_string())
}

/// `resample.safetensors`: recorded draws in rounds become the masked ids.
pub fn resample(dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let mask_id = config(dir, "mask_id")? as u32;
    let clean = golden.get("x0")?;
    let length = clean.shape[1];
    for case in golden.tensors.keys().filter_map(|key| key.strip_suffix(".p")) {
        let interval = golden.meta(case)?;
        let get = |what: &str| golden.get(&format!("{case}.{what}"));
        let (probs, draws, expected) = (get("p")?, get("draws")?, get("xt")?);
        // One level per block: every place in a row where the level changes is a multiple of the block size.
        let changes = (0..probs.data.len()).filter(|&i| i % length > 0 && probs.data[i] != probs.data[i - 1]);
        let block = changes.fold(length, |block, i| common_divisor(block, i % length));
        for (b, levels) in probs.data.chunks(block).enumerate() {
            let ends = clip(interval)?;
            if levels.iter().any(|p| *p != levels[0] || *p < ends.beta() - 1e-6 || *p > ends.omega() + 1e-6) {
                return Err(format!("{case}.p, block {b}: {levels:?}, expected one level in {interval}"));
            }
        }
        let mut rounds = 0;
        for (row, ids) in clean.rows().enumerate() {
            let draw = |round: usize, i: usize| {
                rounds = rounds.max(round + 1);
                // Past the recording nothing is masked, and the comparison fails.
                draws.data.get((round * clean.shape[0] + row) * length + i).copied().unwrap_or(f64::NAN)
            };
            // Recorded before bos is put back, so the coin of position 0 shows.
            let levels = probs.at(row).data;
            let coins =
                noise::coins_within(&levels, clip(interval)?, block, draw).map_err(|e| format!("{case}: {e}"))?;
            let found: Vec<f64> =
                ids.iter().zip(coins).map(|(&id, masked)| if masked { f64::from(mask_id) } else { id }).collect();
            close(&format!("{case}.xt row {row}"), &found, &expected.at(row).data, (0.0, 0.0))?;
        }
        close(&format!("{case}.draws, rounds"), &[rounds as f64], &[draws.shape[0] as f64], (0.0, 0.0))?;
    }
    Ok(())
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// `clip_grid.json`: the candidates of the search, in f32 as the official code has them.
pub fn clip_grid(_dir: &Path, file: &Path) -> Check {
    let grid = json(file)?;
    for (block, expected) in grid.as_object().ok_or("no object")? {
        let block: usize = block.parse().map_err(|e| format!("block {block}: {e}"))?;
        let expected: Vec<f64> = expected.as_array().ok_or("no array")?.iter().flat_map(numbers).collect();
        // An interval that starts at the floor shows its width, in f32.
        let floors = expected.chunks(2).skip(1).filter(|ends| block > 1 && ends[0] < 0.002);
        let widths: Vec<f64> = floors.map(|ends| (ends[1] * 1e6).round() / 1e6).collect();
        let clips = noise::candidates(block, &widths, Grid::Official).map_err(|e| e.to_string())?;
        let found: Vec<f64> = clips.iter().flat_map(|clip| [clip.beta(), clip.omega()]).collect();
        close(&format!("block {block}"), &found, &expected, (0.0, 0.0))?;
    }
    Ok(())
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().flat_map(|x| x.as_f64().map_or_else(|| numbers(x), |x| vec![x])).collect()
}

/// `variance_search.json`: per candidate the per-block bounds of each batch; the logged mean variance and the chosen interval.
pub fn variance_search(_dir: &Path, file: &Path) -> Check {
    let search = json(file)?;
    let lists = search["lists"].as_object().ok_or("no `lists`")?;
    let logged = search["logged"].as_object().ok_or("no `logged`")?;
    let mut clips = Vec::new();
    let mut scores = Vec::new();
    for ((name, batches), (log_name, expected)) in lists.iter().zip(logged) {
        let batches: Vec<Vec<f64>> = batches.as_array().ok_or("no batches")?.iter().map(numbers).collect();
        let score = noise::variance_score(&batches).map_err(|e| format!("{name}: {e}"))?;
        let expected = expected.as_f64().ok_or(format!("{log_name}: no number"))?;
        close(&format!("{name} ({log_name})"), &[score / batches.len() as f64], &[expected], (1e-6, 0.0))?;
        let clip = clip(&name.replace('|', "-"))?;
        let ends = log_name.strip_prefix("valid_var_").and_then(|ends| ends.split_once(" - "));
        let (beta, omega) = ends.ok_or(format!("`{log_name}` names no interval"))?;
        let rounded: Vec<f64> = [beta, omega].iter().filter_map(|end| end.parse().ok()).collect();
        close(log_name, &[clip.beta(), clip.omega()].map(|end| (end * 100.0).round() / 100.0), &rounded, (0.0, 0.0))?;
        clips.push(clip);
        scores.push(score);
    }
    if lists.len() != logged.len() {
        return Err(format!("{} lists, {} logged", lists.len(), logged.len()));
    }
    let best = clips[noise::best(&scores).ok_or("no candidate")?];
    close("chosen", &[best.beta(), best.omega()], &numbers(&search["chosen"]), (0.0, 0.0))
}
