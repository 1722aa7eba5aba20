//! How long callers can live on copies, foretold, over all that spares upstream as it is built: on paused time.

use tokio::time;
use tower::{Layer, ServiceExt};

use super::{
    stack::{MINUTE, SECOND, Stack, whole},
    *,
};
use crate::{
    contacts::{
        page::{PageKey, Window},
        testing,
    },
    error::{Again, Error, Kind},
    service::ServePage,
};

/// What a scrape shows of an account, in seconds.
fn shown(registry: &Registry, account: &str) -> f64 {
    let text = String::from_utf8(registry.render().unwrap()).unwrap();
    let series = format!("contacts_gateway_stale_runway_seconds{{account=\"{account}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.expect("it is always there").parse().unwrap()
}

/// Whether a caller is answered.
async fn ask(pages: &impl ServePage, key: &PageKey) -> bool {
    let request = testing::request(key.clone());
    pages.clone().oneshot(request).await.is_ok()
}

/// Catches a runway that ends before the callers' copies do or after, one that counts what nobody asks for, and one that
/// is there while upstream is well.
#[tokio::test(start_paused = true)]
async fn the_runway_counts_down_to_the_first_caller_who_is_not_answered() {
    let stack = Stack::new(&[("acme", 60), ("zeta", 60)], &whole());
    let registry = Registry::new().unwrap();
    let tallied = tally::Families::new(&registry).unwrap();
    let lists = Arc::new(store::Lists::new(1 << 20, testing::metrics("lists")));
    let collections = Arc::new(Collections::new(100, lists));
    let standing = collections::Metrics::new(&registry).unwrap();
    let all: Vec<_> = stack.accounts.iter().cloned().collect();
    let known = collections.clone();
    registry.before_scrape(move |now| known.show(&all, &standing, now));

    let lifetime = Lifetime {
        fresh_for: MINUTE,
        stale_for: 10 * MINUTE,
    };
    let pages = tally::layer(Arc::new(tallied)).layer(stack.pages(lifetime, stack.below()));
    let key = |account: &str, stream: &str| {
        let account = stack.accounts.get(account).unwrap();
        let collection = collections.get(account, stream).unwrap();
        PageKey {
            epoch: collection.epoch(),
            collection,
            window: Window { skip: 0, limit: 10 },
        }
    };
    // Asked for once, and soonest of no use: nobody misses it.
    assert!(ask(&pages, &key("acme", "st-once")).await);
    let wanted = [("acme", "st-1"), ("acme", "st-2"), ("zeta", "st-1")].map(|(a, s)| key(a, s));
    let ask_all = async || {
        let mut answered = 0;
        for key in &wanted {
            answered += usize::from(ask(&pages, key).await);
        }
        answered
    };
    for _ in 0..12 {
        assert_eq!(ask_all().await, 3);
        assert_eq!(shown(&registry, "acme"), f64::INFINITY);
        time::sleep(10 * SECOND).await;
    }

    // One stream of one account fails.
    let failing = |stream: &'static str| {
        move |key: &PageKey| {
            let fails =
                key.collection.stream.as_str() == stream && &*key.collection.account.name == "acme";
            fails.then(|| Error::new(Kind::Upstream5xx, "down").again_by(Again::Later))
        }
    };
    stack.upstream.fail(failing("st-1"));
    let end = loop {
        time::sleep(SECOND).await;
        assert_eq!(ask_all().await, 3);
        // The flight that nobody waits for has ended by then.
        time::sleep(SECOND).await;
        let left = shown(&registry, "acme");
        if left.is_finite() {
            break Instant::now() + Duration::from_secs_f64(left);
        }
    };
    let left = end - Instant::now();
    assert!((9 * MINUTE..10 * MINUTE).contains(&left), "{left:?}");
    assert_eq!(shown(&registry, "zeta"), f64::INFINITY);

    // Until then all are answered, and the foretold end stays where it is.
    while end - Instant::now() > 10 * SECOND {
        time::sleep(10 * SECOND).await;
        assert_eq!(ask_all().await, 3);
        let left = (end - Instant::now()).as_secs_f64();
        let told = shown(&registry, "acme");
        assert!((told - left).abs() < 0.01, "{told} {left}");
    }
    time::sleep_until(end - SECOND).await;
    assert_eq!(ask_all().await, 3, "the last of its seconds");
    time::sleep_until(end).await;
    assert_eq!(shown(&registry, "acme"), 0.0);
    assert_eq!(ask_all().await, 2);
    assert_eq!(shown(&registry, "acme"), 0.0);

    stack.upstream.heal();
    time::sleep(10 * SECOND).await;
    assert_eq!(ask_all().await, 3);
    // Stale ones are fetched anew while nobody waits.
    time::sleep(SECOND).await;
    assert_eq!(shown(&registry, "acme"), f64::INFINITY);
}
