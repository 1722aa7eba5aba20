//! What is asked for: a request's head becomes a typed request, or a refusal that says why.
//!
//! Everything that a caller can write is read here, once. Below this stage nothing is parsed, and nothing that arrived
//! travels on but a valid stream id and two numbers.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytesize::ByteSize;
use futures_util::{
    TryFutureExt,
    future::{Either, MapOk, Ready, ready},
};
use http::{HeaderMap, HeaderName, Method, request::Parts};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::Service;

use self::{
    accept::Form,
    query::{Query, Style},
};
use super::{Inbound, Reply, caller::Caller, prefer::Preferences};
use crate::{
    config::Rules,
    contacts::{
        account::{Account, Accounts},
        collection::Collection,
        collections::{self, Collections},
        follow::{LinesRequest, Told},
        ids::is_plain,
        list::{List, ListKey},
        page::{LIMIT_DEFAULT, Page, PageKey},
        request::{Class, Request, Terms},
        verdict::Handling,
    },
    error::{Error, Kind, Result},
    served::Answer,
    service::{ServeLines, ServeList, ServePage},
};

mod accept;
mod coding;
mod directives;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod path;
pub mod query;

/// `[edge]`: what a caller may send, and how long it may wait.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest `limit` a caller may ask for; 1 to 10,000 records.
    pub limit_max: u32,
    /// The longest request target, in bytes; beyond it 414. 256 B to 60 KiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub uri_max: ByteSize,
    /// How long a caller's request may wait for its answer; 100 ms to 10 min.
    #[serde(with = "crate::config::duration")]
    pub request_timeout: Duration,
    /// Requests that may wait for their answers, all callers together, and each no more than there are places left; 1 to
    /// 1,000,000.
    pub waiting_max: usize,
    /// Collections remembered between requests; 16 to 1,000,000.
    pub collections_max: u64,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("limit_max", self.limit_max, 1..=10_000);
        rules.range(
            "uri_max",
            self.uri_max,
            ByteSize::b(256)..=ByteSize::kib(60),
        );
        rules.range(
            "request_timeout",
            self.request_timeout,
            Duration::from_millis(100)..=Duration::from_secs(10 * 60),
        );
        rules.range("waiting_max", self.waiting_max, 1..=1_000_000);
        rules.range("collections_max", self.collections_max, 16..=1_000_000);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limit_max: 1000,
            uri_max: ByteSize::kib(8),
            request_timeout: Duration::from_secs(30),
            waiting_max: 5_000,
            collections_max: 10_000,
        }
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Route<P, L, N> {
    resolver: Arc<Resolver>,
    pages: P,
    lists: L,
    lines: N,
}

impl<P, L, N> Route<P, L, N> {
    /// Sends each request to `pages`, to `lists`, or to `lines`.
    pub fn new(resolver: Arc<Resolver>, pages: P, lists: L, lines: N) -> Self {
        Self {
            resolver,
            pages,
            lists,
            lines,
        }
    }
}

impl<P: ServePage, L: ServeList, N: ServeLines> Service<Inbound> for Route<P, L, N> {
    type Response = Reply;
    type Error = Error;
    type Future = Either<
        Ready<Result<Reply>>,
        Either<
            MapOk<P::Future, fn(Answer<Page>) -> Reply>,
            Either<
                MapOk<L::Future, fn(Answer<List>) -> Reply>,
                MapOk<N::Future, fn(Told) -> Reply>,
            >,
        >,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // Which of them will be asked is not known yet, and the caches below are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        match self.resolver.resolve(inbound, Instant::now()) {
            Ok(Resolved::Page(request)) => {
                request.key.collection.seen.request();
                let reply: fn(_) -> _ = Reply::Page;
                Either::Right(Either::Left(self.pages.call(request).map_ok(reply)))
            }
            Ok(Resolved::List(request)) => {
                request.key.collection.seen.request();
                let reply: fn(_) -> _ = Reply::List;
                let answer = self.lists.call(request).map_ok(reply);
                Either::Right(Either::Right(Either::Left(answer)))
            }
            Ok(Resolved::Lines(wanted)) => {
                wanted.list.key.collection.seen.request();
                let reply: fn(_) -> _ = Reply::Lines;
                let told = self.lines.call(wanted).map_ok(reply);
                Either::Right(Either::Right(Either::Right(told)))
            }
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

/// A request that was read.
#[derive(Debug)]
pub enum Resolved {
    Page(Request<PageKey>),
    List(Request<ListKey>),
    /// The same, as lines.
    Lines(LinesRequest),
}

/// Reads requests.
#[derive(Debug)]
pub struct Resolver {
    config: Config,
    wait_max: Duration,
    style: Style,
    collections: Collections,
}

impl Resolver {
    /// `wait_max` is the longest that a caller can wait for a list.
    pub fn new(config: Config, wait_max: Duration, style: Style, collections: Collections) -> Self {
        Self {
            config,
            wait_max,
            style,
            collections,
        }
    }

    /// Has the metrics tell how the collections of these accounts stand.
    pub fn show(&self, accounts: &Accounts, metrics: &collections::Metrics, now: Instant) {
        self.collections.show(accounts.iter(), metrics, now);
    }

    /// The collections that were asked for, as far as they are remembered.
    pub fn collections(&self) -> &Collections {
        &self.collections
    }

    /// The size of a page for which none was said.
    pub fn limit_default(&self) -> u32 {
        LIMIT_DEFAULT.min(self.config.limit_max)
    }

    /// The collection of an account's stream, if the account has such a stream.
    pub fn collection(&self, account: &Arc<Account>, stream: &str) -> Option<Arc<Collection>> {
        let admitted = Some(stream).filter(|stream| account.admits(stream));
        self.collections.get(account, admitted?)
    }

    /// What a request asks for.
    ///
    /// # Errors
    /// Whatever the caller did wrong.
    pub fn resolve(&self, inbound: Inbound, now: Instant) -> Result<Resolved> {
        let Inbound {
            head,
            has_body,
            header_lines: _,
            id,
            trace,
            asker,
        } = inbound;
        let caller = asker.known()?;
        self.admit(&head, has_body)?;
        let stream = path::stream(head.uri.path())?;
        let query = Query::parse(head.uri.query(), self.style, self.config.limit_max)?;
        let named = named_account(&head.headers)?;
        // Before anything is looked up: what its caller may not read is answered as if it were not there.
        let account = asker.account(named, &stream)?;
        if !account.admits(&stream) {
            return Err(Error::new(
                Kind::StreamNotFound,
                "the account has no such stream",
            ));
        }
        let form = accept::form(&head.headers, query).ok_or_else(|| {
            let detail = "contacts come as application/json, and all of them (all=true) as application/x-ndjson too";
            Error::new(Kind::NotAcceptable, detail)
        })?;
        let collection = self
            .collections
            .get(account, &stream)
            .ok_or_else(path::bad_stream)?;
        let epoch = collection.epoch();
        let directives = directives::read(&head.headers);
        let coding = coding::wanted(&head.headers);
        let urgency_max = caller.map_or(Class::Interactive, Caller::urgency_max);
        let terms = |class: Class| Terms {
            deadline: now + self.config.request_timeout,
            class: class.min(urgency_max),
            directives,
            coding,
            handling: Handling::Default,
            respond_async: false,
            in_pieces: false,
            caller: caller.map(|caller| caller.name().clone()),
            id,
            trace,
        };
        Ok(match query {
            Query::Page(window) => Resolved::Page(Request {
                key: PageKey {
                    collection,
                    epoch,
                    window,
                },
                terms: terms(Class::Interactive),
            }),
            Query::List { progress } => {
                let terms = terms(Class::Bulk);
                let preferences = Preferences::of(&head.headers);
                let wait = preferences.wait(self.wait_max);
                let list = Request {
                    key: ListKey { collection, epoch },
                    terms: Terms {
                        deadline: wait.map_or(terms.deadline, |wait| now + wait),
                        handling: preferences.handling,
                        respond_async: preferences.respond_async,
                        in_pieces: form == Form::Lines,
                        ..terms
                    },
                };
                match form {
                    Form::Json => Resolved::List(list),
                    Form::Lines => Resolved::Lines(LinesRequest { list, progress }),
                }
            }
        })
    }

    /// What is refused whatever it is about.
    fn admit(&self, head: &Parts, has_body: bool) -> Result<()> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Error::new(
                Kind::MethodNotAllowed,
                "contacts are read with GET or HEAD",
            ));
        }
        if head.uri.path() == "*" {
            let detail = "the target * belongs to OPTIONS, which is not answered";
            return Err(Error::new(Kind::MethodNotAllowed, detail));
        }
        if has_body {
            return Err(Error::new(
                Kind::BodyNotAllowed,
                "a request for contacts has no body",
            ));
        }
        let target = head
            .uri
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        if target as u64 > self.config.uri_max.as_u64() {
            return Err(Error::new(
                Kind::UriTooLong,
                "the path and query are too long",
            ));
        }
        Ok(())
    }
}

const ACCOUNT_ID: HeaderName = HeaderName::from_static("accountid");

/// The id of the account that a request names, if it names one.
fn named_account(headers: &HeaderMap) -> Result<Option<&str>> {
    let bad = |detail: &'static str| Error::new(Kind::BadAccount, detail);
    let mut named = headers.get_all(ACCOUNT_ID).iter();
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(bad("the accountId header is there twice")),
        (Some(id), None) => {
            let id = id.to_str().ok().filter(|id| is_plain(id));
            let bad = || bad("accountId must be one id: 1 to 128 of A-Z, a-z, 0-9, - and _");
            id.ok_or_else(bad).map(Some)
        }
    }
}

#[cfg(test)]
mod tests;
