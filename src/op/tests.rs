//! Constructors of operations, rejections and the sizes of completions.

use super::*;
use crate::event::Token;
use crate::key::{OpSlot, Slot};
use std::error::Error;
use std::io;

fn key() -> Key {
    Key { poller: 0, slot: Slot { index: 0, generation: 0 } }
}

fn out(range: impl RangeBounds<usize>) -> Amount {
    Op::send(key(), vec![0; 10], range).amount
}

#[test]
fn ranges_mean_the_same_as_in_slices() {
    assert_eq!(out(..), Amount::Out(0..10));
    assert_eq!(out(3..), Amount::Out(3..10));
    assert_eq!(out(..7), Amount::Out(0..7));
    assert_eq!(out(..=7), Amount::Out(0..8));
    assert_eq!(out(3..7), Amount::Out(3..7));
    assert_eq!(out(3..=7), Amount::Out(3..8));
    assert_eq!(out((Bound::Excluded(3), Bound::Included(7))), Amount::Out(4..8));
    assert_eq!(out((Bound::Excluded(3), Bound::Unbounded)), Amount::Out(4..10));
    assert_eq!(Op::write(key(), "static", ..).amount, Amount::Out(0..6));
    assert_eq!(Op::send_all(key(), Buf::None, ..).amount, Amount::Out(0..0));
}

/// `submit` refuses the range, and returns the buffer.
#[test]
fn range_beyond_the_buffer_is_kept_for_submit() {
    assert_eq!(out(5..20), Amount::Out(5..20));
    assert_eq!(out(..=usize::MAX), Amount::Out(0..usize::MAX));
    // No index follows usize::MAX, so the range ends before it begins.
    let far = (Bound::Excluded(usize::MAX), Bound::Unbounded);
    let Amount::Out(range) = out(far) else { panic!("a range is expected") };
    assert_eq!((range.start, range.end), (usize::MAX, 10));
}

#[test]
fn constructors_set_kind_source_and_amount() {
    let to = || Address::Other(vec![1, 2]);
    let all = [
        (Op::accept(key()), Kind::Accept),
        (Op::connect(key(), to()), Kind::Connect),
        (Op::recv(key(), vec![], 3), Kind::Recv),
        (Op::recv_exact(key(), vec![], 3), Kind::RecvExact),
        (Op::send(key(), "abc", ..), Kind::Send),
        (Op::send_all(key(), "abc", ..), Kind::SendAll),
        (Op::recv_from(key(), vec![], 3), Kind::RecvFrom),
        (Op::send_to(key(), "abc", .., to()), Kind::SendTo),
        (Op::read(key(), vec![], 3), Kind::Read),
        (Op::write(key(), "abc", ..), Kind::Write),
        (Op::shutdown(key(), Shutdown::Both), Kind::Shutdown(Shutdown::Both)),
        (Op::timeout(Duration::MAX), Kind::Timeout),
        (Op::nop(), Kind::Nop),
    ];
    for (op, kind) in all {
        assert_eq!(op.kind, kind);
        let has_source = !matches!(kind, Kind::Timeout | Kind::Nop);
        assert_eq!(op.key, has_source.then(key));
        assert_eq!(
            matches!(op.with, OpArgs::Address(_)),
            matches!(kind, Kind::Connect | Kind::SendTo)
        );
        let amount = match kind {
            Kind::Recv | Kind::RecvExact | Kind::RecvFrom | Kind::Read => Amount::In(3),
            Kind::Send | Kind::SendAll | Kind::SendTo | Kind::Write => Amount::Out(0..3),
            _ => Amount::Nothing,
        };
        assert_eq!((op.amount.clone(), op.deadline), (amount, None));
        let op = op.deadline(Duration::from_secs(9));
        assert_eq!(op.deadline, Some(Duration::from_secs(9)));
    }
}

#[test]
fn rejected_returns_operation_buffer_and_reason() {
    let bytes = b"data".to_vec();
    let memory = bytes.as_ptr();
    let error = io::Error::new(io::ErrorKind::NotFound, "unknown or stale key");
    let rejected = Rejected::new(Op::send(key(), bytes, ..), error);
    assert_eq!(rejected.kind(), io::ErrorKind::NotFound);
    assert_eq!(rejected.error().to_string(), "unknown or stale key");
    assert_eq!(rejected.to_string(), "the operation was not accepted: unknown or stale key");
    let source = rejected.source().expect("there is a reason");
    assert_eq!(source.to_string(), "unknown or stale key");
    let debug = format!("{rejected:?}");
    assert!(debug.contains("Send") && debug.contains("stale key"), "{debug}");
    assert!(!debug.contains("100, 97, 116, 97"), "Debug does not print the buffer: {debug}");
    let (op, error) = rejected.into_parts();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let buf = op.into_buf();
    assert_eq!((&buf[..], buf.as_ptr()), (&b"data"[..], memory));
}

#[test]
fn rejected_converts_to_its_io_error() {
    let fails = || -> io::Result<()> {
        let error = io::Error::from_raw_os_error(libc::EBADF);
        Err(Rejected::new(Op::nop(), error))?
    };
    assert_eq!(fails().expect_err("the rejection is an error").raw_os_error(), Some(libc::EBADF));
    assert!(size_of::<Rejected>() <= size_of::<usize>(), "a Result with Rejected is small");
}

#[test]
fn is_canceled_means_ecanceled() {
    let completion = |result| {
        let id = OpId { poller: 0, slot: OpSlot { index: 0, generation: 0 } };
        let (token, buf) = (Token(0), Buf::None);
        Completion { token, id, transferred: 0, result, buf, more: false }
    };
    assert!(!completion(Ok(Outcome::Done)).is_canceled());
    assert!(!completion(Err(io::ErrorKind::TimedOut.into())).is_canceled());
    assert!(!completion(Err(io::Error::from_raw_os_error(libc::EPIPE))).is_canceled());
    assert!(completion(Err(io::Error::from_raw_os_error(libc::ECANCELED))).is_canceled());
}

/// Completions are copied once for each operation.
#[test]
fn completion_is_at_most_96_bytes() {
    assert_eq!(size_of::<Buf>(), 24);
    assert_eq!(size_of::<Outcome>(), 40);
    assert!(size_of::<Completion>() <= 96, "{}", size_of::<Completion>());
}
