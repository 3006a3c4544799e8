//! A config.json, read key by key, so that every complaint names the file and the key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// An open config.json, or an object inside it.
#[derive(Clone)]
pub struct Config {
    path: PathBuf,
    /// What stands before a key's name in errors: the way to this object, with a dot behind.
    within: String,
    map: Map<String, Value>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read; else as [`Config::parse`].
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(path, &bytes)
    }

    /// Reads bytes; `path` names them in errors.
    ///
    /// # Errors
    /// Bytes that are not UTF-8, or not one JSON object.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::file(path, "UTF-8 text", format!("a wrong byte at offset {}", e.valid_up_to())))?;
        if text.trim().is_empty() {
            return Err(Error::file(path, "a JSON object", "an empty file"));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Self { path: path.into(), within: String::new(), map }),
            Ok(other) => Err(Error::file(path, "a JSON object", kind(&other))),
            Err(e) => Err(Error::file(path, "a JSON object", e.to_string())),
        }
    }

    /// From keys of another file, in which they stand behind this prefix.
    pub(super) fn of_map(path: &Path, within: String, map: Map<String, Value>) -> Self {
        Self { path: path.into(), within, map }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A key of any type, if it is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn typed<T>(&self, key: &str, expected: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.refusal(key, expected, value.to_string()))
    }

    /// A whole number, if the key is there.
    ///
    /// # Errors
    /// A value that is no whole number, or negative.
    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |v| v.as_u64().and_then(|v| usize::try_from(v).ok()))
    }

    /// A whole number.
    ///
    /// # Errors
    /// A key that is missing or null; else as [`Config::opt_usize`].
    pub fn usize(&self, key: &str) -> Result<usize> {
        self.opt_usize(key)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    /// A token id, if the key is there.
    ///
    /// # Errors
    /// A value that is no whole number below 2^32, or negative.
    pub fn opt_id(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", |v| v.as_u64().and_then(|v| u32::try_from(v).ok()))
    }

    /// A number, if the key is there.
    ///
    /// # Errors
    /// A value that is no number.
    pub fn opt_f64(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// true or false, if the key is there.
    ///
    /// # Errors
    /// A value that is neither true nor false.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// A value that is no text.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.refusal(key, "a text", value.to_string()))
    }

    /// An object, if the key is there; its keys are told with this one before them.
    ///
    /// # Errors
    /// A value that is no object.
    pub fn section(&self, key: &str) -> Result<Option<Self>> {
        let map = self.typed(key, "an object", |v| v.as_object().cloned())?;
        Ok(map.map(|map| Self { path: self.path.clone(), within: format!("{}{key}.", self.within), map }))
    }

    /// The error for a key that must be there.
    pub fn missing(&self, key: &str, expected: &str) -> Error {
        self.refusal(key, expected, "no such key".into())
    }

    /// The error for a key whose value will not do.
    pub fn refusal(&self, key: &str, expected: &str, found: String) -> Error {
        Error::key(&self.path, format!("{}{key}", self.within), expected, found)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
