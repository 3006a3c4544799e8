//! The fields of a request, taken one by one: what nobody has taken at the end is refused by name.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::ApiError;

/// The fields of an object, and the name of what they stand in.
pub struct Fields {
    map: Map<String, Value>,
    within: &'static str,
}

impl Fields {
    /// The fields of a body.
    pub fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self { map, within: "" }),
            Ok(other) => Err(ApiError::refused(format!("the body: expected a JSON object, found {}", kind(&other)))),
            Err(error) => Err(ApiError::refused(format!("the body is no JSON: {error}"))),
        }
    }

    /// The fields of a field, none where it is absent.
    pub fn within(&mut self, name: &'static str) -> Result<Self, ApiError> {
        match self.value(name) {
            None => Ok(Self { map: Map::new(), within: name }),
            Some(Value::Object(map)) => Ok(Self { map, within: name }),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    /// The same in a field that stands deeper.
    pub fn called(self, within: &'static str) -> Self {
        Self { within, ..self }
    }

    /// The name of a field as the client knows it.
    pub fn name(&self, name: &str) -> String {
        if self.within.is_empty() { name.to_string() } else { format!("{}.{name}", self.within) }
    }

    /// An error about a field.
    pub fn wrong(&self, name: &str, expected: &str, found: &Value) -> ApiError {
        ApiError::field(self.name(name), expected, kind(found))
    }

    /// Whatever stands there; `null` is absent.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a text", &other)),
        }
    }

    /// True or false.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// A number.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Number(number)) if number.as_f64().is_some_and(f64::is_finite) => Ok(number.as_f64()),
            Some(other) => Err(self.wrong(name, "a number", &other)),
        }
    }

    /// A whole number in a range.
    pub fn count(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match whole(&value).filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong(name, &expected, &value))
            }
        }
    }

    /// One text or several.
    pub fn texts(&mut self, name: &str, most: usize) -> Result<Vec<String>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let texts = match &value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(texts) => texts.iter().map(|text| text.as_str().map(str::to_string)).collect(),
            _ => None,
        };
        let texts = texts.filter(|texts| texts.len() <= most && texts.iter().all(|text| !text.is_empty()));
        texts.ok_or_else(|| self.wrong(name, &format!("up to {most} texts that are not empty"), &value))
    }

    /// Fields that mean something elsewhere and nothing here: accepted with one of these values only.
    pub fn neutral(&mut self, fields: &[(&str, Value)]) -> Result<(), ApiError> {
        for (name, neutral) in fields {
            if self
                .value(name)
                .is_some_and(|value| value != *neutral && value.as_f64() != neutral.as_f64().or(Some(f64::NAN)))
            {
                let name = self.name(name);
                let message = format!("{name} is not supported by this server, but for {neutral}");
                let code = Some("unsupported_parameter");
                return Err(ApiError { param: Some(name), code, ..ApiError::refused(message) });
            }
        }
        Ok(())
    }

    /// All that is left.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.map)
    }

    /// Refuses what nobody has taken.
    pub fn end(self) -> Result<(), ApiError> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(ApiError::unsupported(self.name(name))),
            None => Ok(()),
        }
    }
}

/// A whole number, also one that is written `8.0`: many languages have only one kind of number.
pub fn whole(value: &Value) -> Option<u64> {
    let exact = |number: &f64| number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(exact).map(|number| number as u64))
}

/// What a value is, shortly.
pub fn kind(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > 40 => format!("a text of {} bytes", text.len()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: &Value) -> Fields {
        Fields::of_body(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_nobody_takes_is_named() {
        let mut some = fields(&json!({ "a": 1, "b": null, "bd3": { "blok": 4 } }));
        assert_eq!(some.count("a", 0..=5).unwrap(), Some(1));
        let inner = some.within("bd3").unwrap();
        some.end().unwrap();
        assert_eq!(inner.end().unwrap_err().message, "bd3.blok is not supported by this server");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_was_expected() {
        let mut some = fields(&json!({ "n": 0, "t": "x", "s": [""], "p": 0.5, "big": 1e300 }));
        assert_eq!(some.count("n", 1..=8).unwrap_err().message, "n: expected a whole number from 1 to 8, found 0");
        assert_eq!(some.number("t").unwrap_err().message, "t: expected a number, found \"x\"");
        assert!(some.texts("s", 4).is_err() && some.count("big", 0..=9).is_err());
        assert_eq!(some.neutral(&[("p", json!(0))]).unwrap_err().param.as_deref(), Some("p"));
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_fraction() {
        let mut some = fields(&json!({ "a": 8.0, "b": 8.5, "c": -1.0, "d": 1e300 }));
        assert_eq!(some.count("a", 0..=9).unwrap(), Some(8));
        assert!(["b", "c", "d"].iter().all(|name| some.count(name, 0..=u64::MAX).is_err()));
    }

    #[test]
    fn neutral_values_are_accepted() {
        let mut some = fields(&json!({ "p": 0.0, "q": 0, "l": [] }));
        some.neutral(&[("p", json!(0)), ("q", json!(0)), ("l", json!([]))]).unwrap();
        some.end().unwrap();
    }
}
