//! A wait reports what its thread did before, whatever other processors are doing.
//!
//! Not cases of the suite, because rings with the task work of kernels before Linux 6.1 do not
//! guarantee this: a permitted difference of clause T1.

use nix::sys::eventfd::{EfdFlags, EventFd};
use quintpoll::spi::{Reactor, TaskWork, Uring};
use quintpoll::{Backend, Events, Interest, Mode, Poller, Token};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A faulty selector missed about one in 30,000.
const ROUNDS: usize = 50_000;

fn counter() -> Arc<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Arc::new(EventFd::from_flags(flags).expect("an eventfd"))
}

/// Counts the rounds in which no wait of zero up to `max_delay` reported the thread's own write.
fn missed(mut poller: Box<dyn Poller>, max_delay: Duration) -> usize {
    let (own, flooded, stopped) = (counter(), counter(), Arc::new(AtomicBool::new(false)));
    let mut register = |source: &Arc<EventFd>, token| {
        let added = poller.register(source.clone(), token, Interest::READABLE, Mode::Edge);
        added.expect("a new source")
    };
    let key = register(&own, Token(1));
    register(&flooded, Token(2));
    let flood = thread::spawn({
        let stopped = stopped.clone();
        move || {
            while !stopped.load(Ordering::Relaxed) {
                flooded.write(1).expect("an eventfd that is not full");
            }
        }
    });
    let mut events = Events::with_capacity(8);
    let missed = (0..ROUNDS).filter(|_| {
        own.write(1).expect("buffer space");
        let started = Instant::now();
        let is_seen = loop {
            poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
            let is_seen = events.iter().any(|event| event.key == key);
            if is_seen || started.elapsed() >= max_delay {
                break is_seen;
            }
        };
        own.read().expect("a written eventfd");
        poller.drained(key, Interest::READABLE).expect("a known key");
        !is_seen
    });
    let missed = missed.count();
    stopped.store(true, Ordering::Relaxed);
    flood.join().expect("the flood");
    missed
}

#[test]
fn flooded_source_hides_no_other() {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok()) {
        let poller = backend.open().expect("an available backend");
        assert_eq!(missed(poller, Duration::ZERO), 0, "{backend} missed the thread's own write");
    }
}

/// T1 on io_uring before Linux 6.1: an event that a wait of zero has missed is reported later.
#[test]
fn flooded_source_delays_no_other_for_long() {
    for work in [TaskWork::Cooperative, TaskWork::Prompt] {
        let Ok(selector) = Uring::with(256, work) else { continue };
        let poller = Reactor::new(Backend::Other("uring"), selector).expect("a page");
        assert_eq!(missed(Box::new(poller), Duration::from_secs(10)), 0, "{work:?}");
    }
}
