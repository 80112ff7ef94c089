//! The example that copies files, from outside: started as a program, on every backend that is
//! available, through the page cache and past it.
//!
//! Cargo builds examples before it runs all tests, but not for `cargo test --test copy`; run
//! `cargo build --example copy` before that.

mod kit;

use kit::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quintpoll::Backend;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// To copy so much so slowly takes longer than to notice that it has begun.
const MUCH: usize = 1 << 20;

#[test]
fn copies_are_what_the_source_is() {
    on_each_backend_in_each_way(|room, way| {
        for size in [0, 1, 511, 4096, 4097, 65_536, 1_000_003] {
            let source = room.file("source", &bytes(size));
            for depth in ["1", "64"] {
                let target = room.path(&format!("target-{size}-{depth}"));
                let mut options = way.to_vec();
                options.extend(["--depth", depth, "--block", "4K"]);
                let told = expect_success(&copy(&options, &source, &target));
                assert!(told.starts_with(&format!("{size} bytes in ")), "{told}");
                let named = format!(", {}, depth {depth}, verified (SHA-256 ", way[1]);
                assert!(told.contains(&named), "{named:?} is not in {told:?}");
                assert!(fs::read(&target).expect("it is there") == bytes(size), "other bytes");
            }
        }
        room.expect_no_part_left();
    });
}

#[test]
fn blocks_may_have_any_size() {
    on_each_backend(|room, backend| {
        let source = room.file("source", &bytes(100_001));
        for block in ["1000", "99999", "100000", "100001", "100002", "1M"] {
            let target = room.path(block);
            expect_success(&copy(&["--backend", backend, "--block", block], &source, &target));
            assert!(fs::read(&target).expect("it is there") == bytes(100_001), "{block}");
        }
    });
}

#[test]
fn the_hash_is_the_one_that_others_find() {
    let room = Room::new("hash");
    let (source, target) = (room.file("source", b"abc"), room.path("target"));
    let told = expect_success(&copy(&[], &source, &target));
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(told.contains(&format!("(SHA-256 {known})")), "{told}");
}

#[test]
fn a_target_that_is_there_is_replaced_and_keeps_its_permissions() {
    let room = Room::new("replaced");
    let source = room.file("source", b"new");
    let target = room.path("target");
    for mode in [0o640, 0o777, 0o400] {
        fs::write(&target, bytes(10_000)).expect("it is ours");
        fs::set_permissions(&target, Permissions::from_mode(mode)).expect("it is ours");
        expect_success(&copy(&[], &source, &target));
        assert_eq!(fs::read(&target).expect("it is there"), b"new");
        assert_eq!(mode_of(&target), mode);
        fs::remove_file(&target).expect("it is ours");
    }
    // What a link points to is replaced, and not the link.
    let link = room.path("link");
    symlink("target", &link).expect("there is room");
    fs::write(&target, b"old").expect("it is ours");
    expect_success(&copy(&[], &source, &link));
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(fs::read(&target).expect("it is there"), b"new");
    room.expect_no_part_left();
}

#[test]
fn a_new_target_gets_the_permissions_of_the_source_that_the_umask_leaves() {
    let room = Room::new("umask");
    let (source, target) = (room.file("source", b"new"), room.path("target"));
    for (umask, mode, left) in
        [("077", 0o666, 0o600), ("027", 0o755, 0o750), ("000", 0o622, 0o622), ("022", 0o400, 0o400)]
    {
        fs::set_permissions(&source, Permissions::from_mode(mode)).expect("it is ours");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(example());
        expect_success(&output_of(command, &source, &target));
        assert_eq!(mode_of(&target), left, "{mode:o} under a umask of {umask}");
        fs::remove_file(&target).expect("it is ours");
    }
}

/// What is printed would go to a file that nobody finds any more.
#[test]
fn the_file_that_it_prints_to_is_not_replaced() {
    let room = Room::new("printed");
    let (source, log) = (room.file("source", b"new"), room.path("log"));
    let number_of = |path: &Path| fs::metadata(path).expect("it is there").ino();
    for stream in ["1", "2"] {
        let mut command = Command::new("sh");
        let script = format!("exec {stream}>>\"$0\"; exec \"$@\"");
        fs::write(&log, b"before\n").expect("there is room");
        let before = number_of(&log);
        command.args(["-c", &script]).arg(&log).arg(example());
        let done = output_of(command, &source, &Path::new("/dev/fd").join(stream));
        assert_eq!(done.status.code(), Some(1), "{}", complaint(&done));
        let said = complaint(&done) + &fs::read_to_string(&log).expect("it is there");
        assert!(said.contains("before\n") && said.contains("is what this program prints to"));
        assert_eq!(number_of(&log), before);
        room.expect_no_part_left();
    }
}

#[test]
fn a_target_may_be_named_without_a_folder() {
    let room = Room::new("bare");
    room.file("source", b"bytes");
    let mut command = Command::new(example());
    command.args(["source", "target"]).current_dir(&room.0);
    expect_success(&output(command));
    assert_eq!(fs::read(room.path("target")).expect("it is there"), b"bytes");
    room.expect_no_part_left();
}

#[test]
fn what_cannot_be_copied_is_refused_in_one_line() {
    on_each_backend_in_each_way(|room, way| {
        let good = room.file("good", b"bytes");
        let (missing, fifo, link) = (room.path("missing"), room.path("fifo"), room.path("link"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("there is room");
        fs::hard_link(&good, &link).expect("there is room");
        let refused: &[(&Path, &Path, &str)] = &[
            (&missing, &missing, "No such file"),
            (&room.0, &missing, "is no regular file"),
            (&fifo, &missing, "is no regular file"),
            (Path::new("/dev/null"), &missing, "is no regular file"),
            (&good, &good, "is the source itself"),
            (&good, &link, "is the source itself"),
            (&good, &room.0, "is no regular file"),
            (&good, &fifo, "is no regular file"),
            (Path::new("two\nlines"), &missing, "two\\nlines: No such file"),
            (&good, Path::new("/dev/null"), "is no regular file"),
            (&good, &missing.join("deeper"), "No such file"),
            (&good, &good.join("deeper"), "Not a directory"),
        ];
        for (source, target, why) in refused {
            expect_failure(&copy(way, source, target), why);
        }
        assert!(!missing.exists());
        assert_eq!(fs::read(&good).expect("it is there"), b"bytes");
        room.expect_no_part_left();
    });
    // Its bytes are made while they are read, and cannot be had past a cache.
    let (room, made) = (Room::new("made"), Path::new("/proc/version"));
    let target = room.path("target");
    expect_failure(&copy(&[], made, &target), "bytes, and not 0 as when it was opened");
    expect_failure(&copy(&["--direct"], made, &target), "refuses O_DIRECT");
    room.expect_empty();
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    on_each_backend_in_each_way(|room, way| {
        let source = room.file("source", &bytes(300_000));
        let disk = room.path("disk");
        fs::create_dir(&disk).expect("there is room");
        // The file system and what is in it are the shell's alone, and it says what is left there.
        let script = "mount -t tmpfs -o size=128k none \"$1\" && echo mounted && \
             { echo old > \"$1/target\"; shift; \"$@\"; code=$?; cd \"$disk\"; \
             ls -A; cat target; exit $code; }";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).arg(&disk).arg(example()).args(way);
        command.args(["--block", "16K"]).arg(&source).arg(disk.join("target")).env("disk", &disk);
        let done = output(command);
        let told = String::from_utf8_lossy(&done.stdout);
        let Some(told) = told.strip_prefix("mounted\n") else {
            println!("skipped: no file system can be mounted here: {}", complaint(&done));
            return;
        };
        assert_eq!(told, "target\nold\n");
        if complaint(&done).contains("refuses O_DIRECT") {
            println!("skipped: this tmpfs refuses O_DIRECT");
            return;
        }
        expect_complaint(&done, "No space left");
    });
}

#[test]
fn a_limit_on_sizes_leaves_nothing_behind() {
    on_each_backend_in_each_way(|room, way| {
        let source = room.file("source", &bytes(300_000));
        // In units of 512 bytes: it is met within a block.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 200 && exec \"$0\" \"$@\""]).arg(example()).args(way);
        command.args(["--block", "64K"]).arg(&source).arg(room.path("target"));
        expect_failure(&output(command), "File too large");
        room.expect_only("source");
    });
}

#[test]
fn a_source_that_shrinks_is_noticed() {
    on_each_backend(|room, backend| {
        let source = room.file("source", &bytes(MUCH));
        let started = Started::slowly(room, backend, &source);
        let file = File::options().write(true).open(&source).expect("it is ours");
        file.set_len(10).expect("it is ours");
        expect_failure(&started.output(), "changed while it was copied");
        room.expect_only("source");
    });
}

#[test]
fn a_source_that_is_removed_is_copied_to_its_end() {
    on_each_backend_in_each_way(|room, way| {
        let size = 3_000_000;
        let source = room.file("source", &bytes(size));
        let mut options = way.to_vec();
        options.extend(["--depth", "1", "--block", "4K"]);
        let started = Started::new(room, &options, &source);
        fs::remove_file(&source).expect("it is ours");
        expect_success(&started.output());
        assert!(fs::read(room.path("target")).expect("it is there") == bytes(size));
        room.expect_only("target");
    });
}

#[test]
fn a_source_that_changes_behind_the_copying_is_noticed() {
    on_each_backend(|room, backend| {
        let source = room.file("source", &bytes(30_000));
        let started = Started::slowly(room, backend, &source);
        let file = File::options().write(true).open(&source).expect("it is ours");
        std::os::unix::fs::FileExt::write_all_at(&file, b"other bytes", 0).expect("it is ours");
        expect_failure(&started.output(), "changed while it was copied");
        room.expect_only("source");
    });
}

#[test]
fn a_signal_leaves_nothing_behind() {
    on_each_backend(|room, backend| {
        let source = room.file("source", &bytes(MUCH));
        let target = room.file("target", b"old");
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let started = Started::slowly(room, backend, &source);
            kill(Pid::from_raw(started.0.id() as i32), signal).expect("it runs");
            expect_failure(&started.output(), "interrupted");
            assert_eq!(fs::read(&target).expect("it is there"), b"old");
            room.expect_no_part_left();
        }
    });
}

/// As nohup(1) starts it, and a shell in the background, which must not keep it from being ended.
#[test]
fn it_survives_its_terminal_if_it_is_to() {
    let room = Room::new("ignored");
    let source = room.file("source", &bytes(MUCH / 4));
    let in_background = || {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh"]);
        command.arg(example()).args(SLOWLY);
        command
    };
    let started = Started::spawn(&room, in_background(), &source);
    kill(Pid::from_raw(started.0.id() as i32), Signal::SIGHUP).expect("it runs");
    expect_success(&started.output());
    assert!(fs::read(room.path("target")).expect("it is there") == bytes(MUCH / 4));
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let started = Started::spawn(&room, in_background(), &source);
        kill(Pid::from_raw(started.0.id() as i32), signal).expect("it runs");
        expect_failure(&started.output(), "interrupted");
    }
    room.expect_no_part_left();
}

#[test]
fn wrong_arguments_are_refused_in_one_line() {
    let wrong: &[&[&str]] = &[
        &[],
        &["one"],
        &["one", "two", "three"],
        &["--nonsense", "one", "two"],
        &["one", ""],
        &["", "two"],
        &["--depth", "0", "one", "two"],
        &["--depth", "1025", "one", "two"],
        &["--depth", "many", "one", "two"],
        &["--depth"],
        &["--block", "0", "one", "two"],
        &["--block", "2000M", "one", "two"],
        &["--block", "2G", "one", "two"],
        &["--block", "99999999999999999999M", "one", "two"],
        &["--block", "18446744073709551615K", "one", "two"],
        &["--block", "K", "one", "two"],
        &["--direct", "--block", "1000", "one", "two"],
        &["--backend", "kqueue", "one", "two"],
    ];
    let mut wrong: Vec<Vec<String>> =
        wrong.iter().map(|some| some.iter().map(|&one| one.to_owned()).collect()).collect();
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available().is_err()) {
        wrong.push(["--backend", &backend.to_string(), "one", "two"].map(str::to_owned).into());
    }
    for arguments in wrong {
        let mut command = Command::new(example());
        command.args(&arguments);
        let done = output(command);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", complaint(&done));
        assert_eq!(complaint(&done).lines().count(), 1, "{arguments:?}: {}", complaint(&done));
        assert!(done.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_names_every_option() {
    let mut command = Command::new(example());
    command.arg("--help");
    let help = expect_success(&output(command));
    for option in ["--depth", "--block", "--direct", "--backend", "--help"] {
        assert!(help.contains(option), "{option} is missing");
    }
}
