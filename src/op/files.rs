//! Operations on files: at an offset, and what opens and keeps them.

use super::{Amount, Kind, Op, OpArgs, OpenOptions};
use crate::key::Key;
use crate::sys::buf::Buf;
use std::ops::RangeBounds;
use std::path::Path;

impl Op {
    /// Reads at most `max` bytes from `offset` of a file on, as pread(2) does: fewer only where the
    /// file ends, or after 2,147,479,552, which is what one call can. `max` 0 is refused.
    ///
    /// A file opened with `O_DIRECT` wants buffer, `max` and offset aligned: take the buffer from
    /// a [`BufferPool`](crate::sys::pool::BufferPool).
    pub fn read_at(key: Key, buf: impl Into<Buf>, max: usize, offset: u64) -> Self {
        Op { offset, ..Op::into_buf_of(Kind::ReadAt, key, buf.into(), max) }
    }

    /// Writes `range` of the buffer to `offset` of a file on, as pwrite(2) does: less only where
    /// there is no more room, or after 2,147,479,552 bytes. One opened with `O_APPEND` is written
    /// at its end whatever the offset. Beyond `RLIMIT_FSIZE` it fails with `EFBIG`, and `SIGXFSZ`
    /// is not raised (C2).
    pub fn write_at(
        key: Key,
        buf: impl Into<Buf>,
        range: impl RangeBounds<usize>,
        offset: u64,
    ) -> Self {
        Op { offset, ..Op::out_of(Kind::WriteAt, key, buf.into(), range) }
    }

    /// Reads into several buffers, one after the other, as preadv(2) does: to each at most as many
    /// bytes are appended as stand beside it. They come back as [`Buf::Many`]. More than 1024
    /// are refused.
    pub fn read_at_vectored(
        key: Key,
        bufs: impl IntoIterator<Item = (Buf, usize)>,
        offset: u64,
    ) -> Self {
        let (bufs, most): (Vec<Buf>, _) = bufs.into_iter().unzip();
        let (buf, amount) = (Buf::Many(bufs.into()), Amount::IntoEach(most));
        Op { buf, amount, offset, ..Op::new(Kind::ReadAt, Some(key)) }
    }

    /// Writes several buffers, one after the other, as pwritev(2) does. They come back as
    /// [`Buf::Many`]. More than 1024 are refused.
    pub fn write_at_vectored(key: Key, bufs: impl IntoIterator<Item = Buf>, offset: u64) -> Self {
        let (buf, amount) = (Buf::Many(bufs.into_iter().collect()), Amount::OutOfEach);
        Op { buf, amount, offset, ..Op::new(Kind::WriteAt, Some(key)) }
    }

    /// Has what was written to a file kept by its device, as fsync(2) does. It waits for no
    /// operation that was submitted before: submit it when those have completed.
    pub fn fsync(key: Key) -> Self {
        Op::new(Kind::Sync { data_only: false }, Some(key))
    }

    /// The same for the bytes, but not for what else the file system knows of the file, as
    /// fdatasync(2) does.
    pub fn fdatasync(key: Key) -> Self {
        Op::new(Kind::Sync { data_only: true }, Some(key))
    }

    /// Opens a file, as open(2) does: [`Outcome::Opened`](super::Outcome::Opened). It needs no
    /// source. A path that is not absolute starts from where the process is when the file is
    /// opened, which is some time before the operation completes; and so it is with rights and
    /// umask. It never waits for the other side of a FIFO (`O_NONBLOCK`, C6): without a reader, to
    /// open it for writing is `ENXIO`.
    ///
    /// `/proc/thread-self` at the beginning of a path is the thread that submits, and `/proc/self`
    /// the process. A path that leads to the former in another way, by a symbolic link or from the
    /// working directory, names the thread that opens the file and then ends.
    ///
    /// [`submit`](crate::Poller::submit) opens the file itself if that cannot wait: the path is in
    /// the kernel's cache, nothing is written, created or truncated, and the file is a regular one
    /// or a directory on a local file system (ext4, tmpfs; regular files on xfs and btrfs). That
    /// needs Linux 6.8 and procfs. Every other open is made by a thread that is started for it. A
    /// program that decides on opens, such as a fanotify(7) listener with `FAN_OPEN_PERM`, can keep
    /// both waiting.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use quintpoll::{Backend, Events, Interest, Mode, Op, OpenOptions, Outcome, Token};
    /// use std::sync::Arc;
    ///
    /// let mut poller = Backend::best().open()?;
    /// let mut events = Events::with_capacity(8);
    /// poller.submit(Op::open("/proc/version", OpenOptions::new().read(true)), Token(1))?;
    /// poller.wait(&mut events, None)?;
    /// let opened = events.completions().next().expect("nothing else ends the wait").result?;
    /// let Outcome::Opened { file } = opened else { unreachable!("it was an open") };
    ///
    /// let file = poller.register(Arc::new(file), Token(0), Interest::empty(), Mode::Level)?;
    /// poller.submit(Op::read_at(file, Vec::new(), 5, 0), Token(2))?;
    /// poller.wait(&mut events, None)?;
    /// let read = events.completions().next().expect("nothing else ends the wait");
    /// assert_eq!((read.token, &read.buf[..]), (Token(2), &b"Linux"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Self {
        let with = OpArgs::Path(Box::new((path.as_ref().to_owned(), options.clone())));
        Op { with, ..Op::new(Kind::Open, None) }
    }
}
