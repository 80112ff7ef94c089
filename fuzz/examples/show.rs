//! Shows the script in a file that the fuzz target wrote, as a test.

use quintpoll_fuzz::decode;

fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        match decode(&std::fs::read(&path)?) {
            Some((column, script)) => println!("// on {column}\n{}", script.as_test()),
            None => println!("// no script: {path:?}"),
        }
    }
    Ok(())
}
