//! Traces of the loop that inserts and deletes (LLaDA2.2).

use bd3::pass::Proposal;
use bd3::sample::revise::indel::{Indel, Outcome, State, apply};

use super::traces::Trace;

/// Compares every step; returns how many there are.
pub fn check(trace: &Trace) -> Result<usize, String> {
    let path = trace.golden.path.display();
    let id = |key: &str| trace.json[key].as_u64().map(|id| id as u32).ok_or(format!("{path}: no `{key}`"));
    let indel = Indel {
        mask: id("mask_id")?,
        delete: id("delete_id")?,
        split: id("split_id")?,
        threshold: trace.setting("threshold")?,
        edit: trace.setting("edit_threshold")?,
        passes: trace.count("max_post_edit_steps")?,
    };
    let steps = trace.golden.get("block_before")?.shape[0];
    let blocks = &trace.golden.get("block")?.data;
    let mut state = State::new(&[], indel.mask);
    for step in 0..steps {
        let before: Vec<u32> = trace.row("block_before", step)?.iter().map(|&id| id as u32).collect();
        if step == 0 || blocks[step] != blocks[step - 1] {
            state = State::new(&before, indel.mask);
        }
        let last = step + 1 == steps || blocks[step + 1] != blocks[step];
        one(trace, step, (&indel, &before), (&mut state, last)).map_err(|e| format!("{path}, step {step}: {e}"))?;
    }
    Ok(steps)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, recorded: &T) -> Result<(), String> {
    if ours == recorded { Ok(()) } else { Err(format!("{what}: ours {ours:?}, recorded {recorded:?}")) }
}

fn one(
    trace: &Trace,
    step: usize,
    (indel, before): (&Indel, &[u32]),
    (state, last): (&mut State, bool),
) -> Result<(), String> {
    let (argmax, prob) = (trace.row("argmax", step)?, trace.numbers("prob", step)?);
    let written = trace.row("written", step)?;
    let number = |key: &str| Ok::<_, String>(trace.golden.get(key)?.data[step] as i64);
    // What was written instead of the most probable token stands for the best alternative; when it is taken, is ours to decide.
    let proposal = |row: usize| Proposal {
        row,
        token: argmax[row] as u32,
        raw_prob: prob[row],
        prob: prob[row],
        entropy: 0.0,
        runner_up: if written[row] >= 0 { (written[row] as u32, prob[row] / 2.0) } else { (u32::MAX, 0.0) },
        standing: 0.0,
        alternatives: Vec::new(),
        classes: Vec::new(),
    };
    let proposals: Vec<Proposal> = (0..before.len()).map(proposal).collect();
    same("given rows", &(state.given as i64), &number("prompt_len_in_block")?)?;
    let flags = |key| Ok::<_, String>(trace.numbers(key, step)?.iter().map(|&x| x != 0.0).collect::<Vec<bool>>());
    same("original masks before", &state.original, &flags("original_mask_before")?)?;
    let outcome = indel.pass(before, &proposals, state);
    let settled = outcome == Outcome::Settled;
    let (changes, cleanup) = match outcome {
        Outcome::Settled => (Vec::new(), false),
        Outcome::Goes(changes) => (changes, false),
        Outcome::Cleanup(changes) => (changes, true),
    };
    same("the last pass", &cleanup, &(number("final_cleanup")? != 0))?;
    let turned: Vec<usize> =
        changes.iter().filter(|change| change.why == bd3::event::Why::Loop).map(|change| change.row).collect();
    same("rows turned", &turned, &Vec::from_iter(usize::try_from(number("anti_loop_position")?)))?;
    let mut block = before.to_vec();
    changes.into_iter().for_each(|change| apply(&mut block, change, indel.mask));
    let after: Vec<u32> = trace.row("block_after", step)?.iter().map(|&id| id as u32).collect();
    same("block", &block, &after)?;
    same("original masks after", &state.original, &flags("original_mask_after")?)?;
    same("passes without an original mask", &(state.post as i64), &number("post_edit_steps")?)?;
    same("passes", &(state.updates as i64), &number("num_update_steps")?)?;
    let idle = trace.marked("mask_transfer", step)?.is_empty() && trace.marked("edit_transfer", step)?.is_empty();
    same("nothing left to do", &settled, &idle)?;
    if !last && (cleanup || settled) {
        return Err("the block goes on after its end".into());
    }
    Ok(())
}
