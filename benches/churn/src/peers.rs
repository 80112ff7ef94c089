//! The server of this bench on mio, and on an io_uring without a library.

use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LISTENER: Token = Token(usize::MAX);

pub(crate) fn mio(listener: TcpListener) -> Result<()> {
    let mut poll = Poll::new()?;
    listener.set_nonblocking(true)?;
    let mut listener = mio::net::TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut streams, mut free) = (Vec::<Option<mio::net::TcpStream>>::new(), Vec::new());
    let (mut events, mut buf) = (Events::with_capacity(64), [0; 4096]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                loop {
                    let mut stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    };
                    let at = free.pop().unwrap_or_else(|| {
                        streams.push(None);
                        streams.len() - 1
                    });
                    poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
                    streams[at] = Some(stream);
                }
                continue;
            }
            let at = event.token().0;
            let Some(stream) = &mut streams[at] else { continue };
            // A short read has drained the socket, and new data is another edge.
            match stream.read(&mut buf) {
                Ok(count) if count > 0 => _ = stream.write(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => {
                    poll.registry().deregister(stream)?;
                    streams[at] = None;
                    free.push(at);
                }
            }
        }
    }
}

/// The type of an SQE, in the lower half of `user_data`.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const CLOSE: u64 = 3;
const SIZE: usize = 4096;

fn user_data(fd: i32, kind: u64) -> u64 {
    (fd as u64) << 32 | kind
}

/// A server on a bare ring, with a multishot accept, and closes by SQE.
pub(crate) fn raw_ring(listener: TcpListener) -> Result<()> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(4096);
    let mut ring: IoUring = builder.build(256)?;
    let accept = || {
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()));
        accept.build().user_data(user_data(0, ACCEPT))
    };
    // By descriptor: the received bytes, which are sent back.
    let mut buffers = Vec::<Box<[u8; SIZE]>>::new();
    let mut queue = vec![accept()];
    loop {
        for entry in queue.drain(..) {
            push(&mut ring, &entry)?;
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let (user_data, result) = (completion.user_data(), completion.result());
            let (fd, kind) = ((user_data >> 32) as i32, user_data & u64::from(u32::MAX));
            match kind {
                ACCEPT => {
                    if !cqueue::more(completion.flags()) {
                        queue.push(accept());
                    }
                    if result >= 0 {
                        while buffers.len() <= result as usize {
                            buffers.push(Box::new([0; SIZE]));
                        }
                        queue.push(receive(result, &mut buffers));
                    }
                }
                RECEIVE if result > 0 => {
                    let start = buffers[fd as usize].as_ptr();
                    let send = opcode::Send::new(types::Fd(fd), start, result as u32);
                    let send = send.flags(libc::MSG_NOSIGNAL);
                    queue.push(send.build().user_data(self::user_data(fd, SEND)));
                }
                SEND if result > 0 => queue.push(receive(fd, &mut buffers)),
                RECEIVE | SEND => {
                    let close = opcode::Close::new(types::Fd(fd)).build();
                    queue.push(close.user_data(self::user_data(fd, CLOSE)));
                }
                _ => {}
            }
        }
    }
}

fn receive(fd: i32, buffers: &mut [Box<[u8; SIZE]>]) -> Entry {
    let start = buffers[fd as usize].as_mut_ptr();
    let receive = opcode::Recv::new(types::Fd(fd), start, SIZE as u32);
    receive.build().user_data(user_data(fd, RECEIVE))
}

fn push(ring: &mut IoUring, entry: &Entry) -> Result<()> {
    loop {
        // SAFETY: an SQE points to a boxed array, which is never freed, and which one SQE at a time
        // uses.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        ring.submit()?;
    }
}
