//! The flags that say what a new text has to match.

use std::path::{Path, PathBuf};

use bd3::constraint::{Constraint, schema};
use bd3::{Error, Result};
use clap::Args;
use serde_json::Value;

use crate::job::read_text;
use crate::model::Model;

/// How deep the values of any JSON object may be nested.
const DEPTH: usize = 3;

/// What the new text has to match, whole within -n tokens.
#[derive(Args, Clone, Debug)]
pub struct ConstraintArgs {
    /// The new text matches this regular expression as a whole
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, conflicts_with_all = ["json", "json_schema", "infill"], help_heading = "Constraint")]
    regex: Option<String>,
    /// The new text is JSON that the schema in this file allows
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "infill"], help_heading = "Constraint")]
    json_schema: Option<PathBuf>,
    /// The new text is a JSON object
    #[arg(long, conflicts_with = "infill", help_heading = "Constraint")]
    json: bool,
}

impl ConstraintArgs {
    /// The first flag that is given.
    pub fn given(&self) -> Option<&'static str> {
        let flags =
            [(self.regex.is_some(), "--regex"), (self.json_schema.is_some(), "--json-schema"), (self.json, "--json")];
        flags.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// The constraint, if one is given.
    ///
    /// # Errors
    /// A file that can't be read; what is no expression or schema; a model without an end of text.
    pub fn constraint(&self, model: &Model) -> Result<Option<Constraint>> {
        let pattern = match (&self.regex, &self.json_schema) {
            (Some(regex), _) => regex.clone(),
            (None, Some(path)) => pattern_of(path)?,
            (None, None) if self.json => any_object(),
            (None, None) => return Ok(None),
        };
        // What is wrong with an expression is told of the flag that led to it.
        constraint(&pattern, model).map(Some).map_err(|error| match (error, self.given()) {
            (Error::Value { name, expected, found }, Some(flag)) if name == "regex" => {
                Error::value(flag, expected, found)
            }
            (other, _) => other,
        })
    }
}

/// The expression of the schema in a file.
fn pattern_of(path: &Path) -> Result<String> {
    let told = |error: serde_json::Error| Error::file(path, "a JSON schema", format!("broken JSON ({error})"));
    schema::pattern(&serde_json::from_str::<Value>(&read_text(path)?).map_err(told)?).map_err(|error| match error {
        Error::Value { name, expected, found } => {
            Error::value(name.replacen("schema", &path.display().to_string(), 1), expected, found)
        }
        other => other,
    })
}

/// Any JSON object that is not nested too deep.
pub fn any_object() -> String {
    schema::any_object(DEPTH)
}

/// A constraint for a model's tokens.
///
/// # Errors
/// A pattern that is none; a model without an end of text.
pub fn constraint(pattern: &str, model: &Model) -> Result<Constraint> {
    let none = || Error::value("constraint", "a model with a token that ends a text", "one without");
    Constraint::new(pattern, &model.tokenizer, model.tokenizer.special().eos.ok_or_else(none)?)
}
