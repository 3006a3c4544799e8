//! Numbers of the official code: one function per kind of golden file. A check reads every shape from its file and
//! `config.json`, so that other folders (other block sizes and lengths) run through the same functions.

use std::path::Path;

mod changed;
pub mod golden;
pub mod noise;
pub mod sampling;

use golden::Check;

type CheckFile = fn(&Path, &Path) -> Check;

/// The check that belongs to a golden file, by its name.
fn check_of(file: &str) -> Option<CheckFile> {
    let checks: [(&str, CheckFile); 10] = [
        ("schedules.safetensors", noise::schedules),
        ("sample_t.safetensors", noise::sample_t),
        ("resample.safetensors", noise::resample),
        ("clip_grid.json", noise::clip_grid),
        ("variance_search.json", noise::variance_search),
        ("sample_block", sampling::sample_block),
        ("traj_first_hitting_block", sampling::first_hitting_trajectory),
        ("traj_ddpm_T", sampling::ancestral_trajectory),
        ("stop_conditions.json", sampling::stop_conditions),
        ("sedd.safetensors", sampling::sedd),
    ];
    checks.into_iter().find(|(prefix, _)| file.starts_with(prefix)).map(|(_, check)| check)
}

#[test]
fn noise_and_sampling_files() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/bd3lm");
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(check) = check_of(path.file_name().unwrap().to_str().unwrap()) else { continue };
        if let Err(failure) = check(&dir, &path) {
            failures.push(format!("{}: {failure}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
