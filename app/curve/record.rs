//! What has been measured so far, as JSON lines in `points.jsonl`: a command that was stopped goes on from there. The first line says
//! what the others were made from; they are kept where the next command says the same.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bd3::likelihood::RowNats;
use bd3::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::generate::{Sample, Times};

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Settings(Map<String, Value>),
    /// A sample, by the flags that made it and its number.
    Sample { flags: String, index: u64, ids: Vec<u32>, passes: u64, seconds: f64, first_block_seconds: f64 },
    /// What the judge says of a text: a sample, or a piece of the text held out.
    Judged { text: String, index: u64, nats: f64, tokens: usize },
    /// The likelihood of the text held out.
    Bound(Bound),
}

/// How likely a text is at one block size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// The block size.
    pub block: usize,
    /// Not a bound, but the value itself.
    pub exact: bool,
    /// Nats per token.
    pub nats: f64,
    /// Their standard error; absent where one row holds the text.
    pub stderr: Option<f64>,
    /// `exp` of them.
    pub perplexity: f64,
}

/// All lines, and where new ones go.
pub struct Record {
    path: PathBuf,
    /// Not there before the first line is written.
    file: Option<File>,
    /// What is at the path then is kept under another name.
    afresh: bool,
    settings: Map<String, Value>,
    samples: BTreeMap<(String, u64), (Sample, Times)>,
    judged: BTreeMap<(String, u64), RowNats>,
    bounds: BTreeMap<usize, Bound>,
}

impl Record {
    /// Reads what is in a folder that may not exist yet; writes nothing.
    ///
    /// # Errors
    /// A file that can't be read or is no record; other settings than these.
    pub fn open(dir: &Path, settings: Map<String, Value>) -> Result<Self> {
        let mut record = Self::empty(dir, settings);
        if !record.path.exists() {
            return Ok(record);
        }
        let bytes = std::fs::read(&record.path).map_err(|e| Error::io(&record.path, e))?;
        // A program that was killed leaves a part of a line at most.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let mut first = true;
        for (index, line) in text.lines().enumerate() {
            let wrong = |found: String| {
                let expected = "a line of bd3 curve (another --out starts afresh)";
                Error::key(&record.path, format!("line {}", index + 1), expected, found)
            };
            match serde_json::from_str(line).map_err(|e| wrong(e.to_string()))? {
                Line::Settings(found) if first => record.check(&found)?,
                _ if first => return Err(wrong("no settings".into())),
                line => record.keep(line),
            }
            first = false;
        }
        let file = OpenOptions::new().append(true).open(&record.path);
        // To cut nothing would touch its time all the same.
        let cut = |file: File| if whole < bytes.len() { file.set_len(whole as u64).map(|()| file) } else { Ok(file) };
        let file = file.and_then(cut);
        record.file = (!first).then_some(file.map_err(|e| Error::io(&record.path, e))?);
        Ok(record)
    }

    /// Has the record in a folder come to its curve, which is written last?
    pub fn is_complete(dir: &Path) -> bool {
        let written = |name: &str| std::fs::metadata(dir.join(name)).and_then(|meta| meta.modified()).ok();
        written("points.jsonl").is_some_and(|points| written("curve.json").is_some_and(|curve| curve >= points))
    }

    /// Without what is in the folder: it is kept as `points.old.jsonl`, or `points.old-2.jsonl`, and so on, when the first line is written.
    pub fn afresh(dir: &Path, settings: Map<String, Value>) -> Self {
        Self { afresh: true, ..Self::empty(dir, settings) }
    }

    fn empty(dir: &Path, settings: Map<String, Value>) -> Self {
        let (samples, judged, bounds) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { path: dir.join("points.jsonl"), file: None, afresh: false, settings, samples, judged, bounds }
    }

    /// Refuses the first setting that differs.
    fn check(&self, found: &Map<String, Value>) -> Result<()> {
        let differs = |(key, value): &(&String, &Value)| found.get(*key) != Some(*value);
        let Some((key, value)) = self.settings.iter().find(differs) else { return Ok(()) };
        let told = |value: &Value| value.as_str().map_or(value.to_string(), |text| format!("`{text}`"));
        let expected = format!("{}, as this command has it (another --out starts afresh)", told(value));
        Err(Error::key(&self.path, key, expected, told(found.get(key).unwrap_or(&Value::Null))))
    }

    fn keep(&mut self, line: Line) {
        match line {
            Line::Settings(_) => {}
            Line::Sample { flags, index, ids, passes, seconds, first_block_seconds } => {
                let times = Times { seconds, first_block: first_block_seconds };
                self.samples.insert((flags, index), (Sample { ids, passes }, times));
            }
            Line::Judged { text, index, nats, tokens } => {
                self.judged.insert((text, index), RowNats { nats, tokens });
            }
            Line::Bound(bound) => {
                self.bounds.insert(bound.block, bound);
            }
        }
    }

    /// Keeps a line, on disk, too.
    ///
    /// # Errors
    /// The folder or the file can't be written.
    pub fn push(&mut self, line: Line) -> Result<()> {
        let json = |line: &Line| serde_json::to_string(line).map_err(|e| Error::Run(e.to_string()));
        let mut text = String::new();
        if self.file.is_none() {
            text = json(&Line::Settings(self.settings.clone()))? + "\n";
            let dir = self.path.parent().unwrap_or(Path::new("."));
            if self.afresh && self.path.exists() {
                let name = |number: u32| {
                    if number == 1 { "points.old.jsonl".into() } else { format!("points.old-{number}.jsonl") }
                };
                let free = |number: &u32| !self.path.with_file_name(name(*number)).exists();
                let old = self.path.with_file_name(name((1..).find(free).unwrap_or(1)));
                std::fs::rename(&self.path, old).map_err(|e| Error::io(&self.path, e))?;
            }
            let file = std::fs::create_dir_all(dir).and_then(|()| File::create(&self.path));
            self.file = Some(file.map_err(|e| Error::io(&self.path, e))?);
        }
        text += &(json(&line)? + "\n");
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes()).map_err(|e| Error::io(&self.path, e))?;
        }
        self.keep(line);
        Ok(())
    }

    /// A sample and its times.
    pub fn sample(&self, flags: &str, index: u64) -> Option<&(Sample, Times)> {
        self.samples.get(&(flags.to_string(), index))
    }

    /// What the judge said.
    pub fn judged(&self, text: &str, index: u64) -> Option<RowNats> {
        self.judged.get(&(text.to_string(), index)).copied()
    }

    /// The likelihood of the text held out.
    pub fn bound(&self, block: usize) -> Option<Bound> {
        self.bounds.get(&block).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(n: u64) -> Map<String, Value> {
        Map::from_iter([("model".into(), json!("ab")), ("n".into(), json!(n))])
    }

    #[test]
    fn what_was_measured_is_kept_and_half_a_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new");
        let mut record = Record::open(&out, settings(3)).unwrap();
        assert!(!out.exists());
        let judged = |index| Line::Judged { text: "a".into(), index, nats: 0.1 + 0.2, tokens: 3 };
        let bound = Bound { block: 4, exact: false, nats: 1.0 / 3.0, stderr: None, perplexity: 1.4 };
        let (flags, ids, passes) = ("-n 3".to_string(), vec![1, 2], 5);
        let sample = Line::Sample { flags, index: 1, ids, passes, seconds: 0.1, first_block_seconds: 0.01 };
        for line in [judged(0), Line::Bound(bound), sample, judged(1)] {
            record.push(line).unwrap();
        }
        let path = out.join("points.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 4]).unwrap();
        let mut again = Record::open(&out, settings(3)).unwrap();
        assert_eq!(again.judged("a", 0), Some(RowNats { nats: 0.1 + 0.2, tokens: 3 }));
        assert_eq!((again.judged("a", 1), again.bound(4), again.bound(8)), (None, Some(bound), None));
        let (sample, times) = again.sample("-n 3", 1).unwrap();
        assert_eq!((sample.ids.as_slice(), sample.passes, times.first_block), (&[1, 2][..], 5, 0.01));
        again.push(judged(1)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn other_settings_are_refused_by_name_or_kept_beside() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path(), settings(3)).unwrap();
        record.push(Line::Judged { text: "a".into(), index: 0, nats: 1.0, tokens: 3 }).unwrap();
        let error = Record::open(dir.path(), settings(4)).err().unwrap();
        let text = error.to_string();
        assert!(error.is_refusal() && text.contains("points.jsonl: `n`: expected 4, as this command"), "{text}");
        assert!(text.ends_with("found 3"), "{text}");
        let old = std::fs::read_to_string(dir.path().join("points.jsonl")).unwrap();
        let mut afresh = Record::afresh(dir.path(), settings(4));
        assert_eq!((afresh.judged("a", 0), dir.path().join("points.old.jsonl").exists()), (None, false));
        for index in [1, 2] {
            afresh.push(Line::Judged { text: "a".into(), index, nats: 1.0, tokens: 3 }).unwrap();
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("points.old.jsonl")).unwrap(), old);
        let kept = Record::open(dir.path(), settings(4)).unwrap();
        assert_eq!([0, 1, 2].map(|index| kept.judged("a", index).is_some()), [false, true, true]);
        std::fs::write(dir.path().join("points.jsonl"), b"\xff\n").unwrap();
        assert!(matches!(Record::open(dir.path(), settings(3)), Err(Error::Key { .. })));
        for (content, part) in [("{}\n", "line 1"), ("{\"bound\":3}\n", "line 1"), ("\u{0}\n", "line 1")] {
            std::fs::write(dir.path().join("points.jsonl"), content).unwrap();
            let error = Record::open(dir.path(), settings(3)).err().unwrap().to_string();
            assert!(error.contains(part) && error.contains("--out"), "{error}");
        }
    }
}
