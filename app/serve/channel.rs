//! From the model's thread to an answer: a channel that never holds up the model, and that says when its reader is so far behind that
//! the model should go on with others first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes that may wait, about; text alone never comes to so many.
const MOST: usize = 4 << 20;

/// The end that tells.
pub struct Sender<T> {
    to: UnboundedSender<(T, usize)>,
    behind: Arc<AtomicUsize>,
}

/// The end that hears.
pub struct Receiver<T> {
    from: UnboundedReceiver<(T, usize)>,
    behind: Arc<AtomicUsize>,
}

/// Both ends.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (to, from) = unbounded_channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (Sender { to, behind: behind.clone() }, Receiver { from, behind })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), behind: self.behind.clone() }
    }
}

impl<T> Sender<T> {
    /// Tells what takes so many bytes, about; false where nobody hears any more.
    pub fn send(&self, message: T, bytes: usize) -> bool {
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

impl<T> Receiver<T> {
    /// The next message; none where nobody tells any more.
    pub async fn recv(&mut self) -> Option<T> {
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
        let (sender, mut receiver) = channel();
        assert!((0..4).all(|message| !sender.is_behind() && sender.send(message, MOST / 4)));
        assert!(sender.clone().is_behind());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(receiver.recv()), Some(0));
        assert!(!sender.is_behind() && !sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed() && !sender.send(1, 1));
    }
}
