//! Clauses C1, C3, R5, X1 and X3 for splices, which are queued on two sources.

use super::op_harness::*;
use super::splices::*;
use super::util::*;
use crate::event::{Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A Unix stream to splice from and a pipe to splice to, with their peers.
struct SpliceFixture {
    ops: OpHarness,
    from: Key,
    to: Key,
    source_peer: OwnedFd,
    target_peer: OwnedFd,
}

impl SpliceFixture {
    fn new(cx: &TestContext) -> Self {
        let mut ops = OpHarness::new(cx);
        let ((local, peer), (target_peer, writer)) = (stream(), pipe());
        let (from, to) = (ops.add(local), ops.add(Arc::new(writer)));
        SpliceFixture { ops, from, to, source_peer: peer.into(), target_peer }
    }

    fn splice(&mut self, max: usize, token: usize) -> OpId {
        self.ops.submit(Op::splice(self.from, self.to, max), token)
    }

    fn read(&mut self, max: usize, token: usize) -> OpId {
        self.ops.submit(Op::recv(self.from, vec![], max), token)
    }

    fn write(&mut self, text: &'static str, token: usize) -> OpId {
        self.ops.submit(Op::write(self.to, text, ..), token)
    }
}

fn tokens(done: &[Completion]) -> Vec<usize> {
    done.iter().map(|done| done.token.0).collect()
}

pub(super) fn c3_splice_is_queued_on_both_sources(cx: &TestContext) {
    for waits in [false, true] {
        let mut fixture = SpliceFixture::new(cx);
        fixture.ops.submit(Op::recv_exact(fixture.from, vec![], 3), 1);
        fixture.write("<", 2);
        fixture.splice(4, 3);
        fixture.write(">", 4);
        fixture.read(2, 5);
        fixture.splice(2, 6);
        fixture.write("!", 7);
        if waits {
            let done = fixture.ops.next();
            assert_eq!((done.token.0, bytes(done).0), (2, 1), "the write is not blocked");
            fixture.ops.expect_nothing_yet("nothing was written");
            // In parts, so that each operation finds a part only.
            for part in [&b"ab"[..], b"cd", b"efg"] {
                write_bytes(&fixture.source_peer, part);
                fixture.ops.wait(ZERO);
            }
            write_bytes(&fixture.source_peer, b"hijk");
        } else {
            write_bytes(&fixture.source_peer, b"abcdefghijk");
        }
        let done = fixture.ops.collect(if waits { 6 } else { 7 });
        let in_order = |expected: &[usize]| {
            let found: Vec<_> =
                tokens(&done).into_iter().filter(|token| expected.contains(token)).collect();
            assert!(found.is_sorted(), "{found:?}");
        };
        in_order(&[1, 3, 5, 6]);
        in_order(&[2, 3, 4, 6, 7]);
        let find = |token| done.iter().find(|done| done.token.0 == token);
        let moved = |token| find(token).map_or(usize::MAX, |done| done.transferred);
        assert_eq!(find(1).map(|done| &*done.buf), Some(&b"abc"[..]));
        // All available bytes, at most four.
        let (first, text) = (moved(3), b"abcdefghijk");
        assert!((1..=4).contains(&first), "{first}");
        let read = find(5).map_or(&b""[..], |done| &done.buf);
        let after = 3 + first + read.len();
        assert_eq!(read, &text[3 + first..after]);
        let second = moved(6);
        assert!((1..=2).contains(&second), "{second}");
        let (one, two) = (&text[3..3 + first], &text[after..after + second]);
        let expected = [b"<", one, b">", two, b"!"].concat();
        assert_eq!(read_bytes(&fixture.target_peer, expected.len()), expected, "in queue order");
        fixture.ops.expect_all_done("enough bytes were written");
    }
}

/// The event that ends a blocked splice.
#[derive(Clone, Copy, Debug)]
enum End {
    Canceled,
    TimedOut,
    Deregistered,
    OtherDeregistered,
}

pub(super) fn c3_operations_behind_cancelled_splice_proceed(cx: &TestContext) {
    for end in [End::Canceled, End::TimedOut] {
        for is_held_up in [false, true] {
            let why = format!("{end:?}, held up: {is_held_up}");
            let mut fixture = SpliceFixture::new(cx);
            let first = is_held_up.then(|| fixture.read(9, 0));
            let mut splice = Op::splice(fixture.from, fixture.to, 9);
            if let End::TimedOut = end {
                splice = splice.deadline(Duration::from_millis(1));
            }
            let id = fixture.ops.submit(splice, 1);
            fixture.write("behind", 2);
            fixture.read(9, 3);
            if let End::Canceled = end {
                fixture.ops.expect_nothing_yet(&why);
                fixture.ops.cancel(id);
            }
            let done = fixture.ops.collect(2);
            assert_eq!(tokens(&done), [1, 2], "{why}");
            let is_late = done[0]
                .result
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
            assert!(done[0].is_canceled() || is_late, "{why}: {done:?}");
            assert_eq!(read_bytes(&fixture.target_peer, 6), b"behind", "{why}");
            fixture.ops.expect_nothing_yet("nothing was written");
            if first.is_some() {
                write_bytes(&fixture.source_peer, b"x");
                assert_eq!(fixture.ops.next().token.0, 0, "{why}");
            }
            write_bytes(&fixture.source_peer, b"yz");
            let done = fixture.ops.next();
            assert_eq!(
                (done.token.0, &*done.buf),
                (3, &b"yz"[..]),
                "{why}: the splice consumed bytes"
            );
            fixture.ops.expect_all_done(&why);
        }
    }
}

pub(super) fn r5_deregister_of_either_source_ends_splice(cx: &TestContext) {
    for end in [End::Deregistered, End::OtherDeregistered] {
        for (is_held_up, is_full) in [(false, false), (true, false), (false, true), (true, true)] {
            let why = format!("{end:?}, held up: {is_held_up}, full: {is_full}");
            let mut fixture = SpliceFixture::new(cx);
            let mut before = Vec::new();
            if is_held_up {
                before.push(fixture.read(9, 0));
            }
            if is_full {
                fill(writer_of(&fixture.target_peer));
                if !is_held_up {
                    write_bytes(&fixture.source_peer, b"said");
                }
            }
            let splices = [1, 2].map(|token| fixture.splice(9, token));
            let (written, read) = (fixture.write("behind", 3), fixture.read(9, 4));
            fixture.ops.expect_nothing_yet(&why);
            match end {
                End::Deregistered => {
                    fixture.ops.harness.deregister(fixture.from);
                    let done = fixture.ops.collect(before.len() + 3);
                    let gone: Vec<_> = done.iter().map(|done| done.id).collect();
                    let expected = [&before[..], &splices, &[read]].concat();
                    assert_eq!(gone, expected, "{why}: in submission order");
                    assert!(done.iter().all(Completion::is_canceled), "{why}: {done:?}");
                    if is_full {
                        // Not everything: the next write may proceed as soon as there is room.
                        read_bytes(&fixture.target_peer, 4096);
                    }
                    let done = fixture.ops.next();
                    assert_eq!((done.id, done.result.is_ok()), (written, true), "{why}");
                    let mut received = Vec::new();
                    while !received.ends_with(b"behind") {
                        received.extend(read_bytes(&fixture.target_peer, 1));
                    }
                    assert!(is_full || received.len() == 6, "{why}: {received:?}");
                }
                _ => {
                    fixture.ops.harness.deregister(fixture.to);
                    let done = fixture.ops.collect(3);
                    let gone: Vec<_> = done.iter().map(|done| done.id).collect();
                    let expected = [&splices[..], &[written]].concat();
                    assert_eq!(gone, expected, "{why}: in submission order");
                    assert!(done.iter().all(Completion::is_canceled), "{why}: {done:?}");
                    let all = if is_held_up { b"first" } else { &b"said!"[..] };
                    if !is_full || is_held_up {
                        write_bytes(&fixture.source_peer, all);
                    }
                    let done = fixture.ops.next();
                    let id = before.first().copied().unwrap_or(read);
                    assert_eq!(done.id, id, "{why}: the next receive");
                    assert!(done.transferred > 0, "{why}: the splice consumed the bytes");
                    if is_held_up {
                        write_bytes(&fixture.source_peer, b"second");
                        assert_eq!(fixture.ops.next().id, read, "{why}");
                    }
                }
            }
            fixture.ops.expect_all_done(&why);
        }
    }
}

/// Opens another writer of the pipe that this descriptor reads.
fn writer_of(reader: &OwnedFd) -> OwnedFd {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let mut options = std::fs::File::options();
    ok(options.write(true).custom_flags(libc::O_NONBLOCK).open(path)).into()
}

pub(super) fn x1_cancelled_splice_moves_no_bytes(cx: &TestContext) {
    let mut fixture = SpliceFixture::new(cx);
    let (mut reported, mut moved) = (0_usize, 0);
    for round in 0..300 {
        let mut splice = Op::splice(fixture.from, fixture.to, 3);
        if round % 3 == 2 {
            splice = splice.deadline(Duration::from_micros(round));
        }
        let id = fixture.ops.submit(splice, 1);
        if round % 2 == 0 {
            fixture.ops.wait(ZERO);
        }
        write_bytes(&fixture.source_peer, &[reported as u8, reported as u8 + 1]);
        reported += 2;
        if round % 3 == 1 {
            fixture.ops.wait(ZERO);
        }
        if round % 3 < 2 {
            let canceled = fixture.ops.harness.poller.cancel(id);
            assert!(
                canceled.is_ok() || fixture.ops.harness.events.completed() > 0,
                "cancel of a pending operation"
            );
        }
        let done = fixture.ops.next();
        assert!(done.result.is_ok() || done.transferred == 0, "{done:?}");
        moved += done.transferred;
        drop(done);
        if round % 10 == 9 {
            // The bytes arrive in order, and as many as were reported.
            let received = read_bytes(&fixture.target_peer, moved);
            assert_eq!(unread(&mut fixture, reported) + moved, reported, "round {round}");
            let expected: Vec<u8> = (0..moved).map(|at| at as u8).collect();
            assert_eq!(received, expected, "round {round}");
            expect_empty(&fixture.target_peer, "more bytes than were reported");
            moved = 0;
            reported = 0;
        }
    }
}

/// Receives the bytes that were not spliced and returns their count.
fn unread(fixture: &mut SpliceFixture, reported: usize) -> usize {
    let id = fixture.read(2 * reported, 9);
    fixture.ops.wait(ZERO);
    if fixture.ops.harness.events.completed() == 0 {
        fixture.ops.cancel(id);
    }
    fixture.ops.next().transferred
}

pub(super) fn c1_hundreds_of_splices_complete_once_each(cx: &TestContext) {
    const COUNT: usize = 300;
    let mut ops = OpHarness::with_capacity(cx, COUNT);
    let pipes: Vec<_> = (0..4).map(|_| pipe()).collect();
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    let mut others = Vec::new();
    for (reader, writer) in pipes {
        others.push(ok(writer.try_clone()));
        readers.push(ops.add(Arc::new(reader)));
        writers.push(ops.add(Arc::new(writer)));
    }
    // In a ring: each splice moves the byte to the next pipe.
    for at in 0..COUNT {
        ops.submit(Op::splice(readers[at % 4], writers[(at + 1) % 4], 1), at);
    }
    ops.expect_nothing_yet("every pipe is empty");
    write_bytes(&others[0], b"x");
    let done = ops.collect(COUNT);
    assert_eq!(tokens(&done), (0..COUNT).collect::<Vec<_>>(), "in submission order");
    assert!(done.iter().all(|done| done.result.is_ok() && done.transferred == 1), "{done:?}");
    ops.expect_all_done("every splice has completed");
}

/// The event that ends thousands of queued splices.
#[derive(Clone, Copy, Debug)]
enum Finish {
    /// End of file on the sources, one pipe or two.
    End(usize),
    /// The target has no reader.
    Broken,
    Deregistered,
    OtherDeregistered,
    Dropped,
}

/// Each completion starts the next splice, which completes at once. Stack use must not grow with
/// their count.
pub(super) fn c1_thousands_of_splices_end_on_small_stack(cx: &TestContext) {
    use Finish::*;
    const STACK: usize = 256 << 10;
    for finish in [End(1), End(2), Broken, Deregistered, OtherDeregistered, Dropped] {
        let ended = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK);
            ok(builder.spawn_scoped(scope, || end_thousands(cx, finish))).join()
        });
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn end_thousands(cx: &TestContext, finish: Finish) {
    const COUNT: usize = 20_000;
    let mut harness = cx.harness(512);
    let mut add = |source| harness.register(source, 0, Interest::empty(), Mode::Edge);
    let pipes = [pipe(), pipe()];
    let ((local, peer), mut froms, mut writers) = (stream(), Vec::new(), Vec::new());
    for (reader, writer) in pipes {
        froms.push(add(Arc::new(reader)));
        writers.push(writer);
    }
    let (to, count) = (add(local), if let Finish::End(count) = finish { count } else { 1 });
    let mut submitted = Vec::new();
    for at in 0..COUNT {
        let splice = Op::splice(froms[at % count], to, 9);
        submitted.push(ok(harness.poller.submit(splice, Token(at))));
    }
    harness.wait(Some(ZERO));
    assert_eq!(harness.events.completed(), 0, "{finish:?}: every splice waits");
    match finish {
        Finish::End(_) => writers.clear(),
        Finish::Broken => {
            drop(peer);
            write_bytes(&writers[0], b"x");
        }
        Finish::Deregistered => harness.deregister(froms[0]),
        Finish::OtherDeregistered => harness.deregister(to),
        Finish::Dropped => return,
    }
    let mut ended = Vec::new();
    while ended.len() < COUNT {
        harness.wait(Some(LONG));
        assert!(harness.events.completed() > 0, "{finish:?}: {} have completed", ended.len());
        for done in harness.events.completions() {
            let is_right = match finish {
                Finish::End(_) => done.result.is_ok(),
                Finish::Broken => errno(&done) == libc::EPIPE,
                _ => done.is_canceled(),
            };
            assert!(is_right && done.transferred == 0 && !done.more, "{finish:?}: {done:?}");
            ended.push(done.id);
        }
    }
    assert!(ended == submitted, "{finish:?}: each once, in submission order");
    harness.wait(Some(ZERO));
    assert_eq!(harness.events.completed(), 0, "{finish:?}: an operation completed twice");
}
