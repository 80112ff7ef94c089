//! Provided buffers: a ring takes one from a pool's group when data arrives.
//!
//! Provided buffers behave as follows (Linux 6.18, measured):
//!
//! - The kernel takes them in the order in which they were provided, and reports each buffer ID in
//!   its CQE. An error or the end of the stream takes none.
//! - If there is none, a receive ends with `ENOBUFS`, even at once, and even where the stream has
//!   ended; nothing is lost.
//! - A provided buffer can be reclaimed only with its whole group, while no request uses the group.
//!   An idle receive may keep it so without limit. So a pool provides at most half of its buffers.
//! - The kernel does not detect an overfull ring, and hands out some buffers twice.
//! - The pages of the ring stay the kernel's. A forked child does not inherit them
//!   (`MADV_DONTFORK`), and nothing changes for the parent.
#![allow(unsafe_code)]

use super::super::pool::{BufferPool, PoolBuf};
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

/// The maximum number of entries of a group.
const MAX_ENTRIES: usize = 1 << 15;
/// The group of a request that takes no buffers of a pool.
pub(super) const NO_GROUP: u16 = u16::MAX;
/// The minimum target, unless half of the pool's limit is less. An enter runs some 20 pieces of
/// deferred work, twice, and each takes one buffer or more.
const MIN_TARGET: usize = 64;
/// After this many refills the target may be halved.
pub(super) const PERIOD: u32 = 256;

/// The buffer groups of one ring, one for each pool.
#[derive(Debug, Default)]
pub(super) struct BufGroups {
    groups: Vec<Option<BufGroup>>,
    /// The kernel does not support buffer rings (before Linux 5.19).
    is_unsupported: bool,
}

/// The buffers that one pool provides.
#[derive(Debug)]
struct BufGroup {
    pool: BufferPool,
    buf_ring: BufRing,
    /// The provided buffers, by buffer ID.
    bufs: Vec<Option<PoolBuf>>,
    free_ids: Vec<u16>,
    /// Counts the buffers that the kernel has taken and the pool still counts as provided.
    taken: usize,
    /// The number of buffers to provide. Doubles after each shortage, and halves after a period in
    /// which a quarter would have been enough.
    target: usize,
    /// The most buffers that one refill had to provide in this period.
    max_used: usize,
    /// Counts the refills of this period that had to provide some.
    refills: u32,
    /// Counts the requests that may take buffers.
    users: usize,
    /// The group is registered in the kernel.
    is_registered: bool,
    /// The buffers are to be returned as soon as no request uses the group.
    is_releasing: bool,
}

impl BufGroups {
    /// Returns true if the pool has buffers provided. Makes its group if needed, and if the kernel
    /// supports that.
    pub(super) fn provide(&mut self, ring: &IoUring, pool: &BufferPool) -> bool {
        if self.is_unsupported {
            return false;
        }
        let Some(bgid) = self.find(pool).or_else(|| self.add(pool)) else { return false };
        let Some(group) = self.get_mut(bgid) else { return false };
        if group.is_releasing {
            return false;
        }
        match group.register(ring, bgid) {
            Ok(()) => group.refill() > 0,
            Err(error) => {
                self.is_unsupported = error.raw_os_error() == Some(libc::EINVAL);
                false
            }
        }
    }

    /// Emulates a kernel without buffer rings.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn forbid(&mut self) {
        self.is_unsupported = true;
    }

    /// Counts a request that starts to use the group.
    pub(super) fn add_user(&mut self, group: u16) {
        if let Some(group) = self.get_mut(group) {
            group.users += 1;
        }
    }

    /// Counts a request that has ended.
    pub(super) fn remove_user(&mut self, group: u16) {
        if let Some(group) = self.get_mut(group) {
            group.users -= 1;
        }
    }

    /// Marks a pool's group: it provides no more buffers, and is unregistered as soon as no request
    /// uses it. Returns false if it provides nothing, or is marked already.
    pub(super) fn release(&mut self, pool: &BufferPool) -> bool {
        let Some(group) = self.find(pool).and_then(|bgid| self.get_mut(bgid)) else {
            return false;
        };
        group.provided() > 0 && !std::mem::replace(&mut group.is_releasing, true)
    }

    fn get_mut(&mut self, group: u16) -> Option<&mut BufGroup> {
        self.groups.get_mut(usize::from(group))?.as_mut()
    }

    fn add(&mut self, pool: &BufferPool) -> Option<u16> {
        if pool.max_provided() == 0 {
            return None;
        }
        let index = self.groups.iter().position(Option::is_none).unwrap_or(self.groups.len());
        let bgid = u16::try_from(index).ok().filter(|&bgid| bgid != NO_GROUP)?;
        let length = pool.max_provided().next_power_of_two().min(MAX_ENTRIES);
        let buf_ring = BufRing::new(length as u16).ok()?;
        let bufs = std::iter::repeat_with(|| None).take(length).collect();
        let group = BufGroup {
            pool: pool.clone(),
            buf_ring,
            bufs,
            free_ids: (0..length as u16).rev().collect(),
            taken: 0,
            target: MIN_TARGET.min(pool.max_provided()),
            max_used: 0,
            refills: 0,
            users: 0,
            is_registered: false,
            is_releasing: false,
        };
        if index == self.groups.len() {
            self.groups.push(None);
        }
        self.groups[index] = Some(group);
        Some(bgid)
    }

    pub(super) fn find(&self, pool: &BufferPool) -> Option<u16> {
        let has_pool =
            |slot: &Option<BufGroup>| slot.as_ref().is_some_and(|group| group.pool.is(pool));
        self.groups.iter().position(has_pool).map(|bgid| bgid as u16)
    }

    /// Takes the buffer in which the kernel has written `length` bytes.
    ///
    /// # Safety
    ///
    /// A CQE must have reported this, and the call be the only one for it.
    pub(super) unsafe fn take(&mut self, group: u16, bid: u16, length: usize) -> Option<PoolBuf> {
        let group = self.get_mut(group)?;
        let slot = group.bufs.get_mut(usize::from(bid))?;
        let buf = slot.as_mut()?;
        group.taken += usize::from(buf.take_is_provided());
        // SAFETY: the kernel has written `length` bytes, within the length that it was given.
        unsafe { buf.note_written(length.min(buf.capacity())) };
        group.free_ids.push(bid);
        slot.take()
    }

    /// Updates the pools' counts of provided buffers, once for all that the kernel has taken: other
    /// threads may use these counts.
    pub(super) fn note_taken(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            if group.taken > 0 {
                group.pool.note_taken(std::mem::take(&mut group.taken));
            }
        }
    }

    /// Doubles the target after a receive found no buffer.
    pub(super) fn note_shortage(&mut self, group: u16) {
        if let Some(group) = self.get_mut(group) {
            group.target = (2 * group.target).min(group.max_target());
            group.begin_period();
        }
    }

    /// Refills each group to its target. Unregisters groups without users, so that others can use
    /// the buffers, and removes those whose pool has no other handle. A receive for which `provide`
    /// returned true, and that starts after that, may end with `ENOBUFS`.
    pub(super) fn refill(&mut self, ring: &IoUring) {
        for (bgid, slot) in self.groups.iter_mut().enumerate() {
            let Some(group) = slot else { continue };
            if group.users > 0 {
                // On failure a receive ends with `ENOBUFS`.
                if !group.is_releasing && group.register(ring, bgid as u16).is_ok() {
                    group.refill();
                }
                continue;
            }
            let is_unused = group.pool.is_last_handle(group.provided());
            let is_used_up = group.is_releasing && group.provided() == 0;
            if group.is_registered && (group.provided() > 0 || is_used_up || is_unused) {
                group.unregister(ring, bgid as u16);
            }
            if is_unused && !group.is_registered {
                *slot = None;
            }
        }
    }

    /// Leaks all provided buffers, to which the kernel may still write, and returns their count.
    pub(super) fn leak(&mut self) -> usize {
        let bufs = self.groups.drain(..).flatten().flat_map(|group| {
            let BufGroup { bufs, buf_ring, .. } = group;
            std::mem::forget(buf_ring);
            bufs.into_iter().flatten()
        });
        bufs.map(std::mem::forget).count()
    }
}

impl BufGroup {
    /// Returns the number of provided buffers.
    fn provided(&self) -> usize {
        self.bufs.len() - self.free_ids.len()
    }

    /// Returns the maximum number of buffers to provide.
    fn max_target(&self) -> usize {
        self.pool.max_provided().min(self.bufs.len())
    }

    /// Registers the group in the kernel.
    fn register(&mut self, ring: &IoUring, bgid: u16) -> io::Result<()> {
        if !self.is_registered {
            self.buf_ring.reset();
            let (start, entries) = (self.buf_ring.start.as_ptr() as u64, self.buf_ring.entries);
            let submitter = ring.submitter();
            // SAFETY: the array has `entries` entries, and is unmapped only after the ring was
            // closed or the group unregistered.
            unsafe { submitter.register_buf_ring_with_flags(start, entries, bgid, 0) }?;
            self.is_registered = true;
        }
        Ok(())
    }

    /// Unregisters the group, and returns its buffers to the pool.
    fn unregister(&mut self, ring: &IoUring, bgid: u16) {
        if ring.submitter().unregister_buf_ring(bgid).is_err() {
            return;
        }
        self.is_registered = false;
        self.is_releasing = false;
        for buf in &mut self.bufs {
            drop(buf.take());
        }
        self.free_ids = (0..self.buf_ring.entries).rev().collect();
    }

    fn note_used(&mut self, count: usize) {
        self.max_used = self.max_used.max(count);
        self.refills += 1;
        if self.refills == PERIOD {
            if self.max_used <= self.target / 4 {
                self.target = (self.target / 2).max(MIN_TARGET.min(self.max_target()));
            }
            self.begin_period();
        }
    }

    fn begin_period(&mut self) {
        self.max_used = 0;
        self.refills = 0;
    }

    /// Provides buffers up to the target, and returns how many are provided.
    fn refill(&mut self) -> usize {
        debug_assert!(self.is_registered, "the kernel does not know the group");
        let missing = self.target.saturating_sub(self.provided()).min(self.free_ids.len());
        if missing > 0 {
            self.note_used(missing);
            let BufGroup { pool, buf_ring, bufs, free_ids, .. } = self;
            pool.take_for_ring(missing, |buf| {
                let Some(bid) = free_ids.pop() else { return };
                let buf = bufs[usize::from(bid)].insert(buf);
                let space = buf.spare_capacity();
                buf_ring.write(bid, space.as_mut_ptr().cast(), space.len());
            });
            buf_ring.publish();
        }
        self.provided()
    }
}

/// The ring of entries that the kernel reads, in pages of its own, which no child inherits.
struct BufRing {
    start: NonNull<BufRingEntry>,
    entries: u16,
    /// The index of the next entry, which wraps.
    tail: u16,
    generation: super::ForkGeneration,
}

impl BufRing {
    fn new(entries: u16) -> io::Result<Self> {
        let generation = super::ForkGeneration::current()?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = BufRing::length(entries);
        // SAFETY: a new mapping touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the pages were mapped above. Inheriting them would be harmless.
        unsafe { libc::madvise(start, length, libc::MADV_DONTFORK) };
        let at_zero = || io::Error::new(io::ErrorKind::OutOfMemory, "mmap(2) gave address 0");
        let start = NonNull::new(start.cast()).ok_or_else(at_zero)?;
        Ok(BufRing { start, entries, tail: 0, generation })
    }

    /// Resets the tail, as the kernel expects of a new ring.
    fn reset(&mut self) {
        self.tail = 0;
        self.publish();
    }

    fn length(entries: u16) -> usize {
        usize::from(entries) * size_of::<BufRingEntry>()
    }

    fn write(&mut self, bid: u16, start: *mut u8, length: usize) {
        let at = usize::from(self.tail & (self.entries - 1));
        // SAFETY: the index is below `entries`, a power of two.
        let slot = unsafe { self.start.add(at) };
        // SAFETY: the kernel does not read the entry before the tail is published. The last field
        // of the first entry is the tail, and is not written.
        let entry = unsafe { &mut *slot.as_ptr() };
        entry.set_addr(start as u64);
        // A pool's buffers are no larger than one call can move.
        entry.set_len(length as u32);
        entry.set_bid(bid);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Hands the written entries to the kernel.
    fn publish(&mut self) {
        // SAFETY: the array begins with an entry.
        let tail = unsafe { BufRingEntry::tail(self.start.as_ptr()) };
        // SAFETY: the tail is aligned, lives as long as the array, and nothing else writes it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl fmt::Debug for BufRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufRing").field("entries", &self.entries).field("tail", &self.tail).finish()
    }
}

impl Drop for BufRing {
    /// Does not unmap in a forked child, where other memory may be at the address.
    fn drop(&mut self) {
        if !self.generation.is_forked_child() {
            let length = BufRing::length(self.entries);
            // SAFETY: the pages belong to this value, and nothing else points to them.
            unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
        }
    }
}
