//! What tells one content of a path from another without reading it, for files that are looked at again and again.
//!
//! Links are followed: a file that was written anew is seen, and so is a link of a mounted volume that was turned to
//! another folder.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

/// A file that was changed so short ago may be changed once more without its times showing it.
pub const SETTLED: Duration = Duration::from_secs(2);

/// Device, inode, length and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    len: u64,
    modified: Option<SystemTime>,
    /// Device, inode, and the seconds and nanoseconds of the last change of either name or content.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Identity {
    /// What a path leads to now; `None` if that cannot be told. Blocking.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            len: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt;
                let (changed, nanos) = (metadata.ctime(), metadata.ctime_nsec());
                (metadata.dev(), metadata.ino(), changed, nanos)
            },
        })
    }

    /// Whether any later change will show.
    pub fn is_settled(&self, wall: SystemTime) -> bool {
        let age = self
            .modified
            .and_then(|time| wall.duration_since(time).ok());
        age.is_some_and(|age| age >= SETTLED)
    }
}
