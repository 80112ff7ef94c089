//! What is accepted, and what is made of it.

use super::super::Reactor;
use super::lane::Lane;
use super::table::State;
use crate::key::{Key, Slot};
use crate::op::{Address, Amount, Kind, Message, Op, With};
use crate::selector::Selector;
use crate::sys::buf::Buf;
use crate::sys::prepared::{self, Call, Part, Prepared};
use std::ffi::CString;
use std::io;
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;

/// What a kind of operation is to the kernel, and the order in which it stands.
fn call_of(kind: Kind, is_socket: bool) -> Option<(Call, Lane)> {
    Some(match kind {
        Kind::Accept => (Call::Accept, Lane::Read),
        Kind::AcceptMulti => (Call::AcceptMulti, Lane::Read),
        Kind::Recv | Kind::RecvExact => (Call::Recv, Lane::Read),
        Kind::RecvMulti => (Call::RecvMulti, Lane::Read),
        Kind::RecvFrom => (Call::RecvFrom, Lane::Read),
        Kind::RecvMsg => (Call::RecvMsg, Lane::Read),
        // What read(2) and write(2) do to a socket, and these have flags.
        Kind::Read if is_socket => (Call::Recv, Lane::Read),
        Kind::Read => (Call::Read, Lane::Read),
        Kind::Splice => (Call::Splice, Lane::Read),
        Kind::Connect => (Call::Connect, Lane::Write),
        Kind::Send | Kind::SendAll => (Call::Send, Lane::Write),
        Kind::SendTo => (Call::SendTo, Lane::Write),
        Kind::SendMsg => (Call::SendMsg, Lane::Write),
        Kind::Write if is_socket => (Call::Send, Lane::Write),
        Kind::Write => (Call::Write, Lane::Write),
        Kind::ReadAt(offset) => (Call::ReadAt(offset), Lane::Loose),
        Kind::WriteAt(offset) => (Call::WriteAt(offset), Lane::Loose),
        Kind::Sync { data_only } => (Call::Sync { data_only }, Lane::Loose),
        Kind::Open => (Call::Open, Lane::Loose),
        Kind::Shutdown(_) | Kind::Timeout(_) | Kind::Nop => return None,
    })
}

pub(super) fn lane_of(kind: Kind) -> Lane {
    match kind {
        Kind::Shutdown(Shutdown::Read) => Lane::Read,
        Kind::Shutdown(Shutdown::Write | Shutdown::Both) => Lane::Write,
        kind => call_of(kind, false).map_or(Lane::Read, |(_, lane)| lane),
    }
}

/// Whether such an operation of a stream is told when it is reset.
pub(super) fn receives(kind: Kind) -> bool {
    call_of(kind, true).is_some_and(|(call, _)| call.is_recv())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Where an operation that was accepted stands, and what is made of it.
pub(super) struct Admitted {
    pub(super) place: Option<(Slot, Lane)>,
    pub(super) second: Option<(Slot, Lane)>,
    pub(super) state: State,
}

impl<S: Selector> Reactor<S> {
    /// Clauses P1, R4, M1 and C5.
    pub(super) fn admit(&mut self, op: &mut Op) -> io::Result<Admitted> {
        self.check_process()?;
        let Some(key) = op.key else {
            let state = match call_of(op.kind, false) {
                Some((call, _)) => prepare(op, None, call, with_of(&op.with)?)?,
                None => State::Timing,
            };
            return Ok(Admitted { place: None, second: None, state });
        };
        let slot = self.resolve(key)?;
        let mut with = with_of(&op.with)?;
        let mut second = None;
        if let With::Target(target) = op.with {
            let (place, number) = self.admit_target(key, target)?;
            (with, second) = (prepared::With::Target(number), Some(place));
        }
        let lane = self.check_lane(slot, lane_of(op.kind))?;
        let Some(registration) = self.registry.get_mut(slot) else { return Err(gone()) };
        let (work, fd) = registration.work()?;
        let state = match (op.kind, call_of(op.kind, work.manner.is_socket())) {
            (Kind::Shutdown(how), _) => State::ShuttingDown(how),
            (_, Some((call, _))) => prepare(op, Some(fd), call, with)?,
            (_, None) => State::Timing,
        };
        Ok(Admitted { place: Some((slot, lane)), second, state })
    }

    /// Where in the target an operation stands that moves bytes there, and its file's number.
    fn admit_target(&mut self, from: Key, to: Key) -> io::Result<((Slot, Lane), i32)> {
        if from == to {
            return Err(invalid("from a source to itself"));
        }
        let slot = self.resolve(to)?;
        let lane = self.check_lane(slot, Lane::Write)?;
        let Some(registration) = self.registry.get(slot) else { return Err(gone()) };
        Ok(((slot, lane), registration.source.number()))
    }

    /// Clause M1. Gives the lane in which such operations of this source stand.
    fn check_lane(&mut self, slot: Slot, lane: Lane) -> io::Result<Lane> {
        let Some(registration) = self.registry.get_mut(slot) else { return Err(gone()) };
        if registration.latch.interest().intersects(lane.dir()) {
            return Err(invalid("the source is watched for what the operation would wait for"));
        }
        let (work, _) = registration.work()?;
        // Reading and writing share the file's position.
        let is_shared = lane == Lane::Write && work.manner.has_position();
        Ok(if is_shared { Lane::Read } else { lane })
    }
}

fn gone() -> io::Error {
    invalid("the registration has gone")
}

/// What the call is told beside its file and its bytes.
fn with_of(with: &With) -> io::Result<prepared::With> {
    Ok(match with {
        With::Nothing | With::Target(_) => prepared::With::Nothing,
        With::Address(address) => {
            prepared::With::Message(prepared::Message::boxed(address.to_name()?))
        }
        With::Message(Message { to, files, control }) => {
            let name = to.as_ref().map(Address::to_name).transpose()?;
            let control = control.iter().map(|its| (its.level, its.kind, &*its.data));
            let control: Vec<_> = control.collect();
            let message = prepared::Message::with(name, files.clone(), &control)?;
            prepared::With::Message(message)
        }
        With::Pool(pool) if pool.is_foreign() => {
            return Err(io::Error::other(
                "this pool belongs to the process that this one was forked from",
            ));
        }
        With::Pool(pool) => prepared::With::pool(pool.clone()),
        With::Path(path, options) => {
            let (flags, mode) = options.to_flags()?;
            let path = CString::new(path.as_os_str().as_bytes());
            let path = path.map_err(|_| invalid("a path with a zero in it"))?;
            prepared::With::path(path, flags, mode)
        }
    })
}

fn prepare(
    op: &mut Op,
    fd: Option<std::os::fd::BorrowedFd<'_>>,
    call: Call,
    with: prepared::With,
) -> io::Result<State> {
    if let Call::ReadAt(offset) | Call::WriteAt(offset) = call {
        // -1 would be the file's own position.
        if i64::try_from(offset).is_err() {
            return Err(invalid("an offset beyond the end of any file"));
        }
    }
    let part = match &op.amount {
        Amount::Nothing => Part::Nothing,
        Amount::In(0) => return Err(invalid("nothing is to be received")),
        Amount::In(most) if call == Call::Splice => Part::Through(*most),
        Amount::In(most) => Part::In(*most),
        Amount::IntoEach(each) => Part::IntoEach(each.clone()),
        Amount::OutOfEach => Part::OutOfEach,
        Amount::Out(range) if range.start > range.end => {
            return Err(invalid("the range ends before it begins"));
        }
        Amount::Out(range) => Part::Out(range.start, range.len()),
    };
    let buf = std::mem::replace(&mut op.buf, Buf::None);
    match Prepared::with(fd, call, buf, part, with) {
        Ok(prepared) => Ok(State::Here(prepared)),
        Err((error, buf)) => {
            op.buf = buf;
            Err(error)
        }
    }
}
