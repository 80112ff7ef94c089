//! Descriptor tables: in each test a thread leaves the shared table.

use super::*;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

fn unshare() {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0, "{}", io::Error::last_os_error());
}

fn file(text: &str) -> File {
    let mut file = tempfile::tempfile().expect("a place for it");
    file.write_all(text.as_bytes()).expect("room");
    file
}

fn text_of(fd: OwnedFd) -> String {
    let (mut file, mut text) = (File::from(fd), String::new());
    file.rewind().expect("a file");
    file.read_to_string(&mut text).expect("it is open");
    text
}

#[test]
fn threads_share_a_table_until_one_unshares() {
    let main_thread = ThreadId::current();
    assert_eq!(main_thread.shares_fd_table(), Sharing::Shared, "with itself");
    let seen = std::thread::spawn(move || {
        let before = main_thread.shares_fd_table();
        unshare();
        (before, main_thread.shares_fd_table(), ThreadId::current())
    });
    let (before, after, ended) = seen.join().expect("it only asks");
    assert_eq!((before, after), (Sharing::Shared, Sharing::Separate));
    assert_eq!(ended.shares_fd_table(), Sharing::Separate, "the thread has ended");
}

/// Fetches a descriptor on a thread that has left this one's table, before or after it was opened.
fn fetched(opened_first: bool) -> String {
    let (foreign, to_fetch) = channel::<Arc<Mutex<ForeignFd>>>();
    let (ready, is_ready) = channel();
    let (unshares, may_unshare) = channel();
    let fetches = std::thread::spawn(move || {
        if opened_first {
            may_unshare.recv().expect("a message");
        }
        unshare();
        ready.send(()).expect("it is waited for");
        let foreign = to_fetch.recv().expect("it comes");
        let fd = foreign.lock().expect("no panic").fetch();
        // The thread that made the value must drop it.
        drop(foreign);
        fd.map(text_of)
    });
    let open = || Arc::new(Mutex::new(ForeignFd::new(file("foreign").into())));
    let made = if opened_first {
        let made = open();
        unshares.send(()).expect("it waits");
        is_ready.recv().expect("it is ready");
        made
    } else {
        is_ready.recv().expect("it is ready");
        open()
    };
    foreign.send(made.clone()).expect("it waits");
    fetches.join().expect("no panic").expect("it can be had")
}

#[test]
fn foreign_fd_is_fetched_from_another_table() {
    assert_eq!(fetched(false), "foreign", "the file is open in the other table only");
}

#[test]
fn foreign_fd_in_copied_table_is_taken() {
    assert_eq!(fetched(true), "foreign", "the file is open in both tables");
}

#[test]
fn foreign_fd_of_shared_table_moves() {
    let opened = OwnedFd::from(file("shared"));
    let number = opened.as_raw_fd();
    let mut made = ForeignFd::new(opened);
    let fd = made.fetch().expect("it is open");
    assert_eq!(fd.as_raw_fd(), number, "no other is needed");
    assert!(made.fetch().is_err(), "once");
    drop(made);
    assert_eq!(text_of(fd), "shared");
}
