//! Secrets change while callers go on asking.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use contacts_gateway::{
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
    upstream::secret::{Secret, Source, Sources},
};
use futures_util::future::join_all;

use crate::support::{Gateway, configuration, path, until};

const UNSAID: &str = "tokens_refused_total{account=\"account-0\",reason=\"unsaid\"}";

/// An account with this secret and a thousand contacts, and a gateway that has its secret in a file.
async fn world(folder: &Path, secret: &str) -> (Simulator, Gateway) {
    let account =
        AccountSettings::new(DEMO_ACCOUNT_ID, "cs-app", secret).stream(DEMO_STREAM_ID, 1_000);
    let kore = Simulator::start(Settings {
        accounts: vec![account.clone()],
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let mut config = configuration(&kore.base_url(), &[account]);
    config.token.secret_poll = Duration::from_secs(1);
    // Every request is another page, or has to be fetched again.
    config.cache.fresh_for = Duration::from_millis(1);
    config.cache.stale_for = Duration::ZERO;
    fs::write(folder.join("secret"), secret).unwrap();
    let sources = Sources {
        first: Source::File(folder.join("secret")),
        next: None,
    };
    let gateway = Gateway::start(&config, vec![sources]).await;
    (kore, gateway)
}

/// K4. Catches a request that a rotation costs: a token of the old secret that is used too long, or of the new one too early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_rotations_under_load_fail_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (kore, gateway) = world(folder.path(), "secret-0").await;
    let done = AtomicBool::new(false);
    let asked = [const { AtomicU32::new(0) }; 8];
    let load = asked.iter().zip(0..).map(async |(asked, caller)| {
        while !done.load(Ordering::Relaxed) {
            let skip = (asked.load(Ordering::Relaxed) * 8 + caller) % 900;
            let target = path(DEMO_STREAM_ID, &format!("?skip={skip}&limit=1"));
            gateway.get(&target).await.ok();
            asked.fetch_add(1, Ordering::Relaxed);
            // Other tests run on the same cores.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    // Every request that is on its way comes to its end, and another one.
    let passed = async || {
        let count = || asked.each_ref().map(|asked| asked.load(Ordering::Relaxed));
        let before = count();
        until("all callers have asked again", async || {
            count()
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + 2)
        })
        .await;
    };
    let rotations = async {
        passed().await;
        for round in 1..=60 {
            let (old, new) = (format!("secret-{}", round - 1), format!("secret-{round}"));
            kore.add_secret(DEMO_ACCOUNT_ID, &new).unwrap();
            fs::write(folder.path().join("secret"), &new).unwrap();
            gateway.credentials.reread();
            // Up to here both are good. Every other time the old one ends before the gateway has seen the new one work.
            let overlap = round % 2 == 0;
            if overlap {
                passed().await;
            }
            let refused = gateway.metric(UNSAID).await;
            kore.revoke_secret(DEMO_ACCOUNT_ID, &old).unwrap();
            passed().await;
            if overlap {
                assert_eq!(gateway.metric(UNSAID).await, refused, "{round}");
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all(load), rotations);
}

/// K4. Catches a new secret that is believed before it has worked, and one that is not seen in its file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_found_and_tried_while_the_old_secret_serves() {
    let folder = tempfile::tempdir().unwrap();
    let (kore, gateway) = world(folder.path(), "old").await;
    let ask = async |skip: u32| {
        gateway
            .get(&path(DEMO_STREAM_ID, &format!("?skip={skip}&limit=1")))
            .await
            .ok();
    };
    ask(0).await;
    // Too early: upstream does not know it yet. Nobody notices, but it is tried.
    fs::write(folder.path().join("secret"), "new").unwrap();
    until("the new secret is tried", async || {
        ask(1).await;
        gateway.metric(UNSAID).await > 0.0
    })
    .await;
    kore.add_secret(DEMO_ACCOUNT_ID, "new").unwrap();
    until("the new secret is used", async || {
        ask(2).await;
        kore.calls_by_secret(DEMO_ACCOUNT_ID)[1] > 0
    })
    .await;
    // Half a file, then none at all.
    let refused = gateway.metric(UNSAID).await;
    fs::write(folder.path().join("secret"), "").unwrap();
    gateway.credentials.reread();
    ask(3).await;
    fs::remove_file(folder.path().join("secret")).unwrap();
    gateway.credentials.reread();
    ask(4).await;
    kore.revoke_secret(DEMO_ACCOUNT_ID, "old").unwrap();
    ask(5).await;
    assert_eq!(gateway.metric(UNSAID).await, refused);
}

/// K4. Catches a second secret that is not tried, or that costs an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_secret_takes_over_without_a_failed_answer() {
    let account =
        AccountSettings::new(DEMO_ACCOUNT_ID, "cs-app", "first").stream(DEMO_STREAM_ID, 1_000);
    let kore = Simulator::start(Settings {
        accounts: vec![account.clone()],
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let sources = Sources {
        next: Some(Source::Read(Ok(Secret::new("second")))),
        ..Some(Secret::new("first")).into()
    };
    let config = configuration(&kore.base_url(), &[account]);
    let gateway = Gateway::start(&config, vec![sources]).await;
    let ask = async |skip: u32| {
        gateway
            .get(&path(DEMO_STREAM_ID, &format!("?skip={skip}&limit=1")))
            .await
            .ok();
    };
    ask(0).await;
    kore.add_secret(DEMO_ACCOUNT_ID, "second").unwrap();
    kore.revoke_secret(DEMO_ACCOUNT_ID, "first").unwrap();
    join_all((1..200).map(ask)).await;
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).tokens, 2);
}
