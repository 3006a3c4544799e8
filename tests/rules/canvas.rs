//! Traces of loops that fill a canvas of masks, window by window.

use bd3::pass::Proposal;
use bd3::rng::Rng;
use bd3::sample::revise::edit::{Edited, Editing, edits};
use bd3::sample::rule::{Clock, Rule, Split, dream_times, leave};
use serde_json::Value;

use super::traces::Trace;

/// How a recorded loop decides.
enum Loop {
    Rule(Rule),
    /// A rule, and edits of what is known.
    Edits(Rule, Editing),
    /// Dream's `origin`: every mask for itself, with recorded draws.
    Grid {
        steps: usize,
    },
}

/// The rule that the recorded loop uses, with its numbers.
fn of(trace: &Trace) -> Result<Loop, String> {
    let share = |total: &str, block: usize, steps: usize| -> Result<usize, String> {
        Ok(steps.div_ceil(trace.count(total)?.div_ceil(block)))
    };
    let even = Split::Even;
    Ok(Loop::Rule(match (trace.text("sampler"), trace.text("loop"), trace.text("family")) {
        ("BD3LMSampler" | "MDLMSampler", ..) => {
            let steps = trace.count("steps_per_block");
            let steps =
                steps.or_else(|_| share("max_new_tokens", trace.count("block_size")?, trace.count("steps")?))?;
            Rule::Confidence { steps, split: Split::Linear }
        }
        (_, "LLaDA generate.py", _) => {
            let steps = share("gen_length", trace.count("block_length")?, trace.count("steps")?)?;
            Rule::Confidence { steps, split: even }
        }
        (_, "Fast-dLLM generate (no cache)", _) => Rule::Threshold { threshold: trace.setting("threshold")? },
        (_, "DreamGenerationMixin._sample", _) => return dream(trace),
        (_, "Fast_dLLM_QwenForCausalLM.generate", _) => {
            let steps = trace.json["block_size"].as_u64().ok_or("no block size")? as usize;
            Rule::Dynamic { threshold: trace.setting("threshold")?, steps, split: even }
        }
        (_, "LLaDA2MoeModelLM.generate 2.0", _) => {
            // A threshold above 1 is how this loop spells that none is ever reached; a probability is not above 1 either.
            let (threshold, steps) = (trace.setting("threshold")?.min(1.0), trace.count("steps")?);
            Rule::Dynamic { threshold, steps: steps.min(trace.count("gen_length")?), split: Split::Block }
        }
        (_, "LLaDA2MoeModelLM.generate 2.1", _) => {
            let (threshold, steps) = (trace.setting("threshold")?, trace.count("block_length")?);
            let rule = Rule::Dynamic { threshold, steps, split: even };
            let editing =
                Editing { threshold: trace.setting("editing_threshold")?, passes: trace.count("max_post_steps")? };
            return Ok(Loop::Edits(rule, editing));
        }
        (_, "generate, causal_context=True", _) => match trace.setting("threshold") {
            Ok(threshold) => Rule::Threshold { threshold },
            Err(_) => Rule::Confidence { steps: trace.count("block")?, split: even },
        },
        (_, "WeDLMForCausalLM.generate_wedlm", _) => match trace.setting("confidence_threshold")? {
            0.0 => Rule::Confidence { steps: trace.count("block_size")?, split: even },
            threshold => Rule::Threshold { threshold },
        },
        (_, _, "sdar") => sdar(trace)?,
        (sampler, name, family) => return Err(format!("unknown loop `{sampler}{name}` of `{family}`")),
    }))
}

fn dream(trace: &Trace) -> Result<Loop, String> {
    let (steps, split) = (trace.count("steps")?, Split::Dream);
    if trace.json["eps"].as_f64() != Some(0.001) {
        return Err(format!("a grid that ends at 0.001 expected, found {}", trace.json["eps"]));
    }
    Ok(match trace.json["settings"]["alg"].as_str() {
        Some("entropy") => Loop::Rule(Rule::Entropy { steps, split }),
        Some("maskgit_plus") => Loop::Rule(Rule::Confidence { steps, split }),
        Some("topk_margin") => Loop::Rule(Rule::Margin { steps, split }),
        Some("origin") => Loop::Grid { steps },
        other => return Err(format!("unknown rule {other:?}")),
    })
}

fn sdar(trace: &Trace) -> Result<Rule, String> {
    let (steps, split) = (trace.count("denoising_steps")?, Split::Block);
    Ok(match trace.json["settings"]["remasking_strategy"].as_str() {
        Some("low_confidence_static") => Rule::Confidence { steps, split },
        Some("low_confidence_dynamic") => {
            Rule::Dynamic { threshold: trace.setting("confidence_threshold")?, steps, split }
        }
        Some("sequential") => Rule::LeftToRight { steps, split },
        other => return Err(format!("unknown rule {other:?}")),
    })
}

/// Compares every step; returns how many there are.
pub fn check(trace: &Trace) -> Result<usize, String> {
    let path = trace.golden.path.display().to_string();
    let how = of(trace).map_err(|e| format!("{path}: {e}"))?;
    let steps = trace.golden.get("canvas_before")?.shape[0];
    let rows = (0..steps).map(|step| Step::read(trace, step)).collect::<Result<Vec<_>, _>>()?;
    let (mut clock, mut edited) = (Clock::default(), Edited::default());
    for (step, row) in rows.iter().enumerate() {
        if step == 0 || row.window != rows[step - 1].window {
            clock = Clock::new(row.open.len()).of_block((row.window[1] - row.window[0]) as usize);
            edited = Edited::default();
        }
        let last = rows.get(step + 1).is_none_or(|next| next.window != row.window);
        let checked = row.check(&how, &mut clock).and_then(|()| match how {
            // A loop that ends early for an end of text ends its last block early.
            Loop::Edits(_, editing) => row.ends(edited.done(row.open.len(), row.edited.len(), editing), last),
            _ => Ok(()),
        });
        checked.map_err(|e| format!("{path}, step {step}: {e}"))?;
    }
    Ok(steps)
}

/// One recorded pass.
struct Step {
    window: Vec<i64>,
    before: Vec<i64>,
    after: Vec<i64>,
    open: Vec<usize>,
    committed: Vec<usize>,
    edited: Vec<usize>,
    /// Positions that were given.
    given: usize,
    /// An end of text among the tokens after them ends the run.
    stopped: bool,
    proposals: Vec<Proposal>,
    uniforms: Option<Vec<f64>>,
    mask: i64,
}

impl Step {
    fn read(trace: &Trace, step: usize) -> Result<Self, String> {
        let (argmax, prob) = (trace.row("argmax", step)?, trace.numbers("prob", step)?);
        let confidence = trace.numbers("confidence", step)?;
        let proposal = |row: usize| Proposal {
            row,
            token: argmax[row] as u32,
            // The score itself, as far as it is one of these: each rule reads one of them only.
            raw_prob: if trace.json["settings"]["alg"] == "topk_margin" { prob[row] } else { confidence[row] },
            prob: 1.0,
            entropy: -confidence[row],
            runner_up: (u32::MAX, prob[row] - confidence[row]),
            standing: 0.0,
            alternatives: Vec::new(),
            classes: Vec::new(),
        };
        let given = trace.json["prompt_ids"].as_array().map_or(0, Vec::len);
        let after = trace.row("canvas_after", step)?;
        let eos = trace.json["eos_id"].as_i64();
        let stopped =
            trace.json["settings"]["eos_early_stop"] == true && after.iter().skip(given).any(|&id| Some(id) == eos);
        Ok(Self {
            window: trace.row("window", step)?,
            before: trace.row("canvas_before", step)?,
            after,
            open: trace.marked("open", step)?,
            committed: trace.marked("committed", step)?,
            edited: trace.marked("edited", step)?,
            given,
            stopped,
            proposals: (0..argmax.len()).map(proposal).collect(),
            uniforms: if trace.has("uniform") { Some(trace.numbers("uniform", step)?) } else { None },
            mask: trace.json["mask_id"].as_i64().ok_or("no mask id")?,
        })
    }

    fn check(&self, how: &Loop, clock: &mut Clock) -> Result<(), String> {
        let inside = |&row: &usize| (self.window[0]..self.window[1]).contains(&(row as i64));
        let masked: Vec<usize> =
            (0..self.before.len()).filter(inside).filter(|&r| self.before[r] == self.mask).collect();
        same("masked positions", &masked, &self.open)?;
        let rows = match *how {
            _ if masked.is_empty() => Vec::new(),
            Loop::Grid { steps } => self.freed(steps, &masked, clock)?,
            Loop::Rule(rule) | Loop::Edits(rule, _) => self.accepted(rule, &masked, clock),
        };
        same("committed positions", &rows, &self.committed)?;
        let edits = match *how {
            Loop::Edits(_, editing) => self.edits(editing),
            _ => Vec::new(),
        };
        same("edited positions", &edits, &self.edited)?;
        for (row, (&before, &after)) in self.before.iter().zip(&self.after).enumerate() {
            let expected =
                if rows.contains(&row) || edits.contains(&row) { i64::from(self.proposals[row].token) } else { before };
            if expected != after {
                return Err(format!("position {row}: {expected} expected, found {after}"));
            }
        }
        Ok(())
    }

    fn freed(&self, steps: usize, masked: &[usize], clock: &mut Clock) -> Result<Vec<usize>, String> {
        let uniforms = self.uniforms.as_ref().ok_or("no draws")?;
        let (t, s) = dream_times(steps, clock.step);
        clock.step += 1;
        let stay = if clock.step == steps { 0.0 } else { f64::from(s / t) };
        let mut draws = masked.iter().map(|&row| 1.0 - uniforms[row]);
        Ok(leave(masked, stay, || draws.next().unwrap()))
    }

    fn edits(&self, editing: Editing) -> Vec<usize> {
        let ids: Vec<u32> = self.before.iter().map(|&id| id as u32).collect();
        let known = |p: &&Proposal| {
            let (row, window) = (p.row as i64, &self.window);
            p.row >= self.given && self.before[p.row] != self.mask && (window[0]..window[1]).contains(&row)
        };
        let known: Vec<Proposal> = self.proposals.iter().filter(known).cloned().collect();
        edits(&ids, &known, editing.threshold).iter().map(|change| change.row).collect()
    }

    fn ends(&self, ours: bool, recorded: bool) -> Result<(), String> {
        if ours == recorded || (recorded && self.stopped) {
            return Ok(());
        }
        Err(format!("is the block final? ours {ours}, recorded {recorded}"))
    }

    fn accepted(&self, rule: Rule, masked: &[usize], clock: &mut Clock) -> Vec<usize> {
        // A step without a share is recorded, and skipped by the rule, since it would see the same canvas again.
        if let Rule::Entropy { steps, split } | Rule::Confidence { steps, split } | Rule::Margin { steps, split } = rule
            && split.quota((clock.block, clock.masks, masked.len()), steps, clock.step) == 0
        {
            clock.step += 1;
            return Vec::new();
        }
        let rows = rule.rows(masked, clock, &mut Rng::new(0));
        let proposals: Vec<Proposal> = rows.iter().map(|&row| self.proposals[row].clone()).collect();
        rule.accept(&proposals, clock).iter().map(|accepted| accepted.row).collect()
    }
}

fn same(what: &str, ours: &[usize], theirs: &[usize]) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: ours {ours:?}, recorded {theirs:?}")) }
}

/// Values of a JSON array as counts.
pub fn counts(value: &Value) -> Vec<usize> {
    value.as_array().into_iter().flatten().map(|x| x.as_u64().unwrap() as usize).collect()
}
