//! The copy under a name of its own, until it is whole.

use crate::args::Request;
use crate::direct;
use crate::failure::{Explain, Failure};
use crate::hands::Hands;
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

/// A file beside the target. It is removed when it is dropped, unless it has become the target.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    target: PathBuf,
    /// To be kept by the disk with the new name in it. Who may not read it can't ask for that.
    folder: Option<Arc<File>>,
    /// Those of what it is to replace.
    permissions: Option<Permissions>,
    pub(crate) file: Arc<File>,
    is_published: bool,
}

impl Draft {
    pub(crate) fn create(
        hands: &mut Hands,
        request: &Request,
        original: &Original,
    ) -> Result<Self, Failure> {
        let Place { target, permissions } = destination(request, original)?;
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        // Nobody is to see more of it before it is whole than after.
        let mode = permissions.as_ref().map_or(original.metadata.mode() & 0o777, |_| 0o600);
        let (path, file) = make_file(hands, &folder, mode)?;
        let (file, is_published) = (Arc::new(file), false);
        let mut draft = Draft { path, target, folder: None, permissions, file, is_published };
        if request.direct {
            direct::switch(&draft.file, &folder, true)?;
        }
        draft.folder = match hands.open(&folder, OpenOptions::new().read(true))? {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(error) => Err(error).explain(format_args!("can't open {}", folder.display()))?,
        };
        Ok(draft)
    }

    /// What the user calls it.
    pub(crate) fn name(&self) -> &Path {
        &self.target
    }

    /// All bytes are in it: cuts off what only filled a unit, and has the disk keep it.
    pub(crate) fn finish(
        &self,
        hands: &mut Hands,
        key: Key,
        original: &Original,
    ) -> Result<(), Failure> {
        let mut shaped = self.file.set_len(original.size());
        if let Some(permissions) = &self.permissions {
            shaped = shaped.and_then(|()| self.file.set_permissions(permissions.clone()));
        }
        shaped.explain(format_args!("can't finish {}", self.target.display()))?;
        self.keep(hands, key)
    }

    /// Has the page cache forget it, so that it is the disk that is asked next. Pages that are not
    /// written yet would stay. A file system may know better, and memory is all that some have.
    pub(crate) fn forget(&self) {
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }

    /// Gives it the target's name, for good: the folder is to be kept by the disk too.
    pub(crate) fn publish(mut self, hands: &mut Hands) -> Result<(), Failure> {
        let folder = self.folder.take().map(|folder| hands.register(folder)).transpose()?;
        hands.check()?;
        let renamed = fs::rename(&self.path, &self.target);
        renamed.explain(format_args!("can't make {}", self.target.display()))?;
        self.is_published = true;
        let Some(folder) = folder else { return Ok(()) };
        let named = hands.run(Op::fsync(folder))?.map(drop);
        let target = self.target.display();
        named.explain(format_args!("{target} is whole, but its name may be lost with the power"))
    }

    fn keep(&self, hands: &mut Hands, key: Key) -> Result<(), Failure> {
        let kept = hands.run(Op::fsync(key))?;
        kept.map(drop).explain(format_args!("can't write {} to its disk", self.target.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_published {
            // Whoever has removed it before us wanted the same.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where the copy is to go.
struct Place {
    target: PathBuf,
    /// Those of the file that is there, if one is.
    permissions: Option<Permissions>,
}

/// If there is a symbolic link, it is what that points to. What is no regular file is not replaced:
/// nobody who writes to `/dev/null` wants it gone; nor is what the program prints to.
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
            let looked = fs::canonicalize(target);
            let target = looked.explain(format_args!("can't look at {}", target.display()))?;
            // What is not for everybody's ordinary use stays with the old one.
            let permissions = Permissions::from_mode(found.mode() & 0o777);
            Ok(Place { target, permissions: Some(permissions) })
        }
        Err(_) if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) => {
            refuse("is a symbolic link that leads nowhere")
        }
        Err(error) if error.kind() == ErrorKind::NotFound && target.file_name().is_some() => {
            Ok(Place { target: target.clone(), permissions: None })
        }
        Err(error) => Err(error).explain(format_args!("can't look at {}", target.display())),
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether what is written to the stream goes there.
fn is_under(stream: &impl AsFd, found: &Metadata) -> bool {
    let stream = stream.as_fd().try_clone_to_owned().map(File::from);
    stream.and_then(|stream| stream.metadata()).is_ok_and(|stream| is_same(&stream, found))
}

/// Under a name that nobody has: who was killed may have left his.
fn make_file(hands: &mut Hands, folder: &Path, mode: u32) -> Result<(PathBuf, File), Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode);
    let mut attempt = 0;
    loop {
        let path = folder.join(format!(".copy-{}-{attempt}", process::id()));
        match hands.open(&path, &options)? {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => attempt += 1,
            made => {
                let why = format!("can't make a file in {}", folder.display());
                return Ok((path, made.explain(why)?));
            }
        }
    }
}
