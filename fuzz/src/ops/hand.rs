//! The pool of one player, and the buffers of it that he keeps.

use super::super::model::{Verdict, expect};
use quintpoll::{BufferPool, PoolBuf};
use std::collections::VecDeque;
use std::io::Write;

/// A pool, and what was taken out of it.
#[derive(Debug)]
pub struct Hand {
    pool: BufferPool,
    keeps: bool,
    /// Each with what was in it when it came.
    held: VecDeque<(PoolBuf, Vec<u8>)>,
}

impl Hand {
    /// A pool of so many buffers of this size.
    ///
    /// # Panics
    ///
    /// If it can't be.
    pub fn new((size, limit): (usize, usize)) -> Self {
        let pool = BufferPool::new(size, limit).expect("there are bytes, and buffers");
        Hand { pool, keeps: false, held: VecDeque::new() }
    }

    /// The pool.
    pub fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// How many bytes or messages may be in all its buffers.
    pub fn most(&self, has_messages: bool) -> usize {
        self.pool.limit() * if has_messages { 1 } else { self.pool.size() }
    }

    /// From now on buffers that come are kept, or not.
    pub fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Whether there is none left.
    pub fn is_empty(&self) -> bool {
        self.held.len() == self.pool.limit()
    }

    /// A buffer has come.
    ///
    /// # Errors
    ///
    /// If somebody has it already, or there are too many.
    pub fn receive(&mut self, buf: PoolBuf) -> Verdict {
        let start = buf.as_ptr();
        let is_lent = self.held.iter().any(|(other, _)| other.as_ptr() == start);
        expect(!is_lent, "C8", || format!("a buffer is lent twice: {:?}", self.pool))?;
        let (made, limit) = (self.pool.allocated(), self.pool.limit());
        let is_within = made <= limit && self.held.len() < limit;
        expect(is_within, "C8", || format!("more buffers than there can be: {:?}", self.pool))?;
        if self.keeps {
            let bytes = buf.to_vec();
            self.held.push_back((buf, bytes));
        }
        Ok(())
    }

    /// Takes one by hand, and writes something into it. A ring may have set out half of them; and
    /// if not all that has come was taken, some may be with that.
    ///
    /// # Errors
    ///
    /// If there is none where there should be.
    pub fn take(&mut self, is_all_taken: bool) -> Result<bool, super::super::model::Failure> {
        if self.held.len() >= self.pool.limit().div_ceil(2) {
            return Ok(false);
        }
        let buf = self.pool.take();
        let is_there = buf.is_some() || !is_all_taken;
        expect(is_there, "C8", || format!("no buffer, {} held: {:?}", self.held.len(), self.pool))?;
        let Some(mut buf) = buf else { return Ok(false) };
        let is_lent = self.held.iter().any(|(other, _)| other.as_ptr() == buf.as_ptr());
        expect(!is_lent && buf.is_empty(), "C8", || "taken from somebody else".to_owned())?;
        let bytes = vec![0xa5; self.pool.size()];
        buf.write_all(&bytes).expect("there is room for so much");
        self.held.push_back((buf, bytes));
        Ok(true)
    }

    /// Drops so many.
    ///
    /// # Errors
    ///
    /// If there is something else in them than there was.
    pub fn give_back(&mut self, count: usize) -> Verdict {
        for _ in 0..count.min(self.held.len()) {
            let Some((buf, bytes)) = self.held.pop_front() else { break };
            let is_same = *buf == *bytes;
            expect(is_same, "C8", || format!("a buffer of {} bytes was changed", bytes.len()))?;
        }
        Ok(())
    }

    /// The poller has gone: drops what is left, and all must be at home.
    ///
    /// # Errors
    ///
    /// If one is not.
    pub fn end(&mut self) -> Verdict {
        self.give_back(usize::MAX)?;
        let is_whole = self.pool.available() == self.pool.allocated();
        expect(is_whole, "C8", || format!("not all are at home: {:?}", self.pool))
    }
}
