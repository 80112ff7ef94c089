//! Shows the script in a file that a fuzz target wrote, as a test. After `--together` the files are
//! those of `backends_agree`.

use quintpoll_fuzz::{decode, decode_together};

fn main() -> std::io::Result<()> {
    let mut is_together = false;
    for path in std::env::args_os().skip(1) {
        if path == "--together" {
            is_together = true;
            continue;
        }
        let data = std::fs::read(&path)?;
        let found = match is_together {
            true => decode_together(&data).map(|script| ("all backends".to_owned(), script)),
            false => decode(&data).map(|(column, script)| (column.to_string(), script)),
        };
        match found {
            Some((whom, script)) => println!("// on {whom}\n{}", script.as_test()),
            None => println!("// no script: {path:?}"),
        }
    }
    Ok(())
}
