//! Random scripts of receives with many results, which share a small pool: every byte once and in
//! order, one last completion each, every buffer home at the end, and nobody waits beside a buffer.

use super::super::kernel::{End, Kernel, World};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Poller;
use crate::reactor::Reactor;
use crate::selector::Triggers;
use crate::sys::buf::Buf;
use crate::sys::pool::{BufferPool, PoolBuf};
use proptest::prelude::*;
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How many connections there are.
const LINKS: usize = 4;
/// How many bytes a buffer has.
const SIZE: usize = 7;

#[derive(Clone, Debug)]
enum Step {
    /// One with many results, or a plain one; and whether its deadline has passed.
    Submit {
        link: usize,
        is_multi: bool,
        is_late: bool,
    },
    Cancel(prop::sample::Index),
    PeerSends(usize, usize),
    PeerEnds(usize),
    Land(prop::sample::Index, End),
    Deregister(usize),
    /// The program is done with so many of the buffers that it has.
    Drop(usize),
    Wait {
        capacity: usize,
        takes: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (link, is_late) = (|| 0..LINKS, || prop::bool::weighted(0.1));
    let end = prop_oneof![
        12 => Just(End::Real(60)),
        1 => Just(End::WouldBlock),
        1 => Just(End::Interrupted),
        1 => Just(End::Canceled),
        3 => Just(End::NoBuffer),
        1 => Just(End::Unknown),
    ];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        5 => (link(), any::<bool>(), is_late()).prop_map(|(link, is_multi, is_late)| {
            Step::Submit { link, is_multi, is_late }
        }),
        1 => index().prop_map(Step::Cancel),
        6 => (link(), 1..40_usize).prop_map(|(link, count)| Step::PeerSends(link, count)),
        1 => link().prop_map(Step::PeerEnds),
        8 => (index(), end).prop_map(|(at, end)| Step::Land(at, end)),
        1 => link().prop_map(Step::Deregister),
        5 => (1..4_usize).prop_map(Step::Drop),
        8 => (1..6_usize, 0..7_usize).prop_map(|(capacity, takes)| Step::Wait { capacity, takes }),
    ]
}

struct Link {
    key: Option<Key>,
    ours: Arc<UnixStream>,
    peer: UnixStream,
    sent: usize,
    got: usize,
    has_ended: bool,
}

/// What stands at a place of a stream.
fn byte(link: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 11) as u8 ^ (link as u8).wrapping_mul(77)
}

impl Link {
    fn take(&mut self, index: usize, bytes: &[u8]) {
        for &its in bytes {
            assert_eq!(its, byte(index, self.got), "byte {} of {index}", self.got);
            self.got += 1;
        }
    }
}

#[derive(Debug)]
struct Submitted {
    id: OpId,
    link: usize,
    is_multi: bool,
    /// It may end so.
    may_stop: bool,
    is_over: bool,
}

struct Play {
    reactor: Reactor<Kernel>,
    world: Rc<RefCell<World>>,
    pool: BufferPool,
    links: Vec<Link>,
    all: Vec<Submitted>,
    /// What the program has.
    kept: Vec<PoolBuf>,
    events: Events,
}

impl Play {
    fn new(native: Triggers, seed: u64, emulated: u64, limit: usize) -> Self {
        let (kernel, world) = Kernel::new(native, seed);
        (world.borrow_mut().emulated, world.borrow_mut().stubborn) = (emulated, 20);
        let mut reactor = Reactor::new(Backend::Other("kernel"), kernel).expect("a page");
        let links = (0..LINKS).map(|at| {
            let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
            let (ours, none) = (Arc::new(ours), Interest::empty());
            let key = reactor.register(ours.clone(), Token(at), none, Mode::Edge);
            let key = Some(key.expect("it is fresh"));
            Link { key, ours, peer, sent: 0, got: 0, has_ended: false }
        });
        let links = links.collect();
        let pool = BufferPool::new(SIZE, limit).expect("there is something in it");
        let (all, kept, events) = (Vec::new(), Vec::new(), Events::with_capacity(1));
        Play { reactor, world, pool, links, all, kept, events }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { link, is_multi, is_late } => self.submit(link, is_multi, is_late),
            Step::Cancel(at) if !self.all.is_empty() => {
                let at = at.index(self.all.len());
                let one = &mut self.all[at];
                one.may_stop |= self.reactor.cancel(one.id).is_ok();
            }
            Step::Cancel(_) => {}
            Step::PeerSends(link, count) => self.send(link, count),
            Step::PeerEnds(link) => {
                self.links[link].has_ended = true;
                // It fails when the other end has been closed.
                let _ = self.links[link].peer.shutdown(Shutdown::Write);
            }
            Step::Land(at, end) => {
                let mut world = self.world.borrow_mut();
                if !world.taken.is_empty() {
                    let at = at.index(world.taken.len());
                    world.end(at, end);
                }
            }
            Step::Deregister(link) => {
                let Some(key) = self.links[link].key.take() else { return };
                self.reactor.deregister(key).expect("it is open");
                let its = self.all.iter_mut().filter(|one| one.link == link);
                its.for_each(|one| one.may_stop = true);
            }
            Step::Drop(count) => drop(self.kept.drain(..count.min(self.kept.len()))),
            Step::Wait { capacity, takes } => self.wait(capacity, takes),
        }
        self.reactor.verify();
        self.check_waiting();
    }

    fn submit(&mut self, link: usize, is_multi: bool, is_late: bool) {
        let Some(key) = self.links[link].key else { return };
        let op = match is_multi {
            true => Op::recv_multi(key, &self.pool),
            false => Op::recv(key, vec![], 9),
        };
        let op = if is_late { op.deadline(Duration::ZERO) } else { op };
        let id = self.reactor.submit(op, Token(self.all.len())).expect("all is in order");
        self.all.push(Submitted { id, link, is_multi, may_stop: is_late, is_over: false });
    }

    fn send(&mut self, at: usize, count: usize) {
        let link = &mut self.links[at];
        let bytes: Vec<_> = (link.sent..link.sent + count).map(|place| byte(at, place)).collect();
        if !link.has_ended {
            link.sent += link.peer.write(&bytes).unwrap_or(0);
        }
    }

    fn wait(&mut self, capacity: usize, takes: usize) {
        if self.events.completed() == 0 {
            self.events = Events::with_capacity(capacity);
        }
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("nothing goes wrong");
        assert!(self.events.is_empty() && !self.events.woken(), "nobody has woken it");
        for _ in 0..takes {
            let Some(completion) = self.events.completions().next() else { break };
            self.complete(completion);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let one = &mut self.all[completion.token.0];
        assert!(completion.id == one.id && !one.is_over, "{one:?}");
        let link = &mut self.links[one.link];
        let Completion { buf, result, more, transferred, .. } = completion;
        if more {
            assert!(one.is_multi && matches!(result, Ok(Outcome::Done)), "{one:?}: {result:?}");
            let Buf::Pool(buf) = buf else { panic!("{one:?}: {buf:?}") };
            assert!(!buf.is_empty() && buf.len() == transferred, "{one:?}");
            link.take(one.link, &buf);
            return self.kept.push(buf);
        }
        one.is_over = true;
        link.take(one.link, &buf);
        assert_eq!((buf.len(), buf.is_empty() || !one.is_multi), (transferred, true));
        match result {
            Ok(Outcome::Done) if transferred == 0 => {
                assert!(link.has_ended && link.got == link.sent, "{one:?}: not the end");
            }
            Ok(Outcome::Done) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                assert!(one.may_stop, "{one:?}: {error}");
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => assert!(one.may_stop, "{one:?}"),
            other => panic!("{one:?}: {other:?}"),
        }
    }

    /// How many can be lent.
    fn free(&self) -> usize {
        self.pool.limit() - self.pool.made() + self.pool.idle()
    }

    /// Whoever waits while there is a buffer is served by the next wait, which does not sleep; and
    /// who does not receive keeps none.
    fn check_waiting(&self) {
        let operations = &self.reactor.operations;
        let slots = || self.all.iter().map(|one| one.id.slot);
        let is_anybody_waiting = slots().any(|slot| operations.awaits_buffer(slot));
        assert!(!slots().any(|slot| operations.keeps_buffer(slot)), "others could use it");
        if is_anybody_waiting && self.free() > 0 {
            let has_landed = self.world.borrow().has_landed();
            let has_rung = self.reactor.parker.take_notifications();
            assert!(has_rung || has_landed, "nobody will serve them");
            if has_rung {
                self.reactor.parts.notifier.wake_by_ref();
            }
        }
    }

    /// Has everything come to its end.
    fn finish(mut self) {
        for link in 0..LINKS {
            self.step(&Step::PeerSends(link, 50));
            self.step(&Step::PeerEnds(link));
        }
        let mut looks = 0;
        while !self.all.iter().all(|one| one.is_over) {
            let mut at = 0;
            while at < self.world.borrow().taken.len() {
                // One that goes on is asked again the next time.
                let before = self.world.borrow().taken.len();
                self.world.borrow_mut().end(at, End::Real(usize::MAX));
                at += usize::from(self.world.borrow().taken.len() == before);
            }
            self.step(&Step::Wait { capacity: 4, takes: 8 });
            self.step(&Step::Drop(1));
            looks += 1;
            let open: Vec<_> = self.all.iter().filter(|one| !one.is_over).collect();
            assert!(looks < 3000, "they never complete: {open:?}");
        }
        let Play { reactor, world, pool, links, kept, events, .. } = self;
        drop((reactor, events));
        assert_eq!(pool.made() - pool.idle(), kept.len(), "the others are at home");
        drop(kept);
        assert!(pool.made() == pool.idle() && pool.made() <= pool.limit());
        assert!(world.borrow().taken.is_empty());
        for (at, mut link) in links.into_iter().enumerate() {
            assert_eq!(Arc::strong_count(&link.ours), 1, "the poller has gone");
            link.ours.set_nonblocking(true).expect("a socket");
            let mut rest = vec![0; 1 << 16];
            let count = (&*link.ours).read(&mut rest).unwrap_or(0);
            link.take(at, &rest[..count]);
            assert_eq!(link.got, link.sent, "what was sent has come or is still there");
        }
    }
}

fn check(native: Triggers, seed: u64, emulated: u64, limit: usize, steps: &[Step]) {
    let mut play = Play::new(native, seed, emulated, limit);
    steps.iter().for_each(|step| play.step(step));
    play.finish();
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_kernel_that_does_all(steps in any_steps(), seed in any::<u64>(), limit in 1..6_usize) {
        check(Triggers::EDGE, seed, 0, limit, &steps);
    }

    #[test]
    fn a_kernel_that_does_some(
        steps in any_steps(), seed in any::<u64>(), limit in 1..6_usize, emulated in 10..90_u64,
        kind in 0..3_u8,
    ) {
        check(Triggers::from_bits_truncate(1 << kind), seed, emulated, limit, &steps);
    }

    #[test]
    fn a_kernel_that_does_nothing(
        steps in any_steps(), seed in any::<u64>(), limit in 1..6_usize, kind in 0..3_u8,
    ) {
        check(Triggers::from_bits_truncate(1 << kind), seed, 100, limit, &steps);
    }

    /// What nobody has taken goes with it, and the buffers come home, but for those that the
    /// kernel has.
    #[test]
    fn a_poller_that_goes_in_between(
        steps in any_steps(), seed in any::<u64>(), limit in 1..6_usize, emulated in 0..100_u64,
    ) {
        let mut play = Play::new(Triggers::EDGE, seed, emulated, limit);
        steps.iter().for_each(|step| play.step(step));
        let Play { reactor, world, pool, links, kept, events, .. } = play;
        drop((reactor, events));
        // Results that the mechanism has not told of are its own.
        world.borrow_mut().forget();
        prop_assert_eq!(pool.made() - pool.idle(), kept.len());
        prop_assert!(links.iter().all(|link| Arc::strong_count(&link.ours) == 1));
    }
}
