//! The bytes that a call is to move: which part of which buffer, and how far it has got.

use super::super::MOST;
use super::super::buf::Buf;
use std::io;
use std::ops::Deref;
use std::ptr;

/// Which bytes are to be moved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    Nothing,
    /// At most so many, through no buffer.
    Through(usize),
    /// At most so many to the end of the buffer.
    In(usize),
    /// At most so many to the end of each of several.
    IntoEach(&'a [usize]),
    /// Out of the buffer: where they begin, and how many they are.
    Out(usize, usize),
    /// All of each of several.
    OutOfEach,
}

/// No call takes more buffers.
const MOST_BUFFERS: usize = libc::UIO_MAXIOV as usize;

/// A buffer, and what is to be done with it.
#[derive(Default)]
pub(super) struct IoBuf {
    buf: Buf,
    /// It is to be received into.
    is_in: bool,
    /// Of what is sent, where the rest begins. What is received is appended.
    at: usize,
    /// How many bytes are left to be moved.
    left: usize,
    moved: usize,
    many: Option<Box<Vectored>>,
}

/// Of several buffers.
#[derive(Default)]
struct Vectored {
    /// If they are to be received into, how many bytes are left for each.
    each: Vec<usize>,
    /// Where a call finds them: stays as it is until the next call is prepared.
    vectors: Vec<libc::iovec>,
}

impl IoBuf {
    /// Takes a buffer, and makes room where there is none.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`: there is no room for so much; `InvalidInput`: the buffer is none that can be
    /// received into, or has no such part. The buffer stays where it is.
    #[inline(always)]
    pub(super) fn load(&mut self, buf: &mut Buf, part: Part<'_>) -> io::Result<()> {
        let (is_in, at, left) = match part {
            Part::Nothing => (false, 0, 0),
            Part::Through(most) => (false, 0, most),
            Part::In(most) => {
                make_room(buf, most)?;
                (true, 0, most)
            }
            Part::IntoEach(most) => (true, 0, make_room_in_each(buf, most)?),
            Part::Out(at, length) => {
                check_part(buf, at, length)?;
                (false, at, length)
            }
            Part::OutOfEach => (false, 0, length_of_each(buf)?),
        };
        (self.is_in, self.at, self.left, self.moved) = (is_in, at, left, 0);
        self.many = matches!(buf, Buf::Many(_)).then(|| {
            let each = if let Part::IntoEach(most) = part { most.to_vec() } else { Vec::new() };
            Box::new(Vectored { each, vectors: Vec::new() })
        });
        debug_assert!(matches!(self.buf, Buf::None), "the buffer of the last call was taken");
        std::mem::swap(&mut self.buf, buf);
        Ok(())
    }

    /// No more is moved than one call can, in however many it is done. Returns true if that is less
    /// than was asked for.
    pub(super) fn bound(&mut self) -> bool {
        let is_cut = self.left > MOST;
        self.left = self.left.min(MOST);
        is_cut
    }

    pub(super) fn buf(&self) -> &Buf {
        &self.buf
    }

    /// Takes the buffer. No bytes are left to be moved.
    pub(super) fn take_buf(&mut self) -> Buf {
        (self.left, self.many) = (0, None);
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

    /// Whether there are several buffers.
    pub(super) fn is_many(&self) -> bool {
        self.many.is_some()
    }

    /// So many bytes were moved, but through no buffer.
    pub(super) fn note_passed(&mut self, count: usize) {
        self.moved += count;
    }

    /// The next `count` bytes were moved.
    ///
    /// # Safety
    ///
    /// Of those received, the kernel has to have written them where [`IoBuf::part`] or
    /// [`IoBuf::vectors`] said.
    #[allow(unsafe_code)]
    pub(super) unsafe fn note_moved(&mut self, count: usize) {
        debug_assert!(count <= self.left, "no more than was asked for");
        let mut count = count.min(self.left);
        self.left -= count;
        self.moved += count;
        if !self.is_in {
            self.at += count;
            return;
        }
        match (&mut self.buf, &mut self.many) {
            (Buf::Many(bufs), Some(many)) => {
                for (buf, left) in bufs.iter_mut().zip(&mut many.each) {
                    let part = count.min(*left);
                    // SAFETY: as the caller promises; they are filled in turn.
                    unsafe { note_written(buf, part) };
                    *left -= part;
                    count -= part;
                }
            }
            // SAFETY: as the caller promises.
            (buf, _) => unsafe { note_written(buf, count) },
        }
    }

    /// Of one buffer, the bytes that are left to be sent.
    #[cfg(any(test, feature = "spi"))]
    pub(super) fn rest(&self) -> &[u8] {
        &self.buf[self.at..self.at + self.left]
    }

    /// The bytes that are left, or the room for them, of one buffer.
    #[inline]
    pub(super) fn part(&mut self) -> libc::iovec {
        let length = self.left.min(MOST);
        let start = match self.is_in {
            true => room(&mut self.buf),
            false => start_of(&self.buf, self.at),
        };
        libc::iovec { iov_base: start.cast(), iov_len: length }
    }

    /// The same of any number of buffers, one after the other.
    pub(super) fn vectors(&mut self) -> IoVecs<'_> {
        let part = self.part();
        let (Buf::Many(bufs), Some(many)) = (&mut self.buf, &mut self.many) else {
            return IoVecs::One([part]);
        };
        many.vectors.clear();
        let (mut before, mut left) = (self.at, self.left);
        for (index, buf) in bufs.iter_mut().enumerate() {
            let (start, length) = match self.is_in {
                true => (room(buf), many.each[index]),
                false => {
                    let skipped = before.min(buf.len());
                    before -= skipped;
                    (start_of(buf, skipped), buf.len() - skipped)
                }
            };
            let length = length.min(left);
            left -= length;
            many.vectors.push(libc::iovec { iov_base: start.cast(), iov_len: length });
        }
        IoVecs::Vectored(&many.vectors)
    }
}

/// Where the bytes of a call are.
pub(super) enum IoVecs<'a> {
    One([libc::iovec; 1]),
    /// These stay as they are until the next call is prepared.
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

fn refused<T>(why: &'static str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn make_room(buf: &mut Buf, most: usize) -> io::Result<()> {
    match buf {
        Buf::Vec(bytes) => bytes.try_reserve(most).map_err(|_| {
            let cause = format!("the buffer can't grow by {most} bytes, from {}", bytes.len());
            io::Error::new(io::ErrorKind::OutOfMemory, cause)
        }),
        Buf::Pool(bytes) => match most <= bytes.capacity() - bytes.len() {
            true => Ok(()),
            false => refused("the buffer has no room for so much, and is of a fixed size"),
        },
        Buf::Many(_) => refused(MANY),
        Buf::None | Buf::Static(_) => refused("only a Vec or a PoolBuf can be received into"),
    }
}

fn make_room_in_each(buf: &mut Buf, each: &[usize]) -> io::Result<usize> {
    let Buf::Many(bufs) = buf else { return refused(NOT_MANY) };
    check_count(bufs)?;
    let mut sum: usize = 0;
    for (buf, &most) in bufs.iter_mut().zip(each) {
        make_room(buf, most)?;
        sum = sum.saturating_add(most);
    }
    if sum == 0 { refused("nothing is to be received") } else { Ok(sum) }
}

fn check_part(buf: &Buf, at: usize, length: usize) -> io::Result<()> {
    if matches!(buf, Buf::Many(_)) {
        return refused(MANY);
    }
    match at.checked_add(length).is_some_and(|end| end <= buf.len()) {
        true => Ok(()),
        false => refused("the range exceeds the buffer"),
    }
}

fn length_of_each(buf: &Buf) -> io::Result<usize> {
    let Buf::Many(bufs) = buf else { return refused(NOT_MANY) };
    check_count(bufs)?;
    Ok(bufs.iter().fold(0, |sum, buf| sum.saturating_add(buf.len())))
}

const MANY: &str = "several buffers are for vectored operations";
const NOT_MANY: &str = "a vectored operation takes several buffers";

fn check_count(bufs: &[Buf]) -> io::Result<()> {
    if bufs.len() > MOST_BUFFERS {
        return refused("more than 1024 buffers");
    }
    match bufs.iter().any(|buf| matches!(buf, Buf::Many(_))) {
        true => refused("several buffers within several"),
        false => Ok(()),
    }
}

/// Where what is received goes.
fn room(buf: &mut Buf) -> *mut u8 {
    match buf {
        Buf::Vec(bytes) => bytes.spare_capacity_mut().as_mut_ptr().cast(),
        Buf::Pool(bytes) => bytes.spare().as_mut_ptr().cast(),
        Buf::None | Buf::Static(_) | Buf::Many(_) => ptr::null_mut(),
    }
}

/// Where what is sent begins. It is not written to.
fn start_of(buf: &Buf, at: usize) -> *mut u8 {
    buf.get(at..).map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut())
}

/// # Safety
///
/// The kernel has to have written so many bytes to the [`room`].
#[allow(unsafe_code)]
unsafe fn note_written(buf: &mut Buf, count: usize) {
    match buf {
        // SAFETY: there was room for so many bytes, which the kernel has written.
        Buf::Vec(bytes) => unsafe { bytes.set_len(bytes.len() + count) },
        // SAFETY: as above.
        Buf::Pool(bytes) => unsafe { bytes.note_written(count) },
        Buf::None | Buf::Static(_) | Buf::Many(_) => {}
    }
}
