//! The sources that are polled, the directions, and the use of the results.

use super::*;
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::reactor::readiness::latch::Latch;
use crate::reactor::readiness::registry::Registration;
use crate::selector::Triggers;
use crate::sys::file::SourceFd;
use crate::testing::{is_alone, no_children};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

const R: Interest = Interest::READABLE;
const W: Interest = Interest::WRITABLE;
const P: Interest = Interest::PRIORITY;

/// A registered end of a socket pair, and its peer.
struct SourcePair {
    slot: Slot,
    fd: i32,
    peer: UnixStream,
}

fn add(registry: &mut Registry, armed: Interest) -> SourcePair {
    let (local, peer) = UnixStream::pair().expect("a socket pair");
    let (fd, slot) = (local.as_raw_fd(), registry.next_slot().expect("four billion"));
    let latch = Latch::new(Mode::OneShot, armed, Triggers::LEVEL);
    registry.insert(slot, SourceFd::new(Arc::new(local)), Token(0), latch);
    SourcePair { slot, fd, peer }
}

fn add_readable(registry: &mut Registry, armed: Interest) -> SourcePair {
    let mut pair = add(registry, armed);
    pair.peer.write_all(b"x").expect("room for a byte");
    pair
}

impl Verifier {
    /// Returns the descriptors and requested bits of the last poll(2).
    fn asked(&self) -> Vec<(i32, PollBits)> {
        let asked = |fd: &sys::poll::pollfd| (fd.fd, PollBits::from_bits_retain(fd.events as u16));
        self.fds.iter().map(asked).collect()
    }
}

/// Returns the queue with the facts of this round, without band bits, which only some files set.
fn facts(registry: &Registry) -> Vec<(Slot, Option<PollBits>)> {
    let front = registry.queue_front(registry.queue_len());
    let fact = |registration: &Registration| registration.fact_in(registry.round());
    let bands = PollBits::READ_BANDS | PollBits::WRITE_BANDS;
    front.map(|(slot, its)| (slot, fact(its).map(|bits| bits - bands))).collect()
}

#[test]
fn one_poll_covers_all_entries_without_fact() {
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let ready = add_readable(&mut registry, R | W);
    let vouched = add(&mut registry, R);
    let lapsed = add_readable(&mut registry, R);
    let quiet = add(&mut registry, R | P);
    let unarmed = add_readable(&mut registry, W);
    let unqueued = add_readable(&mut registry, R);
    registry.queue_fact(lapsed.slot, PollBits::PRI);
    registry.begin_round();
    registry.queue_check(ready.slot, W);
    registry.queue_fact(vouched.slot, PollBits::IN);
    registry.queue_hint(quiet.slot);
    registry.queue_check(unarmed.slot, R);

    verifier.verify_front(&mut registry, 5).expect("five are not too many");
    let asked = [
        (lapsed.fd, PollBits::asked(R)),
        (ready.fd, PollBits::asked(W)),
        (quiet.fd, PollBits::asked(R | P)),
    ];
    assert_eq!(verifier.asked(), asked, "in one call; {} was not queued", unqueued.fd);
    let settled = [
        (lapsed.slot, Some(PollBits::IN)),
        (ready.slot, Some(PollBits::OUT)),
        (vouched.slot, Some(PollBits::IN)),
        (quiet.slot, None),
        (unarmed.slot, None),
    ];
    assert_eq!(facts(&registry), settled, "an unchanged queue with facts");
    registry.verify();
}

#[test]
fn only_queue_front_is_polled() {
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let pairs = [(); 4].map(|()| add_readable(&mut registry, R));
    pairs.iter().for_each(|pair| registry.queue_hint(pair.slot));
    verifier.verify_front(&mut registry, 2).expect("two are not too many");
    let seen: Vec<_> = facts(&registry).iter().map(|(_, fact)| fact.is_some()).collect();
    assert_eq!(seen, [true, true, false, false]);
}

#[test]
fn stale_entries_count_but_are_not_polled() {
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let [gone, first, second] = [(); 3].map(|()| add_readable(&mut registry, R));
    [&gone, &first, &second].into_iter().for_each(|pair| registry.queue_hint(pair.slot));
    registry.remove(gone.slot).expect("just added");
    assert_eq!(registry.queue_len(), 3, "one stale entry is not worth a sweep");
    verifier.verify_front(&mut registry, 2).expect("two are not too many");
    assert_eq!(verifier.asked(), [(first.fd, PollBits::asked(R))]);
    assert_eq!(facts(&registry), [(first.slot, Some(PollBits::IN)), (second.slot, None)]);
}

#[test]
fn second_batch_does_not_reuse_results() {
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let pair = add_readable(&mut registry, R);
    registry.queue_hint(pair.slot);
    verifier.verify_front(&mut registry, 1).expect("one is not too many");
    assert_eq!(facts(&registry), [(pair.slot, Some(PollBits::IN))]);
    registry.pop_queue().expect("it was queued");
    registry.begin_round();
    verifier.verify_front(&mut registry, 1).expect("none is not too many");
    assert!(registry.queue_len() == 0, "an old answer queues nothing");
    assert_eq!(verifier.asked(), []);
}

#[test]
fn hangup_is_reported_unrequested() {
    let _files_are_ours = no_children();
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let (closed, half) = (add(&mut registry, W), add(&mut registry, R));
    half.peer.shutdown(Shutdown::Write).expect("it is connected");
    drop(closed.peer);
    registry.queue_hint(closed.slot);
    registry.queue_hint(half.slot);
    verifier.verify_front(&mut registry, 2).expect("two are not too many");
    let expected = [
        (closed.slot, Some(PollBits::OUT | PollBits::HUP)),
        (half.slot, Some(PollBits::IN | PollBits::RDHUP)),
    ];
    assert_eq!(facts(&registry), expected);
}

#[test]
fn failed_poll_leaves_queue_unchanged() {
    if !is_alone("reactor::readiness::verify::tests::failed_poll_leaves_queue_unchanged") {
        return;
    }
    let (mut registry, mut verifier) = (Registry::default(), Verifier::default());
    let pairs: Vec<_> = (0..40).map(|_| add_readable(&mut registry, R)).collect();
    pairs.iter().for_each(|pair| registry.queue_hint(pair.slot));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    let error = verifier.verify_front(&mut registry, 40).expect_err("poll(2) takes none");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    let untouched: Vec<_> = pairs.iter().map(|pair| (pair.slot, None)).collect();
    assert_eq!(facts(&registry), untouched);
    setrlimit(Resource::RLIMIT_NOFILE, 7, hard).expect("up to the hard limit is allowed");
    verifier.verify_front(&mut registry, 40).expect("in parts of up to 7");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    assert!(facts(&registry).iter().all(|(_, fact)| *fact == Some(PollBits::IN)));
    registry.verify();
}

#[test]
fn wait_with_failed_poll_loses_no_report() {
    if !is_alone("reactor::readiness::verify::tests::wait_with_failed_poll_loses_no_report") {
        return;
    }
    let mut poller = Backend::Select.open().expect("select");
    let mut peers = Vec::new();
    for token in 0..40 {
        let (local, mut peer) = UnixStream::pair().expect("a socket pair");
        peer.write_all(b"x").expect("room for a byte");
        poller.register(Arc::new(local), Token(token), R, Mode::Edge).expect("fresh");
        peers.push(peer);
    }
    let (mut one, mut many) = (Events::with_capacity(1), Events::with_capacity(64));
    // select(2) reports all; one is delivered and the others stay in the queue.
    poller.wait(&mut one, None).expect("a wait");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it has a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("lower is allowed");
    poller.waker().wake();
    let error = poller.wait(&mut many, None).expect_err("poll(2) takes none, and 39 are queued");
    assert_eq!((error.kind(), many.len()), (io::ErrorKind::InvalidInput, 0));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("up to the hard limit is allowed");
    poller.wait(&mut many, None).expect("39 are not too many");
    assert!(many.woken(), "the wake is kept");
    let mut seen: Vec<_> = one.iter().chain(&many).map(|event| event.token.0).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>(), "every edge is kept");
}
