//! Whether what has become of an operation of a source is one of the things that may.

use super::super::super::model::{Failure, Verdict, expect};
use super::super::flow::Mismatch;
use super::super::line::Line;
use super::super::script::{Kind, Verb};
use super::{Entry, doom_of};
use nix::libc;
use quintpoll::{Completion, Outcome};
use std::io::{self, ErrorKind};

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
) -> Verdict {
    let moved = completion.transferred;
    let is_exact = matches!(verb, Verb::RecvExact | Verb::SendAll);
    expect(moved <= entry.asked, "C5", || "more than was asked for".to_owned())?;
    let is_half = moved > 0 && completion.result.is_err();
    expect(!is_half || is_exact, "X1", || "failed, and has moved something".to_owned())?;
    if let Some(errno) = doom_of(verb, line.kind).filter(|_| !is_stopped) {
        let error = completion.result.as_ref().err().and_then(io::Error::raw_os_error);
        return expect(error == Some(errno), "C2", || format!("it must fail with {errno}"));
    }
    let mismatch = |what: Mismatch| Failure { clause: "C3", what };
    match verb {
        Verb::Recv | Verb::RecvExact | Verb::Read => {
            let data = &completion.buf[entry.prefix..];
            let is_message = line.kind.has_messages() && completion.result.is_ok();
            if moved > 0 || (is_message && !line.inbound.is_empty()) {
                line.inbound.take(data, entry.asked).map_err(mismatch)?;
            } else if completion.result.is_ok() {
                let ended = line.is_at_end();
                expect(ended, "C5", || "an end that is none".to_owned())?;
            }
            judge_received(entry, is_exact, completion, is_stopped, line)
        }
        Verb::Send | Verb::SendAll | Verb::Write => {
            let is_message = line.kind.has_messages() && completion.result.is_ok();
            if moved > 0 || is_message {
                line.note_sent(&entry.payload[..moved]).map_err(mismatch)?;
            }
            judge_sent(entry, is_exact, completion, is_stopped, line)
        }
        Verb::ShutdownWrite | Verb::ShutdownRead | Verb::ShutdownBoth => {
            judge_shut_down(verb, completion, is_stopped, line)
        }
    }
}

fn judge_received(
    entry: &Entry,
    is_exact: bool,
    completion: &Completion,
    is_stopped: bool,
    line: &Line,
) -> Verdict {
    match &completion.result {
        Ok(Outcome::Done) => {
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
            if error.raw_os_error() == Some(libc::ECONNREFUSED) {
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

/// Whether an error may tell that the other side has gone.
fn is_loss(error: &io::Error) -> bool {
    let losses = [libc::EPIPE, libc::ECONNRESET, libc::ECONNREFUSED, libc::ENOTCONN];
    error.raw_os_error().is_some_and(|errno| losses.contains(&errno))
}
