//! What waits for the model: a bounded queue, filled by the server's threads and emptied by the model's. Orders and tasks wait in lines of
//! their own, but neither may take the memory that one of the other line waits for who came before.

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
pub trait Task: Send {
    /// Bytes of keys and values that it may come to need.
    fn bytes(&self) -> usize;

    /// Orders that it hands on in the end.
    fn orders(&self) -> usize {
        0
    }

    /// Nobody listens any more, or its time is up.
    fn is_over(&self) -> bool;

    /// Called for one pass at a time, until it is done.
    fn turn(&mut self, engine: &Engine) -> Progress;
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
    orders: Line<Order>,
    tasks: Line<Box<dyn Task>>,
    /// Who came so far.
    came: u64,
    closed: bool,
}

type Line<T> = VecDeque<Place<T>>;

/// A place in a line.
struct Place<T> {
    /// Among all who came.
    number: u64,
    /// Bytes of keys and values that are needed.
    bytes: usize,
    what: T,
}

/// What the first of a line needs, and the first of the other if that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Bytes of keys and values.
    pub bytes: usize,
    /// Those of the other.
    pub owed: usize,
}

impl Need {
    /// Is there enough, also for the other?
    pub fn fits(self, room: usize) -> bool {
        self.bytes.saturating_add(self.owed) <= room
    }
}

/// The need of whoever is first in a line.
fn need<T, U>(line: &Line<T>, other: &Line<U>) -> Option<Need> {
    let first = line.front()?;
    let before = other.front().filter(|other| other.number < first.number);
    Some(Need { bytes: first.bytes, owed: before.map_or(0, |before| before.bytes) })
}

impl Waiting {
    fn place<T>(&mut self, bytes: usize, what: T) -> Place<T> {
        self.came += 1;
        Place { number: self.came, bytes, what }
    }

    fn add(&mut self, orders: Vec<Order>) {
        for order in orders {
            let place = self.place(order.bytes, order);
            self.orders.push_back(place);
        }
    }

    /// Who is over leaves his place, and nobody is held up by him.
    fn tidy(&mut self) {
        self.orders.retain(|place| !place.what.relay.is_over());
        self.tasks.retain(|place| !place.what.is_over());
    }
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
        if !self.has_room(&waiting, orders.len()) {
            return Err(Turned::Full);
        }
        waiting.add(orders);
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Adds a task, where there is room for the orders that it will hand on, too.
    pub fn push_task(&self, task: Box<dyn Task>) -> Result<(), Turned> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Turned::Closed);
        }
        waiting.tidy();
        // What has orders is bound by their number.
        let alone = |task: &dyn Task| task.orders() == 0;
        let many = waiting.tasks.iter().filter(|place| alone(&*place.what)).count() >= MOST_TASKS;
        if alone(&*task) && many || !self.has_room(&waiting, task.orders()) {
            return Err(Turned::Full);
        }
        let place = waiting.place(task.bytes(), task);
        waiting.tasks.push_back(place);
        drop(waiting);
        self.bell.notify_one();
        Ok(())
    }

    /// Adds the orders of a task that is done, whoever waits by now: they were let in with it, and it must not wait for others that may
    /// wait for its memory. A queue that is closed drops them.
    pub fn hand_on(&self, orders: Vec<Order>) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.add(orders);
        }
    }

    /// The next order, if it fits; waits a little for one where `idle`. Whoever is over is dropped.
    pub fn next(&self, idle: bool, fits: impl Fn(Need) -> bool) -> Option<Order> {
        let mut waiting = self.lock();
        if idle && waiting.orders.is_empty() && waiting.tasks.is_empty() && !waiting.closed {
            waiting = self.bell.wait_timeout(waiting, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.tidy();
        need(&waiting.orders, &waiting.tasks).filter(|&need| fits(need))?;
        waiting.orders.pop_front().map(|place| place.what)
    }

    /// The next task, if it fits. Whoever is over is dropped.
    pub fn next_task(&self, fits: impl Fn(Need) -> bool) -> Option<Box<dyn Task>> {
        let mut waiting = self.lock();
        waiting.tidy();
        need(&waiting.tasks, &waiting.orders).filter(|&need| fits(need))?;
        waiting.tasks.pop_front().map(|place| place.what)
    }

    /// May so many more orders wait? More than ever may do so alone.
    fn has_room(&self, waiting: &Waiting, count: usize) -> bool {
        count == 0 || waiting.orders.len() + count <= self.most.max(count)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Each with its number and its bytes.
    fn line(all: &[(u64, usize)]) -> Line<()> {
        all.iter().map(|&(number, bytes)| Place { number, bytes, what: () }).collect()
    }

    fn needs(line: &Line<()>, other: &Line<()>) -> Option<(usize, usize)> {
        need(line, other).map(|Need { bytes, owed }| (bytes, owed))
    }

    /// A task of so many bytes that is over when it is told so.
    struct Waiter(usize, Arc<AtomicBool>);

    impl Task for Waiter {
        fn bytes(&self) -> usize {
            self.0
        }

        fn is_over(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }

        fn turn(&mut self, _: &Engine) -> Progress {
            Progress::Done
        }
    }

    #[test]
    fn a_task_that_is_over_holds_no_place_and_holds_up_nobody() {
        let queue = Queue::new(8);
        let over: Vec<_> = (0..=MOST_TASKS).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let push = |number: usize, bytes| queue.push_task(Box::new(Waiter(bytes, over[number].clone())));
        assert!((0..MOST_TASKS).all(|number| push(number, 50 + number).is_ok()));
        assert_eq!(push(MOST_TASKS, 90), Err(Turned::Full));
        over[2].store(true, Ordering::Relaxed);
        assert_eq!((push(MOST_TASKS, 90), push(MOST_TASKS, 90)), (Ok(()), Err(Turned::Full)));
        // The first one would never fit.
        let next = |room| queue.next_task(|need| need.fits(room)).map(|task| task.bytes());
        assert_eq!((next(49), next(50), next(50)), (None, Some(50), None));
        over[1].store(true, Ordering::Relaxed);
        assert_eq!((next(53), next(90), next(100)), (Some(53), Some(90), None));
        assert_eq!(push(0, 50), Ok(()));
        queue.close();
        assert_eq!(push(0, 50), Err(Turned::Closed));
    }

    #[test]
    fn who_came_first_is_owed_what_he_needs() {
        let (orders, tasks) = (line(&[(1, 10), (3, 20)]), line(&[(2, 70), (4, 80)]));
        assert_eq!((needs(&orders, &tasks), needs(&tasks, &orders)), (Some((10, 0)), Some((70, 10))));
        let orders = line(&[(3, 20)]);
        assert_eq!((needs(&orders, &tasks), needs(&tasks, &orders)), (Some((20, 70)), Some((70, 0))));
        assert_eq!((needs(&orders, &line(&[])), needs(&line(&[]), &orders)), (Some((20, 0)), None));
    }

    /// A stream of small orders, each of which is at work for three turns, and one task that needs nearly all there is.
    #[test]
    fn a_stream_of_orders_holds_up_no_task() {
        let (most, mut orders, mut at_work) = (100, line(&[]), VecDeque::new());
        let mut tasks = line(&[]);
        for turn in 1..100u64 {
            orders.extend(line(&[(2 * turn, 30)]));
            if turn == 5 {
                tasks.extend(line(&[(2 * turn + 1, 90)]));
            }
            at_work.retain(|&since| turn < since + 3);
            let room = most - 30 * at_work.len();
            if need(&tasks, &orders).is_some_and(|need| need.fits(room)) {
                assert!(turn <= 5 + 3, "its turn came late, in {turn}");
                return;
            }
            if need(&orders, &tasks).is_some_and(|need| need.fits(room)) {
                orders.pop_front();
                at_work.push_back(turn);
            }
        }
        panic!("its turn never came");
    }
}
