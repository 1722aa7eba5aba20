//! The contacts of one (account, stream): what is paged, cached and merged.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use arc_swap::{ArcSwapOption, Guard};
use tokio::time::Instant;

use super::{
    account::Account,
    cache::entry::{Entry, block},
    gap::Gap,
    ids::{Epoch, StreamId},
    limits::Limits,
    list::List,
    runway::Runway,
    scope::Scope,
    seen::Seen,
    tally::Counts,
    walking::Current,
};

/// A collection, and what has been learned about it. Two are equal if account, credential and stream are.
pub struct Collection {
    pub account: Arc<Account>,
    pub stream: StreamId,
    /// Its copies.
    pub scope: Arc<Scope>,
    /// Of the identity, made once: keys are hashed for every request.
    hash: u64,
    /// How large a page upstream gives.
    pub limits: Limits,
    /// By how much upstream's total is known to be off.
    pub gap: Gap,
    /// The walk that reads its list right now.
    pub walking: Current,
    /// How long its copies last while upstream fails.
    pub runway: Runway,
    /// What its requests are counted by, once there was one.
    pub counts: ArcSwapOption<Counts>,
    /// How often it is asked for, and how upstream answers.
    pub seen: Seen,
    /// The merged list that is held right now.
    list: ArcSwapOption<Entry<List>>,
}

impl Collection {
    pub fn new(account: Arc<Account>, stream: StreamId) -> Self {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let hash = KEYS.hash_one((&account.id, &account.client, &stream));
        Self {
            scope: account.scope_of(&stream),
            account,
            stream,
            hash,
            limits: Limits::default(),
            gap: Gap::default(),
            walking: Current::default(),
            runway: Runway::new(Instant::now()),
            counts: ArcSwapOption::empty(),
            seen: Seen::default(),
            list: ArcSwapOption::empty(),
        }
    }

    /// Whether anybody may ask for it still. Who asked before its account left, or its stream was closed, may hold it
    /// longer.
    pub fn is_configured(&self) -> bool {
        self.account.still_admits(self.stream.as_str())
    }

    /// The epoch that new keys carry.
    pub fn epoch(&self) -> Epoch {
        self.scope.epoch()
    }

    /// The list that windows may be cut from, if one is held; fresh or not, verified or not.
    pub fn list(&self) -> Guard<Option<Arc<Entry<List>>>> {
        self.list.load()
    }

    /// Makes a list the one that windows are cut from.
    pub fn publish(&self, list: Arc<Entry<List>>) {
        self.list.store(Some(list));
    }

    /// Takes a list back, unless another has taken its place.
    pub fn withdraw(&self, list: &Arc<Entry<List>>) {
        self.list.compare_and_swap(list, None);
    }

    /// What it holds, in bytes; the account is everybody's.
    pub fn weight(&self) -> usize {
        let counts = 2 * size_of::<usize>();
        block(counts + size_of::<Self>()) + block(counts + self.stream.as_str().len())
    }

    /// Whether it is the same collection of the very same account. That of an account which was removed meanwhile is
    /// another's, also if both have the same ids.
    pub fn is(&self, other: &Self) -> bool {
        *self == *other && self.account.epoch == other.account.epoch
    }

    /// A number that tells collections apart within an account, nearly always.
    pub fn number(&self) -> u64 {
        self.hash
    }

    fn identity(&self) -> (&str, &str, &str) {
        (
            self.account.id.as_str(),
            self.account.client.as_str(),
            self.stream.as_str(),
        )
    }
}

impl PartialEq for Collection {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.hash == other.hash && self.identity() == other.identity())
    }
}

impl Eq for Collection {}

impl Hash for Collection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.account.stream_name(&self.stream);
        write!(f, "Collection({}/{stream})", self.account.name)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use proptest::prelude::*;

    use super::*;
    use crate::contacts::{
        cache::store::{Lists, Pages, Store},
        ids::{AccountId, ClientId},
        list::ListKey,
        page::{PageKey, Window},
        testing,
    };

    /// One of two values for each part of a key.
    type Parts = (bool, bool, bool, bool, bool, bool);

    fn keys(
        (account, client, stream, epoch, skip, limit): Parts,
        epochs: [Epoch; 2],
    ) -> (PageKey, ListKey) {
        let id = |choice: bool| if choice { "1" } else { "2" };
        let account = Account::new(
            "name",
            "label",
            AccountId::parse(id(account)).unwrap(),
            ClientId::parse(id(client)).unwrap(),
            &[],
        );
        let stream = StreamId::parse(id(stream)).unwrap();
        let collection = Arc::new(Collection::new(Arc::new(account), stream));
        let epoch = epochs[usize::from(epoch)];
        let window = Window {
            skip: u64::from(skip),
            limit: 1 + u32::from(limit),
        };
        let list = ListKey {
            collection: collection.clone(),
            epoch,
        };
        let page = PageKey {
            collection,
            epoch,
            window,
        };
        (page, list)
    }

    /// Collections of one hash and different identities, as an unlucky or a searching caller would meet them.
    #[test]
    fn a_store_compares_whole_keys_and_not_their_hashes() {
        let collection = |account: &str, client: &str, stream: &str| Collection {
            account: Arc::new(Account::new(
                "name",
                "label",
                AccountId::parse(account).unwrap(),
                ClientId::parse(client).unwrap(),
                &[],
            )),
            stream: StreamId::parse(stream).unwrap(),
            scope: Arc::default(),
            hash: 7,
            limits: Limits::default(),
            gap: Gap::default(),
            walking: Current::default(),
            runway: Runway::new(Instant::now()),
            counts: ArcSwapOption::empty(),
            seen: Seen::default(),
            list: ArcSwapOption::empty(),
        };
        let (epoch, window) = (Epoch::begin(), Window { skip: 0, limit: 10 });
        let page_key = |collection: &Arc<Collection>| PageKey {
            collection: collection.clone(),
            epoch,
            window,
        };
        let list_key = |collection: &Arc<Collection>| ListKey {
            collection: collection.clone(),
            epoch,
        };
        let pages = Pages::new(1 << 20, testing::LIFETIME, testing::metrics("pages"));
        let lists = Lists::new(1 << 20, testing::metrics("lists"));
        let now = Instant::now();
        let own = Arc::new(collection("1", "1", "1"));
        let page = testing::kept(testing::page(0, 10, 5, now), now);
        pages.put(page_key(&own), page);
        lists.put(list_key(&own), testing::kept(testing::list(5, now), now));
        let again = Arc::new(collection("1", "1", "1"));
        assert!(pages.get(&page_key(&again)).is_some());
        assert!(lists.get(&list_key(&again)).is_some());
        for other in [("2", "1", "1"), ("1", "2", "1"), ("1", "1", "2")] {
            let other = Arc::new(collection(other.0, other.1, other.2));
            let hasher = RandomState::new();
            let hashes = [&own, &other].map(|one| hasher.hash_one(page_key(one)));
            assert_eq!(hashes[0], hashes[1]);
            assert!(pages.get(&page_key(&other)).is_none(), "{other:?}");
            assert!(lists.get(&list_key(&other)).is_none(), "{other:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Two keys are one only if every part is the same, whichever objects they are made of.
        #[test]
        fn every_part_of_a_key_tells_copies_apart(one: Parts, other: Parts) {
            let epochs = [Epoch::begin(), Epoch::begin()];
            let ((page, list), (other_page, other_list)) = (keys(one, epochs), keys(other, epochs));
            prop_assert_eq!(page == other_page, one == other);
            let (ours, theirs) = ((one.0, one.1, one.2, one.3), (other.0, other.1, other.2, other.3));
            prop_assert_eq!(list == other_list, ours == theirs);
            let hasher = RandomState::new();
            if page == other_page {
                prop_assert_eq!(hasher.hash_one(&page), hasher.hash_one(&other_page));
            }
        }
    }
}
