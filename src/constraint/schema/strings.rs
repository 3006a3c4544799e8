//! Patterns of strings: any ones, ones of a length, of a format, or with a pattern of their own.

use serde_json::{Map, Value};

use super::keywords::{count, join, refusal, shown};
use super::search;
use crate::error::Result;

/// One character of a string, itself or as an escape. Surrogates are left out, as a pair would be one character.
pub(super) const CHARACTER: &str = concat!(
    r#"(?:[^"\\\x00-\x1F]|\\(?:["\\/bfnrt]|"#,
    "u(?:[0-9A-CE-Fa-ce-f][0-9A-Fa-f]{3}|[Dd][0-7][0-9A-Fa-f]{2})))",
);

/// A pattern of texts with the length of the shortest and of the longest.
type Format = (String, usize, usize);

/// Any string.
pub(super) fn any() -> String {
    format!("\"{CHARACTER}*\"")
}

/// A string as the keywords of a schema want it.
pub(super) fn string(map: &Map<String, Value>, place: &str) -> Result<String> {
    let least = count(map, "minLength", place)?;
    let most = count(map, "maxLength", place)?;
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        let expected = format!("at least {least}, as minLength says");
        return Err(refusal(&join(place, "maxLength"), expected, most.to_string()));
    }
    let length = ["minLength", "maxLength"].into_iter().find(|key| map.contains_key(*key));
    let format = map.get("format").and_then(Value::as_str).and_then(format);
    if let Some(pattern) = map.get("pattern") {
        let at = join(place, "pattern");
        // A format beside a pattern (as some generators write for an email) is what it is by default, an annotation.
        if let Some(other) = length {
            return Err(refusal(&at, format!("no pattern beside {other}"), shown(pattern)));
        }
        let Value::String(text) = pattern else { return Err(refusal(&at, "a regular expression", shown(pattern))) };
        let content = search::content(text).map_err(|reason| {
            let expected = "a regular expression (ECMA-262) with anchors at the ends only, without lookaround and \
                            backreferences, of characters that JSON does not escape";
            refusal(&at, expected, format!("{} with {reason}", shown(pattern)))
        })?;
        return Ok(format!("\"{content}\""));
    }
    if let Some((text, shortest, longest)) = format {
        if least.is_some_and(|least| least > shortest) || most.is_some_and(|most| most < longest) {
            let expected = format!("a length that allows every one from {shortest} to {longest} beside this format");
            return Err(refusal(&join(place, length.unwrap_or("format")), expected, "one that does not"));
        }
        return Ok(format!("\"{text}\""));
    }
    Ok(match (least.unwrap_or(0), most) {
        (0, None) => any(),
        (least, None) => format!("\"{CHARACTER}{{{least},}}\""),
        (least, Some(most)) => format!("\"{CHARACTER}{{{least},{most}}}\""),
    })
}

/// The formats that are held to. Others say something to readers only, as the specification has it.
fn format(name: &str) -> Option<Format> {
    // Years before 1000 are left out: many readers refuse the year 0.
    let date = concat!(
        "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])",
        "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))",
        "|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)",
    );
    let time = concat!(
        r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?",
        "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
    );
    let octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    let hex = "[0-9A-Fa-f]";
    Some(match name {
        "date" => (date.to_owned(), 10, 10),
        "time" => (time.to_owned(), 9, 24),
        "date-time" => (format!("{date}T{time}"), 20, 35),
        "uuid" => (format!("{hex}{{8}}(?:-{hex}{{4}}){{3}}-{hex}{{12}}"), 36, 36),
        "ipv4" => (format!(r"{octet}(?:\.{octet}){{3}}"), 7, 15),
        // Parts are bounded, so that the lengths which mail allows are kept.
        "email" => {
            let local = r"[A-Za-z0-9_+-]{1,20}(?:\.[A-Za-z0-9_+-]{1,20}){0,2}";
            let domain = r"(?:[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20})?\.){1,3}[A-Za-z]{2,20}";
            (format!("{local}@{domain}"), 6, 209)
        }
        _ => return None,
    })
}
