//! What waits for the model: a bounded queue, filled by the server's thread and emptied by the model's.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bd3::engine::Engine;
use bd3::rng::Rng;
use bd3::sample::SampleOptions;

use super::relay::Relay;

/// One choice that is asked for: a sample before it has a cache.
pub struct Order {
    /// How it is made.
    pub options: SampleOptions,
    /// What it begins with.
    pub ids: Vec<u32>,
    /// What is random in it.
    pub rng: Rng,
    /// Bytes of keys and values that it may come to need.
    pub bytes: usize,
    /// Who hears of it.
    pub relay: Relay,
}

/// Work of another kind, one at a time.
pub struct Task {
    /// Bytes of keys and values that it may come to need.
    pub bytes: usize,
    /// Called for one pass at a time, until it is done.
    pub turn: Box<dyn FnMut(&Engine) -> Progress + Send>,
}

/// What a task has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A pass; there are more.
    Pass,
    /// Nothing: its reader is behind.
    Waits,
    /// All of it.
    Done,
}

/// Orders in their order.
pub struct Queue {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    most: usize,
}

#[derive(Default)]
struct Waiting {
    orders: VecDeque<Order>,
    tasks: VecDeque<Task>,
    closed: bool,
}

/// Why a queue takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// As many wait as may.
    Full,
    /// The server ends.
    Closed,
}

impl Queue {
    /// An empty queue in which so many may wait.
    pub fn new(most: usize) -> Self {
        Self { waiting: Mutex::default(), bell: Condvar::new(), most }
    }

    /// Adds all of them or none.
    pub fn push(&self, orders: Vec<Order>) -> Result<(), Turned> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Turned::Closed);
        }
        if waiting.orders.len() + orders.len() > self.most.max(orders.len()) {
            return Err(Turned::Full);
        }
        waiting.orders.extend(orders);
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Adds a task.
    pub fn push_task(&self, task: Task) -> Result<(), Turned> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Turned::Closed);
        }
        if waiting.tasks.len() >= MOST_TASKS {
            return Err(Turned::Full);
        }
        waiting.tasks.push_back(task);
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// The next order, if it fits; waits a little for one where `idle`. Orders whose client is gone are dropped.
    pub fn next(&self, idle: bool, fits: impl Fn(&Order) -> bool) -> Option<Order> {
        let mut waiting = self.lock();
        if idle && waiting.orders.is_empty() && waiting.tasks.is_empty() && !waiting.closed {
            waiting = self.bell.wait_timeout(waiting, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.orders.retain(|order| !order.relay.is_over());
        let first = waiting.orders.front().is_some_and(fits);
        if first { waiting.orders.pop_front() } else { None }
    }

    /// The next task, if it fits.
    pub fn next_task(&self, fits: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut waiting = self.lock();
        let first = waiting.tasks.front().is_some_and(fits);
        if first { waiting.tasks.pop_front() } else { None }
    }

    /// How many orders wait.
    pub fn len(&self) -> usize {
        self.lock().orders.len()
    }

    /// Takes nothing any more; what waited is dropped.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.orders.clear();
        waiting.tasks.clear();
        drop(waiting);
        self.bell.notify_all();
    }

    /// Has it been closed?
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tasks that wait, at most.
const MOST_TASKS: usize = 4;

/// How long an idle model thread sleeps before it looks around.
const NAP: Duration = Duration::from_millis(100);
