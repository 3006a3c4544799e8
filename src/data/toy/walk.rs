//! One way through the grammar, from left to right: drawn at random, or read off a text. Both make the same steps, so that
//! a text read back has the -ln p it was drawn with.

use super::grammar::{From, Grammar, Node, Style};
use crate::rng::Rng;

/// What a name stands for in one story.
#[derive(Clone, Copy)]
enum Thing {
    Row { table: usize, row: usize },
    Item { table: usize, row: usize, column: usize, item: usize },
}

impl Grammar {
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
