//! The copy under a temporary name, until it is complete.

use crate::args::Request;
use crate::direct;
use crate::driver::Driver;
use crate::failure::{Explain, Failure};
use crate::source::Original;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use quintpoll::{Key, Op, OpenOptions};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

/// A file in the target's directory. The drop removes it, unless it has become the target.
#[derive(Debug)]
pub(crate) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    /// The directory, to sync after the rename. `None` if this program may not read it.
    folder: Option<Arc<File>>,
    /// The permissions of the file to replace.
    permissions: Option<Permissions>,
    pub(crate) file: Arc<File>,
    is_published: bool,
}

impl PartialFile {
    pub(crate) fn create(
        driver: &mut Driver,
        request: &Request,
        original: &Original,
    ) -> Result<Self, Failure> {
        let Place { target, permissions } = destination(request, original)?;
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // The partial file must not be more readable than the final one.
        let mode = permissions.as_ref().map_or(original.metadata.mode() & 0o777, |_| 0o600);
        let (path, file) = make_file(driver, &folder, mode)?;
        let (file, is_published) = (Arc::new(file), false);
        let mut partial =
            PartialFile { path, target, folder: None, permissions, file, is_published };
        if request.direct {
            direct::switch(&partial.file, &folder, true)?;
        }
        partial.folder = match driver.open(&folder, OpenOptions::new().read(true))? {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(error) => Err(error).explain(format_args!("cannot open {}", folder.display()))?,
        };
        Ok(partial)
    }

    /// Returns the target path.
    pub(crate) fn name(&self) -> &Path {
        &self.target
    }

    /// Cuts off the padding after all bytes were written, and syncs the file.
    pub(crate) fn finish(
        &self,
        driver: &mut Driver,
        key: Key,
        original: &Original,
    ) -> Result<(), Failure> {
        let mut result = self.file.set_len(original.size());
        if let Some(permissions) = &self.permissions {
            result = result.and_then(|()| self.file.set_permissions(permissions.clone()));
        }
        result.explain(format_args!("cannot finish {}", self.target.display()))?;
        self.keep(driver, key)
    }

    /// Drops the file from the page cache, so that the next reads reach the disk. Unwritten pages
    /// stay. A file system may ignore this, and some keep files in memory only.
    pub(crate) fn forget(&self) {
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// Renames the file to the target, and syncs the directory.
    pub(crate) fn publish(mut self, driver: &mut Driver) -> Result<(), Failure> {
        let folder = self.folder.take().map(|folder| driver.register(folder)).transpose()?;
        driver.check()?;
        let renamed = fs::rename(&self.path, &self.target);
        renamed.explain(format_args!("cannot create {}", self.target.display()))?;
        self.is_published = true;
        let Some(folder) = folder else { return Ok(()) };
        let named = driver.run(Op::fsync(folder))?.map(drop);
        let target = self.target.display();
        named.explain(format_args!("{target} is whole, but its name may be lost with the power"))
    }

    fn keep(&self, driver: &mut Driver, key: Key) -> Result<(), Failure> {
        let kept = driver.run(Op::fsync(key))?;
        kept.map(drop).explain(format_args!("cannot write {} to its disk", self.target.display()))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_published {
            // The only likely error is that another process has removed it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The destination of the copy.
struct Place {
    target: PathBuf,
    /// The permissions of an existing target.
    permissions: Option<Permissions>,
}

/// Returns the destination, after following a symbolic link. Files that are not regular, such as
/// `/dev/null`, are not replaced, nor is a file that this program prints to.
fn destination(request: &Request, original: &Original) -> Result<Place, Failure> {
    let target = &request.target;
    let refuse = |why| Err(Failure::run(format_args!("{} {why}", target.display())));
    match fs::metadata(target) {
        Ok(found) => {
            if is_same(&found, &original.metadata) {
                return refuse("is the source itself");
            }
            if !found.is_file() {
                return refuse("is there and is no regular file");
            }
            if is_under(&io::stdout(), &found) || is_under(&io::stderr(), &found) {
                return refuse("is what this program prints to");
            }
            let resolved = fs::canonicalize(target);
            let target = resolved.explain(format_args!("cannot access {}", target.display()))?;
            // Set-user-ID and similar bits are not copied.
            let permissions = Permissions::from_mode(found.mode() & 0o777);
            Ok(Place { target, permissions: Some(permissions) })
        }
        Err(_) if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) => {
            refuse("is a symbolic link that leads nowhere")
        }
        Err(error) if error.kind() == ErrorKind::NotFound && target.file_name().is_some() => {
            Ok(Place { target: target.clone(), permissions: None })
        }
        Err(error) => Err(error).explain(format_args!("cannot access {}", target.display())),
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Returns true if the stream writes to this file.
fn is_under(stream: &impl AsFd, found: &Metadata) -> bool {
    let stream = stream.as_fd().try_clone_to_owned().map(File::from);
    stream.and_then(|stream| stream.metadata()).is_ok_and(|stream| is_same(&stream, found))
}

/// Makes a file with a new name. A process that was killed may have left one with the same id.
fn make_file(driver: &mut Driver, folder: &Path, mode: u32) -> Result<(PathBuf, File), Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    let mut attempt = 0;
    loop {
        let path = folder.join(format!(".copy-{}-{attempt}", process::id()));
        match driver.open(&path, &options)? {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => attempt += 1,
            result => {
                let why = format!("cannot create a file in {}", folder.display());
                return Ok((path, result.explain(why)?));
            }
        }
    }
}
