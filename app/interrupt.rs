//! Ctrl-C, and a request to terminate: the first asks the running command to finish early, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit code after the second: what was being made is not whole.
const FAILED: i32 = 1;

/// From now on [`asked`] tells. Commands that don't ask are not slowed down: they never call this.
pub fn watch() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(FAILED);
        }
    })?;
    Ok(())
}

/// True once the user has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
