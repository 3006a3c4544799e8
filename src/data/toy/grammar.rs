//! A small language for stories: templates whose choices are drawn, with things that are drawn once and stay. It is
//! parsed and measured here and walked in [`super::walk`]; it knows no story.
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
//! Cells may refer to things but hold no choices, so the entropy of a choice does not depend on what was drawn before.

use std::collections::HashMap;

/// A table as written: its name, its columns, its rows of cells.
pub(super) type Table = (&'static str, &'static [&'static str], &'static [&'static [&'static str]]);

/// A rule as written: its name and its template.
pub(super) type Rule = (&'static str, &'static str);

pub(super) type Template = Vec<Node>;

pub(super) enum Node {
    Text(String),
    Choice(Vec<(f64, Template)>),
    Rule(usize),
    Refer { slot: usize, column: String, style: Style },
    Bind { slot: usize, from: From, style: Style },
}

#[derive(Clone, Copy, Default)]
pub(super) struct Style {
    pub(super) article: bool,
    pub(super) capital: bool,
}

pub(super) enum From {
    Table { table: usize, except: Option<usize> },
    List { slot: usize, column: String },
}

pub(super) struct Rows {
    columns: Vec<String>,
    /// Each cell as a list of templates (one, unless its text has `;`).
    pub(super) rows: Vec<Vec<Vec<Template>>>,
}

/// A parsed grammar.
pub(super) struct Grammar {
    pub(super) tables: Vec<Rows>,
    pub(super) rules: Vec<Template>,
    pub(super) start: usize,
    /// Number of names for things.
    pub(super) slots: usize,
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
    /// A column by name; the first, by none.
    pub(super) fn column(&self, name: &str) -> usize {
        if name.is_empty() {
            return 0;
        }
        self.columns.iter().position(|column| column == name).unwrap_or_else(|| panic!("no column `{name}`"))
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
