//! The picture of a training run: loss and validation over steps, as SVG, from the rows of log.jsonl. It knows nothing of the
//! loop that wrote them.

use std::collections::BTreeMap;
use std::path::Path;

use bd3::format::write_atomic;
use bd3::{Error, Result};
use plotters::prelude::*;
use serde_json::Value;

const SIZE: (u32, u32) = (960, 540);
/// More points than these would only make the file larger.
const POINTS: usize = 600;
/// The smoothed loss at a step is the mean over this share of the run around it.
const SMOOTHING: f64 = 0.02;
/// The first steps fall from the logarithm of the vocabulary; the axis ends at the loss that is reached after this share.
const FALL: f64 = 0.03;
const GREY: RGBColor = RGBColor(150, 150, 150);
/// Okabe and Ito's colours, which most colour-blind readers can tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

type Points = Vec<(f64, f64)>;

/// What a log says: by step, in nats.
#[derive(Debug, Default, PartialEq)]
struct Curves {
    loss: Points,
    /// By block size, and by source where there are several.
    validation: BTreeMap<(u64, Option<u64>), Points>,
}

/// Draws `log` (JSON lines) into `svg`.
///
/// # Errors
/// A log that can't be read or is none, or a picture that can't be written.
pub fn draw(log: &Path, svg: &Path) -> Result<()> {
    let text = std::fs::read_to_string(log).map_err(|e| Error::io(log, e))?;
    let picture = picture(&curves(log, &text)?).map_err(|e| Error::Run(format!("{}: {e}", svg.display())))?;
    write_atomic(svg, |out| out.write_all(picture.as_bytes()))
}

fn curves(path: &Path, text: &str) -> Result<Curves> {
    let mut curves = Curves::default();
    for (index, line) in text.lines().enumerate() {
        let row: Value = serde_json::from_str(line)
            .map_err(|e| Error::key(path, format!("line {}", index + 1), "a JSON object", e.to_string()))?;
        let number = |key: &str| row[key].as_f64();
        match (number("step"), number("loss"), row["block"].as_u64(), number("nats")) {
            (Some(step), _, Some(block), Some(nats)) => {
                let of = (block, row["source"].as_u64());
                curves.validation.entry(of).or_default().push((step, nats));
            }
            (Some(step), Some(loss), ..) => curves.loss.push((step, loss)),
            _ => {} // a note, such as where the run was resumed
        }
    }
    Ok(curves)
}

/// Means over a window around each of at most [`POINTS`] places.
fn smooth(points: &[(f64, f64)]) -> Points {
    let half = (points.len() as f64 * SMOOTHING / 2.0).ceil() as usize;
    let place = |i: usize| {
        let around = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
        (points[i].0, around.iter().map(|point| point.1).sum::<f64>() / around.len() as f64)
    };
    thin(points.len()).map(place).collect()
}

fn thin(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(POINTS).max(1))
}

/// The least and the greatest loss that the picture shows.
fn heights(smoothed: &[(f64, f64)], curves: &Curves) -> (f64, f64) {
    let fallen = (smoothed.len() as f64 * FALL) as usize;
    let shown = || curves.validation.values().flatten().chain(&smoothed[fallen..]).map(|point| point.1);
    let (low, high) = (shown().fold(f64::INFINITY, f64::min), shown().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return (0.0, 1.0);
    }
    let margin = (high - low).max(0.1) * 0.05;
    (low - margin, high + margin)
}

fn picture(curves: &Curves) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let smoothed = smooth(&curves.loss);
    let (low, high) = heights(&smoothed, curves);
    let last = curves.validation.values().flatten().chain(&curves.loss).map(|point| point.0).fold(1.0, f64::max);
    let inside = |points: Points| points.into_iter().filter(move |point| (low..=high).contains(&point.1));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last, low..high)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_desc("step")
            .y_desc("nats per token")
            .x_label_formatter(&|step| format!("{step:.0}"))
            .y_label_formatter(&|nats| format!("{nats:.2}"))
            .label_style(("sans-serif", 15))
            .draw()?;
        let raw = inside(thin(curves.loss.len()).map(|i| curves.loss[i]).collect());
        chart.draw_series(raw.map(|at| Circle::new(at, 2, GREY.mix(0.5).filled())))?;
        let line = LineSeries::new(inside(smoothed), BLACK.stroke_width(2));
        chart.draw_series(line)?.label("training loss").legend(|at| legend(at, BLACK));
        for (((block, source), points), colour) in curves.validation.iter().zip(COLOURS.into_iter().cycle()) {
            let of = source.map_or(String::new(), |source| format!(", source {source}"));
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(format!("validation, block {block}{of}"))
                .legend(move |at| legend(at, colour));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        let labels = &mut chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8)).border_style(GREY);
        labels.label_font(("sans-serif", 15)).draw()?;
        area.present()?;
    }
    Ok(svg)
}

fn legend((x, y): (i32, i32), colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_curves() {
        let text = "{\"step\":1,\"loss\":3.5,\"lr\":0}\n{\"step\":1,\"block\":4,\"nats\":3.0,\"perplexity\":20}\n{\"resumed\":1}\n";
        let curves = curves(Path::new("log.jsonl"), text).unwrap();
        assert_eq!(curves.loss, [(1.0, 3.5)]);
        assert_eq!(curves.validation, BTreeMap::from([((4, None), vec![(1.0, 3.0)])]));
        let error = super::curves(Path::new("log.jsonl"), "{}\n{\"step\":").unwrap_err().to_string();
        assert!(error.starts_with("log.jsonl: `line 2`: expected a JSON object"), "{error}");
    }

    #[test]
    fn smoothing_keeps_the_mean_and_limits_the_points() {
        let points: Points = (0..5000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smoothed = smooth(&points);
        assert!(smoothed.len() <= POINTS);
        assert!(smoothed.iter().all(|point| (point.1 - 0.5).abs() < 0.01));
        assert!(smooth(&[]).is_empty());
    }

    #[test]
    fn a_picture_names_its_axes_and_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (log, svg) = (dir.path().join("log.jsonl"), dir.path().join("loss.svg"));
        let rows: String = (1..300)
            .map(|step| format!("{{\"step\":{step},\"loss\":{}}}\n", 2.0 + 6.0 / f64::from(step)))
            .chain(["{\"step\":299,\"block\":16,\"nats\":2.1,\"perplexity\":8.2}\n".into()])
            .collect();
        std::fs::write(&log, rows).unwrap();
        draw(&log, &svg).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        for part in ["<svg", "nats per token", "training loss", "validation, block 16"] {
            assert!(text.contains(part), "{part}");
        }
        std::fs::write(&log, "").unwrap();
        draw(&log, &svg).unwrap();
    }
}
