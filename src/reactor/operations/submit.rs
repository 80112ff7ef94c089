//! What is accepted, and the call that is made of it.

use super::entry::{Cause, OpEntry, OpState};
use super::io::Io;
use super::machine::Operations;
use super::queue::{Queue, SourceOps};
use super::send_now::Early;
use crate::event::{Interest, Token};
use crate::key::{OpSlot, Slot};
use crate::op::{Address, Amount, Kind, Message, Op, OpArgs, Outcome};
use crate::sys::file::SourceFd;
use crate::sys::io_call::{self, Call, Part, SpareCalls, Work};
use crate::sys::io_mode::FdIoMode;
use crate::sys::pool::BufferPool;
use std::ffi::CString;
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

/// Returns the call of an operation, if it makes one.
fn call_of(op: &Op, is_socket: bool) -> Option<Call> {
    Some(match op.kind {
        Kind::Accept => Call::Accept,
        Kind::AcceptMulti => Call::AcceptMulti,
        Kind::Recv | Kind::RecvExact => Call::Recv,
        Kind::RecvMulti => Call::RecvMulti,
        Kind::RecvFrom => Call::RecvFrom,
        Kind::RecvMsg => Call::RecvMsg,
        // What read(2) and write(2) do to a socket, and these have flags.
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

/// Returns the direction that an operation occupies on its source (M1).
pub(in crate::reactor) fn direction_of(op: &Op) -> Interest {
    Queue::of(op.kind).dir()
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Operations {
    /// Adds a source for operations, which has had none.
    ///
    /// # Errors
    ///
    /// What fstat(2) says: the descriptor was closed.
    pub(in crate::reactor) fn add_source(
        &mut self,
        slot: Slot,
        interest: Interest,
        io: &mut impl Io,
    ) -> io::Result<()> {
        let mode = io.mode_of(slot)?;
        let number = io.file(slot).map_or(-1, SourceFd::number);
        self.insert_source(slot, number, mode, interest);
        Ok(())
    }

    /// The same, where it is known how calls on the source are kept from blocking.
    pub(in crate::reactor) fn insert_source(
        &mut self,
        slot: Slot,
        number: RawFd,
        mode: FdIoMode,
        interest: Interest,
    ) {
        self.sources.insert(slot, SourceOps::new(number, mode, interest));
    }

    /// Accepts an operation of these sources, which were added, and takes its buffer out of `op`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, `OutOfMemory`, `Other` with the cause in words; `op` is as before.
    pub(in crate::reactor) fn submit(
        &mut self,
        op: &mut Op,
        token: Token,
        source: Option<Slot>,
        target: Option<Slot>,
        io: &mut impl Io,
    ) -> io::Result<OpSlot> {
        if op.skip_success && !op.kind.may_skip_success() {
            return Err(invalid("only what brings nothing by its success can skip it"));
        }
        let early = match source {
            Some(slot) => self.send_now(op, token, slot, io),
            None => Early::NotMade,
        };
        if let Early::Completed(op) = early {
            return Ok(op);
        }
        let its = source.and_then(|slot| self.sources.get(slot));
        let others = target.and_then(|slot| self.sources.get(slot));
        let source = source.map(|slot| (slot, shared_queue(its, Queue::of(op.kind))));
        let target = target.map(|slot| (slot, shared_queue(others, Queue::Write)));
        let work = prepare(op, its, others, &mut self.spare_calls)?;
        let mut entry = OpEntry::new(token, op.kind, work);
        (entry.source, entry.skips_success) = (source, op.skip_success);
        if let Some(target) = target {
            entry.set_target(target);
        }
        let slot = self.table.insert(entry);
        if let Some(after) = op.deadline {
            self.table.set_deadline(slot, io.now().checked_add(after));
        }
        match op.kind {
            Kind::Nop => self.complete(slot, Ok(Outcome::Done), io),
            Kind::Timeout => {
                let time = match op.with {
                    OpArgs::Time(time) => io.now().checked_add(time),
                    _ => None,
                };
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.state = match time {
                        Some(_) => OpState::AwaitingTime,
                        None => OpState::AwaitingStop,
                    };
                }
                self.table.set_time(slot, time);
            }
            // It waits for nothing, and is in no queue.
            Kind::Shutdown(Shutdown::Read) => self.shut_down(slot, Shutdown::Read, io),
            kind => {
                // (An `open` is in no queue.)
                let mut is_head = source.is_none_or(|place| self.enqueue(slot, kind, place));
                if let Some(place) = target {
                    is_head &= self.enqueue(slot, kind, place);
                }
                if is_head {
                    self.run_first(slot, kind, early, io);
                }
            }
        }
        self.run(io);
        Ok(slot)
    }

    /// Advances an operation whose turn it is at once.
    fn run_first(&mut self, op: OpSlot, kind: Kind, early: Early, io: &mut impl Io) {
        match early {
            Early::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return self.on_would_block(op, false, io);
            }
            Early::Failed(error) => return self.on_error(op, error, io),
            Early::Sent(count) => {
                if let Some(call) = self.call_mut(op) {
                    call.note_sent(count);
                }
            }
            Early::NotMade | Early::Completed(_) => {}
        }
        self.run_one(op, kind, Cause::Turn, io);
    }

    /// Adds an operation to a queue of its. Returns true if nothing there holds it up.
    #[inline]
    fn enqueue(&mut self, op: OpSlot, kind: Kind, (slot, queue): (Slot, Queue)) -> bool {
        let Some(source) = self.sources.get_mut(slot) else { return true };
        if kind == Kind::Connect {
            // What was reset is another connection.
            source.is_reset = false;
        }
        source.pending += 1;
        let is_first = self.table.enqueue(op, (slot, queue), source.queue_mut(queue));
        if !is_first {
            self.silent.note_successor();
        }
        match queue {
            Queue::Read => is_first && !self.is_connecting(slot),
            Queue::Write => is_first,
            Queue::Unordered => true,
        }
    }
}

/// Returns the queue of a source: where reading and writing share a position, there is one.
fn shared_queue(source: Option<&SourceOps>, queue: Queue) -> Queue {
    let shares = queue == Queue::Write && source.is_some_and(|its| its.mode.has_position());
    if shares { Queue::Read } else { queue }
}

/// Makes what an operation has the kernel do, if anything, and takes its buffer.
fn prepare(
    op: &mut Op,
    source: Option<&SourceOps>,
    target: Option<&SourceOps>,
    spare_calls: &mut SpareCalls,
) -> io::Result<Option<Work>> {
    let is_socket = source.is_some_and(|source| source.mode.is_socket());
    let number = source.map(|source| source.number);
    let Some(call) = call_of(op, is_socket) else { return Ok(None) };
    if let OpArgs::Pool(pool) = &op.with {
        let number = number.unwrap_or(-1);
        return receive_from(pool).map(|pool| Some(Work::Receive { number, pool }));
    }
    // -1 would be the file's own position.
    if i64::try_from(op.offset).is_err() {
        return Err(invalid("an offset beyond the end of any file"));
    }
    let part = part_of(&op.amount, call)?;
    let with = match target {
        Some(target) => io_call::CallArgs::Target(target.number),
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

/// Returns a handle on the pool of a receive.
fn receive_from(pool: &BufferPool) -> io::Result<BufferPool> {
    if pool.is_forked_child() {
        let cause = "this pool belongs to the process that this one was forked from";
        return Err(io::Error::other(cause));
    }
    Ok(pool.clone())
}

/// What the call is told with its file and its bytes.
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
            let path = path.map_err(|_| invalid("a path with a zero in it"))?;
            io_call::CallArgs::path(path, flags, mode)
        }
    })
}

/// Returns which bytes an operation is to move.
fn part_of(amount: &Amount, call: Call) -> io::Result<Part<'_>> {
    Ok(match amount {
        Amount::Nothing => Part::Nothing,
        Amount::In(0) => return Err(invalid("nothing is to be received")),
        Amount::In(most) if call == Call::Splice => Part::Through(*most),
        Amount::In(most) => Part::In(*most),
        Amount::IntoEach(each) => Part::IntoEach(each),
        Amount::OutOfEach => Part::OutOfEach,
        Amount::Out(range) if range.start > range.end => {
            return Err(invalid("the range ends before it begins"));
        }
        Amount::Out(range) => Part::Out(range.start, range.len()),
    })
}
