//! `bd3 serve`: an API that OpenAI's clients can use, events for those who ask, and the page. `docs/server.md` is the description for
//! users. One thread makes the passes (`worker.rs`), one answers requests; between them are a queue of orders and, for each
//! choice, a relay that says what has been written.
//!
//! In the order of a request: `listen.rs` connections, `guard.rs` who may ask, `routes.rs` which path, `completions.rs` with `fields.rs`
//! `request.rs` and `constraints.rs` what is asked (`desk.rs`: on another thread), `queue.rs`, `worker.rs`, `relay.rs` with `text.rs` what is told, `answer.rs` in which shape.

mod answer;
mod channel;
mod completions;
mod constraints;
mod curve;
mod desk;
mod error;
mod extras;
mod fields;
mod guard;
mod listen;
mod metrics;
mod openapi;
mod page;
mod queue;
mod race;
mod relay;
mod request;
mod routes;
mod scoring;
mod text;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use bd3::engine::Options;
use bd3::sample::SampleOptions;
use bd3::tokenizer::chat::ChatTemplate;
use bd3::{Error, Result};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::model::{self, Model};
use crate::{counts, interrupt, view};
use constraints::{Constraints, MOST_MADE};
use curve::CurveDesk;
use desk::Desk;
use error::ApiError;
use guard::Guard;
use metrics::Metrics;
use queue::Queue;
use worker::Worker;

/// Serve a model over OpenAI's API, and a web page that shows it at work
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  bd3 serve --port 8333")]
pub struct ServeArgs {
    /// A model folder or a .gguf file; default: the model inside the binary
    model: Option<PathBuf>,

    /// Listen on this address; one that others can reach needs --api-key or --no-key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address, help_heading = "Network")]
    host: IpAddr,
    /// Listen on this port; 0: any free one
    #[arg(long, value_name = "N", default_value_t = 8333, help_heading = "Network")]
    port: u16,
    /// Clients must send this key (`Authorization: Bearer KEY`); better set as BD3_API_KEY, which no list of processes shows
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new(), help_heading = "Network")]
    api_key: Option<String>,
    /// Whoever can reach the address may use the model without a key, also where BD3_API_KEY is set
    #[arg(long, conflicts_with = "api_key", help_heading = "Network")]
    no_key: bool,
    /// Web pages of this origin may use the API, such as https://example.org; may be given again
    #[arg(long, value_name = "ORIGIN", help_heading = "Network")]
    cors: Vec<String>,
    /// Size of a request in kilobytes, at most
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = counts::some_size, help_heading = "Limits")]
    body_kb: usize,
    /// Texts written side by side, at most; a request with `n: 3` is three
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = counts::some_size, help_heading = "Limits")]
    lanes: usize,
    /// Texts that may wait for their turn; a request beyond is answered with 429
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = counts::size, help_heading = "Limits")]
    queue: usize,
    /// Memory for keys and values in megabytes, at most: of texts under way, and of prompts kept for the next request
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = counts::some_size, help_heading = "Limits")]
    cache_mb: usize,
    /// New tokens of a text, at most
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = counts::some_size, help_heading = "Limits")]
    max_tokens: usize,
    /// Time of a request in seconds, at most; a text that takes longer ends there
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = counts::some, help_heading = "Limits")]
    time_limit: u64,

    /// Folder of the curve that the page shows and measures, as of `bd3 curve --out`
    #[arg(long, value_name = "DIR", default_value = "runs/curve", help_heading = "Model")]
    curve: PathBuf,
    /// Flags of `bd3 curve` when the page measures one, as one text: '--judge FILE --samples 8'
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        help_heading = "Model"
    )]
    curve_flags: String,
    /// The name of the model in the API; default: that of its folder or file
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Model")]
    alias: Option<String>,
    /// f32 throughout: no quantised activations, no half-precision cache
    #[arg(long, help_heading = "Model")]
    exact: bool,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = counts::threads, help_heading = "Model")]
    threads: usize,
}

fn address(text: &str) -> std::result::Result<IpAddr, String> {
    let none = || "expected an address, such as 127.0.0.1, or localhost".to_string();
    if text == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { text.parse().map_err(|_| none()) }
}

/// Open the web page of `bd3 serve` in the browser, served on a free port
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  bd3 play")]
pub struct PlayArgs {
    /// A model folder or a .gguf file; default: the model inside the binary
    model: Option<PathBuf>,
}

/// Requests that are read at once, at most.
const READERS: usize = 4;
/// Requests for noise that wait, at most: as many as races.
const MOST_NOISES: usize = 4;

/// What requests may cost.
pub struct Limits {
    /// Choices side by side.
    pub lanes: usize,
    /// Bytes of keys and values.
    pub cache_bytes: usize,
    /// New tokens of a choice.
    pub max_tokens: u64,
    /// Time of a request.
    pub time: Duration,
    /// Bytes of a body.
    pub body: usize,
}

/// All that requests share.
pub struct Served {
    /// The model.
    pub model: Model,
    /// What it is called.
    pub name: String,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// What waits for it.
    pub queue: Queue,
    /// What has been done.
    pub metrics: Metrics,
    /// What requests may cost.
    pub limits: Limits,
    /// The curve of this machine.
    pub curve: CurveDesk,
    /// Where requests are read.
    pub reading: Desk,
    /// Where requests with constraints are read: one may take seconds to be made.
    pub constraining: Desk,
    /// Where noise is made.
    pub noising: Desk,
    constraints: Constraints,
    guard: Guard,
    bytes_per_position: usize,
    numbers: AtomicU64,
    hurried: AtomicBool,
}

impl Served {
    /// The id of the mask.
    pub fn mask(&self) -> u32 {
        self.model.checkpoint.arch.mask
    }

    /// The bytes that an id adds to a text.
    pub fn spell(&self, id: u32) -> Vec<u8> {
        self.model.tokenizer.token_bytes(id)
    }

    /// The same as text.
    pub fn word(&self, id: u32) -> String {
        view::lossy(self.spell(id))
    }

    /// A number that no other request has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on every choice ends with what it has: the server's time is up.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Is it?
    pub fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    /// Where a body is read.
    pub fn desk(&self, body: &[u8]) -> &Desk {
        let has = |name: &str| body.windows(name.len()).any(|part| part == name.as_bytes());
        if has("\"response_format\"") || has("\"regex\"") { &self.constraining } else { &self.reading }
    }

    /// Refuses another model's name.
    pub fn check_model(&self, name: Option<&str>) -> std::result::Result<(), ApiError> {
        match name.filter(|name| *name != self.name) {
            None => Ok(()),
            Some(name) => {
                let message = format!("no model {name:?} here; this server has {:?}", self.name);
                let error = ApiError::coded(StatusCode::NOT_FOUND, "model_not_found", message);
                Err(ApiError { param: Some("model".into()), ..error })
            }
        }
    }

    /// Refuses what would never have room.
    pub fn check_bytes(&self, bytes: usize) -> std::result::Result<(), ApiError> {
        if bytes <= self.limits.cache_bytes {
            return Ok(());
        }
        Err(ApiError::refused("the text may need more memory than the server has for it: ask for fewer tokens"))
    }

    /// Bytes of keys and values that a sample of this length may come to need, in all its caches.
    pub fn cache_bytes(&self, options: &SampleOptions, length: usize) -> usize {
        let positions = options.window.most(length, options.train_length).saturating_add(options.block);
        positions.saturating_mul(options.caches()).saturating_mul(self.bytes_per_position)
    }
}

impl ServeArgs {
    fn served(&self, bytes_per_position: usize, model: Model) -> Result<Served> {
        let name = match (&self.alias, &self.model) {
            (Some(alias), _) => alias.clone(),
            (None, Some(path)) => {
                path.file_name().map_or(model.name.clone(), |name| name.to_string_lossy().into_owned())
            }
            (None, None) => model.name.clone(),
        };
        let flags: Vec<String> = self.curve_flags.split_whitespace().map(str::to_string).collect();
        let of = crate::curve::length(&model, &flags)?;
        Ok(Served {
            template: model.find_chat_template()?,
            name,
            queue: Queue::new(self.queue),
            metrics: Metrics::default(),
            limits: Limits {
                lanes: self.lanes.max(1),
                cache_bytes: self.cache_mb << 20,
                max_tokens: self.max_tokens as u64,
                time: Duration::from_secs(self.time_limit),
                body: self.body_kb << 10,
            },
            curve: CurveDesk::new(self.curve.clone(), self.model.clone(), (flags, of)),
            reading: Desk::new(READERS),
            constraining: Desk::with_line(MOST_MADE, self.queue.max(MOST_MADE)),
            noising: Desk::with_line(1, MOST_NOISES),
            constraints: Constraints::default(),
            guard: self.guard()?,
            bytes_per_position,
            numbers: AtomicU64::new(0),
            hurried: AtomicBool::new(false),
            model,
        })
    }

    fn guard(&self) -> Result<Guard> {
        let of_environment = || std::env::var("BD3_API_KEY").ok().filter(|_| !self.no_key);
        let key = self.api_key.clone().or_else(of_environment).filter(|key| !key.is_empty());
        if !self.host.is_loopback() && key.is_none() && !self.no_key {
            let expected = "--api-key (or BD3_API_KEY), or --no-key, with an address that others can reach";
            return Err(Error::value("--host", expected, self.host.to_string()));
        }
        for origin in &self.cors {
            let rest = origin.split_once("://").map_or("", |(_, rest)| rest);
            if rest.is_empty() || rest.contains(['/', '*']) {
                let expected = "an origin as browsers send it (https://example.org, http://localhost:3000)";
                return Err(Error::value("--cors", expected, format!("`{origin}`")));
            }
        }
        Ok(Guard::new(key, self.host.is_loopback(), self.cors.clone()))
    }
}

/// Runs the command.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    serve(args, |address| note!("http://{address}/  (Ctrl-C ends it)"))
}

/// Runs `bd3 play`.
pub fn play(args: &PlayArgs) -> anyhow::Result<()> {
    let args = ServeArgs { model: args.model.clone(), port: 0, ..ServeArgs::bare() };
    serve(&args, |address| {
        let page = format!("http://{address}/");
        note!("{page}  (Ctrl-C ends it)");
        if let Err(error) = open::that_detached(&page) {
            note!("no browser could be opened ({error}): open the page yourself");
        }
    })
}

/// The flags without a command in front.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Bare {
    #[command(flatten)]
    args: ServeArgs,
}

impl ServeArgs {
    fn bare() -> Self {
        <Bare as clap::Parser>::parse_from([""; 0]).args
    }
}

fn serve(args: &ServeArgs, ready: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    args.guard()?;
    let model = model::open(args.model.as_deref())?;
    let engine = model.checkpoint.engine(Options { exact: args.exact, threads: args.threads, isa: None })?;
    let served = Arc::new(args.served(engine.cache_bytes(), model)?);
    interrupt::watch()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let worker = Worker::new(served.clone(), engine);
    let worker = std::thread::Builder::new().name("model".into()).spawn(move || worker.run())?;
    let address = SocketAddr::new(args.host, args.port);
    let asked = || interrupt::asked() || worker.is_finished();
    let listened = runtime.block_on(listen::until(&served, address, ready, asked));
    served.queue.close();
    // With it go the last connections, so that nothing is written for them; what is still being read for them is not waited for.
    runtime.shutdown_background();
    let ended = worker.join();
    listened?;
    ended.map_err(|_| Error::Run("the model's thread failed".into()))?;
    Ok(())
}
