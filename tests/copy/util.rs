//! Temporary directories, running copies, and checks of their output.

use quintpoll::Backend;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The timeout of a test that hangs.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Options that slow a copy down, so that a test can interfere.
pub(crate) const SLOW: [&str; 4] = ["--block", "1", "--depth", "1"];
/// A directory that is removed at the end of the test.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        // A temporary file system may be in memory, where O_DIRECT may not work.
        let path = profile().join(format!("copy-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("disk space");
        TempDir(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("disk space");
        path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) fn expect_only(&self, name: &str) {
        assert_eq!(self.names(), [name]);
    }

    pub(crate) fn expect_empty(&self) {
        assert!(self.names().is_empty(), "{:?} is left", self.names());
    }

    pub(crate) fn expect_no_partial_file(&self) {
        let names = self.names();
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // An error here must not hide that of a failing test.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy in progress, with some bytes in its partial file.
pub(crate) struct RunningCopy(pub(crate) Child);

impl RunningCopy {
    pub(crate) fn start_slow(dir: &TempDir, backend: &str, source: &Path) -> Self {
        let mut options = vec!["--backend", backend];
        options.extend(SLOW);
        RunningCopy::new(dir, &options, source)
    }

    pub(crate) fn new(dir: &TempDir, options: &[&str], source: &Path) -> Self {
        let mut command = Command::new(example());
        command.args(options);
        RunningCopy::spawn(dir, command, source)
    }

    pub(crate) fn spawn(dir: &TempDir, mut command: Command, source: &Path) -> Self {
        command.arg(source).arg(dir.path("target"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = RunningCopy(command.spawn().expect("the example is built"));
        let deadline = Instant::now() + WATCHDOG;
        let has_started = || {
            let part = dir.names().into_iter().find(|name| name.starts_with('.'));
            part.is_some_and(|name| fs::metadata(dir.path(&name)).is_ok_and(|file| file.len() > 0))
        };
        while !has_started() {
            let ended = running.0.try_wait().expect("a child of this process");
            assert!(ended.is_none(), "the copy has ended too early");
            assert!(Instant::now() < deadline, "the copy does not start");
            thread::yield_now();
        }
        running
    }

    pub(crate) fn output(self) -> Output {
        watched("the rest of the copy", move || {
            self.0.wait_with_output().expect("a child of this process")
        })
    }
}

pub(crate) fn on_each_backend(check: impl Fn(&TempDir, &str) + Sync) {
    on_each(&[&[]], |dir, way| check(dir, way[1]));
}

/// Runs `check` with and without `--direct`. The options begin with `--backend` and its name.
pub(crate) fn on_each_backend_in_each_way(check: impl Fn(&TempDir, &[&str]) + Sync) {
    on_each(&[&[], &["--direct"]], check);
}

/// Checks the backends concurrently, in threads with their names.
pub(crate) fn on_each(ways: &[&[&str]], check: impl Fn(&TempDir, &[&str]) + Sync) {
    let test = thread::current().name().unwrap_or("main").to_owned();
    thread::scope(|scope| {
        for backend in Backend::ALL {
            if let Err(why) = backend.is_available() {
                println!("skipped: {why}");
                continue;
            }
            let (backend, check, test) = (backend.to_string(), &check, &test);
            let named = thread::Builder::new().name(backend.clone());
            let work = move || {
                for options in ways {
                    let way: Vec<_> = ["--backend", &backend]
                        .into_iter()
                        .chain(options.iter().copied())
                        .collect();
                    println!("{way:?}");
                    check(&TempDir::new(&format!("{test} {way:?}")), &way);
                }
            };
            named.spawn_scoped(scope, work).expect("a thread");
        }
    });
}

/// Returns bytes of a linear congruential generator, so that all blocks differ.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    let next = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(1), next).map(|state: u64| (state >> 33) as u8).take(count).collect()
}

pub(crate) fn copy(options: &[&str], source: &Path, target: &Path) -> Output {
    let mut command = Command::new(example());
    command.args(options);
    output_of(command, source, target)
}

pub(crate) fn output_of(mut command: Command, source: &Path, target: &Path) -> Output {
    command.args([source, target].map(AsRef::<OsStr>::as_ref));
    output(command)
}

pub(crate) fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).expect("the directory").mode() & 0o7777
}

pub(crate) fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    watched("the whole run", move || command.output().expect("the example is built"))
}

pub(crate) fn stderr(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Returns the output.
pub(crate) fn expect_success(done: &Output) -> String {
    assert!(done.status.success(), "{}: {}", done.status, stderr(done));
    assert!(done.stderr.is_empty(), "progress is for terminals: {}", stderr(done));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub(crate) fn expect_failure(done: &Output, why: &str) {
    expect_stderr(done, why);
    assert!(done.stdout.is_empty());
}

pub(crate) fn expect_stderr(done: &Output, why: &str) {
    let stderr = stderr(done);
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(why), "{why:?} is not in {stderr:?}");
}

/// Returns the directory of the build profile.
pub(crate) fn profile() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    this.ancestors().nth(2).expect("tests are in target/<profile>/deps").to_owned()
}

pub(crate) fn example() -> PathBuf {
    profile().join("examples/copy")
}

/// Runs work that may hang, in another thread.
pub(crate) fn watched<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    outcome.recv_timeout(WATCHDOG).unwrap_or_else(|error| panic!("{what}: {error}"))
}
