use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        collection::Collection,
        page::{Page, Window},
        testing as pages,
    },
    error::Kind,
    upstream::token::{
        service::{TokenService, Transport},
        testing::{Bench, wall},
        words::Reason,
    },
};

fn fetch(bench: &Bench, name: &str) -> Fetch<PageKey> {
    let collection = Arc::new(Collection::new(bench.account.clone(), stream(name)));
    pages::fetch(PageKey {
        epoch: collection.epoch(),
        collection,
        window: Window { skip: 0, limit: 10 },
    })
}

fn stream(name: &str) -> StreamId {
    StreamId::parse(name).unwrap()
}

async fn refuse(credential: &Arc<Credential>, name: &str) {
    let token = credential.token(&stream(name), wall).await.unwrap();
    credential.refused(&stream(name), &token, Reason::Unsaid, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn what_rests_or_is_disabled_gets_no_further() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let inner = service_fn(move |_: Fetch<PageKey>| {
        seen.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok::<Page, _>(pages::page(0, 10, 5, Instant::now())))
    });
    let bench = Bench::new();
    let credential = bench.credentials.of(&bench.account).unwrap();
    let stage = layer(bench.credentials.clone(), wall).layer(inner.clone());
    assert!(stage.clone().oneshot(fetch(&bench, "st-1")).await.is_ok());
    refuse(&credential, "st-1").await;
    refuse(&credential, "st-1").await;
    let error = stage
        .clone()
        .oneshot(fetch(&bench, "st-1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamAuthRejected);
    assert!(error.is_unsent() && error.again().is_none());
    assert_eq!(error.told_to_wait(), Some(Duration::from_secs(1)));
    assert!(stage.clone().oneshot(fetch(&bench, "st-2")).await.is_ok());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    time::advance(Duration::from_secs(1)).await;
    assert!(stage.oneshot(fetch(&bench, "st-1")).await.is_ok());

    let without = Bench::with(None.into(), |_| ());
    let stage = layer(without.credentials.clone(), wall).layer(inner);
    let error = stage.oneshot(fetch(&without, "st-1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialsUnavailable);
    assert!(error.is_unsent());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn one_probes_and_leaves_its_place_however_it_ends() {
    let bench = Bench::new();
    let credential = bench.credentials.of(&bench.account).unwrap();
    let arrived = Arc::new(Mutex::new(0));
    let (seen, never) = (arrived.clone(), Arc::new(Notify::new()));
    let inner = service_fn(move |_: Fetch<PageKey>| {
        *seen.lock().unwrap() += 1;
        let never = never.clone();
        async move {
            never.notified().await;
            Ok::<Page, _>(pages::page(0, 10, 5, Instant::now()))
        }
    });
    let stage = layer(bench.credentials.clone(), wall).layer(inner);
    refuse(&credential, "st-1").await;
    refuse(&credential, "st-1").await;
    time::advance(Duration::from_secs(1)).await;
    let ask = || tokio::spawn(stage.clone().oneshot(fetch(&bench, "st-1")));
    for probes in 1..=3 {
        let probe = ask();
        tokio::task::yield_now().await;
        assert_eq!(*arrived.lock().unwrap(), probes);
        // The others are held back meanwhile.
        assert!(ask().await.unwrap().is_err_and(|error| error.is_unsent()));
        // Nobody waits for it any more.
        probe.abort();
        assert!(probe.await.is_err());
    }
}

/// A token that has to be asked for is waited for here, where a wait takes nothing from anybody.
#[tokio::test(start_paused = true)]
async fn nothing_goes_down_without_a_token_from_the_service() {
    let transport = service_fn(|_| std::future::pending());
    let config = crate::upstream::token::Config::default();
    let service = TokenService::over(&config, None, Transport::new(transport));
    let bench = Bench::asking(service, |_| ());
    let inner = service_fn(|_: Fetch<PageKey>| async {
        Ok::<Page, _>(pages::page(0, 10, 5, Instant::now()))
    });
    let stage = layer(bench.credentials.clone(), wall).layer(inner);
    let error = stage.oneshot(fetch(&bench, "st-1")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TokenServiceUnavailable);
}
