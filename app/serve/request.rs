//! What a request for text asks: the fields that completions and chat share, checked, and made into orders for the model.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bd3::event::{Header, VERSION};
use bd3::rng::Rng;
use bd3::sample::{Part, SampleOptions, Template};
use serde_json::{Value, json};

use super::Served;
use super::channel::Sender;
use super::constraints::Asked;
use super::error::ApiError;
use super::fields::{Fields, whole};
use super::queue::Order;
use super::relay::{ChoiceOptions, Delta, Relay};
use crate::job::{bos, template_ids};
use crate::sample::{SampleArgs, block_that_holds};

/// Choices of a request, at most.
pub const MOST_CHOICES: u64 = 64;
/// Tokens of an answer in one piece that tells more than its text, each with four for itself and one for each alternative, at most.
const MOST_DETAILED: u64 = 65_536;
/// Alternatives of a token, at most.
pub const MOST_ALTERNATIVES: u64 = 20;
/// Guidance, at most. With far more a logit would be no number, and the choice would fail.
const MOST_GUIDANCE: f32 = 100.0;

/// What a choice begins with, and which part of its text is the answer.
pub enum Start {
    /// Ids to continue; with `echo` they are part of the answer.
    Ids { ids: Vec<u32>, echo: bool },
    /// A text with gaps, all of it the answer; or, of the one gap between a prompt and a suffix, that gap.
    Template { template: Template, only_gap: bool },
}

/// A request that was understood.
pub struct GenerationRequest {
    /// One for each prompt.
    pub starts: Vec<Start>,
    /// Choices of each.
    pub n: u64,
    /// What is random follows from it.
    pub seed: u64,
    /// It was a negative number.
    pub signed: bool,
    /// Tokens of each choice, at most.
    pub max_tokens: usize,
    /// Sequences that end the text.
    pub stops: Vec<String>,
    /// Flags of `bd3 sample`.
    pub flags: Vec<String>,
    /// Is a block size among them?
    pub block: Option<usize>,
    /// Added to logits.
    pub bias: Vec<(u32, f32)>,
    /// What each answer has to match.
    pub constraint: Option<Asked>,
    /// Alternatives to report with each token; none: no probabilities at all.
    pub logprobs: Option<usize>,
    /// Those of the prompt, too.
    pub scored: bool,
    /// The answer comes in pieces.
    pub stream: bool,
    /// Its last piece tells usage.
    pub include_usage: bool,
    /// Events are told.
    pub events: bool,
    /// Alternatives of each edit.
    pub alternatives: usize,
}

impl GenerationRequest {
    /// Takes the fields that both endpoints share. `max_tokens` and `logprobs` are theirs.
    pub fn take(served: &Served, fields: &mut Fields) -> Result<(Self, Fields), ApiError> {
        served.check_model(fields.text("model")?.as_deref())?;
        fields.text("user")?;
        fields.neutral(&[("presence_penalty", json!(0)), ("frequency_penalty", json!(0))])?;
        let mut bd3 = fields.within("bd3")?;
        let stream = fields.flag("stream")?;
        let mut options = fields.within("stream_options")?;
        let include_usage = options.flag("include_usage")?;
        options.flag("include_obfuscation")?;
        options.end()?;
        if include_usage && !stream {
            return Err(ApiError::field("stream_options", "none without `stream`", "one"));
        }
        let (seed, signed) = seed(fields)?;
        let mut request = Self {
            starts: Vec::new(),
            n: fields.count("n", 1..=MOST_CHOICES)?.unwrap_or(1),
            seed,
            signed,
            max_tokens: 0,
            stops: fields.texts("stop", 4)?,
            flags: Vec::new(),
            block: bd3.count("block", 1..=u64::from(u32::MAX))?.map(|block| block as usize),
            bias: bias(served, fields)?,
            constraint: Asked::take(fields, &mut bd3)?,
            logprobs: None,
            scored: false,
            stream,
            include_usage,
            events: bd3.flag("events")?,
            alternatives: bd3.count("alternatives", 0..=MOST_ALTERNATIVES)?.unwrap_or(0) as usize,
        };
        for name in ["temperature", "top_p"] {
            // Without them as `bd3 sample` has it.
            if let Some(number) = fields.number(name)? {
                request.flags.push(format!("--{}={number}", name.replace('_', "-")));
            }
        }
        Ok((request, bd3))
    }

    /// The rest of the object `bd3`: flags of `bd3 sample`.
    pub fn take_flags(&mut self, mut bd3: Fields) -> Result<(), ApiError> {
        let known: Vec<_> =
            SampleArgs::making().into_iter().filter(|(flag, _)| !TOLD.contains(&flag.as_str())).collect();
        for (name, value) in bd3.rest().into_iter().filter(|(_, value)| !value.is_null()) {
            let flag = name.replace('_', "-");
            let Some((_, takes_value)) = known.iter().find(|(known, _)| *known == flag) else {
                return Err(ApiError::unsupported(bd3.name(&name)));
            };
            match value {
                Value::Bool(given) if *takes_value => {
                    return Err(ApiError::field(bd3.name(&name), "a number or a text", given.to_string()));
                }
                Value::Bool(false) => {}
                Value::Bool(true) => self.flags.push(format!("--{flag}")),
                other if !takes_value => return Err(bd3.wrong(&name, "true or false", &other)),
                Value::Number(number) => {
                    let whole = whole(&Value::Number(number.clone())).map(|whole| whole.to_string());
                    self.flags.push(format!("--{flag}={}", whole.unwrap_or_else(|| number.to_string())));
                }
                Value::String(text) => self.flags.push(format!("--{flag}={text}")),
                other => return Err(bd3.wrong(&name, "a number or a text", &other)),
            }
        }
        Ok(())
    }

    /// The seed as it was asked for: OpenAI's may be negative.
    pub fn told_seed(&self) -> Value {
        let negative = self.seed as i64;
        if negative < 0 && self.signed { negative.into() } else { self.seed.into() }
    }

    /// The flags, read.
    pub fn args(&self) -> Result<SampleArgs, ApiError> {
        SampleArgs::parse(&self.flags).map_err(|told| ApiError::flags(&told))
    }

    /// The orders, each with its relay to `to`, and the ids that the prompts have together.
    pub fn orders(&self, served: &Arc<Served>, to: &Sender<Delta>) -> Result<(Vec<Order>, usize), ApiError> {
        if self.starts.len() as u64 * self.n > MOST_CHOICES {
            let message =
                format!("expected at most {MOST_CHOICES} choices, found {}", self.starts.len() as u64 * self.n);
            return Err(ApiError::refused(message));
        }
        self.check_detail()?;
        let refuse = |error: &bd3::Error| ApiError::of(error);
        let args = self.args()?;
        let constraint = self.constraint.as_ref().map(|asked| asked.constraint(served)).transpose()?;
        let (mut orders, mut prompt_tokens) = (Vec::new(), 0);
        for start in &self.starts {
            for number in 0..self.n {
                let index = orders.len();
                let root = Rng::new(self.seed);
                let made = self.order(served, (&args, start), &root, number)?;
                let Made { options, ids, range } = made;
                let options = SampleOptions { constraint: constraint.clone(), ..options };
                if number == 0 {
                    prompt_tokens += ids.iter().filter(|&&id| id != served.mask()).count();
                }
                let length = options.check(&ids, served.mask()).map_err(|e| refuse(&e))?;
                let bytes = served.cache_bytes(&options, length);
                served.check_bytes(bytes)?;
                let choice = ChoiceOptions {
                    index,
                    range,
                    stops: self.stops.clone(),
                    tokens: self.logprobs.is_some(),
                    header: self.events.then(|| self.header(served, &options)),
                    whole: options.constraint.is_some(),
                    limit: served.limits.time,
                };
                let relay = Relay::new(served.clone(), to.clone(), choice);
                orders.push(Order { options, ids, rng: root.split_at("sample", number), bytes, relay });
            }
        }
        Ok((orders, prompt_tokens))
    }

    /// Refuses an answer that would take much memory: in one piece, unlike a stream, which is told as it comes, or with the
    /// probabilities of prompts, which are there before it begins.
    fn check_detail(&self) -> Result<(), ApiError> {
        let detailed = self.events || self.logprobs.is_some();
        let each = 4 + self.alternatives.max(self.logprobs.unwrap_or(0)) as u64;
        let given =
            |start: &Start| if let (true, Start::Ids { ids, .. }) = (self.scored, start) { ids.len() } else { 0 };
        let tokens: usize = self.starts.iter().map(|start| given(start).saturating_add(self.max_tokens)).sum();
        let tokens = (tokens as u64).saturating_mul(self.n);
        if self.stream && !self.scored || !detailed || tokens.saturating_mul(each) <= MOST_DETAILED {
            return Ok(());
        }
        let most = MOST_DETAILED / each;
        let (what, instead) = match self.scored {
            true => ("`echo` beside `logprobs`", "ask for fewer prompts at a time"),
            false => ("an answer in one piece with events or logprobs", "stream it"),
        };
        Err(ApiError::refused(format!("{what}: expected at most {most} tokens in all, found {tokens} ({instead})")))
    }

    fn order(
        &self,
        served: &Served,
        (args, start): (&SampleArgs, &Start),
        root: &Rng,
        number: u64,
    ) -> Result<Made, ApiError> {
        let refuse = |error: bd3::Error| ApiError::of(&error);
        let model = &served.model;
        let arch = &model.checkpoint.arch;
        let mask = served.mask();
        let (ids, range, longest) = match start {
            Start::Ids { ids, echo } => {
                let gaps = ids.contains(&mask);
                if gaps && self.scored {
                    return Err(ApiError::field("prompt", "no masks where `echo` stands beside `logprobs`", "one"));
                }
                if gaps && ids.len() > arch.length {
                    let expected = format!(
                        "at most {} ids where some are masks, the length that the model was trained for",
                        arch.length
                    );
                    return Err(ApiError::field("prompt", expected, ids.len().to_string()));
                }
                (ids.clone(), (if *echo || gaps { 1 } else { ids.len() }, usize::MAX), ids.len())
            }
            Start::Template { template, only_gap } => {
                let longest = longest(served, template, *only_gap)?;
                let mut lengths = root.split_at("gaps", number);
                let drawn = |least, most| least + lengths.below(most - least + 1);
                let ids = template_ids(model, template, drawn).map_err(refuse)?;
                let of = |id: &u32| *id == mask;
                let first = ids.iter().position(of).unwrap_or(1);
                let last = ids.iter().rposition(of).map_or(ids.len(), |last| last + 1);
                (ids, if *only_gap { (first, last) } else { (1, usize::MAX) }, longest)
            }
        };
        let gaps = ids.contains(&mask) || matches!(start, Start::Template { .. });
        let block = self.block.unwrap_or(if gaps { block_that_holds(arch, longest) } else { arch.block });
        let eos = model.tokenizer.special().eos;
        let max_new = if matches!(start, Start::Template { .. }) { 0 } else { self.max_tokens };
        let options = args.options(model, (eos, block)).map_err(refuse)?;
        check_guidance(&options).map_err(refuse)?;
        let alternatives = self.alternatives.max(self.logprobs.unwrap_or(0));
        let options = SampleOptions { max_new, alternatives, bias: self.bias.clone().into(), ..options };
        Ok(Made { options, ids, range })
    }

    fn header(&self, served: &Served, options: &SampleOptions) -> Header {
        let tokenizer = served.model.tokenizer.hash().to_string();
        let settings = json!({ "options": options });
        Header {
            version: VERSION,
            model: served.name.clone(),
            tokenizer,
            mask: served.mask(),
            seed: self.seed,
            settings,
        }
    }
}

/// Refuses a guidance that would take logits out of their type.
pub fn check_guidance(options: &SampleOptions) -> bd3::Result<()> {
    if options.guidance > MOST_GUIDANCE {
        let expected = format!("at most {MOST_GUIDANCE}");
        return Err(bd3::Error::value("--guidance", expected, options.guidance.to_string()));
    }
    Ok(())
}

/// Ids of a template whose gaps are as long as they may be. More than a model was trained for it does not see at once.
fn longest(served: &Served, template: &Template, only_gap: bool) -> Result<usize, ApiError> {
    let most = served.model.checkpoint.arch.length;
    let fits = |found: usize| {
        let name = if only_gap { "suffix" } else { "bd3.infill" };
        let expected =
            format!("prompt, gaps and what follows in at most {most} tokens, the length the model was trained for");
        if found > most { Err(ApiError::field(name, expected, found.to_string())) } else { Ok(found) }
    };
    // Counted first: a short template can ask for more masks than memory holds.
    let gap = |part: &Part| if let Part::Gap { most, .. } = part { *most } else { 0 };
    fits(template.parts().iter().map(gap).fold(0, usize::saturating_add))?;
    fits(template_ids(&served.model, template, |_, most| most).map_err(|e| ApiError::of(&e))?.len())
}

struct Made {
    options: SampleOptions,
    ids: Vec<u32>,
    range: (usize, usize),
}

/// Flags of making that are fields of their own.
const TOLD: [&str; 3] = ["block", "temperature", "top-p"];

/// The seed asked for, and whether it was negative, or one that nobody knows, of 53 bits: what every JSON reader keeps.
fn seed(fields: &mut Fields) -> Result<(u64, bool), ApiError> {
    let given = match fields.value("seed") {
        None => None,
        // OpenAI's may be negative.
        Some(value) => match whole(&value).or(value.as_i64().map(|seed| seed as u64)) {
            Some(seed) => Some((seed, value.as_i64().is_some_and(i64::is_negative))),
            None => return Err(fields.wrong("seed", "a whole number", &value)),
        },
    };
    Ok(given.unwrap_or_else(|| (RandomState::new().hash_one(0) >> 11, false)))
}

fn bias(served: &Served, fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let bias = fields.within("logit_bias")?;
    let (name, vocab) = (bias.name(""), served.model.checkpoint.arch.vocab);
    let mut all = Vec::new();
    let mut bias = bias;
    for (id, value) in bias.rest() {
        let expected = format!("ids below {vocab}, each with a number from -100 to 100");
        let known = id.parse::<u32>().ok().filter(|&id| (id as usize) < vocab);
        let number = value.as_f64().filter(|number| (-100.0..=100.0).contains(number));
        match (known, number) {
            // At the ends of OpenAI's range a token is banned, or nothing else is left.
            (Some(id), Some(number)) => all.push((id, number as f32 * if number.abs() == 100.0 { 10.0 } else { 1.0 })),
            _ => return Err(ApiError::field(name.trim_end_matches('.'), expected, format!("{id}: {value}"))),
        }
    }
    all.sort_by_key(|&(id, _)| id);
    Ok(all)
}

/// Beginning of text and these ids.
pub fn begun(served: &Served, ids: Vec<u32>) -> Result<Vec<u32>, ApiError> {
    let bos = bos(&served.model.tokenizer).map_err(|e| ApiError::of(&e))?;
    Ok(std::iter::once(bos).chain(ids).collect())
}
