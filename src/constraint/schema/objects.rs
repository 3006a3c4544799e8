//! Patterns of objects: properties in their order, optional ones with the commas right in every subset, and maps.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::keywords::{join, refusal, shown};
use super::{Compiler, FREE, any_value, impossible, strings};
use crate::error::Result;

/// An object with any keys, whose values match a pattern.
pub(super) fn map_of(value: &str) -> String {
    let key = strings::any();
    format!(r"\{{(?:{key}: ?{value}(?:, ?{key}: ?{value})*)?\}}")
}

/// A member with a fixed key.
pub(super) fn entry(name: &str, value: &str) -> String {
    let key = regex_syntax::escape(&Value::from(name).to_string());
    format!("{key}: ?{value}")
}

impl Compiler<'_> {
    pub(super) fn object(&mut self, map: &Map<String, Value>, place: &str) -> Result<String> {
        let none = Map::new();
        let properties = match map.get("properties") {
            None => &none,
            Some(Value::Object(properties)) => properties,
            Some(other) => return Err(refusal(&join(place, "properties"), "an object of schemas", shown(other))),
        };
        let names = required_names(map, place)?;
        let required: BTreeSet<&str> = names.iter().copied().collect();
        let mut entries = Vec::new();
        for (name, schema) in properties {
            let at = join(&join(place, "properties"), name);
            match self.member(schema, &at)? {
                Some(text) => entries.push((required.contains(name.as_str()), entry(name, &text))),
                None if required.contains(name.as_str()) => return Err(impossible(&at)),
                None => {}
            }
        }
        let mut seen = BTreeSet::new();
        let missing: Vec<&str> =
            names.into_iter().filter(|name| !properties.contains_key(*name) && seen.insert(*name)).collect();
        let is_map = match map.get("properties") {
            None => required.is_empty(),
            Some(_) => properties.is_empty() && required.is_empty() && map.contains_key("additionalProperties"),
        };
        if is_map || !missing.is_empty() {
            let other = match map.get("additionalProperties") {
                None => Some(any_value(FREE)),
                Some(schema) => self.member(schema, &join(place, "additionalProperties"))?,
            };
            match (other, missing.first()) {
                (Some(text), None) => return Ok(map_of(&text)),
                (Some(text), _) => {
                    self.bounded(text.len().saturating_mul(missing.len()), place)?;
                    entries.extend(missing.iter().map(|name| (true, entry(name, &text))));
                }
                (None, None) => {}
                (None, Some(name)) => {
                    let found = Value::from(*name).to_string();
                    return Err(refusal(&join(place, "required"), "names of properties that are allowed", found));
                }
            }
        }
        self.bounded(entries.iter().map(|(_, text)| text.len()).sum(), place)?;
        Ok(format!(r"\{{{}\}}", members(&entries)))
    }
}

fn required_names<'a>(map: &'a Map<String, Value>, place: &str) -> Result<Vec<&'a str>> {
    let Some(value) = map.get("required") else { return Ok(Vec::new()) };
    let names = value.as_array().and_then(|names| names.iter().map(Value::as_str).collect::<Option<_>>());
    names.ok_or_else(|| refusal(&join(place, "required"), "a list of names", shown(value)))
}

/// Members in order, the ones that are not required left out or not. A required one is where the commas turn: those
/// before it are followed by theirs, those after it are preceded by it, so each member is written once.
fn members(entries: &[(bool, String)]) -> String {
    let Some(turn) = entries.iter().position(|(required, _)| *required) else {
        return if entries.is_empty() { String::new() } else { format!("(?:{})?", some(entries)) };
    };
    let before = entries[..turn].iter().map(|(_, text)| format!("(?:{text}, ?)?")).collect::<String>();
    format!("{before}{}{}", entries[turn].1, followed(&entries[turn + 1..]))
}

fn followed(entries: &[(bool, String)]) -> String {
    let part = |(required, text): &(bool, String)| {
        if *required { format!(", ?{text}") } else { format!("(?:, ?{text})?") }
    };
    entries.iter().map(part).collect()
}

/// At least one of optional members, in order: some of the first half and any of the second, or some of the second.
/// Halving writes each member as often as the number of members can be halved, and nests as deep.
fn some(entries: &[(bool, String)]) -> String {
    if let [(_, text)] = entries {
        return text.clone();
    }
    let (left, right) = entries.split_at(entries.len() / 2);
    format!("(?:{}{}|{})", some(left), followed(right), some(right))
}
