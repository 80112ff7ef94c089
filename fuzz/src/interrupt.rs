//! Signals that interrupt a call.
#![allow(unsafe_code)]

use super::script::PAUSE;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Once};
use std::thread;

/// One that nobody else here has a use for.
const SIGNAL: Signal = Signal::SIGUSR2;

/// Does it while another thread sends this one signal after signal, the first just before. Calls
/// are not restarted: who can't go on by himself fails with `EINTR`.
///
/// # Panics
///
/// If `act` does, or if a system call fails that can't.
pub fn interrupted<T>(act: impl FnOnce() -> T) -> T {
    install();
    // SAFETY: it has no conditions.
    let target = unsafe { libc::pthread_self() };
    let (over, begun) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send(target);
            begun.wait();
            while !over.load(Ordering::Relaxed) {
                thread::sleep(PAUSE);
                send(target);
            }
        });
        begun.wait();
        let outcome = {
            // Also if `act` panics: the scope waits for the other thread.
            let _over = AtTheEnd(&over);
            act()
        };
        // The scope waits for the closure alone. What the thread has still in memory when it is
        // about to exit looks like a leak to the fuzzer.
        sender.join().expect("the kernel lets one thread signal another");
        outcome
    })
}

struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn send(target: libc::pthread_t) {
    // SAFETY: the target outlives the scope from which this is called, so it is a thread.
    let answer = unsafe { libc::pthread_kill(target, SIGNAL as i32) };
    assert_eq!(answer, 0, "pthread_kill");
}

/// Without a handler the signal would end the process.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler = SigHandler::Handler(nothing);
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, which is safe at any moment.
        unsafe { sigaction(SIGNAL, &action) }.expect("sigaction");
    });
}

extern "C" fn nothing(_: libc::c_int) {}
