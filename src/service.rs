//! The seams: what a stage may ask of the stage below it. Trait aliases, so that each bound is written once.

use std::{fmt, time::Duration};

use tokio::time::Instant;
use tower::Service;

use crate::{
    contacts::{
        collection::Collection,
        follow::{LinesRequest, Told},
        list::{List, ListKey},
        page::{Page, PageKey},
        request::{Class, Fetch, Request},
    },
    error::Error,
    served::Answer,
};

/// The seam to upstream: fetches one page. What the page cache and the walk stand on.
pub trait FetchPage:
    Service<Fetch<PageKey>, Response = Page, Error = Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> FetchPage for S where
    S: Service<Fetch<PageKey>, Response = Page, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Calls that are still to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    pub number: usize,
    /// How many of them at once.
    pub width: usize,
    /// How long each takes, from its dispatch.
    pub each: Duration,
}

impl Calls {
    /// One that takes no time: when it is over is when its turn comes.
    pub const TURN: Self = Self {
        number: 1,
        width: 1,
        each: Duration::ZERO,
    };
}

/// What can tell how long calls will take that nobody has made yet: what a walk asks of the stages below it, beside the
/// calls themselves.
pub trait Forecast: fmt::Debug + Send + Sync + 'static {
    /// When the last of so many calls for a list would be answered, if all goes on as it does now.
    fn ends_at(&self, collection: &Collection, class: Class, calls: Calls, now: Instant)
    -> Instant;
}

/// The seam to the edge: answers for one page.
pub trait ServePage:
    Service<Request<PageKey>, Response = Answer<Page>, Error = Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> ServePage for S where
    S: Service<Request<PageKey>, Response = Answer<Page>, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The seam to the edge: answers for a whole list.
pub trait ServeList:
    Service<Request<ListKey>, Response = Answer<List>, Error = Error, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> ServeList for S where
    S: Service<Request<ListKey>, Response = Answer<List>, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The seam to the edge: answers for a whole list as lines.
pub trait ServeLines:
    Service<LinesRequest, Response = Told, Error = Error, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> ServeLines for S where
    S: Service<LinesRequest, Response = Told, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}
