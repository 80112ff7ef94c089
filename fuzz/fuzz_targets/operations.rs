//! See [`quintpoll_fuzz::operations`].
#![no_main]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    quintpoll_fuzz::operations(data);
    wait_for_threads();
});

/// How long threads may take to exit: after that libFuzzer says what it thinks of them.
const WATCHDOG: Duration = Duration::from_secs(10);

/// Waits until the threads of the pollers have exited. The drop of a poller waits until they have
/// counted themselves out, which is a moment before, and what such a thread has still in memory
/// looks like a leak to libFuzzer.
fn wait_for_threads() {
    let begun = Instant::now();
    while has_threads() && begun.elapsed() < WATCHDOG {
        thread::sleep(Duration::from_micros(50));
    }
}

/// Whether there is a thread of a poller. The kernel's own, of a ring, have other names.
fn has_threads() -> bool {
    let tasks = fs::read_dir("/proc/self/task").expect("proc is mounted");
    // One that exits meanwhile has no name any more.
    let name = |task: std::io::Result<fs::DirEntry>| fs::read(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).any(|name| name.starts_with(b"quintpoll"))
}
