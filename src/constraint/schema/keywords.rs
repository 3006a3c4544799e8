//! The keywords of JSON Schema, the types that each speaks of, and how their values are read.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A set of types, one bit each. `number` is both `INTEGER` and `FRACTION`, so that sets can be intersected.
pub(super) type Types = u8;
pub(super) const NULL: Types = 1;
pub(super) const BOOLEAN: Types = 2;
pub(super) const INTEGER: Types = 4;
pub(super) const FRACTION: Types = 8;
pub(super) const STRING: Types = 16;
pub(super) const ARRAY: Types = 32;
pub(super) const OBJECT: Types = 64;
pub(super) const EVERY: Types = 127;
const NUMBER: Types = INTEGER | FRACTION;

/// The largest number of characters, items or repetitions.
pub(super) const MOST_REPEATS: usize = 1000;

const TYPES: [(&str, Types); 7] = [
    ("string", STRING),
    ("number", NUMBER),
    ("integer", INTEGER),
    ("boolean", BOOLEAN),
    ("null", NULL),
    ("object", OBJECT),
    ("array", ARRAY),
];

const SUPPORTED: [(&str, Types); 22] = [
    ("type", EVERY),
    ("enum", EVERY),
    ("const", EVERY),
    ("anyOf", EVERY),
    ("oneOf", EVERY),
    ("allOf", EVERY),
    ("$ref", EVERY),
    ("properties", OBJECT),
    ("required", OBJECT),
    ("additionalProperties", OBJECT),
    ("items", ARRAY),
    ("prefixItems", ARRAY),
    ("minItems", ARRAY),
    ("maxItems", ARRAY),
    ("minLength", STRING),
    ("maxLength", STRING),
    ("pattern", STRING),
    ("format", STRING),
    ("minimum", NUMBER),
    ("maximum", NUMBER),
    ("exclusiveMinimum", NUMBER),
    ("exclusiveMaximum", NUMBER),
];

const REFUSED: [(&str, Types); 21] = [
    ("multipleOf", NUMBER),
    ("uniqueItems", ARRAY),
    ("contains", ARRAY),
    ("minContains", ARRAY),
    ("maxContains", ARRAY),
    ("additionalItems", ARRAY),
    ("unevaluatedItems", ARRAY),
    ("patternProperties", OBJECT),
    ("propertyNames", OBJECT),
    ("minProperties", OBJECT),
    ("maxProperties", OBJECT),
    ("dependentRequired", OBJECT),
    ("dependentSchemas", OBJECT),
    ("dependencies", OBJECT),
    ("unevaluatedProperties", OBJECT),
    ("not", EVERY),
    ("if", EVERY),
    ("then", EVERY),
    ("else", EVERY),
    ("$dynamicRef", EVERY),
    ("$recursiveRef", EVERY),
];

/// Keywords that no value can break. `discriminator` (of OpenAPI) only says how to tell branches apart.
/// Names that start with `x-` are taken for annotations too, as OpenAPI does.
const ANNOTATIONS: [&str; 18] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "$anchor",
    "$dynamicAnchor",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "discriminator",
];

pub(super) fn refusal(place: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::value(format!("schema at {place}"), expected, found)
}

/// The JSON pointer of a member.
pub(super) fn join(place: &str, key: &str) -> String {
    format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// A value for a message: itself when short, else its kind.
pub(super) fn shown(value: &Value) -> String {
    let kind = match value {
        Value::Array(items) if items.len() > 8 => "a long list",
        Value::Object(map) if !map.is_empty() => "an object",
        Value::String(text) if text.len() > 80 => "a long string",
        Value::Array(items) if items.iter().any(|item| item.is_array() || item.is_object()) => "a list",
        short => return short.to_string(),
    };
    kind.to_owned()
}

pub(super) fn type_of(value: &Value) -> Types {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => INTEGER,
        Value::Number(_) => FRACTION,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// The types that `type` names; every one without it.
pub(super) fn declared(map: &Map<String, Value>, place: &str) -> Result<Types> {
    let Some(value) = map.get("type") else { return Ok(EVERY) };
    let names = match value {
        Value::Array(names) if !names.is_empty() => names.as_slice(),
        one => std::slice::from_ref(one),
    };
    names.iter().try_fold(0, |all, name| {
        let types = TYPES.iter().find(|(known, _)| name.as_str() == Some(*known));
        types.map(|(_, bits)| all | bits).ok_or_else(|| {
            let known = TYPES.map(|(known, _)| known).join(", ");
            refusal(&join(place, "type"), format!("a type or a list of types out of {known}"), shown(name))
        })
    })
}

/// The values that `const` and `enum` leave; nothing when neither is there.
pub(super) fn literals<'a>(map: &'a Map<String, Value>, place: &str) -> Result<Option<Vec<&'a Value>>> {
    let constant = map.get("const");
    match map.get("enum") {
        None => Ok(constant.map(|value| vec![value])),
        Some(Value::Array(values)) => {
            Ok(Some(values.iter().filter(|value| constant.is_none_or(|constant| constant == *value)).collect()))
        }
        Some(other) => Err(refusal(&join(place, "enum"), "a list of values", shown(other))),
    }
}

/// The supported keywords that constrain values of some types. A keyword of other types is no constraint.
pub(super) fn applying<'a>(map: &'a Map<String, Value>, types: Types, place: &str) -> Result<Vec<(&'a str, Types)>> {
    let mut found = Vec::new();
    for (key, value) in map {
        if ANNOTATIONS.contains(&key.as_str()) || key.starts_with("x-") {
            continue;
        }
        let find = |table: &[(&str, Types)]| table.iter().find(|(name, _)| name == key).map(|(_, kinds)| *kinds);
        let why = match (find(&SUPPORTED), find(&REFUSED)) {
            (Some(kinds), _) => {
                if kinds & types != 0 {
                    found.push((key.as_str(), kinds));
                }
                continue;
            }
            (None, Some(kinds)) if kinds & types == 0 => continue,
            (None, Some(_)) if key == "uniqueItems" && value == &Value::Bool(false) => continue,
            // All names are strings.
            (None, Some(_)) if key == "propertyNames" && *value == serde_json::json!({ "type": "string" }) => continue,
            (None, Some(_)) => "which is not supported",
            (None, None) => "which JSON Schema does not have",
        };
        let supported = SUPPORTED.map(|(name, _)| name).join(", ");
        let expected = format!("no such keyword (supported: {supported})");
        return Err(refusal(&join(place, key), expected, format!("{key}, {why}")));
    }
    Ok(found)
}

/// The count that a keyword says, if it is there.
pub(super) fn count(map: &Map<String, Value>, key: &str, place: &str) -> Result<Option<usize>> {
    let Some(value) = map.get(key) else { return Ok(None) };
    match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
        Some(number) if number <= MOST_REPEATS => Ok(Some(number)),
        _ => Err(refusal(&join(place, key), format!("a whole number from 0 to {MOST_REPEATS}"), shown(value))),
    }
}
