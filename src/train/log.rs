//! The run's log, JSON lines: what each step and each validation said.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::write_atomic;

use super::clips::Found;

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Steps done.
    pub step: u64,
    /// Text tokens seen.
    pub tokens: u64,
    /// The training loss, nats per token (with weights, so not a bound of anything under a clip interval).
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Text tokens per second.
    pub tokens_per_second: f64,
    /// Block size of the step.
    pub block: usize,
}

/// The validation of one block size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRow {
    /// Steps done.
    pub step: u64,
    /// Block size.
    pub block: usize,
    /// The bound in nats per token.
    pub nats: f64,
    /// Its standard error, by rows.
    pub stderr: f64,
    /// `exp(nats)`.
    pub perplexity: f64,
    /// Which source of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<usize>,
}

/// An open log.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run that has done `step` steps and was measured after `measured` of them: what stands there beyond them is cut
    /// off, and the resumption noted.
    ///
    /// # Errors
    /// A log that can't be read or written.
    pub fn open(path: &Path, step: u64, measured: u64) -> Result<Self> {
        if step > 0 && path.exists() {
            cut_back(path, step, measured)?;
        }
        let file = OpenOptions::new().create(true).append(step > 0).write(true).truncate(step == 0).open(path);
        let mut log = Self { path: path.into(), file: file.map_err(|e| Error::io(path, e))? };
        if step > 0 {
            log.line(&json!({ "resumed": step }))?;
        }
        Ok(log)
    }

    /// Notes a step.
    ///
    /// # Errors
    /// A log that can't be written.
    pub fn step(&mut self, row: &StepRow) -> Result<()> {
        self.line(row)
    }

    /// Notes a validation.
    ///
    /// # Errors
    /// As [`Log::step`].
    pub fn validation(&mut self, row: &ValidationRow) -> Result<()> {
        self.line(row)
    }

    /// Notes a clip search.
    ///
    /// # Errors
    /// As [`Log::step`].
    pub fn clip(&mut self, step: u64, found: &Found) -> Result<()> {
        let clip = [found.clip.beta(), found.clip.omega()];
        let (variance, unclipped) = (found.variance, found.unclipped);
        self.line(
            &json!({"step": step, "block": found.size, "clip": clip, "variance": variance, "unclipped": unclipped}),
        )
    }

    fn line(&mut self, row: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(row).map_err(|e| Error::Run(e.to_string()))?;
        writeln!(self.file, "{text}").map_err(|e| Error::io(&self.path, e))
    }
}

fn cut_back(path: &Path, step: u64, measured: u64) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut kept = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|e| Error::io(path, e))?;
        // A line that a crash cut short is not JSON, and is beyond the last checkpoint anyway.
        let Ok(row) = serde_json::from_slice::<Value>(&line) else { continue };
        let of_training = row.get("loss").or_else(|| row.get("resumed")).is_some();
        let at = row["step"].as_u64().or_else(|| row["resumed"].as_u64());
        if at.is_some_and(|at| at <= if of_training { step } else { measured }) {
            kept.push(line);
        }
    }
    write_atomic(path, |out| kept.iter().try_for_each(|line| out.write_all(line).and_then(|()| out.write_all(b"\n"))))
}
