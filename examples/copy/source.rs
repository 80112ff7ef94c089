//! The file to copy.

use crate::args::Request;
use crate::direct;
use crate::driver::Driver;
use crate::failure::{Explain, Failure};
use quintpoll::OpenOptions;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<File>,
    /// The metadata at the open.
    pub(crate) metadata: Metadata,
}

impl Original {
    /// Opens the source. The open never waits for the other end of a FIFO, which is then refused as
    /// no regular file.
    pub(crate) fn open(driver: &mut Driver, request: &Request) -> Result<Self, Failure> {
        let path = request.source.clone();
        let file = driver.open(&path, OpenOptions::new().read(true))?;
        let file = file.explain(format_args!("cannot open {}", path.display()))?;
        let metadata = metadata(&file, &path)?;
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

    /// Returns the error of a source that changed.
    pub(crate) fn changed(&self) -> Failure {
        Failure::run(format_args!("{} changed while it was copied", self.path.display()))
    }

    /// Checks that the source has the size and time of the open. `read` bytes were read. They
    /// differ from its size if a process has written to it, or in procfs, which generates them.
    pub(crate) fn expect_unchanged(&self, read: u64) -> Result<(), Failure> {
        let (path, size) = (self.path.display(), self.size());
        if read != size {
            let why = format_args!("{path} has {read} bytes, and not {size} as when it was opened");
            return Err(Failure::run(why));
        }
        let now = metadata(&self.file, &self.path)?;
        let is_same = now.modified().ok() == self.metadata.modified().ok();
        if is_same { Ok(()) } else { Err(self.changed()) }
    }
}

fn metadata(file: &File, path: &Path) -> Result<Metadata, Failure> {
    file.metadata().explain(format_args!("cannot access {}", path.display()))
}
