//! `POST /v1/completions` and `POST /v1/chat/completions`: what is particular to each.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use bd3::arch::Objective;
use bd3::sample::{Part, Template};
use bd3::tokenizer::chat::Message;
use serde_json::{Value, json};

use super::Served;
use super::answer::{Answer, Shape};
use super::error::ApiError;
use super::fields::{Fields, kind, whole};
use super::request::{GenerationRequest, MOST_ALTERNATIVES, Start, begun};
use super::scoring;

/// Continues a text, or fills a gap in it.
pub async fn completions(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let of = served.clone();
    served.desk(&body).blocking(move || complete(&of, &body)).await?.respond().await
}

fn complete(served: &Arc<Served>, body: &[u8]) -> Result<Answer, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let (mut request, mut bd3) = GenerationRequest::take(served, &mut fields)?;
    let most = served.limits.max_tokens;
    request.max_tokens = fields.count("max_tokens", 0..=most)?.unwrap_or(most.min(16)) as usize;
    request.logprobs = fields.count("logprobs", 0..=MOST_ALTERNATIVES)?.map(|count| count as usize);
    fields.neutral(&[("best_of", json!(1))])?;
    let echo = fields.flag("echo")?;
    if echo && request.logprobs.is_some() {
        scoring::check(&served.model.checkpoint.arch)?;
        request.scored = true;
    }
    let prompt = fields.value("prompt");
    let suffix = fields.text("suffix")?.filter(|suffix| !suffix.is_empty());
    let (gap, infill) = (bd3.value("gap"), bd3.text("infill")?);
    if gap.is_some() && suffix.is_none() {
        return Err(ApiError::field("bd3.gap", "none without `suffix`", "one"));
    }
    request.take_flags(bd3)?;
    fields.end()?;
    if served.model.checkpoint.arch.objective != Objective::Masked
        && let Some(name) = infill.as_ref().map(|_| "bd3.infill").or(suffix.as_ref().map(|_| "suffix"))
    {
        return Err(ApiError::field(name, "none, since the model predicts the next token and fills no gaps", "one"));
    }
    request.starts = match (infill, suffix) {
        (Some(_), Some(_)) => return Err(ApiError::field("bd3.infill", "none beside `suffix`", "one")),
        (Some(_), None) if prompt.is_some() || echo => {
            return Err(ApiError::field("bd3.infill", "none beside `prompt` or `echo`", "one"));
        }
        (Some(template), None) => {
            let template = Template::parse(&template).map_err(|e| ApiError::of(&e))?;
            vec![Start::Template { template, only_gap: false }]
        }
        (None, Some(_)) if echo => return Err(ApiError::field("echo", "false beside `suffix`", "true")),
        (None, Some(suffix)) => vec![gap_before(&request, prompt, suffix, gap.as_ref())?],
        (None, None) => prompts(served, prompt.as_ref())?.into_iter().map(|ids| Start::Ids { ids, echo }).collect(),
    };
    Answer::order(served, request, Shape::Completion)
}

/// A prompt, a gap, and what follows it.
fn gap_before(
    request: &GenerationRequest,
    prompt: Option<Value>,
    suffix: String,
    gap: Option<&Value>,
) -> Result<Start, ApiError> {
    let prompt = match prompt {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => return Err(ApiError::field("prompt", "one text beside `suffix`", kind(&other))),
    };
    let most = u64::from(u16::MAX);
    let (least, most) = match gap {
        None if request.max_tokens == 0 => {
            return Err(ApiError::field("max_tokens", "at least 1 beside `suffix`", "0"));
        }
        None => (request.max_tokens, request.max_tokens),
        Some(value) => {
            let pair = value.as_array().filter(|pair| pair.len() == 2);
            let end = |index: usize| pair.and_then(|pair| whole(&pair[index])).filter(|&n| n > 0 && n <= most);
            match (end(0), end(1)) {
                (Some(least), Some(most)) if least <= most => (least as usize, most as usize),
                _ => return Err(ApiError::field("bd3.gap", "[least, most] tokens, whole numbers", value.to_string())),
            }
        }
    };
    let parts = [Part::Text(prompt), Part::Gap { least, most }, Part::Text(suffix)];
    let parts = parts.into_iter().filter(|part| *part != Part::Text(String::new())).collect();
    let template = Template::of(parts).map_err(|e| ApiError::of(&e))?;
    Ok(Start::Template { template, only_gap: true })
}

/// Texts or ids, each begun.
fn prompts(served: &Served, prompt: Option<&Value>) -> Result<Vec<Vec<u32>>, ApiError> {
    let expected = "a text, a list of texts, ids, or a list of lists of ids";
    let wrong = || ApiError::field("prompt", expected, prompt.map_or("none".into(), kind));
    let encode = |text: &str| served.model.tokenizer.encode(text).map_err(|e| ApiError::of(&e));
    let vocab = served.model.checkpoint.arch.vocab as u64;
    let id = |value: &Value| {
        let id = whole(value).filter(|&id| id < vocab || id == u64::from(served.mask()));
        id.map(|id| id as u32).ok_or_else(|| ApiError::field("prompt", format!("ids below {vocab}"), value.to_string()))
    };
    let ids = |list: &[Value]| list.iter().map(id).collect::<Result<Vec<u32>, _>>();
    let bare: Vec<Vec<u32>> = match prompt {
        None => vec![Vec::new()],
        Some(Value::String(text)) => vec![encode(text)?],
        Some(Value::Array(list)) => match list.first() {
            None => return Err(wrong()),
            Some(Value::Number(_)) => vec![ids(list)?],
            Some(Value::String(_)) => {
                list.iter().map(|text| encode(text.as_str().ok_or_else(wrong)?)).collect::<Result<_, _>>()?
            }
            Some(_) => list.iter().map(|list| ids(list.as_array().ok_or_else(wrong)?)).collect::<Result<_, _>>()?,
        },
        Some(_) => return Err(wrong()),
    };
    let bos = served.model.tokenizer.special().bos;
    // Ids may already begin with it.
    let begin = |ids: Vec<u32>| if ids.first().copied() == bos && bos.is_some() { Ok(ids) } else { begun(served, ids) };
    bare.into_iter().map(begin).collect()
}

/// Answers messages.
pub async fn chat(State(served): State<Arc<Served>>, body: Bytes) -> Result<Response, ApiError> {
    let of = served.clone();
    served.desk(&body).blocking(move || converse(&of, &body)).await?.respond().await
}

fn converse(served: &Arc<Served>, body: &[u8]) -> Result<Answer, ApiError> {
    let Some(template) = &served.template else {
        let message = format!("{} has no chat template: use /v1/completions", served.name);
        return Err(ApiError {
            param: Some("model".into()),
            code: Some("no_chat_template"),
            ..ApiError::refused(message)
        });
    };
    let mut fields = Fields::of_body(body)?;
    let (mut request, bd3) = GenerationRequest::take(served, &mut fields)?;
    request.take_flags(bd3)?;
    let most = served.limits.max_tokens;
    let old = fields.count("max_tokens", 1..=most)?;
    let limit = fields.count("max_completion_tokens", 1..=most)?.or(old);
    let logprobs = fields.flag("logprobs")?;
    let top = fields.count("top_logprobs", 0..=MOST_ALTERNATIVES)?;
    if top.is_some() && !logprobs {
        return Err(ApiError::field("top_logprobs", "none without `logprobs`", "one"));
    }
    request.logprobs = logprobs.then(|| top.unwrap_or(0) as usize);
    fields.neutral(&[("tools", json!([])), ("tool_choice", json!("none")), ("store", json!(false))])?;
    let messages = messages(&mut fields)?;
    fields.end()?;
    let ids = template.encode(&messages, &served.model.tokenizer);
    let ids = ids.map_err(|e| ApiError::refused(format!("messages: {e}")))?;
    let left = served.model.checkpoint.arch.length.saturating_sub(ids.len()).max(1) as u64;
    request.max_tokens = limit.unwrap_or(left.min(most)) as usize;
    request.starts = vec![Start::Ids { ids, echo: false }];
    Answer::order(served, request, Shape::Chat)
}

fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let list = match fields.value("messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(other) => return Err(fields.wrong("messages", "a list of messages", &other)),
        None => return Err(ApiError::field("messages", "a list of messages", "none")),
    };
    list.iter().enumerate().map(|(index, message)| one_message(index, message)).collect()
}

fn one_message(index: usize, message: &Value) -> Result<Message, ApiError> {
    let name = |field: &str| format!("messages[{index}].{field}");
    let role = message["role"].as_str().filter(|role| ["system", "developer", "user", "assistant"].contains(role));
    let Some(role) = role else {
        return Err(ApiError::field(name("role"), "system, user or assistant", message["role"].to_string()));
    };
    let text = match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part["text"].as_str().filter(|_| part["type"] == "text"))
            .collect::<Option<String>>(),
        _ => None,
    };
    let Some(text) = text else {
        return Err(ApiError::field(name("content"), "a text", "something else"));
    };
    if let Some((field, _)) =
        message.as_object().and_then(|all| all.iter().find(|(key, v)| !v.is_null() && !MESSAGE.contains(&key.as_str())))
    {
        return Err(ApiError::unsupported(name(field)));
    }
    Ok(Message::new(if role == "developer" { "system" } else { role }, text))
}

/// Fields of a message. A name is for people.
const MESSAGE: [&str; 5] = ["role", "content", "name", "refusal", "annotations"];
