//! Sends that have a CQE only if they fail or are short.

use super::*;
use crate::sys::buf::Buf;
use crate::sys::io_call::{Call, CallBox};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

type Ended = (u64, io::Result<CallResult>);

fn pair() -> (UnixStream, UnixStream) {
    let (local, peer) = UnixStream::pair().expect("a pair of sockets");
    for end in [&local, &peer] {
        end.set_nonblocking(true).expect("a socket");
    }
    (local, peer)
}

fn silent_send(fd: &UnixStream, bytes: Vec<u8>) -> Work {
    let (part, buf) = ((0, bytes.len()), Buf::from(bytes));
    let mut call = CallBox::new(fd.as_fd(), Call::Send, buf, part, None).expect("all of it");
    call.set_skips_success(true);
    call.into()
}

impl Ring {
    fn ended(&mut self) -> Vec<Ended> {
        let mut all = Vec::new();
        self.reap(|completion: Completion| match completion {
            Completion::Operation { tag, result, .. } => all.push((tag, result)),
            other => panic!("not an operation: {other:?}"),
        });
        all
    }

    fn end_all(&mut self) -> Vec<Ended> {
        let mut all = Vec::new();
        while self.operations() > 0 {
            self.enter(0, None).expect("an open socket");
            all.extend(self.ended());
        }
        all
    }
}

fn moved(result: &io::Result<CallResult>) -> usize {
    match result {
        Ok(CallResult::Moved(count)) => *count,
        other => panic!("no bytes were sent: {other:?}"),
    }
}

#[test]
fn silent_send_completes_on_submission() {
    for work in TaskWork::LADDER {
        let is_deferred = work == TaskWork::Deferred;
        let (mut ring, (local, mut peer)) = (ring(8, work), pair());
        ring.begin(silent_send(&local, b"hello".to_vec()), 7).expect("there is room");
        assert!(ring.ended().is_empty() && ring.operations() == 1, "it was not submitted");
        ring.enter(0, None).expect("an open socket");
        let is_empty = ring.ring.completion().is_empty();
        assert_eq!(is_empty, is_deferred, "{work:?}: there is a CQE before Linux 6.1");
        let ended = ring.ended();
        assert_eq!(
            ended.iter().map(|(tag, ended)| (*tag, moved(ended))).collect::<Vec<_>>(),
            [(7, 5)]
        );
        assert_eq!(peer.read(&mut [0; 9]).expect("it was sent"), 5);
        assert!(ring.ended().is_empty(), "once");
    }
}

#[test]
fn short_silent_send_reports_its_count() {
    const MUCH: usize = 1 << 22;
    let (mut ring, (mut local, peer)) = (ring(8, TaskWork::Deferred), pair());
    ring.begin(silent_send(&local, vec![7; MUCH]), 1).expect("there is room");
    let part = moved(&ring.end_all()[0].1);
    assert!(0 < part && part < MUCH, "{part}");
    while local.write(&[7]).is_ok() {}
    ring.begin(silent_send(&local, vec![7; 9]), 2).expect("there is room");
    let ended = ring.end_all();
    let kind = ended[0].1.as_ref().map_err(io::Error::kind).expect_err("there is no room");
    assert_eq!((ended.len(), kind), (1, ErrorKind::WouldBlock));
    drop(peer);
}

/// CQEs that the kernel keeps back for want of space are waited for.
#[test]
fn failures_kept_back_are_not_successes() {
    for work in TaskWork::LADDER {
        let (mut ring, (local, peer)) = (ring(4, work), pair());
        drop(peer);
        let mut ended = Vec::new();
        for round in 0..5 {
            for tag in 0..4 {
                let tag = round << 32 | (4 * round + tag);
                ring.begin(silent_send(&local, vec![1]), tag).expect("there is room");
            }
            // The failures are not reaped, so the queue is soon full.
            let _ = ring.enter(0, None);
        }
        ended.extend(ring.end_all());
        let is_error = |(_, result): &Ended| {
            result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EPIPE))
        };
        assert!(ended.iter().all(is_error), "{work:?}: {ended:?}");
        assert_eq!(ended.len(), 20, "{work:?}: each once");
    }
}

#[test]
fn lost_completion_leaves_the_result_unknown() {
    let mut sends = super::super::silent::SilentSends::new(true);
    for (before, lost, is_unknown) in [(0, 0, false), (0, 1, true), (1, 1, false), (2, 2, false)] {
        assert!(sends.note_lost(before), "there is none");
        sends.insert(7);
        assert!(!sends.note_lost(lost));
        let (all, unknown) = sends.settle(lost);
        assert_eq!((all.collect::<Vec<_>>(), unknown), (vec![7], is_unknown), "{before}, {lost}");
    }
}
