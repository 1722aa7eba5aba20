//! Secrets that are in files are looked at again and again, by one task for all accounts.
//!
//! What a path leads to is known by its device, inode, length and times, as links are followed: a file that was written
//! anew is seen, and so is a link of a mounted volume that was turned to another folder. What cannot be read or used is
//! told once and changes nothing, so half a file keeps the secret before it.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{credential::Credential, keyring::Slot, sign::Signer};
use crate::{
    contacts::account::{Account, Algorithm},
    upstream::secret::{Source, Sources},
};

/// A file that was changed so short ago may be changed once more without its times showing it.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);

/// The secrets of one account, and what was last seen of them.
#[derive(Debug)]
pub(super) struct Watched {
    account: Arc<Account>,
    credential: Arc<Credential>,
    algorithm: Algorithm,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    slot: Slot,
    source: Source,
    /// `None` if it is to be read in any case.
    seen: Option<Identity>,
    /// What was last told to be wrong with it.
    complaint: Option<String>,
}

/// What tells one content of a path from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: Option<SystemTime>,
    /// Device, inode, and the seconds and nanoseconds of the last change of either name or content.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Watched {
    /// Reads for the first time. Blocking.
    pub(super) fn new(
        account: Arc<Account>,
        credential: Arc<Credential>,
        algorithm: Algorithm,
        sources: Sources,
    ) -> Self {
        let place = |(slot, source)| Place {
            slot,
            source,
            seen: None,
            complaint: None,
        };
        let next = sources.next.map(|next| (Slot::Next, next));
        let places = std::iter::once((Slot::First, sources.first)).chain(next);
        let mut watched = Self {
            account,
            credential,
            algorithm,
            places: places.map(place).collect(),
        };
        for at in 0..watched.places.len() {
            watched.read(at);
        }
        watched
    }

    /// Reads what has changed since, or all of it. Blocking.
    pub(super) fn look(&mut self, all: bool, wall: SystemTime) {
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            let Source::File(path) = &place.source else {
                continue;
            };
            let identity = Identity::of(path);
            if !all && identity.is_some() && place.seen == identity {
                continue;
            }
            place.seen = identity.filter(|identity| identity.is_settled(wall));
            if self.read(at) {
                info!(
                    account = &*self.account.name,
                    "the account has another secret, which is tried"
                );
            }
        }
    }

    /// Reads one place. Returns whether it had another secret.
    fn read(&mut self, at: usize) -> bool {
        let place = &mut self.places[at];
        let problem = match Signer::read(&place.source, self.algorithm) {
            Ok(signer) => {
                place.complaint = None;
                return self.credential.put(place.slot, signer, Instant::now());
            }
            Err(problem) => problem.to_string(),
        };
        if place.complaint.as_ref() != Some(&problem) {
            if self.credential.is_disabled() && place.slot == Slot::First {
                error!(account = &*self.account.name, cause = %problem, "the account is disabled: its secret cannot be used");
            } else {
                warn!(account = &*self.account.name, cause = %problem, "a secret cannot be used; the account keeps the one it has");
            }
            place.complaint = Some(problem);
        }
        false
    }
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
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

    fn is_settled(&self, wall: SystemTime) -> bool {
        let age = self
            .modified
            .and_then(|time| wall.duration_since(time).ok());
        age.is_some_and(|age| age >= SETTLED)
    }
}

#[cfg(test)]
mod tests;
