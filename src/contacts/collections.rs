//! The collections that requests are about, found by name: so that a request allocates none, and all that is learned
//! about one is learned on the same object.

use std::{
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::quality::RandomState;
use tokio::time::Instant;

use super::{
    account::Account,
    cache::store::Lists,
    collection::Collection,
    ids::{Epoch, StreamId},
};

pub use self::metrics::Metrics;

mod metrics;

/// A bounded memory of collections. One whose list is held, or is being read, is found again even when its name was
/// forgotten.
#[derive(Debug)]
pub struct Collections {
    // Names are callers' to choose: the hash is keyed, like the standard one, at a fraction of its cost.
    by_name: moka::sync::Cache<Name, Arc<Collection>, RandomState>,
    lists: Arc<Lists>,
    /// Whose names were forgotten while their lists are read: at most as many as there are walks.
    walking: Arc<Mutex<Vec<Arc<Collection>>>>,
}

impl Collections {
    /// Remembers at most so many names.
    pub fn new(names_max: u64, lists: Arc<Lists>) -> Self {
        let walking = Arc::<Mutex<Vec<Arc<Collection>>>>::default();
        let forgotten = walking.clone();
        let forget = move |_, collection: Arc<Collection>, _| {
            if collection.walking.is_under_way() {
                under_way(&forgotten).push(collection);
            }
        };
        let by_name = moka::sync::Cache::builder()
            .max_capacity(names_max)
            .eviction_listener(forget);
        Self {
            by_name: by_name.build_with_hasher(RandomState::default()),
            lists,
            walking,
        }
    }

    /// All that are remembered and may be asked for, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Collection>> {
        let remembered = self.by_name.iter().map(|(_, collection)| collection);
        remembered.filter(|collection| collection.is_configured())
    }

    /// Forgets those that nobody may ask for any more.
    pub fn sweep(&self) {
        for (name, collection) in &self.by_name {
            if !collection.is_configured() {
                self.by_name.invalidate(&*name);
            }
        }
        self.by_name.run_pending_tasks();
        drop(under_way(&self.walking));
    }

    /// How many names are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> u64 {
        self.by_name.run_pending_tasks();
        self.by_name.entry_count()
    }

    /// The collection of an account's stream; `None` if `stream` is no id.
    pub fn get(&self, account: &Arc<Account>, stream: &str) -> Option<Arc<Collection>> {
        let name = NameRef {
            epoch: account.epoch,
            stream,
        };
        if let Some(collection) = self.by_name.get(&name) {
            return Some(collection);
        }
        let stream = StreamId::parse(stream)?;
        let name = Name {
            epoch: account.epoch,
            stream: stream.clone(),
        };
        let own = || {
            let collection = Collection::new(account.clone(), stream);
            let held = self.lists.collection(&collection);
            let walking = || {
                let walking = under_way(&self.walking);
                walking.iter().find(|own| own.is(&collection)).cloned()
            };
            held.or_else(walking)
                .unwrap_or_else(|| Arc::new(collection))
        };
        // Two that come first at once must get the same one: what is learned and published on it is for both. So not
        // `or_insert`, which looks first and then inserts.
        Some(self.by_name.entry(name).or_insert_with(own).into_value())
    }
}

impl Collections {
    /// Has the metrics tell how the collections of these accounts stand. Looks at all that are remembered.
    pub fn show<'a>(
        &self,
        accounts: impl IntoIterator<Item = &'a Arc<Account>>,
        metrics: &Metrics,
        now: Instant,
    ) {
        metrics.show(accounts, self.iter(), now);
    }
}

/// Those whose lists are still being read.
fn under_way(walking: &Mutex<Vec<Arc<Collection>>>) -> MutexGuard<'_, Vec<Arc<Collection>>> {
    let mut walking = walking.lock().unwrap_or_else(PoisonError::into_inner);
    walking.retain(|collection| collection.walking.is_under_way());
    walking
}

/// A collection's name. An account's epoch is its own and never used again, so it tells accounts apart.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    epoch: Epoch,
    stream: StreamId,
}

/// The same, borrowed.
#[derive(PartialEq, Eq)]
struct NameRef<'a> {
    epoch: Epoch,
    stream: &'a str,
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (epoch, stream) = (self.epoch, self.stream.as_str());
        NameRef { epoch, stream }.hash(state);
    }
}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
        self.stream.hash(state);
    }
}

impl equivalent::Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        self.epoch == name.epoch && self.stream == name.stream.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contacts::{
            account::{self, Accounts, StreamConfig},
            cache::store::Store,
            list::ListKey,
            request::Urgency,
            testing,
        },
        metrics::Registry,
    };

    /// Catches an account that comes back after it was removed and finds what was read for the one before it.
    #[test]
    fn that_of_an_account_which_was_removed_is_not_found_again() {
        let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
        let collections = Collections::new(16, lists.clone());
        let held = collections.get(&testing::account("acme"), "st-1").unwrap();
        let now = Instant::now();
        let key = ListKey {
            epoch: held.epoch(),
            collection: held.clone(),
        };
        lists.put(key, testing::kept(testing::list(5, now), now));
        under_way(&collections.walking).push(held.clone());
        let again = collections.get(&testing::account("acme"), "st-1").unwrap();
        assert!(*again == *held && !Arc::ptr_eq(&again, &held));
        assert!(again.list().is_none());
    }

    /// Catches an account that has left, or a stream that was closed, and is shown, counted or held on to.
    #[test]
    fn what_nobody_may_ask_for_is_not_shown_and_is_forgotten() {
        let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
        let collections = Collections::new(16, lists);
        let config = |name: &str, streams: &[&str]| account::Config {
            name: name.to_owned(),
            account_id: name.to_owned(),
            client_id: "cs".to_owned(),
            streams: streams
                .iter()
                .map(|id| StreamConfig {
                    name: (*id).to_owned(),
                    stream_id: (*id).to_owned(),
                })
                .collect(),
            ..account::Config::default()
        };
        let before = Accounts::new(&[config("gone", &[]), config("stays", &[])]).unwrap();
        for (account, stream) in [("gone", "st-1"), ("stays", "st-1"), ("stays", "st-2")] {
            let collection = collections.get(before.get(account).unwrap(), stream);
            collection.unwrap().gap.remember(7);
        }
        let walks = before.get("gone").unwrap();
        let walks = collections.get(walks, "st-walks").unwrap();
        let urgency = Urgency::of(&testing::request(()).terms);
        let walk = walks.walking.begin(walks.epoch(), urgency, Instant::now());
        let registry = Registry::new().unwrap();
        let metrics = Metrics::new(&registry).unwrap();
        let gaps = |accounts: &Accounts| {
            collections.show(accounts.iter(), &metrics, Instant::now());
            let text = String::from_utf8(registry.render().unwrap()).unwrap();
            let gaps = text.lines().filter(|line| line.contains("_gap_"));
            let value = |line: &str| {
                line.rsplit_once(' ')
                    .and_then(|(_, value)| value.parse().ok())
            };
            gaps.filter_map(value).collect::<Vec<u64>>()
        };
        assert_eq!(gaps(&before), [7, 14]);
        let after = before
            .next(&[config("stays", &["st-2"]), config("gone2", &[])])
            .unwrap();
        before.give_way_to(&after);
        assert_eq!(gaps(&after), [0, 7]);
        assert_eq!(collections.iter().count(), 1);
        assert_eq!(collections.remembered(), 4);
        collections.sweep();
        assert_eq!(collections.remembered(), 1);
        drop(walk);
        collections.sweep();
        assert_eq!(Arc::strong_count(&walks), 1);
    }

    #[test]
    fn a_collection_whose_list_is_held_is_found_again() {
        let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
        let collections = Collections::new(16, lists.clone());
        let account = testing::account("acme");
        let first = collections.get(&account, "st-held").unwrap();
        let now = Instant::now();
        let list = testing::kept(testing::list(5, now), now);
        let key = ListKey {
            epoch: first.epoch(),
            collection: first.clone(),
        };
        lists.put(key, list);
        let other = collections.get(&account, "st-other").unwrap();
        for _ in 0..4 {
            for number in 0..100 {
                collections.get(&account, &format!("st-{number}"));
            }
            collections.by_name.run_pending_tasks();
        }
        collections.by_name.invalidate_all();
        assert!(Arc::ptr_eq(
            &collections.get(&account, "st-held").unwrap(),
            &first
        ));
        assert!(!Arc::ptr_eq(
            &collections.get(&account, "st-other").unwrap(),
            &other
        ));
        assert!(collections.get(&account, "no id").is_none());
    }

    /// Catches a walk that whoever comes later cannot follow.
    #[test]
    fn a_collection_whose_list_is_being_read_is_found_again() {
        let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
        let collections = Collections::new(16, lists);
        let account = testing::account("acme");
        let first = collections.get(&account, "st-read").unwrap();
        let urgency = Urgency::of(&testing::request(()).terms);
        let walk = first.walking.begin(first.epoch(), urgency, Instant::now());
        let forget = || {
            collections.by_name.invalidate_all();
            collections.by_name.run_pending_tasks();
            collections.get(&account, "st-read").unwrap()
        };
        assert!(Arc::ptr_eq(&forget(), &first));
        assert!(Arc::ptr_eq(&forget(), &first));
        drop(walk);
        assert!(!Arc::ptr_eq(&forget(), &first));
        assert!(under_way(&collections.walking).is_empty());
    }
}
