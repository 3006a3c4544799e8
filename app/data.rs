//! `bd3 data`: text, or toy stories, into a data folder. The work is the library's; here are flags, progress, the summary.

use std::path::PathBuf;
use std::time::Instant;

use bd3::data::build::{TRAINED_ON, check_out, train_tokenizer};
use bd3::data::{Detokenizer, Shares, Summary, Texts, build, toy};
use bd3::rng::Rng;
use bd3::tokenizer::Tokenizer;
use bd3::{Error, Result};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{counts, interrupt, model, view};

/// Turn text into a data folder: token shards, the tokenizer, a summary
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bd3 data stories.jsonl.zst --out data/stories --tokenizer train:4096")]
pub struct DataArgs {
    /// Text files or folders: .txt, .text, .md, .jsonl and .ndjson, plain, gzip or zstd
    #[arg(value_name = "TEXT", required_unless_present = "toy", conflicts_with = "toy")]
    texts: Vec<PathBuf>,
    /// Instead of texts, write N short stories from a grammar whose entropy is known
    #[arg(long, value_name = "N", value_parser = counts::count)]
    toy: Option<u64>,
    /// The data folder to write (new, or empty)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// `bytes`, `train:N` (a byte-level BPE of N ids), or a tokenizer.json; default: the built-in model's
    #[arg(long, value_name = "bytes|train:N|FILE")]
    tokenizer: Option<String>,
    /// Shares of train, valid and test; whole documents, by their text and the seed
    #[arg(long, value_name = "SHARES", default_value = "98,1,1")]
    split: String,
    /// Seed of the split (and of toy stories)
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Undo the token spacing of a zero-shot set: wikitext, ptb, lm1b, lambada, scientific-papers
    #[arg(long, value_name = "NAME", conflicts_with = "toy")]
    detokenize: Option<String>,
    /// The key of a .jsonl line that holds the text; default: text
    #[arg(long, value_name = "KEY", conflicts_with = "toy")]
    field: Option<String>,
    /// Cut .txt files into documents at this text (\n is a newline, \t a tab, \\ a backslash); without it a file is one document
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "toy")]
    separator: Option<String>,
}

/// Where documents come from.
enum Input {
    Texts(Texts, Option<Detokenizer>),
    Toy { stories: u64, rng: Box<Rng> },
}

impl Input {
    fn open(args: &DataArgs) -> Result<Self> {
        if let Some(stories) = args.toy {
            return Ok(Input::Toy { stories, rng: Box::new(Rng::new(args.seed).split("toy")) });
        }
        let detokenizer = args.detokenize.as_deref().map(Detokenizer::named).transpose()?;
        let separator = args.separator.as_deref().map(written_out).transpose()?;
        let texts = Texts::new(&args.texts, args.field.as_deref().unwrap_or("text"), separator.as_deref())?;
        if args.separator.is_some() && !texts.has_plain() {
            return Err(Error::value("--separator", "a .txt, .text or .md file to cut", "none"));
        }
        if args.field.is_some() && !texts.has_lines() {
            return Err(Error::value("--field", "a .jsonl or .ndjson file, whose lines have fields", "none"));
        }
        for (path, why) in texts.ignored() {
            note!("note: {} {why} and is left out", path.display());
        }
        Ok(Input::Texts(texts, detokenizer))
    }

    /// The documents, until Ctrl-C: then an error, which takes the half-written folder away.
    fn documents(&self) -> impl Iterator<Item = Result<String>> + '_ {
        let stopped = || Err(Error::Run("interrupted: nothing was written".into()));
        self.all_documents().map(move |document| if interrupt::asked() { stopped() } else { document })
    }

    fn all_documents(&self) -> Box<dyn Iterator<Item = Result<String>> + '_> {
        match self {
            Input::Texts(texts, None) => Box::new(texts.documents()),
            Input::Texts(texts, Some(detokenizer)) => {
                Box::new(texts.documents().map(|document| document.map(|text| detokenizer.apply(&text))))
            }
            Input::Toy { .. } => Box::new(self.stories().map(|story| Ok(story.text))),
        }
    }

    /// The toy stories; story i of a seed is always the same.
    fn stories(&self) -> impl Iterator<Item = toy::Story> + '_ {
        let (stories, rng) = match self {
            Input::Toy { stories, rng } => (*stories, Some(rng)),
            Input::Texts(..) => (0, None),
        };
        rng.into_iter().flat_map(move |rng| (0..stories).map(|i| toy::story(&mut rng.split_at("story", i))))
    }
}

/// A separator with what stands behind each backslash put in its place.
fn written_out(text: &str) -> Result<String> {
    let (mut written, mut rest) = (String::new(), text.chars());
    while let Some(c) = rest.next() {
        let meant = if c == '\\' { rest.next() } else { None };
        written.push(match (c, meant) {
            ('\\', Some('n')) => '\n',
            ('\\', Some('t')) => '\t',
            ('\\', Some('\\')) => '\\',
            ('\\', other) => {
                let found = format!("`\\{}`", other.map_or(String::new(), String::from));
                return Err(Error::value("--separator", "\\n, \\t or \\\\ where there is a backslash", found));
            }
            (c, _) => c,
        });
    }
    Ok(written)
}

/// So many documents, in words.
fn documents(count: u64) -> String {
    format!("{} document{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// Runs the command.
pub fn run(args: &DataArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    check_out(&args.out)?;
    interrupt::watch()?;
    let shares = (Shares::parse(&args.split)?, args.seed);
    let input = Input::open(args)?;
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} {bytes} {bytes_per_sec}")?);
    let tokenizer = tokenizer(args, &input, shares, &bar)?;
    bar.set_message("encoding");
    let summary = build(input.documents(), &tokenizer, shares, &args.out, &mut |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    report(args, &summary, start);
    Ok(view::print_json(&object(args, &summary, &input)?)?)
}

fn tokenizer(args: &DataArgs, input: &Input, shares: (Shares, u64), bar: &ProgressBar) -> Result<Tokenizer> {
    let expected = "bytes, train:N or the path of a tokenizer.json";
    match args.tokenizer.as_deref() {
        None => model::built_in_tokenizer(),
        Some("bytes") => Ok(Tokenizer::bytes()),
        Some(text) => match text.strip_prefix("train:") {
            None => Tokenizer::load(text),
            Some(size) => {
                let size = size.parse().map_err(|_| Error::value("--tokenizer", expected, format!("`{text}`")))?;
                bar.set_message(format!("training a vocabulary of {size} on at most {}", HumanBytes(TRAINED_ON)));
                train_tokenizer(|| input.documents(), shares, size)
            }
        },
    }
}

/// The summary for people.
fn report(args: &DataArgs, summary: &Summary, start: Instant) {
    for (name, counts) in &summary.splits {
        note!(
            "{name:>5}: {}, {} tokens, {}",
            documents(counts.documents),
            HumanCount(counts.tokens),
            HumanBytes(counts.bytes)
        );
    }
    if summary.empty > 0 {
        let are = if summary.empty == 1 { "is" } else { "are" };
        note!("note: {} without text {are} left out", documents(summary.empty));
    }
    let per_token = summary.bytes as f64 / summary.tokens as f64;
    let seconds = start.elapsed().as_secs_f64();
    note!("{}: {per_token:.2} bytes a token, {seconds:.1} s", args.out.display());
}

/// The summary for programs: one object.
fn object(args: &DataArgs, summary: &Summary, input: &Input) -> anyhow::Result<Value> {
    let mut object = json!({ "out": args.out });
    let more = match input {
        Input::Texts(..) => json!({}),
        Input::Toy { stories, .. } => {
            let nats: f64 = input.stories().map(|story| story.nats).sum();
            json!({
                "entropy_per_story": toy::entropy(),
                "nats_per_story": nats / *stories as f64,
                "nats_per_token": nats / summary.tokens as f64,
            })
        }
    };
    for part in [serde_json::to_value(summary)?, more] {
        if let (Value::Object(object), Value::Object(part)) = (&mut object, part) {
            object.extend(part);
        }
    }
    Ok(object)
}
