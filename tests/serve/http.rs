//! A client of HTTP/1.1 on a plain socket: one that can also read slowly, leave early, and send what no library would.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer takes, so that a test that would hang fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The object of an error, in OpenAI's shape.
    pub fn error(&self) -> Value {
        let error = self.json()["error"].clone();
        let keys: Vec<&String> = error.as_object().unwrap_or_else(|| panic!("{}", self.text())).keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        error
    }
}

/// A request as it goes over the wire; `body` as JSON.
pub fn request(method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    if let Some(body) = body {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body.unwrap_or_default()].concat()
}

/// A connection.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap()
    }

    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes; false where the server has closed.
    pub fn send(&self, bytes: &[u8]) -> bool {
        self.stream.get_ref().write_all(bytes).is_ok()
    }

    /// Bytes that have come and were not read, or 1 where the server has closed.
    pub fn waiting(&self) -> usize {
        let stream = self.stream.get_ref();
        let mut byte = [0];
        stream.set_nonblocking(true).unwrap();
        let found = stream.peek(&mut byte);
        stream.set_nonblocking(false).unwrap();
        match found {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            _ => 1,
        }
    }

    /// Says that nothing more is sent.
    pub fn end(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// Waits until the server closes; what it still said.
    pub fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).ok()?;
        let line = String::from_utf8(line).ok()?;
        line.strip_suffix("\r\n").map(str::to_string)
    }

    /// The head of an answer, without its body; none where the server closed instead.
    pub fn head(&mut self) -> Option<Reply> {
        let first = self.line()?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Some(Reply { status, headers, body: Vec::new() })
    }

    /// The next piece of a body that comes in pieces; none at its end, or where it broke off.
    pub fn piece(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut piece = vec![0; size + 2];
        self.stream.read_exact(&mut piece).ok()?;
        piece.truncate(size);
        Some(piece).filter(|piece| !piece.is_empty())
    }

    /// An answer with its body; `method` says whether it has one.
    pub fn reply(&mut self, method: &str) -> Option<Reply> {
        let mut reply = self.head()?;
        let length = reply.header("content-length").and_then(|length| length.parse::<usize>().ok());
        if method == "HEAD" || reply.status == 204 || reply.status < 200 {
            return Some(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(piece) = self.piece() {
                reply.body.extend(piece);
            }
        } else if let Some(length) = length {
            reply.body = vec![0; length];
            self.stream.read_exact(&mut reply.body).ok()?;
        } else {
            self.stream.read_to_end(&mut reply.body).ok()?;
        }
        Some(reply)
    }
}

/// Server-sent events: the data of each.
pub struct Events {
    wire: Wire,
    bytes: Vec<u8>,
}

impl Events {
    /// Of a connection on which an answer's head was read.
    pub fn new(wire: Wire) -> Self {
        Self { wire, bytes: Vec::new() }
    }
}

impl Iterator for Events {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.bytes.drain(..end + 2).take(end).collect();
                let event = String::from_utf8(event).unwrap();
                match event.strip_prefix("data: ") {
                    Some(data) => return Some(data.to_string()),
                    None => assert!(event.starts_with(':'), "{event:?}"),
                }
                continue;
            }
            self.bytes.extend(self.wire.piece()?);
        }
    }
}
