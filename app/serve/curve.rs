//! `/bd3/curve`: the curve of this machine, as `bd3 curve` measures it: a command of its own, so that it can be stopped and gone on
//! with, and so that the page shows what the command would.

use std::convert::Infallible;
use std::io::Read;
use std::path::PathBuf;
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
    command: Mutex<Measuring>,
}

/// The command under way, or why the last one failed.
#[derive(Default)]
struct Measuring {
    child: Option<Child>,
    /// Lines of the record when it began; none once it has written.
    before: Option<usize>,
    failure: Option<String>,
}

impl CurveDesk {
    /// Nothing is measured unasked. `flags` of the command, and how many lines its record has with them.
    pub fn new(dir: PathBuf, model: Option<PathBuf>, (flags, of): (Vec<String>, usize)) -> Self {
        Self { dir, model, flags, of, command: Mutex::default() }
    }

    /// Begins to measure, or goes on where that was stopped; false where it is going on.
    fn begin(&self) -> std::io::Result<bool> {
        let mut command = self.lock();
        if command.is_running() {
            return Ok(false);
        }
        let mut curve = Command::new(std::env::current_exe()?);
        curve.arg("curve").args(&self.model).arg("--again").arg("--out").arg(&self.dir).args(&self.flags);
        curve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = Measuring { before: Some(self.lines()), child: Some(curve.spawn()?), failure: None };
        Ok(true)
    }

    /// Lines of the record, without its first.
    fn lines(&self) -> usize {
        let bytes = std::fs::read(self.dir.join("points.jsonl")).unwrap_or_default();
        bytes.iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1)
    }

    /// Ends a measurement that is going on; what is measured is kept.
    pub fn stop(&self) {
        if let Some(mut child) = self.lock().child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How it stands.
    fn stands(&self) -> Value {
        let mut command = self.lock();
        let measuring = command.is_running();
        // Before it has written nobody knows whether it goes on or starts afresh.
        let lines = self.lines();
        command.before = command.before.filter(|&before| measuring && before == lines);
        let done = if command.before.is_some() { 0 } else { lines.min(self.of) };
        let curve = std::fs::read(self.dir.join("curve.json")).ok().filter(|_| !measuring);
        let curve: Option<Value> = curve.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let state = match (measuring, &command.failure, &curve) {
            (true, ..) => "measuring",
            (false, Some(_), _) => "failed",
            (false, None, Some(_)) => "done",
            (false, None, None) => "none",
        };
        json!({ "state": state, "message": command.failure, "done": done, "of": self.of, "curve": curve })
    }

    fn lock(&self) -> MutexGuard<'_, Measuring> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Measuring {
    /// Is it still at work? Keeps what a command that failed said last.
    fn is_running(&mut self) -> bool {
        let Some(child) = &mut self.child else { return false };
        let Ok(Some(status)) = child.try_wait() else { return true };
        // It says a few lines only, so that they fit into the pipe.
        let mut told = String::new();
        child.stderr.as_mut().map(|stderr| stderr.read_to_string(&mut told));
        let last = told.lines().map(str::trim).rfind(|line| !line.is_empty());
        self.failure = (!status.success()).then(|| last.unwrap_or("bd3 curve failed").to_string());
        self.child = None;
        false
    }
}

/// What there is.
pub async fn stands(State(served): State<Arc<Served>>) -> Result<Json<Value>, ApiError> {
    standing(&served).await.map(Json)
}

/// How it stands, from files and a pipe.
async fn standing(served: &Arc<Served>) -> Result<Value, ApiError> {
    let of = served.clone();
    served.reading.blocking(move || Ok(of.curve.stands())).await
}

/// Measures, and tells how far it is.
pub async fn measure(State(served): State<Arc<Served>>) -> Result<Response, ApiError> {
    let of = served.clone();
    match served.reading.blocking(move || Ok(of.curve.begin())).await? {
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
        let stands = standing(&served).await.unwrap_or_else(|error| error.body());
        let over = stands["state"] != "measuring";
        Some((Event::default().data(stands.to_string()), (served, over)))
    });
    let events = told.chain(stream::iter([Event::default().data("[DONE]")])).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}
