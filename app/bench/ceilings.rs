//! What the machine allows: how fast all threads together read memory, and how many multiplications and additions they make, in
//! floats and in bytes, with one set of instructions. It knows no model.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use bd3::engine::simd::{Isa, Kernel, LANES, Simd};
use bd3::{Error, Result};
use memmap2::MmapMut;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Far more than any cache.
const BUFFER: usize = 256 << 20;
/// A line of memory, and the bytes of a vector.
const LINE: usize = 64;
/// Lines of weights for the products of bytes: they stay in the first cache.
const LINES: usize = 64;
/// Seconds that a loop of multiply-adds takes, at least.
const LEAST: f64 = 0.003;

/// Per second.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes read.
    pub read: f64,
    /// Multiplications and additions of floats.
    pub floats: f64,
    /// The same of bytes.
    pub bytes: f64,
}

impl Ceilings {
    /// Operations per second of the faster kind.
    pub fn best(self) -> f64 {
        self.floats.max(self.bytes)
    }
}

/// The machine, ready to be measured.
pub struct Machine {
    isa: Isa,
    pool: ThreadPool,
    buffer: MmapMut,
    floats: Loop,
    bytes: Loop,
}

impl Machine {
    /// Fills the memory that is read, and picks the loops that the machine runs best.
    ///
    /// # Errors
    /// Memory or threads that the system refuses.
    pub fn new(isa: Isa, threads: usize) -> Result<Self> {
        let refused = |e: std::io::Error| Error::Run(format!("no {BUFFER} bytes of memory to read: {e}"));
        let mut buffer = MmapMut::map_anon(BUFFER).map_err(refused)?;
        // As the engine does for its weights. Where large pages are refused, small ones do.
        #[cfg(target_os = "linux")]
        let _ = buffer.advise(memmap2::Advice::HugePage);
        buffer.fill(1);
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Run(format!("no threads to measure the machine: {e}")))?;
        let floats = Loop::quickest(&[floats::<2>, floats::<6>, floats::<16>], isa, &pool);
        let bytes = Loop::quickest(&[bytes::<1, 2>, bytes::<2, 2>, bytes::<4, 4>], isa, &pool);
        Ok(Self { isa, pool, buffer, floats, bytes })
    }

    /// Measures each ceiling once, some milliseconds each.
    pub fn measure(&self) -> Ceilings {
        let (lines, _) = self.buffer.as_chunks::<LINE>();
        let parts: Vec<_> = lines.chunks(lines.len().div_ceil(self.pool.current_num_threads())).collect();
        let seconds = together(&self.pool, |thread| {
            if let Some(lines) = parts.get(thread) {
                black_box(self.isa.run(Read(lines)));
            }
        });
        Ceilings {
            read: BUFFER as f64 / seconds,
            floats: self.floats.rate(self.isa, &self.pool),
            bytes: self.bytes.rate(self.isa, &self.pool),
        }
    }
}

/// Seconds from the start of the first to the end of the last of some threads that begin together. They are the same threads each
/// time: new ones would wait for the system to spread them over the cores.
fn together(pool: &ThreadPool, work: impl Fn(usize) + Sync) -> f64 {
    let barrier = Barrier::new(pool.current_num_threads());
    let spans = pool.broadcast(|thread| {
        barrier.wait();
        let start = Instant::now();
        work(thread.index());
        (start, Instant::now())
    });
    let first = spans.iter().map(|span| span.0).min();
    let last = spans.iter().map(|span| span.1).max();
    first.zip(last).map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64())
}

/// Runs so many rounds on one thread and gives the operations of one.
type Rounds = fn(Isa, usize) -> f64;

/// A loop of multiply-adds.
struct Loop {
    run: Rounds,
    rounds: usize,
}

impl Loop {
    /// The quickest of some: how many independent sums fill the machine's pipes and still fit its registers depends on it.
    fn quickest(all: &[Rounds], isa: Isa, pool: &ThreadPool) -> Self {
        let tuned = all.iter().map(|&run| {
            let mut this = Self { run, rounds: 1 };
            // Twice, as once may have been an interruption.
            while this.seconds(isa, pool).min(this.seconds(isa, pool)) < LEAST {
                this.rounds *= 2;
            }
            let rate = (0..3).map(|_| this.rate(isa, pool)).fold(0.0, f64::max);
            (rate, this)
        });
        let quickest = tuned.max_by(|a, b| a.0.total_cmp(&b.0));
        quickest.map_or(Self { run: floats::<2>, rounds: 1 }, |(_, this)| this)
    }

    fn seconds(&self, isa: Isa, pool: &ThreadPool) -> f64 {
        together(pool, |_| {
            (self.run)(isa, self.rounds);
        })
    }

    /// Operations per second of all threads.
    fn rate(&self, isa: Isa, pool: &ThreadPool) -> f64 {
        let operations = (self.run)(isa, 0) * self.rounds as f64 * pool.current_num_threads() as f64;
        operations / self.seconds(isa, pool)
    }
}

/// Adds up all lines.
struct Read<'a>(&'a [[u8; LINE]]);

impl Kernel for Read<'_> {
    type Output = [i32; LANES];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let mut sums = [s.splat_i(0); 4];
        for lines in self.0.as_chunks::<4>().0 {
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = s.add_i(*sum, s.load_i(line));
            }
        }
        let mut out = [0; LANES];
        s.store_i(s.add_i(s.add_i(sums[0], sums[1]), s.add_i(sums[2], sums[3])), &mut out);
        out
    }
}

/// `N` sums of products that wait for nothing but themselves.
struct Floats<const N: usize>(usize);

impl<const N: usize> Kernel for Floats<N> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (half, one) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut sums = [s.splat(0.0); N];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = s.splat(i as f32);
        }
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = s.fma(*sum, half, one);
            }
        }
        sums.into_iter().map(|sum| s.sum(sum)).sum()
    }
}

fn floats<const N: usize>(isa: Isa, rounds: usize) -> f64 {
    black_box(isa.run(Floats::<N>(rounds)));
    (2 * N * LANES) as f64
}

/// Lines of a vector each, where they are read at once.
#[repr(align(64))]
struct Lines([[u8; LINE]; LINES]);

/// Products of bytes: `N` vectors of weights at a time, each with `R` fours of activations.
struct Bytes<'a, const N: usize, const R: usize> {
    weights: &'a Lines,
    rounds: usize,
}

impl<const N: usize, const R: usize> Kernel for Bytes<'_, N, R> {
    type Output = [i32; LANES];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let fours: [i32; R] = std::array::from_fn(|r| black_box(0x0101_0101 * (r as i32 + 1)));
        let mut sums = [[s.splat_i(0); R]; N];
        for _ in 0..self.rounds {
            for lines in self.weights.0.as_chunks::<N>().0 {
                for (sums, line) in sums.iter_mut().zip(lines) {
                    let weights = s.load_i(line);
                    for (sum, &four) in sums.iter_mut().zip(&fours) {
                        *sum = s.dot(*sum, weights, four);
                    }
                }
            }
        }
        let mut out = [0; LANES];
        let total = sums.into_iter().flatten().fold(s.splat_i(0), |a, b| s.add_i(a, b));
        s.store_i(total, &mut out);
        out
    }
}

fn bytes<const N: usize, const R: usize>(isa: Isa, rounds: usize) -> f64 {
    let weights = black_box(Lines([[1; LINE]; LINES]));
    black_box(isa.run(Bytes::<N, R> { weights: &weights, rounds }));
    (2 * R * LINE * LINES) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_ceilings_with_every_set_of_instructions() {
        for isa in Isa::available() {
            let ceilings = Machine::new(isa, 2).unwrap().measure();
            assert!(ceilings.read > 1e8 && ceilings.floats > 1e8 && ceilings.bytes > 1e8, "{ceilings:?}");
            assert!(ceilings.best() >= ceilings.floats && ceilings.best() >= ceilings.bytes);
        }
    }

    #[test]
    fn every_line_is_read() {
        for isa in Isa::available() {
            let lines: Vec<[u8; LINE]> = (0..8).map(|i| [1 << i; LINE]).collect();
            assert_eq!(isa.run(Read(&lines)), [-1; LANES], "{}", isa.name());
        }
    }
}
