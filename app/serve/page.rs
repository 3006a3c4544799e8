//! The page: files inside the binary, which ask nobody but this server.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{self, HeaderName};
use axum::response::IntoResponse;

use super::error::ApiError;
use super::routes::{no_path, not_spelled};

/// A file's path, its kind, and its bytes.
type File = (&'static str, &'static str, &'static [u8]);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of them.
const FILES: &[File] = &[
    ("api.js", SCRIPT, include_bytes!("../web/api.js")),
    ("canvas.css", CSS, include_bytes!("../web/canvas.css")),
    ("canvas.js", SCRIPT, include_bytes!("../web/canvas.js")),
    ("cells.js", SCRIPT, include_bytes!("../web/cells.js")),
    ("curve.js", SCRIPT, include_bytes!("../web/curve.js")),
    ("dom.js", SCRIPT, include_bytes!("../web/dom.js")),
    ("hash.js", SCRIPT, include_bytes!("../web/hash.js")),
    ("index.html", HTML, include_bytes!("../web/index.html")),
    ("infill.js", SCRIPT, include_bytes!("../web/infill.js")),
    ("main.js", SCRIPT, include_bytes!("../web/main.js")),
    ("noise.js", SCRIPT, include_bytes!("../web/noise.js")),
    ("player.js", SCRIPT, include_bytes!("../web/player.js")),
    ("plot.js", SCRIPT, include_bytes!("../web/plot.js")),
    ("race.js", SCRIPT, include_bytes!("../web/race.js")),
    ("settings.js", SCRIPT, include_bytes!("../web/settings.js")),
    ("stage.js", SCRIPT, include_bytes!("../web/stage.js")),
    ("state.js", SCRIPT, include_bytes!("../web/state.js")),
    ("style.css", CSS, include_bytes!("../web/style.css")),
    ("text.js", SCRIPT, include_bytes!("../web/text.js")),
    ("timeline.js", SCRIPT, include_bytes!("../web/timeline.js")),
    ("tip.js", SCRIPT, include_bytes!("../web/tip.js")),
    ("trace.js", SCRIPT, include_bytes!("../web/trace.js")),
    ("views.css", CSS, include_bytes!("../web/views.css")),
    ("write.js", SCRIPT, include_bytes!("../web/write.js")),
];

/// No script, style, picture or request but from here; no frame around it.
const POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Is one of its files called so?
pub fn has(name: &str) -> bool {
    FILES.iter().any(|(path, ..)| *path == name)
}

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
