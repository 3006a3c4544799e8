//! Counts of what the server does, as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use bd3::sample::Turn;

/// Upper bounds of the histogram of times to the first block, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// See the module.
#[derive(Default)]
pub struct Metrics {
    answers: Mutex<BTreeMap<u16, u64>>,
    tokens: AtomicU64,
    sample_passes: AtomicU64,
    samples: AtomicU64,
    passes: AtomicU64,
    rows: AtomicU64,
    reused: AtomicU64,
    lanes: AtomicU64,
    waiting: AtomicU64,
    cache_bytes: AtomicU64,
    first_block: [AtomicU64; BOUNDS.len() + 1],
    first_block_us: AtomicU64,
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Metrics {
    /// A request was answered.
    pub fn answer(&self, status: StatusCode) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status.as_u16()).or_default() += 1;
    }

    /// A pass was made.
    pub fn pass(&self, turn: Turn) {
        add(&self.passes, usize::from(turn.lanes > 0));
        add(&self.rows, turn.rows);
    }

    /// A sample ended.
    pub fn sample(&self, tokens: usize, passes: u64) {
        add(&self.samples, 1);
        add(&self.tokens, tokens);
        add(&self.sample_passes, passes as usize);
    }

    /// So many ids of a prompt were stored already.
    pub fn reused(&self, ids: usize) {
        add(&self.reused, ids);
    }

    /// How it stands now.
    pub fn gauge(&self, lanes: usize, waiting: usize, cache_bytes: usize) {
        self.lanes.store(lanes as u64, Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.cache_bytes.store(cache_bytes as u64, Ordering::Relaxed);
    }

    /// A request waited so long for its first block.
    pub fn first_block(&self, time: Duration) {
        let bucket = BOUNDS.iter().position(|&bound| time.as_secs_f64() <= bound).unwrap_or(BOUNDS.len());
        add(&self.first_block[bucket], 1);
        add(&self.first_block_us, time.as_micros() as usize);
    }

    /// The text of `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(&mut text, "bd3_answers_total", "counter", "Requests answered, by status.");
        for (status, count) in answers {
            let _ = writeln!(text, "bd3_answers_total{{status=\"{status}\"}} {count}");
        }
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, help, counter) in [
            ("bd3_samples_total", "counter", "Choices that ended.", &self.samples),
            ("bd3_tokens_total", "counter", "Tokens written.", &self.tokens),
            (
                "bd3_sample_passes_total",
                "counter",
                "Forward evaluations, counted for each choice.",
                &self.sample_passes,
            ),
            ("bd3_passes_total", "counter", "Forward evaluations of the model, shared by choices.", &self.passes),
            ("bd3_rows_total", "counter", "Rows computed by them.", &self.rows),
            ("bd3_reused_ids_total", "counter", "Ids of prompts that were stored already.", &self.reused),
            ("bd3_lanes", "gauge", "Choices under way.", &self.lanes),
            ("bd3_waiting", "gauge", "Choices that wait.", &self.waiting),
            ("bd3_cache_bytes", "gauge", "Keys and values that are held or reserved.", &self.cache_bytes),
        ] {
            head(&mut text, name, kind, help);
            let _ = writeln!(text, "{name} {}", get(counter));
        }
        let name = "bd3_first_block_seconds";
        head(&mut text, name, "histogram", "From a request to its first final block.");
        let mut sum = 0;
        for (index, counter) in self.first_block.iter().enumerate() {
            sum += get(counter);
            let bound = BOUNDS.get(index).map_or("+Inf".into(), f64::to_string);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let _ = writeln!(text, "{name}_sum {}", get(&self.first_block_us) as f64 / 1e6);
        let _ = writeln!(text, "{name}_count {sum}");
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_adds_up() {
        let metrics = Metrics::default();
        [1, 20, 20, 60_000].into_iter().for_each(|ms| metrics.first_block(Duration::from_millis(ms)));
        metrics.answer(StatusCode::OK);
        let text = metrics.text();
        for line in ["_bucket{le=\"0.005\"} 1", "_bucket{le=\"0.025\"} 3", "_bucket{le=\"+Inf\"} 4", "_count 4"] {
            assert!(text.contains(&format!("bd3_first_block_seconds{line}\n")), "{line}\n{text}");
        }
        assert!(text.contains("bd3_answers_total{status=\"200\"} 1\n"));
    }
}
