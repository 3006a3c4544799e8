//! What schemas allow, in tables of texts, and what is refused, with the sentences.

use regex::Regex;
use serde_json::{Value, json};

use super::checks::{matcher, valid};
use super::{any_object, pattern};

fn check(schema: &Value, fits: &[&str], others: &[&str]) {
    let matcher = matcher(&pattern(schema).unwrap());
    for text in fits {
        assert!(matcher.is_match(text), "{schema} should match {text}");
        assert!(valid(schema, schema, &serde_json::from_str(text).unwrap()), "{schema}: {text}");
    }
    for text in others {
        assert!(!matcher.is_match(text), "{schema} should not match {text}");
    }
}

#[test]
fn scalars() {
    check(&json!({"type": "null"}), &["null"], &["nul", "\"null\"", ""]);
    check(&json!({"type": "boolean"}), &["true", "false"], &["True", "truefalse"]);
    check(&json!({"type": "integer"}), &["0", "-1", "10", "999999999999999"], &["-0", "01", "1.0", "1000000000000000"]);
    check(
        &json!({"type": "number"}),
        &["0", "-0.5", "1e5", "1.25E-10", "-0"],
        &[".5", "1.", "+1", "1e", "1e500", "NaN", "01"],
    );
    check(&json!({"type": ["integer", "null"]}), &["1", "null"], &["1null", "true"]);
    check(&json!({"type": "string"}), &[r#""""#, r#""a é 😀 \n \" \u00e9 \ud7ff \uE000""#], &[r#"""#, r#""\x""#]);
    check(&json!({"type": "string"}), &[], &["\"\n\"", r#""\ud800""#, r#""\uDFFF""#, r#""\u12""#, r#""a"b""#]);
    check(
        &json!({"type": "string", "minLength": 2, "maxLength": 3}),
        &[r#""ab""#, r#""\n\u0041😀""#],
        &[r#""a""#, r#""abcd""#, r#""\n""#],
    );
    check(&json!({"type": "number", "minimum": 0}), &["0", "0.5", "12.000"], &["-0.5", "-1", "1e5"]);
    check(&json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), &["0.1", "1", "1.0"], &["0", "0.0", "1.1"]);
    check(&json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}), &["0", "12"], &["-1"]);
}

#[test]
fn literals() {
    check(
        &json!({"const": {"a": [1, "x.y"], "b": {}}}),
        &[r#"{"a":[1,"x.y"],"b":{}}"#],
        &[r#"{"a":[1,"xzy"],"b":{}}"#],
    );
    check(&json!({"const": {"a": [1, 2]}}), &[r#"{"a": [1, 2]}"#], &[r#"{"a":  [1,2]}"#, r#"{ "a":[1,2]}"#]);
    check(&json!({"enum": ["é", "(a|b)", "\"\n"]}), &[r#""é""#, r#""(a|b)""#, r#""\"\n""#], &[r#""\u00e9""#, r#""a""#]);
    check(&json!({"type": "string", "enum": ["a", 1]}), &[r#""a""#], &["1"]);
    check(&json!({"const": "a", "enum": ["a", "b"], "type": "string"}), &[r#""a""#], &[r#""b""#]);
    check(&json!({"enum": [1, 2], "minLength": 5}), &["1", "2"], &["3"]);
}

#[test]
fn objects() {
    let person = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                        "required": ["name"]});
    check(
        &person,
        &[r#"{"name":"A"}"#, r#"{"name": "A", "age": 3}"#],
        &[
            "{}",
            r#"{"age":3}"#,
            r#"{"age":3,"name":"A"}"#,
            r#"{"name":"A",}"#,
            r#"{"name":"A" }"#,
            r#"{"name":"A","x":1}"#,
        ],
    );
    check(&json!({"type": "object", "properties": {}}), &["{}"], &[r#"{"a":1}"#]);
    check(&json!({"type": "object", "additionalProperties": false}), &["{}"], &[r#"{"a":1}"#]);
    check(&json!({"type": "object"}), &["{}", r#"{"a":1, "b\n":[1]}"#], &["[]", r#"{a:1}"#]);
    check(&json!({"additionalProperties": {"type": "null"}}), &["{}", r#"{"a":null,"b":null}"#], &[r#"{"a":1}"#]);
    check(&json!({"required": ["b", "a", "b"]}), &[r#"{"b":1,"a":[true]}"#], &["{}", r#"{"a":1,"b":1}"#, "3"]);
    check(
        &json!({"properties": {"a": {"type": "string"}}, "type": ["object", "null"], "uniqueItems": true}),
        &["null", "{}", r#"{"a":""}"#],
        &["[]"],
    );
}

#[test]
fn arrays() {
    let integers = |more: Value| {
        let mut schema = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": false});
        more.as_object().unwrap().iter().for_each(|(key, value)| schema[key] = value.clone());
        matcher(&pattern(&schema).unwrap())
    };
    for (least, most) in [(0, 0), (0, 1), (0, 3), (1, 1), (1, 3), (2, 2), (2, 4)] {
        let (both, least_only) =
            (integers(json!({"minItems": least, "maxItems": most})), integers(json!({"minItems": least})));
        for length in 0..6 {
            let text = format!("[{}]", vec!["7"; length].join(", "));
            assert_eq!(both.is_match(&text), (least..=most).contains(&length), "{least} {most} {text}");
            assert_eq!(least_only.is_match(&text), length >= least, "{least} {text}");
        }
    }
    let pair = [json!({"const": 1}), json!({"const": 2})];
    check(&json!({"prefixItems": pair}), &["[]", "[1]", "[1,2]"], &["[2]", "[1,2,3]", "[,2]", "[1,]"]);
    check(&json!({"prefixItems": pair, "minItems": 3}), &["[1,2,null]"], &["[1,2]", "[1,2,3,4]"]);
    check(&json!({"prefixItems": pair, "minItems": 1, "items": {"const": 3}}), &["[1]", "[1,2,3,3]"], &["[]", "[1,3]"]);
    check(&json!({"prefixItems": pair, "items": {"const": 3}, "maxItems": 3}), &["[1,2,3]"], &["[1,2,3,3]"]);
    check(&json!({"prefixItems": pair, "items": false, "minItems": 2}), &["[1,2]"], &["[1]"]);
    check(&json!({"prefixItems": [{"const": 1}, false], "items": true}), &["[]", "[1]"], &["[1,2]"]);
    check(&json!({"type": "array", "items": false}), &["[]"], &["[1]"]);
    check(&json!({"type": "array"}), &["[]", "[1,{}]"], &["[[[[1]]]]"]);
}

#[test]
fn branches_and_references() {
    check(&json!({"anyOf": [{"type": "string"}, {"type": "null"}, false]}), &["null", r#""a""#], &["1"]);
    check(
        &json!({"type": ["integer", "null"], "anyOf": [{"type": "number"}, {"type": "null"}]}),
        &["1", "null"],
        &["1.5"],
    );
    check(&json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}), &["1", r#""a""#], &["null"]);
    check(&json!({"oneOf": [{"const": 1}, {"enum": [2, "a"]}]}), &["1", "2"], &["3"]);
    check(
        &json!({"$defs": {"p/q": {"type": "integer"}, "r": {"$ref": "#/$defs/p~1q", "title": "R"}},
               "type": "array", "items": {"$ref": "#/$defs/r"}}),
        &["[]", "[1,2]"],
        &[r#"["a"]"#],
    );
    // A definition may be used twice, side by side.
    check(
        &json!({"$defs": {"a": {"const": 1}}, "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/$defs/a"}}}),
        &[r#"{"x":1,"y":1}"#],
        &[r#"{"x":2}"#],
    );
}

#[test]
fn formats() {
    let format = |name: &str| json!({"type": "string", "format": name});
    check(
        &format("date-time"),
        &[r#""2024-02-29T23:59:59.123Z""#, r#""2024-01-31T00:00:00+01:00""#],
        &[r#""2024-01-01""#],
    );
    check(&format("time"), &[r#""12:00:00Z""#], &[r#""24:00:00Z""#, r#""12:00:00""#, r#""12:60:00Z""#]);
    check(&format("uuid"), &[r#""123e4567-e89b-12d3-A456-426614174000""#], &[r#""123e4567e89b12d3a456426614174000""#]);
    check(
        &format("ipv4"),
        &[r#""0.0.0.0""#, r#""255.249.199.10""#],
        &[r#""256.0.0.1""#, r#""01.0.0.0""#, r#""1.1.1""#],
    );
    check(
        &format("email"),
        &[r#""a.b+c@x-y.example.org""#],
        &[r#""a@b""#, r#""@b.cc""#, r#""a..b@c.de""#, r#""a@-b.cc""#],
    );
    check(&format("int-or-so"), &[r#""anything""#], &["1"]);
    check(&json!({"format": "date", "maxLength": 10}), &[r#""2023-12-31""#], &[r#""2023-02-29""#]);
}

/// The pattern of a string's content against a search with the `regex` crate's own syntax, for all short contents.
#[test]
fn searches_find_what_they_should() {
    let word = "[0-9A-Za-z_]";
    let table = [
        (r"^a\d$", "^a[0-9]$".to_owned()),
        (r"\w-\W", format!("{word}-[^0-9A-Za-z_]")),
        (r"a|^b|-$", "a|^b|-$".to_owned()),
        (r"(^|-)a", "(^|-)a".to_owned()),
        (r"^(a|b$)", "^(a|b$)".to_owned()),
        (r"^(?:a|b)+(?<tail>1|-)?$", "^(?:a|b)+(1|-)?$".to_owned()),
        (r"[^\w-]", "[^0-9A-Za-z_-]".to_owned()),
        (r"[\w-]{2,3}$", format!("(?:{word}|-){{2,3}}$")),
        (r"^[--1]*$", "^[-./01]*$".to_owned()),
        (r"^[a-]$|^[-b][[&&b]$", r"^[a\-]$|^[\-b][\[&b]$".to_owned()),
        (r"^..$", "^..$".to_owned()),
        (r"\u00e9\x31|\u{E9}a", "é1|éa".to_owned()),
        (r"^[\S]\s$", r"^[^\s][\s]$".to_owned()),
        (r"^\p{L}+$", r"^\p{L}+$".to_owned()),
        (r"\/|\-", "/|-".to_owned()),
        ("", String::new()),
        ("^$", "^$".to_owned()),
    ];
    let letters = ['a', 'b', '1', '-', ' ', 'é', '[', '&'];
    for (pattern_text, oracle) in table {
        let schema = json!({"type": "string", "pattern": pattern_text});
        let (matcher, oracle) = (matcher(&pattern(&schema).unwrap()), Regex::new(&oracle).unwrap());
        for length in 0..5 {
            for mut row in 0..letters.len().pow(length) {
                let mut text = String::new();
                for _ in 0..length {
                    text.push(letters[row % letters.len()]);
                    row /= letters.len();
                }
                assert_eq!(matcher.is_match(&format!("\"{text}\"")), oracle.is_match(&text), "{pattern_text}: {text}");
            }
        }
    }
    let quote = json!({"pattern": "^[\"'\\\\]$"});
    check(&quote, &[r#""'""#], &[r#"""""#, r#""\""#, r#""\\""#]);
    check(&json!({"pattern": "^.$"}), &[r#""😀""#], &["\"\u{2028}\"", "\"\u{2029}\"", "\"\n\"", r#""\n""#]);
    check(&json!({"pattern": r"^\d$"}), &[], &["\"\u{660}\""]);
    check(&json!({"pattern": "x"}), &[r#""\n x \u0041""#], &[r#""\n""#, r#""x\""#]);
}

/// Every refusal: a schema, the place, and parts of what was expected and found.
fn refused(table: Vec<(Value, &str, &str, &str)>) {
    for (schema, place, expected, found) in table {
        let message = pattern(&schema).map(|text| panic!("{schema} makes {text}")).unwrap_err().to_string();
        assert!(message.starts_with(&format!("schema at {place}: expected ")), "{message}");
        assert!(message.contains(expected), "{expected:?} not in: {message}");
        assert!(message.contains(&format!(", found {found}")), "{found:?} not in: {message}");
    }
}

#[test]
fn keywords_are_refused() {
    let unknown = "no such keyword (supported: type, enum, const, ";
    let deep = json!({"properties": {"a/b": {"type": "integer", "multipleOf": 2}}});
    let mut table = vec![
        (deep, "#/properties/a~1b/multipleOf", unknown, "multipleOf, which is not supported"),
        (json!({"propertes": {}}), "#/propertes", unknown, "propertes, which JSON Schema does not have"),
        (json!({"type": "array", "uniqueItems": true}), "#/uniqueItems", unknown, "uniqueItems"),
        (json!({"const": 3, "multipleOf": 3}), "#/multipleOf", unknown, "multipleOf"),
    ];
    for key in ["not", "if", "then", "else", "patternProperties", "dependentRequired", "contains", "minProperties"] {
        let (place, found) = (format!("#/{key}"), format!("{key}, which is not supported"));
        table.push((json!({key: {}}), place.leak(), unknown, found.leak()));
    }
    let beside = "nothing but type and annotations beside ";
    table.extend([
        (json!({"anyOf": [{}], "minLength": 1}), "#/minLength", beside, "minLength"),
        (json!({"$ref": "#/$defs/a", "properties": {}, "$defs": {"a": {}}}), "#/properties", beside, "properties"),
        (json!({"enum": ["a"], "minLength": 1}), "#/minLength", beside, "minLength"),
        (json!({"allOf": [{}], "anyOf": [{}]}), "#/anyOf", beside, "anyOf"),
        (json!({"pattern": "a", "minLength": 1}), "#/pattern", "no pattern beside minLength", "\"a\""),
        (json!({"const": 1e23}), "#", "64 bits", "1e+23"),
        (json!({"format": "date", "maxLength": 9}), "#/maxLength", "from 10 to 10 beside this format", "one that does"),
    ]);
    refused(table);
}

#[test]
fn malformed_schemas_are_refused() {
    refused(vec![
        (json!(3), "#", "a schema (an object, true or false)", "3"),
        (json!({"items": [{}]}), "#/items", "a schema (an object, true or false)", "a list"),
        (
            json!({"type": "strng"}),
            "#/type",
            "out of string, number, integer, boolean, null, object, array",
            "\"strng\"",
        ),
        (json!({"type": []}), "#/type", "a type or a list of types", "[]"),
        (json!({"enum": "a"}), "#/enum", "a list of values", "\"a\""),
        (json!({"properties": []}), "#/properties", "an object of schemas", "[]"),
        (json!({"required": "a"}), "#/required", "a list of names", "\"a\""),
        (json!({"prefixItems": {}}), "#/prefixItems", "a list of schemas", "{}"),
        (json!({"anyOf": []}), "#/anyOf", "a list of schemas", "[]"),
        (json!({"minimum": "1"}), "#/minimum", "a number", "\"1\""),
        (json!({"pattern": 1}), "#/pattern", "a regular expression", "1"),
        (json!({"maxItems": 1001}), "#/maxItems", "a whole number from 0 to 1000", "1001"),
        (json!({"minLength": -1}), "#/minLength", "a whole number from 0 to 1000", "-1"),
    ]);
}

#[test]
fn schemas_without_a_regular_language_are_refused() {
    let node = json!({"properties": {"next": {"$ref": "#/$defs/node"}}});
    let exclude = "(use anyOf where more than one may hold)";
    let tagged = |required: &str| {
        json!({"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}, "required": [required]},
                         {"type": "object", "properties": {"k": {"const": 2}}, "required": [required]}]})
    };
    assert!(pattern(&tagged("k")).is_ok());
    let part = json!({"$id": "urn:x", "items": {"$ref": "#/$defs/a"}});
    let mut deep = json!({"type": "null"});
    let mut nested = json!({"type": "integer"});
    for _ in 0..64 {
        deep = json!({"items": deep});
        nested = json!([nested]);
    }
    let there = "#, or a name under #/$defs or #/definitions that is there";
    let place = "#/$defs/node/properties/next/$ref";
    refused(vec![
        (json!({"$ref": "#/$defs/node", "$defs": {"node": node}}), place, "recursive schemas", "\"#/$defs/node\""),
        (json!({"items": {"$ref": "#"}}), "#/items/$ref", "recursive schemas are not regular", "\"#\""),
        (json!({"$ref": "#/$defs/x"}), "#/$ref", there, "\"#/$defs/x\""),
        (json!({"$ref": "other.json"}), "#/$ref", there, "\"other.json\""),
        (json!({"properties": {"p": part}, "$defs": {"a": {}}}), "#/properties/p/items/$ref", "its own $id", "\"#"),
        (tagged("other"), "#/oneOf", exclude, "schemas 0 and 1, which may both hold"),
        (
            json!({"oneOf": [{"type": "null"}, {"type": "number"}, {"type": "integer"}]}),
            "#/oneOf",
            exclude,
            "schemas 1 and 2",
        ),
        (json!({"oneOf": [{"const": 1}, {"const": 1.0}]}), "#/oneOf", exclude, "schemas 0 and 1"),
        (json!({"oneOf": vec![json!(false); 101]}), "#/oneOf", "at most 100 schemas", "101 of them"),
        (json!({"allOf": [{}, {}]}), "#/allOf", "a single schema", "2 of them"),
        (
            json!({"prefixItems": vec![json!({"const": 1}); 300]}),
            "#",
            "a schema that nests less",
            "a pattern that fails",
        ),
        (deep, &"/items".repeat(64).replacen('/', "#/", 1), "schemas nested at most 64 deep", "one nested deeper"),
        (json!({"const": nested}), "#", "values nested at most 64 deep", "one nested deeper"),
    ]);
}

#[test]
fn schemas_without_values_are_refused() {
    refused(vec![
        (json!({"type": "number", "maximum": 0.5}), "#/maximum", "a whole number, unless the type is integer", "0.5"),
        (
            json!({"type": "integer", "minimum": 3, "maximum": 2}),
            "#",
            "a number of at most 15 digits",
            "bounds with none",
        ),
        (
            json!({"type": "number", "minimum": 3, "exclusiveMaximum": 3}),
            "#",
            "digits between them",
            "bounds with none",
        ),
        (json!({"minLength": 3, "maxLength": 2}), "#/maxLength", "at least 3, as minLength says", "2"),
        (json!({"minItems": 3, "maxItems": 2}), "#", "room for at least 3 items", "room for 2"),
        (json!({"items": false, "minItems": 1}), "#", "room for at least 1 items", "room for 0"),
        (json!(false), "#", "a schema that some value satisfies", "one that none does"),
        (json!({"properties": {"a": false}, "required": ["a"]}), "#/properties/a", "some value satisfies", "one that"),
        (json!({"properties": {"a": {"enum": []}}}), "#/properties/a", "some value satisfies", "one that none does"),
        (json!({"additionalProperties": false, "required": ["a"]}), "#/required", "that are allowed", "\"a\""),
    ]);
}

#[test]
fn searches_are_refused() {
    let many = (10..30).map(|number| number.to_string()).collect::<Vec<_>>().join("|");
    let many = format!("({many}|^)x({many}|$)");
    let only = "a regular expression (ECMA-262) with anchors at the ends only";
    for (text, reason) in [
        ("a^b", "an anchor that is not at an end"),
        ("(a$)*", "an anchor that is not at an end"),
        ("a(?=b)", "lookaround"),
        ("(?<!a)b", "lookaround"),
        (r"(a)\1", "a backreference"),
        (r"(?<x>a)\k<x>", "a backreference"),
        (r"\ba", "the word boundary \\b"),
        ("(?i)a", "a kind of group that is not supported"),
        ("say \"", "the character \"\\\"\""),
        (r"a\\b", "the character \"\\\\\""),
        (r"\t", "the character \"\\t\""),
        (r"[\n\r]", "a class of characters that JSON escapes"),
        ("[]a]", "an empty class"),
        ("[a", "a class without end"),
        (r"[\w-x]", "a range that ends in a class"),
        ("a{,3}", "a brace that counts nothing"),
        ("a++", "a repetition of a repetition"),
        ("a+??", "a repetition of a repetition"),
        ("a{1001}", "more than 1000 repetitions"),
        (r"\a", "the escape \\a, which is not supported"),
        (r"\ud83d", "an escape that names no character"),
        (r"\x4", "an escape that names no character"),
        (r"\p{Nonsense}", "an error in it (Unicode property not found)"),
        ("(a", "an error in it (unclosed group)"),
        ("*", "an error in it (repetition operator missing expression)"),
        ("a\\", "an escape of nothing"),
        (&"a".repeat(1001), "more than 1000 characters"),
        (&many, "too many ways to anchor it"),
    ] {
        let message = pattern(&json!({"pattern": text})).map(|_| panic!("{text}")).unwrap_err().to_string();
        assert!(message.starts_with(&format!("schema at #/pattern: expected {only}")), "{message}");
        assert!(message.ends_with(&format!(" with {reason}")), "{message}");
    }
}

#[test]
fn hostile_schemas_are_refused() {
    let long = format!("a schema whose pattern has at most {} bytes", 1 << 20);
    // Each definition holds the next one twice.
    for leaf in [json!({"type": "string"}), json!(false)] {
        let mut definitions = serde_json::Map::new();
        for index in 0..60 {
            let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
            definitions.insert(format!("d{index}"), json!({"anyOf": [next, next]}));
        }
        definitions.insert("d60".to_owned(), leaf);
        let mut schema = json!({"$ref": "#/$defs/d40"});
        schema["$defs"] = Value::Object(definitions);
        let message = pattern(&schema).unwrap_err().to_string();
        assert!(message.contains(&long), "{message}");
    }
    // Optional properties cost little more than they are long.
    let names: serde_json::Map<String, Value> =
        (0..500).map(|index| (format!("property{index}"), json!({"type": "integer"}))).collect();
    let text = pattern(&json!({"type": "object", "properties": names})).unwrap();
    assert!(text.len() < 500 * 50 * 10, "{}", text.len());
    assert!(any_object(4).len() < 200_000);
}
