//! The picture of a curve, as SVG: how fast text is written, from left to right, and how a judge likes it, better below. It follows
//! the reader's light or dark scheme, and needs no font but the system's.

use std::fmt::Write as _;

use super::labels::{self, Line, Place};
use super::report::{Curve, LOST_ENTROPY, Point};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = HEIGHT - 52.0;
/// Of a point.
const RADIUS: f64 = 5.0;
/// Okabe and Ito's colours, which most colour-blind readers can tell apart: on white, and lighter ones on black.
const COLOURS: [(&str, &str); 6] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#3fd0a4"),
    ("#b0589a", "#e39ac8"),
    ("#a67c00", "#f0c246"),
    ("#555555", "#bbbbbb"),
];

/// Draws it.
pub fn draw(curve: &Curve) -> String {
    let axes = Axes::around(curve);
    let mut sizes: Vec<usize> = curve.points.iter().map(|point| point.block).collect();
    sizes.dedup();
    let mut svg = head();
    title(&mut svg, curve, &sizes);
    axes.draw(&mut svg);
    let mut lines = front(curve, &axes);
    for ((x, y), (to_x, to_y)) in &lines {
        let _ = writeln!(svg, "<path class=\"front\" d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\"/>");
    }
    if let Some(text) = &curve.held_out {
        let y = axes.y(text.quality.judged.perplexity());
        let _ = writeln!(svg, "<path class=\"text\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        lines.push(((LEFT, y), (RIGHT, y)));
    }
    for point in &curve.points {
        let (x, y) = axes.at(point);
        let colour = sizes.iter().position(|&size| size == point.block).unwrap_or_default() % COLOURS.len();
        let hollow = if point.low_entropy { " hollow" } else { "" };
        let _ = writeln!(svg, "<circle class=\"c{colour}{hollow}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{RADIUS}\"/>");
    }
    for place in names(curve, &axes, &lines) {
        if let Some(((x, y), (to_x, to_y))) = place.leader {
            let _ = writeln!(svg, "<path class=\"leader\" d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\"/>");
        }
        let (x, y) = place.baseline();
        let _ = writeln!(svg, "<text class=\"halo\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(&place.text));
    }
    svg + "</svg>\n"
}

fn head() -> String {
    let scheme = |ink: &str, paper: &str, grid: &str, colour: fn((&'static str, &'static str)) -> &'static str| {
        let colours = COLOURS.into_iter().enumerate();
        let colours: String = colours
            .map(|(i, both)| format!(".c{i}{{fill:{0};stroke:{0}}}text.c{i}{{stroke:none}}", colour(both)))
            .collect();
        format!(
            "text{{fill:{ink}}}.paper{{fill:{paper}}}.halo{{stroke:{paper}}}.hollow{{fill:{paper}}}.grid{{stroke:{grid}}}\
             .axis,.front,.text,.leader{{stroke:{ink}}}{colours}.hollow{{fill:{paper}}}"
        )
    };
    let light = scheme("#222222", "#ffffff", "#e4e4e4", |both| both.0);
    let dark = scheme("#e6edf3", "#0d1117", "#2b3138", |both| both.1);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\">\n<style>\n\
         text{{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}}\n\
         .small{{font-size:12px}}.title{{font-size:16px;font-weight:600}}.middle{{text-anchor:middle}}.end{{text-anchor:end}}\n\
         path{{fill:none}}circle{{stroke-width:2}}.halo{{paint-order:stroke;stroke-width:3px;font-size:{}px}}\n\
         .front{{stroke-width:1.5;opacity:.55}}.text{{stroke-dasharray:6 5;opacity:.7}}.leader{{opacity:.45}}\n\
         {light}\n@media(prefers-color-scheme:dark){{{dark}}}\n</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n",
        labels::FONT,
    )
}

/// What is shown, and which colour is which block size.
fn title(svg: &mut String, curve: &Curve, sizes: &[usize]) {
    let name = |path: &str| escaped(path.rsplit(['/', '\\']).next().unwrap_or(path));
    let judge = if curve.own_judge { "itself at block 1".into() } else { name(&curve.judge) };
    let title = format!("Speed and quality of {}, judged by {judge}", name(&curve.model));
    let _ = writeln!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"28\">{title}</text>");
    let mut x = LEFT + 6.0;
    for (index, size) in sizes.iter().enumerate() {
        let (colour, text) = (index % COLOURS.len(), format!("block {size}"));
        let _ = writeln!(svg, "<circle class=\"c{colour}\" cx=\"{x:.1}\" cy=\"50\" r=\"{RADIUS}\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"54.5\">{text}</text>", x + 10.0);
        x += labels::width(&text) + 36.0;
    }
    let mut legend = "line: nothing is faster and better".to_string();
    if curve.points.iter().any(|point| point.low_entropy) {
        let than = if curve.held_out.is_some() { "people's" } else { "the first" };
        let _ = write!(legend, "; hollow: entropy {LOST_ENTROPY} nats or more below {than}");
    }
    let _ = writeln!(svg, "<text class=\"small end\" x=\"{RIGHT}\" y=\"54.5\">{legend}</text>");
}

/// The front: from each point right to the next faster one, then up to it.
fn front(curve: &Curve, axes: &Axes) -> Vec<Line> {
    let mut places: Vec<(f64, f64)> = curve.points.iter().filter(|p| p.front).map(|p| axes.at(p)).collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    let corner = |pair: &[(f64, f64)]| {
        let corner = (pair[1].0, pair[0].1);
        [(pair[0], corner), (corner, pair[1])]
    };
    places.windows(2).flat_map(corner).collect()
}

/// The names of the points, where there is room for them; those of the front choose first.
fn names(curve: &Curve, axes: &Axes, lines: &[Line]) -> Vec<Place> {
    let mut order: Vec<&Point> = curve.points.iter().collect();
    order.sort_by_key(|point| !point.front);
    let marks: Vec<(f64, f64)> = curve.points.iter().map(|point| axes.at(point)).collect();
    let mut named: Vec<((f64, f64), String)> =
        order.iter().map(|point| (axes.at(point), point.label.to_string())).collect();
    if let Some(text) = &curve.held_out {
        let perplexity = text.quality.judged.perplexity();
        let label = format!("text that people wrote: {perplexity:.1}");
        // Above its line, at the end.
        named.insert(0, ((RIGHT - labels::width(&label) - 14.0, axes.y(perplexity) - 10.0), label));
    }
    labels::place(&named, &marks, lines, (LEFT, TOP, RIGHT, BOTTOM))
}

/// Where numbers lie: tokens per second from 0 on, perplexity by its logarithm.
struct Axes {
    fastest: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn around(curve: &Curve) -> Self {
        let finite = |values: &mut dyn Iterator<Item = f64>| values.filter(|v| v.is_finite()).collect::<Vec<f64>>();
        let speeds = finite(&mut curve.points.iter().map(|point| point.tokens_per_second));
        let text = curve.held_out.as_ref().map(|text| text.quality.judged.perplexity());
        let heights = finite(&mut curve.points.iter().map(Point::perplexity).chain(text));
        let most = |values: &[f64]| values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let high = most(&heights).max(1.0) * 1.12;
        let low = heights.iter().copied().fold(f64::INFINITY, f64::min).min(high) / 1.3;
        // Less than this and the axis has no two marks.
        Self { fastest: most(&speeds) * 1.08, low, high: high.max(low * 2.5) }
    }

    fn x(&self, speed: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * speed / self.fastest
    }

    fn y(&self, perplexity: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (perplexity / self.low).ln() / (self.high / self.low).ln()
    }

    fn at(&self, point: &Point) -> (f64, f64) {
        (self.x(point.tokens_per_second), self.y(point.perplexity()))
    }

    fn draw(&self, svg: &mut String) {
        let step = round_step(self.fastest / 7.0);
        for index in 0..=(self.fastest / step) as usize {
            let value = index as f64 * step;
            let x = self.x(value);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>");
            let _ =
                writeln!(svg, "<text class=\"small middle\" x=\"{x:.1}\" y=\"{:.1}\">{value}</text>", BOTTOM + 18.0);
        }
        for value in marks(self.low, self.high) {
            let y = self.y(value);
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            let at = format!("x=\"{:.1}\" y=\"{:.1}\"", LEFT - 8.0, y + 4.0);
            let _ = writeln!(svg, "<text class=\"small end\" {at}>{value}</text>");
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
        let (middle, below) = ((LEFT + RIGHT) / 2.0, HEIGHT - 14.0);
        let _ = writeln!(
            svg,
            "<text class=\"middle\" x=\"{middle}\" y=\"{below}\">tokens per second, one sample at a time</text>"
        );
        let centre = (TOP + BOTTOM) / 2.0;
        let turned = format!("x=\"18\" y=\"{centre}\" transform=\"rotate(-90 18 {centre})\"");
        let _ = writeln!(svg, "<text class=\"middle\" {turned}>perplexity under the judge</text>");
    }
}

/// The next of 1, 2, 5, 10, 20, 50, ...
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|&step| step >= least).unwrap_or(10.0 * power)
}

/// Round numbers on a logarithmic axis: 1, 1.5, 2, 3, 5, 7, 10, ...
fn marks(low: f64, high: f64) -> Vec<f64> {
    let mut marks = Vec::new();
    let mut power = 10f64.powf(low.log10().floor());
    while power < high {
        marks.extend(
            [1.0, 1.5, 2.0, 3.0, 5.0, 7.0].map(|mark| mark * power).into_iter().filter(|m| (low..high).contains(m)),
        );
        power *= 10.0;
    }
    marks
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::curve;
    use super::*;

    #[test]
    fn a_picture_has_every_point_and_both_schemes() {
        let mut curve = curve(&[(1, 900.0, 24.0, 4.2), (4, 1800.0, 25.0, 4.2), (8, 2000.0, 6.0, 3.0)]);
        curve.model = "models/<a>&b".into();
        let svg = draw(&curve);
        // Three block sizes in the legend and three points.
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"c2 hollow\"").count()), (6, 1));
        for part in ["prefers-color-scheme:dark", "of &lt;a&gt;&amp;b, judged", "tokens per second", ">500<", ">10<"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        // One point, and one that took no time.
        for points in [&[(1, 0.0, 1.0, 0.0)][..], &[(1, f64::INFINITY, 3.0, 1.0)]] {
            assert!(draw(&super::super::report::tests::curve(points)).ends_with("</svg>\n"));
        }
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(8.0, 40.0), [10.0, 15.0, 20.0, 30.0]);
        assert_eq!([0.7, 1.0, 130.0, 401.0].map(round_step), [1.0, 1.0, 200.0, 500.0]);
    }
}
