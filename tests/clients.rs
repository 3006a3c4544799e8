//! Clients that others wrote, against the real server: OpenAI's own for Python and JavaScript, a browser that shows the page, and
//! schemathesis, which makes requests out of `/openapi.json`. `tests/clients/` and `tests/page/` have what they run. They are installed into `target/clients`, once; where that can't be done the test
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

/// A folder with the scripts of another and the modules that they import.
fn javascript(name: &str, scripts: &Path) -> Installed<PathBuf> {
    let folder = folder().join(name);
    copy(scripts, &folder);
    let (good, version) = run(Command::new("node").arg("--version"), INSTALL)?;
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if !good || major.is_none_or(|major| major < 20) {
        return Err(format!("node 20 or newer expected, found {}", version.trim()));
    }
    let _alone = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    once(&folder.join("installed"), &scripts.join("package-lock.json"), || {
        let npm = ["ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"];
        step(Command::new("npm").args(npm).current_dir(&folder))
    })?;
    Ok(folder)
}

/// Copies a folder's files, but for what was installed into it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "node_modules") {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
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
    match javascript("javascript", &scripts()) {
        Ok(folder) => check(Command::new("node").arg("openai_client.mjs").current_dir(folder)),
        Err(why) => skip("OpenAI's client for JavaScript", &why),
    }
}

/// The page in a real browser.
#[test]
fn the_page_in_a_browser() {
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    if !Path::new(&browser).exists() {
        return skip("the page's browser", &format!("CHROMIUM names none, and there is no {browser}"));
    }
    let folder = match javascript("page", &scripts().with_file_name("page")) {
        Ok(folder) => folder,
        Err(why) => return skip("what drives the page", &why),
    };
    let curve = tempfile::tempdir().unwrap();
    let flags = "--block 1,4 --rule first-hitting,threshold --samples 4 -n 64";
    let server = Server::start(&["--curve", curve.path().to_str().unwrap(), "--curve-flags", flags]);
    let mut command = Command::new("node");
    command.current_dir(&folder).arg("page.mjs").arg(format!("http://{}/", server.address)).arg("screenshots");
    command.env("BD3", env!("CARGO_BIN_EXE_bd3"));
    let (good, told) = run(&mut command, 2 * CHECKS).unwrap();
    assert!(good, "{told}\nscreenshots in {}", folder.join("screenshots").display());
}

/// The page's states and traces, without a browser.
#[test]
fn the_page_reads_traces_as_the_library_does() {
    let found = run(Command::new("node").arg("--version"), INSTALL);
    if let Err(why) | Ok((false, why)) = found {
        return skip("node", &why);
    }
    let tests = scripts().with_file_name("page").join("state.test.js");
    let (good, told) = run(Command::new("node").arg("--test").arg(tests), CHECKS).unwrap();
    assert!(good, "{told}");
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
