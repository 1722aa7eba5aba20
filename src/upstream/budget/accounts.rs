//! The budgets of all accounts, as these come and go.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::{sync::Notify, time::Instant};

use super::{Budget, Config, Metrics, Standing, State, forecast, queue::Queue, window::Window};
use crate::{
    contacts::{account::Account, collection::Collection, ids::AccountId, request::Class},
    service::{Calls, Forecast},
};

/// The budgets of all accounts, by their ids: whoever is called otherwise, or is configured anew, has made the calls that
/// it has made.
#[derive(Debug)]
pub struct Budgets {
    all: RwLock<HashMap<AccountId, Arc<Budget>>>,
    metrics: Metrics,
}

impl Budgets {
    /// A budget for each account, of so many calls a minute. Of them, background walks take `refresh_share`, from 0 to 1.
    pub fn new<'a>(
        accounts: impl IntoIterator<Item = (&'a Arc<Account>, u32)>,
        config: &Config,
        refresh_share: f64,
        metrics: &Metrics,
        now: Instant,
    ) -> Self {
        let budgets = Self {
            all: RwLock::default(),
            metrics: metrics.clone(),
        };
        budgets.update(accounts, config, refresh_share, now);
        budgets
    }

    /// These are the accounts from now on. What one has spent in the last minute, and has learned, stays; also of one that
    /// goes, until nothing of it is left to remember.
    pub fn update<'a>(
        &self,
        accounts: impl IntoIterator<Item = (&'a Arc<Account>, u32)>,
        config: &Config,
        refresh_share: f64,
        now: Instant,
    ) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone: HashSet<_> = all.keys().cloned().collect();
        for (account, calls) in accounts {
            let most = calls / config.replicas.max(1);
            gone.remove(&account.id);
            let budget = all.entry(account.id.clone()).or_insert_with(|| {
                Arc::new(Budget {
                    state: Mutex::new(State {
                        window: Window::new(most, config.start_share, now),
                        queue: Queue::new(config.reserve, refresh_share),
                        granted: 0,
                        queue_max: config.queue_max,
                        account: account.clone(),
                        metrics: None,
                    }),
                    changed: Notify::new(),
                })
            });
            let mut state = budget.lock();
            state.window.allow(most, now);
            state.queue.share(config.reserve, refresh_share);
            state.queue_max = config.queue_max;
            state.account = account.clone();
            state.metrics = Some(self.metrics.of(&account.label));
            budget.give(&mut state, now);
            drop(state);
            budget.changed.notify_waiters();
        }
        for id in gone {
            let is_idle = all.get(&id).is_some_and(|budget| {
                let mut state = budget.lock();
                // Its series are not its own any more.
                state.metrics = None;
                // Nor does anybody hold it who might still go, and come by it again: nobody does while this is locked.
                let is_held = Arc::strong_count(budget) > 1 || state.account.is_under_way();
                !is_held && state.window.is_idle(now)
            });
            if is_idle {
                all.remove(&id);
            }
        }
    }

    /// How an account's budget stands; `None` if there is no such account.
    pub fn standing(&self, account: &Account, now: Instant) -> Option<Standing> {
        Some(self.of(&account.id)?.lock().standing(now))
    }

    /// Has the metrics tell how all accounts that are configured stand now.
    pub fn show(&self, now: Instant) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let standing = all.values().filter_map(|budget| {
            let mut state = budget.lock();
            let standing = state.standing(now);
            Some((state.metrics.as_ref()?.label.clone(), standing))
        });
        self.metrics.standing.show(standing);
    }

    /// That of an account, as long as there is anything to remember of it.
    pub(super) fn of(&self, account: &AccountId) -> Option<Arc<Budget>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(account).cloned()
    }
}

impl Forecast for Budgets {
    fn ends_at(
        &self,
        collection: &Collection,
        class: Class,
        calls: Calls,
        now: Instant,
    ) -> Instant {
        let Some(budget) = self.of(&collection.account.id) else {
            return now;
        };
        let (mut window, rivals, granted) = {
            let state = &*budget.lock();
            let allowance = state.window.allowance(now);
            let calls = (allowance.saturating_sub(state.window.taken()), allowance);
            let rivals = state.queue.rivals(collection.number(), class, calls, now);
            (state.window.clone(), rivals, state.granted)
        };
        // Whose they are is not known. To take them for the calls' own is too early for a moment at most; not to do so
        // would count a call twice that is about to be made.
        for _ in 0..granted.min(u32::try_from(calls.number).unwrap_or(u32::MAX)) {
            window.give_back();
        }
        forecast::ends_at(&window, calls, rivals, now)
    }
}
