//! Clients that others wrote, against the real server: OpenAI's own for Python and JavaScript, and schemathesis, which makes requests out
//! of `/openapi.json`. `tests/clients/` has what they run. They are installed into `target/clients`, once; where that can't be done the test
//! says so and passes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::serve::Server;

/// An installation may take so long.
const INSTALL: Duration = Duration::from_secs(240);
/// All checks of a client may take so long.
const CHECKS: Duration = Duration::from_secs(180);

/// Tests share an environment and do not install into it at once.
static INSTALLING: Mutex<()> = Mutex::new(());

/// Why a client is not there.
type Installed<T> = Result<T, String>;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a command wrote, and whether it came to a good end, in time.
fn run(command: &mut Command, limit: Duration) -> Installed<(bool, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let log = tempfile::NamedTempFile::new().unwrap();
    let out = || Stdio::from(File::options().append(true).open(log.path()).unwrap());
    let child = command.stdin(Stdio::null()).stdout(out()).stderr(out()).spawn();
    let mut child = child.map_err(|error| format!("{name}: {error}"))?;
    let end = Instant::now() + limit;
    let good = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.success(),
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                writeln!(log.as_file(), "{name} took longer than {} s", limit.as_secs()).unwrap();
                break false;
            }
        }
    };
    Ok((good, String::from_utf8_lossy(&fs::read(log.path()).unwrap()).into_owned()))
}

/// Runs a step of an installation.
fn step(command: &mut Command) -> Installed<()> {
    let (good, told) = run(command, INSTALL)?;
    let last = told.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it failed");
    if good { Ok(()) } else { Err(format!("{}: {last}", command.get_program().to_string_lossy())) }
}

/// Installs unless what is there was installed from the same file.
fn once(stamp: &Path, from: &Path, install: impl FnOnce() -> Installed<()>) -> Installed<()> {
    let wanted = fs::read(from).unwrap();
    if fs::read(stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).unwrap();
    Ok(())
}

/// The programs of an environment that holds what the file names.
fn python(requirements: &str) -> Installed<PathBuf> {
    let _alone = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (environment, from) = (folder().join("python"), scripts().join(requirements));
    let programs = environment.join(if cfg!(windows) { "Scripts" } else { "bin" });
    if !programs.join("pip").exists() && !programs.join("pip.exe").exists() {
        step(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    }
    once(&environment.join(requirements), &from, || {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "-r"];
        step(Command::new(programs.join("python")).args(pip).arg(&from))
    })?;
    Ok(programs)
}

/// A folder with the scripts and the modules that they import.
fn javascript() -> Installed<PathBuf> {
    let folder = folder().join("javascript");
    fs::create_dir_all(&folder).unwrap();
    let (good, version) = run(Command::new("node").arg("--version"), INSTALL)?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if !good || major.is_none_or(|major| major < 20) {
        return Err(format!("node 20 or newer expected, found {}", version.trim()));
    }
    for name in ["package.json", "package-lock.json", "openai_client.mjs", "state.mjs"] {
        fs::copy(scripts().join(name), folder.join(name)).unwrap();
    }
    once(&folder.join("installed"), &scripts().join("package-lock.json"), || {
        let npm = ["ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"];
        step(Command::new("npm").args(npm).current_dir(&folder))
    })?;
    Ok(folder)
}

/// Written to the stream itself: what a passing test prints is not shown otherwise.
fn skip(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\nskipped: {what} could not be installed ({why})");
}

/// Runs a client's checks against the servers that they know.
fn check(client: &mut Command) {
    let endless = ["--max-tokens", "1000000"];
    let plain = Server::start(&endless);
    let locked = Server::start(&["--api-key", "sesame"]);
    let narrow = Server::start(&[&endless[..], &["--lanes", "1", "--queue", "1"]].concat());
    let chat = std::env::var("BD3_SMOLLM2").ok().map(|path| Server::start(&[&path]));
    let servers =
        [("plain", Some(&plain)), ("locked", Some(&locked)), ("narrow", Some(&narrow)), ("chat", chat.as_ref())];
    for (name, server) in servers {
        client.args(server.map(|server| format!("{name}=http://{}", server.address)));
    }
    let (good, told) = run(client.arg("key=sesame"), CHECKS).unwrap();
    let passed = told.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(good && passed >= 10, "{passed} checks passed\n{told}");
}

#[test]
fn the_python_client_of_openai() {
    match python("requirements.txt") {
        Ok(programs) => {
            check(Command::new(programs.join("python")).arg("-B").arg(scripts().join("openai_client.py")));
        }
        Err(why) => skip("OpenAI's client for Python", &why),
    }
}

#[test]
fn the_javascript_client_of_openai() {
    match javascript() {
        Ok(folder) => check(Command::new("node").arg("openai_client.mjs").current_dir(folder)),
        Err(why) => skip("OpenAI's client for JavaScript", &why),
    }
}

/// Requests made out of the document, well-formed ones and others: none breaks the server, and every answer is as the document says.
#[test]
fn requests_out_of_the_document() {
    let programs = match python("fuzz.txt") {
        Ok(programs) => programs,
        Err(why) => return skip("schemathesis", &why),
    };
    let curve = tempfile::tempdir().unwrap();
    let curve = curve.path().to_str().unwrap();
    let server = Server::start(&["--max-tokens", "8", "--time-limit", "20", "--threads", "1", "--curve", curve]);
    let mut command = Command::new(programs.join("schemathesis"));
    command.current_dir(folder()).arg("run").arg(format!("http://{}/openapi.json", server.address));
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args(["--checks", "response_headers_conformance,response_schema_conformance"]);
    // Measuring a curve takes minutes.
    command.args(["--exclude-operation-id", "measureCurve", "--phases", "examples,coverage,fuzzing"]);
    command.args(["--seed", "1", "--max-examples", "30", "--max-time", "40", "--suppress-health-check", "all"]);
    command.args(["--continue-on-failure", "--generation-database", "none", "--no-color", "--warnings", "off"]);
    let (good, told) = run(&mut command, CHECKS).unwrap();
    assert!(good, "{told}");
}
