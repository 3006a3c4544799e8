//! Training as a whole: a run that is killed and resumed equals one that was not; likelihood does not depend on how it is cut
//! into batches, and never falls below the entropy of a source whose entropy is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bd3::arch::{self, Arch, Objective, Shape, SizeClip, SpecialIds};
use bd3::data::markov::MarkovToy;
use bd3::data::{Packing, Shard, Wrap};
use bd3::likelihood::{Estimator, Measure, measure};
use bd3::loss::{self, Terms};
use bd3::model::{Dit, dit::View};
use bd3::recipe::Recipe;
use bd3::rng::Rng;
use bd3::tokenizer::Special;
use bd3::train::batch::noised;
use bd3::train::log::{StepRow, ValidationRow};
use bd3::train::optim::{Momentum, Optimizer, Update, gradients};
use bd3::train::plan::Plan;
use bd3::train::{Ending, Observer, Run, init, state};
use burn::tensor::{Device, Tensor};
use serde_json::Value;

const STATES: usize = 8;
const SPECIAL: Special = Special { bos: Some(8), eos: Some(9), mask: 10, pad: None };
const LENGTH: usize = 17;

fn arch() -> Arch {
    let sizes = [1, LENGTH].map(|size| SizeClip { size, beta: 1e-3, omega: 1.0 });
    Arch {
        vocab: 11,
        mask: SPECIAL.mask,
        special: SpecialIds { bos: SPECIAL.bos, eos: SPECIAL.eos, pad: None },
        hidden: 32,
        layers: 2,
        heads: 2,
        length: LENGTH,
        objective: Objective::Masked,
        block: LENGTH,
        sizes: sizes.to_vec(),
        visible_loss: false,
        shape: Shape::Dit(arch::Dit { cond: 8, dropout: 0.0 }),
    }
}

/// Rows of bos and 15 states of the chain; the eos behind each is the 17th token and certain.
fn chain_rows(chain: &MarkovToy, rows: usize, rng: &mut Rng) -> Packing {
    let documents = (0..rows).map(|_| (chain.row(LENGTH - 2, rng), 1)).collect::<Vec<_>>();
    let shard = Shard::in_memory("chain", 11, documents.into_iter()).unwrap();
    Packing::new(Arc::new(shard), Wrap::Documents, LENGTH, SPECIAL).unwrap()
}

/// Some steps of training at one block size, in a few lines.
fn trained(chain: &MarkovToy, block: usize, steps: usize) -> Dit {
    let mut rng = Rng::new(5);
    let mut model = init::fresh(&arch(), &Device::flex().autodiff(), &rng).unwrap();
    model.require_grad();
    let mut optimizer = Optimizer::new(&model);
    let update = Update { lr: 3e-3, betas: [0.9, 0.99], weight_decay: 0.0, max_norm: 1.0, ema: 0.9, muon: None };
    for _ in 0..steps {
        let text = chain_rows(chain, 32, &mut rng);
        let x0 = text.batch(0..32).ids;
        let (mut xt, mut weights) = (x0.clone(), vec![0.0; x0.len()]);
        for start in (0..x0.len()).step_by(block) {
            let t = 0.02 + 0.98 * rng.uniform();
            let (p, weight) = if block == 1 { (1.0, 1.0) } else { (t, 1.0 / t) };
            for i in (start..start + block).filter(|i| i % LENGTH != 0) {
                if rng.uniform() < p {
                    (xt[i], weights[i]) = (SPECIAL.mask, weight);
                }
            }
        }
        let stream = model.paired(&xt, &x0, &View::plain(32, block)).unwrap();
        let terms = Terms::masked(&x0, &xt, SPECIAL.mask, LENGTH, |i| weights[i]);
        let (loss, _) = loss::cross_entropy(&model, stream, &terms, 32.0 * 16.0).unwrap();
        let grads = gradients(&mut model, loss.backward());
        optimizer.update(&mut model, grads, &update).unwrap();
    }
    optimizer.averaged(&model)
}

/// Muon moves the four matrices of every layer and nothing else; it is known by the second moment that it leaves at 0.
#[test]
fn muon_has_the_matrices_of_the_layers() {
    let mut model = init::fresh(&arch(), &Device::flex().autodiff(), &Rng::new(5)).unwrap();
    model.require_grad();
    let mut optimizer = Optimizer::new(&model);
    let muon = Some(Momentum { lr: 1e-2, momentum: 0.9 });
    let update = Update { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.0, max_norm: 0.0, ema: 0.9, muon };
    let grads = optimizer.slots.iter().map(|slot| slot.m.ones_like()).collect();
    optimizer.update(&mut model, grads, &update).unwrap();
    let alone = |tensor: &Tensor<2>| tensor.clone().max().into_scalar::<f32>() == 0.0;
    let moved = optimizer.slots.iter().filter(|slot| alone(&slot.v)).map(|slot| slot.name.as_str()).collect::<Vec<_>>();
    let names = ["attn_qkv", "attn_out", "mlp.0", "mlp.2"];
    let all: Vec<String> = (0..2).flat_map(|layer| names.map(|n| format!("blocks.{layer}.{n}.weight"))).collect();
    assert_eq!(moved, all);
}

fn how(block: usize, estimator: Estimator, batch: usize, draws: usize) -> Measure {
    Measure { block, draws, estimator, batch, seed: 3 }
}

#[test]
fn the_bound_lies_above_the_entropy_of_the_source_and_comes_near_it() {
    let chain = MarkovToy::drawn(STATES, &mut Rng::new(1)).unwrap();
    let entropy = chain.entropy_per_row(LENGTH - 2) / (LENGTH - 1) as f64;
    let text = chain_rows(&chain, 400, &mut Rng::new(2));
    for (block, near) in [(1, 0.12), (LENGTH, 0.35)] {
        let model = trained(&chain, block, 250);
        let found = measure(&model, &text, 0..400, &how(block, Estimator::Subset, 100, 2), |_| true).unwrap();
        let (nats, error) = (found.nats(), found.stderr());
        assert_eq!(found.exact, block == 1);
        assert!(nats > entropy - 4.0 * error, "block {block}: {nats} +- {error} below the entropy {entropy}");
        assert!(nats < entropy + near, "block {block}: {nats}, the entropy is {entropy}: nothing was learnt");
    }
}

/// Where every order of unmasking can know the exact conditionals the bound is tight, so that one checkpoint, trained and measured by
/// the program, must come near the entropy at every block size: masks, levels, weights and the clean copy together.
#[test]
fn a_run_comes_near_the_entropy_of_the_source_at_every_block_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let chain = MarkovToy::drawn(STATES, &mut Rng::new(1)).unwrap();
    let mut rng = Rng::new(7);
    let mut line = || {
        let letters = chain.row(14, &mut rng).into_iter().map(|state| char::from(b'a' + state as u8));
        format!("{{\"text\":\"{}\"}}\n", letters.collect::<String>())
    };
    fs::write(path("train.jsonl"), (0..8000).map(|_| line()).collect::<String>()).unwrap();
    fs::write(path("test.jsonl"), (0..400).map(|_| line()).collect::<String>()).unwrap();
    fs::write(
        path("recipe.toml"),
        "data = { sources = [{ path = 'data' }], wrap = 'documents' }\n\
         model = { hidden = 32, layers = 2, heads = 2, cond = 8, length = 16, dropout = 0.0 }\n\
         blocks = { sizes = [{ size = 1, clip = [1.0, 1.0] }, { size = 4, clip = [0.3, 1.0] }, { size = 16 }], default = 4 }\n\
         train = { steps = 900, batch = 32, optimizer = 'muon', lr = 3e-3, matrix_lr = 1e-2, warmup = 20, decay = 0.5, ema = 0.98, validate_every = 0 }\n",
    )
    .unwrap();
    let bd3 = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bd3"));
        let output = command.current_dir(dir.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    bd3(&["data", "train.jsonl", "--tokenizer", "bytes", "--split", "99,1,0", "--out", "data"]);
    bd3(&["train", "recipe.toml", "--out", "run"]);
    let found =
        bd3(&["eval", "run/model", "test.jsonl", "--block", "1,4,16", "--wrap", "documents", "--draws", "4", "--json"]);
    let found: Value = serde_json::from_slice(&found).unwrap();
    let entropy = chain.entropy_per_row(14) / 15.0;
    for row in found["rows"].as_array().unwrap() {
        let [nats, error] = ["nats", "stderr"].map(|key| row[key].as_f64().unwrap());
        assert!((entropy - 4.0 * error..entropy + 0.1).contains(&nats), "entropy {entropy}: {row}");
    }
    assert_eq!(found["rows"].as_array().unwrap().len(), 3);
}

#[test]
fn likelihood_does_not_depend_on_the_batch_and_its_estimators_agree() {
    let chain = MarkovToy::drawn(STATES, &mut Rng::new(1)).unwrap();
    let text = chain_rows(&chain, 60, &mut Rng::new(2));
    let model = trained(&chain, LENGTH, 40);
    let found = |estimator, batch, draws| {
        measure(&model, &text, 0..60, &how(LENGTH, estimator, batch, draws), |_| true).unwrap()
    };
    for estimator in [Estimator::Subset, Estimator::Official] {
        let (whole, parts) = (found(estimator, 60, 1), found(estimator, 7, 1));
        for (a, b) in whole.rows.iter().zip(&parts.rows) {
            assert!((a.nats - b.nats).abs() < 1e-3 * a.nats.abs() + 1e-3 && a.tokens == b.tokens, "{a:?} and {b:?}");
        }
    }
    let (subset, official) = (found(Estimator::Subset, 60, 200), found(Estimator::Official, 60, 200));
    // Both average the same rows; what is left is the noise of the draws.
    assert!((subset.nats() - official.nats()).abs() < 0.04, "{} and {}", subset.nats(), official.nats());
}

/// `official = true`: ordered times, weight 1 above one half, bos in the denominator.
#[test]
fn the_official_switch_holds_its_quirks_together() {
    let dir = tempfile::tempdir().unwrap();
    let plan = |clip: &str, official: bool| {
        let text = format!(
            "official = {official}\ndata = {{ toy = 60, tokenizer = 'bytes' }}\n\
             model = {{ hidden = 8, layers = 1, heads = 1, length = 32 }}\n\
             blocks = {{ sizes = [{{ size = 4, clip = {clip} }}] }}\ntrain = {{ steps = 1, batch = 8 }}"
        );
        let recipe = Recipe::parse(Path::new("r"), &text, &[]).unwrap();
        Plan::open(Path::new("r"), recipe, dir.path()).unwrap().0
    };
    let micro = |plan: &mut Plan| {
        let batch = plan.reader.next_batch(8);
        noised(plan, batch, &plan.sizes[0], &Rng::new(3)).unwrap()
    };
    let above_half = micro(&mut plan("[0.55, 0.95]", true));
    assert!(above_half.terms.weights.iter().all(|w| *w == 1.0));
    assert_eq!(above_half.denominator, 8.0 * 32.0);
    let ours = micro(&mut plan("[0.55, 0.95]", false));
    assert!(ours.terms.weights.iter().all(|w| *w >= 1.0 / 0.95 - 1e-9 && *w <= 1.0 / 0.55 + 1e-9));
    assert_eq!(ours.denominator, 8.0 * 31.0);
    // Flat index i of the blocks has t in [i/N, (i+1)/N]: weights 1/t fall from the first term to the last.
    let ordered = |weights: &[f64]| weights.windows(2).all(|w| w[0] >= w[1]);
    assert!(ordered(&micro(&mut plan("[0.001, 1.0]", true)).terms.weights));
    assert!(!ordered(&micro(&mut plan("[0.001, 1.0]", false)).terms.weights));
}

fn bd3(dir: &Path, steps: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bd3"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["train", "recipes/smoke.toml", "--resume", "--out"]);
    command.arg(dir).args(["--set", &format!("train.steps={steps}"), "--set", "train.checkpoint_every=5"]);
    command.args(["--set", "train.validate_every=25", "--set", "data.toy=120", "--set", "train.validate_rows=4"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// (step, loss as written) of every step of a log.
fn losses(dir: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(dir.join("log.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["loss"].is_number())
        .map(|row| (row["step"].as_u64().unwrap(), row["loss"].to_string()))
        .collect()
}

#[test]
fn a_run_killed_at_twenty_moments_equals_an_uninterrupted_one() {
    const STEPS: u64 = 120;
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(bd3(whole.path(), STEPS).status().unwrap().success());
    let mut rng = Rng::new(6);
    for _ in 0..20 {
        let mut child = bd3(broken.path(), STEPS).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 + rng.below(500) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(bd3(broken.path(), STEPS).status().unwrap().success());
    let (expected, found) = (losses(whole.path()), losses(broken.path()));
    assert_eq!(expected.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert_eq!(expected, found);
    let model = |dir: &Path| fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(model(whole.path()), model(broken.path()));
}

/// Copies the folder of a run when something is measured for the first time: as a run leaves it that is killed there.
struct Killed<'a> {
    run: &'a Path,
    copy: &'a Path,
}

impl Observer for Killed<'_> {
    fn step(&mut self, _: &StepRow) {}

    fn validation(&mut self, _: &ValidationRow) {
        if !self.copy.exists() {
            copy(self.run, self.copy);
        }
    }

    fn saved(&mut self, _: u64) {}
}

/// Asks to stop when something has been measured.
struct Stops(bool);

impl Observer for Stops {
    fn step(&mut self, _: &StepRow) {}

    fn validation(&mut self, _: &ValidationRow) {
        self.0 = true;
    }

    fn saved(&mut self, _: u64) {}

    fn stop(&self) -> bool {
        self.0
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A state stands before clips are searched for and validated, and a run that goes on from it does both, once: after a crash, and after it
/// was asked to stop.
#[test]
fn a_run_that_ends_while_it_is_measured_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed, stopped] = ["whole", "killed", "stopped"].map(|name| dir.path().join(name));
    let open = |dir: &PathBuf| {
        let text = "data = { toy = 60, tokenizer = 'bytes' }
            model = { hidden = 16, layers = 1, heads = 2, cond = 8, length = 32 }
            blocks = { sizes = [{ size = 4 }, { size = 32 }], search = [0.5, 0.7] }
            train = { steps = 6, batch = 2, lr = 1e-2, ema = 0.5, checkpoint_every = 100, validate_every = 3, validate_rows = 4 }";
        let recipe = Recipe::parse(Path::new("r"), text, &[]).unwrap();
        let (plan, hold) = Plan::open(Path::new("r"), recipe, dir).unwrap();
        Run::open(plan, hold, &Device::flex(), None).unwrap()
    };
    let run = |dir: &PathBuf| {
        let mut run = open(dir);
        let first = run.step();
        assert_eq!(run.train(&mut Killed { run: dir, copy: &killed }).unwrap(), Ending::Finished);
        first
    };
    assert_eq!(run(&whole), 0);
    let progress = state::progress(&killed).unwrap();
    assert_eq!((progress.step, progress.unmeasured), (3, true));
    assert_eq!(run(&killed), 3);
    assert_eq!(open(&stopped).train(&mut Stops(false)).unwrap(), Ending::Stopped(3));
    assert_eq!(run(&stopped), 3);
    let measured = |dir: &Path| {
        let text = fs::read_to_string(dir.join("log.jsonl")).unwrap();
        text.lines()
            .filter(|line| line.contains("\"nats\"") || line.contains("\"clip\""))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(measured(&whole).lines().count(), 8, "two sizes, searched and validated twice");
    let end = state::progress(&whole).unwrap();
    assert!(end.clips != progress.clips && !end.unmeasured, "the search changes what the next steps draw");
    for again in [killed, stopped] {
        assert_eq!((losses(&again), measured(&again)), (losses(&whole), measured(&whole)));
        for file in ["model/model.safetensors", "model/config.json", "state/state.safetensors"] {
            assert!(fs::read(again.join(file)).unwrap() == fs::read(whole.join(file)).unwrap(), "{file}");
        }
    }
}
