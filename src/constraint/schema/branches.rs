//! References, and whether the branches of a `oneOf` exclude one another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::keywords::{EVERY, OBJECT, Types, declared, refusal, type_of};
use crate::error::Result;

/// The most branches of a `oneOf`: each is compared with each.
const MOST_BRANCHES: usize = 100;
/// How many references in a row are followed to look at a branch.
const MOST_HOPS: usize = 16;

/// The schema that a reference names, and the JSON pointer of it.
pub(super) fn resolve<'a>(root: &'a Value, reference: &str) -> Option<(&'a Value, String)> {
    let pointer = percent_decoded(reference.strip_prefix('#')?)?;
    if !(pointer.is_empty() || pointer.starts_with("/$defs/") || pointer.starts_with("/definitions/")) {
        return None;
    }
    Some((root.pointer(&pointer)?, format!("#{pointer}")))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        bytes.extend(piece.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// Whether a place lies in a part with an `$id`, below the root: there `#` means that part.
pub(super) fn embedded(root: &Value, place: &str) -> bool {
    let pointer = place.strip_prefix('#').unwrap_or(place);
    let ends = pointer.match_indices('/').map(|(at, _)| at).skip(1).chain([pointer.len()]);
    let own_id = |part: &Value| part.get("$id").is_some_and(Value::is_string);
    ends.filter(|end| *end > 0).any(|end| root.pointer(&pointer[..end]).is_some_and(own_id))
}

/// What can be told of a branch at a glance.
struct Shape {
    types: Types,
    values: Option<BTreeSet<String>>,
    /// The properties that have listed values only, with those.
    tags: BTreeMap<String, BTreeSet<String>>,
    required: BTreeSet<String>,
}

/// # Errors
///
/// When a value could be valid for two branches, as far as can be told at a glance.
pub(super) fn check_disjoint(root: &Value, members: &[Value], allowed: Types, place: &str) -> Result<()> {
    if members.len() > MOST_BRANCHES {
        let found = format!("{} of them", members.len());
        return Err(refusal(place, format!("at most {MOST_BRANCHES} schemas (anyOf may have more)"), found));
    }
    let shapes: Vec<Shape> = members.iter().map(|member| shape(root, member, allowed)).collect();
    for (index, shape) in shapes.iter().enumerate() {
        if let Some(other) = shapes.iter().take(index).position(|other| !disjoint(shape, other)) {
            let expected = "schemas that plainly exclude one another, by type or by the const or enum of a required \
                            property (use anyOf where more than one may hold)";
            return Err(refusal(place, expected, format!("schemas {other} and {index}, which may both hold")));
        }
    }
    Ok(())
}

fn disjoint(one: &Shape, other: &Shape) -> bool {
    let shared = one.types & other.types;
    let values_differ = match (&one.values, &other.values) {
        (Some(one), Some(other)) => one.is_disjoint(other),
        _ => false,
    };
    // One branch that requires the tag is enough: without it a value is not valid there.
    let tag_differs = |(name, values): (&String, &BTreeSet<String>)| {
        let required = one.required.contains(name) || other.required.contains(name);
        required && other.tags.get(name).is_some_and(|others| values.is_disjoint(others))
    };
    shared == 0 || values_differ || (shared == OBJECT && one.tags.iter().any(tag_differs))
}

fn shape(root: &Value, schema: &Value, allowed: Types) -> Shape {
    let mut shape = Shape { types: allowed, values: None, tags: BTreeMap::new(), required: BTreeSet::new() };
    if schema == &Value::Bool(false) {
        shape.types = 0;
    }
    for map in layers(root, schema) {
        shape.types &= declared(map, "").unwrap_or(EVERY);
        if let Some(values) = listed(map) {
            shape.types &= values.iter().fold(0, |all, value| all | type_of(value));
            shape.values = Some(values.iter().map(key).collect());
        }
        for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(values) = layers(root, schema).into_iter().find_map(listed) {
                shape.tags.insert(name.clone(), values.iter().map(key).collect());
            }
        }
        let required = map.get("required").and_then(Value::as_array).into_iter().flatten();
        shape.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
    }
    shape
}

/// The values that a schema lists, or more: which of an `enum` equal a `const` is not gone into.
fn listed(map: &Map<String, Value>) -> Option<&[Value]> {
    map.get("const").map(std::slice::from_ref).or_else(|| map.get("enum")?.as_array().map(Vec::as_slice))
}

/// A schema and the ones that it hands on to, all of which hold.
fn layers<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Map<String, Value>> {
    let mut found = Vec::new();
    let mut next = Some(schema);
    while let Some(map) = next.and_then(Value::as_object).filter(|_| found.len() < MOST_HOPS) {
        found.push(map);
        let reference = map.get("$ref").and_then(Value::as_str).and_then(|name| resolve(root, name));
        let single = map.get("allOf").and_then(Value::as_array).filter(|members| members.len() == 1);
        next = reference.map(|(target, _)| target).or_else(|| single.and_then(|members| members.first()));
    }
    found
}

/// A text that equal values share: 1 and 1.0 are equal, and lists and objects are not looked into.
fn key(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("{:?}", number.as_f64().unwrap_or(0.0) + 0.0),
        Value::Array(_) => "[".to_owned(),
        Value::Object(_) => "{".to_owned(),
        other => other.to_string(),
    }
}
