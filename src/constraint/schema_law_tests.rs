//! Checks of whole languages: texts made at random from a pattern are valid for a validator that knows nothing of it,
//! and ranges, dates and property subsets are matched exactly.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Value, json};

use super::{any_object, pattern};

/// A matcher of whole texts.
pub(super) fn matcher(pattern: &str) -> Regex {
    RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(1 << 28).build().unwrap()
}

/// A small generator of pseudo-random numbers (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// Appends a random text that an expression matches.
fn write(tree: &Hir, dice: &mut Dice, text: &mut String) {
    match tree.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).unwrap()),
        HirKind::Class(Class::Unicode(class)) => {
            let range = class.ranges()[dice.roll(class.ranges().len() as u64) as usize];
            let (start, end) = (u32::from(range.start()), u32::from(range.end()));
            let end = if dice.roll(4) > 0 { end.min(start + 90) } else { end };
            let code = start + dice.roll(u64::from(end - start) + 1) as u32;
            text.push(char::from_u32(code).unwrap_or(range.start()));
        }
        HirKind::Repetition(part) => {
            let room = part.max.map_or(8, |max| max - part.min);
            let more = if dice.roll(8) == 0 { room } else { room.min(2) };
            for _ in 0..part.min + dice.roll(u64::from(more) + 1) as u32 {
                write(&part.sub, dice, text);
            }
        }
        HirKind::Capture(part) => write(&part.sub, dice, text),
        HirKind::Concat(parts) => parts.iter().for_each(|part| write(part, dice, text)),
        HirKind::Alternation(parts) => write(&parts[dice.roll(parts.len() as u64) as usize], dice, text),
        other => panic!("{other:?} in a pattern"),
    }
}

fn of_type(value: &Value, name: &str) -> bool {
    match name {
        "integer" => value.as_f64().is_some_and(|number| number % 1.0 == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

/// Two values are equal, numbers by what they amount to.
fn same(one: &Value, other: &Value) -> bool {
    one == other || one.is_number() && other.is_number() && one.as_f64() == other.as_f64()
}

fn is_date(text: &str) -> bool {
    let parts: Vec<u32> = text.split('-').map(|part| part.parse().unwrap_or(0)).collect();
    let [year, month, day] = parts[..] else { return false };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    text.len() == 10 && (1..=12).contains(&month) && (1..=days[month as usize - 1]).contains(&day)
}

fn of_format(text: &str, format: &str) -> bool {
    match format {
        "date" => is_date(text),
        "date-time" => text.split_once('T').is_some_and(|(date, time)| is_date(date) && of_format(time, "time")),
        "time" => {
            let (clock, zone) = text.split_at(8);
            let zone = zone.trim_start_matches(|part: char| part == '.' || part.is_ascii_digit());
            let small = |text: &str| {
                let parts: Vec<u32> = text.split(':').map(|part| part.parse().unwrap_or(99)).collect();
                parts[0] < 24 && parts[1..].iter().all(|part| *part < 60)
            };
            small(clock) && (zone == "Z" || zone.len() == 6 && small(&zone[1..]))
        }
        "uuid" => text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12]),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "email" => text.split('@').count() == 2 && text.len() < 254 && !text.contains(".."),
        _ => true,
    }
}

/// Whether one keyword of a schema allows a value.
fn allows(root: &Value, schema: &Value, key: &str, value: &Value) -> bool {
    let said = &schema[key];
    let branches = || said.as_array().unwrap().iter().filter(|branch| valid(root, branch, value)).count();
    let number = value.as_f64();
    let than = |compare: fn(f64, f64) -> bool| number.is_none_or(|number| compare(number, said.as_f64().unwrap()));
    let count = said.as_u64().unwrap_or(0) as usize;
    match key {
        "type" if said.is_string() => of_type(value, said.as_str().unwrap()),
        "type" => said.as_array().unwrap().iter().any(|name| of_type(value, name.as_str().unwrap())),
        "const" => same(said, value),
        "enum" => said.as_array().unwrap().iter().any(|one| same(one, value)),
        "anyOf" => branches() > 0,
        "oneOf" => branches() == 1,
        "allOf" => branches() == said.as_array().unwrap().len(),
        "$ref" => valid(root, root.pointer(&said.as_str().unwrap()[1..]).unwrap(), value),
        "minimum" => than(|number, bound| number >= bound),
        "maximum" => than(|number, bound| number <= bound),
        "exclusiveMinimum" => than(|number, bound| number > bound),
        "exclusiveMaximum" => than(|number, bound| number < bound),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= count),
        "minItems" => value.as_array().is_none_or(|items| items.len() >= count),
        "maxItems" => value.as_array().is_none_or(|items| items.len() <= count),
        "pattern" => value.as_str().is_none_or(|text| Regex::new(said.as_str().unwrap()).unwrap().is_match(text)),
        "format" => value.as_str().is_none_or(|text| of_format(text, said.as_str().unwrap())),
        "properties" => value.as_object().is_none_or(|map| {
            map.iter().all(|(name, value)| said.get(name).is_none_or(|schema| valid(root, schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let known = |name: &str| schema.get("properties").is_some_and(|known| known.get(name).is_some());
            map.iter().all(|(name, value)| known(name) || valid(root, said, value))
        }),
        "required" => value
            .as_object()
            .is_none_or(|map| said.as_array().unwrap().iter().all(|name| map.contains_key(name.as_str().unwrap()))),
        "prefixItems" => value.as_array().is_none_or(|items| {
            items.iter().zip(said.as_array().unwrap()).all(|(value, schema)| valid(root, schema, value))
        }),
        "items" => value.as_array().is_none_or(|items| {
            let first = schema.get("prefixItems").map_or(0, |first| first.as_array().unwrap().len());
            items.iter().skip(first).all(|value| valid(root, said, value))
        }),
        "title" | "uniqueItems" | "description" | "$defs" | "default" | "discriminator" => true,
        other => panic!("keyword {other}"),
    }
}

pub(super) fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    match schema {
        Value::Bool(all) => *all,
        Value::Object(map) => map.keys().all(|key| allows(root, schema, key, value)),
        other => panic!("schema {other}"),
    }
}

fn schemas() -> Vec<Value> {
    let tag = |name: &str, more: Value| json!({"type": "object", "properties": {"kind": {"const": name}, "value": more}, "required": ["kind"]});
    vec![
        json!(true),
        json!({"type": "object"}),
        json!({"type": "array"}),
        json!({"type": ["string", "null", "boolean"]}),
        json!({"type": "integer"}),
        json!({"type": "number"}),
        json!({"type": "integer", "minimum": -37, "exclusiveMaximum": 1234}),
        json!({"type": "integer", "minimum": 17.5}),
        json!({"type": "integer", "maximum": -5}),
        json!({"type": "number", "minimum": 0}),
        json!({"type": "number", "exclusiveMinimum": 0}),
        json!({"type": "number", "exclusiveMaximum": 0}),
        json!({"type": "number", "minimum": 0, "maximum": 1}),
        json!({"type": "number", "exclusiveMinimum": -123456789, "exclusiveMaximum": 99999999}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "minLength": 3}),
        json!({"type": "string", "pattern": "^[A-Z][a-z]{0,5}( [0-9]+)?$"}),
        json!({"type": "string", "pattern": "[^0-9]x|^y"}),
        json!({"type": "string", "format": "date-time"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "time"}),
        json!({"type": "string", "format": "email"}),
        json!({"enum": ["a\"b\\\n", 1.5, null, {"é": [1, {}]}, [], "(.*)"]}),
        json!({"type": ["string", "integer"], "enum": ["x", 3, 4.5, null]}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": false}),
        json!({"prefixItems": [{"type": "null"}, {"const": 2}], "items": {"type": "boolean"}, "minItems": 1}),
        json!({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 3}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"properties": {"a": {"type": "null"}, "b": false, "c": {"const": 1}, "d~/ \"": true},
               "required": ["z", "c"], "additionalProperties": {"type": "boolean"}}),
        json!({"properties": {"a": {"type": "null"}, "b": {"const": 1}, "c": {"type": "array", "maxItems": 0},
               "d": {"type": "integer"}, "e": {"type": "string"}}, "additionalProperties": false}),
        json!({"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"type": "null"}, {"enum": [1, 2]},
                         {"enum": [3, "y"]}], "discriminator": {"propertyName": "kind"},
               "$defs": {"a": tag("a", json!({"type": "integer"})), "b": {"allOf": [tag("b", json!(true))]}}}),
        json!({"type": "object", "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "null"},
               {"maxLength": 3, "properties": {"b": {"$ref": "#/$defs/d%20e"}}}], "$defs": {"d%20e": true, "d e": true}}),
    ]
}

#[test]
fn texts_at_random_are_valid() {
    for (seed, schema) in schemas().iter().enumerate() {
        let pattern = pattern(schema).unwrap();
        let (tree, matcher) = (regex_syntax::parse(&pattern).unwrap(), matcher(&pattern));
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (seed as u64 + 1));
        for _ in 0..150 {
            let mut text = String::new();
            write(&tree, &mut dice, &mut text);
            assert!(matcher.is_match(&text), "{schema}: {text}");
            // A text with one character changed is held to the same, if it still matches.
            let mut changed: Vec<char> = text.chars().collect();
            let at = dice.roll(changed.len() as u64) as usize;
            match dice.roll(3) {
                0 => drop(changed.remove(at)),
                1 => changed.insert(at, changed[dice.roll(changed.len() as u64) as usize]),
                _ => changed[at] = char::from(b' ' + dice.roll(95) as u8),
            }
            let changed: String = changed.into_iter().collect();
            for text in [text, changed].iter().filter(|text| matcher.is_match(text)) {
                let value: Value =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{schema}: {text}: {error}"));
                assert!(valid(schema, schema, &value), "{schema}: {text}");
            }
        }
    }
}

#[test]
fn any_object_is_an_object_of_bounded_depth() {
    let pattern = any_object(1);
    let (tree, matcher) = (regex_syntax::parse(&pattern).unwrap(), matcher(&pattern));
    let mut dice = Dice(7);
    for _ in 0..500 {
        let mut text = String::new();
        write(&tree, &mut dice, &mut text);
        assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    }
    for (text, fits) in
        [("{}", true), (r#"{"a":[1, "b"], "c":{"":null}}"#, true), (r#"{"a":[[]]}"#, false), ("[]", false)]
    {
        assert_eq!(matcher.is_match(text), fits, "{text}");
    }
    assert_eq!(any_object(4), any_object(usize::MAX));
}

#[test]
fn integer_ranges_are_exact() {
    let mut dice = Dice(11);
    for round in 0..150 {
        let mut bound = || dice.roll(2601) as i64 - 1300;
        let (one, other) = (bound(), bound());
        let (low, high) = (one.min(other), one.max(other));
        let (schema, low, high) = match round % 4 {
            0 => (json!({"type": "integer", "minimum": low}), low, i64::MAX),
            1 => (json!({"type": "integer", "exclusiveMaximum": high}), i64::MIN, high - 1),
            2 => (json!({"type": "integer", "exclusiveMinimum": low, "maximum": high + 1}), low + 1, high + 1),
            _ => (json!({"type": "integer", "minimum": low as f64 - 0.5, "maximum": high as f64 + 0.5}), low, high),
        };
        let matcher = matcher(&pattern(&schema).unwrap());
        for number in -1300..=1300 {
            let text = number.to_string();
            assert_eq!(matcher.is_match(&text), (low..=high).contains(&number), "{schema}: {text}");
            assert!(!matcher.is_match(&text.replace('-', "-0")) || number >= 0, "{schema}: -0");
        }
        for text in ["-0", "00", "01", "1.0", "1e1", "+1", "", "-", " 1", "9999999999999999"] {
            assert!(!matcher.is_match(text), "{schema}: {text}");
        }
        assert_eq!(matcher.is_match("999999999999999"), high == i64::MAX);
        assert_eq!(matcher.is_match("-999999999999999"), low == i64::MIN);
    }
}

#[test]
fn number_ranges_are_exact() {
    let mut dice = Dice(13);
    for _ in 0..60 {
        let low = dice.roll(30) as i64 - 15;
        let high = low + dice.roll(25) as i64;
        let keys =
            [["minimum", "exclusiveMinimum"], ["maximum", "exclusiveMaximum"]].map(|keys| keys[dice.roll(2) as usize]);
        let schema = json!({"type": "number", keys[0]: low, keys[1]: high});
        let Ok(pattern) = pattern(&schema) else {
            assert_eq!(low, high, "{schema}");
            continue;
        };
        let matcher = matcher(&pattern);
        for hundredths in -1700..=4100 {
            let value = f64::from(hundredths) / 100.0;
            // A number has one text with a minus sign for zero too, which no bound needs.
            for text in [format!("{value:.2}"), value.to_string()] {
                assert_eq!(matcher.is_match(&text), valid(&schema, &schema, &json!(value)), "{schema}: {text}");
            }
        }
    }
}

#[test]
fn dates_are_exact() {
    let matcher = matcher(&pattern(&json!({"type": "string", "format": "date"})).unwrap());
    for year in [1000, 1600, 1900, 1999, 2000, 2023, 2024, 2096, 2100, 9999] {
        for month in 0..20 {
            for day in 0..40 {
                let text = format!("{year}-{month:02}-{day:02}");
                assert_eq!(matcher.is_match(&format!("\"{text}\"")), is_date(&text), "{text}");
            }
        }
    }
    assert!(!matcher.is_match("\"0999-01-01\""));
}

#[test]
fn commas_are_right_in_every_subset() {
    for required in ["a", "b", "c", "d", ""] {
        let one = json!({"const": 1});
        let mut schema = json!({"type": "object", "properties": {"a": one, "b": one, "c": one, "d": one}});
        if !required.is_empty() {
            schema["required"] = json!([required]);
        }
        let matcher = matcher(&pattern(&schema).unwrap());
        let mut matched = 0;
        // Every row of up to seven pieces, a piece being a member or a comma.
        for length in 0..8 {
            for mut row in 0..5_usize.pow(length) {
                let mut pieces = Vec::new();
                for _ in 0..length {
                    pieces.push(["\"a\":1", "\"b\":1", "\"c\":1", "\"d\":1", ","][row % 5]);
                    row /= 5;
                }
                let text = format!("{{{}}}", pieces.concat());
                let members: Vec<&str> = pieces.iter().step_by(2).copied().collect();
                let right = text == format!("{{{}}}", members.join(","))
                    && !members.contains(&",")
                    && members.is_sorted_by(|one, next| one < next)
                    && (required.is_empty() || members.iter().any(|member| member.contains(required)));
                assert_eq!(matcher.is_match(&text), right, "{required}: {text}");
                matched += usize::from(right);
            }
        }
        assert_eq!(matched, if required.is_empty() { 16 } else { 8 });
    }
}
