//! `GET /openapi.json`: the API as an OpenAPI 3.1 document. It is written by hand; the tests below hold it to the code.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::Value;

use super::Served;

/// The document, but for its version and the limits of a server.
const DOCUMENT: &str = include_str!("openapi.json");

/// Fields whose largest value is the server's.
const LIMITED: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// The document of a server that writes so many tokens at most.
fn of(max_tokens: u64) -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let schemas = document["components"]["schemas"].as_object_mut();
    for (_, schema) in schemas.into_iter().flatten() {
        for field in LIMITED {
            let Some(limits) = schema.pointer_mut(&format!("/properties/{field}")) else { continue };
            limits["maximum"] = max_tokens.into();
            if let Some(usual) = limits["default"].as_u64() {
                limits["default"] = usual.min(max_tokens).into();
            }
        }
    }
    document
}

/// The document.
pub async fn document(State(served): State<Arc<Served>>) -> Json<Value> {
    Json(of(served.limits.max_tokens))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bd3::sample::Rule;
    use regex::Regex;

    use super::*;
    use crate::revise;
    use crate::sample::SampleArgs;

    fn document() -> Value {
        of(7)
    }

    fn keys(object: &Value) -> BTreeSet<String> {
        object.as_object().unwrap().keys().cloned().collect()
    }

    /// Both hold the same, or a sentence says what to add and what to take out.
    fn same(where_: &str, document: &BTreeSet<String>, code: &BTreeSet<String>) {
        let missing: Vec<_> = code.difference(document).collect();
        let strange: Vec<_> = document.difference(code).collect();
        let told = format!("app/serve/openapi.json, {where_}: add {missing:?}, take out {strange:?}");
        assert!(missing.is_empty() && strange.is_empty(), "{told}");
    }

    /// Every object within.
    fn each<'a>(value: &'a Value, see: &mut impl FnMut(&'a Value)) {
        see(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| each(item, see)),
            Value::Object(fields) => fields.values().for_each(|field| each(field, see)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_and_method() {
        let route = Regex::new(r#"\.route\("([^"]+)", ([^\n]+)\)\n"#).unwrap();
        let method = Regex::new(r"\b(get|post|put|patch|delete)\(").unwrap();
        let routes: BTreeSet<String> = route
            .captures_iter(include_str!("routes.rs"))
            .flat_map(|found| {
                let path = found[1].replace("{*", "{");
                method.captures_iter(&found[2]).map(|m| format!("{} {path}", &m[1])).collect::<Vec<_>>()
            })
            .collect();
        assert!(routes.len() > 12 && routes.contains("post /bd3/curve"), "{routes:?}");
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let of = |path: &String| keys(&paths[path]).into_iter().map(|m| format!("{m} {path}")).collect::<Vec<_>>();
        let told = paths.keys().flat_map(of).collect();
        same("`paths`", &told, &routes);
    }

    #[test]
    fn the_object_bd3_has_every_flag_of_making() {
        let openai = ["temperature", "top_p"];
        let own = ["events", "alternatives", "gap", "infill", "regex"];
        let flags = SampleArgs::making().into_iter().map(|(flag, _)| flag.replace('-', "_"));
        let flags = flags.filter(|flag| !openai.contains(&flag.as_str())).chain(own.map(String::from)).collect();
        let document = document();
        let making = &document["components"]["schemas"]["Bd3"]["properties"];
        same("the properties of `Bd3`", &keys(making), &flags);
        for request in ["CompletionRequest", "ChatRequest", "RaceRequest"] {
            let fields = keys(&document["components"]["schemas"][request]["properties"]);
            assert!(openai.iter().all(|name| fields.contains(*name)), "{request} lacks one of {openai:?}");
        }
        let names = |field: &str| {
            let names = making[field]["enum"].as_array().unwrap().iter();
            names.filter_map(Value::as_str).map(String::from).collect::<BTreeSet<_>>()
        };
        same("the names of `Bd3.rule`", &names("rule"), &Rule::NAMES.map(String::from).into());
        same("the names of `Bd3.revise`", &names("revise"), &revise::NAMES.map(|(name, _)| name.into()).into());
    }

    #[test]
    fn the_document_has_every_status_of_an_error() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("app/serve");
        let status = Regex::new(r"StatusCode::([A-Z_]+)").unwrap();
        let mut statuses = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            let code = std::fs::read_to_string(&file).unwrap();
            statuses.extend(status.captures_iter(&code).map(|found| found[1].to_string()));
        }
        let number = |name: &String| match name.as_str() {
            "OK" | "NO_CONTENT" => None,
            "BAD_REQUEST" => Some("400"),
            "UNAUTHORIZED" => Some("401"),
            "FORBIDDEN" => Some("403"),
            "NOT_FOUND" => Some("404"),
            "METHOD_NOT_ALLOWED" => Some("405"),
            "REQUEST_TIMEOUT" => Some("408"),
            "CONFLICT" => Some("409"),
            "PAYLOAD_TOO_LARGE" => Some("413"),
            "UNSUPPORTED_MEDIA_TYPE" => Some("415"),
            "TOO_MANY_REQUESTS" => Some("429"),
            "INTERNAL_SERVER_ERROR" => Some("500"),
            "SERVICE_UNAVAILABLE" => Some("503"),
            other => panic!("{other} is new: give it a response in app/serve/openapi.json and a line here"),
        };
        let numbers = statuses.iter().filter_map(number).map(String::from).collect();
        same("`components.responses`", &keys(&document()["components"]["responses"]), &numbers);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_described() {
        let document = document();
        each(&document, &mut |value| {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
        });
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let limited = |request: &str, field: &str| schemas[request]["properties"][field]["maximum"] == 7;
        assert!(limited("CompletionRequest", "max_tokens") && limited("ChatRequest", "max_completion_tokens"));
        for (name, schema) in schemas {
            each(schema, &mut |value| {
                let Some(fields) = value.get("properties").and_then(Value::as_object) else { return };
                for (field, schema) in fields.iter().filter(|(_, schema)| schema.get("$ref").is_none()) {
                    let told = ["description", "const", "anyOf"].iter().any(|key| schema.get(key).is_some());
                    let inner = schema["type"] == "object" || name == "Message";
                    assert!(told || inner, "{name}: {field} has no description");
                }
            });
        }
    }
}
