//! A pool frees half of its surplus each period, and no buffer that is in use or needed.

use super::super::surplus::{MIN_KEPT, MIN_PERIOD};
use super::*;
use crate::testing::is_alone;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

fn allocations(pool: &BufferPool) -> usize {
    pool.0.lock().expect("this process made it").allocations
}

/// Takes `count` buffers at the same time.
fn burst(pool: &BufferPool, count: usize) {
    let bufs: Vec<_> = (0..count).map_while(|_| pool.take()).collect();
    assert_eq!(bufs.len(), count);
}

/// Takes `count` buffers one after the other.
fn trickle(pool: &BufferPool, count: usize) {
    for _ in 0..count {
        assert!(pool.take().is_some());
    }
}

#[test]
fn bursts_within_a_period_keep_their_buffers() {
    // A period of 4 * 200 takes has the end of a burst in it, when no buffer is idle.
    for quiet in [0, 10, 200, 333, 600] {
        let pool = pool(8, 1000);
        for _ in 0..100 {
            burst(&pool, 200);
            trickle(&pool, quiet);
        }
        assert_eq!((allocations(&pool), pool.allocated()), (200, 200), "{quiet} takes in between");
    }
}

#[test]
fn bursts_far_apart_allocate_what_periods_freed() {
    const CYCLES: usize = 100;
    let pool = pool(8, 1000);
    for _ in 0..CYCLES {
        burst(&pool, 200);
        assert_eq!(pool.allocated(), 200);
        trickle(&pool, 1000);
        // Between the ends of two bursts are 1200 takes: a period of 4 * 200, and one of 4 * 100.
        assert!(pool.allocated() >= 50, "{} are left", pool.allocated());
    }
    let freed = 100 + 50;
    assert!(allocations(&pool) <= 200 + CYCLES * freed, "{}", allocations(&pool));
    assert!(allocations(&pool) > 200 + CYCLES, "it does free some: {}", allocations(&pool));
}

#[test]
fn light_traffic_returns_memory_down_to_the_floor() {
    for peak in [17, 20, 100, 1000] {
        let pool = pool(8, 1000);
        burst(&pool, peak);
        let (mut takes, mut last) = (0, pool.allocated());
        while pool.allocated() > MIN_KEPT {
            trickle(&pool, 1);
            takes += 1;
            assert!(last - pool.allocated() <= last.div_ceil(2), "at most half at a time");
            last = pool.allocated();
            // Periods of 4 takes for each buffer, of which half are left each time; and short ones.
            assert!(takes <= 8 * peak + 10 * MIN_PERIOD, "{peak}: {last} are left");
        }
        assert!(takes >= MIN_PERIOD.saturating_sub(peak), "{peak}: not at once");
        let capacity = pool.0.lock().expect("this process made it").free.capacity();
        assert!(capacity <= 2 * MIN_KEPT, "the list shrinks too: {capacity}");
        trickle(&pool, 20 * MIN_PERIOD);
        assert_eq!(
            (pool.allocated(), allocations(&pool)),
            (MIN_KEPT, peak),
            "{peak}: and no further"
        );
    }
}

/// The load varies by up to an eighth of its peak, or down to none.
#[test]
fn steady_load_never_allocates_again() {
    for count in [1, 16, 100, 500] {
        let pool = pool(8, 1000);
        let mut in_use: VecDeque<_> = (0..count).filter_map(|_| pool.take()).collect();
        for step in 0..100 * count.max(100) {
            // Each peak lasts longer than a period.
            let peak = count - step / (8 * count.max(100)) % 2 * (count / 8);
            in_use.truncate(peak - 1);
            in_use.extend(pool.take());
        }
        drop(in_use);
        (0..50).for_each(|_| burst(&pool, count));
        assert_eq!((allocations(&pool), pool.allocated()), (count, count));
    }
}

#[test]
fn shrink_to_fit_frees_idle_buffers_only() {
    let pool = pool(8, 100);
    pool.shrink_to_fit();
    assert_eq!((pool.allocated(), pool.available()), (0, 0));
    let mut in_use: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    for (at, buf) in in_use.iter_mut().enumerate() {
        buf.write_all(&[at as u8; 8]).expect("there is room");
    }
    drop(in_use.drain(..60));
    assert_eq!((pool.allocated(), pool.available()), (100, 60));
    pool.shrink_to_fit();
    assert_eq!((pool.allocated(), pool.available(), pool.left()), (40, 0, 60));
    assert_eq!(pool.0.lock().expect("this process made it").free.capacity(), 0);
    for (at, buf) in (60..).zip(&in_use) {
        assert_eq!(**buf, [at as u8; 8], "it is in use");
    }
    let more: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!((more.len(), pool.allocated(), allocations(&pool)), (60, 100, 160));
    drop((in_use, more));
    assert_eq!((pool.allocated(), pool.available()), (100, 100));
    assert!(pool.is_last_handle(0));
    pool.shrink_to_fit();
    assert_eq!((pool.allocated(), pool.available()), (0, 0));
    assert!(pool.is_last_handle(0) && pool.take().is_some());
}

/// The allocator maps buffers of this size, and unmaps them when they are freed.
#[test]
fn freed_buffers_return_memory_to_the_system() {
    if !is_alone("sys::pool::tests::surplus::freed_buffers_return_memory_to_the_system") {
        return;
    }
    const SIZE: usize = 1 << 20;
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("proc(5) is mounted");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("the second number") * PAGE / SIZE
    };
    let fill = |pool: &BufferPool| {
        let mut bufs: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        bufs.iter_mut().for_each(|buf| buf.write_all(&vec![1; SIZE]).expect("that is its size"));
    };
    let (pool, before) = (pool(SIZE, 80), resident());
    fill(&pool);
    let full = resident();
    assert!(full >= before + 80, "{before} MiB, then {full}");
    trickle(&pool, 10 * 4 * 80);
    assert_eq!(pool.allocated(), MIN_KEPT);
    let light = resident();
    assert!(light <= before + MIN_KEPT + 8, "{full} MiB, then {light}");
    pool.shrink_to_fit();
    let none = resident();
    assert!(none <= before + 8, "{light} MiB, then {none}");
}

/// Buffers are freed by the pool and by a thread, while others write to theirs.
#[test]
fn threads_keep_buffers_while_others_free() {
    const THREADS: usize = 4;
    const LIMIT: usize = 150;
    let (pool, is_over) = (pool(16, LIMIT), AtomicBool::new(false));
    let work = |thread: usize| {
        let mut kept = VecDeque::new();
        for turn in 0..20_000 {
            // Phases of many buffers and of few.
            let most = if turn / 1000 % 4 == 0 { 50 } else { 2 };
            if kept.len() < most
                && let Some(mut buf) = pool.take()
            {
                assert!(buf.is_empty(), "a taken buffer is empty");
                buf.write_all(&[thread as u8; 16]).expect("there is room");
                kept.push_back(buf);
            }
            if kept.len() >= most {
                let buf = kept.pop_front().expect("there are some");
                assert_eq!(*buf, [thread as u8; 16], "another thread wrote to it");
            }
            let made = pool.allocated();
            assert!((kept.len()..=LIMIT).contains(&made), "{made}");
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|at| scope.spawn(move || work(at))).collect();
        let shrink = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                pool.shrink_to_fit();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        shrink.join().expect("it only frees");
        assert!(all.iter().all(Result::is_ok));
    });
    assert_eq!(pool.available(), pool.allocated(), "all were returned");
    trickle(&pool, 20 * LIMIT);
    assert!(pool.allocated() <= MIN_KEPT && pool.is_last_handle(0));
}

#[test]
fn forked_child_frees_nothing() {
    if !is_alone("sys::pool::tests::surplus::forked_child_frees_nothing") {
        return;
    }
    let pool = pool(8, 100);
    let mut kept = pool.take().expect("it is new");
    kept.write_all(b"parent").expect("there is room");
    burst(&pool, 99);
    trickle(&pool, 100);
    // SAFETY: no other thread runs in this process.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let mut is_in_order = (0..1000).all(|_| pool.take().is_none());
            pool.shrink_to_fit();
            is_in_order &= pool.0.state.lock().is_ok_and(|state| state.free.len() == 99);
            is_in_order &= *kept == *b"parent";
            drop((kept, pool));
            // SAFETY: _exit ends the process without running exit handlers.
            unsafe { libc::_exit(i32::from(!is_in_order)) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("it is our child");
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
    assert_eq!((&*kept, pool.allocated(), pool.available()), (&b"parent"[..], 100, 99));
    trickle(&pool, 1000);
    assert!(pool.allocated() < 100, "the parent's pool still frees");
}

#[test]
fn pool_keeps_one_waker_per_poller() {
    let pool = pool(8, 1);
    let counters = [(); 2].map(|()| Arc::new(CountingWaker::default()));
    let wakers = counters.clone().map(Waker::from);
    let in_use = pool.take();
    for _ in 0..3 {
        for waker in &wakers {
            // A poller may pass any clone of its waker.
            assert!(matches!(pool.take_or_wait(&waker.clone()), Ok(None)));
        }
    }
    let count = || pool.0.lock().expect("this process made it").waiting.len();
    assert_eq!(count(), 2);
    pool.stop_notifying(&wakers[0]);
    pool.stop_notifying(&wakers[0]);
    assert_eq!((count(), pool.notifies(&wakers[0]), pool.notifies(&wakers[1])), (1, false, true));
    drop(in_use);
    assert_eq!(counters.each_ref().map(|wakes| wakes.0.load(Ordering::Relaxed)), [0, 1]);
    assert_eq!(count(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize),
    TakeOrWait(usize),
    TakeForRing(usize),
    /// Takes and returns one buffer, this many times.
    Trickle(usize),
    /// Returns this many: the last ones, or any.
    Return(usize, Option<prop::sample::Index>),
    Shrink,
}

/// The pool as lists of addresses; the period as the idle count after each take.
#[derive(Default)]
struct Model {
    limit: usize,
    idle: Vec<usize>,
    in_use: Vec<usize>,
    period: usize,
    history: Vec<usize>,
    takes: usize,
}

impl Model {
    fn allocated(&self) -> usize {
        self.idle.len() + self.in_use.len()
    }

    /// A buffer at this address was taken. `allocated`: the pool made it.
    fn take(&mut self, at: usize, allocated: bool) {
        match self.idle.pop() {
            Some(last) => assert_eq!((at, allocated), (last, false), "the last one returned"),
            None => assert!(allocated && !self.in_use.contains(&at)),
        }
        self.in_use.push(at);
        self.history.push(self.idle.len());
        self.takes += 1;
    }

    /// The lock is released after takes.
    fn unlock(&mut self) {
        if self.takes < self.period {
            return;
        }
        let unneeded = *self.history.iter().min().expect("it has begun with one");
        if unneeded > self.allocated() / 8 {
            let count = (unneeded - unneeded / 2).min(self.allocated().max(16) - 16);
            self.idle.drain(..count);
        }
        self.begin();
    }

    fn begin(&mut self) {
        self.period = 256.max(4 * self.allocated());
        (self.takes, self.history) = (0, vec![self.idle.len()]);
    }

    fn verify(&self, pool: &BufferPool) {
        assert_eq!((pool.allocated(), pool.available()), (self.allocated(), self.idle.len()));
        assert_eq!(pool.left(), self.limit - self.in_use.len());
        let state = pool.0.lock().expect("this process made it");
        let idle = state.free.iter().map(|block| block.block().start.addr().get());
        assert!(idle.eq(self.idle.iter().copied()), "in the order in which they returned");
        assert!(state.free.capacity() <= 2 * self.allocated().max(2), "{}", state.free.capacity());
    }
}

fn address(buf: &PoolBuf) -> usize {
    buf.as_ptr().addr()
}

fn run(limit: usize, steps: Vec<Step>) {
    let pool = pool(8, limit);
    let mut model = Model { limit, period: 256, history: vec![0], ..Model::default() };
    let mut in_use = Vec::new();
    let mut before = 0;
    for step in steps {
        let mut note = |model: &mut Model, buf: &PoolBuf| {
            let now = allocations(&pool);
            model.take(address(buf), std::mem::replace(&mut before, now) < now);
            model.unlock();
            model.verify(&pool);
        };
        match step {
            Step::Take(count) | Step::TakeOrWait(count) => {
                for _ in 0..count {
                    let buf = match step {
                        Step::Take(_) => pool.take(),
                        _ => pool.take_or_wait(Waker::noop()).expect("there is memory"),
                    };
                    assert_eq!(buf.is_some(), model.in_use.len() < limit);
                    let Some(buf) = buf else { break };
                    note(&mut model, &buf);
                    in_use.push(buf);
                }
            }
            Step::TakeForRing(count) => {
                let mut spare = Vec::new();
                pool.take_for_ring(count, |buf| spare.push(buf));
                let most = (limit / 2).saturating_sub(model.in_use.len());
                assert_eq!(spare.len(), count.min(most));
                for buf in spare {
                    model.take(address(&buf), model.idle.is_empty());
                    in_use.push(buf);
                }
                model.unlock();
                before = allocations(&pool);
            }
            Step::Trickle(count) if model.in_use.len() < limit => {
                for _ in 0..count {
                    let buf = pool.take().expect("not all are in use");
                    note(&mut model, &buf);
                    model.idle.extend(model.in_use.pop());
                }
            }
            Step::Trickle(_) => {}
            Step::Return(count, index) => {
                for _ in 0..count.min(in_use.len()) {
                    let at = index.map_or(in_use.len() - 1, |index| index.index(in_use.len()));
                    drop(in_use.swap_remove(at));
                    model.idle.push(model.in_use.swap_remove(at));
                }
            }
            Step::Shrink => {
                pool.shrink_to_fit();
                model.idle.clear();
                model.begin();
            }
        }
        model.verify(&pool);
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let count = || prop_oneof![1..5_usize, 1..300_usize];
    let index = prop::option::of(any::<prop::sample::Index>());
    prop_oneof![
        4 => count().prop_map(Step::Take),
        2 => count().prop_map(Step::TakeOrWait),
        2 => count().prop_map(Step::TakeForRing),
        4 => (1..800_usize).prop_map(Step::Trickle),
        8 => (count(), index).prop_map(|(count, index)| Step::Return(count, index)),
        1 => Just(Step::Shrink),
    ]
}

proptest! {
    #[test]
    fn pool_frees_like_its_model(
        limit in prop_oneof![1..40_usize, 40..400_usize],
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        run(limit, steps);
    }
}
