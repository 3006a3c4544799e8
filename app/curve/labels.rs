//! Where names of points stand in a picture: beside them, and where that is taken, further away with a line that leads there.

/// Height of the letters.
pub const FONT: f64 = 12.0;
/// Width of a letter, on the generous side: which font there will be is not known.
const LETTER: f64 = 6.4;
/// What a point takes up, from its centre.
const MARK: f64 = 7.0;
/// How far away a name may be from its point, nearest first.
const DISTANCES: [f64; 12] = [10.0, 15.0, 22.0, 30.0, 40.0, 50.0, 62.0, 76.0, 90.0, 106.0, 124.0, 144.0];
/// From here on a line leads from the point to its name.
const NEAR: f64 = 16.0;
/// In which directions, as parts of a turn, clockwise from the right.
const DIRECTIONS: [f64; 16] =
    [0.0, 0.5, 0.75, 0.25, 0.875, 0.125, 0.625, 0.375, 0.9375, 0.0625, 0.5625, 0.4375, 0.8125, 0.1875, 0.6875, 0.3125];

type Spot = (f64, f64);
/// From where to where.
pub type Line = (Spot, Spot);

/// A name and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The name.
    pub text: String,
    /// The line from its point, where it is far away.
    pub leader: Option<Line>,
    area: Area,
}

impl Place {
    /// Where its letters begin.
    pub fn baseline(&self) -> Spot {
        (self.area.left, self.area.bottom - 3.5)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn around((x, y): Spot, (half_width, half_height): Spot) -> Self {
        Self { left: x - half_width, top: y - half_height, right: x + half_width, bottom: y + half_height }
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn inside(&self, (left, top, right, bottom): (f64, f64, f64, f64)) -> bool {
        self.left >= left && self.top >= top && self.right <= right && self.bottom <= bottom
    }

    /// Does a line run through it? (Looked at every few units of it.)
    fn crossed(&self, (from, to): Line) -> bool {
        let steps = ((to.0 - from.0).hypot(to.1 - from.1) / 4.0).ceil().max(1.0) as u32;
        (0..=steps).map(|i| f64::from(i) / f64::from(steps)).any(|t| {
            let (x, y) = (from.0 + (to.0 - from.0) * t, from.1 + (to.1 - from.1) * t);
            (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
        })
    }
}

/// About how wide a text is.
pub fn width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// Places names, each beside its point, in this order: over no other name, over none of the `marks` and `lines`, inside the frame
/// (left, top, right, bottom). A name for which there is no room is left out.
pub fn place(named: &[(Spot, String)], marks: &[Spot], lines: &[Line], frame: (f64, f64, f64, f64)) -> Vec<Place> {
    let marks: Vec<Area> = marks.iter().map(|&mark| Area::around(mark, (MARK, MARK))).collect();
    let mut placed: Vec<Place> = Vec::new();
    for (point, text) in named {
        let free = candidates(*point, text).find(|place| {
            let over = |area: &Area| place.area.meets(area);
            let apart = |other: &Place| {
                let crosses = place.leader.is_some_and(|line| other.area.crossed(line));
                let crossed = other.leader.is_some_and(|line| place.area.crossed(line));
                !over(&other.area) && !crosses && !crossed
            };
            let free = !marks.iter().any(over) && !lines.iter().any(|&line| place.area.crossed(line));
            place.area.inside(frame) && free && placed.iter().all(apart)
        });
        placed.extend(free);
    }
    placed
}

fn candidates(point: Spot, text: &str) -> impl Iterator<Item = Place> {
    let (half_width, half_height) = (width(text) / 2.0, FONT / 2.0 + 2.0);
    let all = DISTANCES.into_iter().flat_map(|distance| DIRECTIONS.map(|direction| (distance, direction)));
    all.map(move |(distance, direction)| {
        let (sin, cos) = (direction * std::f64::consts::TAU).sin_cos();
        // Rounded, so that what is straight above is not a little to the right.
        let [sin, cos] = [sin, cos].map(|x| (x * 1e9).round() / 1e9);
        let end = (point.0 + cos * distance, point.1 + sin * distance);
        let centre = (end.0 + cos.signum() * if cos == 0.0 { 0.0 } else { half_width }, end.1 + sin * half_height);
        let area = Area::around(centre, (half_width, half_height));
        let start = (point.0 + cos * MARK, point.1 + sin * MARK);
        let leader = (distance >= NEAR).then_some((start, end));
        Place { text: text.into(), leader, area }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: (f64, f64, f64, f64) = (0.0, 0.0, 900.0, 500.0);

    #[test]
    fn a_name_stands_to_the_right_of_its_point_where_there_is_room() {
        let names = [((100.0, 100.0), "alone".to_string()), ((890.0, 300.0), "at the edge".to_string())];
        let placed = place(&names, &[names[0].0, names[1].0], &[], FRAME);
        assert_eq!(placed[0].baseline().0, 110.0);
        assert!(placed[1].area.right <= 880.0 && placed.iter().all(|place| place.leader.is_none()));
    }

    #[test]
    fn names_of_a_crowd_are_apart() {
        let points: Vec<Spot> =
            (0..16).map(|i| (400.0 + 16.0 * f64::from(i % 4), 230.0 + 12.0 * f64::from(i / 4))).collect();
        let names: Vec<(Spot, String)> = points.iter().map(|&point| (point, "confidence 4".to_string())).collect();
        let line = ((0.0, 285.0), (900.0, 285.0));
        let placed = place(&names, &points, &[line], FRAME);
        assert!(placed.len() >= 14, "{}", placed.len());
        for (i, place) in placed.iter().enumerate() {
            assert!(place.area.inside(FRAME) && (place.area.bottom <= 285.0 || place.area.top >= 285.0));
            assert!(placed[..i].iter().all(|other| !other.area.meets(&place.area)));
            assert!(points.iter().all(|&point| !Area::around(point, (MARK, MARK)).meets(&place.area)));
        }
    }
}
