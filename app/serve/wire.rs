//! From the model's thread to an answer: a channel that never holds up the model, and that says when its reader is so far behind that
//! the model should go on with others first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes that may wait, about; text alone never comes to so many.
const MOST: usize = 4 << 20;

/// The end that tells.
pub struct Teller<T> {
    to: UnboundedSender<(T, usize)>,
    behind: Arc<AtomicUsize>,
}

/// The end that hears.
pub struct Hearer<T> {
    from: UnboundedReceiver<(T, usize)>,
    behind: Arc<AtomicUsize>,
}

/// Both ends.
pub fn wire<T>() -> (Teller<T>, Hearer<T>) {
    let (to, from) = unbounded_channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (Teller { to, behind: behind.clone() }, Hearer { from, behind })
}

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), behind: self.behind.clone() }
    }
}

impl<T> Teller<T> {
    /// Tells what takes so many bytes, about; false where nobody hears any more.
    pub fn tell(&self, message: T, bytes: usize) -> bool {
        self.behind.fetch_add(bytes, Ordering::Relaxed);
        self.to.send((message, bytes)).is_ok()
    }

    /// Nobody hears any more.
    pub fn is_closed(&self) -> bool {
        self.to.is_closed()
    }

    /// Its reader has much to catch up with.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed) >= MOST
    }
}

impl<T> Hearer<T> {
    /// The next message; none where nobody tells any more.
    pub async fn hear(&mut self) -> Option<T> {
        let (message, bytes) = self.from.recv().await?;
        self.behind.fetch_sub(bytes, Ordering::Relaxed);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_behind_is_known_until_it_has_read() {
        let (teller, mut hearer) = wire();
        assert!((0..4).all(|message| !teller.is_behind() && teller.tell(message, MOST / 4)));
        assert!(teller.clone().is_behind());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(hearer.hear()), Some(0));
        assert!(!teller.is_behind() && !teller.is_closed());
        drop(hearer);
        assert!(teller.is_closed() && !teller.tell(1, 1));
    }
}
