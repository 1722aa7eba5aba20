//! The domain: accounts, collections, pages, lists. Between its stages travel only small values; of HTTP it knows nothing.

pub mod account;
pub mod cache;
pub mod collection;
pub mod collections;
pub mod compress;
pub mod copies;
pub mod directives;
pub mod drain;
pub mod etag;
pub mod follow;
pub mod gap;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod lines;
pub mod list;
pub mod page;
pub mod patience;
pub mod places;
pub mod request;
pub mod runway;
pub mod scope;
pub mod seen;
pub mod slice;
pub mod spent;
pub mod sweep;
pub mod tally;
pub mod trail;
pub mod verdict;
pub mod walk;
pub mod walking;

#[cfg(test)]
pub(crate) mod testing;
