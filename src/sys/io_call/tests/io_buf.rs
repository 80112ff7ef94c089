//! Bytes and where they go, in one buffer or in several and in pieces of any size, against a model.

use super::super::io_buf::{IoBuf, Part};
use crate::sys::buf::Buf;
use crate::sys::pool::BufferPool;
use proptest::prelude::*;
use std::io::{ErrorKind, Write};

/// What a buffer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Vec,
    Pool,
    Static,
    Nothing,
}

const STATIC: &[u8] = b"these bytes are there from the start and stay to the end";
/// How many bytes a buffer of a pool has.
const SIZE: usize = 100;

fn buf(made: Made, count: usize, pool: &BufferPool) -> Buf {
    let bytes: Vec<u8> = (0..count).map(|at| at as u8 ^ 0x5a).collect();
    match made {
        Made::Vec => Buf::Vec(bytes),
        Made::Static => Buf::Static(&STATIC[..count]),
        Made::Nothing => Buf::None,
        Made::Pool => {
            let mut buf = pool.take().expect("there are enough");
            buf.write_all(&bytes).expect("there is room");
            Buf::Pool(buf)
        }
    }
}

fn pool() -> BufferPool {
    BufferPool::new(SIZE, 1100).expect("there is something in it")
}

/// The buffers, whether one or several.
fn all(buf: &Buf) -> &[Buf] {
    match buf {
        Buf::Many(bufs) => bufs,
        one => std::slice::from_ref(one),
    }
}

/// Where each begins.
fn places(buf: &Buf) -> Vec<usize> {
    all(buf).iter().map(|one| one.as_ptr() as usize).collect()
}

/// Does what a kernel does that receives these bytes, or sends so many: gives the bytes that it
/// has found.
fn carry(vectors: &[libc::iovec], bytes: &[u8], is_in: bool) -> Vec<u8> {
    let mut left = bytes;
    let mut found = Vec::new();
    for vector in vectors {
        let count = left.len().min(vector.iov_len);
        let start = vector.iov_base.cast::<u8>();
        if count == 0 {
            continue;
        }
        if is_in {
            // SAFETY: that there is room for so many is what is tested.
            unsafe { std::ptr::copy_nonoverlapping(left.as_ptr(), start, count) };
        } else {
            // SAFETY: as above, that there are so many.
            found.extend(unsafe { std::slice::from_raw_parts(start, count) });
        }
        left = &left[count..];
    }
    assert_eq!(left, b"", "the vectors are too short");
    found
}

fn any_in() -> impl Strategy<Value = (Made, usize, usize)> {
    (prop_oneof![Just(Made::Vec), Just(Made::Pool)], 0..40_usize, 0..60_usize)
}

fn any_out() -> impl Strategy<Value = (Made, usize)> {
    let made = [Made::Vec, Made::Pool, Made::Static, Made::Nothing].map(Just);
    let [vec, pool, fixed, nothing] = made;
    (prop_oneof![3 => vec, 3 => pool, 2 => fixed, 1 => nothing], 0..40_usize)
}

proptest! {
    #[test]
    fn what_is_received_fills_each_in_turn(
        bufs in prop::collection::vec(any_in(), 1..6),
        is_one in any::<bool>(),
        pieces in prop::collection::vec(1..50_usize, 0..12),
    ) {
        let pool = pool();
        let is_one = is_one && bufs[0].2 > 0;
        let bufs = if is_one { &bufs[..1] } else { &bufs[..] };
        let each: Vec<usize> = bufs.iter().map(|its| its.2).collect();
        prop_assume!(each.iter().sum::<usize>() > 0);
        let mut made = bufs.iter().map(|&(made, count, _)| buf(made, count, &pool));
        let (whole, part) = match is_one {
            true => (made.next().expect("there is one"), Part::In(each[0])),
            false => (Buf::Many(made.collect()), Part::IntoEach(&each)),
        };
        let mut model: Vec<Vec<u8>> = all(&whole).iter().map(|one| one.to_vec()).collect();
        let before: Vec<usize> = model.iter().map(Vec::len).collect();
        let mut io_buf = load(whole, part).map_err(|_| "refused").expect("it is in order");
        let places = places(io_buf.buf());
        prop_assert!(io_buf.is_in() && io_buf.is_many() != is_one);
        let (sum, mut moved) = (each.iter().sum::<usize>(), 0);
        for piece in pieces {
            let vectors = io_buf.vectors().to_vec();
            prop_assert_eq!(vectors.len(), each.len());
            for (at, vector) in vectors.iter().enumerate() {
                let has = model[at].len() - before[at];
                prop_assert_eq!(vector.iov_len, each[at] - has, "what it has room for");
                if vector.iov_len > 0 {
                    prop_assert_eq!(vector.iov_base as usize, places[at] + model[at].len());
                }
            }
            let count = piece.min(sum - moved);
            let bytes: Vec<u8> = (moved..moved + count).map(|at| at as u8).collect();
            carry(&vectors, &bytes, true);
            // SAFETY: they have just been written.
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
        prop_assert_eq!(self::places(&back), places, "nothing was moved to another place");
    }

    #[test]
    fn what_is_sent_is_taken_from_each_in_turn(
        bufs in prop::collection::vec(any_out(), 1..6),
        is_one in any::<bool>(),
        cut in (0..200_usize, 0..200_usize),
        pieces in prop::collection::vec(1..50_usize, 0..12),
    ) {
        let pool = pool();
        let bufs = if is_one { &bufs[..1] } else { &bufs[..] };
        let mut made = bufs.iter().map(|&(made, count)| buf(made, count, &pool));
        let whole = match is_one {
            true => made.next().expect("there is one"),
            false => Buf::Many(made.collect()),
        };
        let bytes: Vec<u8> = all(&whole).iter().flat_map(|one| one.to_vec()).collect();
        // Of several all is sent, of one any part.
        let (at, length) = match is_one {
            true => (cut.0 % (bytes.len() + 1), cut.1 % (bytes.len() + 1)),
            false => (0, bytes.len()),
        };
        let length = length.min(bytes.len() - at);
        let places = places(&whole);
        let part = if is_one { Part::Out(at, length) } else { Part::OutOfEach };
        let mut io_buf = load(whole, part);
        let io_buf = io_buf.as_mut().map_err(|_| "refused").expect("it is in order");
        let mut moved = 0;
        for piece in pieces {
            let vectors = io_buf.vectors().to_vec();
            let said: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            prop_assert_eq!(said, length - moved, "all that is left, and no more");
            let count = piece.min(said);
            let found = carry(&vectors, &vec![0; count], false);
            prop_assert_eq!(&found[..], &bytes[at + moved..][..count]);
            // SAFETY: nothing is received.
            unsafe { io_buf.note_moved(count) };
            moved += count;
            prop_assert_eq!((io_buf.moved(), io_buf.left()), (moved, length - moved));
        }
        prop_assert_eq!(self::places(io_buf.buf()), places, "they were only lent");
        let now: Vec<u8> = all(io_buf.buf()).iter().flat_map(|one| one.to_vec()).collect();
        prop_assert_eq!(now, bytes);
    }
}

fn load(mut buf: Buf, part: Part<'_>) -> Result<IoBuf, (std::io::Error, Buf)> {
    let mut io_buf = IoBuf::default();
    match io_buf.load(&mut buf, part) {
        Ok(()) => Ok(io_buf),
        Err(error) => Err((error, buf)),
    }
}

/// Whether it is refused, and the buffer comes back as it was.
fn refused(buf: Buf, part: Part<'_>) -> Option<ErrorKind> {
    let (places, said) = (places(&buf), format!("{buf:?}"));
    match load(buf, part) {
        Ok(_) => None,
        Err((error, back)) => {
            assert_eq!(self::places(&back), places, "{error}");
            // The room that was made before a later one was refused may stay.
            if !matches!(back, Buf::Many(_)) {
                assert_eq!(format!("{back:?}"), said, "{error}");
            }
            Some(error.kind())
        }
    }
}

#[test]
fn what_has_no_room_is_refused_with_its_buffer() {
    let (pool, invalid) = (pool(), Some(ErrorKind::InvalidInput));
    let one = |made, count| buf(made, count, &pool);
    assert_eq!(refused(one(Made::Pool, 0), Part::In(SIZE)), None);
    assert_eq!(refused(one(Made::Pool, 0), Part::In(SIZE + 1)), invalid);
    assert_eq!(refused(one(Made::Pool, 60), Part::In(SIZE - 60)), None);
    assert_eq!(refused(one(Made::Pool, 60), Part::In(SIZE - 59)), invalid);
    assert_eq!(refused(one(Made::Static, 9), Part::In(1)), invalid);
    assert_eq!(refused(one(Made::Nothing, 0), Part::In(1)), invalid);
    assert_eq!(refused(one(Made::Vec, 9), Part::In(usize::MAX)), Some(ErrorKind::OutOfMemory));
    assert_eq!(refused(one(Made::Vec, 9), Part::IntoEach(&[1])), invalid, "it is one");
    let two = |second, count| Buf::Many([one(Made::Vec, 9), one(second, count)].into());
    assert_eq!(refused(two(Made::Pool, 99), Part::IntoEach(&[1, 1])), None);
    assert_eq!(refused(two(Made::Pool, 99), Part::IntoEach(&[1, 2])), invalid);
    assert_eq!(refused(two(Made::Static, 9), Part::IntoEach(&[1, 1])), invalid);
    assert_eq!(refused(two(Made::Vec, 9), Part::IntoEach(&[0, 0])), invalid, "nothing");
    assert_eq!(refused(two(Made::Vec, 9), Part::In(1)), invalid, "each is to be told apart");
    let too_much = Part::IntoEach(&[1, usize::MAX]);
    assert_eq!(refused(two(Made::Vec, 9), too_much), Some(ErrorKind::OutOfMemory));
    let nested = || Buf::Many([one(Made::Vec, 1), Buf::Many([].into())].into());
    assert_eq!(refused(nested(), Part::IntoEach(&[1, 1])), invalid);
    assert_eq!(refused(nested(), Part::OutOfEach), invalid);
    assert_eq!(pool.idle(), pool.made(), "they have all come home");
}

#[test]
fn what_is_not_there_is_refused_with_its_buffer() {
    let (pool, invalid) = (pool(), Some(ErrorKind::InvalidInput));
    for made in [Made::Vec, Made::Pool, Made::Static] {
        for (at, length) in [(0, 6), (6, 0), (5, 1), (usize::MAX, 1), (1, usize::MAX)] {
            assert_eq!(refused(buf(made, 5, &pool), Part::Out(at, length)), invalid);
        }
        assert_eq!(refused(buf(made, 5, &pool), Part::Out(5, 0)), None);
        let many = Buf::Many([buf(made, 3, &pool), buf(made, 2, &pool)].into());
        assert_eq!(refused(many, Part::OutOfEach), None);
        let many = Buf::Many([buf(made, 3, &pool), buf(made, 2, &pool)].into());
        assert_eq!(refused(many, Part::Out(0, 5)), invalid, "of several all is sent");
        assert_eq!(refused(buf(made, 5, &pool), Part::OutOfEach), invalid, "it is one");
    }
}

#[test]
fn no_call_is_given_more_buffers_than_it_takes() {
    let pool = pool();
    for (count, is_refused) in [(1024, false), (1025, true)] {
        let many = || Buf::Many((0..count).map(|_| buf(Made::Vec, 1, &pool)).collect());
        let expected = is_refused.then_some(ErrorKind::InvalidInput);
        assert_eq!(refused(many(), Part::OutOfEach), expected);
        assert_eq!(refused(many(), Part::IntoEach(&vec![1; count])), expected);
    }
}

#[test]
fn a_single_one_is_cut_at_what_linux_moves() {
    let room = crate::sys::MOST + 9;
    let mut io_buf = load(Buf::Vec(vec![]), Part::In(room)).map_err(|_| ()).expect("room");
    let vector = io_buf.vectors()[0];
    assert_eq!((vector.iov_len, io_buf.left()), (crate::sys::MOST, room));
}

#[test]
fn what_passes_through_no_buffer_is_counted() {
    let mut io_buf = load(Buf::None, Part::Through(50)).map_err(|_| ()).expect("no buffer");
    assert_eq!((io_buf.left(), io_buf.moved(), io_buf.is_in()), (50, 0, false));
    io_buf.note_passed(20);
    assert_eq!(io_buf.moved(), 20);
    assert_eq!(io_buf.take_buf(), Buf::None);
}
