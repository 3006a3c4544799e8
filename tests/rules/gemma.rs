//! Traces of the loop that starts from uniform noise (DiffusionGemma).

use bd3::pass::Proposal;
use bd3::sample::revise::renoise::{Rest, renoise, temperature};
use bd3::sample::rule::entropy_bound;

use super::traces::Trace;

/// Compares every step; returns how many there are.
pub fn check(trace: &Trace) -> Result<usize, String> {
    let steps = trace.golden.get("canvas_before")?.shape[0];
    let mut past = Vec::new();
    for step in 0..steps {
        if step > 0 && number(trace, "block", step)? != number(trace, "block", step - 1)? {
            past.clear();
        }
        one(trace, step, &mut past).map_err(|e| format!("{}, step {step}: {e}", trace.golden.path.display()))?;
    }
    Ok(steps)
}

fn number(trace: &Trace, key: &str, step: usize) -> Result<f64, String> {
    Ok(trace.golden.get(key)?.data[step])
}

fn one(trace: &Trace, step: usize, past: &mut Vec<Vec<u32>>) -> Result<(), String> {
    let ids = |key| Ok::<_, String>(trace.row(key, step)?.iter().map(|&id| id as u32).collect::<Vec<u32>>());
    let (before, after, draw) = (ids("canvas_before")?, ids("canvas_after")?, ids("denoiser_draw")?);
    let entropy = trace.numbers("entropy", step)?;
    let proposal = |row: usize| Proposal {
        row,
        token: draw[row],
        raw_prob: 0.0,
        prob: 0.0,
        entropy: entropy[row],
        runner_up: (u32::MAX, 0.0),
        standing: 0.0,
        alternatives: Vec::new(),
        classes: Vec::new(),
    };
    let proposals: Vec<Proposal> = (0..before.len()).map(proposal).collect();
    let bound = trace.setting("entropy_bound")?;
    let (ours, recorded) = (entropy_bound(&proposals, bound), trace.marked("accepted", step)?);
    if ours != recorded {
        return Err(format!("accepted rows: ours {ours:?}, recorded {recorded:?}"));
    }
    let mut canvas = before.clone();
    for change in renoise(&before, &proposals, bound, &ids("renoise_draw")?) {
        canvas[change.row] = change.token;
    }
    if canvas != after {
        return Err(format!("canvas: ours {canvas:?}, recorded {after:?}"));
    }
    let range = (trace.setting("t_min")?, trace.setting("t_max")?);
    let ours = temperature(range, number(trace, "cur_step", step)? as usize, trace.count("max_denoising_steps")?);
    let recorded = number(trace, "temperature", step)?;
    if (ours - recorded).abs() > 1e-6 {
        return Err(format!("temperature: ours {ours}, recorded {recorded}"));
    }
    let rest = Rest { stable: trace.count("stability_threshold")?, entropy: trace.setting("confidence_threshold")? };
    let mean = entropy.iter().sum::<f64>() / entropy.len() as f64;
    let (ours, recorded) = (rest.settled(&ids("argmax")?, mean, past), number(trace, "stop", step)? != 0.0);
    if ours != recorded {
        return Err(format!("at rest: ours {ours}, recorded {recorded}"));
    }
    Ok(())
}
