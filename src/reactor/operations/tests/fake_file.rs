//! A file without a kernel: the bytes of its peer, the bytes written to it, and the results of
//! calls.

use crate::event::Interest;
use crate::poll_bits::PollBits;
use crate::sys::file::FileType;
use crate::sys::io_call::{Call, CallResult, IoCall};
use crate::sys::io_mode::FdIoMode;
use crate::sys::pool::PoolBuf;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The bytes of a block of a disk file.
pub(super) const BLOCK: usize = 8;
pub(super) const BLOCKS: usize = 12;
/// The content of a block at first, and after a write.
pub(super) const OLD: u8 = 0x11;
pub(super) const NEW: u8 = 0xee;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A stream socket, initially unconnected if `connects`.
    Stream {
        connects: bool,
    },
    Datagrams,
    Listener,
    Pipe,
    /// A file with a position.
    Disk,
}

/// The connection state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Unconnected,
    UnderWay,
    Refused,
    Connected,
}

#[derive(Debug)]
pub(super) struct FakeFile {
    pub(super) kind: FileKind,
    id: usize,
    /// Counts the bytes sent by the peer, and those received by calls.
    pub(super) sent: usize,
    pub(super) received: usize,
    packets: VecDeque<Vec<u8>>,
    /// The bytes of each datagram sent by the peer.
    pub(super) packet_log: Vec<Vec<u8>>,
    connections: VecDeque<OwnedFd>,
    /// The descriptors of all connections of a listener.
    pub(super) accept_log: Vec<RawFd>,
    pub(super) has_ended: bool,
    pub(super) is_read_shut: bool,
    pub(super) is_write_shut: bool,
    /// The peer has reset the connection, and no call has returned that.
    has_reset: bool,
    pub(super) was_reset: bool,
    connection: Connection,
    /// The number of bytes that can be written.
    room: usize,
    /// All written bytes.
    pub(super) written: Vec<u8>,
    blocks: Vec<u8>,
    /// Poll reports it readable regardless of calls.
    seems_readable: bool,
}

/// Returns the byte that a file's peer sends at this position.
pub(super) fn byte(file: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 11) as u8 ^ (file as u8).wrapping_mul(77)
}

fn errno<T>(code: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(code))
}

impl FakeFile {
    pub(super) fn new(id: usize, kind: FileKind, seems_readable: bool) -> Self {
        let connection = match kind {
            FileKind::Stream { connects: true } => Connection::Unconnected,
            _ => Connection::Connected,
        };
        let is_disk = kind == FileKind::Disk;
        FakeFile {
            kind,
            id,
            sent: if is_disk { 150 } else { 0 },
            received: 0,
            packets: VecDeque::new(),
            packet_log: Vec::new(),
            connections: VecDeque::new(),
            accept_log: Vec::new(),
            has_ended: is_disk,
            is_read_shut: false,
            is_write_shut: false,
            has_reset: false,
            was_reset: false,
            connection,
            room: if is_disk { 1 << 30 } else { 40 },
            written: Vec::new(),
            blocks: vec![OLD; BLOCKS * BLOCK],
            seems_readable,
        }
    }

    pub(super) fn mode(&self) -> FdIoMode {
        let (shape, socket_type) = match self.kind {
            FileKind::Stream { .. } | FileKind::Listener => {
                (FileType::Socket, Some(libc::SOCK_STREAM))
            }
            FileKind::Datagrams => (FileType::Socket, Some(libc::SOCK_DGRAM)),
            FileKind::Pipe => (FileType::Pipe, None),
            FileKind::Disk => (FileType::Regular, None),
        };
        FdIoMode::of_type(shape, socket_type)
    }

    /// Adds bytes, a datagram or a connection of the peer.
    pub(super) fn peer_sends(&mut self, count: usize) {
        if self.has_ended || self.is_read_shut || self.was_reset {
            return;
        }
        match self.kind {
            FileKind::Datagrams => {
                let serial = self.packet_log.len();
                let bytes: Vec<u8> = (0..count % 12).map(|at| byte(serial, at)).collect();
                self.packet_log.push(bytes.clone());
                self.packets.push_back(bytes);
            }
            FileKind::Listener => {
                let socket = OwnedFd::from(File::open("/dev/null").expect("every Linux has it"));
                self.accept_log.push(socket.as_raw_fd());
                self.connections.push_back(socket);
            }
            FileKind::Stream { .. } if self.connection != Connection::Connected => {}
            FileKind::Stream { .. } | FileKind::Pipe | FileKind::Disk => self.sent += count,
        }
    }

    /// Makes room for `count` bytes, which the peer has read.
    pub(super) fn peer_reads(&mut self, count: usize) {
        self.room = self.room.saturating_add(count);
    }

    pub(super) fn peer_ends(&mut self) {
        let is_connected = self.connection == Connection::Connected;
        let is_byte_file = !matches!(self.kind, FileKind::Listener | FileKind::Datagrams);
        self.has_ended |= is_connected && is_byte_file;
    }

    /// Resets the connection; bytes not received are lost.
    pub(super) fn peer_resets(&mut self) {
        let is_stream = matches!(self.kind, FileKind::Stream { .. });
        if is_stream && self.connection == Connection::Connected && !self.was_reset {
            (self.has_reset, self.was_reset) = (true, true);
            self.sent = self.received;
        }
    }

    /// Ends a connect in progress.
    pub(super) fn peer_answers(&mut self, accepts: bool) {
        if self.connection == Connection::UnderWay {
            self.connection = if accepts { Connection::Connected } else { Connection::Refused };
        }
    }

    pub(super) fn shutdown(&mut self, how: Shutdown) {
        self.is_read_shut |= how != Shutdown::Write;
        self.is_write_shut |= how != Shutdown::Read;
    }

    /// Returns a value that changes with each event the kernel would report.
    pub(super) fn progress(&self) -> impl PartialEq + use<> {
        let is_over = (self.has_ended, self.has_reset, self.connection);
        // No event reports that the peer of a datagram socket has room.
        let room = if self.kind == FileKind::Datagrams { 0 } else { self.room };
        (self.sent, self.packets.len(), self.connections.len(), is_over, room)
    }

    pub(super) fn has_bytes(&self) -> bool {
        self.sent > self.received || !self.packets.is_empty()
    }

    /// Returns the bits of poll(2).
    pub(super) fn bits(&self) -> PollBits {
        let is_over = self.has_ended || self.is_read_shut || self.was_reset;
        let is_connected = self.connection == Connection::Connected;
        let is_refused = matches!(self.connection, Connection::Refused | Connection::Unconnected);
        let has_something = self.has_bytes() || !self.connections.is_empty() || self.seems_readable;
        let mut bits = PollBits::empty();
        bits.set(PollBits::IN, (is_connected && (has_something || is_over)) || is_refused);
        bits.set(PollBits::RDHUP, is_over);
        // A datagram socket with a full peer queue is reported writable.
        let has_room = self.room > 0 || self.kind == FileKind::Datagrams;
        let verify_fails = self.is_write_shut || self.was_reset;
        bits.set(PollBits::OUT, (is_connected && (has_room || verify_fails)) || is_refused);
        bits.set(PollBits::ERR, is_refused || self.has_reset);
        bits
    }

    pub(super) fn ready(&self) -> Interest {
        self.bits().ready(Interest::READABLE | Interest::WRITABLE)
    }

    /// Makes a call that does not block and moves at most `max` bytes.
    pub(super) fn call(&mut self, call: &mut IoCall, max: usize) -> io::Result<CallResult> {
        let (_, call_kind, left) = call.wanted();
        match call_kind {
            Call::Accept | Call::AcceptMulti => match self.connections.pop_front() {
                Some(socket) => Ok(CallResult::Accepted(socket)),
                None => errno(libc::EAGAIN),
            },
            Call::Connect => self.connect(),
            Call::Recv | Call::RecvFrom | Call::RecvMsg | Call::Read => {
                let is_packet = self.kind == FileKind::Datagrams;
                let bytes = self.take_received(if is_packet { left } else { left.min(max) })?;
                assert_eq!(call.receive(&bytes), bytes.len());
                Ok(CallResult::Moved(bytes.len()))
            }
            Call::Send | Call::SendTo | Call::SendMsg | Call::Write => {
                let bytes = call.to_send().to_vec();
                let count = self.write(&bytes, max)?;
                call.note_sent(count);
                Ok(CallResult::Moved(count))
            }
            Call::ReadAt(offset) => {
                let at = offset as usize + call.moved();
                let count = left.min(max).min(self.blocks.len().saturating_sub(at));
                assert_eq!(call.receive(&self.blocks[at..at + count]), count);
                Ok(CallResult::Moved(count))
            }
            Call::WriteAt(offset) => {
                let at = offset as usize + call.moved();
                let bytes = call.to_send().to_vec();
                let count = bytes.len().min(max);
                self.blocks[at..at + count].copy_from_slice(&bytes[..count]);
                call.note_sent(count);
                Ok(CallResult::Moved(count))
            }
            Call::Sync { .. } => Ok(CallResult::Done),
            Call::Open | Call::Splice | Call::RecvMulti => {
                panic!("{call_kind:?} is not a call on one file")
            }
        }
    }

    fn connect(&mut self) -> io::Result<CallResult> {
        match self.connection {
            Connection::Connected => Ok(CallResult::Connected),
            Connection::Unconnected | Connection::UnderWay => {
                self.connection = Connection::UnderWay;
                errno(libc::EAGAIN)
            }
            Connection::Refused => {
                self.connection = Connection::Unconnected;
                errno(libc::ECONNREFUSED)
            }
        }
    }

    /// Takes at most `max` received bytes, or a whole datagram cut to that length.
    pub(super) fn take_received(&mut self, max: usize) -> io::Result<Vec<u8>> {
        self.check_connected()?;
        if std::mem::take(&mut self.has_reset) {
            return errno(libc::ECONNRESET);
        }
        if self.kind == FileKind::Datagrams {
            // A call that does not wait does not report a read shutdown.
            let Some(mut packet) = self.packets.pop_front() else { return errno(libc::EAGAIN) };
            packet.truncate(max);
            return Ok(packet);
        }
        let count = (self.sent - self.received).min(max);
        let is_over = self.has_ended || self.is_read_shut || self.was_reset;
        if count == 0 && !is_over {
            return errno(libc::EAGAIN);
        }
        let bytes = (self.received..self.received + count).map(|at| byte(self.id, at)).collect();
        self.received += count;
        Ok(bytes)
    }

    fn check_connected(&mut self) -> io::Result<()> {
        match self.connection {
            Connection::Connected => Ok(()),
            Connection::UnderWay => errno(libc::EAGAIN),
            Connection::Unconnected => errno(libc::ENOTCONN),
            Connection::Refused => {
                self.connection = Connection::Unconnected;
                errno(libc::ECONNREFUSED)
            }
        }
    }

    /// Receives into the free part of a buffer.
    pub(super) fn receive(&mut self, buf: &mut PoolBuf) -> io::Result<usize> {
        self.check_connected()?;
        let would_block = self.bits().ready(Interest::READABLE).is_empty() || !self.can_receive();
        if would_block {
            return errno(libc::EAGAIN);
        }
        let bytes = self.take_received(buf.capacity())?;
        io::Write::write(buf, &bytes)
    }

    /// Returns true if a receive would not block.
    fn can_receive(&self) -> bool {
        let is_over = self.has_ended || self.is_read_shut || self.was_reset;
        self.has_bytes() || (is_over && self.kind != FileKind::Datagrams)
    }

    /// Writes at most `max` of these bytes; a datagram entirely or not at all.
    pub(super) fn write(&mut self, bytes: &[u8], max: usize) -> io::Result<usize> {
        self.check_connected()?;
        if std::mem::take(&mut self.has_reset) {
            return errno(libc::ECONNRESET);
        }
        if self.is_write_shut || self.was_reset {
            return errno(libc::EPIPE);
        }
        let is_packet = self.kind == FileKind::Datagrams;
        let count = if is_packet { bytes.len() } else { bytes.len().min(max).min(self.room) };
        if (count == 0 && !bytes.is_empty()) || count > self.room {
            return errno(libc::EAGAIN);
        }
        self.room -= count;
        self.written.extend(&bytes[..count]);
        Ok(count)
    }

    /// Splices at most `max` bytes to another file.
    pub(super) fn splice_to(&mut self, to: &mut FakeFile, max: usize) -> io::Result<usize> {
        self.check_connected()?;
        let has_room = to.room > 0 || to.is_write_shut || to.was_reset;
        if !self.can_receive() || !has_room {
            return errno(libc::EAGAIN);
        }
        let is_end = !self.has_bytes() && !self.has_reset;
        let max = if to.is_write_shut || to.was_reset { 1 } else { max.min(to.room) };
        if is_end {
            return Ok(0);
        }
        if self.has_reset {
            return self.take_received(0).map(|bytes| bytes.len());
        }
        if to.is_write_shut || to.was_reset {
            return to.write(&[0], 1);
        }
        let bytes = self.take_received(max)?;
        to.write(&bytes, max)
    }
}
