//! The keyword `pattern`: from a regular expression of ECMA-262, searched for in a string, to one of the string's
//! content in JSON. The syntax is read here and written anew with every character spelled out, since much of it means
//! something else, or something wider, to the `regex` crate; what is left is cut down to characters without escapes.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

use super::keywords::MOST_REPEATS;
use super::strings::CHARACTER;

/// The longest regular expression in characters. A class of one escape alone can have hundreds of ranges.
const LONGEST: usize = 1000;
/// How deep groups may nest.
const DEEPEST: u32 = 50;
/// How many ways to choose among anchored alternatives are followed.
const MOST_WAYS: usize = 256;
/// The bytes that they may make together.
const MOST_BYTES: usize = 1 << 20;

const SPACES: &str = r"\t\n\x0B\x0C\r \x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}";
const WORD: &str = "0-9A-Za-z_";
const NOT_LINE_END: &str = r"[^\n\r\x{2028}\x{2029}]";

/// What is wrong with a regular expression, as a phrase that follows `with`.
type Outcome<T> = Result<T, String>;

/// One character or a set of them, as an expression.
enum Atom {
    Character(char),
    Set(String),
}

impl Atom {
    fn text(&self) -> String {
        match self {
            Atom::Character(character) => format!(r"\x{{{:X}}}", u32::from(*character)),
            Atom::Set(text) => text.clone(),
        }
    }
}

/// The content of the strings in which a regular expression is found.
///
/// # Errors
///
/// With a phrase that names what is wrong, when it cannot be translated.
pub(super) fn content(pattern: &str) -> Outcome<String> {
    let characters: Vec<char> = pattern.chars().collect();
    if characters.len() > LONGEST {
        return Err(format!("more than {LONGEST} characters"));
    }
    let text = translated(&characters)?;
    let tree = regex_syntax::ParserBuilder::new().nest_limit(DEEPEST).build().parse(&text);
    let tree = tree.map_err(|error| match error {
        regex_syntax::Error::Parse(error) => format!("an error in it ({})", error.kind()),
        regex_syntax::Error::Translate(error) => format!("an error in it ({})", error.kind()),
        _ => "an error in it".to_owned(),
    })?;
    let mut ways = Vec::new();
    searched(&[tree], (true, true), &mut ways, &mut 0)?;
    Ok(format!("(?:{})", ways.join("|")))
}

/// The expression in the syntax of the `regex` crate.
fn translated(characters: &[char]) -> Outcome<String> {
    let mut text = String::new();
    let mut rest = characters;
    let mut repeats = 0;
    while let [first, after @ ..] = rest {
        // A second repetition is not one to ECMA-262, and to others it means something else.
        repeats = match first {
            '*' | '+' | '{' if repeats == 0 => 1,
            '?' if repeats < 2 => repeats + 1,
            '*' | '+' | '{' | '?' => return Err("a repetition of a repetition".to_owned()),
            _ => 0,
        };
        rest = match first {
            '[' => class(after, &mut text)?,
            '.' => {
                text.push_str(NOT_LINE_END);
                after
            }
            '(' => group(after, &mut text)?,
            '{' => {
                let length = after.iter().position(|character| *character == '}').unwrap_or(0);
                let counts: String = after.iter().take(length).collect();
                if !counts.starts_with(|character: char| character.is_ascii_digit())
                    || counts.contains(|character: char| !character.is_ascii_digit() && character != ',')
                {
                    return Err("a brace that counts nothing".to_owned());
                }
                text.push_str(&format!("{{{counts}}}"));
                after.get(length + 1..).unwrap_or(&[])
            }
            '^' | '$' | '*' | '+' | '?' | '|' | ')' => {
                text.push(*first);
                after
            }
            _ => {
                let (atom, after) = atom(rest)?;
                text.push_str(&atom.text());
                after
            }
        };
    }
    Ok(text)
}

/// The start of a group, after its bracket. Names are dropped: nothing can refer to them.
fn group<'a>(rest: &'a [char], text: &mut String) -> Outcome<&'a [char]> {
    text.push_str("(?:");
    match rest {
        ['?', ':', after @ ..] => Ok(after),
        ['?', '<', letter, after @ ..] if letter.is_alphabetic() || *letter == '_' => {
            let end = after.iter().position(|character| *character == '>').ok_or("a group name without end")?;
            Ok(after.get(end + 1..).unwrap_or(&[]))
        }
        ['?', '=' | '!', ..] | ['?', '<', '=' | '!', ..] => Err("lookaround".to_owned()),
        ['?', ..] => Err("a kind of group that is not supported".to_owned()),
        _ => Ok(rest),
    }
}

/// A class, after its opening bracket.
fn class<'a>(mut rest: &'a [char], text: &mut String) -> Outcome<&'a [char]> {
    text.push('[');
    if let ['^', after @ ..] = rest {
        text.push('^');
        rest = after;
    }
    if let [']', ..] = rest {
        return Err("an empty class".to_owned());
    }
    loop {
        let (first, after) = match rest {
            [] => return Err("a class without end".to_owned()),
            [']', after @ ..] => {
                text.push(']');
                return Ok(after);
            }
            _ => atom(rest)?,
        };
        rest = after;
        text.push_str(&first.text());
        if let ['-', next, ..] = rest
            && *next != ']'
        {
            let (last, after) = atom(&rest[1..])?;
            let (Atom::Character(_), Atom::Character(_)) = (&first, &last) else {
                return Err("a range that ends in a class".to_owned());
            };
            text.push_str(&format!("-{}", last.text()));
            rest = after;
        }
    }
}

/// One character, or an escape of one or of a set.
fn atom(rest: &[char]) -> Outcome<(Atom, &[char])> {
    let (kind, after) = match rest {
        ['\\', kind, after @ ..] => (*kind, after),
        ['\\'] | [] => return Err("an escape of nothing".to_owned()),
        [plain, after @ ..] => return Ok((Atom::Character(*plain), after)),
    };
    let set = |text: String| Ok((Atom::Set(text), after));
    let character = |character: char| Ok((Atom::Character(character), after));
    match kind {
        'd' => set("[0-9]".to_owned()),
        'D' => set("[^0-9]".to_owned()),
        'w' => set(format!("[{WORD}]")),
        'W' => set(format!("[^{WORD}]")),
        's' => set(format!("[{SPACES}]")),
        'S' => set(format!("[^{SPACES}]")),
        'n' => character('\n'),
        'r' => character('\r'),
        't' => character('\t'),
        'v' => character('\u{B}'),
        'f' => character('\u{C}'),
        'x' => coded(after, 2),
        'u' if after.first() != Some(&'{') => coded(after, 4),
        'u' | 'p' | 'P' if after.first() == Some(&'{') => {
            let length = after.iter().position(|character| *character == '}').unwrap_or(0);
            let name = after.get(1..length).unwrap_or(&[]);
            if name.is_empty() || name.iter().any(|part| !part.is_ascii_alphanumeric() && !"_=".contains(*part)) {
                return Err(format!("the escape \\{kind} of nothing"));
            }
            let rest = after.get(length + 1..).unwrap_or(&[]);
            if kind == 'u' {
                return Ok((coded(name, name.len())?.0, rest));
            }
            Ok((Atom::Set(format!("\\{kind}{{{}}}", name.iter().collect::<String>())), rest))
        }
        mark if mark.is_ascii_punctuation() => character(mark),
        '1'..='9' | 'k' => Err("a backreference".to_owned()),
        'b' | 'B' => Err(format!("the word boundary \\{kind}")),
        other => Err(format!("the escape \\{other}, which is not supported")),
    }
}

/// The character that some hexadecimal digits name.
fn coded(rest: &[char], digits: usize) -> Outcome<(Atom, &[char])> {
    let text: String = rest.iter().take(digits).filter(|character| character.is_ascii_hexdigit()).collect();
    let number = u32::from_str_radix(&text, 16).ok().filter(|_| text.len() == digits);
    match number.and_then(char::from_u32) {
        Some(character) => Ok((Atom::Character(character), &rest[digits..])),
        None => Err("an escape that names no character".to_owned()),
    }
}

/// The contents with a match of parts in a row, where other text may come before and after it until an anchor says
/// otherwise. Alternatives with anchors at the ends are followed one by one.
fn searched(parts: &[Hir], open: (bool, bool), ways: &mut Vec<String>, tried: &mut usize) -> Outcome<()> {
    *tried += 1;
    if *tried > MOST_WAYS || ways.iter().map(String::len).sum::<usize>() > MOST_BYTES {
        return Err("too many ways to anchor it".to_owned());
    }
    let mut row: Vec<Hir> = parts.iter().flat_map(spread).collect();
    let (mut before, mut after) = open;
    while row.first().is_some_and(|part| part.kind() == &HirKind::Look(Look::Start)) {
        before = false;
        row.remove(0);
    }
    while row.last().is_some_and(|part| part.kind() == &HirKind::Look(Look::End)) {
        after = false;
        row.pop();
    }
    for at in [0, row.len().saturating_sub(1)] {
        if let Some(HirKind::Alternation(choices)) = row.get(at).map(Hir::kind)
            && !row[at].properties().look_set().is_empty()
        {
            for choice in choices {
                let mut chosen = row.clone();
                chosen[at] = choice.clone();
                searched(&chosen, (before, after), ways, tried)?;
            }
            return Ok(());
        }
    }
    let text = plain(&Hir::concat(row))?;
    let any = |open: bool| if open { format!("{CHARACTER}*") } else { String::new() };
    ways.push(format!("{}(?:{text}){}", any(before), any(after)));
    Ok(())
}

/// The parts of a sequence.
fn spread(tree: &Hir) -> Vec<Hir> {
    match tree.kind() {
        HirKind::Concat(parts) => parts.iter().flat_map(spread).collect(),
        HirKind::Capture(group) => spread(&group.sub),
        _ => vec![tree.clone()],
    }
}

/// The expression cut down to what may stand in a JSON string as it is. Recursion goes as deep as the groups nest.
fn plain(tree: &Hir) -> Outcome<Hir> {
    let all = |parts: &[Hir]| parts.iter().map(plain).collect::<Outcome<Vec<Hir>>>();
    match tree.kind() {
        HirKind::Empty => Ok(Hir::empty()),
        HirKind::Literal(literal) => {
            let text = String::from_utf8_lossy(&literal.0);
            let escaped = text.chars().find(|character| matches!(character, '"' | '\\' | '\0'..='\x1F'));
            escaped.map_or_else(
                || Ok(tree.clone()),
                |character| Err(format!("the character {}", serde_json::Value::from(character.to_string()))),
            )
        }
        HirKind::Class(Class::Unicode(class)) => {
            let range = ClassUnicodeRange::new;
            let mut kept = ClassUnicode::new([range(' ', '!'), range('#', '['), range(']', char::MAX)]);
            kept.intersect(class);
            if kept.ranges().is_empty() {
                return Err("a class of characters that JSON escapes".to_owned());
            }
            Ok(Hir::class(Class::Unicode(kept)))
        }
        HirKind::Class(Class::Bytes(_)) => Err("a class of bytes".to_owned()),
        HirKind::Look(_) => Err("an anchor that is not at an end".to_owned()),
        HirKind::Repetition(repetition) => {
            let counts = [Some(repetition.min), repetition.max];
            if counts.into_iter().flatten().any(|count| usize::try_from(count).is_ok_and(|count| count > MOST_REPEATS))
            {
                return Err(format!("more than {MOST_REPEATS} repetitions"));
            }
            let sub = Box::new(plain(&repetition.sub)?);
            Ok(Hir::repetition(Repetition { min: repetition.min, max: repetition.max, greedy: true, sub }))
        }
        HirKind::Capture(group) => plain(&group.sub),
        HirKind::Concat(parts) => Ok(Hir::concat(all(parts)?)),
        HirKind::Alternation(parts) => Ok(Hir::alternation(all(parts)?)),
    }
}
