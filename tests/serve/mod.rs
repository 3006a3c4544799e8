//! `bd3 serve` as its clients meet it: the real process on a real port.

mod api;
mod bounds;
mod chat;
mod company;
mod constrain;
mod end;
mod events;
mod fields;
mod hostile;
mod http;
mod leave;
mod load;
mod models;
mod slow;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use http::{Events, Reply, Wire, request};

/// A server of its own port. It ends with its last user.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    notes: BufReader<ChildStderr>,
}

/// The command, not yet started.
fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bd3"));
    command.args(["serve", "--port", "0"]).args(flags).env_remove("BD3_API_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Server {
    pub fn start(flags: &[&str]) -> Self {
        Self::of(serve(flags))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let notes = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, address: ([127, 0, 0, 1], 0).into(), notes };
        server.address = server.listens_at();
        server
    }

    /// The address that it notes once it listens.
    fn listens_at(&mut self) -> SocketAddr {
        loop {
            let mut line = String::new();
            assert!(self.notes.read_line(&mut line).unwrap() > 0, "the server ended instead of listening");
            let address = line.strip_prefix("http://").and_then(|line| line.split('/').next()?.parse().ok());
            if let Some(address) = address {
                return address;
            }
        }
    }

    /// One with the model inside the binary, which all tests share that do not mind company.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start(&["--queue", "256"]));
        *shared = Arc::downgrade(&server);
        server
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Reply {
        let mut wire = Wire::open(self.address);
        wire.send(&request(method, path, headers, body));
        wire.reply(method).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, &[], Some(body.to_string().as_bytes()))
    }

    /// A completion that must succeed.
    pub fn complete(&self, body: &Value) -> Value {
        let reply = self.post("/v1/completions", body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        reply.json()
    }

    /// The text of the one choice of a completion.
    pub fn text(&self, body: &Value) -> String {
        self.complete(body)["choices"][0]["text"].as_str().unwrap().to_string()
    }

    /// Begins a stream that must succeed.
    pub fn stream(&self, path: &str, body: &Value) -> Events {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let mut wire = Wire::open(self.address);
        wire.send(&request("POST", path, &[], Some(body.to_string().as_bytes())));
        let head = wire.head().unwrap();
        assert_eq!(head.status, 200, "{body}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Events::new(wire)
    }

    /// All chunks of a stream, which must end in order.
    pub fn chunks(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut events: Vec<String> = self.stream(path, body).collect();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"), "{body}: {events:?}");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// Refused with this status and about this field; gives the message.
    pub fn refuses(&self, path: &str, body: &Value, status: u16, param: Option<&str>) -> String {
        let reply = self.post(path, body);
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        let error = reply.error();
        assert_eq!(error["param"].as_str(), param, "{body}: {error}");
        error["message"].as_str().unwrap().to_string()
    }

    /// The numbers of /metrics, each line of which must be as Prometheus reads it.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let reply = self.get("/metrics");
        assert_eq!(reply.status, 200);
        let text = reply.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, n)| (name.to_string(), n.parse().unwrap()))
            .collect()
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.metrics()[name]
    }

    /// Waits until a number of /metrics is this one.
    pub fn wait_for(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name) != value {
            assert!(start.elapsed() < Duration::from_secs(20), "{name} does not become {value}: {}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_well(&self) -> bool {
        let reply = self.get("/health");
        reply.status == 200 && reply.json() == json!({ "status": "ok" })
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end, so long at most.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < within, "the server has not ended within {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The share of a core that it uses in this time.
    #[cfg(target_os = "linux")]
    pub fn busy(&self, time: Duration) -> f64 {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let before = ticks();
        std::thread::sleep(time);
        // A tick is a hundredth of a second.
        (ticks() - before) as f64 / 100.0 / time.as_secs_f64()
    }

    /// Resident memory in bytes.
    #[cfg(target_os = "linux")]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of a stream's choice.
fn text_of(chunks: &[Value], index: u64) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let of = |choice: &&Value| choice["index"] == index;
    choices
        .filter(of)
        .map(|choice| choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default())
        .collect()
}

/// What `bd3 sample` writes with these flags.
fn sampled(flags: &[&str]) -> Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bd3")).args(["sample", "--view", "json"]).args(flags).output().unwrap();
    assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
