//! What spares an account's sixty calls, over sockets: pauses, retries, queues, and copies that are still good enough.

use std::time::Duration;

use contacts_gateway::{
    config::Config,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Rule, Settings, Simulator},
};
use futures_util::future::join_all;
use tokio::{
    net::{TcpSocket, TcpStream},
    time,
};

use crate::support::{
    Answer, Gateway, Raw, World, configuration, fault, list, page, path, secrets, soon, until,
};

/// As short as it may be, less the jitter.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Copies that are stale after a second, and of use for an hour.
fn soon_stale(config: &mut Config) {
    config.cache.fresh_for = FRESH_FOR;
    config.merge.fresh_for = FRESH_FOR;
    config.cache.stale_for = Duration::from_secs(3600);
}

/// Asserts that it is a stale copy, and returns the code of what its last refresh failed with.
#[track_caller]
fn stale(answer: &Answer) -> Option<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let status = answer.header("cache-status");
    let rest = status.strip_prefix("contacts-gateway; hit; ttl=-");
    let (seconds, detail) = match rest.map(|rest| rest.split_once("; detail=")) {
        Some(Some((seconds, detail))) => (seconds, Some(detail.to_owned())),
        Some(None) => (rest.unwrap(), None),
        None => panic!("not stale: {status}"),
    };
    assert!(seconds.parse::<u64>().is_ok(), "{status}");
    assert!(answer.header("age").parse::<u64>().unwrap() >= 1);
    detail
}

fn is_stale(answer: &Answer) -> bool {
    answer.header("cache-status").contains("; ttl=-")
}

fn request(stream: &str, query: &str) -> String {
    let target = path(stream, query);
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// U1. Catches a name without an address that is blamed on the gateway, or on upstream's slowness.
#[tokio::test]
async fn a_host_without_an_address_is_unreachable() {
    let accounts = [AccountSettings::demo()];
    // A label is at most 63 bytes long, so no name server is asked for this one.
    let nowhere = format!("http://{}.invalid", "x".repeat(64));
    let gateway = Gateway::start(&configuration(&nowhere, &accounts), secrets(&accounts)).await;
    let answer = gateway.get(&path(DEMO_STREAM_ID, "")).await;
    answer.is_problem(502, "upstream_unreachable");
    assert!(!answer.text().contains("xxx"), "{}", answer.text());
    assert_eq!(gateway.attempts("upstream_unreachable").await, 2.0);
}

/// U2. Catches a connection that is waited for as long as the system likes, or called unreachable.
#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_a_timeout() {
    // A listener that accepts nobody, behind a queue that is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let connect = || time::timeout(Duration::from_millis(300), TcpStream::connect(address));
    while let Ok(stream) = connect().await {
        queued.push(stream);
    }
    let gateway = Gateway::before(address, |config| {
        config.upstream.connect_timeout = Duration::from_millis(100);
    })
    .await;
    let answer = gateway.get(&path(DEMO_STREAM_ID, "")).await;
    answer.is_problem(504, "upstream_timeout");
    // Nothing was asked yet, so it is tried once more.
    assert_eq!(gateway.attempts("upstream_timeout").await, 2.0);
}

/// U5, C18. Catches a pause that spreads to other accounts, hides a copy, makes cold keys wait or never ends.
#[tokio::test]
async fn one_accounts_pause_is_no_other_accounts_and_ends() {
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
    let mut config = configuration(&kore.base_url(), &accounts);
    soon_stale(&mut config);
    // Less than the pause, so that nobody waits for its end.
    config.edge.request_timeout = Duration::from_secs(1);
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    let [paused, other] = [0, 1].map(|number: usize| accounts[number].account_id.clone());
    let ask = async |account: &str, query: &str| {
        gateway.get_as(account, &path(DEMO_STREAM_ID, query)).await
    };
    let warm = ask(&paused, "").await.ok();
    time::sleep(FRESH_FOR).await;
    let refusal = fault("status=429;header=retry-after: 4");
    kore.add_faults(Rule::always(refusal).account(&paused));
    let refused = ask(&paused, "?skip=10").await;
    refused.is_problem(503, "upstream_rate_limited");
    assert_eq!(refused.header("retry-after"), "4");

    let calls = kore.calls(&paused).total;
    for skip in [20, 30, 40] {
        let cold = ask(&paused, &format!("?skip={skip}")).await;
        cold.is_problem(503, "budget_exhausted");
        let wait: u64 = cold.header("retry-after").parse().unwrap();
        assert!((2..=4).contains(&wait), "{wait}");
        let copy = ask(&paused, "").await;
        stale(&copy);
        assert_eq!(copy.body, warm.body);
        ask(&other, &format!("?skip={skip}")).await.ok();
    }
    until("the copy says why it is stale", async || {
        stale(&ask(&paused, "").await).as_deref() == Some("budget_exhausted")
    })
    .await;
    assert_eq!(kore.calls(&paused).total, calls, "nobody was asked");

    kore.clear_faults();
    time::sleep(Duration::from_secs(4)).await;
    let served = ask(&paused, "?skip=20").await.ok();
    assert_eq!(served.text(), page(&paused, DEMO_STREAM_ID, 1_000, 20, 10));
    until("the copy is fetched anew", async || {
        let answer = ask(&paused, "").await.ok();
        answer.is_hit() && !is_stale(&answer)
    })
    .await;
}

/// U4, U6. Catches retries that multiply what falls on an upstream in trouble.
#[tokio::test]
async fn an_account_has_six_retries_a_minute() {
    let world = World::with(|_| (), |_| ()).await;
    let mut retries = 0;
    for number in 0..10 {
        let stream = format!("st-{number}");
        let before = world.calls();
        world.fault_stream(&stream, "status=500");
        let broken = world.stream(&stream, "").await;
        broken.is_problem(502, "upstream_5xx");
        retries += world.calls() - before - 1;
        // A success between two, so that the breaker has nothing to do with it.
        world.kore.clear_faults();
        world
            .stream("st-sound", &format!("?skip={number}"))
            .await
            .ok();
    }
    assert_eq!(retries, 6);
    let counted = "upstream_retries_total{account=\"account-0\",helped=\"no\"}";
    assert_eq!(world.gateway.metric(counted).await, 6.0);
}

/// U24. Catches a breaker that shuts everybody out because of a stream, a credential or a limit.
#[tokio::test]
async fn refusals_never_open_the_breaker() {
    for (refusal, code) in [
        ("status=401", "upstream_auth_rejected"),
        ("status=404", "stream_not_found"),
        ("status=429;header=retry-after: 1", "upstream_rate_limited"),
        ("status=204", "upstream_protocol"),
        ("informational=100", "upstream_protocol"),
    ] {
        let world = World::new().await;
        // A credential that has worked does not rest because of streams that never did.
        world.stream("st-sound", "").await.ok();
        let streams: Vec<_> = (0..8).map(|number| format!("st-{number}")).collect();
        for stream in &streams {
            world.fault_stream(stream, refusal);
        }
        // At once, since an account pauses after a 429 and asks for nothing more.
        join_all(streams.iter().map(|stream| world.stream(stream, ""))).await;
        assert!(world.gateway.attempts(code).await >= 5.0, "{refusal}");
        let open = "upstream_breaker_state{state=\"closed\"}";
        assert_eq!(world.gateway.metric(open).await, 1.0, "{refusal}");
        let refused = "upstream_breaker_refused_total";
        assert_eq!(world.gateway.metric(refused).await, 0.0, "{refusal}");
        world.kore.clear_faults();
        world.stream("st-sound", "?skip=10").await.ok();
    }
}

/// C13. Catches a call that is made for callers who have all hung up while it waited for its turn.
#[tokio::test]
async fn callers_who_hang_up_before_their_turn_cost_no_call() {
    let world = World::new().await;
    world
        .kore
        .fault_next(1, fault("status=429;header=retry-after: 3"));
    world.get("").await.is_problem(503, "upstream_rate_limited");
    // All wait for the end of the pause.
    let mut callers = join_all((0..5).map(|_| Raw::to(world.gateway.traffic))).await;
    join_all(
        callers
            .iter_mut()
            .map(|raw| raw.write(request("st-left", ""))),
    )
    .await;
    let mut stays = Raw::to(world.gateway.traffic).await;
    stays.write(request("st-wanted", "")).await;
    time::sleep(Duration::from_millis(300)).await;
    drop(callers);
    stays.answer().await.ok();
    world.stream("st-next", "").await.ok();
    let asked = world.kore.requests();
    let of = |stream: &str| {
        asked
            .iter()
            .filter(|seen| seen.path.contains(stream))
            .count()
    };
    assert_eq!(["st-left", "st-wanted", "st-next"].map(of), [0, 1, 1]);
}

/// C14. Catches a refresh for each caller of a stale copy, and callers who wait for one.
#[tokio::test]
async fn a_herd_on_a_stale_page_is_answered_at_once_and_costs_one_call() {
    let world = World::with(|_| (), soon_stale).await;
    let first = world.get("?skip=30").await.ok();
    time::sleep(FRESH_FOR).await;
    // Nobody who waited for this would be answered.
    world.kore.fault_always(fault("delay=30s"));
    let mut callers = join_all((0..200).map(|_| Raw::to(world.gateway.traffic))).await;
    let asked = callers.iter_mut().map(async |raw| {
        raw.write(request(DEMO_STREAM_ID, "?skip=30")).await;
        raw.answer().await
    });
    let herd = time::timeout(Duration::from_secs(9), join_all(asked)).await;
    for answer in herd.expect("nobody waits for upstream") {
        assert_eq!(stale(&answer), None);
        assert_eq!(answer.body, first.body);
    }
    until("upstream is asked", async || world.calls() == 2).await;
    let stale = "cache_requests_total{cache=\"pages\",result=\"stale\"}";
    assert_eq!(world.gateway.metric(stale).await, 200.0);
    assert_eq!(world.calls(), 2);
}

/// U3 to U20 under a list that is held. Catches a fault in one page, or a list that changes, that replaces or hides it.
#[tokio::test]
async fn a_stale_list_is_the_answer_until_a_walk_succeeds() {
    const STREAM: &str = "st-listed";
    const CONTACTS: u64 = 500;
    let rows = [
        ("status=500", "upstream_5xx"),
        ("truncate", "upstream_truncated"),
        ("invalid-json", "upstream_invalid_body"),
        ("html", "upstream_wrong_type"),
        ("redirect=/elsewhere", "upstream_redirect"),
        ("status=204", "upstream_protocol"),
        ("echo-skip=+1", "upstream_schema"),
        ("stuck", "pagination_inconsistent"),
        ("shift=-1", "merge_drifting"),
        ("twice", "merge_drifting"),
        ("status=401", "upstream_auth_rejected"),
    ];
    let each = rows.into_iter().flat_map(|row| [(row, 0), (row, 3)]);
    join_all(each.map(async |((text, code), sound)| {
        let world = World::with(
            |settings| {
                settings.accounts = vec![AccountSettings::demo().others(CONTACTS)];
                settings.latency = Duration::from_millis(20);
            },
            |config| {
                soon_stale(config);
                config.listen.workers = 1;
                // One page at a time, so that failures side by side do not open the breaker.
                config.merge.width = 1;
            },
        )
        .await;
        let told = format!("{text} after {sound} pages");
        let ask = || world.stream(STREAM, "?all=true");
        let first = ask().await.ok();
        let whole = list(DEMO_ACCOUNT_ID, STREAM, CONTACTS);
        assert!(first.text() == whole, "{told}");
        until(&told, async || is_stale(&ask().await)).await;
        let begun = world.calls();
        until(&told, async || world.calls() >= begun + sound).await;
        world.fault_stream(STREAM, text);
        until(&told, async || {
            let answer = ask().await.ok();
            assert!(answer.text() == whole, "{told}");
            assert_eq!(answer.header("etag"), first.header("etag"), "{told}");
            // A walk that was over before it could be broken is followed by one that is not.
            let detail = is_stale(&answer).then(|| stale(&answer)).flatten();
            assert!(
                detail.as_deref().is_none_or(|detail| detail == code),
                "{told}: {detail:?}"
            );
            time::sleep(Duration::from_millis(100)).await;
            detail.is_some()
        })
        .await;
        let walks = format!("walks_total{{outcome=\"{code}\"}}");
        assert!(world.gateway.metric(&walks).await >= 1.0, "{told}");
        let good = world
            .gateway
            .metric("walks_total{outcome=\"verified\"}")
            .await;
        world.kore.clear_faults();
        until(&told, async || {
            let answer = ask().await.ok();
            assert!(answer.text() == whole, "{told}");
            time::sleep(Duration::from_millis(100)).await;
            let verified = world
                .gateway
                .metric("walks_total{outcome=\"verified\"}")
                .await;
            verified > good
        })
        .await;
    }))
    .await;
}

/// U19. Catches a list that changed while it was read again and is answered with half of each, or never again.
#[tokio::test]
async fn a_stale_list_is_answered_while_it_drifts_and_the_new_one_after() {
    let world = World::with(
        |settings| settings.latency = Duration::from_millis(20),
        soon_stale,
    )
    .await;
    let first = world.get("?all=true").await.ok();
    time::sleep(FRESH_FOR).await;
    // A record of the first page goes while later ones are read.
    let stream = world.kore.stream(DEMO_ACCOUNT_ID, DEMO_STREAM_ID);
    assert_eq!(stale(&world.get("?all=true").await), None);
    let begun = world.calls();
    until("the walk is under way", async || world.calls() > begun).await;
    stream.delete(0);
    until("the walk ends", async || {
        let answer = world.get("?all=true").await;
        let held = answer.json()["totalResults"].as_u64().unwrap();
        assert!(answer.body == first.body || held == 999);
        held == 999
    })
    .await;
    let walks = world
        .gateway
        .metric("walks_total{outcome=\"verified\"}")
        .await;
    assert!(walks >= 2.0);
    let ids: Vec<_> = {
        let body = world.get("?all=true").await.json();
        let records = body["results"].as_array().unwrap().clone();
        records
            .iter()
            .map(|record| record["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(ids == stream.ids());
}

/// Catches a copy that is answered for as long as upstream is down, however old.
#[tokio::test]
async fn a_copy_past_its_use_is_not_answered() {
    let world = World::with(
        |_| (),
        |config| {
            soon_stale(config);
            config.cache.stale_for = Duration::from_secs(1);
        },
    )
    .await;
    world.get("").await.ok();
    world.get("?all=true").await.ok();
    world.kore.fault_always(fault("status=500"));
    // A list is fresh for as long as it is: four walks at least, which take a moment here.
    time::sleep(FRESH_FOR + Duration::from_secs(2)).await;
    for query in ["", "?all=true"] {
        let answer = soon("an answer", world.get(query)).await;
        answer.is_problem(502, "upstream_5xx");
        assert_eq!(answer.header("cache-status"), "contacts-gateway; fwd=stale");
    }
}
