//! Constraints that requests have asked for, kept for the next ones: a client tends to ask for one shape of text many times.

use std::sync::{Mutex, PoisonError};

use bd3::constraint::{Constraint, schema};
use serde_json::json;

use super::Served;
use super::error::ApiError;
use super::fields::Fields;
use crate::constrain::{any_object, constraint};

/// Bytes that are kept, at most, but for the newest.
const MOST_KEPT: usize = 64 << 20;

/// The newest stands last.
#[derive(Default)]
pub struct Constraints {
    kept: Mutex<Vec<Constraint>>,
}

impl Served {
    /// The constraint of a pattern.
    ///
    /// # Errors
    /// As [`constraint`].
    fn constraint(&self, pattern: &str) -> bd3::Result<Constraint> {
        // A panic elsewhere leaves a list that is whole.
        let lock = || self.constraints.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().iter().find(|kept| kept.pattern() == pattern).cloned();
        // Made without the lock, perhaps twice: others need not wait for it.
        let made = known.map_or_else(|| constraint(pattern, &self.model), Ok)?;
        let mut kept = lock();
        kept.retain(|other| other.pattern() != pattern);
        kept.push(made.clone());
        while kept.len() > 1 && kept.iter().map(Constraint::bytes).sum::<usize>() > MOST_KEPT {
            kept.remove(0);
        }
        Ok(made)
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
        served.constraint(&self.pattern).map_err(|error| match error {
            bd3::Error::Value { expected, found, .. } => ApiError::field(self.field, expected, found),
            other => ApiError::of(&other),
        })
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
