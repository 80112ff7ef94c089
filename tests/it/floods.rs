//! What a thread did itself is seen by its next wait, whatever other processors are doing.
//!
//! Not cases of the suite, because the kernel does not grant it to a ring that works as before
//! Linux 6.1: a permitted difference of clause T1.

use nix::sys::eventfd::{EfdFlags, EventFd};
use quintpoll::spi::{Reactor, TaskWork, Uring};
use quintpoll::{Backend, Events, Interest, Mode, Poller, Token};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Without the care that it takes, one in some 30,000 was missed.
const ROUNDS: usize = 50_000;

fn counter() -> Arc<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Arc::new(EventFd::from_flags(flags).expect("an eventfd"))
}

/// The rounds in which a wait of zero did not see what the thread had written just before, nor any
/// further one for so long.
fn missed(mut poller: Box<dyn Poller>, patience: Duration) -> usize {
    let (own, flooded, over) = (counter(), counter(), Arc::new(AtomicBool::new(false)));
    let mut register = |source: &Arc<EventFd>, token| {
        let added = poller.register(source.clone(), token, Interest::READABLE, Mode::Edge);
        added.expect("fresh")
    };
    let key = register(&own, Token(1));
    register(&flooded, Token(2));
    let flood = thread::spawn({
        let over = over.clone();
        move || {
            while !over.load(Ordering::Relaxed) {
                flooded.write(1).expect("it is never full");
            }
        }
    });
    let mut events = Events::with_capacity(8);
    let missed = (0..ROUNDS).filter(|_| {
        own.write(1).expect("room");
        let started = Instant::now();
        let is_seen = loop {
            poller.wait(&mut events, Some(Duration::ZERO)).expect("a wait");
            let is_seen = events.iter().any(|event| event.key == key);
            if is_seen || started.elapsed() >= patience {
                break is_seen;
            }
        };
        own.read().expect("it was written");
        poller.drained(key, Interest::READABLE).expect("known");
        !is_seen
    });
    let missed = missed.count();
    over.store(true, Ordering::Relaxed);
    flood.join().expect("it only writes");
    missed
}

#[test]
fn a_flood_hides_nothing() {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_ok()) {
        let poller = backend.open().expect("it is available");
        assert_eq!(
            missed(poller, Duration::ZERO),
            0,
            "{backend} overlooked what was written just before"
        );
    }
}

/// T1 on io_uring before Linux 6.1: what a wait of zero has overlooked, a later one reports.
#[test]
fn a_flood_hides_nothing_for_long() {
    for work in [TaskWork::Cooperative, TaskWork::Prompt] {
        let Ok(selector) = Uring::with(256, work) else { continue };
        let poller = Reactor::new(Backend::Other("uring"), selector).expect("a page");
        assert_eq!(missed(Box::new(poller), Duration::from_secs(10)), 0, "{work:?}");
    }
}
