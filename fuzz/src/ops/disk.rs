//! A regular file, and a model of it: bytes and a position.

mod numbers;

use super::super::model::{Verdict, expect};
use super::flow::Flow;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use quintpoll::{Completion, OpenOptions, Outcome};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// How long it is at first.
const FIRST: usize = 20_000;

/// What an operation is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Work {
    ReadAt(usize),
    WriteAt(usize),
    ReadVectored(usize),
    WriteVectored(usize),
    Read,
    Write,
    Sync,
    SyncData,
    Open(Way),
}

/// How something is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The file, to be read.
    ToRead,
    /// The file, to be written.
    ToWrite,
    /// What is not there.
    Nothing,
    /// A directory, to be written.
    Directory,
    /// What is there, to be made.
    Anew,
}

impl Work {
    /// Whether it has a place in the order of those that share the position.
    pub fn is_sequential(self) -> bool {
        matches!(self, Work::Read | Work::Write)
    }

    /// Whether it writes.
    pub fn writes(self) -> bool {
        matches!(self, Work::WriteAt(_) | Work::WriteVectored(_) | Work::Write)
    }

    /// Whether it reads.
    pub fn reads(self) -> bool {
        matches!(self, Work::ReadAt(_) | Work::ReadVectored(_) | Work::Read)
    }

    /// Whether it has several buffers.
    pub fn is_vectored(self) -> bool {
        matches!(self, Work::ReadVectored(_) | Work::WriteVectored(_))
    }
}

impl Way {
    /// The one for which a number stands.
    pub fn of(number: u8) -> Way {
        [Way::ToRead, Way::ToWrite, Way::Nothing, Way::Directory, Way::Anew]
            [usize::from(number) % 5]
    }
}

/// A file.
#[derive(Debug)]
pub struct Disk {
    file: Arc<File>,
    bytes: Vec<u8>,
    position: usize,
    source: Flow,
}

impl Disk {
    /// Makes one that has no name.
    ///
    /// # Panics
    ///
    /// Here and everywhere in this module: if a system call fails in a way it should not.
    pub fn open(is_in_memory: bool) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let directory = if is_in_memory && memory.is_dir() { memory } else { std::env::temp_dir() };
        let mut file = tempfile::tempfile_in(directory).expect("there is room");
        let mut source = Flow::new(false);
        let bytes = source.make(FIRST);
        file.write_all(&bytes).expect("there is room");
        file.rewind().expect("lseek");
        Disk { file: Arc::new(file), bytes, position: 0, source }
    }

    /// A handle for the poller.
    pub fn handle(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Whether nobody else has it, by this number or another.
    pub fn is_released(&self) -> bool {
        Arc::strong_count(&self.file) == 1 && numbers::count(&self.file) == 1
    }

    /// Bytes to be written.
    pub fn make(&mut self, length: usize) -> Vec<u8> {
        self.source.make(length)
    }

    /// What is to be opened, and how.
    pub fn opening(&self, way: Way) -> (PathBuf, OpenOptions) {
        let itself = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let mut options = OpenOptions::new();
        match way {
            Way::ToRead => (itself, options.read(true).clone()),
            Way::ToWrite => (itself, options.read(true).write(true).clone()),
            Way::Nothing => {
                (std::env::temp_dir().join("quintpoll/nothing"), options.read(true).clone())
            }
            Way::Directory => (std::env::temp_dir(), options.write(true).clone()),
            Way::Anew => (std::env::temp_dir(), options.write(true).create_new(true).clone()),
        }
    }

    /// Which bytes it may touch, or depends on: all behind them too, where the end is involved.
    fn reach(&self, work: Work, length: usize) -> Range<usize> {
        let at = match work {
            Work::ReadAt(at) | Work::WriteAt(at) => at,
            Work::ReadVectored(at) | Work::WriteVectored(at) => at,
            Work::Read | Work::Write => return 0..usize::MAX,
            _ => return 0..0,
        };
        match at + length > self.bytes.len() {
            true => at.min(self.bytes.len())..usize::MAX,
            false => at..at + length,
        }
    }

    /// Whether it must not be under way together with the other.
    pub fn is_at_odds(&self, one: (Work, usize), other: (Work, usize)) -> bool {
        let (ours, its) = (self.reach(one.0, one.1), self.reach(other.0, other.1));
        let overlap = ours.start < its.end && its.start < ours.end;
        let are_in_order = one.0.is_sequential() && other.0.is_sequential();
        overlap && !are_in_order && (one.0.writes() || other.0.writes())
    }

    /// What has become of an operation; of one that is stopped, how much it has done.
    ///
    /// # Errors
    ///
    /// The clause that it breaks.
    pub fn judge(
        &mut self,
        work: Work,
        completion: &Completion,
        payload: &[u8],
        received: &[u8],
        asked: usize,
        is_stopped: bool,
    ) -> Verdict {
        let moved = completion.transferred;
        if let Work::Open(way) = work {
            return self.judge_opened(way, completion, is_stopped);
        }
        if let Err(error) = &completion.result {
            expect(is_stopped, "C2", || format!("it can't fail so: {error}"))?;
        }
        let at = self.start(work);
        let is_done = completion.result.is_ok();
        if work.writes() {
            let is_whole = moved == payload.len() || !is_done;
            expect(is_whole && moved <= asked, "C2", || "not all was written".to_owned())?;
            self.put(at, &payload[..moved]);
        } else if work.reads() {
            let there = self.bytes.get(at..).unwrap_or_default();
            let there = &there[..there.len().min(asked)];
            let is_whole = moved == there.len() || !is_done;
            expect(is_whole, "C2", || format!("not all was read: {} are there", there.len()))?;
            let is_same = there.get(..moved) == Some(received);
            expect(is_same, "C3", || "not what is in the file".to_owned())?;
        }
        if work.is_sequential() {
            self.position += moved;
        }
        Ok(())
    }

    /// All of this was written, or it was no write.
    pub fn note_written(&mut self, work: Work, payload: &[u8]) {
        if work.writes() {
            self.put(self.start(work), payload);
        }
        if work.is_sequential() {
            self.position += payload.len();
        }
    }

    /// The offset at which it begins.
    fn start(&self, work: Work) -> usize {
        match work {
            Work::ReadAt(at) | Work::WriteAt(at) => at,
            Work::ReadVectored(at) | Work::WriteVectored(at) => at,
            _ => self.position,
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if bytes.is_empty() {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
    }

    fn judge_opened(&self, way: Way, completion: &Completion, is_stopped: bool) -> Verdict {
        let errno = match way {
            Way::ToRead | Way::ToWrite => None,
            Way::Nothing => Some(libc::ENOENT),
            Way::Directory => Some(libc::EISDIR),
            Way::Anew => Some(libc::EEXIST),
        };
        match &completion.result {
            Ok(Outcome::Opened { file }) => {
                let is_it = errno.is_none() && self.is_it(file);
                expect(is_it, "C2", || "another file was opened".to_owned())?;
                let flags = fcntl(file, FcntlArg::F_GETFD).expect("F_GETFD");
                let is_private = FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC);
                let flags = fcntl(file, FcntlArg::F_GETFL).expect("F_GETFL");
                let flags = OFlag::from_bits_retain(flags);
                let is_so = is_private && flags.contains(OFlag::O_NONBLOCK);
                let writes = flags & OFlag::O_ACCMODE == OFlag::O_RDWR;
                let is_right = is_so && writes == (way == Way::ToWrite);
                expect(is_right, "C6", || format!("opened with {flags:?}"))
            }
            Ok(_) => expect(false, "C2", || "an outcome of something else".to_owned()),
            Err(_) if is_stopped => Ok(()),
            Err(error) => {
                let is_right = errno.is_some() && error.raw_os_error() == errno;
                expect(is_right, "C2", || format!("it can't fail so: {error}"))
            }
        }
    }

    fn is_it(&self, file: &OwnedFd) -> bool {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let [one, other] =
            [fs::metadata(path).expect("it is open"), self.file.metadata().expect("fstat")];
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    }

    /// The file must be as the model is, but for what these operations may have written, which have
    /// gone with the poller. From now on it is taken as it is.
    ///
    /// # Errors
    ///
    /// If there is a byte in it that nobody has written there.
    pub fn settle_accounts(&mut self, gone: &[(Work, &[u8])]) -> Verdict {
        let mut file = &*self.file;
        let position = file.stream_position().expect("lseek");
        let mut found = Vec::new();
        file.rewind().expect("lseek");
        file.read_to_end(&mut found).expect("read");
        file.seek(SeekFrom::Start(position)).expect("lseek");
        // Where those would have written that share the position depends on each other.
        let is_open_end = gone.iter().any(|(work, _)| *work == Work::Write);
        let moves = gone.iter().any(|(work, _)| work.is_sequential());
        let is_right = moves || position == self.position as u64;
        expect(is_right, "C3", || format!("the position is {position}, not {}", self.position))?;
        let written = |at: usize, byte: u8| {
            gone.iter().any(|(work, payload)| match *work {
                Work::WriteAt(from) | Work::WriteVectored(from) => {
                    // A hole in front of it may be there already.
                    let its = at.checked_sub(from).and_then(|nth| payload.get(nth));
                    its == Some(&byte) || (at >= self.bytes.len() && at < from && byte == 0)
                }
                _ => false,
            })
        };
        let is_known = |at: usize| self.bytes.get(at) == Some(&found[at]) || written(at, found[at]);
        // Nearly always the file begins with what is known, which one comparison tells.
        let known = if found.starts_with(&self.bytes) { self.bytes.len() } else { 0 };
        let strange = (known..found.len()).find(|&at| !is_known(at));
        let is_right = is_open_end || (strange.is_none() && found.len() >= self.bytes.len());
        expect(is_right, "D1", || {
            let (long, known) = (found.len(), self.bytes.len());
            format!("byte {strange:?} of {long} is nobody's; {known} were known")
        })?;
        (self.bytes, self.position) = (found, position as usize);
        Ok(())
    }
}
