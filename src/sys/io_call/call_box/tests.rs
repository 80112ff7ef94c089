//! The cell, with a simulated kernel that writes to the memory of a call in flight. Miri runs these
//! tests.

use super::*;
use std::os::fd::{AsFd, AsRawFd};

fn recv(bytes: usize) -> CallBox {
    let buf = Buf::Vec(Vec::with_capacity(bytes));
    CallBox::new(std::io::stdin().as_fd(), Call::Recv, buf, (0, bytes), None)
        .expect("there is memory")
}

/// A request: the memory that the kernel writes to.
struct Request(libc::iovec);

impl Request {
    /// Passes the call to the kernel.
    fn submit(call: &mut CallBox) -> Self {
        call.begin_flight();
        Request(call.io_buf.part())
    }

    fn write(&self, byte: u8) {
        // SAFETY: the call owns this memory, and is in flight.
        unsafe { self.0.iov_base.cast::<u8>().write_bytes(byte, self.0.iov_len) };
    }
}

#[test]
fn cell_of_a_call_is_one_pointer() {
    assert_eq!(size_of::<Option<CallBox>>(), size_of::<usize>());
}

#[test]
fn kernel_writes_while_the_cell_moves() {
    let mut call = recv(64);
    let request = Request::submit(&mut call);
    let cells = vec![call];
    request.write(1);
    // The cell moves to other places, to another thread, and back.
    let moved: Vec<CallBox> = cells.into_iter().rev().collect();
    request.write(2);
    let mut moved = std::thread::spawn(move || moved).join().expect("it returns the cells");
    request.write(3);
    let mut call = moved.pop().expect("there is one");
    // SAFETY: the simulated kernel writes no more.
    unsafe { call.end_flight() };
    assert_eq!(call.receive(&[4; 64]), 64);
    assert_eq!(call.into_buf(), Buf::Vec(vec![4; 64]));
}

#[test]
fn cell_dropped_in_flight_leaks_and_is_counted() {
    let before = leaked_buffers();
    let mut call = recv(64);
    let request = Request::submit(&mut call);
    let cell = call.0;
    drop(call);
    request.write(1);
    assert_eq!(leaked_buffers(), before + 1);
    // Miri would report the leak.
    let mut call = CallBox(cell);
    // SAFETY: the simulated kernel writes no more.
    unsafe { call.end_flight() };
    drop(call);
    assert_eq!(leaked_buffers(), before + 1, "a cell out of flight is freed");
}

#[test]
fn spare_cells_are_reused() {
    let mut spare = SpareCalls::default();
    let mut call = recv(8);
    let cell = call.0;
    assert_eq!(call.take_buf(), Buf::Vec(Vec::new()));
    assert_eq!((call.left(), call.moved()), (0, 0), "no bytes are left");
    spare.keep(call);
    let mut next = spare.take();
    let (stdin, mut buf) = (std::io::stdin(), Buf::Vec(vec![1, 2]));
    let loaded = next.load(
        Some(stdin.as_raw_fd()),
        Call::Send,
        &mut buf,
        Transfer::Out(0, 2),
        CallArgs::Nothing,
    );
    loaded.expect("it has two bytes");
    assert!(next.0 == cell && next.to_send() == [1, 2]);
    assert!(spare.0.is_empty());
    for _ in 0..SpareCalls::MAX + 9 {
        spare.keep(recv(0));
    }
    assert_eq!(spare.0.len(), SpareCalls::MAX);
}
