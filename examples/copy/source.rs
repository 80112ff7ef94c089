//! The file to be copied.

use crate::args::Request;
use crate::direct;
use crate::failure::{Explain, Failure};
use crate::hands::Hands;
use quintpoll::OpenOptions;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// When it was opened.
    pub(crate) metadata: Metadata,
}

impl Original {
    /// Opens it. The operation never waits for the other side of a FIFO, which is then refused with
    /// all else that is no regular file.
    pub(crate) fn open(hands: &mut Hands, request: &Request) -> Result<Self, Failure> {
        let path = request.source.clone();
        let file = hands.open(&path, OpenOptions::new().read(true))?;
        let file = file.explain(format_args!("can't open {}", path.display()))?;
        let metadata = look(&file, &path)?;
        if !metadata.is_file() {
            return Err(Failure::run(format_args!("{} is no regular file", path.display())));
        }
        if request.direct {
            direct::switch(&file, &path, true)?;
        }
        Ok(Original { path, file: Arc::new(file), metadata })
    }

    pub(crate) fn size(&self) -> u64 {
        self.metadata.len()
    }

    /// Why a copy of it can't be right.
    pub(crate) fn changed(&self) -> Failure {
        Failure::run(format_args!("{} changed while it was copied", self.path.display()))
    }

    /// `read` bytes are in it now. They are not as many as its file system has said if somebody has
    /// written to it, or if that makes them when they are read, as procfs does.
    pub(crate) fn expect_unchanged(&self, read: u64) -> Result<(), Failure> {
        let (path, size) = (self.path.display(), self.size());
        if read != size {
            let why = format_args!("{path} has {read} bytes, and not {size} as when it was opened");
            return Err(Failure::run(why));
        }
        let now = look(&self.file, &self.path)?;
        let is_same = now.modified().ok() == self.metadata.modified().ok();
        if is_same { Ok(()) } else { Err(self.changed()) }
    }
}

fn look(file: &File, path: &Path) -> Result<Metadata, Failure> {
    file.metadata().explain(format_args!("can't look at {}", path.display()))
}
