//! The configuration is read again while callers go on asking.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use contacts_gateway::{
    admin::overview::document::Status,
    config::Config,
    contacts::account::{self, StreamConfig},
    edge::{caller, key::Digest},
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, RateLimit, Settings, Simulator},
    upstream::{
        secret::{Secret, Source, Sources},
        token::Secrets,
    },
};
use futures_util::future::join_all;
use http::Request;
use secrecy::ExposeSecret;
use tokio::{io::AsyncWriteExt, sync::Notify};

use crate::{
    access::caller,
    program::{Program, addresses, configured, paste},
    support::{Answer, Gateway, Rogue, configuration, fault, page, path, until},
};

/// A gateway whose configuration a test changes, in front of accounts that exist.
pub(crate) struct Changing {
    pub(crate) gateway: Gateway,
    told: Arc<Mutex<Config>>,
}

impl Changing {
    /// Over these accounts, configured as they are but for what is changed. Secrets are found by the accounts' ids.
    pub(crate) async fn start(
        base_url: &str,
        accounts: &[AccountSettings],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = configuration(base_url, accounts);
        change(&mut config);
        let known: Vec<_> = accounts
            .iter()
            .map(|account| {
                let secret = Secret::new(account.client_secret.expose_secret());
                (account.account_id.clone(), secret)
            })
            .collect();
        let secrets = move |config: &Config| {
            let of = |account: &account::Config| match &account.client_secret_file {
                Some(file) => Sources {
                    first: Source::File(file.clone()),
                    next: None,
                },
                None => {
                    let known = known.iter().find(|(id, _)| *id == account.account_id);
                    Sources::from(known.map(|(_, secret)| secret.clone()))
                }
            };
            config.accounts.iter().map(of).collect::<Vec<_>>()
        };
        let gateway = Gateway::start(&config, secrets(&config)).await;
        let told = Arc::new(Mutex::new(config));
        let read = told.clone();
        gateway.reloader.read_from(move || {
            let config = read.lock().unwrap().clone();
            let secrets = Secrets::from(secrets(&config));
            Ok((config, secrets))
        });
        Self { gateway, told }
    }

    /// Changes the configuration, and has it read by an admin call.
    pub(crate) async fn reload(&self, change: impl FnOnce(&mut Config)) -> Answer {
        change(&mut self.told.lock().unwrap());
        let target = format!("http://{}/api/reload", self.gateway.admin);
        self.gateway.ask(Request::post(target)).await
    }

    async fn page(&self, account: &AccountSettings, skip: u32) -> Answer {
        let target = path("st-1", &format!("?skip={skip}&limit=1"));
        self.gateway.get_as(&account.account_id, &target).await
    }

    async fn list(&self, account: &AccountSettings) -> Answer {
        let target = path("st-1", "?all=true");
        self.gateway.get_as(&account.account_id, &target).await
    }
}

fn numbered(count: u64) -> Vec<AccountSettings> {
    let account = |number| AccountSettings::numbered(number).stream("st-1", 1_000);
    (1..=count).map(account).collect()
}

async fn kore(accounts: &[AccountSettings], rate_limit: Option<RateLimit>) -> Simulator {
    let settings = Settings {
        accounts: accounts.to_vec(),
        rate_limit,
        ..Settings::default()
    };
    Simulator::start(settings).await.unwrap()
}

/// Asks again and again while something is done, and returns how many requests that were.
async fn while_asking<T>(
    ask: impl AsyncFn(u32) -> Answer,
    work: impl Future<Output = T>,
) -> (u32, T) {
    let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let asking = (0..4).map(async |_| {
        while !done.load(Ordering::Relaxed) {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            ask(number).await.ok();
        }
    });
    let work = async {
        until("the load has begun", async || {
            asked.load(Ordering::Relaxed) > 20
        })
        .await;
        let outcome = work.await;
        let then = asked.load(Ordering::Relaxed);
        until("the load goes on", async || {
            asked.load(Ordering::Relaxed) > then + 20
        })
        .await;
        done.store(true, Ordering::Relaxed);
        outcome
    };
    let (_, outcome) = tokio::join!(join_all(asking), work);
    (asked.into_inner(), outcome)
}

/// O5. Catches a removed account that is answered, whose copies are found when it comes back, or whose removal costs another
/// account's request; and series that stay behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_account_is_refused_at_once_and_its_copies_are_gone() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let running = Changing::start(&kore.base_url(), &accounts, |_| ()).await;
    let [gone, stays] = &accounts[..] else {
        panic!()
    };
    running.page(gone, 0).await.ok();
    running.list(gone).await.ok();
    assert!(running.page(gone, 0).await.ok().is_hit());

    let mut removed = None;
    let ask = async |number| running.page(stays, number % 900).await;
    while_asking(ask, async {
        let told = running.reload(|config| removed = Some(config.accounts.remove(0)));
        let told = told.await.ok().json();
        assert_eq!(told["accounts"]["removed"][0], "account-0", "{told:#}");
        assert_eq!(told["outcome"], "applied");
        for query in ["?skip=0&limit=1", "?all=true", "?skip=7&limit=2"] {
            let target = path("st-1", query);
            let answer = running.gateway.get_as(&gone.account_id, &target).await;
            answer.is_problem(404, "unknown_account");
        }
        let metrics = running.gateway.operate("/metrics").await;
        assert!(!metrics.text().contains("account=\"account-0\""));
        assert!(metrics.text().contains("account=\"account-1\""));

        let calls = kore.calls(&gone.account_id).total;
        let back = removed.take().unwrap();
        let told = running.reload(|config| config.accounts.insert(0, back));
        assert_eq!(told.await.ok().json()["accounts"]["added"][0], "account-0");
        assert!(running.page(gone, 0).await.ok().is_miss());
        assert!(running.list(gone).await.ok().is_miss());
        assert!(kore.calls(&gone.account_id).total >= calls + 12);
    })
    .await;
}

/// Catches counters that go on where nobody sees them: those of an account that left and came back, and those of a stream that
/// is listed later.
#[tokio::test]
async fn who_comes_back_is_counted_as_before() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let running = Changing::start(&kore.base_url(), &accounts, |_| ()).await;
    let series = async || {
        let text = running.gateway.operate("/metrics").await;
        let lines = text.text().lines();
        lines
            .filter(|line| line.contains("account=\"account-0\""))
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let ask = async || {
        running.page(&accounts[0], 0).await.ok();
        running.list(&accounts[0]).await.ok();
    };
    ask().await;
    let before = series().await;
    assert!(before.len() > 20, "{before:#?}");
    let mut away = None;
    let left = running.reload(|config| away = Some(config.accounts.remove(0)));
    left.await.ok();
    assert_eq!(series().await, BTreeSet::new());
    let back = running.reload(|config| {
        config.accounts.insert(0, away.unwrap());
        config.accounts[0].streams.push(StreamConfig {
            name: "first".to_owned(),
            stream_id: "st-1".to_owned(),
        });
    });
    back.await.ok();
    ask().await;
    let after = series().await;
    let unnamed = |series: &BTreeSet<String>| {
        let series = series
            .iter()
            .map(|name| name.replace("\"first\"", "\"other\""));
        series.collect::<BTreeSet<_>>()
    };
    let missing: Vec<_> = before.difference(&unnamed(&after)).cloned().collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let pages =
        "collection_requests_total{account=\"account-0\",result=\"fetched\",stream=\"first\"}";
    assert_eq!(running.gateway.metric(pages).await, 2.0);
}

/// O5. Catches copies that are found under another id, another client or another name.
#[tokio::test]
async fn a_remapped_account_finds_nothing_of_the_one_before_it() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let only_first = |config: &mut Config| config.accounts.truncate(1);
    let running = Changing::start(&kore.base_url(), &accounts, only_first).await;
    let [first, second] = &accounts[..] else {
        panic!()
    };
    running.page(first, 0).await.ok();
    running.list(first).await.ok();

    // The same name, another account.
    let told = running.reload(|config| {
        config.accounts[0].account_id = second.account_id.clone();
        config.accounts[0].client_id = second.client_id.clone();
    });
    let told = told.await.ok().json();
    assert_eq!(told["accounts"]["remapped"][0], "account-0", "{told:#}");
    running
        .page(first, 0)
        .await
        .is_problem(404, "unknown_account");
    let answer = running.page(second, 0).await.ok();
    assert!(answer.is_miss());
    assert_eq!(answer.json()["results"][0]["accountId"], *second.account_id);
    // Where none is named it is the only one.
    let request = running.gateway.request(&path("st-1", "?skip=0&limit=1"));
    let implied = running.gateway.ask(request).await.ok();
    assert_eq!(implied.body, answer.body);

    // The same account, another name: who may read it goes by the name.
    running.list(second).await.ok();
    let told = running.reload(|config| config.accounts[0].name = "renamed".to_owned());
    assert_eq!(told.await.ok().json()["accounts"]["added"][0], "renamed");
    assert!(running.page(second, 0).await.ok().is_miss());
    assert!(running.list(second).await.ok().is_miss());
}

/// Catches a reload that empties the cache, or that a request notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_keeps_its_copies_while_others_come() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let only_first = |config: &mut Config| config.accounts.truncate(1);
    let running = Changing::start(&kore.base_url(), &accounts, only_first).await;
    let [stays, comes] = &accounts[..] else {
        panic!()
    };
    running.page(stays, 0).await.ok();
    running
        .gateway
        .get_as(&stays.account_id, &path("st-1", "?skip=5"))
        .await
        .ok();
    running.list(stays).await.ok();
    running
        .page(comes, 0)
        .await
        .is_problem(404, "unknown_account");
    let (calls, added) = (kore.calls(&stays.account_id).total, comes.clone());
    let ask = async |number| match number % 2 {
        0 => running.page(stays, 0).await,
        _ => running.list(stays).await,
    };
    while_asking(ask, async {
        let told = running.reload(|config| {
            config.accounts.push(account::Config {
                name: "new".to_owned(),
                account_id: added.account_id,
                client_id: added.client_id,
                ..account::Config::default()
            });
            config.accounts[0].calls_per_minute = 30_000;
        });
        let told = told.await.ok().json();
        assert_eq!(told["accounts"]["added"][0], "new");
        assert_eq!(told["accounts"]["changed"][0], "account-0");
        assert_eq!(told["keys"][0], "accounts[account-0].calls_per_minute");
        running.page(comes, 0).await.ok();
    })
    .await;
    assert!(
        running
            .page(stays, 0)
            .await
            .ok()
            .header("cache-status")
            .contains("; hit;")
    );
    assert!(running.list(stays).await.ok().is_hit());
    assert_eq!(kore.calls(&stays.account_id).total, calls);
    let allowance = "budget_allowance_calls{account=\"account-0\"}";
    assert_eq!(running.gateway.metric(allowance).await, 30_000.0);
    assert_eq!(
        running
            .gateway
            .metric("config_reloads_total{outcome=\"applied\"}")
            .await,
        1.0
    );
}

/// Catches a stream that is still answered after it was closed, and one whose copies come back when it is opened again.
#[tokio::test]
async fn a_stream_that_is_closed_is_gone_and_the_others_stay() {
    let accounts = [AccountSettings::numbered(1).others(50)];
    let kore = kore(&accounts, None).await;
    let running = Changing::start(&kore.base_url(), &accounts, |_| ()).await;
    let ask = async |stream| {
        running
            .gateway
            .get_as(&accounts[0].account_id, &path(stream, ""))
            .await
    };
    for stream in ["st-1", "st-2"] {
        ask(stream).await.ok();
    }
    let listed = StreamConfig {
        name: "first".to_owned(),
        stream_id: "st-1".to_owned(),
    };
    running
        .reload(|config| config.accounts[0].streams = vec![listed])
        .await
        .ok();
    assert!(ask("st-1").await.ok().is_hit());
    ask("st-2").await.is_problem(404, "stream_not_found");
    running
        .reload(|config| config.accounts[0].streams.clear())
        .await
        .ok();
    assert!(ask("st-1").await.ok().is_hit());
    assert!(ask("st-2").await.ok().is_miss());
}

/// Catches what operators are shown of an account that has left or of a stream that is closed, and a gap that is counted
/// twice once the account came back.
#[tokio::test]
async fn what_has_left_is_neither_shown_nor_counted() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    kore.fault_always(fault("total=+7"));
    let running = Changing::start(&kore.base_url(), &accounts, |_| ()).await;
    let shown = async || {
        let status = running.gateway.operate("/api/status").await.ok();
        let status: Status = serde_json::from_slice(&status.body).unwrap();
        let collections = status.collections;
        assert_eq!(collections.total, collections.shown.len());
        let shown = collections.shown.into_iter();
        let mut shown: Vec<_> = shown.map(|shown| shown.account).collect();
        shown.sort();
        let gap = "list_gap_contacts{account=\"account-0\"}";
        (shown, running.gateway.metric(gap).await)
    };
    for account in &accounts {
        running.list(account).await.ok();
    }
    let both = || (vec!["account-0".to_owned(), "account-1".to_owned()], 7.0);
    let other = || (vec!["account-1".to_owned()], 0.0);
    assert_eq!(shown().await, both());
    let mut away = None;
    let left = running.reload(|config| away = Some(config.accounts.remove(0)));
    left.await.ok();
    assert_eq!(shown().await, other());
    let back = running.reload(|config| config.accounts.insert(0, away.unwrap()));
    back.await.ok();
    running.list(&accounts[0]).await.ok();
    assert_eq!(shown().await, both());
    let closed = running.reload(|config| {
        config.accounts[0].streams = vec![StreamConfig {
            name: "another".to_owned(),
            stream_id: "st-2".to_owned(),
        }];
    });
    closed.await.ok();
    assert_eq!(shown().await, other());
}

/// Catches a key that is not taken, one that stays good, and a request that is lost while both keys are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_come_and_go_and_their_keys_are_rotated() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let running = Changing::start(&kore.base_url(), &accounts, |config| {
        config.callers = vec![caller("crm", &["account-0"])];
        config.callers[0].requests_per_minute = 6_000_000;
        config.callers[0].requests_at_once = 1_000_000;
    })
    .await;
    let shown = Mutex::new("crm-key");
    let ask_as = async |key: &str, account: &AccountSettings| {
        let request = running.gateway.request(&path("st-1", "?skip=0&limit=1"));
        let request = request.header("auth", key);
        running
            .gateway
            .ask(request.header("accountId", &account.account_id))
            .await
    };
    let ask = async |_| {
        let key = *shown.lock().unwrap();
        ask_as(key, &accounts[0]).await
    };
    ask_as("bi-key", &accounts[0])
        .await
        .is_problem(401, "unauthorized");
    while_asking(ask, async {
        let new = Digest::of("new").to_string();
        let told = running.reload(|config| config.callers[0].key_sha256.push(new));
        assert_eq!(told.await.ok().json()["callers"]["changed"][0], "crm");
        *shown.lock().unwrap() = "new";
    })
    .await;
    while_asking(ask, async {
        running
            .reload(|config| drop(config.callers[0].key_sha256.remove(0)))
            .await
            .ok();
        ask_as("crm-key", &accounts[0])
            .await
            .is_problem(401, "unauthorized");
        let told = running.reload(|config| config.callers.push(caller("bi", &["account-1"])));
        assert_eq!(told.await.ok().json()["callers"]["added"][0], "bi");
        ask_as("bi-key", &accounts[1]).await.ok();
        ask_as("bi-key", &accounts[0])
            .await
            .is_problem(403, "forbidden");
        // What it was granted, and what is taken from it, in one.
        running
            .reload(|config| config.callers[1].accounts = vec!["account-0".to_owned()])
            .await
            .ok();
        ask_as("bi-key", &accounts[1])
            .await
            .is_problem(403, "forbidden");
        ask_as("bi-key", &accounts[0]).await.ok();
        let told = running.reload(|config| drop(config.callers.pop()));
        assert_eq!(told.await.ok().json()["callers"]["removed"][0], "bi");
        ask_as("bi-key", &accounts[0])
            .await
            .is_problem(401, "unauthorized");
    })
    .await;
    let metrics = running.gateway.operate("/metrics").await;
    assert!(!metrics.text().contains("caller=\"bi\""));
    // A part of the file that is lost does not open the gateway.
    let refused = running.reload(|config| config.callers.clear()).await;
    refused.is_problem(409, "restart_needed");
    ask_as("nobody", &accounts[0])
        .await
        .is_problem(401, "unauthorized");
}

/// Catches a caller's rate that begins anew with each reload.
#[tokio::test]
async fn what_a_caller_has_taken_of_its_rate_stays_taken() {
    let accounts = numbered(1);
    let kore = kore(&accounts, None).await;
    let slow = caller::Config {
        requests_per_minute: 1,
        requests_at_once: 5,
        ..caller("crm", &["account-0"])
    };
    let running = Changing::start(&kore.base_url(), &accounts, |config| {
        config.callers = vec![slow];
    })
    .await;
    let ask = async || {
        let request = running.gateway.request(&path("st-1", ""));
        running.gateway.ask(request.header("auth", "crm-key")).await
    };
    for round in 0..5 {
        ask().await.ok();
        let rotated = Digest::of(&format!("other-{round}")).to_string();
        running
            .reload(|config| config.callers[0].key_sha256.push(rotated))
            .await
            .ok();
    }
    ask().await.is_problem(429, "caller_throttled");
    running
        .reload(|config| config.callers[0].requests_at_once = 6)
        .await
        .ok();
    ask().await.ok();
    ask().await.is_problem(429, "caller_throttled");
    // Given more, it does not wait for what it took when it had less.
    running
        .reload(|config| config.callers[0].requests_per_minute = 6_000)
        .await
        .ok();
    until("its rate is the new one", async || {
        let answer = ask().await;
        let wait = answer.header("retry-after");
        assert!(answer.status == 200 || wait == "1", "{wait}");
        answer.status == 200
    })
    .await;
}

/// K5. Catches a secret that cannot be read and takes a working one with it, one that refuses the whole reload, and an
/// answer that does not say whose it is.
#[tokio::test]
async fn an_unreadable_secret_concerns_its_account_alone() {
    let accounts = numbered(2);
    let kore = kore(&accounts, None).await;
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    let secret = |account: &AccountSettings| account.client_secret.expose_secret().to_owned();
    fs::write(&old, secret(&accounts[0])).unwrap();
    let running = Changing::start(&kore.base_url(), &accounts, |config| {
        config.accounts.truncate(1);
        config.accounts[0].client_secret_file = Some(old.clone());
    })
    .await;
    running.page(&accounts[0], 0).await.ok();
    fs::remove_file(&old).unwrap();
    let told = running.reload(|config| {
        let (account_id, client_id) = (&accounts[1].account_id, &accounts[1].client_id);
        config.accounts.push(account::Config {
            name: "new".to_owned(),
            account_id: account_id.clone(),
            client_id: client_id.clone(),
            client_secret_file: Some(new.clone()),
            ..account::Config::default()
        });
        // The other account's secret moved, to where there is none either.
        config.accounts[0].client_secret_file = Some(folder.path().join("nowhere"));
    });
    let told = told.await.ok().json();
    let secrets = told["secrets"].as_array().unwrap();
    let secrets: Vec<_> = secrets
        .iter()
        .map(|told| {
            (
                told["account"].as_str().unwrap(),
                told["disabled"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(secrets, [("account-0", false), ("new", true)], "{told:#}");
    assert!(!told.to_string().contains(&secret(&accounts[0])));
    running.page(&accounts[0], 1).await.ok();
    running
        .page(&accounts[1], 0)
        .await
        .is_problem(503, "credentials_unavailable");
    // There now, and found by the next reload.
    fs::write(&new, secret(&accounts[1])).unwrap();
    let told = running.reload(|_| ()).await.ok().json();
    assert_eq!(told["secrets"].as_array().unwrap().len(), 1, "{told:#}");
    running.page(&accounts[1], 1).await.ok();
}

/// Catches a request that a reload cuts off, and an answer of it that is kept.
#[tokio::test]
async fn a_request_in_flight_ends_on_the_configuration_it_began_with() {
    let release = Arc::new(Notify::new());
    let upstream = Rogue::holding(release.clone()).await;
    let accounts = [AccountSettings::demo()];
    let base_url = format!("http://{}", upstream.address);
    let running = Changing::start(&base_url, &accounts, |config| {
        config.callers = vec![caller("crm", &["account-0"])];
        // What upstream holds, it reads no second request from.
        config.upstream.idle_connections_max = 0;
    })
    .await;
    let ask = async || {
        let request = running.gateway.request(&path(DEMO_STREAM_ID, ""));
        let request = request.header("auth", "crm-key");
        running
            .gateway
            .ask(request.header("accountId", DEMO_ACCOUNT_ID))
            .await
    };
    let (mut removed, mut grants) = (None, None);
    let work = async {
        until("upstream is asked", async || upstream.seen() == 1).await;
        running
            .reload(|config| {
                let mut other = config.accounts[0].clone();
                (other.name, other.account_id) = ("other".to_owned(), "other".to_owned());
                grants = Some(std::mem::replace(
                    &mut config.callers[0].accounts,
                    vec!["other".to_owned()],
                ));
                removed = Some(std::mem::replace(&mut config.accounts[0], other));
            })
            .await
            .ok();
        // Who asks now is refused, while the other one waits.
        ask().await.is_problem(403, "forbidden");
        release.notify_one();
    };
    let (answer, ()) = tokio::join!(ask(), work);
    assert_eq!(answer.ok().json()["results"].as_array().unwrap().len(), 10);
    running
        .reload(|config| {
            config.accounts[0] = removed.take().unwrap();
            config.callers[0].accounts = grants.take().unwrap();
        })
        .await
        .ok();
    release.notify_one();
    assert!(ask().await.ok().is_miss());
    assert_eq!(upstream.seen(), 2);
}

/// O9. Catches a call that ends after its account has left, and brings back series that nobody takes away again: its own,
/// its retry's, and those of its tokens.
#[tokio::test]
async fn what_ends_late_brings_no_series_back() {
    let release = Arc::new(Notify::new());
    let calls = Arc::new(AtomicU32::new(0));
    let released = release.clone();
    let upstream = Rogue::start(move |mut stream| {
        let (release, first) = (
            released.clone(),
            calls.fetch_add(1, Ordering::Relaxed) == 0,
        );
        async move {
            release.notified().await;
            let body = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10);
            let answer = match first {
                true => "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(),
                false => format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let base_url = format!("http://{}", upstream.address);
    let running = Changing::start(&base_url, &[AccountSettings::demo()], |_| ()).await;
    let series = async || {
        let metrics = running.gateway.operate("/metrics").await;
        let lines = metrics.text().lines();
        let own = lines.filter(|line| line.contains("account=\"account-0\""));
        own.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!series().await.is_empty());
    let work = async {
        until("upstream is asked", async || upstream.seen() == 1).await;
        running
            .reload(|config| {
                config.accounts[0].name = "other".to_owned();
                config.accounts[0].account_id = "other".to_owned();
            })
            .await
            .ok();
        release.notify_one();
        until("upstream is asked again", async || upstream.seen() == 2).await;
        release.notify_one();
    };
    let target = path(DEMO_STREAM_ID, "");
    let (answer, ()) = tokio::join!(running.gateway.get(&target), work);
    answer.ok();
    assert_eq!(series().await, Vec::<String>::new());
    for outcome in ["ok", "upstream_auth_rejected"] {
        let total = format!("upstream_outcomes_total{{outcome=\"{outcome}\"}}");
        assert_eq!(running.gateway.metric(&total).await, 1.0, "{outcome}");
    }
}

/// Catches a reload that forgets the calls of the last minute: of an account that stays, that is renamed, or that is away in
/// between.
#[tokio::test]
async fn sixty_calls_are_sixty_across_twenty_reloads() {
    let accounts = numbered(2);
    let kore = kore(&accounts, Some(RateLimit::default())).await;
    let running = Changing::start(&kore.base_url(), &accounts, |config| {
        config.edge.request_timeout = Duration::from_secs(1);
        for account in &mut config.accounts {
            account.calls_per_minute = 60;
        }
    })
    .await;
    let mut away = None;
    let mut answered = 0;
    for round in 0..20 {
        for number in 0..5 {
            let answer = running.page(&accounts[0], round * 5 + number).await;
            match (answer.status, &away) {
                (200, None) => answered += 1,
                (_, Some(_)) => answer.is_problem(404, "unknown_account"),
                // The slot's minute and its margin, in whole seconds, may be 61.
                _ => assert_eq!(answer.json()["code"], "budget_exhausted"),
            }
        }
        let told = running.reload(|config| match round % 4 {
            0 => config.accounts[0].name = format!("renamed-{round}"),
            1 => away = Some(config.accounts.remove(0)),
            2 => config.accounts.insert(0, away.take().unwrap()),
            _ => config.budget.reserve = round,
        });
        told.await.ok();
    }
    let calls = kore.calls(&accounts[0].account_id);
    assert_eq!((answered, calls.total, calls.refused), (60, 60, 0));
    assert_eq!(kore.busiest_minute(&accounts[0].account_id), 60);
    // The other account's are its own.
    running.page(&accounts[1], 0).await.ok();
}

/// O5. Catches a reload of a part, a key that is silently ignored, a signal that ends the process, and a command whose exit
/// code or text says nothing of use.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_is_read_again_whole_or_not_at_all() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let demo = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &demo, "");
    let good = fs::read_to_string(&file).unwrap();
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &[]);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let reload = || Program::start(folder.path(), &["reload", "--admin", &admin], &[]).ends();
    let page = format!("curl -s '{traffic}{}'", path(DEMO_STREAM_ID, "?limit=1"));
    let metric = |name: &str| {
        let metrics = paste(folder.path(), &format!("curl -s {admin}/metrics"));
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&format!("contacts_gateway_{name} ")));
        value.unwrap().parse::<f64>().unwrap()
    };
    let (applied, refused) = (
        "config_reloads_total{outcome=\"applied\"}",
        "config_reloads_total{outcome=\"refused\"}",
    );
    assert_eq!((metric(applied), metric(refused)), (0.0, 0.0));
    let began = metric("config_last_reload_success_timestamp_seconds");
    assert!(began > 1e9);
    let held = paste(folder.path(), &page);
    let calls = kore.calls(DEMO_ACCOUNT_ID).total;

    let another = "[[accounts]]\nname = \"b\"\naccount_id = \"b\"\nclient_id = \"cs-b\"\nclient_secret_file = \"none\"\n";
    for (number, (text, code, said)) in [
        (
            format!("{good}{another}[[accounts"),
            78,
            &["gateway.toml:20:11: ", "[[accounts", "^"][..],
        ),
        (
            format!("{good}{another}jitter = 1\n[cache]\nfresh_fro = \"1s\"\n"),
            78,
            &[
                "gateway.toml:20:1: accounts[1].jitter: unknown key",
                "fresh_for",
                "^^^^^^",
            ],
        ),
        (
            format!("{good}{another}").replace("client_id = \"cs-b\"", "client_id = \"\""),
            78,
            &["accounts[1].client_id", "gateway.toml:18:"],
        ),
        (
            format!("{good}{another}[cache]\nfresh_for = \"1s\"\n").replacen(
                "127.0.0.1:0\"",
                "127.0.0.1:9\"\nworkers = 7",
                1,
            ),
            1,
            &["needs a restart: cache.fresh_for, listen.address, listen.workers"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&file, &text).unwrap();
        let (status, _, errors) = reload();
        assert_eq!(status.code(), Some(code), "{errors}");
        for said in said {
            assert!(errors.contains(said), "{said:?} in {errors}");
        }
        assert_eq!(
            (metric(applied), metric(refused)),
            (0.0, number as f64 + 1.0)
        );
        let other = paste(
            folder.path(),
            &page.replace("curl -s", "curl -s -H 'accountId: b'"),
        );
        assert!(other.contains("unknown_account"), "{other}");
        assert_eq!(paste(folder.path(), &page), held);
    }

    // Applied by the command, which says whose secret cannot be read,
    fs::write(&file, format!("{good}{another}")).unwrap();
    let (status, said, errors) = reload();
    assert_eq!(status.code(), Some(0), "{errors}");
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["accounts"]["added"][0], "b");
    assert_eq!(document["trigger"], "admin");
    assert_eq!(document["secrets"][0]["account"], "b");
    assert!(
        document["secrets"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("/none")
    );
    // and by the signal, which says it in the log.
    fs::write(&file, &good).unwrap();
    serve.signal("HUP");
    until("the signal is followed", async || metric(applied) == 2.0).await;
    let first = page.replace(
        "curl -s",
        &format!("curl -s -H 'accountId: {DEMO_ACCOUNT_ID}'"),
    );
    assert_eq!(paste(folder.path(), &first), held);
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).total, calls, "the copy is held");
    assert!(metric("config_last_reload_success_timestamp_seconds") >= began);
    fs::write(&file, "nonsense").unwrap();
    serve.signal("HUP");
    until("the signal is refused", async || metric(refused) == 5.0).await;
    // What is no file: nobody waits for what never comes, and nobody reads what never ends.
    for (number, made) in [
        "true",
        "mkfifo gateway.toml",
        "mkdir gateway.toml",
        "ln -s /dev/zero gateway.toml",
        "ln -s gateway.toml gateway.toml",
        "truncate -s 1G gateway.toml",
    ]
    .into_iter()
    .enumerate()
    {
        paste(folder.path(), &format!("rm -rf gateway.toml; {made}"));
        serve.signal("HUP");
        let refusals = 6.0 + number as f64;
        until(made, async || metric(refused) == refusals).await;
        assert_eq!(paste(folder.path(), &first), held, "{made}");
    }
    serve.signal("TERM");
    let (status, _, log) = serve.ends();
    assert_eq!(status.code(), Some(0), "{log}");
    for said in [
        "accounts added: b",
        "the account is disabled",
        "accounts removed: b",
        "\"trigger\":\"signal\"",
        "the reload was refused",
    ] {
        assert!(log.contains(said), "{said} in {log}");
    }
    assert!(!log.contains(demo.client_secret.expose_secret()));
    // Nobody answers any more.
    let (status, _, errors) = reload();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("no gateway answers"), "{errors}");
}

/// Catches a reload by whoever has no token, by a link, or by a web page; and a token that is not rotated.
#[tokio::test]
async fn a_reload_is_guarded_and_the_guard_is_reloaded() {
    let accounts = numbered(1);
    let kore = kore(&accounts, None).await;
    let hash = |token: &str| Digest::of(token).to_string();
    let running = Changing::start(&kore.base_url(), &accounts, |config| {
        config.admin.token_sha256 = vec![hash("old")];
    })
    .await;
    let target = format!("http://{}/api/reload", running.gateway.admin);
    let post = async |headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(Request::post(&target), |request, (name, value)| {
                request.header(*name, *value)
            });
        running.gateway.ask(request).await
    };
    post(&[]).await.is_problem(401, "unauthorized");
    post(&[("auth", "new")])
        .await
        .is_problem(401, "unauthorized");
    let page = [("auth", "old"), ("origin", "http://evil.example")];
    post(&page).await.is_problem(403, "forbidden");
    let read = running
        .gateway
        .ask(Request::get(&target).header("auth", "old"))
        .await;
    read.is_problem(405, "method_not_allowed");
    assert_eq!(read.header("allow"), "POST");
    running.told.lock().unwrap().admin.token_sha256 = vec![hash("new")];
    let told = post(&[("auth", "old")]).await.ok().json();
    assert_eq!(told["keys"][0], "admin.token_sha256");
    assert_eq!(told["words"][0], "Keys changed: admin.token_sha256.");
    post(&[("auth", "old")])
        .await
        .is_problem(401, "unauthorized");
    post(&[("auth", "new")]).await.ok();
    running.told.lock().unwrap().admin.token_sha256.clear();
    post(&[("auth", "new")])
        .await
        .is_problem(409, "restart_needed");
    post(&[]).await.is_problem(401, "unauthorized");
    let last = running.gateway.reloader.status().unwrap();
    assert_eq!(last.word(), "refused");
    // Probes are told that it was, and operators what was wrong.
    let verbose = running.gateway.operate("/readyz?verbose").await.ok();
    let lines = verbose.text();
    let line = lines.lines().last().unwrap();
    assert!(line.starts_with("reload: refused, ") && line.ends_with(" s ago"));
    let status = format!("http://{}/api/status", running.gateway.admin);
    let status = Request::get(status).header("auth", "new");
    let status = running.gateway.ask(status).await.ok();
    let status: Status = serde_json::from_slice(&status.body).unwrap();
    let told = status.reload.unwrap();
    assert!(!told.applied && told.trigger == "admin");
    assert_eq!(told.words.shown, ["needs a restart: admin.token_sha256"]);
}
