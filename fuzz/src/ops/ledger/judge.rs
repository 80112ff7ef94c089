//! Whether what has become of an operation of a source is one of the things that may.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::door::Door;
use super::super::flow::Mismatch;
use super::super::line::Line;
use super::super::parcel::identity;
use super::super::script::{Kind, PLACES, Verb};
use super::{Entry, doom_of};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use quintpoll::{Address, Completion, MessageFlags, Outcome};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;

pub(super) fn broken<T>(clause: &'static str, what: String) -> Result<T, Failure> {
    Err(Failure { clause, what })
}

/// What was moved must be what comes next, and the result one that the plain call may give.
pub(super) fn judge_source(
    entry: &Entry,
    verb: Verb,
    completion: &Completion,
    is_stopped: bool,
    line: &mut Line,
    size: usize,
) -> Verdict {
    let moved = completion.transferred;
    let is_exact = matches!(verb, Verb::RecvExact | Verb::SendAll);
    // What is asked for is a buffer of the pool.
    let asked = if verb == Verb::RecvMulti { size } else { entry.asked };
    expect(moved <= asked, "C5", || "more than was asked for".to_owned())?;
    let is_half = moved > 0 && completion.result.is_err();
    expect(!is_half || is_exact, "X1", || "failed, and has moved something".to_owned())?;
    if let Some(errno) = doom_of(verb, line.kind).filter(|_| !is_stopped) {
        let error = completion.result.as_ref().err().and_then(io::Error::raw_os_error);
        return expect(error == Some(errno), "C2", || format!("it must fail with {errno}"));
    }
    let mismatch = |what: Mismatch| Failure { clause: "C3", what };
    match verb {
        Verb::ShutdownWrite | Verb::ShutdownRead | Verb::ShutdownBoth => {
            judge_shut_down(verb, completion, is_stopped, line)
        }
        verb if verb.sends() => {
            let is_message = line.kind.has_messages() && completion.result.is_ok();
            if moved > 0 || is_message {
                line.note_sent(&entry.payload[..moved]).map_err(mismatch)?;
                if !line.is_alone() {
                    line.passing.note_told(&entry.files).map_err(mismatch)?;
                }
            }
            judge_sent(entry, is_exact, verb, completion, is_stopped, line)
        }
        _ => {
            let data = &completion.buf[entry.prefix.min(completion.buf.len())..];
            let data = if verb == Verb::RecvMulti { &completion.buf } else { data };
            let mut files = Vec::new();
            let is_cut = line.kind.has_messages() && line.inbound.exceeds(asked) && moved > 0;
            let is_message = line.kind.has_messages() && completion.result.is_ok();
            // The last of many brings nothing: of what is still there, others will hear.
            let is_last = verb == Verb::RecvMulti && !completion.more;
            // A receive that has ended in the kernel is told of later, when the next message may
            // be there: that has bytes, see `Line::portion`.
            let is_empty = is_message && line.inbound.begins_empty() && !is_last;
            if moved > 0 || is_empty {
                files = line.inbound.take(data, asked).map_err(mismatch)?;
            } else if completion.result.is_ok() {
                let is_end = line.is_at_end() && !completion.more;
                expect(is_end, "C5", || "an end that is none".to_owned())?;
            }
            if let Some(address) = completion.result.as_ref().ok().and_then(from_of) {
                judge_sender(address, moved, line)?;
            }
            if let Ok(Outcome::Message(message)) = &completion.result {
                let flags = message.flags;
                judge_passed(&message.files, &files)?;
                let is_right = flags.contains(MessageFlags::TRUNCATED) == is_cut
                    && !flags.contains(MessageFlags::CONTROL_TRUNCATED);
                expect(is_right, "C2", || format!("{flags:?}, cut: {is_cut}"))?;
            }
            judge_received(entry, verb, completion, is_stopped, line)
        }
    }
}

fn from_of(outcome: &Outcome) -> Option<Option<&Address>> {
    match outcome {
        Outcome::Received { from } => Some(from.as_ref()),
        Outcome::Message(message) => Some(message.from.as_ref()),
        _ => None,
    }
}

fn judge_sender(told: Option<&Address>, moved: usize, line: &Line) -> Verdict {
    let is_right = match (told, &line.address) {
        (Some(Address::Inet(told)), Some(Address::Inet(far))) => told == far,
        (Some(Address::Unix(told)), Some(Address::Unix(far))) => {
            told.as_abstract_name() == far.as_abstract_name()
        }
        // Nothing may be an end, which nobody has sent.
        (None, Some(_)) => moved == 0 && line.is_at_end(),
        (Some(Address::Unix(told)), None) => told.is_unnamed(),
        // Streams of TCP have no need to say it.
        (Some(_), None) => line.kind == Kind::Tcp,
        (None, None) => true,
        _ => false,
    };
    expect(is_right, "C2", || format!("it comes from {:?}, not {told:?}", line.address))
}

/// Each file once, in order, and close-on-exec.
fn judge_passed(passed: &[OwnedFd], files: &[u64]) -> Verdict {
    let told: Vec<u64> = passed.iter().map(|file| identity(file.as_raw_fd())).collect();
    expect(told == files, "C2", || format!("files {told:?} for {files:?}"))?;
    let flags = |file: &OwnedFd| fcntl(file, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
    let is_private = |file| flags(file).is_ok_and(|flags| flags.contains(FdFlag::FD_CLOEXEC));
    expect(passed.iter().all(is_private), "C6", || "a file that a child inherits".to_owned())
}

fn judge_received(
    entry: &Entry,
    verb: Verb,
    completion: &Completion,
    is_stopped: bool,
    line: &Line,
) -> Verdict {
    let is_exact = verb == Verb::RecvExact;
    match &completion.result {
        Ok(Outcome::Received { .. }) if verb == Verb::RecvFrom => Ok(()),
        Ok(Outcome::Message(_)) if verb == Verb::RecvMsg => Ok(()),
        Ok(Outcome::Done) if !matches!(verb, Verb::RecvFrom | Verb::RecvMsg) => {
            let is_whole = !is_exact || completion.transferred == entry.asked;
            expect(is_whole, "C1", || "ended early".to_owned())
        }
        Ok(_) => broken("C2", "an outcome of something else".to_owned()),
        Err(_) if is_stopped => Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            let is_right = is_exact && line.is_at_end();
            expect(is_right, "C5", || "an end that is none".to_owned())
        }
        Err(error) => {
            let is_right = line.is_erratic && is_loss(error);
            expect(is_right, "C2", || "it can't fail so".to_owned())
        }
    }
}

fn judge_sent(
    entry: &Entry,
    is_exact: bool,
    verb: Verb,
    completion: &Completion,
    is_stopped: bool,
    line: &mut Line,
) -> Verdict {
    let moved = completion.transferred;
    match &completion.result {
        Ok(Outcome::Done) => {
            let is_whole = moved == entry.asked;
            let is_partly = !is_exact && !line.kind.has_messages() && moved > 0;
            expect(is_whole || is_partly, "C1", || "ended early".to_owned())
        }
        Ok(_) => broken("C2", "an outcome of something else".to_owned()),
        Err(_) if is_stopped => Ok(()),
        Err(error) => {
            let is_right = (line.is_alone() || line.is_mute) && is_loss(error);
            // To look for somebody by name is another matter.
            let is_of_line = verb != Verb::SendTo && !line.kind.is_network();
            if error.raw_os_error() == Some(libc::ECONNREFUSED) && is_of_line {
                // Who finds out that he is alone forgets what he has not read.
                line.inbound.clear();
            }
            expect(is_right, "C2", || "it can't fail so".to_owned())
        }
    }
}

fn judge_shut_down(
    verb: Verb,
    completion: &Completion,
    is_stopped: bool,
    line: &mut Line,
) -> Verdict {
    match &completion.result {
        Ok(_) => {
            line.is_mute |= verb != Verb::ShutdownRead;
            line.is_deaf |= verb != Verb::ShutdownWrite;
            Ok(())
        }
        Err(_) if is_stopped => Ok(()),
        // A TCP connection that both have ended is none any more.
        Err(error) => {
            let is_over = line.is_erratic || (line.kind == Kind::Tcp && line.is_ended);
            expect(is_over && is_loss(error), "C2", || "it can't fail so".to_owned())
        }
    }
}

/// What was moved must be what comes next in the one, and goes out of the other.
pub(super) fn judge_spliced(
    entry: &Entry,
    [from, to]: [usize; 2],
    completion: &Completion,
    is_stopped: bool,
    lines: &mut [Line; PLACES],
) -> Verdict {
    let moved = completion.transferred;
    let mismatch = |what: Mismatch| Failure { clause: "C3", what };
    expect(moved <= entry.asked, "C5", || "more than was asked for".to_owned())?;
    let bytes = lines[from].inbound.first(moved);
    lines[from].inbound.take(&bytes, moved).map_err(mismatch)?;
    let there = bytes.len();
    expect(there == moved, "C3", || format!("{there} bytes were there"))?;
    lines[to].note_sent(&bytes).map_err(mismatch)?;
    match &completion.result {
        Ok(Outcome::Done) => {
            let is_end = moved > 0 || lines[from].is_at_end();
            expect(is_end, "C5", || "an end that is none".to_owned())
        }
        Ok(_) => broken("C2", "an outcome of something else".to_owned()),
        Err(_) if is_stopped => expect(moved == 0, "X1", || "stopped half way".to_owned()),
        Err(error) => {
            let has_pipe = [from, to].iter().any(|&place| !lines[place].kind.is_socket());
            let is_right = match error.raw_os_error() {
                Some(libc::EINVAL) => !has_pipe,
                _ => {
                    let is_lost = lines[to].is_alone() || lines[to].is_mute;
                    (is_lost || lines[from].is_erratic) && is_loss(error)
                }
            };
            expect(is_right, "C2", || "it can't fail so".to_owned())
        }
    }
}

/// Gives whose connection it is.
pub(super) fn judge_accepted(
    is_multi: bool,
    completion: &Completion,
    is_stopped: bool,
    door: &mut Door,
) -> Result<Option<usize>, Failure> {
    expect(completion.transferred == 0, "C1", || "moved something".to_owned())?;
    match &completion.result {
        Ok(Outcome::Accepted { socket, peer }) => {
            let goes_on = completion.more == is_multi;
            expect(goes_on, "C8", || "goes on, or does not".to_owned())?;
            let flags = fcntl(socket, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
            let is_nonblocking = flags.is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK));
            let flags = fcntl(socket, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain);
            let is_private = flags.is_ok_and(|flags| flags.contains(FdFlag::FD_CLOEXEC));
            expect(is_nonblocking && is_private, "C6", || "accepted otherwise".to_owned())?;
            door.note_accepted(socket, peer.as_ref()).map(Some)
        }
        Ok(_) => broken("C2", "an outcome of something else".to_owned()),
        Err(error) => {
            expect(is_stopped, "C2", || format!("it can't fail so: {error}"))?;
            Ok(None)
        }
    }
}

/// Whether an error may tell that the other side has gone.
fn is_loss(error: &io::Error) -> bool {
    let losses = [libc::EPIPE, libc::ECONNRESET, libc::ECONNREFUSED, libc::ENOTCONN];
    error.raw_os_error().is_some_and(|errno| losses.contains(&errno))
}
