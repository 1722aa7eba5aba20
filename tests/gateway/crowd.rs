//! Many callers, each with other rights, over the same copies, while upstream fails, secrets change, and so does who may read
//! what. A few seconds in `tests/run`; `tests/soak` runs it for as long as it is told.

use std::{
    cell::{Cell, RefCell},
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex},
    time::Duration,
};

use contacts_gateway::{
    config::Config,
    contacts::account::StreamConfig,
    reload::Trigger,
    simulator::{AccountSettings, Settings, Simulator},
    upstream::{
        secret::{Source, Sources},
        token::Secrets,
    },
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use tokio::time::{self, Instant};

use self::{
    judge::{CONTACTS, Crowd, Seen, count},
    plan::{ACCOUNTS, CALLERS, Dice, History, NAMES, Plan, STREAMS},
};
use crate::{
    listener::resident,
    support::{Gateway, configuration, fault},
};

mod judge;
mod plan;

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

/// The secret's file of an account.
fn secret_file(folder: &Path, account_id: &str) -> PathBuf {
    folder.join(format!("secret-of-{account_id}"))
}

/// The secrets of a configuration's accounts.
fn secrets(folder: &Path, config: &Config) -> Vec<Sources> {
    let of = |id| Sources {
        first: Source::File(secret_file(folder, id)),
        next: None,
    };
    let accounts = config.accounts.iter();
    accounts.map(|account| of(&account.account_id)).collect()
}

/// What all configurations of a run have in common.
fn base(kore: &Simulator, accounts: &[AccountSettings]) -> Config {
    let mut config = configuration(&kore.base_url(), &accounts[..NAMES]);
    // Copies are fetched anew all the time, and lists take the place of pages.
    config.cache.fresh_for = Duration::from_secs(1);
    config.merge.fresh_for = Duration::from_secs(1);
    // A list is of several pages.
    config.merge.page_limit_max = 16;
    for account in &mut config.accounts[..2] {
        let listed = |stream| StreamConfig {
            name: format!("name-{stream}"),
            stream_id: format!("st-{stream}"),
        };
        account.streams = (0..STREAMS).map(listed).collect();
    }
    config
}

/// Fifty callers and twenty-four collections, whose streams have the same ids in every account, while upstream fails,
/// callers leave, secrets are rotated, and the configuration is reloaded again and again. Catches any way in which a copy,
/// a list, a slice or a flight gets to somebody who may not read it; a key or a right that outlasts the reload that ended
/// it, or begins before; and, when it runs for long, memory that grows with what was asked.
#[tokio::test]
async fn every_byte_of_every_answer_is_of_what_its_caller_may_read() {
    let run = Run::told();
    let accounts: Vec<_> = (1..=ACCOUNTS as u64)
        .map(|number| {
            let account = AccountSettings::numbered(number);
            (0..STREAMS).fold(account, |account, stream| {
                account.stream(&format!("st-{stream}"), CONTACTS)
            })
        })
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for account in &accounts {
        let file = secret_file(folder.path(), &account.account_id);
        fs::write(file, account.client_secret.expose_secret()).unwrap();
    }
    let mut dice = Dice::of(run.seed, CALLERS);
    let plan = Plan::draw(&mut dice);
    let base = base(&kore, &accounts);
    let config = plan.configured(&base, &accounts);
    let gateway = Gateway::start(&config, secrets(folder.path(), &config)).await;
    for (share, text) in [
        (0.05, "status=500"),
        (0.05, "truncate"),
        (0.05, "reset"),
        (0.3, "delay=20ms"),
    ] {
        kore.fault_share(share, fault(text));
    }
    let (history, seen, running) = (History::of(plan), Seen::default(), Cell::new(CALLERS));
    let crowd = &Crowd {
        gateway: &gateway,
        accounts: &accounts,
        history: &history,
        seen: &seen,
        refusals: RefCell::default(),
    };
    let asking = (0..CALLERS).map(async |caller| {
        let mut dice = Dice::of(run.seed, caller);
        let mut requests = 0;
        while run.goes_on(requests) {
            requests += 1;
            crowd.ask(caller, &mut dice).await;
        }
        running.set(running.get() - 1);
    });
    let reloading = reload(crowd, &base, folder.path(), &mut dice, &running);
    let rotating = rotate(&kore, crowd, folder.path(), &running);
    let watching = watch(&run, &kore, (&running, &seen));
    tokio::join!(join_all(asking), reloading, rotating, watching);
    let enough = seen.forbidden.get() > 300
        && seen.unauthorized.get() > 300
        && seen.right.get() > 200
        && seen.rotated.get() > 3
        && seen.reloaded.get() > 10;
    assert!(enough, "seed {}: {seen:?}", run.seed);
}

/// Has another configuration read, again and again; now and then one that is refused, and then nothing of it may hold.
async fn reload(
    crowd: &Crowd<'_>,
    base: &Config,
    folder: &Path,
    dice: &mut Dice,
    running: &Cell<usize>,
) {
    let (history, seen) = (crowd.history, crowd.seen);
    let reloader = &crowd.gateway.reloader;
    let told = Arc::new(Mutex::new(base.clone()));
    let (reading, of) = (told.clone(), folder.to_owned());
    reloader.read_from(move || {
        let config = reading.lock().unwrap().clone();
        let secrets = Secrets::from(secrets(&of, &config));
        Ok((config, secrets))
    });
    while running.get() > 0 {
        time::sleep(Duration::from_millis(dice.below(100) as u64)).await;
        let plan = history.now().plan.next(dice);
        let mut config = plan.configured(base, crowd.accounts);
        let refused = dice.below(8) == 0;
        if refused {
            // What cannot change in a running gateway.
            config.merge.fresh_for *= 2;
        } else {
            history.begins(plan);
        }
        *told.lock().unwrap() = config;
        let status = reloader.reload(Trigger::Signal).await;
        assert_eq!(status.outcome.is_err(), refused, "{status:?}");
        if refused {
            count(&seen.refused);
        } else {
            history.ended();
            count(&seen.reloaded);
        }
    }
}

/// Gives each account a new secret in turn, while anybody asks; for a moment both are good.
async fn rotate(kore: &Simulator, crowd: &Crowd<'_>, folder: &Path, running: &Cell<usize>) {
    let (accounts, seen) = (crowd.accounts, crowd.seen);
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
        fs::write(secret_file(folder, id), &new).unwrap();
        crowd.gateway.credentials.reread();
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
