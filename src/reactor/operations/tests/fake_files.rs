//! Files without a kernel, found by descriptor.

use super::fake_file::FakeFile;
use crate::sys::io_call::{Call, CallResult, IoCall, Work};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;

/// All files, and the descriptors of the open ones.
#[derive(Debug, Default)]
pub(super) struct FakeFiles {
    pub(super) all: Vec<FakeFile>,
    by_fd: BTreeMap<RawFd, usize>,
}

impl FakeFiles {
    pub(super) fn add(&mut self, fd: RawFd, file: FakeFile) -> usize {
        self.by_fd.insert(fd, self.all.len());
        self.all.push(file);
        self.all.len() - 1
    }

    pub(super) fn by_fd(&mut self, fd: RawFd) -> &mut FakeFile {
        &mut self.all[self.by_fd[&fd]]
    }

    /// Performs work that waits. Returns `WouldBlock` if it would wait longer.
    pub(super) fn wait_for_work(&mut self, work: &mut Work, max: usize) -> io::Result<CallResult> {
        let (number, pool) = match work {
            Work::Call(call) => return self.wait_for_call(call, max),
            Work::Receive { fd: number, pool } => (*number, pool),
        };
        // The buffer is taken first: without one nothing is received.
        let Some(mut buf) = pool.take() else {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        };
        self.by_fd(number).receive(&mut buf)?;
        Ok(CallResult::Received(buf))
    }

    /// Makes a call that waits. Returns `WouldBlock` if it would wait longer.
    pub(super) fn wait_for_call(
        &mut self,
        call: &mut IoCall,
        max: usize,
    ) -> io::Result<CallResult> {
        let result = self.call(call, max);
        let would_block = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let (fd, call_kind, _) = call.wanted();
        if !result.as_ref().is_err_and(would_block) || !self.by_fd(fd).is_read_shut {
            return result;
        }
        // A call that waits reports a read shutdown; one that does not wait does not.
        match call_kind {
            Call::Accept | Call::AcceptMulti => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            Call::Recv | Call::RecvFrom | Call::RecvMsg => Ok(CallResult::Moved(0)),
            _ => result,
        }
    }

    /// Makes a call that moves at most `max` bytes.
    pub(super) fn call(&mut self, call: &mut IoCall, max: usize) -> io::Result<CallResult> {
        let (fd, call_kind, left) = call.wanted();
        match call_kind {
            Call::Open => {
                let file = File::open("/dev/null").expect("every Linux has it");
                Ok(CallResult::Opened(file.into()))
            }
            Call::Splice => {
                let target = call.target().expect("a splice has a target");
                let [from, to] = [self.by_fd[&fd], self.by_fd[&target]];
                // Rust 1.86 has `get_disjoint_mut`.
                let (low, high) = self.all.split_at_mut(from.max(to));
                let (low, high) = (&mut low[from.min(to)], &mut high[0]);
                let (from, to) = if from < to { (low, high) } else { (high, low) };
                let count = from.splice_to(to, left.min(max))?;
                call.note_spliced(count);
                Ok(CallResult::Moved(count))
            }
            _ => self.by_fd(fd).call(call, max),
        }
    }
}
