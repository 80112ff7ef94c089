//! Detects a forked child at the cost of one load.
//!
//! A page marked `MADV_WIPEONFORK` (Linux 4.14) is zero in a forked child. It holds the number of
//! the process generation, as does every value that a child must not use.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The wiped page, made by the first poller and never unmapped.
static PAGE: OnceLock<&'static AtomicU32> = OnceLock::new();
/// The last number assigned, in this process or its ancestors.
static LAST: AtomicU32 = AtomicU32::new(0);

/// The process that made this value; not valid in its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForkGeneration {
    page: &'static AtomicU32,
    number: u32,
}

impl ForkGeneration {
    /// Returns the generation of this process.
    ///
    /// # Errors
    ///
    /// Errors of mmap(2) and madvise(2): `ENOMEM`, and `EINVAL` before Linux 4.14.
    pub(crate) fn current() -> io::Result<Self> {
        let page = match PAGE.get() {
            Some(page) => page,
            // Two threads that race here make two pages, of which one is never used.
            None => PAGE.get_or_init({
                let page = wiped_page()?;
                move || page
            }),
        };
        let number = match page.load(Ordering::Relaxed) {
            0 => {
                // Of several threads that race here, one sets the number for all.
                let fresh = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                let named = page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
                named.err().unwrap_or(fresh)
            }
            named => named,
        };
        Ok(ForkGeneration { page, number })
    }

    /// Returns true if this process is a forked child of the one that made this value.
    pub(crate) fn is_forked_child(&self) -> bool {
        self.page.load(Ordering::Relaxed) != self.number
    }
}

/// A lock for a few system calls. A forked child finds it free, even if a thread of the parent
/// held it.
#[derive(Debug)]
pub(crate) struct Lock(AtomicU32);

impl Lock {
    pub(crate) const fn new() -> Self {
        Lock(AtomicU32::new(0))
    }

    /// Runs `body` while no other thread of this process is in `with`. This process must have made
    /// `generation`.
    pub(crate) fn with<T>(&self, generation: &ForkGeneration, body: impl FnOnce() -> T) -> T {
        // A free lock is 0, or the number of an ancestor process.
        let take = |held| (held != generation.number).then_some(generation.number);
        while self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, take).is_err() {
            std::thread::yield_now();
        }
        let answer = body();
        self.0.store(0, Ordering::Release);
        answer
    }
}

fn wiped_page() -> io::Result<&'static AtomicU32> {
    if cfg!(miri) {
        // Miri runs one process and lacks the advice.
        static NEVER_WIPED: AtomicU32 = AtomicU32::new(0);
        return Ok(&NEVER_WIPED);
    }
    let length = size_of::<AtomicU32>();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a private mapping at an address of the kernel's choice touches no existing memory.
    let page = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the advice concerns only the page mapped above.
    if unsafe { libc::madvise(page, length, libc::MADV_WIPEONFORK) } == -1 {
        let error = io::Error::last_os_error();
        // SAFETY: nothing else refers to the page.
        unsafe { libc::munmap(page, length) };
        return Err(error);
    }
    // SAFETY: the page is zeroed (a valid AtomicU32), aligned, and never unmapped.
    Ok(unsafe { &*page.cast::<AtomicU32>() })
}

#[cfg(test)]
mod tests;
