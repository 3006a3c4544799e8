//! Every number that the official code left in an oracle folder, against ours. `BD3_ORACLE=DIR` names another folder with the
//! same kinds of file, its own `config.json`, other block sizes and lengths; the default is the copy beside this file. A check
//! reads every shape from its file and from `config.json`.

mod changed;
pub mod golden;
#[cfg(feature = "train")]
pub mod network;
pub mod noise;
pub mod report;
pub mod sampling;
pub mod text;
#[cfg(feature = "train")]
pub mod trajectory;

use std::io::Write;
use std::path::{Path, PathBuf};

use golden::Check;

/// A check gets the folder and the file.
type CheckFile = fn(&Path, &Path) -> Check;

/// The checks that belong to a golden file, by the start of its name; the first line that fits decides.
const CHECKS: &[(&str, &[CheckFile])] = &[
    ("config.json", &[report::config]),
    ("report.json", &[report::report]),
    ("detokenizers.json", &[text::detokenizers]),
    ("group_texts.json", &[text::group_texts]),
    ("schedules.safetensors", &[noise::schedules]),
    ("sample_t.safetensors", &[noise::sample_t]),
    ("resample.safetensors", &[noise::resample]),
    ("clip_grid.json", &[noise::clip_grid]),
    ("variance_search.json", &[noise::variance_search]),
    ("traj_first_hitting_block", &[sampling::first_hitting_trajectory]),
    ("traj_ddpm_T", &[sampling::ancestral_trajectory]),
    ("stop_conditions.json", &[sampling::stop_conditions]),
    #[cfg(feature = "train")]
    ("sample_block", &[sampling::sample_block, network::decode]),
    #[cfg(feature = "train")]
    ("sedd.safetensors", &[sampling::sedd, network::score]),
    #[cfg(feature = "train")]
    ("weights", &[network::weights]),
    #[cfg(feature = "train")]
    ("embedders.safetensors", &[network::embedders]),
    #[cfg(feature = "train")]
    ("ar.safetensors", &[network::next_token]),
    #[cfg(feature = "train")]
    ("bd3lm_block1_nll.safetensors", &[network::exact_nll]),
    #[cfg(feature = "train")]
    ("bd3lm_block", &[network::masked]),
    #[cfg(feature = "train")]
    ("mdlm_block", &[network::masked]),
    #[cfg(feature = "train")]
    ("train_trajectory_block", &[trajectory::train]),
];

/// The checks of a file, by its name.
fn checks_of(name: &str) -> Option<&'static [CheckFile]> {
    CHECKS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, checks)| *checks)
}

#[test]
fn oracle() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/bd3lm");
    let dir = std::env::var_os("BD3_ORACLE").map_or(default, PathBuf::from);
    let files = golden::paths(&dir).unwrap();
    // Written to the stream itself: what a passing test prints with `println!` is not shown.
    let mut out = std::io::stdout();
    writeln!(out, "\noracle {}", dir.display()).unwrap();
    let mut failures = Vec::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let verdict = match checks_of(&name) {
            None => Err("no check knows this kind of file".into()),
            Some(checks) => checks.iter().try_for_each(|check| check(&dir, path)),
        };
        let verdict = verdict.as_ref().map_or_else(String::as_str, |()| "ok");
        writeln!(out, "{name}: {verdict}").unwrap();
        if verdict != "ok" {
            failures.push(format!("{name}: {verdict}"));
        }
    }
    writeln!(out, "checked {} files", files.len()).unwrap();
    assert!(!files.is_empty() && failures.is_empty(), "{}", failures.join("\n"));
}
