//! Random scripts of operations at offsets of a file, which are in no order: by a kernel, or by
//! threads, and side by side. Each block is what some write has left, and each read has seen it so.

use super::super::kernel::{End, Kernel, World};
use crate::backend::Backend;
use crate::event::{Events, Interest, Mode, Token};
use crate::key::Key;
use crate::op::{Completion, Op, OpId, Outcome};
use crate::poller::Poller;
use crate::reactor::Reactor;
use crate::selector::Triggers;
use crate::sys::buf::Buf;
use proptest::prelude::*;
use std::cell::RefCell;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many blocks the file has, and how many bytes a block has.
const BLOCKS: usize = 12;
const SIZE: usize = 64;
/// What is in the file at first.
const OLD: u8 = 0x11;
const NEW: u8 = 0xee;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// One block, or this and the next by two buffers.
    Read(usize, bool),
    /// To a block that nobody has written yet.
    Write,
    Sync,
}

#[derive(Clone, Debug)]
enum Step {
    Submit(What, bool),
    Cancel(prop::sample::Index),
    Land(prop::sample::Index, End),
    Wait(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        4 => (0..BLOCKS - 1, any::<bool>()).prop_map(|(at, both)| What::Read(at, both)),
        4 => Just(What::Write),
        1 => Just(What::Sync),
    ];
    let end = prop_oneof![
        8 => Just(End::Real(usize::MAX)),
        1 => Just(End::WouldBlock),
        1 => Just(End::Interrupted),
        1 => Just(End::Canceled),
    ];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (what, prop::bool::weighted(0.1)).prop_map(|(what, late)| Step::Submit(what, late)),
        1 => index().prop_map(Step::Cancel),
        5 => (index(), end).prop_map(|(at, end)| Step::Land(at, end)),
        4 => (1..5_usize).prop_map(Step::Wait),
    ]
}

/// What is known of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Old,
    /// A write is under way, or was.
    Either,
    New,
}

#[derive(Debug)]
struct Submitted {
    id: OpId,
    what: What,
    /// Which block it begins with; and what was known of that one and the next.
    block: usize,
    known: [Block; 2],
    memory: Vec<usize>,
    may_stop: bool,
    is_over: bool,
}

struct Play {
    reactor: Reactor<Kernel>,
    world: Rc<RefCell<World>>,
    file: Arc<File>,
    key: Option<Key>,
    blocks: [Block; BLOCKS],
    written: usize,
    all: Vec<Submitted>,
    events: Events,
}

fn file() -> Arc<File> {
    let file = tempfile::tempfile().expect("there is room");
    file.write_all_at(&[OLD; BLOCKS * SIZE], 0).expect("there is room");
    Arc::new(file)
}

fn places(buf: &Buf) -> Vec<usize> {
    match buf {
        Buf::Many(bufs) => bufs.iter().map(|one| one.as_ptr() as usize).collect(),
        one => vec![one.as_ptr() as usize],
    }
}

impl Play {
    fn new(seed: u64, (emulated, stubborn): (u64, u64)) -> Self {
        let (kernel, world) = Kernel::new(Triggers::EDGE, seed);
        (world.borrow_mut().emulated, world.borrow_mut().stubborn) = (emulated, stubborn);
        let mut reactor = Reactor::new(Backend::Other("kernel"), kernel).expect("a page");
        let file = file();
        let key = reactor.register(file.clone(), Token(usize::MAX), Interest::empty(), Mode::Edge);
        let key = Some(key.expect("a file is always ready"));
        let (blocks, all, events) = ([Block::Old; BLOCKS], Vec::new(), Events::with_capacity(4));
        Play { reactor, world, file, key, blocks, written: 0, all, events }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit(what, is_late) => self.submit(what, is_late),
            Step::Cancel(at) if !self.all.is_empty() => {
                let at = at.index(self.all.len());
                let one = &mut self.all[at];
                one.may_stop |= self.reactor.cancel(one.id).is_ok();
            }
            Step::Cancel(_) => {}
            Step::Land(at, end) => {
                let mut world = self.world.borrow_mut();
                if !world.taken.is_empty() {
                    let at = at.index(world.taken.len());
                    world.end(at, end);
                }
            }
            Step::Wait(capacity) => self.wait(capacity),
        }
        self.reactor.verify();
    }

    fn submit(&mut self, what: What, is_late: bool) {
        let Some(key) = self.key else { return };
        let block = match what {
            What::Read(at, _) => at,
            What::Write if self.written < BLOCKS - 1 => self.written,
            What::Write => return,
            What::Sync => 0,
        };
        let offset = (block * SIZE) as u64;
        let with_room = || Vec::with_capacity(SIZE);
        let (buf, known) = match what {
            What::Read(_, false) => (Buf::Vec(with_room()), self.blocks[block]),
            What::Read(_, true) => {
                (Buf::Many(vec![with_room().into(), with_room().into()]), self.blocks[block])
            }
            What::Write => (Buf::Vec(vec![NEW; SIZE]), Block::Either),
            What::Sync => (Buf::None, Block::Either),
        };
        let memory = places(&buf);
        let op = match what {
            What::Read(_, false) => Op::read_at(key, buf, SIZE, offset),
            What::Read(_, true) => {
                let each = buf.into_many().into_iter().map(|buf| (buf, SIZE));
                Op::read_at_vectored(key, each, offset)
            }
            What::Write => {
                self.written += 1;
                self.blocks[block] = Block::Either;
                Op::write_at(key, buf, .., offset)
            }
            What::Sync => Op::fdatasync(key),
        };
        let op = if is_late { op.deadline(Duration::ZERO) } else { op };
        let id = self.reactor.submit(op, Token(self.all.len())).expect("all is in order");
        let known = [known, self.blocks[block + 1]];
        let (may_stop, is_over) = (is_late, false);
        self.all.push(Submitted { id, what, block, known, memory, may_stop, is_over });
    }

    fn wait(&mut self, capacity: usize) {
        self.events = Events::with_capacity(capacity);
        self.reactor.wait(&mut self.events, Some(Duration::ZERO)).expect("nothing goes wrong");
        assert!(self.events.is_empty() && !self.events.woken());
        while let Some(completion) = self.events.completions().next() {
            self.complete(completion);
        }
    }

    fn complete(&mut self, completion: Completion) {
        let one = &mut self.all[completion.token.0];
        assert!(completion.id == one.id && !one.is_over && !completion.more, "{one:?}");
        one.is_over = true;
        let Completion { result, buf, transferred, .. } = completion;
        assert_eq!(places(&buf), one.memory, "the very buffers: {one:?}");
        let is_stopped = match &result {
            Ok(Outcome::Done) => false,
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => true,
            Err(error) if error.kind() == ErrorKind::TimedOut => true,
            other => panic!("{one:?}: {other:?}"),
        };
        assert!(!is_stopped || (one.may_stop && transferred == 0), "{one:?}: {transferred}");
        match one.what {
            What::Read(_, is_double) if !is_stopped => {
                let bufs = buf.into_many();
                assert_eq!(
                    (bufs.len(), transferred),
                    (1 + usize::from(is_double), SIZE * bufs.len())
                );
                for (at, buf) in bufs.iter().enumerate() {
                    assert_eq!(buf.len(), SIZE, "{one:?}");
                    check(buf, one.known[at], self.blocks[one.block + at]);
                }
            }
            What::Write if is_stopped => self.blocks[one.block] = Block::Old,
            What::Write => {
                assert_eq!(transferred, SIZE);
                self.blocks[one.block] = Block::New;
            }
            _ => assert_eq!(transferred, 0),
        }
    }

    /// Has all that is under way come to its end: the threads do so by themselves.
    fn settle(&mut self) {
        let watchdog = Instant::now() + Duration::from_secs(60);
        while !self.all.iter().all(|one| one.is_over) {
            let count = self.world.borrow().taken.len();
            (0..count).for_each(|_| {
                assert!(self.world.borrow_mut().end(0, End::Real(usize::MAX)), "no disk waits");
            });
            self.step(&Step::Wait(4));
            std::thread::yield_now();
            assert!(Instant::now() < watchdog, "they never complete: {:?}", self.all);
        }
    }

    fn finish(mut self) {
        self.settle();
        self.check_file();
        drop(self.reactor);
        assert_eq!(Arc::strong_count(&self.file), 1, "the poller has gone");
    }

    fn check_file(&self) {
        for (at, &known) in self.blocks.iter().enumerate() {
            let mut bytes = [0; SIZE];
            self.file.read_exact_at(&mut bytes, (at * SIZE) as u64).expect("it is long enough");
            assert_ne!(known, Block::Either, "its write is over");
            check(&bytes, known, known);
        }
    }
}

/// What was read has to be what was there, before or since.
fn check(bytes: &[u8], before: Block, since: Block) {
    let is_whole = |byte: u8| bytes.iter().all(|&its| its == byte);
    match (before, since) {
        (Block::New, _) => assert!(is_whole(NEW), "it was written before"),
        (_, Block::Old) => assert!(is_whole(OLD), "nobody has written it"),
        _ => assert!(bytes.iter().all(|&its| its == OLD || its == NEW)),
    }
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_kernel_or_threads_do_them_side_by_side(
        steps in any_steps(), seed in any::<u64>(),
        emulated in prop_oneof![Just(0), Just(100), 10..90_u64], stubborn in 0..60_u64,
    ) {
        let mut play = Play::new(seed, (emulated, stubborn));
        steps.iter().for_each(|step| play.step(step));
        play.finish();
    }

    /// The file stays open until the last of them is over, and what is not in the kernel's or a
    /// thread's hands ends at once.
    #[test]
    fn a_registration_that_goes_in_between(
        steps in any_steps(), seed in any::<u64>(),
        emulated in prop_oneof![Just(0), Just(100), 10..90_u64], stubborn in 0..60_u64,
    ) {
        let mut play = Play::new(seed, (emulated, stubborn));
        steps.iter().for_each(|step| play.step(step));
        let key = play.key.take().expect("it is open");
        play.reactor.deregister(key).expect("it is open");
        play.all.iter_mut().for_each(|one| one.may_stop = true);
        play.settle();
        prop_assert_eq!(Arc::strong_count(&play.file), 1, "nobody needs it any more");
        play.finish();
    }

    #[test]
    fn a_poller_that_goes_in_between(
        steps in any_steps(), seed in any::<u64>(), emulated in 0..100_u64,
    ) {
        let mut play = Play::new(seed, (emulated, 30));
        steps.iter().for_each(|step| play.step(step));
        drop(play.reactor);
        prop_assert_eq!(Arc::strong_count(&play.file), 1);
    }
}
