//! The public API against `docs/api.txt`, so that a diff shows what changes in it.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const LISTING: &str = "docs/api.txt";
/// Writes the listing instead of comparing it.
const RENEW: &str = "QUINTPOLL_RENEW_API";

/// The files that re-export what a program can name, and what they are called in the listing.
const FACES: [(&str, &str); 3] = [
    ("src/lib.rs", "quintpoll"),
    ("src/spi.rs", "quintpoll::spi, with the feature `spi` (outside semver)"),
    ("src/conformance/mod.rs", "quintpoll::conformance, with the feature `conformance`"),
];

#[test]
fn listing_of_the_api_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LISTING);
    let listing = listing();
    if std::env::var_os(RENEW).is_some() {
        fs::write(&path, listing).expect("docs can be written to");
        return;
    }
    let old = fs::read_to_string(&path).unwrap_or_default();
    let gone = old.lines().filter(|line| !listing.lines().any(|new| new == *line));
    let new = listing.lines().filter(|line| !old.lines().any(|old| old == *line));
    let changes: Vec<_> =
        gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect();
    assert!(
        old == listing,
        "{LISTING} is out of date:\n{}\nRenew it by `{RENEW}=1 cargo test --test api`, and add a \
         line to CHANGELOG.md",
        changes.join("\n"),
    );
}

/// Lists all items, each with its attributes and what belongs to it.
fn listing() -> String {
    let sources = sources();
    let mut listing = "# The public API, as tests/api.rs finds it in src. Renew it by\n".to_owned();
    writeln!(listing, "# {RENEW}=1 cargo test --test api").expect("a String");
    for (face, name) in FACES {
        let text = sources.iter().find(|(file, _)| file == face).map(|(_, text)| &**text);
        let text = text.unwrap_or_else(|| panic!("{face} is missing"));
        writeln!(listing, "\n## {name}").expect("a String");
        let mut items: Vec<_> = exported(text).into_iter().map(|name| (name, &*sources)).collect();
        // What the file declares itself.
        let own = [(face.to_owned(), text.to_owned())];
        items.extend(declared(text).into_iter().map(|name| (name, &own[..])));
        items.sort();
        for (item, sources) in items {
            let found = item_lines(&item, sources);
            assert!(!found.is_empty(), "{item}, which {face} exports, is not found");
            listing.extend(found.into_iter().map(|line| line + "\n"));
        }
    }
    listing.push_str("\n## Macros\n\n");
    let exports = sources.iter().flat_map(|(_, text)| text.split("#[macro_export]\n").skip(1));
    let names = exports.filter_map(|rest| rest.strip_prefix("macro_rules! ")?.split(' ').next());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("__")).collect();
    names.sort();
    listing.extend(names.into_iter().map(|name| format!("macro {name}!\n")));
    listing
}

/// The files of the library, by name. Unit tests and comments are left out.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            let name = path.strip_prefix(root).expect("inside").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if !name.contains("/tests") {
                let text = fs::read_to_string(&path).expect("a readable file");
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                files.push((name, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    files.sort();
    files
}

/// The names that the `pub use` lines of a file re-export.
fn exported(text: &str) -> Vec<String> {
    let uses = text.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
    let names = uses.flat_map(|path| match path.split_once('{') {
        Some((_, names)) => names.trim_end_matches('}').split(',').map(last_name).collect(),
        None => vec![last_name(path)],
    });
    names.filter(|name| !name.is_empty()).collect()
}

fn last_name(path: &str) -> String {
    path.rsplit("::").next().unwrap_or_default().trim().to_owned()
}

/// The names of the public items that a file declares at its top level.
fn declared(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| {
        let (keyword, rest) = line.strip_prefix("pub ")?.split_once(' ')?;
        let is_item = KEYWORDS.contains(&keyword);
        is_item.then(|| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())?
    });
    names.map(str::to_owned).collect()
}

const KEYWORDS: [&str; 7] = ["struct", "enum", "trait", "fn", "type", "const", "static"];

/// Everything that belongs to the item of this name: its declaration, public fields, variants,
/// methods, and the traits that it implements.
fn item_lines(item: &str, sources: &[(String, String)]) -> Vec<String> {
    let mut lines = Vec::new();
    // By the line that begins the implementation, so that moving code changes nothing.
    let mut impls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, text) in sources {
        let text: Vec<&str> = text.lines().collect();
        for (at, line) in text.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if declares(line.trim_start(), item) && (indent == 0 || is_bitflags(&text, at)) {
                lines.extend(declaration(&text, at, indent));
            } else if indent == 0 && line.starts_with("impl") && is_impl_of(line, item) {
                let head = statement(&text, at);
                let is_inherent = !head.contains(" for ");
                let members = if is_inherent { members(&text, at, "pub ") } else { Vec::new() };
                if !is_inherent || !members.is_empty() {
                    impls.entry(head).or_default().extend(members);
                }
            }
        }
    }
    lines.extend(impls.into_iter().flat_map(|(head, mut members)| {
        members.sort();
        [vec![head], members].concat()
    }));
    lines
}

/// Returns true if a line declares the public item of this name.
fn declares(line: &str, item: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub ") else { return false };
    let Some((keyword, rest)) = rest.split_once(' ') else { return false };
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
    KEYWORDS.contains(&keyword) && name == Some(item)
}

/// Returns true if the line is the declaration in a `bitflags!`.
fn is_bitflags(text: &[&str], at: usize) -> bool {
    let outer = text[..at].iter().rev().find(|line| !line.is_empty() && !line.starts_with(' '));
    outer.is_some_and(|line| line.starts_with("bitflags!"))
}

/// Returns true if this line begins an implementation of the item, of a trait for it, or of a
/// conversion from it.
fn is_impl_of(line: &str, item: &str) -> bool {
    let is_named = |name: &str| {
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        last_name(&name[..end.unwrap_or(name.len())]) == item
    };
    let converted = line.split_once(" From<").map_or("", |(_, name)| name);
    is_named(subject(line)) || is_named(converted)
}

/// The type that an implementation is for, without `&` and a lifetime.
fn subject(line: &str) -> &str {
    let subject = match line.split_once(" for ") {
        Some((_, subject)) => subject,
        None => line.trim_start_matches("impl").trim_start_matches(generics(line)),
    };
    let subject = subject.trim().trim_start_matches('&');
    match subject.split_once(' ') {
        Some((lifetime, name)) if lifetime.starts_with('\'') => name,
        _ => subject,
    }
}

/// The parameters of an `impl`, with their brackets.
fn generics(line: &str) -> &str {
    let rest = line.trim_start_matches("impl");
    let mut depth = 0;
    let mut end = 0;
    for (at, c) in rest.char_indices() {
        depth += i32::from(c == '<') - i32::from(c == '>' && !rest[..at].ends_with('-'));
        if depth == 0 {
            end = if c == '>' { at + 1 } else { 0 };
            break;
        }
    }
    &rest[..end]
}

/// The declaration that begins in this line, with its attributes and its public parts.
fn declaration(text: &[&str], at: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let before = text[..at].iter().rev().take_while(|line| !line.trim().is_empty());
    let mut attributes: Vec<&str> = before
        .map(|line| line.trim())
        .take_while(|line| line.starts_with("#[") || !line.ends_with(['}', ';', '{']))
        .filter(|line| {
            ["#[derive", "#[must_use", "#[non_exhaustive"].iter().any(|a| line.starts_with(a))
        })
        .collect();
    attributes.reverse();
    lines.extend(attributes.into_iter().map(str::to_owned));
    let head = statement(text, at);
    let prefix = match head.strip_prefix("pub ").and_then(|head| head.split(' ').next()) {
        Some("struct") if indent > 0 => "const ",
        Some("struct") => "pub ",
        _ => "",
    };
    let has_members = text[at..].iter().take(12).find(|line| line.ends_with(['{', ';', '}']));
    let is_opaque = prefix == "pub " && !head.contains("(pub ");
    lines.push(match head.split_once('(') {
        Some((name, _)) if is_opaque => name.to_owned(),
        _ => head,
    });
    if has_members.is_some_and(|line| line.ends_with('{')) && !text[at].contains("pub fn ") {
        lines.extend(members(text, at, prefix));
    }
    lines
}

/// The members of a block whose lines begin so, up to the end of each signature.
fn members(text: &[&str], at: usize, prefix: &str) -> Vec<String> {
    let indent = text[at].len() - text[at].trim_start().len();
    let inner = " ".repeat(indent + 4);
    let mut members = Vec::new();
    for (line, content) in text.iter().enumerate().skip(at + 1) {
        let is_end = content.len() > indent && content[indent..].starts_with('}');
        if is_end && content.trim_start().len() == content.len() - indent {
            break;
        }
        let Some(content) = content.strip_prefix(&inner) else { continue };
        let is_member = content.starts_with(prefix)
            && content.starts_with(|c: char| c.is_alphabetic())
            && !content.starts_with("where");
        if !is_member {
            continue;
        }
        members.push(match prefix.is_empty() && content.ends_with(" {") {
            true if !content.contains("fn ") => format!("    {}", variant(&text[line..])),
            _ => format!("    {}", statement(text, line)),
        });
    }
    members
}

/// A variant with named fields, in one line.
fn variant(text: &[&str]) -> String {
    let parts = text.iter().map(|line| line.trim());
    let end = parts.clone().position(|line| line.starts_with('}')).unwrap_or_default();
    parts.take(end).collect::<Vec<_>>().join(" ").trim_end_matches(',').to_owned() + " }"
}

/// What begins in this line, in one line: up to a body, a semicolon, or the comma of a field. Of a
/// constant the value is left out, and a method of a trait with a body ends in `{ … }`.
fn statement(text: &[&str], at: usize) -> String {
    let indent = text[at].len() - text[at].trim_start().len();
    let mut statement = String::new();
    for line in &text[at..] {
        let part = line.trim();
        let is_closing = line.len() - line.trim_start().len() == indent;
        let separator = if statement.is_empty() || statement.ends_with('(') { "" } else { " " };
        let part_is_end = part.starts_with(')') || part.starts_with('}');
        statement += if part_is_end { "" } else { separator };
        statement += part;
        let ends = part.ends_with([';', ',']) || part.ends_with('{') || part.ends_with('}');
        if ends && (is_closing || line.starts_with("where")) {
            break;
        }
    }
    let statement = statement.replace(",)", ")").replace(" ,", ",");
    let is_default = statement.contains("fn ") && statement.ends_with('{');
    let statement = statement.trim_end_matches([' ', '{', ';', ',']).trim_end_matches(" {}");
    let statement = match statement.split_once(" = ") {
        Some((head, _)) if head.contains("const ") => head,
        _ => statement,
    };
    match is_default && !statement.contains("pub ") {
        true => format!("{statement} {{ … }}"),
        false => statement.to_owned(),
    }
}
