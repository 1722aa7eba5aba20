//! The account's calls a minute: each attempt waits for a slot, in the order of urgency, or is refused at once.
//!
//! What may be sent is the `window`'s, who is next the `queue`'s, by `turns` and `shares`; all are pure. Here tickets wait. All streams,
//! walks and retries of an account go through one budget, and nothing else sends.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::{
    select,
    sync::{Notify, oneshot},
    time::{self, Instant},
};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};
use tracing::warn;

pub use self::{accounts::Budgets, metrics::Metrics};
use self::{metrics::AccountMetrics, queue::Queue, window::Window};
use crate::{
    config::Rules,
    contacts::{
        account::Account,
        page::PageKey,
        request::{CallerName, Fetch, Urgency},
        spent::Phase,
    },
    error::{Error, Kind, Result},
    service::FetchPage,
};

mod accounts;
mod forecast;
mod metrics;
mod queue;
mod shares;
mod turns;
mod window;

/// `[budget]`: how an account's calls a minute are spent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The share of the allowance that can be taken in the minute after a start, when calls before it are unknown;
    /// 0 to 1.
    pub start_share: f64,
    /// Slots that only interactive calls take; 0 to 1,000. Whole lists still get one slot in ten.
    pub reserve: u32,
    /// Gateways that share the accounts: divides each allowance; 1 to 100.
    pub replicas: u32,
    /// Calls that may wait for a slot, for each account; 1 to 100,000. None of a caller's may while it has as many as there
    /// are places left.
    pub queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start_share: 0.5,
            reserve: 6,
            replicas: 1,
            queue_max: 1000,
        }
    }
}

impl Config {
    /// The ranges that are documented with each field.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("start_share", self.start_share, 0.0..=1.0);
        rules.range("reserve", self.reserve, 0..=1000);
        rules.range("replicas", self.replicas, 1..=100);
        rules.range("queue_max", self.queue_max, 1..=100_000);
    }
}

/// How one account's budget stands, in calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// A minute's, as learned from refusals.
    pub allowance: u32,
    /// A minute's as configured, for this gateway's part.
    pub configured: u32,
    /// Those of the last minute, with those under way.
    pub taken: u32,
    /// Those that could be made at once.
    pub left: u32,
    /// Those that wait for their turn.
    pub waiting: usize,
    /// How long upstream wants none at all, if it does.
    pub paused: Option<Duration>,
}

/// The budget of one account.
#[derive(Debug)]
struct Budget {
    state: Mutex<State>,
    /// What waiting tickets had reckoned with is no longer so.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    window: Window,
    queue: Queue<oneshot::Sender<Slot>>,
    queue_max: usize,
    /// Slots that were given out and are not yet used.
    granted: u32,
    /// Whose it is, or was last.
    account: Arc<Account>,
    /// `None` once its account is not configured any more.
    metrics: Option<AccountMetrics>,
}

impl State {
    /// How the account stands.
    fn standing(&mut self, now: Instant) -> Standing {
        Standing {
            left: self.window.open(now),
            allowance: self.window.allowance(now),
            configured: self.window.most(),
            taken: self.window.taken(),
            waiting: self.queue.len(),
            paused: self.window.paused(now).map(|until| until - now),
        }
    }

    /// A slot was taken and nothing was sent.
    fn give_back(&mut self, caller: Option<&CallerName>) {
        self.window.give_back();
        self.queue.gave_back(caller);
    }

    /// When there may be something to give out, if that is known.
    fn changes_at(&self, now: Instant) -> Option<Instant> {
        let slot = self.window.changes_at(now);
        self.queue.changes_at(now).into_iter().chain(slot).min()
    }
}

/// A slot that is taken. Given back when dropped: at once if nothing was sent, else a minute later.
#[derive(Debug)]
struct Slot {
    budget: Option<Arc<Budget>>,
    /// By a call, whether or not that was sent in the end.
    is_used: bool,
    dispatched: Option<Instant>,
    /// To whom it is counted.
    caller: Option<CallerName>,
}

impl Budget {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot.
    async fn slot(self: &Arc<Self>, urgency: &Arc<Urgency>, stream: u64) -> Result<Slot> {
        let asked = Instant::now();
        let (grant, granted) = oneshot::channel();
        let number = {
            let mut state = self.lock();
            let most = state.queue_max;
            state.queue.asked(urgency, asked);
            if !state.queue.has_room(urgency, most) {
                return Err(self.exhausted(&mut state, asked + Duration::from_secs(1), asked));
            }
            state.queue.add(urgency.clone(), stream, grant)
        };
        let _ticket = Ticket {
            budget: self,
            number,
        };
        let mut granted = pin!(granted);
        loop {
            // Both before anybody is served below, so that no change is missed.
            let (mut changed, mut raised) = (pin!(self.changed.notified()), pin!(urgency.raised()));
            changed.as_mut().enable();
            raised.as_mut().enable();
            let next = {
                let now = Instant::now();
                let mut state = self.lock();
                self.give(&mut state, now);
                // Still waiting, and perhaps for longer than anybody will.
                if granted.is_empty() {
                    self.admit(&mut state, number, urgency, now)?;
                }
                state.changes_at(now)
            };
            let wake = async {
                match next {
                    Some(at) => time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                biased;
                slot = &mut granted => {
                    if let Some(metrics) = &self.lock().metrics {
                        metrics.waited.observe(asked.elapsed().as_secs_f64());
                    }
                    let lost = |_| Error::new(Kind::Internal, "the budget lost a ticket").unsent();
                    return slot.map_err(lost);
                }
                () = wake => {}
                () = changed => {}
                () = raised => self.lock().queue.asked(urgency, Instant::now()),
            }
        }
    }

    /// Refuses whoever would wait longer than it can: honestly, and before it has waited.
    fn admit(&self, state: &mut State, number: u64, urgency: &Urgency, now: Instant) -> Result<()> {
        let Some(patience) = urgency.patience() else {
            return Ok(());
        };
        let allowance = state.window.allowance(now);
        let open = allowance.saturating_sub(state.window.taken());
        let ahead = state
            .queue
            .ahead(number, urgency.class(), (open, allowance), now);
        let at = state.window.estimate(ahead, now);
        if at <= patience {
            return Ok(());
        }
        Err(self.exhausted(state, at, now))
    }

    /// What it tells to wait is when its turn would come, and so perhaps more than a minute: a slot is held a little longer
    /// than upstream's own window, and a minute's calls may be queued already. Whoever came back sooner would be refused once
    /// more.
    fn exhausted(&self, state: &mut State, at: Instant, now: Instant) -> Error {
        if let Some(metrics) = &state.metrics {
            metrics.exhausted.inc();
        }
        let detail = if state.window.paused(now).is_some() {
            "upstream wants no calls of this account for a while"
        } else {
            "the account's calls in this minute are used up"
        };
        Error::new(Kind::BudgetExhausted, detail)
            .retry_after(at.saturating_duration_since(now))
            .unsent()
    }

    /// Gives out whatever is open.
    fn give(self: &Arc<Self>, state: &mut State, now: Instant) {
        let allowance = state.window.allowance(now);
        loop {
            let open = state.window.open(now);
            let Some((grant, caller)) = state.queue.next(open, allowance, now) else {
                break;
            };
            state.window.take();
            let slot = Slot {
                budget: Some(self.clone()),
                is_used: false,
                dispatched: None,
                caller,
            };
            match grant.send(slot) {
                Ok(()) => state.granted += 1,
                Err(mut slot) => {
                    // Whoever asked has left. Given back here: the slot's own way would lock what is locked.
                    slot.budget = None;
                    state.give_back(slot.caller.as_ref());
                }
            }
        }
    }
}

/// A place in the queue, given up when its owner leaves.
struct Ticket<'a> {
    budget: &'a Budget,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.budget.lock().queue.remove(self.number);
    }
}

impl Slot {
    fn dispatch(&mut self, now: Instant) {
        self.dispatched = Some(now);
        self.is_used = true;
        if let Some(budget) = &self.budget {
            let mut state = budget.lock();
            state.granted = state.granted.saturating_sub(1);
        }
    }

    /// Upstream refused the attempt: the account pauses. Returns for how long.
    fn refused(&self, retry_after: Option<Duration>) -> Option<Duration> {
        let (budget, dispatched) = (self.budget.as_ref()?, self.dispatched?);
        let mut state = budget.lock();
        if let Some(metrics) = &state.metrics {
            metrics.refused.inc();
        }
        let pause = state
            .window
            .refused(dispatched, retry_after, Instant::now());
        Some(pause)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(budget) = self.budget.take() else {
            return;
        };
        let now = Instant::now();
        let mut state = budget.lock();
        state.granted = state.granted.saturating_sub(u32::from(!self.is_used));
        match self.dispatched {
            Some(_) => state.window.end(now),
            None => state.give_back(self.caller.as_ref()),
        }
        budget.give(&mut state, now);
        drop(state);
        budget.changed.notify_waiters();
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Spend<S> {
    budgets: Arc<Budgets>,
    inner: S,
}

/// Lets attempts through as their accounts can afford them.
pub fn layer<S>(budgets: Arc<Budgets>) -> impl Layer<S, Service = Spend<S>> {
    layer_fn(move |inner| Spend {
        budgets: budgets.clone(),
        inner,
    })
}

impl<S: FetchPage> Service<Fetch<PageKey>> for Spend<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // Waiting is done for each call: a queue here would know neither its class nor its deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        let account = &fetch.key.collection.account;
        let Some(budget) = self.budgets.of(&account.id) else {
            let error = Error::new(Kind::Internal, "the account has no budget")
                .because(&account.name)
                .unsent();
            return async { Err(error) }.boxed();
        };
        let inner = self.inner.clone();
        async move {
            let asked = Instant::now();
            let mut slot = budget
                .slot(&fetch.urgency, fetch.key.collection.number())
                .await?;
            slot.dispatch(Instant::now());
            fetch.spent.add(Phase::Queue, asked.elapsed());
            fetch.urgency.depart();
            let account = fetch.key.collection.account.clone();
            let outcome = inner.oneshot(fetch).await;
            match outcome {
                Err(error) if error.kind() == Kind::UpstreamRateLimited => {
                    let pause = slot.refused(error.told_to_wait());
                    warn!(
                        account = &*account.name,
                        ?pause,
                        "upstream refused a call; the account pauses"
                    );
                    Err(error.retry_after(pause.unwrap_or_default()))
                }
                // A disabled account must go on saying so, and not that its calls are used up; and the breaker may have
                // opened while this call waited.
                Err(error) if error.is_unsent() => {
                    slot.dispatched = None;
                    Err(error)
                }
                outcome => outcome,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
