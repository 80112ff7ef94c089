//! Single and vectored buffers, in pieces of any size, against a model.

use super::super::io_buf::{IoBuf, Transfer};
use crate::sys::buf::Buf;
use crate::sys::pool::BufferPool;
use proptest::prelude::*;
use std::io::{ErrorKind, Write};

/// The kind of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BufKind {
    Vec,
    Pool,
    Static,
    Nothing,
}

const STATIC: &[u8] = b"these bytes are there from the start and stay to the end";
/// The size of a pool's buffers.
const SIZE: usize = 100;

fn buf(kind: BufKind, count: usize, pool: &BufferPool) -> Buf {
    let bytes: Vec<u8> = (0..count).map(|at| at as u8 ^ 0x5a).collect();
    match kind {
        BufKind::Vec => Buf::Vec(bytes),
        BufKind::Static => Buf::Static(&STATIC[..count]),
        BufKind::Nothing => Buf::None,
        BufKind::Pool => {
            let mut buf = pool.take().expect("there are enough");
            buf.write_all(&bytes).expect("there is room");
            Buf::Pool(buf)
        }
    }
}

fn pool() -> BufferPool {
    BufferPool::new(SIZE, 1100).expect("a valid size and limit")
}

/// Returns the buffers, single or several.
fn all(buf: &Buf) -> &[Buf] {
    match buf {
        Buf::Many(bufs) => bufs,
        one => std::slice::from_ref(one),
    }
}

/// Returns the address of each buffer.
fn addresses(buf: &Buf) -> Vec<usize> {
    all(buf).iter().map(|one| one.as_ptr() as usize).collect()
}

/// Acts as a kernel that receives `bytes`, or sends as many: returns the bytes it has sent.
fn transfer(vectors: &[libc::iovec], bytes: &[u8], is_in: bool) -> Vec<u8> {
    let mut left = bytes;
    let mut found = Vec::new();
    for vector in vectors {
        let count = left.len().min(vector.iov_len);
        let start = vector.iov_base.cast::<u8>();
        if count == 0 {
            continue;
        }
        if is_in {
            // SAFETY: the test checks that there is room for this many.
            unsafe { std::ptr::copy_nonoverlapping(left.as_ptr(), start, count) };
        } else {
            // SAFETY: the test checks that there are this many.
            found.extend(unsafe { std::slice::from_raw_parts(start, count) });
        }
        left = &left[count..];
    }
    assert_eq!(left, b"", "the vectors are too short");
    found
}

fn any_in() -> impl Strategy<Value = (BufKind, usize, usize)> {
    (prop_oneof![Just(BufKind::Vec), Just(BufKind::Pool)], 0..40_usize, 0..60_usize)
}

fn any_out() -> impl Strategy<Value = (BufKind, usize)> {
    let kind = [BufKind::Vec, BufKind::Pool, BufKind::Static, BufKind::Nothing].map(Just);
    let [vec, pool, fixed, nothing] = kind;
    (prop_oneof![3 => vec, 3 => pool, 2 => fixed, 1 => nothing], 0..40_usize)
}

proptest! {
    #[test]
    fn received_bytes_fill_buffers_in_order(
        bufs in prop::collection::vec(any_in(), 1..6),
        is_one in any::<bool>(),
        pieces in prop::collection::vec(1..50_usize, 0..12),
    ) {
        let pool = pool();
        let is_one = is_one && bufs[0].2 > 0;
        let bufs = if is_one { &bufs[..1] } else { &bufs[..] };
        let each: Vec<usize> = bufs.iter().map(|its| its.2).collect();
        prop_assume!(each.iter().sum::<usize>() > 0);
        let mut built = bufs.iter().map(|&(kind, count, _)| buf(kind, count, &pool));
        let (whole, part) = match is_one {
            true => (built.next().expect("there is one"), Transfer::In(each[0])),
            false => (Buf::Many(built.collect()), Transfer::IntoEach(&each)),
        };
        let mut model: Vec<Vec<u8>> = all(&whole).iter().map(|one| one.to_vec()).collect();
        let before: Vec<usize> = model.iter().map(Vec::len).collect();
        let mut io_buf = load(whole, part).map_err(|_| "refused").expect("it is in order");
        let addresses = addresses(io_buf.buf());
        prop_assert!(io_buf.is_in() && io_buf.is_vectored() != is_one);
        let (sum, mut moved) = (each.iter().sum::<usize>(), 0);
        for piece in pieces {
            let vectors = io_buf.vectors().to_vec();
            prop_assert_eq!(vectors.len(), each.len());
            for (at, vector) in vectors.iter().enumerate() {
                let has = model[at].len() - before[at];
                prop_assert_eq!(vector.iov_len, each[at] - has, "the rest of its part");
                if vector.iov_len > 0 {
                    prop_assert_eq!(vector.iov_base as usize, addresses[at] + model[at].len());
                }
            }
            let count = piece.min(sum - moved);
            let bytes: Vec<u8> = (moved..moved + count).map(|at| at as u8).collect();
            transfer(&vectors, &bytes, true);
            // SAFETY: `transfer` has written them.
            unsafe { io_buf.note_moved(count) };
            moved += count;
            let mut rest = &bytes[..];
            for ((its, most), before) in model.iter_mut().zip(&each).zip(&before) {
                let (part, behind) = rest.split_at(rest.len().min(most + before - its.len()));
                its.extend(part);
                rest = behind;
            }
            prop_assert_eq!((io_buf.moved(), io_buf.left()), (moved, sum - moved));
            let now: Vec<Vec<u8>> = all(io_buf.buf()).iter().map(|one| one.to_vec()).collect();
            prop_assert_eq!(&now, &model);
        }
        let back = io_buf.take_buf();
        prop_assert_eq!(self::addresses(&back), addresses, "no buffer was moved");
    }

    #[test]
    fn sent_bytes_come_from_buffers_in_order(
        bufs in prop::collection::vec(any_out(), 1..6),
        is_one in any::<bool>(),
        cut in (0..200_usize, 0..200_usize),
        pieces in prop::collection::vec(1..50_usize, 0..12),
    ) {
        let pool = pool();
        let bufs = if is_one { &bufs[..1] } else { &bufs[..] };
        let mut built = bufs.iter().map(|&(kind, count)| buf(kind, count, &pool));
        let whole = match is_one {
            true => built.next().expect("there is one"),
            false => Buf::Many(built.collect()),
        };
        let bytes: Vec<u8> = all(&whole).iter().flat_map(|one| one.to_vec()).collect();
        // Several buffers are sent whole, a single one in any part.
        let (at, length) = match is_one {
            true => (cut.0 % (bytes.len() + 1), cut.1 % (bytes.len() + 1)),
            false => (0, bytes.len()),
        };
        let length = length.min(bytes.len() - at);
        let addresses = addresses(&whole);
        let part = if is_one { Transfer::Out(at, length) } else { Transfer::OutOfEach };
        let mut io_buf = load(whole, part);
        let io_buf = io_buf.as_mut().map_err(|_| "refused").expect("it is in order");
        let mut moved = 0;
        for piece in pieces {
            let vectors = io_buf.vectors().to_vec();
            let total: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            prop_assert_eq!(total, length - moved, "exactly the rest");
            let count = piece.min(total);
            let found = transfer(&vectors, &vec![0; count], false);
            prop_assert_eq!(&found[..], &bytes[at + moved..][..count]);
            // SAFETY: nothing is received.
            unsafe { io_buf.note_moved(count) };
            moved += count;
            prop_assert_eq!((io_buf.moved(), io_buf.left()), (moved, length - moved));
        }
        prop_assert_eq!(self::addresses(io_buf.buf()), addresses, "no buffer was moved");
        let now: Vec<u8> = all(io_buf.buf()).iter().flat_map(|one| one.to_vec()).collect();
        prop_assert_eq!(now, bytes);
    }
}

fn load(mut buf: Buf, part: Transfer<'_>) -> Result<IoBuf, (std::io::Error, Buf)> {
    let mut io_buf = IoBuf::default();
    match io_buf.load(&mut buf, part) {
        Ok(()) => Ok(io_buf),
        Err(error) => Err((error, buf)),
    }
}

/// Returns the error of a load, after checking that the buffer is returned unchanged.
fn refused(buf: Buf, part: Transfer<'_>) -> Option<ErrorKind> {
    let (addresses, debug) = (addresses(&buf), format!("{buf:?}"));
    match load(buf, part) {
        Ok(_) => None,
        Err((error, back)) => {
            assert_eq!(self::addresses(&back), addresses, "{error}");
            // Capacity reserved before a later buffer was refused may remain.
            if !matches!(back, Buf::Many(_)) {
                assert_eq!(format!("{back:?}"), debug, "{error}");
            }
            Some(error.kind())
        }
    }
}

#[test]
fn receive_without_space_returns_its_buffer() {
    let (pool, invalid) = (pool(), Some(ErrorKind::InvalidInput));
    let one = |kind, count| buf(kind, count, &pool);
    assert_eq!(refused(one(BufKind::Pool, 0), Transfer::In(SIZE)), None);
    assert_eq!(refused(one(BufKind::Pool, 0), Transfer::In(SIZE + 1)), invalid);
    assert_eq!(refused(one(BufKind::Pool, 60), Transfer::In(SIZE - 60)), None);
    assert_eq!(refused(one(BufKind::Pool, 60), Transfer::In(SIZE - 59)), invalid);
    assert_eq!(refused(one(BufKind::Static, 9), Transfer::In(1)), invalid);
    assert_eq!(refused(one(BufKind::Nothing, 0), Transfer::In(1)), invalid);
    assert_eq!(
        refused(one(BufKind::Vec, 9), Transfer::In(usize::MAX)),
        Some(ErrorKind::OutOfMemory)
    );
    assert_eq!(refused(one(BufKind::Vec, 9), Transfer::IntoEach(&[1])), invalid, "a single buffer");
    let two = |second, count| Buf::Many([one(BufKind::Vec, 9), one(second, count)].into());
    assert_eq!(refused(two(BufKind::Pool, 99), Transfer::IntoEach(&[1, 1])), None);
    assert_eq!(refused(two(BufKind::Pool, 99), Transfer::IntoEach(&[1, 2])), invalid);
    assert_eq!(refused(two(BufKind::Static, 9), Transfer::IntoEach(&[1, 1])), invalid);
    assert_eq!(refused(two(BufKind::Vec, 9), Transfer::IntoEach(&[0, 0])), invalid, "nothing");
    assert_eq!(refused(two(BufKind::Vec, 9), Transfer::In(1)), invalid, "each needs a count");
    let too_much = Transfer::IntoEach(&[1, usize::MAX]);
    assert_eq!(refused(two(BufKind::Vec, 9), too_much), Some(ErrorKind::OutOfMemory));
    let nested = || Buf::Many([one(BufKind::Vec, 1), Buf::Many([].into())].into());
    assert_eq!(refused(nested(), Transfer::IntoEach(&[1, 1])), invalid);
    assert_eq!(refused(nested(), Transfer::OutOfEach), invalid);
    assert_eq!(pool.available(), pool.allocated(), "all were returned");
}

#[test]
fn invalid_range_returns_its_buffer() {
    let (pool, invalid) = (pool(), Some(ErrorKind::InvalidInput));
    for kind in [BufKind::Vec, BufKind::Pool, BufKind::Static] {
        for (at, length) in [(0, 6), (6, 0), (5, 1), (usize::MAX, 1), (1, usize::MAX)] {
            assert_eq!(refused(buf(kind, 5, &pool), Transfer::Out(at, length)), invalid);
        }
        assert_eq!(refused(buf(kind, 5, &pool), Transfer::Out(5, 0)), None);
        let many = Buf::Many([buf(kind, 3, &pool), buf(kind, 2, &pool)].into());
        assert_eq!(refused(many, Transfer::OutOfEach), None);
        let many = Buf::Many([buf(kind, 3, &pool), buf(kind, 2, &pool)].into());
        assert_eq!(refused(many, Transfer::Out(0, 5)), invalid, "several are sent whole");
        assert_eq!(refused(buf(kind, 5, &pool), Transfer::OutOfEach), invalid, "a single buffer");
    }
}

#[test]
fn more_than_1024_buffers_are_refused() {
    let pool = pool();
    for (count, is_refused) in [(1024, false), (1025, true)] {
        let many = || Buf::Many((0..count).map(|_| buf(BufKind::Vec, 1, &pool)).collect());
        let expected = is_refused.then_some(ErrorKind::InvalidInput);
        assert_eq!(refused(many(), Transfer::OutOfEach), expected);
        assert_eq!(refused(many(), Transfer::IntoEach(&vec![1; count])), expected);
    }
}

#[test]
fn single_part_is_limited_to_one_call() {
    let room = crate::sys::MAX_TRANSFER + 9;
    let mut io_buf = load(Buf::Vec(vec![]), Transfer::In(room)).map_err(|_| ()).expect("room");
    let vector = io_buf.vectors()[0];
    assert_eq!((vector.iov_len, io_buf.left()), (crate::sys::MAX_TRANSFER, room));
}

#[test]
fn unbuffered_bytes_are_counted() {
    let mut io_buf = load(Buf::None, Transfer::Unbuffered(50)).map_err(|_| ()).expect("no buffer");
    assert_eq!((io_buf.left(), io_buf.moved(), io_buf.is_in()), (50, 0, false));
    io_buf.note_unbuffered(20);
    assert_eq!(io_buf.moved(), 20);
    assert_eq!(io_buf.take_buf(), Buf::None);
}
