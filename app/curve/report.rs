//! What a curve says: its points, which of them nothing beats, and that in words.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::record::Bound;
use crate::eval::generated::Figures;

/// A point whose entropy, in nats, is so much below the reference's does not count: a judge likes text that says little.
pub const LOST_ENTROPY: f64 = 0.25;

/// A point is nearly as good as the first one up to so many times its perplexity.
const NEAR: f64 = 1.5;

/// One way to write, measured.
#[derive(Clone, Debug)]
pub struct Point {
    /// Block size.
    pub block: usize,
    /// Rule and knob.
    pub label: &'static str,
    /// Perplexity, entropy, repetition, tokens per pass.
    pub figures: Figures,
    /// The likelihood of the text held out, at this block size.
    pub bound: Option<Bound>,
    /// Tokens per second, one sample at a time: median over the samples.
    pub tokens_per_second: f64,
    /// The same against the first point: median of the ratios, round by round.
    pub speed: f64,
    /// Seconds to the first final block: median over the samples.
    pub first_block: f64,
    /// Commands that give its numbers again, each with what it gives.
    pub commands: Vec<(&'static str, String)>,
    /// Entropy far below the reference.
    pub low_entropy: bool,
    /// No other point is as fast and better, or as good and faster.
    pub front: bool,
}

impl Point {
    /// Perplexity under the judge.
    pub fn perplexity(&self) -> f64 {
        self.figures.quality.judged.perplexity()
    }

    /// This point beside the first one.
    fn beside(&self, first: &Point, base: &str) -> String {
        let more = 100.0 * (self.perplexity() / first.perplexity() - 1.0);
        let side = if more < 0.0 { "lower" } else { "higher" };
        format!(
            "at block {}, {}: {:.1} tokens a pass, {:.1} x the speed of {base}, perplexity {:.0} % {side}",
            self.block,
            self.label,
            self.figures.tokens_per_pass().unwrap_or_default(),
            self.speed,
            more.abs()
        )
    }
}

/// All points.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What wrote.
    pub model: String,
    /// What judged.
    pub judge: String,
    /// The model judged itself.
    pub own_judge: bool,
    /// Everything that the numbers follow from.
    pub settings: Value,
    /// The text that people wrote, in pieces as long as the samples.
    pub held_out: Option<Figures>,
    /// The first one is what the others are compared with.
    pub points: Vec<Point>,
}

impl Curve {
    /// Marks what has lost entropy, and the front of what is not.
    pub fn mark(&mut self) {
        let first = self.points.first().map(|point| point.figures.quality.entropy);
        let reference = self.held_out.as_ref().map(|text| text.quality.entropy).or(first).unwrap_or_default();
        for point in &mut self.points {
            point.low_entropy = point.figures.quality.entropy < reference - LOST_ENTROPY;
        }
        let places: Vec<(f64, f64)> =
            self.points.iter().filter(|p| !p.low_entropy).map(|p| (p.tokens_per_second, p.perplexity())).collect();
        for point in self.points.iter_mut().filter(|point| !point.low_entropy) {
            let (speed, perplexity) = (point.tokens_per_second, point.perplexity());
            let beats = |&(s, p): &(f64, f64)| s >= speed && p <= perplexity && (s > speed || p < perplexity);
            point.front = !places.iter().any(beats);
        }
    }

    /// In words: the fastest point of the front that is nearly as good as the first point.
    pub fn summary(&self) -> String {
        let Some((first, others)) = self.points.split_first() else { return String::new() };
        let base = format!("block {}, {}", first.block, first.label);
        let faster = || others.iter().filter(|point| point.front && point.speed > 1.0);
        let near = faster().filter(|point| point.perplexity() <= NEAR * first.perplexity());
        if let Some(best) = near.max_by(|a, b| a.speed.total_cmp(&b.speed)) {
            return best.beside(first, &base);
        }
        let (rate, perplexity) = (first.tokens_per_second, first.perplexity());
        let none = format!("nothing is faster than {base} ({rate:.0} tokens/s, perplexity {perplexity:.1})");
        match faster().min_by(|a, b| a.perplexity().total_cmp(&b.perplexity())) {
            Some(best) => format!("{none} at less than {NEAR} x its perplexity; {}", best.beside(first, &base)),
            None => none,
        }
    }

    /// What a reader must know beside the numbers.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.own_judge {
            notes.push(format!(
                "judge: {} itself at block size 1, which likes its own style (--judge takes another)",
                self.model
            ));
        }
        let Some(text) = &self.held_out else {
            notes.push("no bound and no text to compare with, since --data names no text".into());
            return notes;
        };
        let quality = &text.quality;
        notes.push(format!(
            "text that people wrote: perplexity {:.2}{}, entropy {:.3}, repetition {}",
            quality.judged.perplexity(),
            // One piece has no spread.
            Some(quality.perplexity_stderr()).filter(|e| !e.is_nan()).map_or("".into(), |e| format!(" \u{b1} {e:.2}")),
            quality.entropy,
            number(quality.repetition, 3)
        ));
        notes
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        json!({
            "model": self.model,
            "judge": self.judge,
            "own_judge": self.own_judge,
            "settings": self.settings,
            "held_out": self.held_out.as_ref().map(Figures::json),
            "points": self.points.iter().map(object).collect::<Vec<_>>(),
            "summary": self.summary(),
        })
    }

    /// As comma-separated values, one point a line.
    pub fn csv(&self) -> String {
        let mut text = format!("{}\n", COLUMNS.join(","));
        for point in self.points.iter().map(object) {
            let cell = |column: &&str| match &point[*column] {
                Value::Null => String::new(),
                Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
                value => value.to_string(),
            };
            let _ = writeln!(text, "{}", COLUMNS.iter().map(cell).collect::<Vec<_>>().join(","));
        }
        text
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "block  rule                    bound  perplexity  stderr  entropy  repeated  tokens/pass  tokens/s  1st block\n",
        );
        for point in &self.points {
            let quality = &point.figures.quality;
            let mark = match (point.front, point.low_entropy) {
                (true, _) => "  front",
                (_, true) => "  low entropy",
                _ => "",
            };
            let bound = point.bound.map_or("-".into(), |bound| format!("{:.2}", bound.perplexity));
            let (stderr, repetition) = (number(quality.perplexity_stderr(), 2), number(quality.repetition, 3));
            let _ = writeln!(
                text,
                "{:>5}  {:20} {bound:>8} {:>11.2} {stderr:>7} {:>8.3} {repetition:>9} {:>12.2} {:>9.0} {:>7.1} ms{mark}",
                point.block,
                point.label,
                point.perplexity(),
                quality.entropy,
                point.figures.tokens_per_pass().unwrap_or(f64::NAN),
                point.tokens_per_second,
                point.first_block * 1e3,
            );
        }
        text
    }
}

/// A number, or that there is none.
fn number(x: f64, digits: usize) -> String {
    if x.is_nan() { "-".into() } else { format!("{x:.digits$}") }
}

/// What of a point stands in the table of values.
const COLUMNS: [&str; 19] = [
    "block",
    "rule",
    "bound_perplexity",
    "perplexity",
    "stderr",
    "entropy",
    "repetition",
    "samples",
    "tokens",
    "passes",
    "tokens_per_pass",
    "tokens_per_second",
    "speed",
    "first_block_seconds",
    "front",
    "low_entropy",
    "quality_command",
    "speed_command",
    "bound_command",
];

fn object(point: &Point) -> Value {
    let mut object = json!({"block": point.block, "rule": point.label});
    let figures = point.figures.json();
    let more = json!({
        "bound_perplexity": point.bound.map(|bound| bound.perplexity),
        "bound_stderr": point.bound.and_then(|bound| bound.stderr).zip(point.bound).map(|(e, bound)| e * bound.perplexity),
        "tokens_per_second": point.tokens_per_second,
        "speed": point.speed,
        "first_block_seconds": point.first_block,
        "front": point.front,
        "low_entropy": point.low_entropy,
    });
    if let (Value::Object(object), Value::Object(figures), Value::Object(more)) = (&mut object, figures, more) {
        object.extend(figures);
        object.extend(more);
        object.extend(point.commands.iter().map(|(of, command)| (format!("{of}_command"), json!(command))));
    }
    object
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use bd3::likelihood::RowNats;
    use bd3::likelihood::judge::Quality;

    /// Points of this block size, rate, perplexity and entropy.
    pub fn curve(points: &[(usize, f64, f64, f64)]) -> Curve {
        let point = |&(block, rate, perplexity, entropy): &(usize, f64, f64, f64)| {
            let rows = vec![RowNats { nats: f64::ln(perplexity), tokens: 1 }; 2];
            let quality = Quality { entropy, ..Quality::new(rows, std::iter::once(&[1, 2][..])).unwrap() };
            Point {
                block,
                label: "threshold 0.9",
                figures: Figures { quality, tokens: 21, passes: Some(10) },
                bound: None,
                tokens_per_second: rate,
                speed: rate / points[0].1,
                first_block: 0.01,
                commands: vec![("quality", "bd3 eval \"x\"".into()), ("speed", "bd3 sample".into())],
                low_entropy: false,
                front: false,
            }
        };
        let points = points.iter().map(point).collect();
        let (model, judge) = ("tiny".to_string(), "tiny".to_string());
        let mut curve = Curve { model, judge, own_judge: true, settings: Value::Null, held_out: None, points };
        curve.mark();
        curve
    }

    #[test]
    fn the_front_is_what_nothing_beats_and_nothing_that_repeats_itself() {
        let curve = curve(&[(1, 100.0, 20.0, 4.0), (4, 90.0, 21.0, 4.0), (4, 170.0, 20.8, 3.9), (8, 300.0, 5.0, 3.7)]);
        assert_eq!(curve.points.iter().map(|p| p.front).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!(curve.points.iter().map(|p| p.low_entropy).collect::<Vec<_>>(), [false, false, false, true]);
        let summary = "at block 4, threshold 0.9: 2.1 tokens a pass, 1.7 x the speed of block 1, threshold 0.9, \
                       perplexity 4 % higher";
        assert_eq!(curve.summary(), summary);
    }

    #[test]
    fn where_nothing_is_faster_the_summary_says_so() {
        let summary = curve(&[(1, 100.0, 20.0, 4.0), (4, 90.0, 21.0, 4.0)]).summary();
        assert_eq!(summary, "nothing is faster than block 1, threshold 0.9 (100 tokens/s, perplexity 20.0)");
        let summary = curve(&[(1, 100.0, 20.0, 4.0), (4, 300.0, 50.0, 4.0), (8, 200.0, 40.0, 4.0)]).summary();
        let expected = "nothing is faster than block 1, threshold 0.9 (100 tokens/s, perplexity 20.0) at less than 1.5 x its perplexity; \
                        at block 8, threshold 0.9: 2.1 tokens a pass, 2.0 x the speed of block 1, threshold 0.9, perplexity \
                        100 % higher";
        assert_eq!(summary, expected);
    }

    #[test]
    fn values_are_quoted_where_they_must_be() {
        let csv = curve(&[(1, 100.0, 20.0, 4.0)]).csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!((lines.len(), lines[0].split(',').count()), (2, COLUMNS.len()));
        assert!(
            lines[1].starts_with("1,\"threshold 0.9\",,")
                && lines[1].ends_with(",\"bd3 eval \"\"x\"\"\",\"bd3 sample\","),
            "{csv}"
        );
    }
}
