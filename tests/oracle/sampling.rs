//! Sampling against the official code: nucleus and posterior, trajectories replayed from recorded probabilities and uniforms,
//! stop rules, SEDD's steps. What a model computed is taken from the file, never computed here.

use std::path::Path;

use bd3::event::{EditKind, Why};
use bd3::noise::{Schedule, sigma};
use bd3::pass::{Nucleus, cut};
use bd3::sample::Canvas;
use bd3::sample::official::{Extent, analytic_probs, ancestral_posterior, denoiser_probs, exponential_race, judge};
use bd3::sample::revise::Change;
use bd3::sample::rule::first_hitting;

use super::golden::{Check, Golden, Tensor, close, config, json};

/// `sample_block*.safetensors`: from the cached log-probabilities to the nucleus and to one ancestral step.
pub fn sample_block(dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let mask_id = config(dir, "mask_id")? as u32;
    let (clean, noisy) = (golden.get("x_clean")?.ids(), golden.get("x_noisy")?.ids());
    let (cached, plain) = (golden.get("log_probs_cached")?, golden.get("log_probs_noncached")?);
    let ((nucleus, [limit]), (posterior, [t, dt])) = (golden.labelled("nucleus_")?, golden.labelled("ddpm_q_")?);
    // The block size is a label here: the rows are independent.
    let block: usize = golden.meta("block_size")?.parse().map_err(|e| format!("block_size: {e}"))?;
    if noisy.len() % block != 0 || !file.to_string_lossy().contains(&format!("sample_block{block}.")) {
        return Err(format!("block_size: {block} does not fit {} and {} ids", file.display(), noisy.len()));
    }
    for (i, log_probs) in cached.rows().enumerate() {
        let standing = noisy[i];
        if standing != mask_id && standing != clean[i] {
            return Err(format!("x_noisy[{i}]: {standing}, x_clean has {}", clean[i]));
        }
        for (id, (&a, &b)) in log_probs.iter().zip(plain.row(i)).enumerate() {
            let banned = a < -1e5 && b < -1e5;
            if !banned {
                close(&format!("log_probs row {i} id {id}"), &[a], &[b], (1e-5, 0.0))?;
            }
        }
        let probs: Vec<f64> = plain.row(i).iter().map(|p| p.exp()).collect();
        close(&format!("log_probs_cached row {i} sum"), &[probs.iter().sum()], &[1.0], (1e-5, 0.0))?;
        if standing != mask_id {
            close(&format!("log_probs_cached row {i}"), &probs, &one_hot(standing, probs.len()), (1e-9, 0.0))?;
        }
        let mut filtered = probs.clone();
        cut(&mut filtered, Nucleus::Strict(limit));
        close(&format!("nucleus row {i}"), &filtered, nucleus.row(i), (1e-9, 0.0))?;
        let step = ancestral_posterior(&probs, (t - dt) / t, mask_id);
        close(&format!("ddpm_q row {i}"), &step, posterior.row(i), (1e-9, 0.0))?;
    }
    Ok(())
}

fn one_hot(id: u32, vocab: usize) -> Vec<f64> {
    (0..vocab).map(|v| f64::from(u8::from(v == id as usize))).collect()
}

/// The canvas of a trajectory: bos fixed, everything else to be drawn.
fn empty_canvas(dir: &Path, block: usize) -> Result<(Canvas, u32), String> {
    let mask_id = config(dir, "mask_id")? as u32;
    let mut canvas = Canvas::new(&[config(dir, "bos_id")? as u32], block, mask_id);
    canvas.open_next();
    Ok((canvas, mask_id))
}

/// Compares the canvas with a recorded row of ids, -1 where nothing stands yet.
fn compare_canvas(name: &str, canvas: &Canvas, expected: &[f64]) -> Check {
    let mut found: Vec<f64> = canvas.text()[..canvas.open_block().start()]
        .iter()
        .chain(canvas.open_block().ids())
        .map(|&id| f64::from(id))
        .collect();
    found.resize(expected.len(), -1.0);
    close(name, &found, expected, (0.0, 0.0))
}

/// The number of steps of a trajectory `[steps, 1, block, vocab]`.
fn one_sample(probs: &Tensor) -> Result<usize, String> {
    match probs.shape[..] {
        [steps, 1, _, _] => Ok(steps),
        _ => Err(format!("probs: shape {:?}, expected [steps, 1, block, vocab]", probs.shape)),
    }
}

/// What every recorded row must be before anything is drawn: a distribution, without the mask or with it at `stay`; certain
/// where a token stands.
fn check_rows(name: &str, probs: &Tensor, canvas: &Canvas, (mask_id, stay): (u32, f64)) -> Check {
    for (row, (probs, &standing)) in probs.rows().zip(canvas.open_block().ids()).enumerate() {
        let name = format!("{name} row {row}");
        if standing == mask_id {
            close(&name, &[probs.iter().sum(), probs[mask_id as usize]], &[1.0, stay], (1e-6, 0.0))?;
        } else {
            let expected = ancestral_posterior(&one_hot(standing, probs.len()), stay, mask_id);
            close(&name, probs, &expected, (1e-6, 0.0))?;
        }
    }
    Ok(())
}

/// `traj_first_hitting_block*.safetensors`: one position per pass, the token by exponential race.
pub fn first_hitting_trajectory(dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let (probs, uniforms, ids) = (golden.get("probs")?, golden.get("u")?, golden.get("x")?);
    let (chosen, last, times) = (golden.get("ind")?, golden.get("x_final")?, golden.get("t")?);
    let steps = one_sample(probs)?;
    let (mut canvas, mask_id) = empty_canvas(dir, probs.shape[2])?;
    let mut before = 1.0;
    for step in 0..steps {
        let (probs, uniforms) = (probs.at(step).at(0), uniforms.at(step).at(0));
        if uniforms.data.iter().any(|u| !(0.0..1.0).contains(u)) {
            return Err(format!("u[{step}]: outside of [0, 1)"));
        }
        check_rows(&format!("probs[{step}]"), &probs, &canvas, (mask_id, 0.0))?;
        let masked = canvas.open_block().masked();
        // The recorded choice is the k-th masked position; the middle of its interval is a uniform that leads to it.
        let row = first_hitting(&masked, (chosen.data[step] + 0.5) / masked.len() as f64);
        let token = exponential_race(&probs.at(row).data, &uniforms.at(row).data) as u32;
        if chosen.data[step] >= masked.len() as f64 || !fill(&mut canvas, row, token) {
            return Err(format!("ind[{step}]: {} of {} masked", chosen.data[step], masked.len()));
        }
        compare_canvas(&format!("x[{step}]"), &canvas, &ids.at(step).data)?;
        if !(times.data[step] > 0.0 && times.data[step] < before) {
            return Err(format!("t[{step}]: {}, expected less than {before}", times.data[step]));
        }
        before = times.data[step];
        if canvas.open_block().masked().is_empty() && step + 1 < steps {
            canvas.commit();
            canvas.open_next();
            before = 1.0;
        }
    }
    passes(&golden, steps)?;
    compare_canvas("x_final", &canvas, &last.data)
}

fn passes(golden: &Golden, found: usize) -> Check {
    let expected = golden.meta("nfe")?;
    if expected == found.to_string() { Ok(()) } else { Err(format!("nfe: {found}, expected {expected}")) }
}

/// `traj_ddpm_T*_block*.safetensors`: recorded posteriors. The model's probabilities are taken out of them, must be reused
/// while no token changes, and put back by our own ancestral step.
pub fn ancestral_trajectory(dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let (posteriors, uniforms, ids) = (golden.get("probs")?, golden.get("u")?, golden.get("x")?);
    let (last, times) = (golden.get("x_final")?, golden.get("t")?);
    let grid = grid(file)?;
    let steps = one_sample(posteriors)?;
    let (mut canvas, mask_id) = empty_canvas(dir, posteriors.shape[2])?;
    let (mut in_block, mut calls) = (0.0, 0);
    let mut previous: Option<Vec<f64>> = None;
    for step in 0..steps {
        // T points from 1 to 0, but a distance of 1/T: the official mismatch, harmful once t is 0.
        let t = 1.0 - in_block / (grid - 1.0);
        close(&format!("t[{step}]"), &[times.data[step]], &[t], (1e-6, 0.0))?;
        let stay = (t - 1.0 / grid) / t;
        let posterior = posteriors.at(step).at(0);
        let vocab = posterior.shape[1];
        let probs = match (&previous, t > 0.0) {
            (_, true) => {
                check_rows(&format!("probs[{step}]"), &posterior, &canvas, (mask_id, stay))?;
                let mut probs: Vec<f64> = posterior.data.iter().map(|q| q / (1.0 - stay)).collect();
                probs.chunks_mut(vocab).for_each(|row| row[mask_id as usize] = 0.0);
                probs
            }
            (Some(previous), false) => previous.clone(),
            (None, false) => return Err(format!("probs[{step}]: t is 0 and no probabilities are known")),
        };
        match &previous {
            // A posterior in f32 was divided by a probability of about 1/T.
            Some(previous) => {
                let tolerance = (1.25e-7 * grid).max(2e-6);
                close(&format!("probs[{step}], reused"), &probs, previous, (tolerance, 0.0))?;
            }
            None => calls += 1,
        }
        let before = canvas.open_block().ids().to_vec();
        for row in 0..before.len() {
            let ours = ancestral_posterior(&probs[row * vocab..(row + 1) * vocab], stay, mask_id);
            let name = format!("probs[{step}] row {row}");
            if t > 0.0 {
                close(&name, &ours, &posterior.at(row).data, (1e-6, 0.0))?;
            } else {
                // The official division by 0: infinities and NaN, of which the first infinity wins the race. Our own grid has
                // one point more and never gets here.
                same_extremes(&name, &ours, &posterior.at(row).data)?;
            }
            if before[row] != mask_id {
                continue;
            }
            let token = exponential_race(&ours, &uniforms.at(step).at(0).at(row).data) as u32;
            if token != mask_id && !fill(&mut canvas, row, token) {
                return Err(format!("x[{step}] row {row}: not masked"));
            }
        }
        previous = (canvas.open_block().ids() == before).then_some(probs);
        compare_canvas(&format!("x[{step}]"), &canvas, &ids.at(step).data)?;
        in_block += 1.0;
        if canvas.open_block().masked().is_empty() && step + 1 < steps {
            canvas.commit();
            canvas.open_next();
            (in_block, previous) = (0.0, None);
        }
    }
    passes(&golden, calls)?;
    compare_canvas("x_final", &canvas, &last.data)
}

/// T, from the file's name.
fn grid(file: &Path) -> Result<f64, String> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let steps = name.strip_prefix("traj_ddpm_T").and_then(|rest| rest.split('_').next());
    steps.and_then(|steps| steps.parse().ok()).ok_or(format!("{name}: no number of steps"))
}

fn same_extremes(name: &str, found: &[f64], expected: &[f64]) -> Check {
    let same = |(f, e): (&f64, &f64)| f == e || f.is_nan() && e.is_nan();
    if found.iter().zip(expected).all(same) { Ok(()) } else { Err(format!("{name}: {found:?}, expected {expected:?}")) }
}

/// `stop_conditions.json`: texts, whether they stop, and where they are cut.
pub fn stop_conditions(dir: &Path, file: &Path) -> Check {
    let eos = config(dir, "eos_id")? as u32;
    for case in json(file)?.as_array().ok_or("no array")? {
        let variable = case["var_length"].as_bool().ok_or("no `var_length`")?;
        let extent = if variable { Extent::Variable } else { Extent::Fixed };
        let name = format!("{} ({extent:?})", case["name"]);
        let text: Vec<u32> =
            case["x"].as_array().into_iter().flatten().filter_map(|x| Some(x.as_u64()? as u32)).collect();
        let found = judge(&text, eos, extent);
        let number = |key: &str| case[key].as_f64().ok_or(format!("{name}: no `{key}`"));
        close(&format!("{name} entropy"), &[found.entropy], &[number("entropy_last256")?], (1e-5, 0.0))?;
        close(&format!("{name} out_len"), &[found.keep as f64], &[number("out_len")?], (0.0, 0.0))?;
        if Some(found.stop) != case["stop"].as_bool() {
            return Err(format!("{name}: stop {}, expected {}", found.stop, case["stop"]));
        }
    }
    Ok(())
}

/// The noise of SEDD's denoising step: that of the t in its tensor's name, in f32, where 1 - 1e-5 keeps three digits of the
/// 1e-5.
pub fn last_sigma(golden: &Golden) -> Result<f32, String> {
    let (_, [t]) = golden.labelled("denoiser_probs_")?;
    Ok(-(1.0 - t as f32).ln())
}

/// `sedd.safetensors`. The recorded log scores belong to the denoising step. Those at the recorded t are read back
/// from the analytic step's weights of all tokens but the mask; the mask's weight and the bound must then follow.
pub fn sedd(dir: &Path, file: &Path) -> Check {
    let golden = Golden::read(file)?;
    let mask_id = config(dir, "mask_id")? as u32;
    let (clean, noisy) = (golden.get("x0")?, golden.get("xt")?);
    let ((analytic, [dt]), (denoised, [_])) =
        (golden.labelled("analytic_probs_")?, golden.labelled("denoiser_probs_")?);
    let log_score = golden.get("log_score")?;
    let last_sigma = f64::from(last_sigma(&golden)?);
    for b in 0..clean.shape[0] {
        let t = golden.get("t")?.data[b];
        let now = sigma(Schedule::LogLinear.mask_prob(t));
        close(&format!("sigma[{b}]"), &[now], &[golden.get("sigma")?.data[b]], (1e-6, 0.0))?;
        let dsigma = now - sigma(Schedule::LogLinear.mask_prob(t - dt));
        for i in 0..clean.shape[1] {
            let (name, standing, token) = (format!("[{b}][{i}]"), noisy.at(b).ids()[i], clean.at(b).ids()[i]);
            let score = log_score.at(b).at(i).data;
            let found = denoiser_probs(&score, standing, last_sigma, mask_id);
            close(&format!("denoiser_probs{name}"), &found, &denoised.at(b).at(i).data, (1e-6, 1e-4))?;
            if standing != mask_id && standing != token {
                return Err(format!("xt{name}: {standing}, x0 has {token}"));
            }
            let weights = analytic.at(b).at(i).data;
            let mut score: Vec<f64> = weights.iter().map(|w| (w / dsigma.exp_m1()).ln()).collect();
            if standing != mask_id {
                score = vec![0.0; weights.len()];
            }
            score[mask_id as usize] = 0.0;
            let found = analytic_probs(&score, standing, dsigma, mask_id);
            close(&format!("analytic_probs{name}"), &found, &weights, (2e-6, 0.0))?;
        }
    }
    Ok(())
}

/// Puts a token into a masked row; false where there is none.
fn fill(canvas: &mut Canvas, row: usize, token: u32) -> bool {
    let change = Change { row, kind: EditKind::Fill, token, why: Why::Rule };
    canvas.open_block_mut().change(change, 0.0).is_ok()
}
