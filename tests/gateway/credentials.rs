//! Refused tokens and missing secrets: one account's trouble is no other account's, nor a wrong stream's a right one's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contacts_gateway::{
    contacts::account::Jti,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
};

use crate::support::{Gateway, Rogue, World, configuration, fault, path, secrets, until};

const MINTED: &str = "tokens_minted_total{account=\"account-0\"}";
const UNSAID: &str = "tokens_refused_total{account=\"account-0\",reason=\"unsaid\"}";
const RESTING: &str = "credential_state{account=\"account-0\",state=\"resting\"}";

/// K5. Catches a gateway that does not start, or that signs with nothing, or an account that suffers for another.
#[tokio::test]
async fn an_account_without_its_secret_is_disabled_alone() {
    let accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 50))
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        ..Settings::default()
    })
    .await
    .unwrap();
    let mut known = secrets(&accounts);
    known[0] = None;
    let gateway = Gateway::start(&configuration(&kore.base_url(), &accounts), known).await;
    let ask = async |number: usize, query: &str| {
        let account: &AccountSettings = &accounts[number];
        gateway
            .get_as(&account.account_id, &path(DEMO_STREAM_ID, query))
            .await
    };
    for query in ["", "?all=true"] {
        let refused = ask(0, query).await;
        refused.is_problem(503, "credentials_unavailable");
        ask(1, query).await.ok();
    }
    assert!(kore.calls(&accounts[0].account_id).total == 0);
    assert_eq!(gateway.attempts("credentials_unavailable").await, 0.0);
    assert!(gateway.operate("/readyz").await.status == 200);
}

/// Catches a token for each request, which costs a signature each, or one that two accounts share.
#[tokio::test]
async fn an_account_signs_once_for_many_requests() {
    let accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 1_000))
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let config = configuration(&kore.base_url(), &accounts);
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    for account in &accounts {
        let target = path(DEMO_STREAM_ID, "?all=true");
        gateway.get_as(&account.account_id, &target).await.ok();
    }
    let mut tokens: Vec<_> = kore
        .requests()
        .iter()
        .map(|seen| {
            (
                seen.header("accountid").to_owned(),
                seen.header("auth").to_owned(),
            )
        })
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 2, "one token for each account");
    assert_ne!(tokens[0].1, tokens[1].1);
}

/// K1. Catches a token for each of those that were refused together, and an answer that is lost with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_refusals_at_once_cost_one_token() {
    const BODY: &str =
        r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0}"#;
    let (together, arrived) = (Arc::new(Barrier::new(100)), Arc::new(AtomicUsize::new(0)));
    let rogue = Rogue::start(move |mut stream| {
        let (together, number) = (together.clone(), arrived.fetch_add(1, Ordering::Relaxed));
        async move {
            let (status, body) = if number < 100 {
                together.wait().await;
                ("401 Unauthorized", "{}")
            } else {
                ("200 OK", BODY)
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
    .await;
    let gateway = Gateway::before(rogue.address, |config| config.upstream.calls_max = 200).await;
    let asking = (0..100).map(async |number| gateway.get(&path(&format!("st-{number}"), "")).await);
    for answer in join_all(asking).await {
        assert_eq!(answer.ok().text(), BODY);
    }
    assert_eq!(gateway.metric(MINTED).await, 2.0);
    assert_eq!(gateway.metric(UNSAID).await, 100.0);
    assert_eq!(rogue.seen(), 200);
}

/// K1. Catches a wrong stream id that takes an account down, or that costs a token or a call each time it is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_callers_with_wrong_streams_take_nothing_from_the_right_ones() {
    let account = AccountSettings::demo().stream("st-other", 1_000);
    let world = World::with(|settings| settings.accounts = vec![account], |_| ()).await;
    world.get("").await.ok();
    let rights_done = AtomicUsize::new(0);
    let wrong = (0..50).map(async |number| {
        let mut asked = 0;
        while rights_done.load(Ordering::Relaxed) < 2 {
            let query = format!("?skip={asked}&limit=1");
            let answer = world.stream(&format!("st-wrong-{number}"), &query).await;
            answer.is_problem(502, "upstream_auth_rejected");
            asked += 1;
            // Other tests run on the same cores.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        asked
    });
    let right = [DEMO_STREAM_ID, "st-other"].map(async |stream: &str| {
        for skip in 0..100 {
            world
                .stream(stream, &format!("?skip={skip}&limit=1"))
                .await
                .ok();
        }
        world.stream(stream, "?all=true").await.ok();
        rights_done.fetch_add(1, Ordering::Relaxed);
    });
    let (asked, _) = tokio::join!(join_all(wrong), join_all(right));
    // Within a minute of each other: the first token, and the only one that wrong streams may have caused.
    assert_eq!(world.gateway.metric(MINTED).await, 2.0);
    assert_eq!(world.gateway.metric(RESTING).await, 0.0);
    // Each of them was asked for again and again, and at first once, later after its rests alone was a call spent on it.
    let (asked, refused) = (
        asked.iter().sum::<i32>(),
        world.gateway.metric(UNSAID).await,
    );
    assert!(refused < 50.0 * 8.0, "{refused} calls for {asked} requests");
}

/// K1. Catches a revoked account that others suffer for, or that goes on spending calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_revoked_account_of_two_hundred_rests_alone() {
    let accounts: Vec<_> = (0..200)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 100))
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let config = configuration(&kore.base_url(), &accounts);
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    let ask = async |account: &AccountSettings, query: &str| {
        gateway
            .get_as(&account.account_id, &path(DEMO_STREAM_ID, query))
            .await
    };
    let all =
        async |query: &str| join_all(accounts.iter().map(|account| ask(account, query))).await;
    let before = all("?limit=5").await;
    let revoked = &accounts[0];
    kore.revoke_secret(&revoked.account_id, revoked.client_secret.expose_secret())
        .unwrap();
    for skip in 0..10 {
        let query = format!("?skip={skip}&limit=5");
        for (number, answer) in all(&query).await.into_iter().enumerate() {
            if number == 0 && skip > 0 {
                answer.is_problem(502, "upstream_auth_rejected");
            } else {
                assert_eq!(answer.ok().body.is_empty(), before[number].body.is_empty());
            }
        }
    }
    assert_eq!(gateway.metric(RESTING).await, 1.0);
    // What was read before is still answered, and the first request cost two calls; then it rested, now and then.
    assert!(ask(revoked, "?limit=5").await.ok().is_hit());
    let denied = kore.calls(&revoked.account_id).denied;
    assert!((2..=8).contains(&denied), "{denied}");
    assert_eq!(gateway.metric(MINTED).await as u64, 1 + denied / 2);

    let restored = revoked.client_secret.expose_secret();
    kore.add_secret(&revoked.account_id, restored).unwrap();
    until("it recovers by itself", async || {
        ask(revoked, "?skip=20&limit=5").await.status == 200
    })
    .await;
    assert_eq!(gateway.metric(RESTING).await, 0.0);
}

/// K1. Catches a sentence that says too little or upstream's own words, and a call spent where a new token cannot help.
#[tokio::test]
async fn each_refusal_is_told_in_one_sentence() {
    let world = World::new().await;
    for (denied, detail, calls) in [
        (
            "credentials",
            "the credential, its scope or the stream id",
            2,
        ),
        (
            "authenticate",
            "the credential, its scope or the stream id",
            2,
        ),
        ("token", "does not take the account's token for a JWT", 1),
        ("scope", "refused the scope", 1),
        ("scope-message", "refused the scope", 1),
    ] {
        let stream = format!("st-{denied}");
        world.fault_stream(&stream, &format!("denied={denied}"));
        // So that a second token is allowed each time, the stream was read before.
        world.kore.clear_faults();
        world.stream(&stream, "?skip=10").await.ok();
        world.fault_stream(&stream, &format!("denied={denied}"));
        let before = world.calls();
        let answer = world.stream(&stream, "").await;
        answer.is_problem(502, "upstream_auth_rejected");
        let told = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(told.contains(detail), "{denied}: {told}");
        for words in ["SDK", "4002", "Permission denied", "authenticate"] {
            assert!(!told.contains(words), "{denied}: {told}");
        }
        assert_eq!(world.calls() - before, calls, "{denied}");
        world.kore.clear_faults();
        until("the rest is over", async || {
            world.stream(&stream, "?skip=20").await.status == 200
        })
        .await;
    }
}

/// K2. Catches an answer that the switch costs, a token that is used again after it, and an account that switches with
/// another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_at_once_are_answered_through_the_switch_to_jti() {
    let mut accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 1_000))
        .collect();
    accounts[0].enforce_jti = true;
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let config = configuration(&kore.base_url(), &accounts);
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    let ask = async |account: usize, skip: u32| {
        let target = path(DEMO_STREAM_ID, &format!("?skip={skip}&limit=1"));
        gateway.get_as(&accounts[account].account_id, &target).await
    };
    for round in 0..2 {
        let before = kore.calls(&accounts[0].account_id).denied;
        for answer in join_all((0..500).map(|skip| ask(0, 500 * round + skip))).await {
            answer.ok();
        }
        let denied = kore.calls(&accounts[0].account_id).denied - before;
        // Those that had set out when the first was refused, as many as may be under way at once.
        assert!(
            if round == 0 {
                (1..=64).contains(&denied)
            } else {
                denied == 0
            },
            "{denied}"
        );
    }
    let counts = kore.calls(&accounts[0].account_id);
    assert_eq!((counts.replays, counts.tokens), (0, counts.served + 1));
    let mode = async |account: usize, mode: &str| {
        let series = format!("token_jti_mode{{account=\"account-{account}\",mode=\"{mode}\"}}");
        gateway.metric(&series).await
    };
    assert_eq!(mode(0, "per_request").await, 1.0);
    ask(1, 0).await.ok();
    ask(1, 1).await.ok();
    assert_eq!(mode(1, "off").await, 1.0);
    assert_eq!(kore.calls(&accounts[1].account_id).tokens, 1);
}

/// K2. Catches a mode that is not obeyed, and a `jti` that a retry uses again.
#[tokio::test]
async fn a_configured_mode_is_obeyed() {
    let enforcing = || AccountSettings {
        enforce_jti: true,
        ..AccountSettings::demo()
    };
    let with = async |jti| {
        World::with(
            |settings| settings.accounts = vec![enforcing()],
            |config| config.accounts[0].jti = jti,
        )
        .await
    };
    let world = with(Jti::PerRequest).await;
    world.kore.fault_next(1, fault("status=503"));
    world.get("?all=true").await.ok();
    let counts = world.kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!((counts.denied, counts.replays), (0, 0));
    assert_eq!(
        counts.tokens, counts.total,
        "one for each call, the retry's too"
    );

    let world = with(Jti::Off).await;
    let answer = world.get("").await;
    answer.is_problem(502, "upstream_auth_rejected");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("jti") && detail.contains("configuration"),
        "{detail}"
    );
    assert_eq!(world.calls(), 1);
}

/// K3. Catches an account that stays out after the clocks agree again.
#[tokio::test]
async fn clocks_that_differ_by_an_hour_for_a_while_are_recovered_from() {
    let world = World::new().await;
    world.get("").await.ok();
    world.kore.set_clock_offset(3600).unwrap();
    let refused = world.get("?skip=10").await;
    refused.is_problem(502, "upstream_auth_rejected");
    // What is kept is still answered.
    assert!(world.get("").await.ok().is_hit());
    world.kore.set_clock_offset(50).unwrap();
    until("it is read again", async || {
        world.get("?skip=20").await.status == 200
    })
    .await;
    world.kore.set_clock_offset(-50).unwrap();
    world.get("?skip=30").await.ok();
}
