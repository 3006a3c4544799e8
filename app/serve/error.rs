//! Errors as OpenAI's API tells them: a status, and an object that names the field.

use std::sync::LazyLock;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use regex::{Captures, Regex};
use serde_json::{Value, json};

/// What is wrong with a request, or went wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// A sentence.
    pub message: String,
    /// The field it is about.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A request that can't be followed.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field that holds something else than was expected.
    pub fn field(name: impl Into<String>, expected: impl AsRef<str>, found: impl AsRef<str>) -> Self {
        let name = name.into();
        let message = format!("{name}: expected {}, found {}", expected.as_ref(), found.as_ref());
        Self { param: Some(name), code: Some("invalid_value"), ..Self::refused(message) }
    }

    /// A field that the server does not know.
    pub fn unsupported(name: impl Into<String>) -> Self {
        let name = name.into();
        let message = format!("{name} is not supported by this server");
        Self { param: Some(name), code: Some("unsupported_parameter"), ..Self::refused(message) }
    }

    /// Any status with a word for programs.
    pub fn coded(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::new(status, message) }
    }

    /// What the library refuses, in the names of fields: its flags are those of the object `bd3`, but for those that OpenAI names.
    pub fn of(error: &bd3::Error) -> Self {
        let text = crate::args::named_as_flags(error);
        if !error.is_refusal() {
            return Self::new(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        let message = as_fields(&text);
        let message = message.strip_prefix("-n:").map_or(message.clone(), |told| format!("max_tokens:{told}"));
        let param = message.split([':', ' ']).next().filter(|name| name.contains('.') || OPENAI.contains(name));
        Self { param: param.map(str::to_string), code: Some("invalid_value"), ..Self::refused(message) }
    }

    /// What the parser of the command line says of the flags that fields were made into.
    pub fn flags(told: &str) -> Self {
        Self { param: Some("bd3".into()), code: Some("invalid_value"), ..Self::refused(as_fields(told)) }
    }

    /// The object.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

/// Flags whose fields stand outside the object `bd3`.
const OPENAI: [&str; 4] = ["temperature", "top_p", "seed", "max_tokens"];

/// Flags in a sentence become fields.
fn as_fields(text: &str) -> String {
    static FLAG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"--([a-z][a-z-]*)").ok());
    let named = |found: &Captures<'_>| {
        let name = found[1].replace('-', "_");
        if OPENAI.contains(&name.as_str()) { name } else { format!("bd3.{name}") }
    };
    FLAG.as_ref().map_or_else(|| text.to_string(), |flag| flag.replace_all(text, named).into_owned())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_fields() {
        let error = bd3::Error::value("--revise-threshold", "none, since --revise none takes none", "one");
        let told = ApiError::of(&error);
        let expected = "bd3.revise_threshold: expected none, since bd3.revise none takes none, found one";
        assert_eq!((told.message.as_str(), told.param.as_deref()), (expected, Some("bd3.revise_threshold")));
        let told = ApiError::of(&bd3::Error::value("top-p", "a number in (0, 1]", "2"));
        assert_eq!((told.status, told.param.as_deref()), (StatusCode::BAD_REQUEST, Some("top_p")));
        assert_eq!(ApiError::of(&bd3::Error::Run("x".into())).status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
