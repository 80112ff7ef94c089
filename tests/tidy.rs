//! The rules of CONTRIBUTING.md, as tests.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_MAX: usize = 100;
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const CONTRACT: &str = "src/contract.rs";

struct File {
    /// The path from the root of the project, with `/`.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files() -> Vec<File> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "examples", "fuzz"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            let name = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                files.push(File { name, text });
            }
        }
    }
    assert!(files.len() > 20, "the files are found");
    files
}

fn report(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn files_begin_with_a_module_comment() {
    let silent = |file: &File| !file.text.starts_with("//! ");
    let silent = rust_files().into_iter().filter(silent).map(|file| file.name).collect();
    report(silent, "every file begins with a `//!` line");
}

#[test]
fn lines_files_and_functions_are_short() {
    let mut broken = Vec::new();
    for File { name, text } in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        // A row of a table cannot be wrapped.
        let is_long = |line: &str| line.chars().count() > LINE_MAX && !line.contains("//! | ");
        let long = lines.iter().enumerate().filter(|(_, line)| is_long(line));
        broken.extend(long.map(|(at, _)| format!("{name}:{}: a long line", at + 1)));
        let (max_lines, max_function) = limits(&name);
        if lines.len() > max_lines {
            broken.push(format!("{name}: {} lines", lines.len()));
        }
        let mut start = None;
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start().trim_start_matches("pub(crate) ");
            let head = head.trim_start_matches("pub(super) ").trim_start_matches("pub ");
            match start {
                None if head.starts_with("fn ") => start = Some((at, indent)),
                Some((first, own)) if indent == own && line.trim() == "}" => {
                    if at - first + 1 > max_function {
                        broken.push(format!("{name}:{}: {} lines", first + 1, at - first + 1));
                    }
                    start = None;
                }
                // A body on one line, or a declaration without one.
                Some((_, own)) if indent == own && head.starts_with("fn ") => {
                    start = Some((at, indent));
                }
                _ => {}
            }
        }
    }
    report(broken, "lines, files and functions are within their limits");
}

/// Folders with stricter limits.
const STRICT: &[&str] = &["src/reactor/"];
const STRICT_FILE_LINES_MAX: usize = 450;
const STRICT_FUNCTION_LINES_MAX: usize = 60;

/// Returns the limits on the lines of a file and of a function.
fn limits(name: &str) -> (usize, usize) {
    if STRICT.iter().any(|folder| name.starts_with(folder)) {
        (STRICT_FILE_LINES_MAX, STRICT_FUNCTION_LINES_MAX)
    } else {
        (FILE_LINES_MAX, FUNCTION_LINES_MAX)
    }
}

/// Returns the code without comments, approximately.
fn code_of(text: &str) -> String {
    let code = |line: &str| match line.find("//") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

#[test]
fn unsafe_lives_in_sys() {
    let mut broken = Vec::new();
    for file in rust_files().iter().filter(|file| file.name.starts_with("src/")) {
        let code = code_of(&file.text);
        let word = |line: &&str| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == "unsafe");
        let used = code.lines().any(|line| word(&line));
        if used && !file.name.starts_with("src/sys/") {
            broken.push(format!("{}: unsafe outside src/sys", file.name));
        }
        if !used && file.text.contains("allow(unsafe_code)") {
            broken.push(format!("{}: allows unsafe and has none", file.name));
        }
    }
    report(broken, "unsafe code is in src/sys only");
}

/// The imports that a folder may have: every `crate::…` path of its files begins with one of the
/// second column. Unit tests may import everything.
const FLOORS: &[(&str, &[&str])] = &[
    // Documentation names public items by their public paths.
    ("src/sys/", &["slab", "Op::"]),
    ("src/slab.rs", &[]),
    ("src/key.rs", &["slab", "Poller"]),
    ("src/op/", &["event", "key", "op", "sys", "Op::", "Poller", "PoolBuf"]),
    ("src/event.rs", &["key", "op::Completion", "Poller", "Waker"]),
    ("src/poll_bits.rs", &["event"]),
    ("src/statistics.rs", &["Op::", "Poller"]),
    ("src/waker.rs", &["selector::WakeHandle", "sys", "Poller::wait"]),
    ("src/backend/mod.rs", &["unblock_in_child"]),
    ("src/selector/", &["event", "key", "poll_bits", "slab", "sys"]),
    (
        "src/reactor/",
        &[
            "backend::Backend",
            "event",
            "key",
            "op",
            "poll_bits",
            "poller",
            "selector",
            "slab",
            "statistics",
            "sys",
            "waker",
            "Op::",
            "Poller",
        ],
    ),
    (
        "src/poller",
        &[
            "backend::Backend",
            "event",
            "key",
            "op",
            "statistics",
            "waker::Waker",
            "contract",
            "try_io",
            "Completion",
        ],
    ),
    ("src/try_io.rs", &["event", "key", "poller"]),
    // The public API, by the modules it comes from, and the module of `sys` made for the suite.
    (
        "src/conformance/",
        &[
            "backend::Backend",
            "event",
            "key::Key",
            "op",
            "poller",
            "waker::Waker",
            "sys::buf::Buf",
            "sys::pool",
            "sys::io_call::leaked_buffers",
            "sys::staging",
            "try_io::try_io",
            "unblock_in_child",
            "contract",
            "conform",
        ],
    ),
];

#[test]
fn folders_import_from_below() {
    let mut broken = Vec::new();
    for file in rust_files() {
        let Some((_, allowed)) = FLOORS.iter().find(|(folder, _)| file.name.starts_with(folder))
        else {
            continue;
        };
        if file.name.contains("/tests") {
            continue;
        }
        for (at, line) in file.text.lines().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                let path = &line[start + "crate::".len()..];
                let is_macro = path.starts_with("__conformance");
                let is_visibility = line[..start].ends_with("pub(in ");
                if !is_macro
                    && !is_visibility
                    && !allowed.iter().any(|allowed| path.starts_with(allowed))
                {
                    broken.push(format!("{}:{}: {}", file.name, at + 1, line.trim()));
                }
            }
        }
    }
    report(broken, "a folder imports only from those below it");
}

#[test]
fn mechanisms_and_reactor_are_independent() {
    let mechanisms = ["select", "poll", "epoll", "sigio", "uring"];
    let mut broken = Vec::new();
    for file in rust_files() {
        let own = file.name.strip_prefix("src/selector/").and_then(|f| f.split(['/', '.']).next());
        let is_mechanism = own.is_some_and(|own| mechanisms.contains(&own));
        if !is_mechanism && !file.name.starts_with("src/reactor/") {
            continue;
        }
        for mechanism in mechanisms.iter().filter(|mechanism| own != Some(mechanism)) {
            for path in [format!("selector::{mechanism}"), format!("super::{mechanism}")] {
                if names_path(&code_of(&file.text), &path) && !file.name.contains("/tests") {
                    broken.push(format!("{}: {path}", file.name));
                }
            }
        }
    }
    report(broken, "a mechanism is named by `backend/open.rs` alone");
}

/// Returns true if the code names this path, and not only a longer one that begins with it.
fn names_path(code: &str, path: &str) -> bool {
    let mut rests = code.match_indices(path).map(|(at, _)| &code[at + path.len()..]);
    rests.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Returns the files of the reactor, without tests, by their paths below it.
fn reactor_files() -> Vec<File> {
    let reactor_file = |file: File| {
        let name = file.name.strip_prefix("src/reactor/")?.to_owned();
        let text = code_of(file.text.split("#[cfg(test)]\nmod tests;").next().unwrap_or(""));
        (!name.contains("tests")).then_some(File { name, text })
    };
    let files: Vec<_> = rust_files().into_iter().filter_map(reactor_file).collect();
    assert!(files.len() > 15, "the files of the reactor are found");
    files
}

/// Fails if these edges between files have a cycle, and names the files in it.
fn expect_no_cycle(mut edges: BTreeSet<(String, String)>, rule: &str) {
    assert!(edges.len() > 5, "the edges are found: {edges:?}");
    loop {
        let sources: BTreeSet<_> = edges.iter().map(|(from, _)| from.clone()).collect();
        let before = edges.len();
        let targets: BTreeSet<_> = edges.iter().map(|(_, to)| to.clone()).collect();
        // A file without outgoing or incoming edges is in no cycle.
        edges.retain(|(from, to)| sources.contains(to) && targets.contains(from));
        if edges.len() == before {
            break;
        }
    }
    report(edges.iter().map(|(from, to)| format!("{from} -> {to}")).collect(), rule);
}

/// Returns the file that a `use super::…` of this file names.
fn imported(from: &File, line: &str, files: &[File]) -> Option<String> {
    let path = line.trim().trim_start_matches("pub(super) ").strip_prefix("use ")?;
    let mut folder: Vec<&str> = from.name.split('/').collect();
    folder.pop();
    let is_root = from.name.ends_with("mod.rs");
    let mut parts = path.split("::").peekable();
    let mut depth = 0;
    while parts.next_if_eq(&"super").is_some() {
        depth += 1;
    }
    // `mod.rs` is one level above the other files of its folder.
    for _ in 0..(depth + usize::from(is_root)).saturating_sub(1) {
        folder.pop();
    }
    if depth == 0 && !is_root {
        return None;
    }
    let module = parts.next()?.trim_end_matches(';');
    let prefix: String = folder.iter().map(|part| format!("{part}/")).collect();
    let names = [format!("{prefix}{module}.rs"), format!("{prefix}{module}/mod.rs")];
    let found = files.iter().find(|file| names.contains(&file.name));
    // An item of the folder's own `mod.rs`.
    let whole = || files.iter().find(|file| depth > 0 && file.name == format!("{prefix}mod.rs"));
    found.or_else(whole).map(|file| file.name.clone()).filter(|name| *name != from.name)
}

#[test]
fn reactor_imports_have_no_cycle() {
    let files = reactor_files();
    let mut edges = BTreeSet::new();
    for file in &files {
        let lines = file.text.lines();
        edges.extend(
            lines.filter_map(|line| imported(file, line, &files)).map(|to| (file.name.clone(), to)),
        );
    }
    let known = ("operations/run.rs".to_owned(), "operations/machine.rs".to_owned());
    assert!(edges.contains(&known), "the edges are found: {edges:?}");
    let to_whole = edges.iter().filter(|(from, to)| {
        let folder = to.strip_suffix("mod.rs");
        folder.is_some_and(|folder| from.starts_with(folder))
    });
    let to_whole = to_whole.map(|(from, to)| format!("{from} -> {to}")).collect();
    report(to_whole, "no file imports the mod.rs of its own folder");
    let sides = ["operations/", "readiness/"];
    let across = edges.iter().filter(|(from, to)| {
        let side = |name: &str| sides.iter().position(|side| name.starts_with(side));
        side(from).zip(side(to)).is_some_and(|(from, to)| from != to)
    });
    let across = across.map(|(from, to)| format!("{from} -> {to}")).collect();
    report(across, "operations and readiness do not import each other");
    expect_no_cycle(edges, "the imports of the reactor have no cycle");
}

/// The methods of one type may be in several files, which call each other without an import. These
/// calls have no cycle either.
#[test]
fn methods_of_operations_call_downwards() {
    let files = reactor_files();
    let mut defined = Vec::new();
    let parts: Vec<(&str, String)> = files
        .iter()
        .filter_map(|file| {
            let (_, methods) = file.text.split_once("impl Operations {")?;
            let methods = methods.split("\n}").next().unwrap_or("").to_owned();
            Some((&*file.name, methods))
        })
        .collect();
    for (name, methods) in &parts {
        for (at, _) in methods.match_indices("fn ") {
            let method = methods[at + 3..].split(['(', '<']).next().unwrap_or("");
            defined.push((method.to_owned(), *name));
        }
    }
    let mut edges = BTreeSet::new();
    for (name, methods) in &parts {
        for (method, to) in defined.iter().filter(|(_, to)| to != name) {
            if methods.contains(&format!("self.{method}(")) {
                edges.insert(((*name).to_owned(), (*to).to_owned()));
            }
        }
    }
    expect_no_cycle(edges, "the methods of operations call downwards");
}

#[test]
fn errors_have_a_cause() {
    let is_library = |file: &&File| {
        let is_test = file.name.contains("test") || file.name.contains("conformance/");
        file.name.starts_with("src/") && !is_test
    };
    let mut broken = Vec::new();
    for file in rust_files().iter().filter(is_library) {
        for (at, line) in file.text.lines().enumerate() {
            // `WouldBlock` is internal to the reactor.
            let is_bare = |kind: &str| {
                let is_cause = kind.contains(".into()") && !kind.starts_with("WouldBlock");
                is_cause && kind.split(".into()").next().is_some_and(|kind| !kind.contains(' '))
            };
            if line.split("ErrorKind::").skip(1).any(is_bare) {
                broken.push(format!("{}:{}: {}", file.name, at + 1, line.trim()));
            }
        }
    }
    report(broken, "an error of this crate has a text");
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_clause_has_a_case() {
    let contract = read(CONTRACT);
    let clause = |line: &str| {
        let rest = line.strip_prefix("//! - **")?;
        Some(rest.split("**").next()?.to_lowercase())
    };
    let clauses: BTreeSet<String> = contract.lines().filter_map(clause).collect();
    assert!(clauses.len() > 25, "the clauses are found");
    let list = read("src/conformance/cases.rs");
    let cases = list.lines().map(str::trim).filter(|line| !line.contains(' '));
    let cases: BTreeSet<String> =
        cases.filter_map(|case| Some(case.split_once('_')?.0.to_owned())).collect();
    let untested = clauses.difference(&cases).cloned().collect();
    report(untested, "every clause of the contract has a case named after it");
}

#[test]
fn documents_and_suite_name_the_same_backends() {
    let tested = read("tests/it/conformance.rs");
    let (readme, contract, ci) = (read("README.md"), read(CONTRACT), read(".ci/run"));
    for backend in quintpoll::Backend::ALL {
        assert!(readme.contains(&format!("| `{backend}` |")), "{backend} is missing in README.md");
        if backend.is_available().is_ok() {
            let generated = format!("conformance_tests!({backend},");
            assert!(tested.contains(&generated), "the suite does not run on {backend}");
            assert!(contract.contains(&format!("| {backend} ")), "no column for {backend}");
            let required = ci.lines().find(|line| line.contains("QUINTPOLL_REQUIRE="));
            let required = required.expect(".ci/run requires backends");
            let names = required.split(['=', ',', ' ', '"']);
            assert!(names.into_iter().any(|name| name == backend.to_string()), "{backend}");
        }
    }
}
