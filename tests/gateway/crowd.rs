//! Many callers, each with other rights, over the same copies.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use contacts_gateway::{
    config::Config,
    contacts::account::StreamConfig,
    edge::{caller, key::Digest},
    reload::Trigger,
    simulator::AccountSettings,
    upstream::{secret::Secret, token::Secrets},
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::time;

use crate::{
    access::caller,
    support::{World, configuration, fault, path},
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
        requests_at_once: 1_000_000,
        key_sha256: keys(number, 0),
        ..caller(&format!("caller-{number}"), &[])
    };
    (config, grants)
}

/// For so many reloads a key is good.
const KEYS: usize = 4;

/// The keys of a caller, of which the last is shown. Each reload rotates them by one.
fn keys(caller: usize, round: usize) -> Vec<String> {
    let key = |round| Digest::of(&key(caller, round)).to_string();
    (round..round + KEYS).map(key).collect()
}

fn key(caller: usize, round: usize) -> String {
    format!("caller-{caller}-key-{round}")
}

/// The configuration of a round: keys are rotated, two accounts take turns at each other's names, and every third time an
/// account is away.
fn of_round(config: &Config, round: usize) -> Config {
    let mut config = config.clone();
    for (number, caller) in config.callers.iter_mut().enumerate() {
        caller.key_sha256 = keys(number, round);
    }
    if round % 2 == 1 {
        let [three, four] = &mut config.accounts[3..] else {
            panic!("five accounts")
        };
        std::mem::swap(&mut three.account_id, &mut four.account_id);
        std::mem::swap(&mut three.client_id, &mut four.client_id);
    }
    if round % 3 == 2 {
        config.accounts.remove(2);
        for caller in &mut config.callers {
            caller.accounts.retain(|account| account != "account-2");
        }
    }
    config
}

/// Whether a caller may read a stream in every round, or else in none, or else in some.
fn may(granted: &Grants, account: usize, stream: usize) -> Option<bool> {
    let of = |account: usize| granted[account][stream];
    match account {
        2 => (!of(2)).then_some(false),
        3 | 4 => (of(3) == of(4)).then_some(of(3)),
        _ => Some(of(account)),
    }
}

/// Fifty callers and twenty collections, whose streams have the same ids in every account, while upstream fails, callers
/// leave, and the configuration is reloaded again and again. Catches any way in which a copy, a list, a slice or a flight gets
/// to somebody who may not read it, and a key that is refused although it is good before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_every_answer_is_of_what_its_caller_may_read() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut dice = Dice(SEED);
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
    let change = |config: &mut Config| {
        config.callers.clone_from(&callers);
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
    };
    let world = World::with(|settings| settings.accounts.clone_from(&accounts), change).await;
    for (share, text) in [
        (0.05, "status=500"),
        (0.05, "truncate"),
        (0.05, "reset"),
        (0.3, "delay=20ms"),
    ] {
        world.kore.fault_share(share, fault(text));
    }
    let mut first = configuration(&world.kore.base_url(), &accounts);
    change(&mut first);
    let (round, done) = (&AtomicUsize::new(0), &AtomicBool::new(false));
    let next = Arc::new(AtomicUsize::new(0));
    let reading = next.clone();
    let known = accounts.clone();
    world.gateway.reloader.read_from(move || {
        let config = of_round(&first, reading.load(Ordering::SeqCst));
        let secret = |id: &str| {
            let account = known.iter().find(|account| account.account_id == id);
            account.map(|account| Secret::new(account.client_secret.expose_secret()))
        };
        let ids = config.accounts.iter().map(|account| &*account.account_id);
        let secrets: Vec<_> = ids.map(secret).collect();
        Ok((config, Secrets::from(secrets)))
    });
    let reloading = async {
        while !done.load(Ordering::SeqCst) {
            let to = next.fetch_add(1, Ordering::SeqCst) + 1;
            let status = world.gateway.reloader.reload(Trigger::Signal).await;
            assert_eq!(status.word(), "applied", "{status:?}");
            round.store(to, Ordering::SeqCst);
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let asking = grants.iter().enumerate().map(|(number, granted)| {
        let (mut dice, gateway, ids) = (Dice(SEED + number as u64), &world.gateway, &ids);
        async move {
            let mut seen = [0; 3];
            for _ in 0..60 {
                let (account, stream) = (dice.below(ACCOUNTS), dice.below(STREAMS));
                let query = ["", "?skip=10", "?skip=20&limit=7", "?all=true"][dice.below(4)];
                let began = round.load(Ordering::SeqCst);
                let request = gateway
                    .request(&path(&format!("st-{stream}"), query))
                    .header("auth", key(number, began + KEYS - 1))
                    .header("accountId", &ids[account])
                    .header("cache-control", ["max-age=60", "no-cache"][dice.below(2)]);
                let patience = Duration::from_millis([5, 30, 60_000, 60_000][dice.below(4)]);
                let Ok(answer) = time::timeout(patience, gateway.ask(request)).await else {
                    continue;
                };
                let what = format!("caller-{number} {} st-{stream} {query}", ids[account]);
                if answer.status == 401 {
                    // Late, where the machine is slow.
                    assert!(round.load(Ordering::SeqCst) + 1 >= began + KEYS, "{what}");
                    continue;
                }
                let may = may(granted, account, stream);
                if may == Some(false) || may.is_none() && answer.status == 403 {
                    answer.is_problem(403, "forbidden");
                    seen[0] += 1;
                    continue;
                }
                if answer.status != 200 {
                    assert!(answer.status >= 500, "{what}: {}", answer.text());
                    seen[1] += 1;
                    continue;
                }
                let document = answer.json();
                let records = document["results"].as_array().unwrap();
                assert!(!records.is_empty(), "{what}");
                for record in records {
                    assert_eq!(record["accountId"], *ids[account], "{what}");
                    assert_eq!(record["instanceBotId"], *format!("st-{stream}"), "{what}");
                }
                seen[2] += 1;
            }
            seen
        }
    });
    let asking = async {
        let seen = join_all(asking).await;
        done.store(true, Ordering::SeqCst);
        seen
    };
    let (seen, ()) = tokio::join!(asking, reloading);
    assert!(round.load(Ordering::SeqCst) > 10);
    let count = |outcome: usize| seen.iter().map(|seen| seen[outcome]).sum::<usize>();
    assert!(
        count(0) > 500 && count(2) > 200,
        "{:?}",
        [count(0), count(1), count(2)]
    );
}
