use std::{
    collections::{BTreeSet, hash_map::RandomState},
    future::{Ready, ready},
    hash::BuildHasher,
    sync::LazyLock,
};

use futures_util::FutureExt;

use super::*;
use crate::{
    contacts::{
        account::{self, Accounts, StreamConfig},
        cache::{entry::Entry, store::Lists},
        collections::{self, Collections},
        ids::StreamId,
        page::{Page, PageKey, Window},
        testing,
        verdict::Checks,
    },
    served::Forward,
};

/// An account with so many streams, or an open one.
fn account(number: usize, streams: usize) -> account::Config {
    let stream = |place| StreamConfig {
        name: format!("name-{place}"),
        stream_id: format!("st-{number}-{place}"),
    };
    account::Config {
        name: format!("n{number}"),
        account_id: format!("a{number}"),
        client_id: format!("cs-{number}"),
        streams: (0..streams).map(stream).collect(),
        ..account::Config::default()
    }
}

fn key(collection: Arc<Collection>) -> PageKey {
    PageKey {
        epoch: collection.epoch(),
        collection,
        window: Window { skip: 0, limit: 10 },
    }
}

/// What is below, and gives what it is told to.
#[derive(Clone)]
struct Gives(Result<(Served, Duration)>);

impl Service<Request<PageKey>> for Gives {
    type Response = Answer<Page>;
    type Error = Error;
    type Future = Ready<Result<Answer<Page>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<PageKey>) -> Self::Future {
        static COPY: LazyLock<Arc<Entry<Page>>> = LazyLock::new(|| {
            let now = Instant::now();
            testing::kept(testing::page(0, 10, 5, now), now)
        });
        ready(self.0.clone().map(|(served, age)| Answer {
            age,
            ..Answer::new(COPY.clone(), served, Instant::now())
        }))
    }
}

fn ask(families: &Arc<Families>, key: &PageKey, gives: Result<(Served, Duration)>) {
    let mut stage = layer(families.clone()).layer(Gives(gives));
    let request = testing::request(key.clone());
    assert!(stage.call(request).now_or_never().is_some());
}

fn lines(registry: &Registry) -> Vec<String> {
    let text = String::from_utf8(registry.render().unwrap()).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("contacts_gateway_collection_"))
        .map(str::to_owned)
        .collect()
}

fn error(kind: Kind) -> Result<(Served, Duration)> {
    Err(Error::new(kind, "for a test"))
}

#[test]
fn each_request_counts_once_by_what_its_caller_got() {
    let registry = Registry::new().unwrap();
    let accounts = Accounts::new(&[account(0, 2)]).unwrap();
    let families = Arc::new(Families::new(&registry).unwrap());
    families.show(&accounts);
    let acme = accounts.get("a0").unwrap();
    let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
    let collections = Collections::new(10, lists);
    let key = key(collections.get(acme, "st-0-1").unwrap());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for served in Served::ALL {
        ask(&families, &key, Ok((served, minutes(4))));
    }
    let failed = Served::Stale(Some(Kind::Upstream5xx));
    ask(&families, &key, Ok((failed, minutes(20))));
    for kind in [
        Kind::StreamNotFound,
        Kind::OnlyIfCached,
        Kind::MergeInProgress,
        Kind::MergeTooLarge,
        Kind::Upstream5xx,
        Kind::BudgetExhausted,
        Kind::Internal,
    ] {
        ask(&families, &key, error(kind));
    }
    let counts = key.collection.counts.load_full().unwrap();
    for verdict in [
        Ok(Verdict::Verified(Checks::Seam)),
        Ok(Verdict::Verified(Checks::Twice)),
        Ok(Verdict::Settled),
        Ok(Verdict::Drifting),
        Err(Kind::MergeDrifting),
        Err(Kind::Upstream5xx),
    ] {
        counts.list(verdict);
    }
    let lines = lines(&registry);
    let labels = "account=\"n0\",stream=\"name-1\"";
    for expected in [
        format!("requests_total{{{labels},result=\"hit\"}} 3"),
        format!("requests_total{{{labels},result=\"fetched\"}} 6"),
        format!("requests_total{{{labels},result=\"stale\"}} 2"),
        format!("requests_total{{{labels},result=\"refused\"}} 4"),
        format!("requests_total{{{labels},result=\"failed\"}} 3"),
        format!("age_seconds_count{{{labels}}} 11"),
        format!("age_seconds_bucket{{{labels},le=\"60\"}} 0"),
        format!("age_seconds_bucket{{{labels},le=\"300\"}} 10"),
        format!("age_seconds_bucket{{{labels},le=\"3900\"}} 11"),
        format!("lists_total{{{labels},verdict=\"verified\"}} 2"),
        format!("lists_total{{{labels},verdict=\"consistent\"}} 0"),
        format!("lists_total{{{labels},verdict=\"settled\"}} 1"),
        format!("lists_total{{{labels},verdict=\"drifting\"}} 2"),
        format!("lists_total{{{labels},verdict=\"failed\"}} 1"),
        // The other one is there from the start.
        "requests_total{account=\"n0\",result=\"failed\",stream=\"name-0\"} 0".to_owned(),
    ] {
        let sorted = |line: &str| {
            let parts = line.split(['{', ',', '}']).map(str::to_owned);
            parts.collect::<BTreeSet<_>>()
        };
        let found = lines.iter().any(|line| sorted(line) == sorted(&expected));
        assert!(found, "{expected}: {lines:#?}");
    }
}

/// Catches a label that a caller can write, and one whose number the configuration alone decides.
#[test]
fn a_million_made_up_streams_are_no_series() {
    let registry = Registry::new().unwrap();
    // 25 accounts: the first lists ten streams, the next eleven five each, the rest are open.
    let accounts = |number| match number {
        0 => account(0, 10),
        1..=11 => account(number, 5),
        _ => account(number, 0),
    };
    let accounts = Accounts::new(&(0..25).map(accounts).collect::<Vec<_>>()).unwrap();
    let families = Arc::new(Families::new(&registry).unwrap());
    families.show(&accounts);
    let standing = collections::Metrics::new(&registry).unwrap();
    let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
    let collections = Collections::new(10_000, lists);
    let names = |lines: &[String]| {
        let name = |line: &String| line.rsplit_once(' ').unwrap().0.to_owned();
        lines.iter().map(name).collect::<BTreeSet<_>>()
    };
    let before = names(&lines(&registry));
    // All of the first three accounts, what is not told apart of nine, and nine names of those that are open.
    let named = |name: &str| before.iter().filter(|line| line.contains(name)).count();
    let each = before.len() / (20 + 9 + 9);
    assert_eq!(named("account=\"n0\""), 10 * each);
    assert_eq!(named("stream=\"name-"), 20 * each);

    let open: Vec<_> = accounts.iter().skip(12).collect();
    let random = RandomState::new();
    for number in 0..1_000_000_u64 {
        let account = open[number as usize % open.len()];
        let stream = format!("{:016x}", random.hash_one(number));
        // As many as are remembered are found by name, as each of them would be.
        let collection = match number < 20_000 {
            true => collections.get(account, &stream).unwrap(),
            false => {
                let stream = StreamId::parse(&stream).unwrap();
                Arc::new(Collection::new(account.clone(), stream))
            }
        };
        let key = key(collection);
        let gives = match number % 3 {
            0 => Ok((Served::Fetched(Forward::Miss), Duration::ZERO)),
            1 => error(Kind::Upstream5xx),
            _ => error(Kind::StreamNotFound),
        };
        ask(&families, &key, gives);
    }
    for account in accounts.iter() {
        for (stream, _) in account.listed() {
            let key = key(collections.get(account, stream.as_str()).unwrap());
            ask(&families, &key, error(Kind::Upstream5xx));
        }
    }
    collections.show(accounts.iter(), &standing, Instant::now());
    assert_eq!(names(&lines(&registry)), before);
    assert_eq!(before.len(), 38 * each);
}

/// Catches series of a stream that is listed no more, and a name that it keeps from another.
#[test]
fn names_go_with_the_streams_that_have_them() {
    let registry = Registry::new().unwrap();
    let families = Families::new(&registry).unwrap();
    let named = || {
        let lines = lines(&registry);
        let of = |line: &String| {
            let (_, rest) = line.split_once("account=\"")?;
            let (account, rest) = rest.split_once('"')?;
            let (_, rest) = rest.split_once("stream=\"")?;
            let (stream, _) = rest.split_once('"')?;
            Some(format!("{account} {stream}"))
        };
        lines.iter().filter_map(of).collect::<BTreeSet<_>>()
    };
    let before = Accounts::new(&[account(0, 20), account(1, 2)]).unwrap();
    families.show(&before);
    assert_eq!(named().len(), 21);
    assert!(named().contains("n0 name-19") && named().contains("n1 other"));
    // One less here, and both of the other account's would have its name.
    let after = before.next(&[account(0, 19), account(1, 2)]).unwrap();
    families.show(&after);
    assert!(!named().contains("n0 name-19"));
    assert!(named().contains("n1 name-0") && named().contains("n1 other"));
    let last = after.next(&[account(1, 2)]).unwrap();
    families.show(&last);
    let left = ["n1 name-0", "n1 name-1"].map(str::to_owned);
    assert_eq!(named(), BTreeSet::from(left));
}

/// Catches counters that a collection keeps from before its stream was listed, called otherwise, or gone.
#[test]
fn a_collection_is_counted_by_what_its_stream_is_called_now() {
    let registry = Registry::new().unwrap();
    let families = Arc::new(Families::new(&registry).unwrap());
    let called = |name: &str| {
        let mut config = account(0, 1);
        config.streams[0].name = name.to_owned();
        config
    };
    let mut accounts = Accounts::new(&[account(0, 0)]).unwrap();
    let lists = Arc::new(Lists::new(1 << 20, testing::metrics("lists")));
    let key = key(Collections::new(10, lists)
        .get(accounts.get("a0").unwrap(), "st-0-0")
        .unwrap());
    families.show(&accounts);
    let fetched = || {
        ask(
            &families,
            &key,
            Ok((Served::Fetched(Forward::Miss), Duration::ZERO)),
        )
    };
    fetched();
    let mut seen = Vec::new();
    for next in [called("old"), called("new"), account(1, 1), account(0, 0)] {
        seen.extend(lines(&registry).into_iter().filter(|line| {
            line.starts_with("requests_total") && line.contains("fetched") && !line.ends_with(" 0")
        }));
        let next = accounts.next(&[next]).unwrap();
        accounts.give_way_to(&next);
        families.show(&next);
        accounts = next;
        fetched();
    }
    let expected = ["other", "old", "new"].map(|stream| {
        format!("requests_total{{account=\"n0\",result=\"fetched\",stream=\"{stream}\"}} 1")
    });
    assert_eq!(seen, expected);
    // It is not the one that came back, though that is called the same.
    let mut lines = lines(&registry).into_iter();
    assert!(!lines.any(|line| line.starts_with("requests_total") && !line.ends_with(" 0")));
}
