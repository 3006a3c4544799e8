//! Constraints that requests have asked for, kept for the next ones: a client tends to ask for one shape of text many times.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bd3::constraint::{Constraint, schema};
use serde_json::json;

use super::Served;
use super::desk::full;
use super::error::ApiError;
use super::fields::Fields;
use crate::constrain::{any_object, constraint};

/// Bytes that are kept, at most, but for the newest.
const MOST_KEPT: usize = 64 << 20;

/// Constraints that are made at a time, at most.
pub const MOST_MADE: usize = 2;

/// The newest stands last.
#[derive(Default)]
pub struct Constraints {
    kept: Mutex<Vec<Constraint>>,
    making: AtomicUsize,
}

impl Served {
    /// The constraint of a pattern.
    ///
    /// # Errors
    /// As [`constraint`]; so many are being made that this one would hold up others.
    fn constraint(&self, pattern: &str, field: &str) -> Result<Constraint, ApiError> {
        // A panic elsewhere leaves a list that is whole.
        let lock = || self.constraints.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|kept| kept.pattern() == pattern).cloned();
        // Made without the lock, perhaps twice: others need not wait for it.
        let made = match known {
            Some(known) => known,
            None => {
                let made = self.constraints.make(|| constraint(pattern, &self.model)).ok_or_else(full)?;
                made.map_err(|error| match error {
                    bd3::Error::Value { expected, found, .. } => ApiError::field(field, expected, found),
                    other => ApiError::of(&other),
                })?
            }
        };
        let mut kept = lock();
        kept.retain(|other| other.pattern() != pattern);
        kept.push(made.clone());
        while kept.len() > 1 && kept.iter().map(Constraint::bytes).sum::<usize>() > MOST_KEPT {
            kept.remove(0);
        }
        Ok(made)
    }
}

/// A place among those that are made.
struct Seat<'a>(&'a AtomicUsize);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Constraints {
    /// Makes one, unless as many are being made as may: who hides that a constraint is asked for does not get more seats.
    fn make(&self, work: impl FnOnce() -> bd3::Result<Constraint>) -> Option<bd3::Result<Constraint>> {
        let taken = self.making.fetch_add(1, Ordering::Relaxed);
        let _seat = Seat(&self.making);
        (taken < MOST_MADE).then(work)
    }
}

/// What an answer has to match, and the field that says so.
pub struct Asked {
    pattern: String,
    field: &'static str,
}

impl Asked {
    /// OpenAI's `response_format`, or `bd3.regex`, if a request has one.
    ///
    /// # Errors
    /// Both, or what is none.
    pub fn take(fields: &mut Fields, bd3: &mut Fields) -> Result<Option<Self>, ApiError> {
        let regex = bd3.text("regex")?.map(|pattern| Self { pattern, field: "bd3.regex" });
        let mut format = fields.within("response_format")?;
        let pattern = match format.text("type")?.as_deref() {
            None | Some("text") => None,
            Some("json_object") => Some(any_object()),
            Some("json_schema") => Some(of_schema(format.within("json_schema")?)?),
            Some(other) => {
                let expected = "text, json_object or json_schema";
                return Err(ApiError::field("response_format.type", expected, json!(other).to_string()));
            }
        };
        format.end()?;
        if regex.is_some() && pattern.is_some() {
            return Err(ApiError::field("bd3.regex", "none beside `response_format`", "one"));
        }
        Ok(regex.or(pattern.map(|pattern| Self { pattern, field: "response_format" })))
    }

    /// The constraint.
    ///
    /// # Errors
    /// As [`constraint`].
    pub fn constraint(&self, served: &Served) -> Result<Constraint, ApiError> {
        served.constraint(&self.pattern, self.field)
    }
}

fn of_schema(format: Fields) -> Result<String, ApiError> {
    let mut format = format.called("response_format.json_schema");
    format.text("name")?;
    format.text("description")?;
    // What is written is always what the schema allows.
    format.flag("strict")?;
    let schema = format.value("schema");
    let name = format.name("schema");
    format.end()?;
    let schema = schema.ok_or_else(|| ApiError::field(&name, "a JSON schema", "none"))?;
    schema::pattern(&schema).map_err(|error| {
        let message = format!("response_format.json_schema: {error}");
        ApiError { param: Some(name), code: Some("invalid_value"), ..ApiError::refused(message) }
    })
}
