//! The example `copy`, started as a program, on every available backend, with and without
//! `O_DIRECT`.
//!
//! Cargo builds examples before it runs all tests, but not for `cargo test --test copy`; run
//! `cargo build --example copy` before that.

mod util;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quintpoll::Backend;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use util::*;

/// A slow copy of this many bytes takes longer than the start of it.
const LARGE: usize = 1 << 20;

#[test]
fn copy_equals_the_source() {
    on_each_backend_in_each_way(|dir, way| {
        for size in [0, 1, 511, 4096, 4097, 65_536, 1_000_003] {
            let source = dir.file("source", &bytes(size));
            for depth in ["1", "64"] {
                let target = dir.path(&format!("target-{size}-{depth}"));
                let mut options = way.to_vec();
                options.extend(["--depth", depth, "--block", "4K"]);
                let stdout = expect_success(&copy(&options, &source, &target));
                assert!(stdout.starts_with(&format!("{size} bytes in ")), "{stdout}");
                let named = format!(", {}, depth {depth}, verified (SHA-256 ", way[1]);
                assert!(stdout.contains(&named), "{named:?} is not in {stdout:?}");
                assert!(fs::read(&target).expect("the file") == bytes(size), "other bytes");
            }
        }
        dir.expect_no_partial_file();
    });
}

#[test]
fn copy_works_with_any_block_size() {
    on_each_backend(|dir, backend| {
        let source = dir.file("source", &bytes(100_001));
        for block in ["1000", "99999", "100000", "100001", "100002", "1M"] {
            let target = dir.path(block);
            expect_success(&copy(&["--backend", backend, "--block", block], &source, &target));
            assert!(fs::read(&target).expect("the file") == bytes(100_001), "{block}");
        }
    });
}

#[test]
fn hash_matches_the_published_sha256() {
    let dir = TempDir::new("hash");
    let (source, target) = (dir.file("source", b"abc"), dir.path("target"));
    let stdout = expect_success(&copy(&[], &source, &target));
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert!(stdout.contains(&format!("(SHA-256 {known})")), "{stdout}");
}

#[test]
fn existing_target_is_replaced_and_keeps_permissions() {
    let dir = TempDir::new("replaced");
    let source = dir.file("source", b"new");
    let target = dir.path("target");
    for mode in [0o640, 0o777, 0o400] {
        fs::write(&target, bytes(10_000)).expect("a file of this test");
        fs::set_permissions(&target, Permissions::from_mode(mode)).expect("a file of this test");
        expect_success(&copy(&[], &source, &target));
        assert_eq!(fs::read(&target).expect("the file"), b"new");
        assert_eq!(mode_of(&target), mode);
        fs::remove_file(&target).expect("a file of this test");
    }
    // The target of a symbolic link is replaced, and not the link.
    let link = dir.path("link");
    symlink("target", &link).expect("disk space");
    fs::write(&target, b"old").expect("a file of this test");
    expect_success(&copy(&[], &source, &link));
    assert!(fs::symlink_metadata(&link).expect("the file").is_symlink());
    assert_eq!(fs::read(&target).expect("the file"), b"new");
    dir.expect_no_partial_file();
}

#[test]
fn new_target_gets_source_permissions_less_umask() {
    let dir = TempDir::new("umask");
    let (source, target) = (dir.file("source", b"new"), dir.path("target"));
    for (umask, mode, left) in
        [("077", 0o666, 0o600), ("027", 0o755, 0o750), ("000", 0o622, 0o622), ("022", 0o400, 0o400)]
    {
        fs::set_permissions(&source, Permissions::from_mode(mode)).expect("a file of this test");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(example());
        expect_success(&output_of(command, &source, &target));
        assert_eq!(mode_of(&target), left, "{mode:o} under a umask of {umask}");
        fs::remove_file(&target).expect("a file of this test");
    }
}

/// The output would go to a file without a name.
#[test]
fn target_that_is_stdout_is_not_replaced() {
    let dir = TempDir::new("printed");
    let (source, log) = (dir.file("source", b"new"), dir.path("log"));
    let inode = |path: &Path| fs::metadata(path).expect("the file").ino();
    for stream in ["1", "2"] {
        let mut command = Command::new("sh");
        let script = format!("exec {stream}>>\"$0\"; exec \"$@\"");
        fs::write(&log, b"before\n").expect("disk space");
        let before = inode(&log);
        command.args(["-c", &script]).arg(&log).arg(example());
        let done = output_of(command, &source, &Path::new("/dev/fd").join(stream));
        assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
        let output_text = stderr(&done) + &fs::read_to_string(&log).expect("the file");
        assert!(
            output_text.contains("before\n")
                && output_text.contains("is what this program prints to")
        );
        assert_eq!(inode(&log), before);
        dir.expect_no_partial_file();
    }
}

#[test]
fn target_without_directory_is_allowed() {
    let dir = TempDir::new("bare");
    dir.file("source", b"bytes");
    let mut command = Command::new(example());
    command.args(["source", "target"]).current_dir(&dir.0);
    expect_success(&output(command));
    assert_eq!(fs::read(dir.path("target")).expect("the file"), b"bytes");
    dir.expect_no_partial_file();
}

#[test]
fn uncopyable_sources_are_refused_in_one_line() {
    on_each_backend_in_each_way(|dir, way| {
        let good = dir.file("good", b"bytes");
        let (missing, fifo, link) = (dir.path("missing"), dir.path("fifo"), dir.path("link"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("disk space");
        fs::hard_link(&good, &link).expect("disk space");
        let refused: &[(&Path, &Path, &str)] = &[
            (&missing, &missing, "No such file"),
            (&dir.0, &missing, "is no regular file"),
            (&fifo, &missing, "is no regular file"),
            (Path::new("/dev/null"), &missing, "is no regular file"),
            (&good, &good, "is the source itself"),
            (&good, &link, "is the source itself"),
            (&good, &dir.0, "is no regular file"),
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
        assert_eq!(fs::read(&good).expect("the file"), b"bytes");
        dir.expect_no_partial_file();
    });
    // procfs generates the bytes during the read, and does not support O_DIRECT.
    let (dir, made) = (TempDir::new("made"), Path::new("/proc/version"));
    let target = dir.path("target");
    expect_failure(&copy(&[], made, &target), "bytes, and not 0 as when it was opened");
    expect_failure(&copy(&["--direct"], made, &target), "refuses O_DIRECT");
    dir.expect_empty();
}

#[test]
fn full_disk_leaves_no_file() {
    on_each_backend_in_each_way(|dir, way| {
        let source = dir.file("source", &bytes(300_000));
        let disk = dir.path("disk");
        fs::create_dir(&disk).expect("disk space");
        // Only the shell sees the file system, so it lists the remaining files.
        let script = "mount -t tmpfs -o size=128k none \"$1\" && echo mounted && \
             { echo old > \"$1/target\"; shift; \"$@\"; code=$?; cd \"$disk\"; \
             ls -A; cat target; exit $code; }";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, "sh"]).arg(&disk).arg(example()).args(way);
        command.args(["--block", "16K"]).arg(&source).arg(disk.join("target")).env("disk", &disk);
        let done = output(command);
        let stdout = String::from_utf8_lossy(&done.stdout);
        let Some(stdout) = stdout.strip_prefix("mounted\n") else {
            println!("skipped: no file system can be mounted here: {}", stderr(&done));
            return;
        };
        assert_eq!(stdout, "target\nold\n");
        if stderr(&done).contains("refuses O_DIRECT") {
            println!("skipped: this tmpfs refuses O_DIRECT");
            return;
        }
        expect_stderr(&done, "No space left");
    });
}

#[test]
fn file_size_limit_leaves_no_file() {
    on_each_backend_in_each_way(|dir, way| {
        let source = dir.file("source", &bytes(300_000));
        // In units of 512 bytes: a block exceeds the limit.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 200 && exec \"$0\" \"$@\""]).arg(example()).args(way);
        command.args(["--block", "64K"]).arg(&source).arg(dir.path("target"));
        expect_failure(&output(command), "File too large");
        dir.expect_only("source");
    });
}

#[test]
fn shrinking_source_is_an_error() {
    on_each_backend(|dir, backend| {
        let source = dir.file("source", &bytes(LARGE));
        let running = RunningCopy::start_slow(dir, backend, &source);
        let file = File::options().write(true).open(&source).expect("a file of this test");
        file.set_len(10).expect("a file of this test");
        expect_failure(&running.output(), "changed while it was copied");
        dir.expect_only("source");
    });
}

#[test]
fn removed_source_is_copied_to_its_end() {
    on_each_backend_in_each_way(|dir, way| {
        let size = 3_000_000;
        let source = dir.file("source", &bytes(size));
        let mut options = way.to_vec();
        options.extend(["--depth", "1", "--block", "4K"]);
        let running = RunningCopy::new(dir, &options, &source);
        fs::remove_file(&source).expect("a file of this test");
        expect_success(&running.output());
        assert!(fs::read(dir.path("target")).expect("the file") == bytes(size));
        dir.expect_only("target");
    });
}

#[test]
fn source_changed_after_its_read_is_an_error() {
    on_each_backend(|dir, backend| {
        let source = dir.file("source", &bytes(30_000));
        let running = RunningCopy::start_slow(dir, backend, &source);
        let file = File::options().write(true).open(&source).expect("a file of this test");
        std::os::unix::fs::FileExt::write_all_at(&file, b"other bytes", 0)
            .expect("a file of this test");
        expect_failure(&running.output(), "changed while it was copied");
        dir.expect_only("source");
    });
}

#[test]
fn signal_leaves_no_file() {
    on_each_backend(|dir, backend| {
        let source = dir.file("source", &bytes(LARGE));
        let target = dir.file("target", b"old");
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            let running = RunningCopy::start_slow(dir, backend, &source);
            kill(Pid::from_raw(running.0.id() as i32), signal).expect("a running copy");
            expect_failure(&running.output(), "interrupted");
            assert_eq!(fs::read(&target).expect("the file"), b"old");
            dir.expect_no_partial_file();
        }
    });
}

/// An ignored SIGHUP, as under nohup(1), stays ignored; other ignored signals still end the copy.
#[test]
fn copy_keeps_an_ignored_sighup() {
    let dir = TempDir::new("ignored");
    let source = dir.file("source", &bytes(LARGE / 4));
    let in_background = || {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP INT QUIT; exec \"$@\"", "sh"]);
        command.arg(example()).args(SLOW);
        command
    };
    let running = RunningCopy::spawn(&dir, in_background(), &source);
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGHUP).expect("a running copy");
    expect_success(&running.output());
    assert!(fs::read(dir.path("target")).expect("the file") == bytes(LARGE / 4));
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let running = RunningCopy::spawn(&dir, in_background(), &source);
        kill(Pid::from_raw(running.0.id() as i32), signal).expect("a running copy");
        expect_failure(&running.output(), "interrupted");
    }
    dir.expect_no_partial_file();
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
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", stderr(&done));
        assert_eq!(stderr(&done).lines().count(), 1, "{arguments:?}: {}", stderr(&done));
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
