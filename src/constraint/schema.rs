//! From a JSON Schema to a regular expression of JSON texts, so that a decoder held to the expression can only write a
//! value that the schema allows. The language is a subset of what the schema validates: keys come in the order of
//! `properties`, at most one space follows `:` and `,`, and members that the schema merely tolerates are left out. What
//! a regular expression cannot say, or would say wrongly, is refused with the place and the reason; nothing that
//! constrains a value is passed over. Keywords mean what draft 2020-12 says, known formats are held to.

mod branches;
mod keywords;
mod numbers;
mod objects;
mod search;
mod strings;

#[cfg(test)]
#[path = "schema_law_tests.rs"]
mod checks;
#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;

use serde_json::{Map, Value};

use self::keywords::{ARRAY, BOOLEAN, EVERY, FRACTION, INTEGER, NULL, OBJECT, STRING, Types};
use self::keywords::{applying, count, declared, join, literals, refusal, shown, type_of};
use crate::error::{Error, Result};

/// How deep schemas may nest, references followed.
const DEEPEST: usize = 64;
/// The longest pattern in bytes.
const LONGEST: usize = 1 << 20;
/// The bytes that all the patterns of parts may have together: parts that end up nowhere cost time too.
const MOST_WORK: usize = 1 << 24;
/// What a part costs besides its bytes, so that parts without a pattern are counted.
const PART: usize = 64;
/// How deep a value nests whose schema says nothing about its members, those members not counted.
const FREE: usize = 1;
/// The deepest `any_object`: each level more makes the pattern four times as long.
const DEEPEST_OBJECT: usize = 4;
/// The keywords that decide the pattern on their own, next to `type`.
const LEADERS: [&str; 6] = ["$ref", "allOf", "anyOf", "oneOf", "const", "enum"];

/// A regular expression (syntax of the Rust `regex` crate) of the JSON texts that a schema allows, to be matched
/// against a whole text.
///
/// # Errors
///
/// When the schema is malformed, is not satisfiable, has a keyword that is unknown or cannot be held to, is recursive,
/// or makes too long a pattern.
pub fn pattern(schema: &Value) -> Result<String> {
    let mut compiler = Compiler { root: schema, open: vec!["#".to_owned()], depth: 0, work: 0 };
    let text = compiler.member(schema, "#")?.ok_or_else(|| impossible("#"))?;
    // The compiler of regular expressions bounds nesting too; here the schema can still be blamed for it.
    match regex_syntax::ast::parse::Parser::new().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(refusal("#", "a schema that nests less", format!("a pattern that fails: {}", error.kind()))),
    }
}

/// A regular expression of any JSON object whose values nest at most `depth` deep (0: no arrays or objects inside).
/// More than 4 is read as 4, as the pattern grows fourfold with each level.
pub fn any_object(depth: usize) -> String {
    objects::map_of(&any_value(depth.min(DEEPEST_OBJECT)))
}

/// Any JSON value with arrays and objects nested at most `depth` deep.
fn any_value(depth: usize) -> String {
    let scalars = format!("null|true|false|{}|{}", numbers::ANY, strings::any());
    if depth == 0 {
        return format!("(?:{scalars})");
    }
    let inner = any_value(depth - 1);
    format!("(?:{scalars}|{}|{})", list_of(&[], Some(&inner), (0, None)), objects::map_of(&inner))
}

/// One of the patterns; nothing when there is none.
fn union(mut ways: Vec<String>) -> Option<String> {
    if ways.len() > 1 { Some(format!("(?:{})", ways.join("|"))) } else { ways.pop() }
}

fn impossible(place: &str) -> Error {
    refusal(place, "a schema that some value satisfies", "one that none does")
}

struct Compiler<'a> {
    root: &'a Value,
    /// The references being followed, to notice recursion.
    open: Vec<String>,
    depth: usize,
    work: usize,
}

impl Compiler<'_> {
    /// The pattern of a part of a value. Nothing is only for the schema `false`, which says so on purpose; a schema
    /// that contradicts itself is taken for a mistake.
    fn member(&mut self, schema: &Value, place: &str) -> Result<Option<String>> {
        match self.value(schema, place, EVERY)? {
            None if schema != &Value::Bool(false) => Err(impossible(place)),
            text => Ok(text),
        }
    }

    /// The pattern of a schema's values of some types; nothing when there are none.
    fn value(&mut self, schema: &Value, place: &str, allowed: Types) -> Result<Option<String>> {
        if self.depth == DEEPEST {
            return Err(refusal(place, format!("schemas nested at most {DEEPEST} deep"), "one nested deeper"));
        }
        self.depth += 1;
        let text = match schema {
            Value::Bool(true) => self.keywords(&Map::new(), place, allowed)?,
            Value::Bool(false) => None,
            Value::Object(map) => self.keywords(map, place, allowed)?,
            other => return Err(refusal(place, "a schema (an object, true or false)", shown(other))),
        };
        self.depth -= 1;
        let length = text.as_ref().map_or(0, String::len);
        self.work += PART + place.len() + length;
        self.bounded(length, place)?;
        Ok(text)
    }

    fn bounded(&self, length: usize, place: &str) -> Result<()> {
        if length > LONGEST || self.work > MOST_WORK {
            let expected = format!("a schema whose pattern has at most {LONGEST} bytes");
            return Err(refusal(place, expected, "one that needs more"));
        }
        Ok(())
    }

    fn keywords(&mut self, map: &Map<String, Value>, place: &str, allowed: Types) -> Result<Option<String>> {
        let values = literals(map, place)?;
        let mut types = declared(map, place)? & allowed;
        if let Some(values) = &values {
            types &= values.iter().fold(0, |all, value| all | type_of(value));
        }
        let applying = applying(map, types, place)?;
        let Some(leader) = LEADERS.iter().copied().find(|name| applying.iter().any(|(key, _)| key == name)) else {
            if !map.contains_key("type") {
                // Without a type, values that no keyword speaks of are valid too, but hardly what is meant.
                let meant = applying.iter().fold(0, |all, (_, kinds)| all | kinds) & types;
                types = if meant == 0 { types } else { meant };
            }
            return self.typed(map, place, types);
        };
        let literal = |name: &str| name == "const" || name == "enum";
        let beside = |name: &str| name == "type" || name == leader || (literal(name) && literal(leader));
        if let Some((other, _)) = applying.iter().find(|(name, _)| !beside(name)) {
            let expected = format!("nothing but type and annotations beside {leader}");
            return Err(refusal(&join(place, other), expected, *other));
        }
        match leader {
            "$ref" => self.reference(map, place, types),
            "const" | "enum" => {
                let values = values.into_iter().flatten().filter(|value| type_of(value) & types != 0);
                Ok(union(values.map(|value| literal_text(value, DEEPEST, place)).collect::<Result<_>>()?))
            }
            _ => self.branches(map, leader, place, types),
        }
    }

    /// The pattern of the values of some types, by the keywords of each.
    fn typed(&mut self, map: &Map<String, Value>, place: &str, types: Types) -> Result<Option<String>> {
        let mut ways = Vec::new();
        if types & NULL != 0 {
            ways.push("null".to_owned());
        }
        if types & BOOLEAN != 0 {
            ways.push("(?:true|false)".to_owned());
        }
        if types & FRACTION != 0 {
            ways.push(numbers::number(map, place)?);
        } else if types & INTEGER != 0 {
            ways.push(numbers::integer(map, place)?);
        }
        if types & STRING != 0 {
            ways.push(strings::string(map, place)?);
        }
        if types & ARRAY != 0 {
            ways.push(self.array(map, place)?);
        }
        if types & OBJECT != 0 {
            ways.push(self.object(map, place)?);
        }
        Ok(union(ways))
    }

    fn reference(&mut self, map: &Map<String, Value>, place: &str, types: Types) -> Result<Option<String>> {
        let at = join(place, "$ref");
        let found = map.get("$ref").unwrap_or(&Value::Null);
        let Some((target, pointer)) = found.as_str().and_then(|name| branches::resolve(self.root, name)) else {
            return Err(refusal(&at, "#, or a name under #/$defs or #/definitions that is there", shown(found)));
        };
        if branches::embedded(self.root, place) {
            return Err(refusal(&at, "no reference in a part that has its own $id", shown(found)));
        }
        if self.open.contains(&pointer) {
            let expected = "a reference that does not lead back to itself, as recursive schemas are not regular";
            return Err(refusal(&at, expected, shown(found)));
        }
        self.open.push(pointer.clone());
        let text = self.value(target, &pointer, types)?;
        self.open.pop();
        Ok(text)
    }

    fn branches(
        &mut self,
        map: &Map<String, Value>,
        leader: &str,
        place: &str,
        types: Types,
    ) -> Result<Option<String>> {
        let at = join(place, leader);
        let members = match map.get(leader) {
            Some(Value::Array(members)) if !members.is_empty() => members,
            other => return Err(refusal(&at, "a list of schemas", other.map_or_else(String::new, shown))),
        };
        if leader == "allOf" && members.len() > 1 {
            return Err(refusal(&at, "a single schema (write several as one)", format!("{} of them", members.len())));
        }
        let mut ways = Vec::new();
        for (index, member) in members.iter().enumerate() {
            ways.extend(self.value(member, &format!("{at}/{index}"), types)?);
        }
        if leader == "oneOf" {
            branches::check_disjoint(self.root, members, types, &at)?;
        }
        Ok(union(ways))
    }

    fn array(&mut self, map: &Map<String, Value>, place: &str) -> Result<String> {
        let least = count(map, "minItems", place)?.unwrap_or(0);
        let mut most = count(map, "maxItems", place)?;
        let mut first = Vec::new();
        match map.get("prefixItems") {
            None => {}
            Some(Value::Array(members)) => {
                for (index, member) in members.iter().enumerate() {
                    match self.member(member, &format!("{place}/prefixItems/{index}"))? {
                        Some(text) => first.push(text),
                        None => {
                            most = Some(most.unwrap_or(index).min(index));
                            break;
                        }
                    }
                }
            }
            Some(other) => return Err(refusal(&join(place, "prefixItems"), "a list of schemas", shown(other))),
        }
        let item = match map.get("items") {
            None => Some(any_value(FREE)),
            Some(items) => self.member(items, &join(place, "items"))?,
        };
        // Items that nothing describes are only written where minItems wants them.
        let described = map.contains_key("items") || !map.contains_key("prefixItems");
        let known = if described { first.len() } else { first.len().max(least) };
        if item.is_none() || !described {
            most = Some(most.unwrap_or(known).min(known));
        }
        if most.is_some_and(|most| most < least) {
            let expected = format!("room for at least {least} items, as minItems says");
            return Err(refusal(place, expected, format!("room for {}", most.unwrap_or(0))));
        }
        self.bounded(first.iter().map(String::len).sum(), place)?;
        Ok(list_of(&first, item.as_deref(), (least, most)))
    }
}

/// An array: some items with patterns of their own, then further ones, with a least and a most number of all of them.
fn list_of(first: &[String], item: Option<&str>, (least, most): (usize, Option<usize>)) -> String {
    let kept = first.len().min(most.unwrap_or(first.len()));
    let mut tail = match item {
        Some(item) if most.is_none_or(|most| most > first.len()) => {
            // Without a first item, the one that has no comma before it is of the repeated kind.
            let lead = usize::from(first.is_empty());
            let from = least.saturating_sub(first.len() + lead);
            let more = match most {
                None if from == 0 => format!("(?:, ?{item})*"),
                None => format!("(?:, ?{item}){{{from},}}"),
                Some(most) => format!("(?:, ?{item}){{{from},{}}}", most - first.len() - lead),
            };
            match lead {
                1 if least == 0 => format!("(?:{item}{more})?"),
                1 => format!("{item}{more}"),
                _ => more,
            }
        }
        _ => String::new(),
    };
    for (index, text) in first.iter().enumerate().take(kept).rev() {
        let comma = if index == 0 { "" } else { ", ?" };
        tail = if index < least { format!("{comma}{text}{tail}") } else { format!("(?:{comma}{text}{tail})?") };
    }
    format!(r"\[{tail}\]")
}

/// The pattern of one value: its compact text, with the spaces that a layout may have.
fn literal_text(value: &Value, depth: usize, place: &str) -> Result<String> {
    if depth == 0 {
        return Err(refusal(place, format!("values nested at most {DEEPEST} deep"), "one nested deeper"));
    }
    Ok(match value {
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| literal_text(item, depth - 1, place)).collect::<Result<_>>()?;
            format!(r"\[{}\]", items.join(", ?"))
        }
        Value::Object(map) => {
            let entry =
                |(name, value): (&String, &Value)| Ok(objects::entry(name, &literal_text(value, depth - 1, place)?));
            let entries: Vec<String> = map.iter().map(entry).collect::<Result<_>>()?;
            format!(r"\{{{}\}}", entries.join(", ?"))
        }
        // Beyond 2^53 a number that is not a whole one of 64 bits has been rounded when the schema was read.
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= 9.007e15) => {
            return Err(refusal(place, "numbers that 64 bits hold exactly", number.to_string()));
        }
        scalar => regex_syntax::escape(&scalar.to_string()),
    })
}
