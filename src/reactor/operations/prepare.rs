//! The preparation of an operation's call.

use super::queue::SourceOps;
use crate::op::{Address, Amount, Kind, Message, Op, OpArgs};
use crate::sys::io_call::{self, Call, SpareCalls, Transfer, Work};
use crate::sys::pool::BufferPool;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// Returns the call of an operation, if any.
pub(super) fn call_of(op: &Op, is_socket: bool) -> Option<Call> {
    Some(match op.kind {
        Kind::Accept => Call::Accept,
        Kind::AcceptMulti => Call::AcceptMulti,
        Kind::Recv | Kind::RecvExact => Call::Recv,
        Kind::RecvMulti => Call::RecvMulti,
        Kind::RecvFrom => Call::RecvFrom,
        Kind::RecvMsg => Call::RecvMsg,
        // On a socket recv(2) and send(2) do the same, and have flags.
        Kind::Read if is_socket => Call::Recv,
        Kind::Read => Call::Read,
        Kind::Splice => Call::Splice,
        Kind::Connect => Call::Connect,
        Kind::Send | Kind::SendAll => Call::Send,
        Kind::SendTo => Call::SendTo,
        Kind::SendMsg => Call::SendMsg,
        Kind::Write if is_socket => Call::Send,
        Kind::Write => Call::Write,
        Kind::ReadAt => Call::ReadAt(op.offset),
        Kind::WriteAt => Call::WriteAt(op.offset),
        Kind::Sync { data_only } => Call::Sync { data_only },
        Kind::Open => Call::Open,
        Kind::Shutdown(_) | Kind::Timeout | Kind::Nop => return None,
    })
}

/// Prepares the work of an operation, if any, and takes its buffer.
pub(super) fn prepare(
    op: &mut Op,
    source: Option<&SourceOps>,
    target: Option<&SourceOps>,
    spare_calls: &mut SpareCalls,
) -> io::Result<Option<Work>> {
    let is_socket = source.is_some_and(|source| source.mode.is_socket());
    let number = source.map(|source| source.fd);
    let Some(call) = call_of(op, is_socket) else { return Ok(None) };
    if let OpArgs::Pool(pool) = &op.with {
        let number = number.unwrap_or(-1);
        return receive_from(pool).map(|pool| Some(Work::Receive { fd: number, pool }));
    }
    // -1 would be the file's own position.
    if i64::try_from(op.offset).is_err() {
        return Err(invalid("the offset exceeds `i64::MAX`"));
    }
    let part = part_of(&op.amount, call)?;
    let with = match target {
        Some(target) => io_call::CallArgs::Target(target.fd),
        None => call_args(&op.with)?,
    };
    let mut cell = spare_calls.take();
    match cell.load(number, call, &mut op.buf, part, with) {
        Ok(()) => Ok(Some(Work::Call(cell))),
        Err(error) => {
            spare_calls.keep(cell);
            Err(error)
        }
    }
}

/// Returns a handle to the pool of a receive.
fn receive_from(pool: &BufferPool) -> io::Result<BufferPool> {
    if pool.is_forked_child() {
        let cause = "the pool belongs to the process that this one was forked from";
        return Err(io::Error::other(cause));
    }
    Ok(pool.clone())
}

/// Returns the arguments of a call besides file and bytes.
fn call_args(with: &OpArgs) -> io::Result<io_call::CallArgs> {
    Ok(match with {
        OpArgs::Nothing | OpArgs::Target(_) | OpArgs::Time(_) | OpArgs::Pool(_) => {
            io_call::CallArgs::Nothing
        }
        OpArgs::Address(address) => {
            io_call::CallArgs::Message(io_call::Message::boxed(address.to_name()?))
        }
        OpArgs::Message(message) => {
            let Message { to, files, control } = &**message;
            let name = to.as_ref().map(Address::to_name).transpose()?;
            let control = control.iter().map(|its| (its.level, its.kind, &*its.data));
            let control: Vec<_> = control.collect();
            let message = io_call::Message::with(name, files.clone(), &control)?;
            io_call::CallArgs::Message(message)
        }
        OpArgs::Path(open) => {
            let (path, options) = &**open;
            let (flags, mode) = options.to_flags()?;
            let path = CString::new(path.as_os_str().as_bytes());
            let path = path.map_err(|_| invalid("the path contains a zero byte"))?;
            io_call::CallArgs::path(path, flags, mode)
        }
    })
}

/// Returns the bytes that an operation is to move.
pub(super) fn part_of(amount: &Amount, call: Call) -> io::Result<Transfer<'_>> {
    Ok(match amount {
        Amount::Nothing => Transfer::Nothing,
        Amount::In(0) => return Err(invalid("the amount to receive is 0")),
        Amount::In(most) if call == Call::Splice => Transfer::Unbuffered(*most),
        Amount::In(most) => Transfer::In(*most),
        Amount::IntoEach(each) => Transfer::IntoEach(each),
        Amount::OutOfEach => Transfer::OutOfEach,
        Amount::Out(range) if range.start > range.end => {
            return Err(invalid("the range starts after its end"));
        }
        Amount::Out(range) => Transfer::Out(range.start, range.len()),
    })
}

pub(super) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
