//! Templates: fixed text with gaps. `___` is a gap of 1 to 8 tokens, `___{5}` one of 5, `___{3,8}` one of 3 to 8; the length is drawn.
//! A space before a gap belongs to the gap, since tokens bring their space with them; `\_` is an underscore that begins no gap.
//! It knows no tokenizer and no model.

use crate::error::{Error, Result};

/// Fixed text and gaps, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stays.
    Text(String),
    /// Tokens to be found.
    Gap {
        /// How many, at least.
        least: usize,
        /// How many, at most.
        most: usize,
    },
}

/// Tokens of a gap without numbers, at most.
const USUAL: usize = 8;
/// Tokens of any gap, at most.
const MOST: usize = 1 << 16;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it has no gap, or numbers that mean none.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut parts, mut fixed, mut rest) = (Vec::new(), String::new(), text);
        while let Some(ch) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("\\_") {
                fixed.push('_');
                rest = after;
            } else if rest.starts_with("___") {
                let (gap, after) = gap(rest.trim_start_matches('_'))?;
                if fixed.ends_with(' ') {
                    fixed.pop();
                }
                parts.extend((!fixed.is_empty()).then(|| Part::Text(std::mem::take(&mut fixed))));
                parts.push(gap);
                rest = after;
            } else {
                fixed.push(ch);
                rest = &rest[ch.len_utf8()..];
            }
        }
        parts.extend((!fixed.is_empty()).then_some(Part::Text(fixed)));
        if parts.iter().all(|part| matches!(part, Part::Text(_))) {
            return Err(Error::value("template", "a gap (`___` or `___{3,8}`)", format!("`{text}`")));
        }
        Ok(Self { parts })
    }

    /// A template of these parts, one of which must be a gap.
    ///
    /// # Errors
    /// There is no gap, or its numbers mean none.
    pub fn of(parts: Vec<Part>) -> Result<Self> {
        let mut gaps = 0;
        for part in &parts {
            if let Part::Gap { least, most } = part {
                if *least == 0 || least > most || *most > MOST {
                    let expected = format!("1 to {MOST} tokens, the least not above the most");
                    return Err(Error::value("gap", expected, format!("{least} to {most}")));
                }
                gaps += 1;
            }
        }
        if gaps == 0 {
            return Err(Error::value("template", "a gap", "none"));
        }
        Ok(Self { parts })
    }

    /// The parts.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Ids of the template: those of its texts, and as many masks for each gap as `length` says, given least and most.
    ///
    /// # Errors
    /// Those of `encode`.
    pub fn ids(
        &self,
        mut encode: impl FnMut(&str) -> Result<Vec<u32>>,
        mask_id: u32,
        mut length: impl FnMut(usize, usize) -> usize,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => ids.extend(encode(text)?),
                Part::Gap { least, most } => {
                    ids.resize(ids.len() + length(*least, *most), mask_id);
                }
            }
        }
        Ok(ids)
    }
}

/// The gap whose numbers, if any, `rest` begins with, and what comes after them.
fn gap(rest: &str) -> Result<(Part, &str)> {
    let Some(inside) = rest.strip_prefix('{') else { return Ok((Part::Gap { least: 1, most: USUAL }, rest)) };
    let refuse = |found: &str| {
        let expected = format!("`{{N}}` or `{{LEAST,MOST}}` after `___`, 1 to {MOST} tokens");
        Error::value("template", expected, format!("`{{{found}`"))
    };
    let (numbers, after) = inside.split_once('}').ok_or_else(|| refuse(inside))?;
    let (least, most) = numbers.split_once(',').unwrap_or((numbers, numbers));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|count| (1..=MOST).contains(count));
    match (number(least), number(most)) {
        (Some(least), Some(most)) if least <= most => Ok((Part::Gap { least, most }, after)),
        _ => Err(refuse(&format!("{numbers}}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn gap(least: usize, most: usize) -> Part {
        Part::Gap { least, most }
    }

    #[test]
    fn templates_are_texts_and_gaps() {
        for (template, parts) in [
            (
                "Once ___ there was a ___{3,8} who",
                vec![text("Once"), gap(1, 8), text(" there was a"), gap(3, 8), text(" who")],
            ),
            ("___", vec![gap(1, 8)]),
            ("a_b__c \\____{2}", vec![text("a_b__c _"), gap(2, 2)]),
            ("______{ 4 , 4 }{", vec![gap(4, 4), text("{")]),
            ("é  ___é", vec![text("é "), gap(1, 8), text("é")]),
        ] {
            assert_eq!(Template::parse(template).unwrap().parts(), parts, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in ["", "no gap __", "___{", "___{}", "___{0}", "___{5,3}", "___{x}", "___{1,99999999}", "___{-1}"]
        {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.starts_with("template: expected "), "{template}: {error}");
        }
    }
}
