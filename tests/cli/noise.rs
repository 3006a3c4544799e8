//! `bd3 noise`.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::{bd3, json, out, refused};

const TEXT: &str = "Once upon a time there was a little dog who liked to play in the garden.";

#[test]
fn noise_rises_from_the_text_to_none_of_it() {
    let object = json(&["noise", TEXT, "--json"]);
    let rows = object["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4 * 6);
    let ids = |row: &Value| row["ids"].as_array().unwrap().clone();
    let length = object["ids"].as_array().unwrap().len();
    for kind in rows.chunks(6) {
        let name = kind[0]["kind"].as_str().unwrap();
        assert_eq!(ids(&kind[0]), *object["ids"].as_array().unwrap(), "{name}");
        let changed: Vec<u64> = kind.iter().map(|row| row["changed"].as_u64().unwrap()).collect();
        assert!(changed.is_sorted() && changed[0] == 0 && changed[5] + 1 >= length as u64, "{name}: {changed:?}");
        let masked = kind[5]["masked"].as_u64().unwrap();
        assert_eq!(masked, if matches!(name, "mask" | "mixed") { length as u64 } else { 0 }, "{name}");
        for pair in kind.windows(2) {
            let ((before, after), text) = ((ids(&pair[0]), ids(&pair[1])), object["ids"].as_array().unwrap());
            let stayed = (0..length).filter(|&at| before[at] != text[at]).all(|at| after[at] != text[at]);
            assert!(stayed, "{name}: what is changed stays changed");
        }
    }
    assert_eq!(object, json(&["noise", TEXT, "--json"]));
    assert_ne!(object["rows"], json(&["noise", TEXT, "--json", "--seed", "1"])["rows"]);
}

#[test]
fn a_pipe_gets_plain_lines_and_a_text_comes_from_anywhere() {
    let lines = String::from_utf8(out(&["noise", TEXT, "--kind", "mask,semantic", "--levels", "3"])).unwrap();
    let rows: Vec<&str> = lines.lines().collect();
    assert_eq!(rows.len(), 2 * 4 + 1, "{lines}");
    assert_eq!((rows[0], rows[1]), ("mask", &*format!("0.00  {TEXT}")));
    assert!(rows[3].starts_with("1.00  ▢") && !lines.contains('\u{1b}'));
    let (shorter, by_flag) = (["--kind", "mask", "--levels", "2"], "- a dash");
    let flagged = out(&[&["noise", "-p", by_flag], &shorter[..]].concat());
    let mut child =
        bd3(&[&["noise", "-"], &shorter[..]].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(by_flag.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, flagged);
}

#[test]
fn what_makes_no_sense_is_refused() {
    refused(&["noise", ""], &["TEXT", "at least one token"]);
    refused(&["noise", "a", "--levels", "1"], &["--levels", "a whole number from 2 to 101"]);
    refused(&["noise", "a", "--temperature", "-1"], &["--temperature", "-1"]);
    refused(&["noise", "a", "--replaced", "1"], &["--replaced", "1"]);
    assert_eq!(super::run(&["noise"]).status.code(), Some(2));
}
