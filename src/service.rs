//! The seams: what a stage may ask of the stage below it. Trait aliases, so that each bound is written once.

use tower::Service;

use crate::{
    contacts::{
        follow::{LinesRequest, Told},
        list::{List, ListKey},
        page::{Page, PageKey},
        request::{Fetch, Request},
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
