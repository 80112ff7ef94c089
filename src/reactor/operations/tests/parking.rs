//! After which reads a receive awaits its source without another call.

use super::scene::{KEY, Scene};
use crate::event::Interest;
use crate::op::Op;
use crate::sys::pool::BufferPool;

/// Returns a scene whose reads bring all that there is.
fn scene(is_by_level: bool) -> Scene {
    let mut scene = Scene::stream(100);
    (scene.io.is_by_level, scene.io.short) = (is_by_level, 0);
    scene
}

/// Lets the peer send, and returns the number of calls with which the next wait takes it.
fn receive(scene: &mut Scene, count: usize) -> usize {
    scene.io.change(0, Interest::READABLE, |file| file.peer_sends(count));
    scene.io.attempts = 0;
    scene.report();
    scene.io.attempts
}

#[test]
fn large_read_that_fills_its_buffer_ends_the_turn() {
    let pool = BufferPool::new(4096, 8).expect("it has buffers");
    let mut scene = scene(true);
    scene.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut scene, 4096), 1, "a whole message");
    assert_eq!(scene.transferred(), [4096]);
    assert_eq!(receive(&mut scene, 4096 + 10), 1, "the rest is for the next wait");
    assert_eq!(scene.transferred(), [4096]);
    scene.report();
    assert_eq!((scene.io.attempts, scene.transferred()), (2, vec![10]));
}

#[test]
fn small_read_that_fills_its_buffer_is_followed_by_another() {
    let pool = BufferPool::new(1024, 8).expect("it has buffers");
    let mut scene = scene(true);
    scene.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut scene, 2048 + 10), 3, "the last is short");
    assert_eq!(scene.transferred(), [1024, 1024, 10]);
}

/// An edge is not repeated.
#[test]
fn by_edges_reads_go_on_until_one_would_block() {
    let pool = BufferPool::new(4096, 8).expect("it has buffers");
    let mut scene = scene(false);
    scene.submit(Op::recv_multi(KEY, &pool));
    assert_eq!(receive(&mut scene, 4096 + 10), 3, "the last would block");
    assert_eq!(scene.transferred(), [4096, 10]);
}

/// Clause T1.
#[test]
fn successor_of_a_large_read_is_attempted_in_the_same_turn() {
    let mut scene = scene(true);
    for _ in 0..3 {
        scene.submit(Op::recv(KEY, vec![], 4096));
    }
    assert_eq!(receive(&mut scene, 2 * 4096 + 10), 3, "one for each");
    assert_eq!(scene.transferred(), [4096, 4096, 10]);
}
