//! Operations that start no thread, under a filter that ends a process that does.

use super::refused::{in_own_process, kill_on};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, statfs};
use quintpoll::{Backend, Events, Op, OpenOptions, Outcome, Token};

/// Returns a directory in which files are opened without a thread.
fn local_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let kind = statfs(directory.path()).expect("a temporary directory").filesystem_type();
    let local = [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC];
    let release = nix::sys::utsname::uname().expect("the kernel has a name");
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>());
    let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let is_new = (number(), number()) >= (6, 8);
    if local.contains(&kind) && is_new {
        return Some(directory);
    }
    eprintln!("skipped: a file system of type {kind:?} on Linux {release}");
    None
}

#[test]
fn cached_opens_start_no_thread() {
    in_own_process("threads::cached_opens_start_no_thread", || {
        let Some(directory) = local_directory() else { return };
        let paths: Vec<_> = (0..16).map(|at| directory.path().join(at.to_string())).collect();
        paths.iter().for_each(|path| std::fs::write(path, "content").expect("buffer space"));
        let options = OpenOptions::new().read(true).clone();
        kill_on(&[libc::SYS_clone, libc::SYS_clone3]);
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok()) {
            let mut poller = backend.open().expect("an available backend");
            let mut events = Events::with_capacity(16);
            for depth in [1, 16] {
                for (at, path) in paths.iter().enumerate().take(depth) {
                    poller
                        .submit(Op::open(path, &options), Token(at))
                        .expect("an accepted operation");
                }
                poller.wait(&mut events, Some(std::time::Duration::ZERO)).expect("a wait");
                let done: Vec<_> = events.completions().collect();
                assert_eq!(done.len(), depth, "{backend}");
                let is_open = |result: &_| matches!(result, Ok(Outcome::Opened { .. }));
                assert!(done.iter().all(|done| is_open(&done.result)), "{backend}: {done:?}");
            }
        }
    });
}
