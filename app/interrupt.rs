//! Ctrl-C, and a request to terminate: the first asks the running command to finish early, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// The same while the whole screen is drawn. There Ctrl-C is a key, and a signal means that the terminal may be gone: then waiting for
/// keys may never end (crossterm reads a closed terminal again and again), so that the program ends by itself a little later.
pub fn watch_screen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        ASKED.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        std::process::exit(FAILED);
    })?;
    Ok(())
}

/// Time to leave the screen in order.
const GRACE: Duration = Duration::from_secs(1);

/// True once the user has asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
