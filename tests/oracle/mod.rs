//! Every number that the official code left in an oracle folder, against ours. `BD3_ORACLE=DIR` names another folder with the
//! same kinds of file, its own `config.json`, other block sizes and lengths; the default is the copy beside this file.

mod golden;
mod network;

use std::path::{Path, PathBuf};

use golden::Check;

/// Which check a file gets, by its name.
fn check(dir: &Path, path: &Path) -> Option<Check> {
    let name = path.file_name()?.to_str()?;
    let block = || name.split("block").nth(1)?.split(['_', '.']).next()?.parse::<usize>().ok();
    Some(match name {
        "embedders.safetensors" => network::embedders(dir, path),
        "ar.safetensors" => network::next_token(dir, path),
        "sedd.safetensors" => network::score(dir, path),
        "bd3lm_block1_nll.safetensors" => network::exact_nll(dir, path),
        _ if name.ends_with("_beta_gt_half.safetensors") => network::unweighted(dir, path, block()?),
        _ if name.starts_with("bd3lm_block") || name.starts_with("mdlm_block") => network::masked(dir, path),
        _ => return None,
    })
}

#[test]
fn oracle() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/bd3lm");
    let dir = std::env::var_os("BD3_ORACLE").map_or(default, PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut failures = Vec::new();
    let mut checked = 0;
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match check(&dir, &path) {
            None => println!("{name}: no check"),
            Some(Ok(())) => {
                println!("{name}: ok");
                checked += 1;
            }
            Some(Err(problem)) => {
                println!("{name}: {problem}");
                failures.push(format!("{name}: {problem}"));
            }
        }
    }
    println!("checked {checked} files");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
