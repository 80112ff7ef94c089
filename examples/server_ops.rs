//! An echo server by operations; the README shows it.

use quintpoll::{Backend, Events, Op, Outcome, Token};
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

const ACCEPT: Token = Token(0);
const RECEIVE: Token = Token(1);
const SEND: Token = Token(2);
const PAUSE: Token = Token(3);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7777".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);

    let mut poller = Backend::from_env()?.open()?;
    // The listener is used by operations, and is not watched.
    let listener = poller.register_for_ops(Arc::new(listener))?;
    poller.submit(Op::accept_multi(listener), ACCEPT)?;
    let mut peers = HashMap::new(); // the peer of each receive and send that is in flight
    let mut events = Events::with_capacity(64);
    loop {
        poller.wait(&mut events, None)?;
        for done in events.completions() {
            let peer = peers.remove(&done.id);
            let (peer, op, token) = match (done.token, peer, done.result) {
                (ACCEPT, _, Ok(Outcome::Accepted { socket, .. })) => {
                    let socket = Arc::new(socket);
                    let peer = poller.register_for_ops(socket)?;
                    (peer, Op::recv(peer, Vec::new(), 4096), RECEIVE)
                }
                (RECEIVE, Some(peer), Ok(_)) if done.transferred > 0 => {
                    (peer, Op::send_all(peer, done.buf, ..), SEND)
                }
                (SEND, Some(peer), Ok(_)) => (peer, Op::recv(peer, Vec::new(), 4096), RECEIVE),
                (_, Some(peer), _end_or_error) => {
                    poller.deregister(peer)?; // the poller is the only owner: closes the socket
                    continue;
                }
                (ACCEPT, None, _error) => {
                    // EMFILE, for one, leaves the connection in the queue: accept again later.
                    poller.submit(Op::timeout(Duration::from_millis(250)), PAUSE)?;
                    continue;
                }
                (_, None, _) => {
                    // Only the pause is left: each receive and send has a peer.
                    poller.submit(Op::accept_multi(listener), ACCEPT)?;
                    continue;
                }
            };
            peers.insert(poller.submit(op, token)?, peer);
        }
    }
}
