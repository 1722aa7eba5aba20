use super::*;
use crate::{
    contacts::account::Accounts,
    edge::caller,
    upstream::{
        budget::{self, Budgets},
        token::{self, Credentials},
    },
};

/// One that has no file.
pub(crate) fn reloader() -> Arc<Reloader> {
    let registry = Registry::new().unwrap();
    let config = Config::default();
    let budgets = budget::Metrics::new(&registry).unwrap();
    let budgets = Budgets::new(
        [],
        &config.budget,
        0.25,
        &budgets,
        tokio::time::Instant::now(),
    );
    let credentials = token::Metrics::new(&registry).unwrap();
    let accounts = Accounts::default();
    let live = Live {
        callers: Arc::default(),
        series: Series::new(&registry, &accounts).unwrap(),
        accounts: Arc::new(arc_swap::ArcSwap::from_pointee(accounts)),
        tokens: Arc::new(arc_swap::ArcSwap::from_pointee(
            config.admin.tokens().unwrap(),
        )),
        credentials: Arc::new(Credentials::new(
            [],
            &config.token,
            None,
            || 0.0,
            &credentials,
        )),
        budgets: Arc::new(budgets),
        certificates: Vec::new(),
        counted: caller::Metrics::new(&registry).unwrap(),
        registry: registry.clone(),
    };
    let metrics = Metrics::new(&registry).unwrap();
    Reloader::new(live, config, metrics)
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_read() {
    let reloader = reloader();
    assert!(reloader.status().is_none());
    let status = reloader.reload(Trigger::Admin).await;
    assert!(matches!(status.outcome, Err(Refused::NoFile)));
    let last = reloader.status().unwrap();
    assert_eq!((last.word(), last.trigger.word()), ("refused", "admin"));
}

/// Catches series that are taken away only by the reload with which their account or caller left.
#[tokio::test]
async fn series_of_whoever_is_not_there_go_with_any_reload() {
    let reloader = reloader();
    reloader.read_from(|| {
        let none = Secrets::from(Vec::<token_sources::None>::new());
        Ok((Config::default(), none))
    });
    let registry = &reloader.live.registry;
    for label in ["account", "caller"] {
        let late = registry.counter(&format!("{label}_total"), "x", &[label]);
        let late = late.unwrap();
        for value in ["gone", "other"] {
            late.with_label_values(&[value]).inc();
        }
    }
    assert!(reloader.reload(Trigger::Admin).await.outcome.is_ok());
    let text = String::from_utf8(registry.render().unwrap()).unwrap();
    assert!(!text.contains("=\"gone\""), "{text}");
    assert!(text.contains("account_total{account=\"other\"} 1"));
    assert!(text.contains("caller_total{caller=\"other\"} 1"));
}

/// Catches two that run at once, one that a panic ends for good, and one that is given up with whoever asked for it.
#[tokio::test]
async fn one_at_a_time_and_each_to_its_end() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static READ: AtomicUsize = AtomicUsize::new(0);
    let reloader = reloader();
    #[expect(
        clippy::disallowed_methods,
        reason = "a disk that is slow holds up its own thread"
    )]
    fn wait() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    reloader.read_from(|| {
        assert_eq!(RUNNING.fetch_add(1, Ordering::SeqCst), 0);
        wait();
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        let read = READ.fetch_add(1, Ordering::SeqCst);
        assert!(read != 2, "a panic that was asked for");
        let mut config = Config::default();
        config.budget.reserve = u32::try_from(read).unwrap();
        Ok((config, Secrets::from(Vec::<token_sources::None>::new())))
    });
    let all = (0..WAITING_MAX).map(|_| {
        let reloader = reloader.clone();
        tokio::spawn(async move { reloader.reload(Trigger::Signal).await })
    });
    let all: Vec<_> = all.collect();
    tokio::task::yield_now().await;
    // Nobody waits for the first, which goes on; and one more has no place.
    all[0].abort();
    let more = reloader.reload(Trigger::Signal).await;
    assert!(matches!(more.outcome, Err(Refused::Busy)));
    let mut lost = 0;
    for waited in all.into_iter().skip(1) {
        let status = waited.await.unwrap();
        lost += usize::from(matches!(status.outcome, Err(Refused::Lost)));
    }
    assert_eq!((READ.load(Ordering::SeqCst), lost), (WAITING_MAX, 1));
    assert!(reloader.reload(Trigger::Signal).await.outcome.is_ok());
}

mod token_sources {
    /// No secret, of an account that is not there.
    pub(super) type None = Option<crate::upstream::secret::Secret>;
}
