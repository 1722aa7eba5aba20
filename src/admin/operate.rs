//! What operators ask about copies: why an answer is what it is, and that copies go.

use std::sync::Arc;

use http::HeaderName;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    contacts::{
        account::Account,
        cache::explanation::{Explanation, HeldCopy},
        copies::{Copies, Count, Purge, Subject},
        follow::LinesRequest,
        page::{PageKey, Window},
    },
    edge::{
        Inbound,
        caller::{Asker, Roster},
        route::{Resolved, Resolver, query::decimal},
    },
    error::{Error, Kind, Result},
};

/// Names the caller in whose place an explanation is asked for.
pub const EXPLAIN_AS: HeaderName = HeaderName::from_static("explain-as");

/// Both, over the same copies that callers are answered with.
#[derive(Clone)]
pub struct Operate {
    resolver: Arc<Resolver>,
    copies: Arc<Copies>,
    callers: Roster,
}

impl Operate {
    pub fn new(resolver: Arc<Resolver>, copies: Copies, callers: Roster) -> Self {
        Self {
            resolver,
            copies: Arc::new(copies),
            callers,
        }
    }

    /// Why a caller's request would be answered as it would be now. Nobody is asked for it, and nothing changes. It is
    /// asked as anyone, or as the caller that [`EXPLAIN_AS`] names; its rate is left alone.
    ///
    /// # Errors
    /// Those that the caller would get for the request itself; [`Kind::BadParameter`] if there is no such caller.
    pub fn explain(&self, mut inbound: Inbound) -> Result<Value> {
        let now = Instant::now();
        inbound.asker = match inbound.head.headers.remove(EXPLAIN_AS) {
            None => Asker::Anyone(self.copies.accounts()),
            Some(name) => {
                let callers = self.callers.load();
                let caller = name.to_str().ok().and_then(|name| callers.named(name));
                let unknown =
                    || Error::new(Kind::BadParameter, "no caller of this name is configured");
                Asker::Known(caller.ok_or_else(unknown)?.clone())
            }
        };
        let caller = inbound
            .asker
            .caller()
            .map(|caller| caller.name().to_string());
        let (mut document, explanation) = match self.resolver.resolve(inbound, now)? {
            Resolved::Page(request) => {
                let PageKey {
                    collection,
                    epoch,
                    window,
                } = &request.key;
                let document = json!({
                    "key": {
                        "account": &*collection.account.name,
                        "credential": collection.account.client.as_str(),
                        "stream": collection.stream.as_str(),
                        "epoch": epoch.to_string(),
                        "skip": window.skip,
                        "limit": window.limit,
                    },
                    "outdated_s": seconds_since(collection.scope.outdated_at(), now),
                });
                (document, self.copies.explain_page(&request, now))
            }
            Resolved::List(request) | Resolved::Lines(LinesRequest { list: request, .. }) => {
                let (collection, epoch) = (&request.key.collection, request.key.epoch);
                let document = json!({
                    "key": {
                        "account": &*collection.account.name,
                        "credential": collection.account.client.as_str(),
                        "stream": collection.stream.as_str(),
                        "epoch": epoch.to_string(),
                        "all": true,
                    },
                    "outdated_s": seconds_since(collection.scope.outdated_at(), now),
                });
                (document, self.copies.explain_list(&request, now))
            }
        };
        let Explanation {
            outcome,
            copy,
            rest,
            last_failure,
            in_flight,
        } = explanation;
        if let Some(caller) = caller {
            document["caller"] = json!(caller);
        }
        document["decision"] = json!(outcome.code());
        document["because"] = json!(outcome.text());
        document["copy"] = copy.as_ref().map_or(Value::Null, copy_document);
        document["rest"] = rest.map_or(
            Value::Null,
            |(kind, left)| json!({ "code": kind.code(), "left_s": left.as_secs_f64() }),
        );
        document["last_failure"] = json!(last_failure.map(Kind::code));
        document["in_flight"] = json!(in_flight);
        Ok(document)
    }

    /// Makes copies go, or counts those that would.
    ///
    /// # Errors
    /// [`Kind::BadParameter`] for a query that does not say what; the kinds of an unknown account or stream.
    pub fn purge(&self, query: Option<&str>) -> Result<Value> {
        let wanted = Wanted::read(query.unwrap_or_default())?;
        let (subject, name) = self.subject(&wanted)?;
        let mut document = json!({
            "subject": name,
            "purge": match wanted.purge {
                Purge::Hard => "hard",
                Purge::Soft => "soft",
            },
            "dry_run": wanted.dry_run,
        });
        if wanted.dry_run {
            let Count { pages, lists } = self.copies.count(&subject);
            document["pages"] = json!(pages);
            document["lists"] = json!(lists);
        } else {
            self.copies.purge(&subject, wanted.purge, Instant::now());
            tracing::info!(subject = name, purge = %document["purge"], "purged");
        }
        Ok(document)
    }

    fn subject(&self, wanted: &Wanted) -> Result<(Subject, &'static str)> {
        let Some(account) = &wanted.account else {
            return Ok((Subject::All, "all"));
        };
        let account = &self.account(account)?;
        let Some(stream) = &wanted.stream else {
            return Ok((Subject::Account(account.clone()), "account"));
        };
        let unknown = || Error::new(Kind::StreamNotFound, "the account has no such stream");
        let collection = self.resolver.collection(account, stream);
        let collection = collection.ok_or_else(unknown)?;
        let Some(skip) = wanted.skip else {
            return Ok((Subject::Collection(collection), "collection"));
        };
        let limit = wanted.limit.unwrap_or(self.resolver.limit_default());
        let key = PageKey {
            epoch: collection.epoch(),
            collection,
            window: Window { skip, limit },
        };
        Ok((Subject::Page(key), "page"))
    }

    /// An account by its id or its name.
    fn account(&self, named: &str) -> Result<Arc<Account>> {
        let accounts = self.copies.accounts();
        let by_name = || accounts.iter().find(|account| *account.name == *named);
        let found = accounts.get(named).or_else(by_name).cloned();
        found.ok_or_else(|| {
            let detail = "no account with this name or id is configured";
            Error::new(Kind::UnknownAccount, detail)
        })
    }
}

fn copy_document(copy: &HeldCopy) -> Value {
    json!({
        "freshness": copy.freshness.word(),
        "age_s": copy.age.as_secs(),
        "ttl_s": copy.ttl,
        "weight_bytes": copy.weight,
    })
}

fn seconds_since(then: Option<Instant>, now: Instant) -> Option<u64> {
    then.map(|then| now.saturating_duration_since(then).as_secs())
}

/// What a purge is asked to be.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    account: Option<String>,
    stream: Option<String>,
    skip: Option<u64>,
    limit: Option<u32>,
    purge: Purge,
    dry_run: bool,
}

impl Wanted {
    /// Reads `all=true`, or `account=A`, `stream=S`, `skip=N`, `limit=N`; and `soft=true`, `dry_run=true`.
    fn read(query: &str) -> Result<Self> {
        let bad = |detail: &'static str| Error::new(Kind::BadParameter, detail);
        let mut all = false;
        let mut wanted = Self {
            account: None,
            stream: None,
            skip: None,
            limit: None,
            purge: Purge::Hard,
            dry_run: false,
        };
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return Err(bad("a parameter is there twice"));
            }
            seen.push(name);
            let flag = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(bad("all, soft and dry_run are true or false")),
            };
            let text = || match value {
                "" => Err(bad("account is a name or an id, and stream is an id")),
                text => Ok(Some(text.to_owned())),
            };
            match name {
                "all" => all = flag()?,
                "soft" if flag()? => wanted.purge = Purge::Soft,
                "soft" => {}
                "dry_run" => wanted.dry_run = flag()?,
                "account" => wanted.account = text()?,
                "stream" => wanted.stream = text()?,
                "skip" => {
                    let skip = decimal(value.as_bytes()).filter(|skip| *skip <= Window::SKIP_MAX);
                    wanted.skip = Some(skip.ok_or_else(|| bad("skip is a plain number"))?);
                }
                "limit" => {
                    let limit =
                        decimal(value.as_bytes()).and_then(|limit| u32::try_from(limit).ok());
                    let limit = limit.filter(|limit| *limit > 0);
                    let bad = || bad("limit is a plain number from 1");
                    wanted.limit = Some(limit.ok_or_else(bad)?);
                }
                _ => {
                    return Err(bad(
                        "known here: all, account, stream, skip, limit, soft, dry_run",
                    ));
                }
            }
        }
        let parts = [
            wanted.account.is_some(),
            wanted.stream.is_some(),
            wanted.skip.is_some(),
            wanted.limit.is_some(),
        ];
        // Each part needs the ones before it, so that nothing wider is purged than was meant.
        if parts.windows(2).any(|pair| !pair[0] && pair[1]) {
            return Err(bad(
                "stream needs account, skip needs stream, and limit needs skip",
            ));
        }
        if all == parts[0] {
            return Err(bad("say either all=true or account=..."));
        }
        Ok(wanted)
    }
}

#[cfg(test)]
pub(crate) mod tests;
