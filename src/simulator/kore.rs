//! Plays Kore.ai: one request for contacts in, one answer out.
//!
//! The order in which a call is judged is documented nowhere; here it is path, method, account, the account's calls a minute,
//! token, stream, paging parameters. So every call that names an account costs one of its calls, whatever becomes of it. Faults fall on calls that would have been answered with a page, and on no others.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{DATE, RETRY_AFTER},
};
use tokio::time::{Instant, sleep};

use super::{
    answer::{Answer, RATE_LIMITED},
    auth::{self, Credential, Denial, Tally},
    calls::{Admission, Calls, Counts, Outcome},
    clock::Clock,
    contacts::Contacts,
    indent::indent,
    noise,
    page::{Page, Window},
    plan::Plan,
    requests::Requests,
    settings::{AccountSettings, Content, Settings, SettingsError},
    stream::{Live, LiveStream, Stream},
};

/// The simulated platform: its accounts, what was called, and the faults that hold.
pub(super) struct Kore {
    settings: Settings,
    accounts: HashMap<String, Account>,
    plan: Mutex<Plan>,
    requests: Mutex<Requests>,
    /// How many latencies were drawn.
    drawn: AtomicU64,
    clock: Clock,
}

pub(super) struct Account {
    pub(super) credential: Credential,
    streams: HashMap<String, Stream>,
    other_streams: Option<u64>,
    calls: Mutex<Calls>,
}

impl Kore {
    pub(super) fn new(settings: Settings) -> Result<Self, SettingsError> {
        let account = |account: &AccountSettings| {
            Ok((
                account.account_id.clone(),
                Account::new(account, &settings)?,
            ))
        };
        Ok(Self {
            accounts: settings
                .accounts
                .iter()
                .map(account)
                .collect::<Result<_, SettingsError>>()?,
            plan: Mutex::new(Plan::new(settings.seed)),
            requests: Mutex::new(Requests::new(settings.requests_max)),
            drawn: AtomicU64::new(0),
            clock: Clock::new(settings.clock_offset),
            settings,
        })
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.plan)
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, Requests> {
        lock(&self.requests)
    }

    pub(super) fn account(&self, account_id: &str) -> Option<&Account> {
        self.accounts.get(account_id)
    }

    /// The streams whose records may change, by account and stream id.
    pub(super) fn live_streams(&self) -> impl Iterator<Item = (&str, &str, LiveStream<'_>)> {
        self.accounts.iter().flat_map(|(account_id, account)| {
            account.streams.iter().filter_map(|(stream_id, stream)| {
                let live = stream.live()?;
                Some((account_id.as_str(), stream_id.as_str(), live))
            })
        })
    }

    /// The accounts, by id.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (&str, &Account)> {
        let accounts = self.accounts.iter();
        accounts.map(|(id, account)| (id.as_str(), account))
    }

    /// What each account's calls came to, by account id.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.accounts().map(|(id, account)| (id, account.counts()))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The answer to a request for anything but the control interface, after the latency and delays that it takes.
    /// `reused` says that its connection carried a request before.
    pub(super) async fn answer<B>(&self, request: &Request<B>, reused: bool) -> Answer {
        let mut answer = self.undated(request, reused).await;
        if !answer.headers.contains_key(DATE) {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(self.clock.now()));
            answer.headers.extend(date.ok().map(|date| (DATE, date)));
        }
        answer
    }

    async fn undated<B>(&self, request: &Request<B>, reused: bool) -> Answer {
        if self.settings.requests_max > 0 {
            self.requests().push(request);
        }
        let Some(stream_id) = stream_id(request.uri().path()) else {
            return Answer::error(StatusCode::NOT_FOUND);
        };
        if request.method() != Method::GET {
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED);
        }
        let account_id = one(request.headers(), "accountid").unwrap_or_default();
        let Some(account) = self.accounts.get(account_id) else {
            let token = auth::token(request.headers()).and_then(auth::is_token);
            return denied(token.err().unwrap_or(Denial::Credentials));
        };

        let mut visit = Visit::arrive(account);
        let (answer, outcome) = match visit.admission {
            Admission::Refused { wait } => (self.refusal(wait), Outcome::Refused),
            Admission::Admitted => self.page(request, reused, (account_id, account), stream_id),
        };
        let pause = self.latency().saturating_add(answer.delay);
        if !pause.is_zero() {
            sleep(pause).await;
        }
        visit.outcome = Some(outcome);
        answer
    }

    fn page<B>(
        &self,
        request: &Request<B>,
        reused: bool,
        (account_id, account): (&str, &Account),
        stream_id: &str,
    ) -> (Answer, Outcome) {
        let token = auth::token(request.headers());
        if let Err(denial) =
            token.and_then(|token| account.credential.check(token, self.clock.now()))
        {
            return (denied(denial), Outcome::Denied);
        }
        let made;
        let stream = match (account.streams.get(stream_id), account.other_streams) {
            (Some(stream), _) => stream,
            (None, Some(contacts)) => {
                made = self::contacts((account_id, stream_id), contacts, 0);
                &made
            }
            (None, None) => return (denied(Denial::Credentials), Outcome::Denied),
        };
        let Ok(window) =
            Window::of_query(request.uri().query().unwrap_or_default(), &self.settings)
        else {
            return (Answer::error(StatusCode::BAD_REQUEST), Outcome::Denied);
        };

        let faults = self.plan().faults(account_id, stream_id, reused);
        let body = match stream {
            Stream::Contacts(contacts, live) => {
                let (page, records) = {
                    let mut live = lock(live);
                    live.call();
                    let mut page = Page::new(window, live.len());
                    faults.iter().for_each(|fault| page.bend(fault));
                    let (first, count) = page.range();
                    (page, live.slice(first, count))
                };
                let json = page.write(contacts, &records, account_id, stream_id);
                Bytes::from(if self.settings.pretty {
                    indent(&json)
                } else {
                    json
                })
            }
            Stream::Fixed(bodies) => {
                let number = (window.skip / window.limit) as usize;
                bodies
                    .get(number)
                    .or(bodies.last())
                    .cloned()
                    .unwrap_or_default()
            }
        };
        let mut answer = Answer::json(StatusCode::OK, body);
        faults.iter().for_each(|fault| answer.bend(fault));
        let outcome = if faults.is_empty() {
            Outcome::Served
        } else {
            Outcome::Faulted
        };
        (answer, outcome)
    }

    fn refusal(&self, wait: Duration) -> Answer {
        let mut answer = Answer::json(StatusCode::TOO_MANY_REQUESTS, RATE_LIMITED);
        if self
            .settings
            .rate_limit
            .is_some_and(|limit| limit.retry_after)
        {
            // Rounded up: whoever waits as long as it says is admitted.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            answer
                .headers
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }

    fn latency(&self) -> Duration {
        if self.settings.jitter.is_zero() {
            return self.settings.latency;
        }
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let part = noise::fraction(noise::mix(self.settings.seed) ^ number);
        self.settings.latency + self.settings.jitter.mul_f64(part)
    }
}

impl Account {
    fn new(account: &AccountSettings, settings: &Settings) -> Result<Self, SettingsError> {
        let stream = |stream_id: &str, content: &Content| match content {
            Content::Contacts(count) => {
                contacts((&account.account_id, stream_id), *count, settings.seed)
            }
            Content::Fixed(bodies) => Stream::Fixed(bodies.clone()),
        };
        let streams = account.streams.iter().map(|each| {
            let content = stream(&each.stream_id, &each.content);
            (each.stream_id.clone(), content)
        });
        let credential = Credential::new(account).map_err(|error| SettingsError::Secret {
            account: account.account_id.clone(),
            error,
        })?;
        Ok(Self {
            credential,
            streams: streams.collect(),
            other_streams: account.other_streams,
            calls: Mutex::new(Calls::new(settings.rate_limit, Instant::now())),
        })
    }

    pub(super) fn stream(&self, stream_id: &str) -> Option<LiveStream<'_>> {
        self.streams.get(stream_id)?.live()
    }

    pub(super) fn counts(&self) -> Counts {
        let Tally { tokens, replays } = self.credential.tally();
        Counts {
            tokens,
            replays,
            ..lock(&self.calls).counts()
        }
    }
}

/// A call between its arrival and the head of its answer. A caller that goes away ends it too.
struct Visit<'a> {
    account: &'a Account,
    admission: Admission,
    outcome: Option<Outcome>,
}

impl<'a> Visit<'a> {
    fn arrive(account: &'a Account) -> Self {
        let admission = lock(&account.calls).arrive(Instant::now());
        Self {
            account,
            admission,
            outcome: None,
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        lock(&self.account.calls).leave(self.outcome);
    }
}

fn contacts((account_id, stream_id): (&str, &str), count: u64, seed: u64) -> Stream {
    let seed = seed ^ noise::of_texts(&["changes", account_id, stream_id]);
    Stream::Contacts(
        Box::new(Contacts::new(account_id, stream_id)),
        Mutex::new(Live::new(count, seed)),
    )
}

fn denied(denial: Denial) -> Answer {
    Answer::json(denial.status(), denial.body())
}

/// The stream in the path of a contacts request, not decoded.
fn stream_id(path: &str) -> Option<&str> {
    let stream_id = path
        .strip_prefix("/agentassist/api/v1/public/")?
        .strip_suffix("/contacts")?;
    (!stream_id.is_empty() && !stream_id.contains('/')).then_some(stream_id)
}

/// The one value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// No state here is left half changed by a panic, so a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
