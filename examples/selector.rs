//! A mechanism of one's own, here ppoll(2): a selector, of which `Reactor` makes a `Poller`. The
//! suite (tests/it/outside.rs) shows what it lacks: `O_PATH` (R7) and very many descriptors.

use nix::{errno::Errno, poll::PollFd, poll::PollFlags, poll::ppoll};
use quintpoll::spi::*;
use quintpoll::{Backend, Events, Interest, Mode, Poller, Token};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{collections::HashMap, io, io::Write, os::unix::net::UnixStream, sync::Arc};

/// The armed slots, each with a duplicate of its descriptor, and the waker.
struct Mine(HashMap<Slot, (OwnedFd, PollFlags)>, WakeHandle);

impl Selector for Mine {
    fn native(&self) -> Triggers {
        Triggers::LEVEL // the reactor emulates edge and one-shot mode
    }
    fn arm(&mut self, slot: Slot, fd: BorrowedFd<'_>, arm: ArmRequest) -> io::Result<ArmOutcome> {
        let flags = PollFlags::from_bits_retain(arm.bits().bits() as i16);
        self.0.insert(slot, (fd.try_clone_to_owned()?, flags));
        Ok(ArmOutcome::whole(arm.trigger))
    }
    fn disarm(&mut self, slot: Slot, _: BorrowedFd<'_>) {
        self.0.remove(&slot);
    }
    fn remove(&mut self, slot: Slot, fd: BorrowedFd<'_>) {
        self.disarm(slot, fd);
    }
    fn wait(&mut self, deadline: Deadline, out: &mut Vec<Report>) -> io::Result<WaitOutcome> {
        let mut fds: Vec<_> = self.0.values().map(|it| PollFd::new(it.0.as_fd(), it.1)).collect();
        fds.push(PollFd::new(self.1.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut fds, deadline.remaining().map(Into::into), None) {
            Ok(0) => return Ok(WaitOutcome::TimedOut),
            Err(Errno::EINTR) => return Ok(WaitOutcome::Interrupted),
            ready => ready?,
        };
        self.1.drain();
        for (slot, fd) in self.0.keys().zip(&fds) {
            if fd.revents() != Some(PollFlags::empty()) {
                out.push(Report::Hint(*slot)); // nix has no `POLLRDHUP`: the reactor polls for it
            }
        }
        Ok(WaitOutcome::Events)
    }
    fn wake_handle(&self) -> WakeHandle {
        self.1.clone()
    }
}

fn main() -> io::Result<()> {
    let mine = Mine(HashMap::new(), WakeHandle::new()?);
    let mut poller = Reactor::new(Backend::Other("mine"), mine)?;
    let (here, mut there) = UnixStream::pair()?;
    poller.register(Arc::new(here), Token(7), Interest::READABLE, Mode::Edge)?;
    there.write_all(b"hello")?;
    let mut events = Events::with_capacity(8);
    poller.wait(&mut events, None)?;
    println!("{}: {:?}", poller.backend(), events.iter().next());
    Ok(())
}
