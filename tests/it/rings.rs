//! The suite on rings that programs do not get here: tiny ones, and those of older kernels.

use quintpoll::spi::{Reactor, TaskWork, Uring};
use quintpoll::{Backend, Poller, conformance_tests};
use std::io;

fn ring(entries: u32, work: TaskWork) -> io::Result<Box<dyn Poller>> {
    let selector = Uring::with(entries, work)?;
    Ok(Box::new(Reactor::new(Backend::Other("uring"), selector)?))
}

// A completion queue of 4 overflows.
conformance_tests!(ring_of_four, || ring(2, TaskWork::Deferred));
conformance_tests!(ring_before_6_1, || ring(256, TaskWork::Cooperative));
conformance_tests!(ring_before_5_19, || {
    let selector = Uring::with(256, TaskWork::Prompt)?;
    let selector = selector.without_provided_buffers();
    Ok(Box::new(Reactor::new(Backend::Other("uring"), selector)?))
});
conformance_tests!(ring_of_four_before_5_19, || ring(2, TaskWork::Prompt));
conformance_tests!(ring_without_operations, || {
    let selector = Uring::new()?.without_operations();
    Ok(Box::new(Reactor::new(Backend::Other("uring"), selector)?))
});
