//! Clauses C2, D2 and P5 for passed files. Every case has a process of its own.

use super::many_files;
use super::messages::*;
use super::op_harness::*;
use super::opens::ExhaustedFds;
use super::util::*;
use crate::event::{Events, Interest, Mode, Token};
use crate::op::{Completion, Message, MessageFlags, Op};
use nix::poll::PollFlags;
use nix::sys::socket::SockType;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Files that one message can pass (`SCM_MAX_FD`, unix(7)).
const MAX_FILES: usize = 253;

pub(super) fn c2_message_passes_at_most_253_files(cx: &TestContext) {
    if many_files::fd_budget(cx, 3 * MAX_FILES) < 3 * MAX_FILES {
        cx.skip("the limit on open files is too low");
    }
    drop(cx.poller());
    let directory = TempDir::new();
    let files = numbered_files(&directory, MAX_FILES + 1);
    let before = open_fds();
    for kind in KINDS {
        let mut ops = OpHarness::new(cx);
        let (local, peer) = pair(kind);
        let [local, peer] = [local, peer].map(|socket| ops.add(socket));
        let many = with_files(&files);
        let done = ops.run(Op::send_msg(local, "x", .., many));
        assert_eq!(errno(&done), libc::EINVAL, "{kind:?}: as for sendmsg(2)");
        assert_eq!(&*done.buf, b"x");
        let largest = with_files(&files[..MAX_FILES]);
        assert_eq!(bytes(ops.run(Op::send_msg(local, "x", .., largest))).0, 1, "{kind:?}");
        let message = message_parts(ops.run(Op::recv_msg(peer, vec![], 9)));
        assert!(message.bytes == b"x" && message.flags.is_empty(), "{kind:?}: {:?}", message.flags);
        expect_same(&message.files, &files[..MAX_FILES], &format!("{kind:?}"));
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// Returns a pipe whose writer is passed; its reader reports the end once every copy is closed.
fn tracked_pipe() -> (OwnedFd, Arc<OwnedFd>) {
    let (reader, writer) = pipe();
    (reader, Arc::new(writer))
}

/// Fails unless every copy of the writer is closed.
fn expect_closed(reader: &OwnedFd, why: &str) {
    // Files in flight in a socket are closed by the kernel asynchronously.
    wait_until_kernel(reader, PollFlags::POLLIN, |bits| bits.contains(PollFlags::POLLHUP));
    assert_eq!(nix::unistd::read(reader, &mut [0; 8]), Ok(0), "{why}");
}

/// The end of a message that was to be received.
#[derive(Clone, Copy, Debug)]
enum MessageEnd {
    DroppedCompletion,
    DroppedEvents,
    NotTaken,
    NotDelivered,
    InFlight,
    Canceled,
    Deregistered,
}

const MESSAGE_ENDS: [MessageEnd; 7] = [
    MessageEnd::DroppedCompletion,
    MessageEnd::DroppedEvents,
    MessageEnd::NotTaken,
    MessageEnd::NotDelivered,
    MessageEnd::InFlight,
    MessageEnd::Canceled,
    MessageEnd::Deregistered,
];

fn check_end(cx: &TestContext, kind: SockType, end: MessageEnd, waits: bool) {
    let (reader, writer) = tracked_pipe();
    let (local, peer) = pair(kind);
    let mut sender = OpHarness::new(cx);
    let from = sender.add(local);
    let mut ops = OpHarness::with_capacity(cx, 1);
    let to = ops.add(peer);
    let send = |sender: &mut OpHarness| {
        let message = Message::new().file(writer.clone()).file(writer.clone());
        assert_eq!(bytes(sender.run(Op::send_msg(from, "with", .., message))).0, 4);
    };
    let id = ops.submit(Op::recv_msg(to, vec![], 9), 1);
    ops.submit(Op::recv_msg(to, vec![], 9), 2);
    if waits {
        ops.expect_nothing_yet("nothing was sent");
    }
    (0..3).for_each(|_| send(&mut sender));
    drop(writer);
    match end {
        MessageEnd::DroppedCompletion => ops.collect(2).into_iter().for_each(|done| {
            assert!(done.result.is_ok(), "{done:?}");
        }),
        MessageEnd::DroppedEvents => {
            let mut taken = 0;
            while taken < 2 {
                let mut events = Events::with_capacity(1);
                let waited = ops.harness.poller.wait(&mut events, Some(LONG));
                waited.unwrap_or_else(|error| panic!("wait: {error}"));
                taken += events.completed();
            }
        }
        MessageEnd::NotTaken => ops.wait(LONG),
        MessageEnd::NotDelivered => {
            ops.wait(LONG);
            ops.wait(ZERO);
        }
        MessageEnd::InFlight => {}
        MessageEnd::Canceled => {
            let canceled = ops.harness.poller.cancel(id);
            assert!(canceled.is_ok(), "cancel of a pending operation: {canceled:?}");
            let done = ops.collect(2);
            assert!(done.iter().all(|done| done.result.is_ok() || done.is_canceled()), "{done:?}");
        }
        MessageEnd::Deregistered => {
            ops.harness.deregister(to);
            let done = ops.collect(2);
            assert!(done.iter().all(|done| done.result.is_ok() || done.is_canceled()), "{done:?}");
        }
    }
    let OpHarness { harness, .. } = ops;
    let ReadinessHarness { poller, events } = harness;
    drop(poller);
    drop(events);
    drop(sender);
    expect_closed(&reader, &format!("{kind:?}, {end:?}, {waits}"));
}

pub(super) fn d2_untaken_passed_files_are_closed(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    for kind in KINDS {
        for end in MESSAGE_ENDS {
            for waits in [false, true] {
                check_end(cx, kind, end, waits);
                assert_eq!(
                    open_fds(),
                    before,
                    "{kind:?}, {end:?}, {waits}: a descriptor was left open"
                );
            }
        }
    }
}

/// Receives are cancelled while messages with files arrive: each message is received whole, or
/// stays queued with its files.
pub(super) fn x1_cancelled_recv_msg_loses_no_file(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    for kind in KINDS {
        let (reader, writer) = tracked_pipe();
        let (local, peer) = pair(kind);
        let mut ops = OpHarness::new(cx);
        let (from, to) = (ops.add(local), ops.add(peer));
        let (mut sent, mut received, mut stopped) = (0, 0, 0);
        for round in 0..200 {
            let id = ops.submit(Op::recv_msg(to, vec![], 1), 1);
            if round % 2 == 0 {
                ops.wait(ZERO);
            }
            let message = Message::new().file(writer.clone());
            let is_first = ops.submit(Op::send_msg(from, vec![round as u8], .., message), 2);
            sent += 1;
            if ops.harness.poller.cancel(id).is_err() {
                assert!(ops.harness.events.completed() > 0, "{is_first:?} completed before");
            }
            for done in ops.collect(2).into_iter().filter(|done| done.token.0 == 1) {
                if done.is_canceled() {
                    assert_eq!((done.transferred, done.buf.len()), (0, 0), "{done:?}");
                    stopped += 1;
                    continue;
                }
                let message = message_parts(done);
                assert_eq!(
                    (message.bytes, message.files.len()),
                    (vec![received as u8], 1),
                    "{kind:?}"
                );
                received += 1;
            }
        }
        assert_eq!(received + stopped, sent);
        while received < sent {
            let message = message_parts(ops.run(Op::recv_msg(to, vec![], 1)));
            assert_eq!((message.bytes, message.files.len()), (vec![received as u8], 1), "{kind:?}");
            received += 1;
        }
        drop((ops, writer));
        expect_closed(&reader, "every copy is closed");
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

pub(super) fn p5_recv_msg_without_free_fds_truncates_files(cx: &TestContext) {
    drop(cx.poller());
    let before = open_fds();
    for kind in KINDS {
        for waits in [false, true] {
            let why = format!("{kind:?}, waits: {waits}");
            let (reader, writer) = tracked_pipe();
            let (local, peer) = pair(kind);
            let mut ops = OpHarness::new(cx);
            let (from, to) = (ops.add(local), ops.add(peer));
            let three = (0..3).fold(Message::new(), |message, _| message.file(writer.clone()));
            let exhausted;
            if !waits {
                ops.submit(Op::send_msg(from, "bytes", .., three), 2);
                ops.next();
                exhausted = ExhaustedFds::new();
                ops.submit(Op::recv_msg(to, vec![], 9), 1);
            } else {
                ops.submit(Op::recv_msg(to, vec![], 9), 1);
                ops.expect_nothing_yet("nothing was sent");
                exhausted = ExhaustedFds::new();
                ops.submit(Op::send_msg(from, "bytes", .., three), 2);
            }
            let mut done = ops.collect(if waits { 2 } else { 1 });
            drop(exhausted);
            done.retain(|done| done.token.0 == 1);
            let message = message_parts(done.remove(0));
            assert_eq!(message.bytes, b"bytes", "{why}");
            assert!(message.files.is_empty(), "{why}: no descriptor was free");
            assert!(
                message.flags.contains(MessageFlags::CONTROL_TRUNCATED),
                "{why}: the truncation is reported"
            );
            drop((ops, writer));
            expect_closed(&reader, &why);
        }
    }
    assert_eq!(open_fds(), before, "a descriptor was left open");
}

/// A queued message keeps its files open, whatever the program does. They are closed when it is
/// cancelled or its poller dropped.
pub(super) fn c4_passed_files_stay_open_until_sent(cx: &TestContext) {
    for kind in KINDS {
        for end in 0..4 {
            let why = format!("{kind:?}, {end}");
            let (reader, writer) = tracked_pipe();
            let (local, peer) = pair(kind);
            fill(&local);
            let mut ops = OpHarness::new(cx);
            let key = ops.harness.register(local, 0, Interest::empty(), Mode::Edge);
            let ids = [1, 2].map(|token| {
                let message = Message::new().file(writer.clone());
                let mut op = Op::send_msg(key, "with", .., message);
                if end == 1 {
                    op = op.deadline(std::time::Duration::from_millis(1));
                }
                ops.submit(op, token)
            });
            drop(writer);
            if end != 1 {
                ops.expect_nothing_yet("the send buffer is full");
                let bits = oracle(&reader, PollFlags::POLLIN);
                assert!(!bits.contains(PollFlags::POLLHUP), "{why}: the file was closed early");
            }
            match end {
                0 => ids.into_iter().for_each(|id| ops.cancel(id)),
                1 => {}
                2 => ops.harness.deregister(key),
                _ => drop(std::mem::replace(&mut ops, OpHarness::new(cx))),
            }
            if end < 3 {
                let done = ops.collect(2);
                let tokens: Vec<Token> = done.iter().map(|done| done.token).collect();
                assert!(done.iter().all(|done| done.result.is_err()), "{why}: {done:?}");
                assert!(end == 1 || done.iter().all(Completion::is_canceled), "{why}: {done:?}");
                assert!(tokens.is_sorted() && done.iter().all(|done| *done.buf == *b"with"));
            }
            expect_closed(&reader, &why);
            drop(peer);
        }
    }
}
