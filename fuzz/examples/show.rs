//! Shows the script in a file that a fuzz target wrote, as a test. After `--together` the files are
//! those of `backends_agree`, after `--operations` those of `operations`.

use quintpoll_fuzz::{decode, decode_together, ops};
use std::path::Path;

/// Whom the script in some data is for, and the script as a test.
type Decode = fn(&[u8]) -> Option<(String, String)>;

fn alone(data: &[u8]) -> Option<(String, String)> {
    decode(data).map(|(column, script)| (column.to_string(), script.as_test()))
}

fn together(data: &[u8]) -> Option<(String, String)> {
    decode_together(data).map(|script| ("all backends".to_owned(), script.as_test()))
}

fn operations(data: &[u8]) -> Option<(String, String)> {
    ops::decode(data).map(|script| ("all backends".to_owned(), script.as_test()))
}

fn main() -> std::io::Result<()> {
    let mut decode: Decode = alone;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--together") => decode = together,
            Some("--operations") => decode = operations,
            _ => show(Path::new(&argument), decode)?,
        }
    }
    Ok(())
}

fn show(path: &Path, decode: Decode) -> std::io::Result<()> {
    match decode(&std::fs::read(path)?) {
        Some((whom, test)) => println!("// on {whom}\n{test}"),
        None => println!("// no script: {path:?}"),
    }
    Ok(())
}
