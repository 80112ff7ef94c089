//! Wakes a poller from another thread.
//!
//! The thread sends its results through a channel. Wakes coalesce: one wake may stand for several
//! results, so the program takes all that are there. A signal alone does not end a wait; a signal
//! handler may call the waker too.

use quintpoll::{Backend, Events};
use std::io;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

fn main() -> io::Result<()> {
    // The environment variable QUINTPOLL_BACKEND names the backend, as in all small examples.
    let mut poller = Backend::from_env()?.open()?;
    let waker = poller.waker();
    let (sender, results) = mpsc::channel();
    thread::spawn(move || {
        for number in 1..=3_u64 {
            thread::sleep(Duration::from_millis(20)); // stands for the work
            // Sending fails when the receiver has gone: nothing is left to do then.
            if sender.send(number * number).is_err() {
                return;
            }
            waker.wake();
        }
        drop(sender);
        waker.wake();
    });

    let mut events = Events::with_capacity(64);
    loop {
        poller.wait(&mut events, None)?;
        // Sources that are ready would be in `events` too: a wake is no event, and takes no room.
        if !events.woken() {
            continue;
        }
        loop {
            match results.try_recv() {
                Ok(result) => println!("result: {result}"),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    println!("the thread has ended");
                    return Ok(());
                }
            }
        }
    }
}
