//! Chat templates: how a model wants a conversation written, as the Jinja program that came with it. It is run as transformers
//! runs it (blocks trimmed, the same extra functions), but under a limit of work and memory, since it is a stranger's program.
//! What a template writes may name special tokens, what a message says may not: there their names are text (`names.rs`).

use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use regex::Regex;
use serde_json::Value as Json;

use super::Tokenizer;
use super::names::Veil;
use crate::format::gguf::Gguf;
use crate::{Error, Result};

/// Instructions that one rendering may take; it also bounds the memory that a template can ask for (64 bytes for each).
const FUEL: u64 = 2_000_000;

/// The key of a template in a GGUF file.
pub const KEY: &str = "tokenizer.chat_template";

/// What one side of a conversation said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A model's chat template, ready to be rendered.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// As its file has it.
    source: String,
    /// Where it came from, for errors.
    name: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// A template from its source. `name` says in errors where it came from; `bos` and `eos` are what the template may write
    /// as `bos_token` and `eos_token`, empty where the model has none.
    ///
    /// # Errors
    /// A source that is no Jinja.
    pub fn parse(name: &str, source: &str, bos: &str, eos: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| refused(name, &e))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            strftime(&format, now).map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e))
        });
        environment.add_template_owned("chat", without_generation_tags(source)).map_err(|e| refused(name, &e))?;
        Ok(Self { environment, source: source.into(), name: name.into(), bos: bos.into(), eos: eos.into() })
    }

    /// The template of a GGUF file, if it has one.
    ///
    /// # Errors
    /// As [`ChatTemplate::parse`], and a key that is no text.
    pub fn from_gguf(file: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(source) = file.text(KEY)? else { return Ok(None) };
        let name = format!("{}: `{KEY}`", file.path().display());
        Self::parse(&name, source, &bos(tokenizer), &eos(tokenizer)).map(Some)
    }

    /// The template of a folder in Hugging Face layout, if it has one: `chat_template.jinja`, or the key `chat_template` of
    /// `tokenizer_config.json` (of several templates, the one named `default`).
    ///
    /// # Errors
    /// As [`ChatTemplate::parse`], and a configuration that can't be read or whose keys are not what they are called.
    pub fn from_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let path = folder.join("tokenizer_config.json");
        let config: Json = match read(&path)? {
            None => Json::Null,
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| Error::file(&path, "a JSON object", format!("broken JSON ({e})")))?,
        };
        let bos = token(&path, &config, "bos_token")?.unwrap_or_else(|| bos(tokenizer));
        let eos = token(&path, &config, "eos_token")?.unwrap_or_else(|| eos(tokenizer));
        let own = folder.join("chat_template.jinja");
        if let Some(source) = read(&own)? {
            return Self::parse(&own.display().to_string(), &source, &bos, &eos).map(Some);
        }
        let key = &config["chat_template"];
        let named =
            |all: &Json| all.as_array()?.iter().find(|one| one["name"] == "default").map(|one| one["template"].clone());
        match key.is_array().then(|| named(key)).flatten().as_ref().unwrap_or(key) {
            Json::Null => Ok(None),
            Json::String(source) => {
                Self::parse(&format!("{}: `chat_template`", path.display()), source, &bos, &eos).map(Some)
            }
            _ => Err(Error::key(path, "chat_template", "a template, or a list with one named `default`", "neither")),
        }
    }

    /// Its source, as its file has it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The ids of a conversation, up to where the model's answer begins. A name of a special token stands for it where the template
    /// writes it; in a message it is text, so that nobody can end a turn, or begin another, from within one.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`]; a message with such a name where the template does something with
    /// messages that depends on it.
    pub fn encode(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let plain = self.render(messages)?;
        let Some(names) = tokenizer.names()? else { return tokenizer.encode(&plain) };
        let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        let Some(veil) = Veil::over(names, &contents, &plain)? else { return tokenizer.encode_template(&plain) };
        let hidden = |message: &Message| Message::new(message.role.as_str(), veil.hide(names, &message.content));
        let veiled = self.render(&messages.iter().map(hidden).collect::<Vec<_>>())?;
        if veil.lift(&veiled) != plain {
            let expected = "no name of a special token in it, which the chat template would treat as its own";
            return Err(Error::value("a message", expected, "one"));
        }
        tokenizer.encode_under(Some(&veil), &veiled)
    }

    /// The text of a conversation, up to where the model's answer begins.
    ///
    /// # Errors
    /// The template refuses the conversation (two messages of one role in a row, say), fails, or takes more work than is allowed.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        let message = |m: &Message| context! { role => m.role.as_str(), content => m.content.as_str() };
        let messages: Vec<Value> = messages.iter().map(message).collect();
        // Templates ask whether `tools is not none`, for which an undefined name would do.
        let given = context! {
            messages => messages, add_generation_prompt => true, bos_token => self.bos.as_str(), eos_token => self.eos.as_str(),
            tools => (), documents => (),
        };
        let template = self.environment.get_template("chat").map_err(|e| refused(&self.name, &e))?;
        template.render(given).map_err(|e| refused(&self.name, &e))
    }
}

fn bos(tokenizer: &Tokenizer) -> String {
    tokenizer.special().bos.and_then(|id| tokenizer.name(id)).unwrap_or_default()
}

fn eos(tokenizer: &Tokenizer) -> String {
    tokenizer.special().eos.and_then(|id| tokenizer.name(id)).unwrap_or_default()
}

/// A text file, if it is there.
fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// A token of `tokenizer_config.json`: its text, or an object that holds it.
fn token(path: &Path, config: &Json, key: &str) -> Result<Option<String>> {
    match &config[key] {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(text.clone())),
        other => match &other["content"] {
            Json::String(text) => Ok(Some(text.clone())),
            _ => Err(Error::key(path, key, "a token's text", other.to_string())),
        },
    }
}

fn refused(name: &str, e: &minijinja::Error) -> Error {
    let line = e.line().map_or(String::new(), |line| format!(" in line {line}"));
    let detail = e.detail().map_or(String::new(), |detail| format!(": {detail}"));
    let said = format!("{}{detail}{line}", e.kind()).split_whitespace().collect::<Vec<_>>().join(" ");
    Error::value(name, "a chat template that can be rendered", said)
}

/// `{% generation %}` marks the model's own words for training and renders as its content.
fn without_generation_tags(source: &str) -> String {
    static TAG: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})").ok());
    let Some(tag) = TAG.as_ref() else { return source.into() };
    let plain = |found: &regex::Captures<'_>| {
        let word = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{}{word}{}", &found[1], &found[3])
    };
    tag.replace_all(source, plain).into_owned()
}

/// JSON as Python's `json.dumps(..., ensure_ascii=False)` writes it; the engine's own filter escapes what HTML could mistake.
fn tojson(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<Value, minijinja::Error> {
    if args.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "tojson writes no ASCII escapes"));
    }
    let escaped = minijinja::filters::tojson(value, indent, args)?.to_string();
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped.as_str();
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        let html = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        out.push_str(before);
        rest = match html.iter().find(|(code, _)| escape.starts_with(code)) {
            Some((code, c)) => {
                out.push(*c);
                &escape[code.len()..]
            }
            // The character behind a backslash is ASCII.
            None => {
                out.push_str(&escape[..2]);
                &escape[2..]
            }
        };
    }
    Ok((out + rest).into())
}

/// The time `seconds` after 1970 began, UTC, as the C function of that name writes it; the codes that templates use.
fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (seconds / 86400, seconds % 86400);
    let (year, month, day) = date(days);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &format!("{:02}", second / 3600),
            Some('M') => out += &format!("{:02}", second / 60 % 60),
            Some('S') => out += &format!("{:02}", second % 60),
            Some('%') => out.push('%'),
            other => return Err(format!("strftime_now knows no code {other:?}")),
        }
    }
    Ok(out)
}

/// Year, month and day of the month, so many days after 1970 began.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month + 1, days + 1)
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
