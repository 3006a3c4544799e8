//! The folder of a run, looked at before anything is written: new or empty, one with the state of a run of this recipe, or what a run
//! left that ended before its first state. Anything else is somebody's, and stays as it is.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::data::build::check_out;
use crate::error::{Error, Result};
use crate::recipe::Recipe;

use super::log::StepRow;
use super::state;

/// Bytes of a log's first line, at most.
const LINE: u64 = 1 << 12;

/// Refuses a folder that a run of this recipe may not be started or resumed in. Writes nothing.
///
/// # Errors
/// A folder with other things in it; the state of a run of another recipe (see [`state::check_recipe`]), or one that can't be read.
pub fn check(dir: &Path, recipe: &Recipe) -> Result<()> {
    if state::path(dir).exists() {
        return state::check_recipe(dir, &state::progress(dir)?.recipe, recipe);
    }
    let Err(refusal) = check_out(dir) else { return Ok(()) };
    if dir.is_symlink() || !dir.is_dir() {
        return Err(refusal);
    }
    // State is written before the model, so that a model without one is no leftover of a crash.
    if dir.join("model").exists() {
        return Err(Error::file(state::path(dir), "the state of the run whose model is beside it", "no such file"));
    }
    match foreign(dir)? {
        None => Ok(()),
        Some(name) => Err(Error::file(dir, "a new or empty folder, or that of a run", format!("`{name}` in it"))),
    }
}

/// True where `--resume` would find a run: one with a state, or what was left of one that ended before.
pub fn holds_a_run(dir: &Path) -> bool {
    state::path(dir).exists() || check_out(dir).is_err() && foreign(dir).is_ok_and(|name| name.is_none())
}

/// The first name in a folder that no run without a state has in its own.
fn foreign(dir: &Path) -> Result<Option<String>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = read().map_err(|e| Error::io(dir, e))?;
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let name = name.to_string_lossy().into_owned();
        let toy = name.contains("toy-") && name.contains("-seed-") && !path.is_symlink() && path.is_dir();
        let ours = match name.as_str() {
            "lock" => fs::metadata(&path).is_ok_and(|lock| lock.is_file() && lock.len() == 0),
            "log.jsonl" => dir.join("lock").exists() && is_log(&path),
            // Before the first state stands, a part of it may.
            "state" => fs::read_dir(&path).is_ok_and(|parts| {
                parts.flatten().all(|part| part.file_name().to_string_lossy() == "state.safetensors.tmp")
            }),
            name if name.starts_with(".toy-") => toy && name.ends_with(".tmp"),
            _ => toy && path.join("tokenizer.json").exists(),
        };
        if !ours {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// True for a log that is empty or begins with a step, which a crash may have cut short.
fn is_log(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let mut line = Vec::new();
    match BufReader::new(file.take(LINE)).read_until(b'\n', &mut line) {
        Ok(_) if line.ends_with(b"\n") => serde_json::from_slice::<StepRow>(&line).is_ok(),
        Ok(_) => b"{\"step\":".starts_with(&line) || line.starts_with(b"{\"step\":"),
        Err(_) => false,
    }
}
