//! The options of an open.

use std::io;

/// Options of [`Op::open`](crate::Op::open), as in [`std::fs::OpenOptions`], whose values the
/// poller could not read.
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
    /// Makes options with nothing set, and the mode 0o666 for a new file (less the umask).
    pub fn new() -> Self {
        let [read, write, append, truncate, create, create_new] = [false; 6];
        OpenOptions { read, write, append, truncate, create, create_new, flags: 0, mode: 0o666 }
    }

    /// Opens the file for reading (`O_RDONLY`, `O_RDWR`).
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// Opens the file for writing (`O_WRONLY`, `O_RDWR`).
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// Opens the file for writing at its end (`O_APPEND`).
    #[doc(alias = "O_APPEND")]
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// Truncates the file (`O_TRUNC`).
    #[doc(alias = "O_TRUNC")]
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Creates the file if it does not exist (`O_CREAT`).
    #[doc(alias = "O_CREAT")]
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Creates the file, and fails if it exists (`O_EXCL`).
    #[doc(alias = "O_EXCL")]
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Sets further flags of open(2), such as `O_DIRECT`. Access modes among them are ignored.
    #[doc(alias = "O_DIRECT")]
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.flags = flags;
        self
    }

    /// Sets the permissions of a new file, which the umask restricts.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Returns the flags and the mode for open(2).
    ///
    /// # Errors
    ///
    /// `InvalidInput`: no file can be opened with these options; `std` refuses the same.
    pub(crate) fn to_flags(&self) -> io::Result<(i32, u32)> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let access = match (self.read, self.write, self.append) {
            (true, false, false) => libc::O_RDONLY,
            (false, true, false) => libc::O_WRONLY,
            (true, true, false) => libc::O_RDWR,
            (false, _, true) => libc::O_WRONLY | libc::O_APPEND,
            (true, _, true) => libc::O_RDWR | libc::O_APPEND,
            (false, false, false) => return refused("neither read nor write access is requested"),
        };
        let changes = self.truncate || self.create || self.create_new;
        if changes && !self.write && !self.append {
            return refused("create or truncate without write access");
        }
        if self.truncate && self.append && !self.create_new {
            return refused("truncate together with append");
        }
        let creation = match (self.create, self.truncate, self.create_new) {
            (false, false, false) => 0,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
        };
        let others = self.flags & !libc::O_ACCMODE;
        Ok((access | creation | others, self.mode))
    }
}

#[cfg(test)]
mod tests;
