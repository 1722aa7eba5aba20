//! Secrets that are in files are looked at again and again, by one task for all accounts.
//!
//! What a path leads to is known by its device, inode, length and times, as links are followed: a file that was written
//! anew is seen, and so is a link of a mounted volume that was turned to another folder. What cannot be read or used is
//! told once and changes nothing, so half a file keeps the secret before it.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{credential::Credential, keyring::Slot, sign::Signer};
use crate::{
    contacts::account::{Account, Algorithm},
    identity::Identity,
    upstream::secret::{Source, Sources},
};

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

impl Watched {
    /// Reads for the first time, or again what stands in other places now. Blocking.
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
        if watched.places.len() == 1 {
            watched.credential.vacate(Slot::Next);
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
            let has_another = self.read(at);
            let place = &mut self.places[at];
            if place.complaint.is_some() {
                // For want of descriptors, say, which tells nothing about the file.
                place.seen = None;
            }
            if has_another {
                info!(
                    account = &*self.account.name,
                    "the account has another secret, which is tried"
                );
            }
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Whether nothing can be signed.
    pub(super) fn is_disabled(&self) -> bool {
        self.credential.is_disabled()
    }

    /// What is wrong with its places.
    pub(super) fn complaints(&self) -> Vec<String> {
        let complaints = self
            .places
            .iter()
            .filter_map(|place| place.complaint.clone());
        complaints.collect()
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

#[cfg(test)]
mod tests;
