//! `/bd3/curve`: the curve of this machine, as `bd3 curve` measures it: a command of its own, so that it can be stopped and gone on
//! with, and so that the page shows what the command would.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::Served;
use super::error::ApiError;

/// How often progress is told.
const PACE: Duration = Duration::from_millis(500);

/// Where the curve is kept, and the command that measures it.
pub struct CurveDesk {
    dir: PathBuf,
    model: Option<PathBuf>,
    /// Flags of the command, and the lines that the record will have with them.
    flags: Vec<String>,
    of: usize,
    child: Mutex<Option<Child>>,
}

impl CurveDesk {
    /// Nothing is measured unasked. `flags` of the command, and how many lines its record has with them.
    pub fn new(dir: PathBuf, model: Option<PathBuf>, (flags, of): (Vec<String>, usize)) -> Self {
        Self { dir, model, flags, of, child: Mutex::new(None) }
    }

    /// Begins to measure; false where that is going on.
    fn begin(&self) -> std::io::Result<bool> {
        let mut child = self.lock();
        if running(&mut child) {
            return Ok(false);
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("curve").args(&self.model).arg("--out").arg(&self.dir).args(&self.flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *child = Some(command.spawn()?);
        Ok(true)
    }

    /// Ends a measurement that is going on; what is measured is kept.
    pub fn stop(&self) {
        if let Some(mut child) = self.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How it stands.
    fn stands(&self) -> Value {
        let measuring = running(&mut self.lock());
        let done = lines(&self.dir.join("points.jsonl")).min(self.of);
        let curve = std::fs::read(self.dir.join("curve.json")).ok();
        let curve: Option<Value> = curve.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let state = match (measuring, &curve) {
            (true, _) => "measuring",
            (false, Some(_)) => "done",
            (false, None) => "none",
        };
        json!({ "state": state, "done": done, "of": self.of, "curve": curve.filter(|_| !measuring) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is it still at work?
fn running(child: &mut Option<Child>) -> bool {
    child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
}

/// Lines of a record, without its first.
fn lines(path: &Path) -> usize {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1)
}

/// What there is.
pub async fn stands(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(served.curve.stands())
}

/// Measures, and tells how far it is.
pub async fn measure(State(served): State<Arc<Served>>) -> Result<Response, ApiError> {
    match served.curve.begin() {
        Ok(true) => {}
        Ok(false) => {
            let message = "a curve is being measured: GET /bd3/curve tells how far it is";
            return Err(ApiError::coded(StatusCode::CONFLICT, "measuring", message));
        }
        Err(error) => return Err(ApiError::of(&bd3::Error::Run(format!("bd3 curve: {error}")))),
    }
    let told = stream::unfold((served, false), |(served, over)| async move {
        if over {
            return None;
        }
        tokio::time::sleep(PACE).await;
        let stands = served.curve.stands();
        let over = stands["state"] != "measuring";
        Some((Event::default().data(stands.to_string()), (served, over)))
    });
    let events = told.chain(stream::iter([Event::default().data("[DONE]")])).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
