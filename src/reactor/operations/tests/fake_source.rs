//! Sources of a user, which count their drops; some panic in `Drop`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Counts drops, and permits them at the end of a call only.
#[derive(Debug, Default)]
pub(super) struct DropLog {
    pub(super) count: AtomicUsize,
    /// True at the end of a reactor's call.
    pub(super) is_allowed: AtomicBool,
}

/// The panic of a user's `Drop`.
pub(super) struct UserPanic;

/// A source with its own descriptor.
#[derive(Debug)]
pub(super) struct FakeSource {
    file: File,
    log: Arc<DropLog>,
    panics: AtomicBool,
}

impl FakeSource {
    pub(super) fn new(log: &Arc<DropLog>, panics: bool) -> Arc<Self> {
        let file = File::open("/dev/null").expect("every Linux has it");
        Arc::new(FakeSource { file, log: log.clone(), panics: AtomicBool::new(panics) })
    }

    /// Prevents the panic in `Drop`.
    pub(super) fn suppress_panic(source: &Weak<FakeSource>) {
        if let Some(source) = source.upgrade() {
            source.panics.store(false, Ordering::Relaxed);
        }
    }
}

impl AsFd for FakeSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for FakeSource {
    fn drop(&mut self) {
        self.log.count.fetch_add(1, Ordering::Relaxed);
        if std::thread::panicking() {
            return;
        }
        assert!(self.log.is_allowed.load(Ordering::Relaxed), "a source is dropped too early");
        if self.panics.load(Ordering::Relaxed) {
            // Bypasses the panic hook, which would print it.
            resume_unwind(Box::new(UserPanic));
        }
    }
}
