//! The folder of a run, looked at before anything is written: new or empty, one with the state of a run of this recipe, or what a run
//! left that ended before its first state. Anything else is somebody's, and stays as it is. Whoever writes into it holds it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::data::build::check_out;
use crate::error::{Error, Result};
use crate::recipe::Recipe;

use super::log::StepRow;
use super::state;

/// Bytes of a log's first line, at most.
const LINE: u64 = 1 << 12;
/// The file whose lock is held.
const LOCK: &str = "lock";

/// A run's folder that no other process writes into until this is dropped. Unless it is kept, what was made in a new or empty one
/// is then taken away.
#[derive(Debug)]
pub struct Hold {
    dir: PathBuf,
    /// The folder and those above it, as far as they were made for this run; the deepest first.
    made: Vec<PathBuf>,
    fresh: bool,
    kept: bool,
    _lock: File,
}

impl Hold {
    /// Takes the folder of a run of this recipe, which is made if need be.
    ///
    /// # Errors
    /// As [`check`]; another run at work in it; a folder that can't be written.
    pub fn take(dir: &Path, recipe: &Recipe) -> Result<Self> {
        check(dir, recipe)?;
        let missing = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let made = missing.map(Path::to_path_buf).collect();
        let lock = lock(dir)?;
        // Another run may have come and gone since; one that comes beside this has made no more than the lock.
        check(dir, recipe)?;
        let fresh = names(dir)?.iter().all(|name| name == LOCK);
        Ok(Self { dir: dir.into(), made, fresh, kept: false, _lock: lock })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// True where the folder was new, or had nothing but a lock in it, when it was taken.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// From here on a run stands in the folder, and what is in it stays.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.kept || !self.fresh {
            return;
        }
        // What can't be removed stays; something else has already gone wrong and is being told. The lock goes last, since the next run
        // may begin without it, and folders only if they are empty, since somebody may have put something there.
        for name in names(&self.dir).unwrap_or_default().iter().filter(|name| *name != LOCK && is_ours(&self.dir, name))
        {
            let path = self.dir.join(name);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let _ = fs::remove_file(self.dir.join(LOCK));
        for dir in &self.made {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Takes the lock of a run's folder, which is made if need be.
fn lock(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let path = dir.join(LOCK);
    let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
    match file.try_lock() {
        Ok(()) if stands(&file) => Ok(file),
        Ok(()) | Err(TryLockError::WouldBlock) => {
            Err(Error::file(dir, "a folder that no run is at work in", "a run at work"))
        }
        Err(TryLockError::Error(e)) => Err(Error::io(&path, e)),
    }
}

/// False for a lock that was taken away, by a run that was refused, between being opened and being locked: it guards nothing.
fn stands(lock: &File) -> bool {
    #[cfg(unix)]
    return lock.metadata().is_ok_and(|lock| std::os::unix::fs::MetadataExt::nlink(&lock) > 0);
    #[cfg(not(unix))]
    return lock.metadata().is_ok();
}

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

/// What is in a folder, by name.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    let mut names = read().map_err(|e| Error::io(dir, e))?;
    names.sort();
    Ok(names)
}

/// The first name in a folder that no run without a state has in its own.
fn foreign(dir: &Path) -> Result<Option<String>> {
    Ok(names(dir)?.iter().find(|name| !is_ours(dir, name)).map(|name| name.to_string_lossy().into_owned()))
}

/// True for a name in a folder that a run without a state has in its own.
fn is_ours(dir: &Path, name: &OsStr) -> bool {
    let path = dir.join(name);
    let name = name.to_string_lossy();
    let toy = name.contains("toy-") && name.contains("-seed-") && !path.is_symlink() && path.is_dir();
    match &*name {
        LOCK => fs::metadata(&path).is_ok_and(|lock| lock.is_file() && lock.len() == 0),
        "log.jsonl" => dir.join(LOCK).exists() && is_log(&path),
        // Before the first state stands, a part of it may.
        "state" => fs::read_dir(&path).is_ok_and(|parts| {
            parts.flatten().all(|part| part.file_name().to_string_lossy() == "state.safetensors.tmp")
        }),
        name if name.starts_with(".toy-") => toy && name.ends_with(".tmp"),
        _ => toy && path.join("tokenizer.json").exists(),
    }
}

/// True for a log that is empty or begins with a step, which a crash may have cut short.
fn is_log(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut line = Vec::new();
    match BufReader::new(file.take(LINE)).read_until(b'\n', &mut line) {
        Ok(_) if line.ends_with(b"\n") => serde_json::from_slice::<StepRow>(&line).is_ok(),
        Ok(_) => b"{\"step\":".starts_with(&line) || line.starts_with(b"{\"step\":"),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let text = "data = { toy = 60, tokenizer = 'bytes' }\nmodel = { hidden = 8, layers = 1, heads = 2, length = 16 }\n\
                    blocks = { sizes = [{ size = 4 }] }\ntrain = { steps = 3, batch = 2 }";
        Recipe::parse(Path::new("r.toml"), text, &[]).unwrap()
    }

    #[test]
    fn a_run_that_comes_second_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/one");
        let first = Hold::take(&run, &recipe()).unwrap();
        fs::create_dir(run.join("toy-60-bytes-seed-0")).unwrap();
        fs::write(run.join("toy-60-bytes-seed-0/tokenizer.json"), "{}").unwrap();
        fs::write(run.join("log.jsonl"), "").unwrap();
        let refusal = Hold::take(&run, &recipe()).unwrap_err().to_string();
        assert!(refusal.contains("a run at work"), "{refusal}");
        assert_eq!(names(&run).unwrap().len(), 3);
        assert!(first.is_fresh());
        // The first one is not kept: what it made goes, and the folders with it.
        drop(first);
        assert!(!dir.path().join("runs").exists());
    }

    #[test]
    fn what_was_there_before_or_is_kept_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("one");
        fs::create_dir(&run).unwrap();
        drop(Hold::take(&run, &recipe()).unwrap());
        assert_eq!(names(&run).unwrap().len(), 0, "an empty folder is there again");
        let hold = Hold::take(&run, &recipe()).unwrap();
        fs::write(run.join("notes.txt"), "mine").unwrap();
        drop(hold);
        assert_eq!(names(&run).unwrap(), ["notes.txt"]);
        fs::remove_file(run.join("notes.txt")).unwrap();
        let mut kept = Hold::take(&run, &recipe()).unwrap();
        fs::write(run.join("log.jsonl"), "").unwrap();
        kept.keep();
        drop(kept);
        let hold = Hold::take(&run, &recipe()).unwrap();
        assert!(!hold.is_fresh());
        drop(hold);
        assert_eq!(names(&run).unwrap(), ["lock", "log.jsonl"]);
    }
}
