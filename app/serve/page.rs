//! The page: files inside the binary, which ask nobody but this server.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{self, HeaderName};
use axum::response::IntoResponse;

use super::error::ApiError;
use super::routes::{no_path, not_spelled};

/// A file's path, its kind, and its bytes.
type File = (&'static str, &'static str, &'static [u8]);

/// All of them.
const FILES: &[File] = &[];

/// No script, style, picture or request but from here; no frame around it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page itself.
pub async fn index() -> Result<impl IntoResponse, ApiError> {
    file(Ok(Path("index.html".to_string()))).await
}

/// One of its files.
pub async fn file(name: Result<Path<String>, PathRejection>) -> Result<impl IntoResponse, ApiError> {
    let Path(name) = name.map_err(|error| not_spelled(&error))?;
    let found = FILES.iter().find(|(path, ..)| *path == name);
    let (_, kind, bytes) = found.ok_or_else(|| no_path(&format!("/{name}")))?;
    let headers: [(HeaderName, &str); 3] =
        [(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-cache")];
    Ok((headers, *bytes))
}
