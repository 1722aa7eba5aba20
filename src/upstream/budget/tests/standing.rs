//! How accounts stand at the moment of a scrape.

use super::*;
use crate::contacts::ids::{AccountId, ClientId};

fn account(id: &str, label: &str) -> Arc<Account> {
    let client = ClientId::parse("cs-1").unwrap();
    let account_id = AccountId::parse(id).unwrap();
    Arc::new(Account::new(id, label, account_id, client, &[]))
}

/// Catches a gauge that only an event moves, one that is set where accounts share a name, and one that tells of calls left
/// while upstream wants none.
#[tokio::test(start_paused = true)]
async fn a_scrape_tells_how_the_accounts_stand_then() {
    let registry = Registry::new().unwrap();
    let metrics = Metrics::new(&registry).unwrap();
    let [acme, one, two] = [("acme", "acme"), ("one", "other"), ("two", "other")]
        .map(|(id, label)| account(id, label));
    let calls = [(&acme, 60), (&one, 60), (&two, 20)];
    let config = Config {
        start_share: 1.0,
        ..Config::default()
    };
    let budgets = Arc::new(Budgets::new(calls, &config, 0.25, &metrics, Instant::now()));
    let standing = budgets.clone();
    registry.before_scrape(move |now| standing.show(now));
    let refuses = Arc::new(AtomicBool::new(false));
    let refusing = refuses.clone();
    let stage = layer(budgets).layer(service_fn(move |_: Fetch<PageKey>| {
        let refuses = refusing.load(Ordering::Relaxed);
        async move {
            time::sleep(SECOND).await;
            match refuses {
                false => Ok(testing::page(0, 1, 1, Instant::now())),
                true => Err(Error::new(Kind::UpstreamRateLimited, "").retry_after(30 * SECOND)),
            }
        }
        .boxed()
    }));
    let shown = |account: &str| {
        let text = String::from_utf8(registry.render().unwrap()).unwrap();
        ["allowance", "taken", "left", "waiting"].map(|what| {
            let series = format!("contacts_gateway_budget_{what}_calls{{account=\"{account}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.unwrap().parse::<u32>().unwrap()
        })
    };
    assert_eq!(shown("acme"), [60, 0, 60, 0]);
    assert_eq!(shown("other"), [80, 0, 80, 0]);

    let ask = |account: &Arc<Account>| {
        let fetch = fetch(account, "st-1", Class::Interactive, 5 * MINUTE);
        tokio::spawn(stage.clone().oneshot(fetch))
    };
    let begun: Vec<_> = (0..25).map(|_| ask(&two)).collect();
    let first = ask(&acme);
    time::sleep(SECOND / 2).await;
    assert_eq!(shown("acme"), [60, 1, 59, 0]);
    assert_eq!(shown("other"), [80, 20, 60, 5]);
    first.await.unwrap().unwrap();
    for call in begun {
        call.await.unwrap().unwrap();
    }
    // Two minutes in which nobody asks for anything.
    time::sleep(2 * MINUTE).await;
    assert_eq!(shown("acme"), [60, 0, 60, 0]);
    assert_eq!(shown("other"), [80, 0, 80, 0]);

    refuses.store(true, Ordering::Relaxed);
    assert!(ask(&acme).await.unwrap().is_err());
    assert_eq!(shown("acme"), [45, 1, 0, 0], "it pauses");
    time::sleep(31 * SECOND).await;
    assert_eq!(shown("acme"), [45, 1, 44, 0]);
    assert_eq!(shown("other"), [80, 0, 80, 0]);
}
