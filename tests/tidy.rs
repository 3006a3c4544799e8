//! What keeps the tree readable, checked: the one-way import order, file budgets, and that the documents name what is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bd3::recipe::Recipe;
use regex::Regex;

/// Above this a file has to say why, with the words `Over budget:`.
const BUDGET: usize = 400;
/// No reason is good enough above this.
const LIMIT: usize = 450;
const RECIPE_LINES: usize = 30;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names in a folder, folders with a trailing slash, hidden ones left out.
fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() { name + "/" } else { name }
    };
    let mut names: Vec<String> = entries.map(name).filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// All files below a folder with this extension, relative to the root.
fn files(dir: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in names(dir) {
        let path = if dir == "." { name.clone() } else { format!("{dir}/{name}") };
        match path.strip_suffix('/') {
            Some("target" | "shared" | "runs") => {}
            // What npm has put there.
            Some(folder) if folder.ends_with("/node_modules") => {}
            Some(folder) => found.extend(files(folder, extension)),
            None if path.ends_with(&format!(".{extension}")) => found.push(path),
            None => {}
        }
    }
    found
}

/// Stems of the files that a folder's modules declare for tests only.
fn test_modules() -> BTreeSet<String> {
    let declared = Regex::new(r"#\[cfg\(test\)\]\n(?:#\[path[^\n]*\n)?(?:pub(?:\(\w+\))? )?mod (\w+);").unwrap();
    let texts = files("src", "rs").into_iter().chain(files("app", "rs")).map(read);
    texts.flat_map(|text| declared.captures_iter(&text).map(|name| name[1].to_string()).collect::<Vec<_>>()).collect()
}

/// A source file without comments and without what is only compiled for tests (it stands last, or in a file of its own).
fn code(path: &str) -> String {
    let stem = path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or_default();
    if stem.ends_with("tests") || test_modules().contains(stem) {
        return String::new();
    }
    let text = read(path);
    let tests = Regex::new(r"(?m)^#\[cfg\(test\)\]\n.*\{$").unwrap();
    let end = tests.find(&text).map_or(text.len(), |found| found.start());
    let line = |line: &str| line.split("//").next().unwrap_or_default().to_string() + "\n";
    text[..end].lines().map(line).collect()
}

/// The top-level modules that code names after `crate::`, also inside braces.
fn imports(code: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\bcrate::(\{[^;]*\}|[a-z_]+)").unwrap();
    let inner = Regex::new(r"(?:^\{|,)\s*([a-z_]+)").unwrap();
    let nested = Regex::new(r"::\{[^{}]*\}").unwrap();
    let mut found = BTreeSet::new();
    for capture in name.captures_iter(code) {
        if capture[1].starts_with('{') {
            let list = nested.replace_all(&capture[1], "").into_owned();
            found.extend(inner.captures_iter(&list).map(|name| name[1].to_string()));
        } else {
            found.insert(capture[1].to_string());
        }
    }
    found
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code =
        "use crate::error::Result;\nuse crate::{Error, data::{Batch, loss}, rng::Rng};\nlet x = crate::arch::MLP;\n";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["arch", "data", "error", "rng"]);
}

/// The modules as `src/lib.rs` lists them: one may use those before it, never those after it.
fn order() -> Vec<String> {
    let module = Regex::new(r"(?m)^pub mod (\w+);").unwrap();
    module.captures_iter(&read("src/lib.rs")).map(|name| name[1].to_string()).collect()
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let order = order();
    let rank = |module: &str, path: &str| {
        order.iter().position(|name| name == module).unwrap_or_else(|| panic!("{path}: src/lib.rs has no `{module}`"))
    };
    for path in files("src", "rs") {
        let module = path["src/".len()..].split(['/', '.']).next().unwrap_or_default();
        if module == "lib" {
            continue;
        }
        let own = rank(module, &path);
        for used in imports(&code(&path)) {
            assert!(rank(&used, &path) <= own, "{path} uses `{used}`, which stands after `{module}`");
        }
    }
}

#[test]
fn files_keep_their_budget() {
    for path in ["src", "app", "tests", "benches"].iter().flat_map(|dir| files(dir, "rs")) {
        let text = read(&path);
        let lines = text.lines().count();
        let excused = lines <= LIMIT && text.contains("Over budget:");
        assert!(lines <= BUDGET || excused, "{path} has {lines} lines, the budget is {BUDGET}");
    }
    for path in files(".", "toml").into_iter().filter(|path| path.starts_with("recipes/")) {
        let lines = read(&path).lines().count();
        assert!(lines <= RECIPE_LINES, "{path} has {lines} lines, the budget is {RECIPE_LINES}");
    }
}

/// A comparison of objectives and block sizes is fair only if all else is equal.
#[test]
fn recipes_of_the_papers_order_differ_in_objective_and_blocks_alone() {
    let open = |path: String| Recipe::open(&root().join(path), &[]).unwrap();
    let recipes: Vec<Recipe> = files("recipes/paper", "toml").into_iter().map(open).collect();
    assert_eq!(recipes.len(), 11);
    for recipe in &recipes {
        let mut same = recipe.clone();
        (same.blocks, same.model.objective) = (recipes[0].blocks.clone(), recipes[0].model.objective);
        assert_eq!(same, recipes[0]);
    }
}

/// Panics that are left in the library are promises: each file may have so many, where its own code or tables would be wrong.
const PANICS: [(&str, usize); 5] = [
    ("src/data/detokenize.rs", 1),  // a pattern of the table
    ("src/data/toy/grammar.rs", 4), // the grammar's own text
    ("src/data/toy/walk.rs", 3),
    ("src/engine/team.rs", 1),        // a worker has panicked: its caller does, too
    ("src/model/fused/matmul.rs", 3), // sizes of slices that wrap
];

#[test]
fn the_library_prints_nothing_and_panics_only_where_it_says() {
    let print = Regex::new(r"\be?print(ln)?!").unwrap();
    let panic = Regex::new(r"\bpanic!|\.expect\(|\btodo!|\bunimplemented!").unwrap();
    for path in files("src", "rs") {
        let code = code(&path);
        assert!(!print.is_match(&code), "{path} prints");
        let allowed = PANICS.iter().find(|(known, _)| *known == path).map_or(0, |(_, count)| *count);
        assert_eq!(panic.find_iter(&code).count(), allowed, "{path} panics");
    }
    for path in files("src", "rs").into_iter().chain(files("app", "rs")) {
        assert!(!code(&path).contains(".unwrap()"), "{path} unwraps outside its tests");
    }
}

/// The paths of a tree drawing: the first fenced block that starts with `bd3/`.
fn drawn_tree(document: &str) -> Vec<String> {
    let text = read(document);
    let start = text.find("```text\nbd3/\n").unwrap_or_else(|| panic!("{document} draws no tree"));
    let mut folders: Vec<String> = Vec::new();
    let mut paths = Vec::new();
    for line in text[start..].lines().skip(2).take_while(|line| !line.starts_with("```")) {
        let name_at = line.find(|c: char| !"│├└─ ".contains(c)).unwrap_or_else(|| panic!("{document}: an empty line"));
        folders.truncate(line[..name_at].chars().count() / 4 - 1);
        let name = line[name_at..].split_whitespace().next().unwrap_or_default();
        paths.push(folders.concat() + name);
        assert!(line[name_at + name.len()..].trim().len() > 5, "{document}: `{name}` has no comment");
        if name.ends_with('/') {
            folders.push(name.to_string());
        }
    }
    paths
}

#[test]
fn the_drawn_tree_is_the_tree() {
    let drawn: BTreeSet<String> = drawn_tree("ARCHITECTURE.md").into_iter().collect();
    for path in &drawn {
        let there = root().join(path);
        assert!(if path.ends_with('/') { there.is_dir() } else { there.is_file() }, "ARCHITECTURE.md draws {path}");
    }
    let local = ["target/", "runs/", "shared/"];
    let top = names(".").into_iter().filter(|name| name.ends_with('/') && !local.contains(&name.as_str()));
    let inside = ["src", "app"].iter().flat_map(|dir| names(dir).into_iter().map(move |name| format!("{dir}/{name}")));
    for path in top.chain(inside) {
        assert!(drawn.contains(&path), "ARCHITECTURE.md does not draw {path}");
    }
}

#[test]
fn every_dependency_says_what_it_saves() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let names = |section: &str| manifest[section].as_table().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let used: BTreeSet<String> = names("dependencies").union(&names("dev-dependencies")).cloned().collect();
    let text = read("ARCHITECTURE.md");
    let section = text.split("## Dependencies").nth(1).unwrap().split("\n## ").next().unwrap();
    let row = Regex::new(r"(?m)^\| `([^`]+)` \| .{10,} \|$").unwrap();
    let told: BTreeSet<String> = row.captures_iter(section).map(|row| row[1].to_string()).collect();
    assert_eq!(used, told, "Cargo.toml and the table in ARCHITECTURE.md");
}

#[test]
fn relative_links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)#\s]+)[^)]*\)").unwrap();
    for document in files(".", "md") {
        let folder = root().join(&document).parent().unwrap().to_path_buf();
        for target in link.captures_iter(&read(&document)).map(|link| link[1].to_string()) {
            assert!(target.contains("://") || folder.join(&target).exists(), "{document} links to {target}");
        }
    }
}

/// The log and the changelog tell of what was; everything else of what is there.
#[test]
fn paths_in_documents_are_there() {
    let path = Regex::new(r"`((?:src|app|tests|docs|recipes|models|benches)/[\w./-]+)`").unwrap();
    for document in
        files(".", "md").into_iter().filter(|name| !["docs/log.md", "CHANGELOG.md"].contains(&name.as_str()))
    {
        for target in path.captures_iter(&read(&document)).map(|found| found[1].to_string()) {
            assert!(root().join(&target).exists(), "{document} names {target}");
        }
    }
}

#[test]
fn the_check_runs_the_commands_of_the_readme() {
    let (readme, check) = (read("README.md"), read(".ci/run"));
    assert!(readme.contains("cargo run --release\n"));
    let command = "cargo test --release";
    assert!(readme.contains(&format!("{command}\n")), "README.md does not show `{command}`");
    assert!(check.contains(&format!("step {command}\n")), ".ci/run does not run `{command}`");
}

/// What a command left where it was run is no part of the project.
#[test]
fn nothing_stray_lies_at_the_root() {
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stray =
            [".txt", ".json", ".jsonl", ".zst", ".gz", ".svg", ".log", ".bin"].iter().any(|end| name.ends_with(end));
        assert!(!stray, "{name} lies at the root");
    }
}
