//! Rooms to copy in, copies that have begun, and what is to be said of them.

use quintpoll::Backend;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes, on any machine: whoever waits for so long waits for ever.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Copies so slowly that there is time to interfere.
pub(crate) const SLOWLY: [&str; 4] = ["--block", "1", "--depth", "1"];
/// A folder that goes with the test.
pub(crate) struct Room(pub(crate) PathBuf);

impl Room {
    pub(crate) fn new(name: &str) -> Self {
        let name: String =
            name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        // Not where temporary files may be in memory, which is no place for O_DIRECT everywhere.
        let path = profile().join(format!("copy-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("there is room");
        Room(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("there is room");
        path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("it is there");
        entries
            .map(|entry| entry.expect("it is there").file_name().to_string_lossy().into_owned())
            .collect()
    }

    pub(crate) fn expect_only(&self, name: &str) {
        assert_eq!(self.names(), [name]);
    }

    pub(crate) fn expect_empty(&self) {
        assert!(self.names().is_empty(), "{:?} is left", self.names());
    }

    pub(crate) fn expect_no_part_left(&self) {
        let names = self.names();
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // A failing test has more to say than this.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy that has begun: some of it is there, under a name that is not its own.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    pub(crate) fn slowly(room: &Room, backend: &str, source: &Path) -> Self {
        let mut options = vec!["--backend", backend];
        options.extend(SLOWLY);
        Started::new(room, &options, source)
    }

    pub(crate) fn new(room: &Room, options: &[&str], source: &Path) -> Self {
        let mut command = Command::new(example());
        command.args(options);
        Started::spawn(room, command, source)
    }

    pub(crate) fn spawn(room: &Room, mut command: Command, source: &Path) -> Self {
        command.arg(source).arg(room.path("target"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut started = Started(command.spawn().expect("the example is built"));
        let deadline = Instant::now() + WATCHDOG;
        let has_begun = || {
            let part = room.names().into_iter().find(|name| name.starts_with('.'));
            part.is_some_and(|name| fs::metadata(room.path(&name)).is_ok_and(|its| its.len() > 0))
        };
        while !has_begun() {
            let ended = started.0.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it was over before it could be disturbed");
            assert!(Instant::now() < deadline, "it does not begin");
            thread::yield_now();
        }
        started
    }

    pub(crate) fn output(self) -> Output {
        watched("the rest of the copying", move || self.0.wait_with_output().expect("it is ours"))
    }
}

pub(crate) fn on_each_backend(check: impl Fn(&Room, &str) + Sync) {
    on_each(&[&[]], |room, way| check(room, way[1]));
}

/// Through the page cache and past it. All begin with `--backend` and its name.
pub(crate) fn on_each_backend_in_each_way(check: impl Fn(&Room, &[&str]) + Sync) {
    on_each(&[&[], &["--direct"]], check);
}

/// The backends are checked side by side, in threads that bear their names.
pub(crate) fn on_each(ways: &[&[&str]], check: impl Fn(&Room, &[&str]) + Sync) {
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
                    check(&Room::new(&format!("{test} {way:?}")), &way);
                }
            };
            named.spawn_scoped(scope, work).expect("threads are left");
        }
    });
}

/// Of a linear congruential generator, so that no block is like another.
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
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

pub(crate) fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    watched("the whole run", move || command.output().expect("the example is built"))
}

pub(crate) fn complaint(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Gives what it printed.
pub(crate) fn expect_success(done: &Output) -> String {
    assert!(done.status.success(), "{}: {}", done.status, complaint(done));
    assert!(done.stderr.is_empty(), "progress is for terminals: {}", complaint(done));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub(crate) fn expect_failure(done: &Output, why: &str) {
    expect_complaint(done, why);
    assert!(done.stdout.is_empty());
}

pub(crate) fn expect_complaint(done: &Output, why: &str) {
    let complaint = complaint(done);
    assert_eq!(done.status.code(), Some(1), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains(why), "{why:?} is not in {complaint:?}");
}

/// The directory that the test programs' is in.
pub(crate) fn profile() -> PathBuf {
    let this = std::env::current_exe().expect("the system knows");
    this.ancestors().nth(2).expect("tests are in target/<profile>/deps").to_owned()
}

pub(crate) fn example() -> PathBuf {
    profile().join("examples/copy")
}

/// Runs what may never end, in a thread of its own.
pub(crate) fn watched<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    outcome.recv_timeout(WATCHDOG).unwrap_or_else(|error| panic!("{what}: {error}"))
}
