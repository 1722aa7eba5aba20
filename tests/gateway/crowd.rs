//! Many callers, each with other rights, over the same copies, while upstream fails and secrets change. A few seconds in
//! `tests/run`; `tests/soak` runs it for as long as it is told.

use std::{
    cell::Cell,
    collections::HashSet,
    env, fs,
    io::{self, Write},
    path::Path,
    process,
    time::Duration,
};

use contacts_gateway::{
    contacts::account::StreamConfig,
    edge::caller,
    simulator::{AccountSettings, Settings, Simulator},
    upstream::secret::{Source, Sources},
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::time::{self, Instant};

use crate::{
    access::caller,
    listener::resident,
    support::{Gateway, configuration, fault, path},
};

/// Numbers that look random (xorshift), the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

const ACCOUNTS: usize = 5;
const STREAMS: usize = 4;

/// What a caller may read, by account and stream.
type Grants = [[bool; STREAMS]; ACCOUNTS];

/// A caller of one to three accounts, of each all streams or some.
fn random_caller(number: usize, dice: &mut Dice) -> (caller::Config, Grants) {
    let mut grants = [[false; STREAMS]; ACCOUNTS];
    let mut accounts = HashSet::new();
    for _ in 0..=dice.below(3) {
        accounts.insert(dice.below(ACCOUNTS));
    }
    let streams: Option<HashSet<_>> =
        (dice.below(2) == 0).then(|| (0..=dice.below(2)).map(|_| dice.below(STREAMS)).collect());
    for account in &accounts {
        for (stream, granted) in grants[*account].iter_mut().enumerate() {
            *granted = streams
                .as_ref()
                .is_none_or(|streams| streams.contains(&stream));
        }
    }
    let config = caller::Config {
        accounts: accounts
            .iter()
            .map(|account| format!("account-{account}"))
            .collect(),
        streams: streams.map(|streams| {
            streams
                .iter()
                .map(|stream| format!("st-{stream}"))
                .collect()
        }),
        requests_per_minute: 6_000_000,
        ..caller(&format!("caller-{number}"), &[])
    };
    (config, grants)
}

/// How long it runs, and what it draws.
struct Run {
    seed: u64,
    /// `None` for sixty requests of each caller.
    lasts: Option<Duration>,
    begun: Instant,
}

impl Run {
    #[expect(
        clippy::disallowed_methods,
        reason = "the variables are the test's own, no settings"
    )]
    fn told() -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let minutes = number("CONTACTS_GATEWAY_SOAK_MINUTES");
        Self {
            seed: number("CONTACTS_GATEWAY_SOAK_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15),
            lasts: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
            begun: Instant::now(),
        }
    }

    fn goes_on(&self, requests: usize) -> bool {
        match self.lasts {
            Some(lasts) => self.begun.elapsed() < lasts,
            None => requests < 60,
        }
    }
}

/// What callers got.
#[derive(Debug, Default)]
struct Seen {
    forbidden: Cell<u64>,
    failed: Cell<u64>,
    right: Cell<u64>,
    left: Cell<u64>,
    rotated: Cell<u64>,
}

fn count(what: &Cell<u64>) {
    what.set(what.get() + 1);
}

/// The secret's file of an account.
fn secret_file(folder: &Path, number: usize) -> std::path::PathBuf {
    folder.join(format!("secret-{number}"))
}

/// Fifty callers and twenty collections, whose streams have the same ids in every account, while upstream fails, callers
/// leave and secrets are rotated. Catches any way in which a copy, a list, a slice or a flight gets to somebody who may not
/// read it; and, when it runs for long, memory that grows with what was asked.
#[tokio::test]
async fn every_byte_of_every_answer_is_of_what_its_caller_may_read() {
    let run = Run::told();
    let mut dice = Dice(run.seed | 1);
    let accounts: Vec<_> = (0..ACCOUNTS as u64)
        .map(|number| {
            let account = AccountSettings::numbered(number + 1);
            (0..STREAMS).fold(account, |account, stream| {
                account.stream(&format!("st-{stream}"), 30)
            })
        })
        .collect();
    let ids: Vec<_> = accounts
        .iter()
        .map(|account| account.account_id.clone())
        .collect();
    let (callers, grants): (Vec<_>, Vec<_>) = (0..50)
        .map(|number| random_caller(number, &mut dice))
        .unzip();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = configuration(&kore.base_url(), &accounts);
    config.callers = callers;
    // Copies are fetched anew all the time, and lists take the place of pages.
    config.cache.fresh_for = Duration::from_secs(1);
    config.merge.fresh_for = Duration::from_secs(1);
    for account in &mut config.accounts[..2] {
        let listed = |stream| StreamConfig {
            name: format!("name-{stream}"),
            stream_id: format!("st-{stream}"),
        };
        account.streams = (0..STREAMS).map(listed).collect();
    }
    let secrets = accounts.iter().enumerate().map(|(number, account)| {
        let file = secret_file(folder.path(), number);
        fs::write(&file, account.client_secret.expose_secret()).unwrap();
        Sources {
            first: Source::File(file),
            next: None,
        }
    });
    let gateway = Gateway::start(&config, secrets.collect()).await;
    for (share, text) in [
        (0.05, "status=500"),
        (0.05, "truncate"),
        (0.05, "reset"),
        (0.3, "delay=20ms"),
    ] {
        kore.fault_share(share, fault(text));
    }
    let (seen, running) = (Seen::default(), Cell::new(grants.len()));
    let asking = grants.iter().enumerate().map(async |(number, granted)| {
        let mut dice = Dice(run.seed.wrapping_add(number as u64) | 1);
        let mut requests = 0;
        while run.goes_on(requests) {
            requests += 1;
            ask(&gateway, &ids, number, granted, &mut dice, &seen).await;
        }
        running.set(running.get() - 1);
    });
    let rotating = rotate(&kore, &gateway, &accounts, folder.path(), (&running, &seen));
    let watching = watch(&run, &kore, (&running, &seen));
    tokio::join!(join_all(asking), rotating, watching);
    assert!(
        seen.forbidden.get() > 500 && seen.right.get() > 200,
        "{seen:?}"
    );
    assert!(seen.rotated.get() > 3, "{seen:?}");
}

/// One request of a caller, and whether its answer is what it may have.
async fn ask(
    gateway: &Gateway,
    ids: &[String],
    number: usize,
    granted: &[[bool; STREAMS]; ACCOUNTS],
    dice: &mut Dice,
    seen: &Seen,
) {
    let (account, stream) = (dice.below(ACCOUNTS), dice.below(STREAMS));
    let query = ["", "?skip=10", "?skip=20&limit=7", "?all=true"][dice.below(4)];
    let request = gateway
        .request(&path(&format!("st-{stream}"), query))
        .header("authorization", format!("Bearer caller-{number}-key"))
        .header("accountId", &ids[account])
        .header("cache-control", ["max-age=60", "no-cache"][dice.below(2)]);
    let patience = Duration::from_millis([5, 30, 60_000, 60_000][dice.below(4)]);
    let Ok(answer) = time::timeout(patience, gateway.ask(request)).await else {
        return count(&seen.left);
    };
    let what = format!("caller-{number} {} st-{stream} {query}", ids[account]);
    if !granted[account][stream] {
        answer.is_problem(403, "forbidden");
        return count(&seen.forbidden);
    }
    if answer.status != 200 {
        assert!(answer.status >= 500, "{what}: {}", answer.text());
        return count(&seen.failed);
    }
    let document = answer.json();
    let records = document["results"].as_array().unwrap();
    assert!(!records.is_empty(), "{what}");
    for record in records {
        assert_eq!(record["accountId"], *ids[account], "{what}");
        assert_eq!(record["instanceBotId"], *format!("st-{stream}"), "{what}");
    }
    count(&seen.right);
}

/// Gives each account a new secret in turn, while anybody asks; for a moment both are good.
async fn rotate(
    kore: &Simulator,
    gateway: &Gateway,
    accounts: &[AccountSettings],
    folder: &Path,
    (running, seen): (&Cell<usize>, &Seen),
) {
    let mut old: Vec<_> = accounts
        .iter()
        .map(|account| account.client_secret.expose_secret().to_owned())
        .collect();
    while running.get() > 0 {
        let number = seen.rotated.get() as usize % accounts.len();
        let (id, new) = (
            &accounts[number].account_id,
            format!("secret-{}", seen.rotated.get()),
        );
        kore.add_secret(id, &new).unwrap();
        fs::write(secret_file(folder, number), &new).unwrap();
        gateway.credentials.reread();
        time::sleep(Duration::from_millis(100)).await;
        kore.revoke_secret(id, &old[number]).unwrap();
        old[number] = new;
        count(&seen.rotated);
    }
}

/// Tells once a minute how it goes, and that memory does not grow once each copy has been there.
async fn watch(run: &Run, kore: &Simulator, (running, seen): (&Cell<usize>, &Seen)) {
    /// What the allocator may still come to hold, in MiB. In half an hour a leak of a hundred bytes a request is more.
    const GROWTH_MAX: i64 = 48;
    let mut at_first = None;
    let mut told = 0;
    while running.get() > 0 {
        time::sleep(Duration::from_millis(100)).await;
        let minute = run.begun.elapsed().as_secs() / 60;
        if minute == told {
            continue;
        }
        told = minute;
        kore.clear_requests();
        let now = resident(process::id());
        let _ = writeln!(
            io::stderr(),
            "minute {minute}, seed {}: {now} MiB, {seen:?}",
            run.seed
        );
        // Two minutes are enough for every copy, list and connection to have been there.
        if minute >= 2 {
            let first = *at_first.get_or_insert(now);
            assert!(
                now - first <= GROWTH_MAX,
                "seed {}: from {first} to {now} MiB",
                run.seed
            );
        }
    }
}
