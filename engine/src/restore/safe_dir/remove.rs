//! Removes single names and whole trees, without following anything and without leaving the file system.

use super::SafeDir;
use crate::error::Result;
use bulla_repo_format::tree::join_path;
use rustix::fd::AsFd;
use rustix::fs::{self, AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

/// A directory on the way down: its parent, its name, and what is still to be removed in it.
struct Level {
    parent: Vec<u8>,
    name: Vec<u8>,
    left: Vec<Vec<u8>>,
}

impl SafeDir {
    /// Removes a name that is not a directory.
    pub fn remove_node(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        self.unlink(parent, name, AtFlags::empty())
    }

    fn unlink(&mut self, parent: &[u8], name: &[u8], flags: AtFlags) -> Result<()> {
        self.checked("remove", parent, name)?;
        let dir = self.dir(parent)?;
        match fs::unlinkat(dir.as_fd(), name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.fail("remove", parent, name, e)),
        }
    }

    /// Removes whatever lies under a name, and everything below it that `remove` agrees to (path, is directory). A
    /// directory that keeps something stays; so does anything on another file system. Returns how much was removed.
    pub fn remove_all(
        &mut self,
        parent: &[u8],
        name: &[u8],
        remove: &dyn Fn(&[u8], bool) -> bool,
    ) -> Result<u64> {
        let Some(stat) = self.stat(parent, name)? else { return Ok(0) };
        if !remove(&join_path(parent, name), is_dir(&stat)) {
            return Ok(0);
        }
        if !is_dir(&stat) {
            return self.remove_node(parent, name).map(|()| 1);
        }
        let device = stat.st_dev;
        let mut removed = 0;
        let mut stack = vec![self.enter(parent, name, &stat)?];
        while let Some(level) = stack.last_mut() {
            let here = join_path(&level.parent, &level.name);
            let Some(child) = level.left.pop() else {
                removed += u64::from(self.remove_empty(&level.parent, &level.name)?);
                stack.pop();
                continue;
            };
            let Some(stat) = self.stat(&here, &child)? else { continue };
            if !remove(&join_path(&here, &child), is_dir(&stat)) {
                continue;
            }
            if !is_dir(&stat) {
                self.remove_node(&here, &child)?;
                removed += 1;
            } else if stat.st_dev == device {
                stack.push(self.enter(&here, &child, &stat)?);
            }
        }
        Ok(removed)
    }

    fn enter(&mut self, parent: &[u8], name: &[u8], stat: &Stat) -> Result<Level> {
        if stat.st_mode & 0o700 != 0o700 {
            self.unlock(parent, name, stat.st_mode)?;
        }
        let left = self.list(&join_path(parent, name))?;
        Ok(Level { parent: parent.to_vec(), name: name.to_vec(), left })
    }

    /// Lets the owner into a directory; its recorded mode comes later, or it goes away. The superuser needs no leave.
    pub fn unlock(&mut self, parent: &[u8], name: &[u8], mode: u32) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let node = self.node(parent, name)?;
        let opened = Mode::from_raw_mode((mode & 0o7777) | 0o700);
        let done = super::apply::chmod_node(&node, opened);
        self.attempt("unlock", parent, name, done)
    }

    /// True if it was empty and is gone.
    fn remove_empty(&mut self, parent: &[u8], name: &[u8]) -> Result<bool> {
        self.forget(&join_path(parent, name));
        let dir = self.dir(parent)?;
        match fs::unlinkat(dir.as_fd(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
            Err(e) => Err(self.fail("remove", parent, name, e)),
        }
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
