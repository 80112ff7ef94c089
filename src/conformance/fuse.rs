//! A FUSE file system on `/dev/fuse` whose server holds requests on demand.

use super::util::TempDir;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests held longer are answered, so that a test blocked on its own server proceeds.
const MAX_HOLD: Duration = Duration::from_secs(10);
/// The length of the file.
const SIZE: u64 = 8192;

/// Operations of `linux/fuse.h` that the server implements.
pub(super) const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
pub(super) const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
pub(super) const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The root directory is 1.
const FILE: u64 = 2;
const DIRECTORY: u64 = 3;

/// A mounted file system with `file`, `directory`, and `new`, another name of the file. It is
/// visible only to the case's thread and the threads it starts.
pub(super) struct Fuse {
    directory: TempDir,
    gate: Arc<Gate>,
}

/// Holds requests while it is shut.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    has_changed: Condvar,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    /// The operations of the requests that were held.
    held: Vec<u32>,
    /// True if a request was answered because it was held for too long.
    has_expired: bool,
}

impl Fuse {
    /// Mounts the file system, visible only to the calling thread and the threads it starts from
    /// now on.
    ///
    /// # Errors
    ///
    /// With a message if `/dev/fuse` is missing, or if this user may not mount.
    pub(super) fn mount() -> Result<Self, String> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("unshare(2): {error}"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|error| format!("mount(2), private: {error}"))?;
        let directory = TempDir::new();
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
        mount(Some("quintpoll"), &directory.0, Some("fuse"), MsFlags::empty(), Some(&*options))
            .map_err(|error| format!("mount(2), fuse: {error}"))?;
        let gate = Arc::new(Gate::default());
        let server_gate = gate.clone();
        std::thread::spawn(move || serve(device, &server_gate));
        Ok(Fuse { directory, gate })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// Holds all requests until [`Fuse::release`].
    pub(super) fn hold(&self) {
        self.gate.state().is_shut = true;
    }

    /// Waits until a request is held.
    pub(super) fn wait_until_held(&self) {
        let state = self.gate.state();
        let waited = self
            .gate
            .has_changed
            .wait_timeout_while(state, MAX_HOLD, |state| state.held.is_empty());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!state.held.is_empty(), "the server received no request");
    }

    /// Answers requests again. Returns the operations of all requests held until now.
    pub(super) fn release(&self) -> Vec<u32> {
        let mut state = self.gate.state();
        state.is_shut = false;
        self.gate.has_changed.notify_all();
        let (held, has_expired) = (std::mem::take(&mut state.held), state.has_expired);
        drop(state);
        assert!(!has_expired, "the poller's thread blocked on the server: {held:?}");
        held
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.gate.state().is_shut = false;
        self.gate.has_changed.notify_all();
        let _ = umount2(&self.directory.0, MntFlags::MNT_DETACH);
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a request may be answered.
    fn pass(&self, operation: u32) {
        let mut state = self.state();
        if state.is_shut {
            state.held.push(operation);
            self.has_changed.notify_all();
            let passed =
                self.has_changed.wait_timeout_while(state, MAX_HOLD, |state| state.is_shut);
            let (mut state, waited) = passed.unwrap_or_else(PoisonError::into_inner);
            state.has_expired |= waited.timed_out();
        }
    }
}

/// Answers requests until the file system is unmounted.
fn serve(mut device: File, gate: &Gate) {
    let mut request = vec![0; 64 << 10];
    loop {
        let length = match device.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            // The request was interrupted before it was read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("/dev/fuse: {error}"),
        };
        let request = &request[..length];
        let operation = word(request, 4);
        if matches!(operation, FORGET | BATCH_FORGET | INTERRUPT) {
            continue;
        }
        // Closing a file is asynchronous.
        if !matches!(operation, FLUSH | RELEASE | RELEASEDIR) {
            gate.pass(operation);
        }
        let node = u64::from(word(request, 16));
        let (error, body) = match answer(operation, node, &request[40..]) {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = Vec::new();
        reply.extend((16 + body.len() as u32).to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        // The id of the request.
        reply.extend(&request[8..16]);
        reply.extend(body);
        // The write fails if the request was interrupted, or the file system unmounted.
        let _ = device.write_all(&reply);
    }
}

/// Returns the 32 bits at an offset of a request.
fn word(request: &[u8], at: usize) -> u32 {
    let bytes = request[at..at + 4].try_into();
    u32::from_ne_bytes(bytes.unwrap_or_else(|_| panic!("a slice of four bytes")))
}

fn long(request: &[u8], at: usize) -> u64 {
    u64::from(word(request, at)) | u64::from(word(request, at + 4)) << 32
}

/// Returns the bytes of the file.
pub(super) fn contents(offset: u64, length: u64) -> Vec<u8> {
    (offset..(offset + length).min(SIZE)).map(|at| (at % 251) as u8).collect()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Returns the body of an answer, or an error number.
fn answer(operation: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
    Ok(match operation {
        // Version 7.31, no optional features, writes of 4 KiB.
        INIT => words(&[7, 31, 0, 0, 0, 4096, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        LOOKUP => {
            let node = match body.split(|&byte| byte == 0).next() {
                Some(b"file" | b"new") => FILE,
                Some(b"directory") => DIRECTORY,
                _ => return Err(libc::ENOENT),
            };
            // The name is valid for an hour, the attributes not at all.
            let names = words(&[node as u32, 0, 1, 0, 3600, 0, 0, 0, 0, 0]);
            [names, attributes(node)].concat()
        }
        GETATTR => [words(&[0; 4]), attributes(node)].concat(),
        OPEN | OPENDIR => words(&[0; 4]),
        STATFS => vec![0; 80],
        READ => contents(long(body, 8), u64::from(word(body, 16))),
        WRITE => words(&[word(body, 16), 0]),
        RELEASE | RELEASEDIR | FLUSH | FSYNC => Vec::new(),
        _ => return Err(libc::ENOSYS),
    })
}

/// A `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == FILE { libc::S_IFREG | 0o644 } else { libc::S_IFDIR | 0o755 };
    let mut all = [0; 22];
    all[0] = node as u32;
    all[2] = if node == FILE { SIZE as u32 } else { 0 };
    (all[15], all[16]) = (mode, 1);
    words(&all)
}
