//! Operations on files: reads and writes at an offset, syncs and opens.

use super::{Amount, Kind, Op, OpArgs, OpenOptions};
use crate::key::Key;
use crate::sys::buf::Buf;
use std::ops::RangeBounds;
use std::path::Path;

impl Op {
    /// Reads at most `max` bytes of a file from `offset` on, as pread(2) does. Reads fewer only at
    /// the end of the file, or after 2,147,479,552, the limit of one call. `max` 0 is refused.
    ///
    /// A file opened with `O_DIRECT` requires aligned buffer, `max` and offset: take the buffer
    /// from a [`BufferPool`](crate::sys::pool::BufferPool).
    #[doc(alias("pread", "pread64", "IORING_OP_READ"))]
    pub fn read_at(key: Key, buf: impl Into<Buf>, max: usize, offset: u64) -> Self {
        Op { offset, ..Op::into_buf_of(Kind::ReadAt, key, buf.into(), max) }
    }

    /// Writes `range` of the buffer to a file from `offset` on, as pwrite(2) does. Writes less only
    /// if the device is full, or after 2,147,479,552 bytes. A file opened with `O_APPEND` is
    /// written at its end whatever the offset. A write beyond `RLIMIT_FSIZE` fails with `EFBIG` and
    /// does not raise `SIGXFSZ` (C2).
    #[doc(alias("pwrite", "pwrite64", "IORING_OP_WRITE"))]
    pub fn write_at(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        offset: u64,
    ) -> Self {
        Op { offset, ..Op::out_of(Kind::WriteAt, key, buf.into(), range) }
    }

    /// Reads into several buffers, one after the other, as preadv(2) does. Each buffer is paired
    /// with the most bytes to append to it. They are returned as [`Buf::Many`]. More than 1024 are
    /// refused.
    #[doc(alias("preadv", "readv", "IORING_OP_READV"))]
    pub fn read_at_vectored(
        key: Key,
        bufs: impl IntoIterator<Item = (Buf, usize)>,
        offset: u64,
    ) -> Self {
        let (bufs, max): (Vec<Buf>, _) = bufs.into_iter().unzip();
        let (buf, amount) = (Buf::Many(bufs.into()), Amount::IntoEach(max));
        Op { buf, amount, offset, ..Op::new(Kind::ReadAt, Some(key)) }
    }

    /// Writes several buffers, one after the other, as pwritev(2) does. They are returned as
    /// [`Buf::Many`]. More than 1024 are refused.
    #[doc(alias("pwritev", "writev", "IORING_OP_WRITEV"))]
    pub fn write_at_vectored(key: Key, bufs: impl IntoIterator<Item = Buf>, offset: u64) -> Self {
        let (buf, amount) = (Buf::Many(bufs.into_iter().collect()), Amount::OutOfEach);
        Op { buf, amount, offset, ..Op::new(Kind::WriteAt, Some(key)) }
    }

    /// Flushes data and metadata of a file to its device, as fsync(2) does. An fsync waits for no
    /// earlier operation: submit it when the writes have completed.
    #[doc(alias = "IORING_OP_FSYNC")]
    pub fn fsync(key: Key) -> Self {
        Op::new(Kind::Sync { data_only: false }, Some(key))
    }

    /// Flushes the data of a file, and only the metadata needed to read it, as fdatasync(2) does.
    #[doc(alias = "IORING_FSYNC_DATASYNC")]
    pub fn fdatasync(key: Key) -> Self {
        Op::new(Kind::Sync { data_only: true }, Some(key))
    }

    /// Opens a file, as open(2) does: [`Outcome::Opened`](super::Outcome::Opened). An open needs no
    /// source. A relative path starts from the working directory at the moment of the open, which
    /// is some time before the completion. The rights and the umask are those of that moment too.
    /// An open never waits for the other end of a FIFO (`O_NONBLOCK`, C6): opening for writing
    /// without a reader is `ENXIO`.
    ///
    /// A path that begins with `/proc/thread-self` means the thread that submits, `/proc/self` the
    /// process. A path that reaches the former by a symbolic link or from the working directory
    /// means the thread that opens the file and then ends.
    ///
    /// [`submit`](crate::Poller::submit) opens the file itself, with Linux 6.8 and procfs, if the
    /// open cannot wait:
    ///
    /// * the path is in the kernel's cache,
    /// * nothing is written, created or truncated, and
    /// * the file is a regular file or directory on ext4 or tmpfs, or a regular file on xfs or
    ///   btrfs.
    ///
    /// A thread that is started for it makes every other open. A program that decides on opens,
    /// such as a fanotify(7) listener with `FAN_OPEN_PERM`, can delay both.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Op, OpenOptions, Outcome, Token};
    /// use std::sync::Arc;
    ///
    /// let mut poller = Backend::best().open()?;
    /// let mut events = Events::with_capacity(8);
    /// poller.submit(Op::open("/proc/version", OpenOptions::new().read(true)), Token(1))?;
    /// poller.wait(&mut events, None)?;
    /// let opened = events.completions().next().expect("nothing else ends the wait").result?;
    /// let Outcome::Opened { file } = opened else { unreachable!("this is an open") };
    ///
    /// let file = poller.register_for_ops(Arc::new(file))?;
    /// poller.submit(Op::read_at(file, Vec::new(), 5, 0), Token(2))?;
    /// poller.wait(&mut events, None)?;
    /// let read = events.completions().next().expect("nothing else ends the wait");
    /// assert_eq!((read.token, &read.buf[..]), (Token(2), &b"Linux"[..]));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("openat", "openat2", "IORING_OP_OPENAT"))]
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Self {
        let with = OpArgs::Path(Box::new((path.as_ref().to_owned(), options.clone())));
        Op { with, ..Op::new(Kind::Open, None) }
    }
}
