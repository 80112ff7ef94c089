//! How a file is to be opened.

use std::io;

/// How [`Op::open`](crate::Op::open) opens a file: as [`std::fs::OpenOptions`], of which it is
/// a copy that can be looked into.
///
/// ```
/// use quintpoll::OpenOptions;
/// let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    flags: i32,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// Nothing is chosen, and the mode of a new file is 0o666 without the umask's bits.
    pub fn new() -> Self {
        let [read, write, append, truncate, create, create_new] = [false; 6];
        OpenOptions { read, write, append, truncate, create, create_new, flags: 0, mode: 0o666 }
    }

    /// To be read.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// To be written.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// To be written at its end, wherever that is (`O_APPEND`).
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// Emptied (`O_TRUNC`).
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Made if there is none (`O_CREAT`).
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Made, and an error if there is one already (`O_EXCL`).
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// What else open(2) knows, such as `O_DIRECT`. How it is to be accessed is not chosen here.
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.flags = flags;
        self
    }

    /// The permissions of a new file, of which the umask takes some.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// For open(2): flags and mode.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: nothing can be opened so; the same that the standard library refuses.
    pub(crate) fn to_flags(&self) -> io::Result<(i32, u32)> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let access = match (self.read, self.write, self.append) {
            (true, false, false) => libc::O_RDONLY,
            (false, true, false) => libc::O_WRONLY,
            (true, true, false) => libc::O_RDWR,
            (false, _, true) => libc::O_WRONLY | libc::O_APPEND,
            (true, _, true) => libc::O_RDWR | libc::O_APPEND,
            (false, false, false) => return refused("neither to be read nor to be written"),
        };
        let changes = self.truncate || self.create || self.create_new;
        if changes && !self.write && !self.append {
            return refused("to be made or emptied, but not to be written");
        }
        if self.truncate && self.append && !self.create_new {
            return refused("to be emptied, and to be written at its end");
        }
        let made = match (self.create, self.truncate, self.create_new) {
            (false, false, false) => 0,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
        };
        let others = self.flags & !libc::O_ACCMODE;
        Ok((access | made | others, self.mode))
    }
}

#[cfg(test)]
mod tests;
