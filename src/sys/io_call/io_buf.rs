//! The bytes that a call transfers: buffers, part, and progress.

use super::super::MAX_TRANSFER;
use super::super::buf::Buf;
use std::io;
use std::ops::Deref;
use std::ptr;

/// The bytes to transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transfer<'a> {
    Nothing,
    /// At most this many, without a buffer.
    Unbuffered(usize),
    /// At most this many, appended to the buffer.
    In(usize),
    /// At most this many for each of several buffers, appended.
    IntoEach(&'a [usize]),
    /// From the buffer: offset and length.
    Out(usize, usize),
    /// All bytes of several buffers.
    OutOfEach,
}

/// The maximum number of buffers of one call.
const MAX_BUFFERS: usize = libc::UIO_MAXIOV as usize;

/// A buffer, and its progress.
#[derive(Default)]
pub(super) struct IoBuf {
    buf: Buf,
    /// The buffer is received into.
    is_in: bool,
    /// The offset of the bytes left to send. Received bytes are appended.
    at: usize,
    /// The count of bytes left to transfer.
    left: usize,
    moved: usize,
    vectored: Option<Box<Vectored>>,
}

/// The state of several buffers.
#[derive(Default)]
struct Vectored {
    /// The count of bytes left to receive into each.
    each: Vec<usize>,
    /// The vectors of a call, unchanged until the next call is prepared.
    vectors: Vec<libc::iovec>,
}

impl IoBuf {
    /// Takes a buffer, and reserves space in it.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: the space can't be reserved; `InvalidInput`: the buffer can't be received
    /// into, or has no such part. The buffer is not taken then.
    #[inline(always)]
    pub(super) fn load(&mut self, buf: &mut Buf, part: Transfer<'_>) -> io::Result<()> {
        let (is_in, at, left) = match part {
            Transfer::Nothing => (false, 0, 0),
            Transfer::Unbuffered(most) => (false, 0, most),
            Transfer::In(most) => {
                reserve(buf, most)?;
                (true, 0, most)
            }
            Transfer::IntoEach(most) => (true, 0, reserve_each(buf, most)?),
            Transfer::Out(at, length) => {
                check_part(buf, at, length)?;
                (false, at, length)
            }
            Transfer::OutOfEach => (false, 0, total_length(buf)?),
        };
        (self.is_in, self.at, self.left, self.moved) = (is_in, at, left, 0);
        self.vectored = matches!(buf, Buf::Many(_)).then(|| {
            let each = if let Transfer::IntoEach(most) = part { most.to_vec() } else { Vec::new() };
            Box::new(Vectored { each, vectors: Vec::new() })
        });
        debug_assert!(matches!(self.buf, Buf::None), "the buffer of the last call was not taken");
        std::mem::swap(&mut self.buf, buf);
        Ok(())
    }

    /// Limits the bytes to what one call can transfer, in however many pieces. Returns true if that
    /// is less than was requested.
    pub(super) fn limit(&mut self) -> bool {
        let is_limited = self.left > MAX_TRANSFER;
        self.left = self.left.min(MAX_TRANSFER);
        is_limited
    }

    pub(super) fn buf(&self) -> &Buf {
        &self.buf
    }

    /// Takes the buffer; no bytes are left to transfer.
    pub(super) fn take_buf(&mut self) -> Buf {
        (self.left, self.vectored) = (0, None);
        std::mem::take(&mut self.buf)
    }

    pub(super) fn is_in(&self) -> bool {
        self.is_in
    }

    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn moved(&self) -> usize {
        self.moved
    }

    /// Returns true for several buffers.
    pub(super) fn is_vectored(&self) -> bool {
        self.vectored.is_some()
    }

    /// Counts bytes that were transferred without a buffer.
    pub(super) fn note_unbuffered(&mut self, count: usize) {
        self.moved += count;
    }

    /// Counts the next `count` bytes as transferred.
    ///
    /// # Safety
    ///
    /// Received bytes must have been written where [`IoBuf::part`] or [`IoBuf::vectors`] said.
    #[allow(unsafe_code)]
    pub(super) unsafe fn note_moved(&mut self, count: usize) {
        debug_assert!(count <= self.left, "more was transferred than requested");
        let mut count = count.min(self.left);
        self.left -= count;
        self.moved += count;
        if !self.is_in {
            self.at += count;
            return;
        }
        match (&mut self.buf, &mut self.vectored) {
            (Buf::Many(bufs), Some(vectored)) => {
                for (buf, left) in bufs.iter_mut().zip(&mut vectored.each) {
                    let part = count.min(*left);
                    // SAFETY: as the caller promises; the buffers are filled in order.
                    unsafe { note_written(buf, part) };
                    *left -= part;
                    count -= part;
                }
            }
            // SAFETY: as the caller promises.
            (buf, _) => unsafe { note_written(buf, count) },
        }
    }

    /// Returns the bytes of a single buffer that are left to send.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn rest(&self) -> &[u8] {
        &self.buf[self.at..self.at + self.left]
    }

    /// Returns the bytes left to send, or the space to receive, of a single buffer.
    #[inline]
    pub(super) fn part(&mut self) -> libc::iovec {
        let length = self.left.min(MAX_TRANSFER);
        let start =
            if self.is_in { receive_start(&mut self.buf) } else { send_start(&self.buf, self.at) };
        libc::iovec { iov_base: start.cast(), iov_len: length }
    }

    /// Returns the same of any number of buffers, in order.
    pub(super) fn vectors(&mut self) -> IoVecs<'_> {
        let part = self.part();
        let (Buf::Many(bufs), Some(vectored)) = (&mut self.buf, &mut self.vectored) else {
            return IoVecs::One([part]);
        };
        vectored.vectors.clear();
        let (mut before, mut left) = (self.at, self.left);
        for (index, buf) in bufs.iter_mut().enumerate() {
            let (start, length) = if self.is_in {
                (receive_start(buf), vectored.each[index])
            } else {
                let skipped = before.min(buf.len());
                before -= skipped;
                (send_start(buf, skipped), buf.len() - skipped)
            };
            let length = length.min(left);
            left -= length;
            vectored.vectors.push(libc::iovec { iov_base: start.cast(), iov_len: length });
        }
        IoVecs::Vectored(&vectored.vectors)
    }
}

/// The vectors of a call.
pub(super) enum IoVecs<'a> {
    One([libc::iovec; 1]),
    /// Valid until the next call is prepared.
    Vectored(&'a [libc::iovec]),
}

impl Deref for IoVecs<'_> {
    type Target = [libc::iovec];

    fn deref(&self) -> &[libc::iovec] {
        match self {
            IoVecs::One(part) => part,
            IoVecs::Vectored(parts) => parts,
        }
    }
}

fn invalid<T>(why: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn reserve(buf: &mut Buf, most: usize) -> io::Result<()> {
    match buf {
        Buf::Vec(bytes) => bytes.try_reserve(most).map_err(|_| {
            let cause = format!("the buffer can't grow by {most} bytes, from {}", bytes.len());
            io::Error::new(io::ErrorKind::OutOfMemory, cause)
        }),
        Buf::Pool(bytes) if most <= bytes.capacity() - bytes.len() => Ok(()),
        Buf::Pool(_) => invalid("the buffer's free capacity is too small, and its size is fixed"),
        Buf::Many(_) => invalid(MANY),
        Buf::None | Buf::Static(_) => invalid("only a Vec or a PoolBuf can be received into"),
    }
}

fn reserve_each(buf: &mut Buf, each: &[usize]) -> io::Result<usize> {
    let Buf::Many(bufs) = buf else { return invalid(NOT_MANY) };
    check_count(bufs)?;
    let mut sum: usize = 0;
    for (buf, &most) in bufs.iter_mut().zip(each) {
        reserve(buf, most)?;
        sum = sum.saturating_add(most);
    }
    if sum == 0 { invalid("the receive has no space") } else { Ok(sum) }
}

fn check_part(buf: &Buf, at: usize, length: usize) -> io::Result<()> {
    if matches!(buf, Buf::Many(_)) {
        return invalid(MANY);
    }
    if at.checked_add(length).is_some_and(|end| end <= buf.len()) {
        Ok(())
    } else {
        invalid("the range exceeds the buffer")
    }
}

fn total_length(buf: &Buf) -> io::Result<usize> {
    let Buf::Many(bufs) = buf else { return invalid(NOT_MANY) };
    check_count(bufs)?;
    Ok(bufs.iter().fold(0, |sum, buf| sum.saturating_add(buf.len())))
}

const MANY: &str = "only vectored operations take several buffers";
const NOT_MANY: &str = "a vectored operation takes several buffers";

fn check_count(bufs: &[Buf]) -> io::Result<()> {
    if bufs.len() > MAX_BUFFERS {
        return invalid("more than 1024 buffers");
    }
    if bufs.iter().any(|buf| matches!(buf, Buf::Many(_))) {
        invalid("Buf::Many within Buf::Many")
    } else {
        Ok(())
    }
}

/// Returns the address to receive at.
fn receive_start(buf: &mut Buf) -> *mut u8 {
    match buf {
        Buf::Vec(bytes) => bytes.spare_capacity_mut().as_mut_ptr().cast(),
        Buf::Pool(bytes) => bytes.spare_capacity().as_mut_ptr().cast(),
        Buf::None | Buf::Static(_) | Buf::Many(_) => ptr::null_mut(),
    }
}

/// Returns the address to send from, which is not written to.
fn send_start(buf: &Buf, at: usize) -> *mut u8 {
    buf.get(at..).map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut())
}

/// Extends the buffer by received bytes.
///
/// # Safety
///
/// The kernel must have written `count` bytes to the [`receive_start`].
#[allow(unsafe_code)]
unsafe fn note_written(buf: &mut Buf, count: usize) {
    match buf {
        // SAFETY: the kernel has written `count` bytes within the capacity.
        Buf::Vec(bytes) => unsafe { bytes.set_len(bytes.len() + count) },
        // SAFETY: as above.
        Buf::Pool(bytes) => unsafe { bytes.note_written(count) },
        Buf::None | Buf::Static(_) | Buf::Many(_) => {}
    }
}
