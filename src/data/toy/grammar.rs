//! A small language for stories: templates whose choices are drawn, with things that are drawn once and stay. It draws,
//! reads back and measures; it knows no story.
//!
//! | written | means |
//! | --- | --- |
//! | `[a\|b\|3*c]` | one of the alternatives, by weight (1 unless given) |
//! | `{x=table}` | draw a row of a table, remember it as `x`, write its first cell |
//! | `{x=table!y}` | the same, but not the row that `y` has |
//! | `{x=y.cells}` | draw an item of a list (`a;b;c`) in a cell of `y`'s row |
//! | `{x}`, `{x.cell}` | the first, or a named, cell of what `x` is |
//! | `{a x}` | the same with its article; a capital (`{X}`, `{A x}`) begins with one |
//! | `<rule>` | a named template |
//!
//! Over budget: drawing, reading back and measuring are three views of one definition, and read best side by side.
//!
//! Cells may refer to things but hold no choices, so the entropy of a choice does not depend on what was drawn before.

use std::collections::HashMap;

use crate::rng::Rng;

/// A table as written: its name, its columns, its rows of cells.
pub(super) type Table = (&'static str, &'static [&'static str], &'static [&'static [&'static str]]);

/// A rule as written: its name and its template.
pub(super) type Rule = (&'static str, &'static str);

type Template = Vec<Node>;

enum Node {
    Text(String),
    Choice(Vec<(f64, Template)>),
    Rule(usize),
    Refer { slot: usize, column: String, style: Style },
    Bind { slot: usize, from: From, style: Style },
}

#[derive(Clone, Copy, Default)]
struct Style {
    article: bool,
    capital: bool,
}

enum From {
    Table { table: usize, except: Option<usize> },
    List { slot: usize, column: String },
}

struct Rows {
    columns: Vec<String>,
    /// Each cell as a list of templates (one, unless its text has `;`).
    rows: Vec<Vec<Vec<Template>>>,
}

/// What a name stands for in one story.
#[derive(Clone, Copy)]
enum Thing {
    Row { table: usize, row: usize },
    Item { table: usize, row: usize, column: usize, item: usize },
}

/// A parsed grammar.
pub(super) struct Grammar {
    tables: Vec<Rows>,
    rules: Vec<Template>,
    start: usize,
    slots: usize,
}

/// Turns texts into templates. The grammar is a constant of this crate, so a slip in it is a bug and panics.
struct Parser<'a> {
    tables: &'a [Table],
    rules: &'a [Rule],
    slots: HashMap<String, usize>,
}

impl Parser<'_> {
    fn slot(&mut self, name: &str) -> usize {
        let next = self.slots.len();
        *self.slots.entry(name.to_lowercase()).or_insert(next)
    }

    /// Parses up to the end, or to a `|` or `]` that belongs to the choice around.
    fn template(&mut self, text: &mut &str) -> Template {
        let mut nodes = Vec::new();
        while let Some(c) = text.chars().next() {
            match c {
                '|' | ']' => break,
                '[' => nodes.push(self.choice(text)),
                '{' | '<' => {
                    let (inner, rest) = text[1..].split_once(if c == '{' { '}' } else { '>' }).unwrap_or_default();
                    *text = rest;
                    nodes.push(if c == '{' { self.thing(inner) } else { self.rule(inner) });
                }
                _ => {
                    let end = text.find(['|', ']', '[', '{', '<']).unwrap_or(text.len());
                    nodes.push(Node::Text(text[..end].to_string()));
                    *text = &text[end..];
                }
            }
        }
        nodes
    }

    fn choice(&mut self, text: &mut &str) -> Node {
        let mut alternatives = Vec::new();
        while !text.starts_with(']') {
            assert!(!text.is_empty(), "a choice that does not end");
            *text = &text[1..];
            let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let mut weight = 1.0;
            if digits > 0 && text[digits..].starts_with('*') {
                weight = text[..digits].parse().unwrap_or(weight);
                *text = &text[digits + 1..];
            }
            alternatives.push((weight, self.template(text)));
        }
        *text = &text[1..];
        let sum: f64 = alternatives.iter().map(|(weight, _)| weight).sum();
        alternatives.iter_mut().for_each(|(weight, _)| *weight /= sum);
        Node::Choice(alternatives)
    }

    fn rule(&self, name: &str) -> Node {
        let index = self.rules.iter().position(|(known, _)| *known == name);
        Node::Rule(index.unwrap_or_else(|| panic!("no rule `{name}`")))
    }

    fn thing(&mut self, text: &str) -> Node {
        let (article, text) = match text.split_once(' ') {
            Some((article, rest)) => (Some(article), rest),
            None => (None, text),
        };
        let capital = article.unwrap_or(text).starts_with(|c: char| c.is_ascii_uppercase());
        let style = Style { article: article.is_some(), capital };
        match text.split_once('=') {
            Some((name, from)) => {
                let from = match from.split_once('.') {
                    Some((name, column)) => From::List { slot: self.slot(name), column: column.into() },
                    None => {
                        let (table, except) = from.split_once('!').map_or((from, None), |(t, e)| (t, Some(e)));
                        let index = self.tables.iter().position(|(known, ..)| *known == table);
                        let table = index.unwrap_or_else(|| panic!("no table `{table}`"));
                        From::Table { table, except: except.map(|name| self.slot(name)) }
                    }
                };
                Node::Bind { slot: self.slot(name), from, style }
            }
            None => {
                let (name, column) = text.split_once('.').unwrap_or((text, ""));
                Node::Refer { slot: self.slot(name), column: column.into(), style }
            }
        }
    }
}

impl Grammar {
    /// Parses a grammar.
    ///
    /// # Panics
    /// On a slip in it.
    pub(super) fn parse(tables: &[Table], rules: &[Rule], start: &str) -> Self {
        let mut parser = Parser { tables, rules, slots: HashMap::new() };
        let mut whole = |mut text: &str| {
            let template = parser.template(&mut text);
            assert!(text.is_empty(), "a bracket too many before `{text}`");
            template
        };
        let parsed = rules.iter().map(|(_, text)| whole(text)).collect();
        let rows = tables.iter().map(|(name, columns, rows)| {
            let mut cell = |cell: &&str| cell.split(';').map(&mut whole).collect();
            let rows: Vec<Vec<Vec<Template>>> = rows.iter().map(|row| row.iter().map(&mut cell).collect()).collect();
            assert!(rows.iter().all(|row| row.len() == columns.len()), "a short row in table `{name}`");
            for column in 0..columns.len() {
                assert!(rows.iter().all(|row| row[column].len() == rows[0][column].len()), "unequal lists in `{name}`");
            }
            Rows { columns: columns.iter().map(ToString::to_string).collect(), rows }
        });
        let tables = rows.collect();
        let start = rules.iter().position(|(name, _)| *name == start).unwrap_or_else(|| panic!("no rule `{start}`"));
        Self { tables, rules: parsed, start, slots: parser.slots.len() }
    }

    /// Draws a text; gives it and its -ln p.
    pub(super) fn draw(&self, rng: &mut Rng) -> (String, f64) {
        let mut walk = Walk::new(self, Guide::Draw(rng));
        // Only reading can fail.
        let _ = walk.template(&self.rules[self.start]);
        (walk.text, walk.nats)
    }

    /// -ln p of a text, or the byte at which no alternative fits.
    pub(super) fn read(&self, text: &str) -> Result<f64, usize> {
        let mut walk = Walk::new(self, Guide::Read(text));
        walk.template(&self.rules[self.start])?;
        if walk.text.len() < text.len() { Err(walk.text.len()) } else { Ok(walk.nats) }
    }

    /// Expected -ln p: the sum over choices of their entropies, each times the probability that it comes up.
    pub(super) fn entropy(&self) -> f64 {
        self.template_entropy(&self.rules[self.start])
    }

    fn template_entropy(&self, template: &[Node]) -> f64 {
        let of_node = |node: &Node| match node {
            Node::Text(_) | Node::Refer { .. } => 0.0,
            Node::Rule(rule) => self.template_entropy(&self.rules[*rule]),
            Node::Choice(alternatives) => {
                alternatives.iter().map(|(p, template)| p * (self.template_entropy(template) - p.ln())).sum()
            }
            Node::Bind { from: From::Table { table, except }, .. } => {
                ((self.tables[*table].rows.len() - usize::from(except.is_some())) as f64).ln()
            }
            // Lists of a column are equally long in every row of its table; which table, only a story's course says,
            // so the column's name must tell it.
            Node::Bind { from: From::List { column, .. }, .. } => {
                let table = self.tables.iter().find(|table| table.columns.contains(column));
                table.map_or(0.0, |table| (table.rows[0][table.column(column)].len() as f64).ln())
            }
        };
        template.iter().map(of_node).sum()
    }
}

impl Rows {
    fn column(&self, name: &str) -> usize {
        if name.is_empty() {
            return 0;
        }
        self.columns.iter().position(|column| column == name).unwrap_or_else(|| panic!("no column `{name}`"))
    }
}

/// Who decides at a choice.
enum Guide<'a> {
    Draw(&'a mut Rng),
    Read(&'a str),
}

/// One way through the grammar, from left to right.
struct Walk<'g, 'a> {
    grammar: &'g Grammar,
    guide: Guide<'a>,
    things: Vec<Option<Thing>>,
    text: String,
    nats: f64,
    /// The first choice, if any, of which one alternative begins another.
    conflict: Option<String>,
}

impl<'g, 'a> Walk<'g, 'a> {
    fn new(grammar: &'g Grammar, guide: Guide<'a>) -> Self {
        let things = vec![None; grammar.slots];
        Self { grammar, guide, things, text: String::new(), nats: 0.0, conflict: None }
    }

    fn template(&mut self, template: &'g [Node]) -> Result<(), usize> {
        for node in template {
            match node {
                Node::Text(text) => self.write(text)?,
                Node::Rule(rule) => self.template(&self.grammar.rules[*rule])?,
                Node::Refer { slot, column, style } => {
                    let text = self.refer(*slot, column, *style);
                    self.write(&text)?;
                }
                Node::Choice(alternatives) => {
                    let law: Vec<f64> = alternatives.iter().map(|(p, _)| *p).collect();
                    let heads = |walk: &Self| alternatives.iter().map(|(_, template)| walk.heads(template)).collect();
                    let chosen = self.choose(&law, heads)?;
                    self.template(&alternatives[chosen].1)?;
                }
                Node::Bind { slot, from, style } => {
                    let things = self.candidates(from);
                    let law = vec![1.0 / things.len() as f64; things.len()];
                    let heads = |walk: &Self| things.iter().map(|t| vec![walk.written(*t, "", *style)]).collect();
                    let chosen = self.choose(&law, heads)?;
                    let text = self.written(things[chosen], "", *style);
                    self.things[*slot] = Some(things[chosen]);
                    self.write(&text)?;
                }
            }
        }
        Ok(())
    }

    /// Adds text; when reading, it must be what stands there.
    fn write(&mut self, text: &str) -> Result<(), usize> {
        if let Guide::Read(whole) = &self.guide {
            let rest = whole.as_bytes().get(self.text.len()..).unwrap_or_default();
            let same = rest.iter().zip(text.as_bytes()).take_while(|(a, b)| a == b).count();
            if same < text.len() {
                return Err(self.text.len() + same);
            }
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Decides a choice. `heads` tells with what texts each alternative can begin.
    fn choose(&mut self, law: &[f64], heads: impl Fn(&Self) -> Vec<Vec<String>>) -> Result<usize, usize> {
        let chosen = match &mut self.guide {
            Guide::Draw(rng) => {
                let mut point = rng.uniform();
                let mut chosen = 0;
                while point >= law[chosen] && chosen + 1 < law.len() {
                    point -= law[chosen];
                    chosen += 1;
                }
                chosen
            }
            Guide::Read(whole) => {
                let rest = &whole[self.text.len()..];
                let heads = heads(self);
                let fits = |heads: &Vec<String>| heads.iter().any(|head| rest.starts_with(head.as_str()));
                let chosen = heads.iter().position(fits).ok_or(self.text.len())?;
                if self.conflict.is_none() {
                    self.conflict = conflict(&heads);
                }
                chosen
            }
        };
        self.nats -= law[chosen].ln();
        Ok(chosen)
    }

    /// The texts with which a template can begin, each up to its next choice.
    fn heads(&self, template: &'g [Node]) -> Vec<String> {
        let mut head = String::new();
        for node in template {
            let begins = match node {
                Node::Text(text) => {
                    head.push_str(text);
                    continue;
                }
                Node::Refer { slot, column, style } => {
                    head.push_str(&self.refer(*slot, column, *style));
                    continue;
                }
                Node::Rule(rule) => self.heads(&self.grammar.rules[*rule]),
                Node::Choice(alternatives) => {
                    alternatives.iter().flat_map(|(_, template)| self.heads(template)).collect()
                }
                Node::Bind { from, style, .. } => {
                    self.candidates(from).into_iter().map(|thing| self.written(thing, "", *style)).collect()
                }
            };
            return begins.into_iter().map(|next| format!("{head}{next}")).collect();
        }
        vec![head]
    }

    fn candidates(&self, from: &From) -> Vec<Thing> {
        match from {
            From::Table { table, except } => {
                let taken = except.and_then(|slot| self.things[slot]);
                let is_taken = |at: usize| matches!(taken, Some(Thing::Row { row, .. }) if row == at);
                let rows = 0..self.grammar.tables[*table].rows.len();
                rows.filter(|&row| !is_taken(row)).map(|row| Thing::Row { table: *table, row }).collect()
            }
            From::List { slot, column } => {
                let Some(Thing::Row { table, row }) = self.things[*slot] else { panic!("a list of no row") };
                let column = self.grammar.tables[table].column(column);
                let items = 0..self.grammar.tables[table].rows[row][column].len();
                items.map(|item| Thing::Item { table, row, column, item }).collect()
            }
        }
    }

    fn refer(&self, slot: usize, column: &str, style: Style) -> String {
        let thing = self.things[slot].unwrap_or_else(|| panic!("nothing drawn for {column} after `{}`", self.text));
        self.written(thing, column, style)
    }

    /// A cell as text.
    fn written(&self, thing: Thing, column: &str, style: Style) -> String {
        let cell = match thing {
            Thing::Row { table, row } => {
                let rows = &self.grammar.tables[table];
                &rows.rows[row][rows.column(column)][0]
            }
            Thing::Item { table, row, column, item } => &self.grammar.tables[table].rows[row][column][item],
        };
        let mut text = String::new();
        for node in cell {
            match node {
                Node::Text(part) => text.push_str(part),
                Node::Refer { slot, column, style } => text.push_str(&self.refer(*slot, column, *style)),
                _ => panic!("a choice in a cell"),
            }
        }
        if style.article {
            let vowel = text.starts_with(['a', 'e', 'i', 'o', 'u']);
            text.insert_str(0, if vowel { "an " } else { "a " });
        }
        if style.capital {
            let first = text[..1].to_ascii_uppercase();
            text.replace_range(..1, &first);
        }
        text
    }
}

/// Two alternatives of which one can begin the other, told as text.
fn conflict(heads: &[Vec<String>]) -> Option<String> {
    for (i, these) in heads.iter().enumerate() {
        for other in heads[i + 1..].iter().flatten() {
            if let Some(one) =
                these.iter().find(|one| one.starts_with(other.as_str()) || other.starts_with(one.as_str()))
            {
                return Some(format!("`{one}` or `{other}`"));
            }
        }
    }
    None
}

#[cfg(test)]
impl Grammar {
    /// The first choice on the way through a text whose alternatives the text might not tell apart.
    pub(super) fn conflict(&self, text: &str) -> Option<String> {
        let mut walk = Walk::new(self, Guide::Read(text));
        walk.template(&self.rules[self.start]).unwrap();
        walk.conflict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_grammar_has_the_entropy_that_paper_and_pencil_give() {
        let tables: &[Table] = &[("who", &["who", "paths"], &[&["owl", "a;b"], &["fox", "c;d"], &["hen", "e;f"]])];
        let rules: &[Rule] = &[("start", "[3*Once {a x=who}|{A x=who}] met {a y=who!x} on {z=x.paths}. {X}!")];
        let grammar = Grammar::parse(tables, rules, "start");
        let expected = -(0.75f64 * 0.75f64.ln() + 0.25 * 0.25f64.ln()) + 3f64.ln() + 2f64.ln() + 2f64.ln();
        assert!((grammar.entropy() - expected).abs() < 1e-12);
        let nats = grammar.read("Once an owl met a hen on b. Owl!").unwrap();
        assert!((nats - (-(0.75f64.ln()) + 3f64.ln() + 2.0 * 2f64.ln())).abs() < 1e-12);
        assert_eq!(grammar.read("Once an owl met an owl on b. Owl!"), Err(16));
    }
}
