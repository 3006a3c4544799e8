//! Patterns of numbers, within bounds where there are any. Digits are bounded, so that a number comes to an end.

use serde_json::{Map, Value};

use super::keywords::{join, refusal, shown};
use crate::error::Result;

/// The most digits before the point, and after it.
const DIGITS: usize = 15;
/// The first integer with more digits than `DIGITS`. All below are exact as a 64-bit float.
const TOO_LARGE: i64 = 1_000_000_000_000_000;

/// Any number.
pub(super) const ANY: &str = r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?";

/// A bound, and whether it is itself excluded.
type Bound = (f64, bool);

/// Bounds as written in the schema: the tighter of the inclusive and the exclusive one of each side.
fn bounds(map: &Map<String, Value>, place: &str) -> Result<(Option<Bound>, Option<Bound>)> {
    let read = |key: &str, exclusive: bool| match map.get(key) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some((number, exclusive))),
            None => Err(refusal(&join(place, key), "a number", shown(value))),
        },
    };
    let tighter = |one: Option<Bound>, other: Option<Bound>, sign: f64| match (one, other) {
        (Some(one), Some(other)) => Some(if one.0 * sign > other.0 * sign { one } else { other }),
        (one, other) => one.or(other),
    };
    let low = tighter(read("minimum", false)?, read("exclusiveMinimum", true)?, 1.0);
    let high = tighter(read("maximum", false)?, read("exclusiveMaximum", true)?, -1.0);
    Ok((low, high))
}

fn nothing_between(place: &str) -> crate::error::Error {
    let expected = format!("bounds with a number of at most {DIGITS} digits between them");
    refusal(place, expected, "bounds with none")
}

/// An integer within the bounds of a schema.
pub(super) fn integer(map: &Map<String, Value>, place: &str) -> Result<String> {
    let (low, high) = bounds(map, place)?;
    let whole = |(bound, exclusive): Bound, inward: f64| {
        let nearest = if inward > 0.0 { bound.ceil() } else { bound.floor() };
        let moved = if exclusive && nearest == bound { nearest + inward } else { nearest };
        moved.clamp(-TOO_LARGE as f64, TOO_LARGE as f64) as i64
    };
    let low = low.map_or(1 - TOO_LARGE, |bound| whole(bound, 1.0)).max(1 - TOO_LARGE);
    let high = high.map_or(TOO_LARGE - 1, |bound| whole(bound, -1.0)).min(TOO_LARGE - 1);
    if low > high {
        return Err(nothing_between(place));
    }
    if -low == high && high == TOO_LARGE - 1 {
        return Ok(format!("(?:0|-?[1-9][0-9]{{0,{}}})", DIGITS - 1));
    }
    let mut ways = Vec::new();
    if low < 0 {
        ways.push(format!("-{}", range((-high).max(1), -low)));
    }
    if high >= 0 {
        ways.push(range(low.max(0), high));
    }
    Ok(format!("(?:{})", ways.join("|")))
}

/// A number within the bounds of a schema, which have to be whole. Bounded numbers are written without exponent.
pub(super) fn number(map: &Map<String, Value>, place: &str) -> Result<String> {
    let (low, high) = bounds(map, place)?;
    if low.is_none() && high.is_none() {
        return Ok(format!("(?:{ANY})"));
    }
    let fractional = |key: &str| map.get(key).and_then(Value::as_f64).is_some_and(|bound| bound.fract() != 0.0);
    let keys = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];
    if let Some(key) = keys.into_iter().find(|key| fractional(key)) {
        let expected = "a whole number, unless the type is integer";
        return Err(refusal(&join(place, key), expected, map.get(key).map_or_else(String::new, shown)));
    }
    let limit = TOO_LARGE as f64;
    let mut fraction = DIGITS;
    for (bound, exclusive) in [low, high].into_iter().flatten() {
        // Of a number near an excluded bound a reader with 64-bit floats must not make the bound itself.
        let length = format!("{}", bound.abs()).len();
        fraction =
            if exclusive && bound.abs() < limit { fraction.min(DIGITS.saturating_sub(length)) } else { fraction };
    }
    let side = |bound: Option<Bound>, open: f64| match bound {
        Some((bound, exclusive)) if bound.abs() < limit => (bound as i64, exclusive),
        Some((bound, _)) => (bound.clamp(-limit, limit) as i64, true),
        None => (open as i64, true),
    };
    let (low, high) = (side(low, -limit), side(high, limit));
    let mut ways = Vec::new();
    if low.0 < 0 {
        let least = if high.0 < 0 { (-high.0, high.1) } else { (0, true) };
        ways.extend(decimals(least, (-low.0, low.1), fraction).map(|text| format!("-{text}")));
    }
    if high.0 >= 0 {
        ways.extend(decimals(if low.0 < 0 { (0, false) } else { low }, high, fraction));
    }
    if ways.is_empty() {
        return Err(nothing_between(place));
    }
    Ok(format!("(?:{})", ways.join("|")))
}

/// Decimals between bounds that are not negative, each with whether it is excluded, with some digits after the point.
fn decimals(low: (i64, bool), high: (i64, bool), fraction: usize) -> Option<String> {
    let mut ways = Vec::new();
    let some = |digits: &str| if fraction == 0 { String::new() } else { format!(r"(?:\.{digits}{{1,{fraction}}})?") };
    if low.1 && low.0 < high.0 && fraction > 0 {
        // Some digit is not zero; spelled out by the zeros before it, so that reading on needs no looking back.
        let digits = |zeros: usize| format!("0{{{zeros}}}[1-9][0-9]{{0,{}}}", fraction - 1 - zeros);
        ways.push(format!(r"{}\.(?:{})", low.0, (0..fraction).map(digits).collect::<Vec<_>>().join("|")));
    }
    let first = low.0 + i64::from(low.1);
    if first < high.0 {
        ways.push(format!("{}{}", range(first, high.0 - 1), some("[0-9]")));
    }
    if first <= high.0 && !high.1 {
        ways.push(format!("{}{}", high.0, some("0")));
    }
    if ways.is_empty() { None } else { Some(format!("(?:{})", ways.join("|"))) }
}

/// The integers from `low` to `high`, neither negative.
fn range(low: i64, high: i64) -> String {
    let mut ways = Vec::new();
    let mut low = low;
    if low == 0 {
        ways.push("0".to_owned());
        low = 1;
    }
    // The lengths of which every integer is in the range make one part; only the first and the last can be others.
    let mut all = None;
    while low <= high {
        let length = low.to_string().len();
        let end = 10_i64.pow(length as u32) - 1;
        if low == (end + 1) / 10 && end <= high {
            all = Some((all.map_or(length, |(from, _)| from), length));
        } else {
            ways.push(same_length(low.to_string().as_bytes(), end.min(high).to_string().as_bytes()));
        }
        low = end + 1;
    }
    match all {
        Some((1, 1)) => ways.push("[1-9]".to_owned()),
        Some((from, to)) => ways.push(format!("[1-9][0-9]{{{},{}}}", from - 1, to - 1)),
        None => {}
    }
    if ways.len() == 1 { ways.concat() } else { format!("(?:{})", ways.join("|")) }
}

/// The digits from `low` to `high`, of the same length; recursion goes as deep as that.
fn same_length(low: &[u8], high: &[u8]) -> String {
    let ([a, low_rest @ ..], [b, high_rest @ ..]) = (low, high) else { return String::new() };
    let (least, most) = (low_rest.iter().all(|digit| *digit == b'0'), high_rest.iter().all(|digit| *digit == b'9'));
    let rest = match low_rest.len() {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        length => format!("[0-9]{{{length}}}"),
    };
    let digits = |from: u8, to: u8| match from == to {
        true => char::from(from).to_string(),
        false => format!("[{}-{}]", char::from(from), char::from(to)),
    };
    if least && most {
        return format!("{}{rest}", digits(*a, *b));
    }
    if a == b {
        return format!("{}{}", char::from(*a), same_length(low_rest, high_rest));
    }
    let (from, to) = (if least { *a } else { a + 1 }, if most { *b } else { b - 1 });
    let mut ways = Vec::new();
    if !least {
        ways.push(format!("{}{}", char::from(*a), same_length(low_rest, &vec![b'9'; low_rest.len()])));
    }
    if from <= to {
        ways.push(format!("{}{rest}", digits(from, to)));
    }
    if !most {
        ways.push(format!("{}{}", char::from(*b), same_length(&vec![b'0'; high_rest.len()], high_rest)));
    }
    format!("(?:{})", ways.join("|"))
}
