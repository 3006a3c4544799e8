//! Threads that work together on one pass. In a parallel loop each thread takes the chunks of its own segment one by one, the same in
//! every pass, so that what it reads stays in its own caches; then it helps where chunks are left, so a slow thread does fewer. A
//! thread that comes late to a loop misses it, and nobody waits for it. Waiting threads spin for some microseconds, then sleep: on a
//! loaded machine a spinning thread would only take time from the one that it waits for.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle, Thread};

/// Spins before a thread sleeps: a few tens of microseconds, more than the gap between two loops of a pass.
const SPINS: u32 = 2_000;

/// Set in the state while a loop takes new workers; the bits below count the workers inside, the bits above the loops.
const OPEN: u64 = 1 << 16;

/// A loop's body and its chunks, as long as the loop is open or somebody is inside.
#[derive(Clone, Copy)]
struct Job {
    body: *const (dyn Fn(usize) + Sync),
    chunks: usize,
}

/// A counter on a cache line of its own.
#[repr(align(64))]
struct Next(AtomicUsize);

struct Shared {
    /// Number of the loop, whether it is open, how many workers are inside.
    state: AtomicU64,
    /// Written only while the loop is closed and empty, read only by workers inside.
    job: std::cell::UnsafeCell<Option<Job>>,
    /// By thread, the next chunk of its segment.
    next: Vec<Next>,
    /// A body panicked.
    failed: AtomicBool,
    /// By worker: it sleeps, or is about to.
    asleep: Vec<AtomicBool>,
    /// The thread that waits for the last worker to leave, if it sleeps.
    leader_asleep: AtomicBool,
    leader: std::sync::Mutex<Option<Thread>>,
    quit: AtomicBool,
}

// SAFETY: `job` is the only part that is not Sync by itself. It is written by the leader alone (`Team::run` takes `&mut self`)
// and only while the state is closed with nobody inside; workers read it after entering an open state. Both sides go through
// `state` with sequentially consistent operations, so a worker inside sees the job of the loop that it entered.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer in `job` is to a `Sync` body.
unsafe impl Send for Shared {}

/// A team: the calling thread and its workers.
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Team {
    /// A team of so many threads, the caller among them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let count = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: std::cell::UnsafeCell::new(None),
            next: (0..=count).map(|_| Next(AtomicUsize::new(0))).collect(),
            failed: AtomicBool::new(false),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            leader_asleep: AtomicBool::new(false),
            leader: std::sync::Mutex::new(None),
            quit: AtomicBool::new(false),
        });
        let mut team = Self { shared: shared.clone(), workers: Vec::new() };
        for index in 0..count {
            let shared = shared.clone();
            let worker = thread::Builder::new().name(format!("engine {index}")).spawn(move || work(&shared, index))?;
            team.workers.push(worker);
        }
        Ok(team)
    }

    /// How many threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` once for each chunk of `items` (the last one may be shorter), with the chunk's number.
    pub fn each<T: Send>(&mut self, items: &mut [T], chunk: usize, body: impl Fn(usize, &mut [T]) + Sync) {
        let (length, chunk) = (items.len(), chunk.max(1));
        let start = SendPointer(items.as_mut_ptr());
        self.run(length.div_ceil(chunk), &|index| {
            let from = index * chunk;
            let count = chunk.min(length - from);
            // SAFETY: `run` gives each index to one thread once, so no two of these slices overlap; `items` is borrowed
            // mutably for as long as `run` goes on.
            let part = unsafe { std::slice::from_raw_parts_mut(start.get().add(from), count) };
            body(index, part);
        });
    }

    /// Calls `body` once for each number below `chunks`.
    pub fn run(&mut self, chunks: usize, body: &(dyn Fn(usize) + Sync)) {
        if chunks <= 1 || self.workers.is_empty() {
            (0..chunks).for_each(body);
            return;
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by workers inside the loop, and this function does not return
        // (nor unwind, see `Closing`) before the loop is closed and the last worker has left.
        let body = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync + 'static)>(body)
        };
        let before = shared.state.load(SeqCst);
        debug_assert_eq!(before & (OPEN | (OPEN - 1)), 0, "no loop runs");
        // SAFETY: the loop is closed and nobody is inside.
        unsafe { *shared.job.get() = Some(Job { body, chunks }) };
        for (segment, next) in shared.next.iter().enumerate() {
            next.0.store(segment * chunks / shared.next.len(), SeqCst);
        }
        let closing = Closing(shared);
        shared.state.store(before + 2 * OPEN + OPEN, SeqCst);
        for (asleep, worker) in shared.asleep.iter().zip(&self.workers) {
            if asleep.load(SeqCst) {
                worker.thread().unpark();
            }
        }
        chunks_of(shared, Job { body, chunks }, 0);
        drop(closing);
        if shared.failed.swap(false, SeqCst) {
            panic!("a worker of the engine failed");
        }
    }
}

struct SendPointer<T>(*mut T);
// SAFETY: the pointer is only used to make slices that do not overlap, of items that may be sent.
unsafe impl<T: Send> Sync for SendPointer<T> {}

impl<T> SendPointer<T> {
    /// A method, so that a closure captures the whole and not the pointer alone.
    fn get(&self) -> *mut T {
        self.0
    }
}

/// Closes the loop and waits for the last worker, however the caller's share ends.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let shared = self.0;
        shared.state.fetch_and(!OPEN, SeqCst);
        let inside = || shared.state.load(SeqCst) & (OPEN - 1) != 0;
        let mut spins = 0;
        while inside() {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            if let Ok(mut leader) = shared.leader.lock() {
                *leader = Some(thread::current());
            }
            shared.leader_asleep.store(true, SeqCst);
            while inside() {
                thread::park();
            }
            shared.leader_asleep.store(false, SeqCst);
        }
    }
}

/// The chunks of one's own segment, then what is left of the others'.
fn chunks_of(shared: &Shared, job: Job, own: usize) {
    let segments = shared.next.len();
    for segment in (own..segments).chain(0..own) {
        let end = (segment + 1) * job.chunks / segments;
        loop {
            let index = shared.next[segment].0.fetch_add(1, SeqCst);
            if index >= end {
                break;
            }
            // SAFETY: the caller is the leader in `run`, or a worker inside the loop; the body lives until both are done.
            unsafe { (*job.body)(index) };
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        let state = loop {
            let state = shared.state.load(SeqCst);
            if state & OPEN != 0 && state / (2 * OPEN) != seen {
                break state;
            }
            if shared.quit.load(SeqCst) {
                return;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // The flag first, then another look: either this look sees the new loop, or the leader sees the flag.
            shared.asleep[index].store(true, SeqCst);
            let state = shared.state.load(SeqCst);
            let opened = state & OPEN != 0 && state / (2 * OPEN) != seen;
            if !opened && !shared.quit.load(SeqCst) {
                thread::park();
            }
            shared.asleep[index].store(false, SeqCst);
            spins = 0;
        };
        if shared.state.compare_exchange(state, state + 1, SeqCst, SeqCst).is_err() {
            continue;
        }
        seen = state / (2 * OPEN);
        // SAFETY: this worker is inside an open loop, so the job is written and stays.
        if let Some(job) = unsafe { *shared.job.get() }
            && std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| chunks_of(shared, job, index + 1))).is_err()
        {
            shared.failed.store(true, SeqCst);
        }
        let left = shared.state.fetch_sub(1, SeqCst) - 1;
        if left & (OPEN - 1) == 0
            && shared.leader_asleep.load(SeqCst)
            && let Ok(leader) = shared.leader.lock()
            && let Some(leader) = &*leader
        {
            leader.unpark();
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.quit.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panic was reported by the loop in which it happened.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_done_once() {
        for threads in [1, 2, 3, 8] {
            let mut team = Team::new(threads).unwrap();
            let mut numbers = vec![0u32; 1000];
            for round in 1..200 {
                team.each(&mut numbers, 7, |index, part| {
                    assert_eq!(part.len(), if index == 142 { 6 } else { 7 });
                    part.iter_mut().for_each(|x| *x += 1);
                });
                assert!(numbers.iter().all(|&x| x == round));
            }
        }
    }

    #[test]
    fn workers_wake_up_after_a_pause() {
        let mut team = Team::new(2).unwrap();
        let mut numbers = [0; 2];
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(20));
            team.each(&mut numbers, 1, |_, x| x[0] += 1);
        }
        assert_eq!(numbers, [3, 3]);
    }

    #[test]
    #[should_panic(expected = "failed")]
    fn a_panic_reaches_the_caller() {
        let mut team = Team::new(2).unwrap();
        let mut numbers = [0; 100];
        team.each(&mut numbers, 1, |_, _| {
            // Only a worker fails, the caller waits for it.
            if thread::current().name() == Some("engine 0") {
                panic!("on purpose");
            }
            thread::sleep(std::time::Duration::from_millis(1));
        });
    }
}
