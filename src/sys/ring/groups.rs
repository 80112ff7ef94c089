//! Buffers of pools that are set out for a ring's receives: it takes one when something comes.
//!
//! How provided buffers really behave (Linux 6.18, measured):
//!
//! - The kernel takes them in the order in which they were set out, and names each by its number in
//!   the completion. One whose result is an error or the end of the stream takes none.
//! - If there is none, a receive ends with `ENOBUFS`, also at once, and also where the stream has
//!   ended; nothing is lost.
//! - What is set out stays so until it is taken, or until all of it is taken back: while no request
//!   may take it. So a pool gives half of its buffers at most.
//! - The kernel does not see if there are more than there is room for, and gives out some twice.
//! - Pages of the array are the kernel's for good: a forked child gets copies, and nothing changes
//!   for the parent.
#![allow(unsafe_code)]

use super::super::pool::{BufferPool, PoolBuf};
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

/// The array of one group can't be longer.
const MOST: usize = 1 << 15;
/// Of a request that takes no buffers of a pool.
pub(super) const NO_GROUP: u16 = u16::MAX;
/// So many are set out at least. Entering the kernel runs some 20 pieces of deferred work, twice,
/// and each takes one or more.
const MIN_TARGET: usize = 64;
/// After so many refills it is asked whether half as many would do.
pub(super) const PERIOD: u32 = 256;

/// All pools whose buffers are set out in one ring.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: Vec<Option<Group>>,
    /// The kernel does not know what this is (before Linux 5.19), and need not be asked again.
    are_unknown: bool,
}

/// The buffers of one pool that are set out.
#[derive(Debug)]
struct Group {
    pool: BufferPool,
    array: Array,
    /// By their numbers.
    seats: Vec<Option<PoolBuf>>,
    vacant: Vec<u16>,
    /// How many the kernel has taken that the pool takes for set out.
    taken: usize,
    /// How many are to be set out: twice as many after each shortage, and half as many after a
    /// period in which a quarter would have been enough.
    target: usize,
    /// The most that were replaced at a time in this period.
    most_used: usize,
    /// Counts the refills of this period.
    refills: u32,
    /// How many requests may take them.
    users: usize,
    /// The kernel knows of it.
    is_open: bool,
    /// Its buffers are to be returned as soon as no request may take them.
    is_releasing: bool,
}

impl Groups {
    /// Whether buffers of this pool are set out. Its group is made if there is none and the kernel
    /// can.
    pub(super) fn open(&mut self, ring: &IoUring, pool: &BufferPool) -> bool {
        if self.are_unknown {
            return false;
        }
        let Some(number) = self.find(pool).or_else(|| self.make(pool)) else { return false };
        let Some(group) = self.get_mut(number) else { return false };
        if group.is_releasing {
            return false;
        }
        match group.open(ring, number) {
            Ok(()) => group.supply() > 0,
            Err(error) => {
                self.are_unknown = error.raw_os_error() == Some(libc::EINVAL);
                false
            }
        }
    }

    /// Makes it as if the kernel knew no groups.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn forbid(&mut self) {
        self.are_unknown = true;
    }

    /// A request that may take its buffers begins.
    pub(super) fn enter(&mut self, group: u16) {
        self.get_mut(group).into_iter().for_each(|group| group.users += 1);
    }

    /// One has ended.
    pub(super) fn leave(&mut self, group: u16) {
        self.get_mut(group).into_iter().for_each(|group| group.users -= 1);
    }

    /// Has the buffers of a pool returned as soon as no request may take them. Returns false if
    /// there are none, or if that is so already.
    pub(super) fn release(&mut self, pool: &BufferPool) -> bool {
        let Some(group) = self.find(pool).and_then(|number| self.get_mut(number)) else {
            return false;
        };
        group.out() > 0 && !std::mem::replace(&mut group.is_releasing, true)
    }

    fn get_mut(&mut self, group: u16) -> Option<&mut Group> {
        self.all.get_mut(usize::from(group))?.as_mut()
    }

    fn make(&mut self, pool: &BufferPool) -> Option<u16> {
        if pool.most_spare() == 0 {
            return None;
        }
        let vacant = self.all.iter().position(Option::is_none).unwrap_or(self.all.len());
        let number = u16::try_from(vacant).ok().filter(|&number| number != NO_GROUP)?;
        let length = pool.most_spare().next_power_of_two().min(MOST);
        let array = Array::new(length as u16).ok()?;
        let seats = std::iter::repeat_with(|| None).take(length).collect();
        let group = Group {
            pool: pool.clone(),
            array,
            seats,
            vacant: (0..length as u16).rev().collect(),
            taken: 0,
            target: MIN_TARGET,
            most_used: 0,
            refills: 0,
            users: 0,
            is_open: false,
            is_releasing: false,
        };
        if vacant == self.all.len() {
            self.all.push(None);
        }
        self.all[vacant] = Some(group);
        Some(number)
    }

    pub(super) fn find(&self, pool: &BufferPool) -> Option<u16> {
        let is_its = |group: &Option<Group>| group.as_ref().is_some_and(|its| its.pool.is(pool));
        self.all.iter().position(is_its).map(|number| number as u16)
    }

    /// The buffer that the kernel has taken, which now has so many bytes.
    ///
    /// # Safety
    ///
    /// A completion has to have said so, and this to be called once for it.
    pub(super) unsafe fn take(
        &mut self,
        group: u16,
        number: u16,
        length: usize,
    ) -> Option<PoolBuf> {
        let group = self.get_mut(group)?;
        let seat = group.seats.get_mut(usize::from(number))?;
        let buf = seat.as_mut()?;
        group.taken += usize::from(buf.take_is_set_out());
        // SAFETY: the kernel has written so many bytes to it, and was told how many there can be.
        unsafe { buf.note_written(length.min(buf.capacity())) };
        group.vacant.push(number);
        seat.take()
    }

    /// Tells the pools how many buffers the kernel has taken since the last call: once for all, for
    /// other threads may be at work on that number.
    pub(super) fn note_taken(&mut self) {
        for group in self.all.iter_mut().flatten() {
            if group.taken > 0 {
                group.pool.note_taken(std::mem::take(&mut group.taken));
            }
        }
    }

    /// There was none when something came.
    pub(super) fn note_shortage(&mut self, group: u16) {
        if let Some(group) = self.get_mut(group) {
            group.target = (2 * group.target).min(group.seats.len().max(MIN_TARGET));
            group.begin_period();
        }
    }

    /// Sets out as many as there should be: none where nobody may take them, for others may need
    /// them. Lets go of pools that are nobody else's any more. Who was promised some, and begins
    /// only now, may find that they were taken back in between.
    pub(super) fn supply(&mut self, ring: &IoUring) {
        for (number, place) in self.all.iter_mut().enumerate() {
            let Some(group) = place else { continue };
            if group.users > 0 {
                // If they can't be set out a receive says that there are none.
                if !group.is_releasing && group.open(ring, number as u16).is_ok() {
                    group.supply();
                }
                continue;
            }
            let is_nobodys = group.pool.is_last_handle(group.out());
            if group.is_open && (group.out() > 0 || is_nobodys) {
                group.close(ring, number as u16);
            }
            if is_nobodys && !group.is_open {
                *place = None;
            }
        }
    }

    /// Leaves all to the kernel, which may still write to them, and returns how many there were.
    pub(super) fn leak(&mut self) -> usize {
        let all = self.all.drain(..).flatten().flat_map(|group| {
            let Group { seats, array, .. } = group;
            std::mem::forget(array);
            seats.into_iter().flatten()
        });
        all.map(std::mem::forget).count()
    }
}

impl Group {
    /// How many are set out.
    fn out(&self) -> usize {
        self.seats.len() - self.vacant.len()
    }

    /// Makes it known to the kernel.
    fn open(&mut self, ring: &IoUring, number: u16) -> io::Result<()> {
        if !self.is_open {
            self.array.start_over();
            let (start, entries) = (self.array.start.as_ptr() as u64, self.array.entries);
            let submitter = ring.submitter();
            // SAFETY: the array has so many entries, and is unmapped after the ring is closed or
            // has let go of it.
            unsafe { submitter.register_buf_ring_with_flags(start, entries, number, 0) }?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Takes home what is set out.
    fn close(&mut self, ring: &IoUring, number: u16) {
        if ring.submitter().unregister_buf_ring(number).is_err() {
            return;
        }
        (self.is_open, self.is_releasing) = (false, false);
        self.seats.iter_mut().for_each(|seat| drop(seat.take()));
        self.vacant = (0..self.array.entries).rev().collect();
    }

    fn note_used(&mut self, count: usize) {
        self.most_used = self.most_used.max(count);
        self.refills += 1;
        if self.refills == PERIOD {
            if self.most_used <= self.target / 4 {
                self.target = (self.target / 2).max(MIN_TARGET);
            }
            self.begin_period();
        }
    }

    fn begin_period(&mut self) {
        (self.most_used, self.refills) = (0, 0);
    }

    /// Gives how many are set out then.
    fn supply(&mut self) -> usize {
        debug_assert!(self.is_open, "the kernel would not see them");
        let lacking = self.target.saturating_sub(self.out()).min(self.vacant.len());
        if lacking > 0 {
            self.note_used(lacking);
            let Group { pool, array, seats, vacant, .. } = self;
            pool.take_spare(lacking, |buf| {
                let Some(number) = vacant.pop() else { return };
                let buf = seats[usize::from(number)].insert(buf);
                let room = buf.spare();
                array.write(number, room.as_mut_ptr().cast(), room.len());
            });
            array.publish();
        }
        self.out()
    }
}

/// What the kernel reads: a ring of entries in pages of their own, which no child inherits.
struct Array {
    start: NonNull<BufRingEntry>,
    entries: u16,
    /// Where the next is written. It wraps.
    tail: u16,
    generation: super::ForkGeneration,
}

impl Array {
    fn new(entries: u16) -> io::Result<Self> {
        let generation = super::ForkGeneration::current()?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = Array::length(entries);
        // SAFETY: new pages, which are nobody else's.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: these are the pages from above. If they are inherited, nothing comes of it.
        unsafe { libc::madvise(start, length, libc::MADV_DONTFORK) };
        let at_zero = || io::Error::new(io::ErrorKind::OutOfMemory, "mmap(2) gave address 0");
        let start = NonNull::new(start.cast()).ok_or_else(at_zero)?;
        Ok(Array { start, entries, tail: 0, generation })
    }

    /// As the kernel expects it of a new one.
    fn start_over(&mut self) {
        self.tail = 0;
        self.publish();
    }

    fn length(entries: u16) -> usize {
        usize::from(entries) * size_of::<BufRingEntry>()
    }

    fn write(&mut self, number: u16, start: *mut u8, length: usize) {
        let at = usize::from(self.tail & (self.entries - 1));
        // SAFETY: there are so many entries, a power of two.
        let place = unsafe { self.start.add(at) };
        // SAFETY: the kernel does not look at it before the tail is published. The entry's last
        // field is not written: in the first entry it is the tail.
        let entry = unsafe { &mut *place.as_ptr() };
        entry.set_addr(start as u64);
        // A pool's buffers are no larger than what one call moves.
        entry.set_len(length as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// What was written is the kernel's from now on.
    fn publish(&mut self) {
        // SAFETY: the array begins with an entry.
        let tail = unsafe { BufRingEntry::tail(self.start.as_ptr()) };
        // SAFETY: it is aligned, lives as long as the array, and is written by nobody else.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("entries", &self.entries).field("tail", &self.tail).finish()
    }
}

impl Drop for Array {
    /// In a forked child there may be something else in its place.
    fn drop(&mut self) {
        if !self.generation.is_forked_child() {
            let length = Array::length(self.entries);
            // SAFETY: these are its pages, and nobody else knows of them.
            unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
        }
    }
}
