//! The server on quintpoll, in three styles.

use quintpoll::{
    Backend, Buf, BufferPool, Completion, Events, Interest, Key, Mode, Op, Outcome, Poller, Token,
};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LISTENER: Token = Token(usize::MAX);
const CAPACITY: usize = 64;

/// Serves by readiness events.
pub(crate) fn readiness(backend: Backend, listener: TcpListener) -> Result<()> {
    let mut poller = backend.open()?;
    listener.set_nonblocking(true)?;
    let listener = Arc::new(listener);
    poller.register(listener.clone(), LISTENER, Interest::READABLE, Mode::Level)?;
    let (mut streams, mut free) = (Vec::<Option<(Arc<TcpStream>, Key)>>::new(), Vec::new());
    let (mut events, mut buf) = (Events::with_capacity(CAPACITY), [0; 4096]);
    loop {
        poller.wait(&mut events, None)?;
        for event in &events {
            if event.token == LISTENER {
                loop {
                    let stream = match listener.accept() {
                        Ok((stream, _)) => Arc::new(stream),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error.into()),
                    };
                    stream.set_nonblocking(true)?;
                    let at = free.pop().unwrap_or_else(|| {
                        streams.push(None);
                        streams.len() - 1
                    });
                    let source = stream.clone();
                    let key =
                        poller.register(source, Token(at), Interest::READABLE, Mode::Level)?;
                    streams[at] = Some((stream, key));
                }
                continue;
            }
            let at = event.token.0;
            let Some((stream, key)) = &streams[at] else { continue };
            match (&**stream).read(&mut buf) {
                Ok(count) if count > 0 => _ = (&**stream).write(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => {
                    poller.deregister(*key)?;
                    streams[at] = None;
                    free.push(at);
                }
            }
        }
    }
}

/// Serves by operations, with one receive after the other.
pub(crate) fn completion(backend: Backend, listener: TcpListener) -> Result<()> {
    let mut spare = Vec::new();
    serve(backend, listener, |poller, key, at, old| {
        let mut buf = match old {
            Buf::Vec(buf) => buf,
            _ => spare.pop().unwrap_or_default(),
        };
        buf.clear();
        poller.submit(Op::recv(key, buf, 4096), Token(2 * at))?;
        Ok(())
    })
}

/// Serves by operations, with one multishot receive for each connection.
pub(crate) fn multishot(backend: Backend, listener: TcpListener) -> Result<()> {
    let pool = BufferPool::new(4096, 1024)?;
    serve(backend, listener, move |poller, key, at, old| {
        if let Buf::None = old {
            poller.submit(Op::recv_multi(key, &pool), Token(2 * at))?;
        }
        Ok(())
    })
}

/// Serves by operations. Calls `receive` for a new connection, and with the buffer of each answer
/// that was sent.
fn serve(
    backend: Backend,
    listener: TcpListener,
    mut receive: impl FnMut(&mut dyn Poller, Key, usize, Buf) -> Result<()>,
) -> Result<()> {
    let mut poller = backend.open()?;
    let listener = poller.register_for_ops(Arc::new(listener))?;
    poller.submit(Op::accept_multi(listener), LISTENER)?;
    let (mut keys, mut free) = (Vec::<Option<Key>>::new(), Vec::new());
    let mut events = Events::with_capacity(CAPACITY);
    loop {
        poller.wait(&mut events, None)?;
        for completion in events.completions() {
            let Completion { token, result, buf, transferred, .. } = completion;
            if token == LISTENER {
                let Outcome::Accepted { socket, .. } = result? else { continue };
                let stream = Arc::new(TcpStream::from(socket));
                let key = poller.register_for_ops(stream)?;
                let at = free.pop().unwrap_or_else(|| {
                    keys.push(None);
                    keys.len() - 1
                });
                keys[at] = Some(key);
                receive(&mut *poller, key, at, Buf::None)?;
                continue;
            }
            let at = token.0 / 2;
            let Some(key) = keys[at] else { continue };
            let has_ended = result.is_err() || transferred == 0;
            if has_ended {
                keys[at] = None;
                poller.deregister(key)?;
                free.push(at);
            } else if token.0 % 2 == 0 {
                poller.submit(Op::send_all(key, buf, ..), Token(2 * at + 1))?;
            } else {
                receive(&mut *poller, key, at, buf)?;
            }
        }
    }
}
