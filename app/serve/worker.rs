//! The model's thread: takes orders as memory and lanes allow, makes one pass after the other, and keeps caches for those who come with
//! the same beginning.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bd3::engine::{Engine, KeyValues};
use bd3::pass::{Cache, Denoiser};
use bd3::sample::{Ended, Sampler, Turns};

use super::Served;
use super::queue::{Need, Order, Progress, Task};
use super::relay::Relay;

/// Rows of a pass, at most: more would not make the products faster (`bd3 bench pass --rows 16,32,64`), and everybody waits for a pass.
const MOST_ROWS: usize = 32;

/// A cache that nobody uses, and the bytes that it may hold.
struct Idle {
    cache: KeyValues,
    bytes: usize,
}

/// Everything on the model's thread.
pub struct Worker {
    served: Arc<Served>,
    engine: Engine,
    turns: Turns<KeyValues, Seat>,
    task: Option<Box<dyn Task>>,
    /// Oldest first.
    idle: VecDeque<Idle>,
}

/// A sample's sink, with the bytes that it was let in for.
struct Seat {
    relay: Relay,
    bytes: usize,
}

impl bd3::event::Sink for Seat {
    fn event(&mut self, event: &bd3::event::Event) -> bool {
        self.relay.event(event)
    }
}

impl Worker {
    /// Nothing to do yet.
    pub fn new(served: Arc<Served>, engine: Engine) -> Self {
        Self { served, engine, turns: Turns::new(MOST_ROWS), task: None, idle: VecDeque::new() }
    }

    /// Works until the queue is closed and nothing is under way.
    pub fn run(mut self) {
        loop {
            self.admit();
            if self.served.queue.is_closed() && self.turns.is_empty() && self.task.is_none() {
                return;
            }
            let over = self.turns.stop(|seat| seat.relay.is_over());
            self.finish(over);
            let (turn, ended) = self.turns.pass(&self.engine, |seat| seat.relay.is_behind());
            self.served.metrics.pass(turn);
            self.finish(ended);
            let worked = self.task();
            if turn.lanes == 0 && !worked && !(self.turns.is_empty() && self.task.is_none()) {
                // All of them wait for their readers.
                std::thread::sleep(PAUSE);
            }
            self.gauge();
        }
    }

    /// A pass of the task under way; true if there was one.
    fn task(&mut self) -> bool {
        if self.task.is_none() {
            let room = self.room();
            self.task = self.served.queue.next_task(|need| need.fits(room));
        }
        let progress = self.task.as_mut().map(|task| task.turn(&self.engine));
        if progress == Some(Progress::Done) {
            self.task = None;
        }
        progress == Some(Progress::Pass)
    }

    /// Lets in whoever comes next and fits.
    fn admit(&mut self) {
        loop {
            let idle = self.turns.is_empty() && self.task.is_none();
            let (seat, room) = (self.turns.len() < self.served.limits.lanes, self.room());
            // A task that waits for the one under way is not held up by an order.
            let beside = self.task.is_some();
            let fits = |need: Need| seat && Need { owed: if beside { 0 } else { need.owed }, ..need }.fits(room);
            let Some(order) = self.served.queue.next(idle, fits) else { return };
            self.begin(order);
        }
    }

    /// Bytes that nobody under way may come to need. Where nobody is, that is all, and whoever came first fits: what would never fit was
    /// refused before.
    fn room(&self) -> usize {
        self.served.limits.cache_bytes.saturating_sub(self.used())
    }

    /// Bytes that whatever is under way may come to need.
    fn used(&self) -> usize {
        let task = self.task.as_ref().map_or(0, |task| task.bytes());
        task + self.turns.sinks().map(|seat| seat.bytes).sum::<usize>()
    }

    fn begin(&mut self, order: Order) {
        let Order { options, ids, rng, bytes, mut relay } = order;
        // A guide stores what its lane stores, so that neither may be ahead.
        let mut kept = if options.guidance > 0.0 { None } else { self.best(options.block, &ids) };
        self.forget(self.room().saturating_sub(bytes));
        let engine = &self.engine;
        let caches = |block| match kept.take() {
            Some(cache) if cache.block() == block => cache,
            _ => engine.cache(block),
        };
        match Sampler::new(options, &ids, engine.mask_id(), caches, rng) {
            Ok(sampler) => self.turns.add(sampler, Seat { relay, bytes }),
            Err(error) => relay.fail(error.to_string()),
        }
    }

    /// The idle cache that holds most of the beginning of these ids, if any of it.
    fn best(&mut self, block: usize, ids: &[u32]) -> Option<KeyValues> {
        let shared = |idle: &Idle| {
            let equal = idle.cache.ids().iter().zip(ids).take_while(|(a, b)| a == b).count();
            let whole = idle.cache.held() == idle.cache.end() && idle.cache.block() == block;
            if whole { equal / block * block } else { 0 }
        };
        let (index, most) = self.idle.iter().map(shared).enumerate().max_by_key(|&(_, shared)| shared)?;
        self.served.metrics.reused(most);
        if most > 0 { self.idle.remove(index).map(|idle| idle.cache) } else { None }
    }

    /// Frees idle caches, oldest first, until they take no more than `room` bytes.
    fn forget(&mut self, room: usize) {
        let mut sum: usize = self.idle.iter().map(|idle| idle.bytes).sum();
        while sum > room || self.idle.len() > MOST_IDLE {
            let Some(oldest) = self.idle.pop_front() else { return };
            sum -= oldest.bytes;
        }
    }

    fn finish(&mut self, ended: Vec<Ended<KeyValues, Seat>>) {
        for Ended { sampler, sink: Seat { mut relay, bytes }, failure } in ended {
            self.served.metrics.sample(sampler.written(), sampler.passes());
            match failure {
                Some(error) => relay.fail(error.to_string()),
                None => self.idle.push_back(Idle { cache: sampler.into_cache(), bytes }),
            }
        }
        self.forget(self.room());
    }

    fn gauge(&self) {
        let idle: usize = self.idle.iter().map(|idle| idle.bytes).sum();
        self.served.metrics.gauge(self.turns.len(), self.served.queue.len(), self.used() + idle);
    }
}

/// How long readers that are behind are given.
const PAUSE: Duration = Duration::from_millis(5);

/// Idle caches, at most.
const MOST_IDLE: usize = 32;
