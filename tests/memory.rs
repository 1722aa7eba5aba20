//! What copies hold in memory, measured from outside: by the resident set of a process that holds nothing else.
//!
//! Each test runs in a process of its own, and holds it to the bound that operators are promised: `max_bytes` x 1.15 +
//! 32 MiB at the process's peak. It also sees that the stores were as good as full, or the bound would prove nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of a test has nobody to return an error to"
)]

use std::{
    env, fs, iter,
    process::Command,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use contacts_gateway::{
    contacts::{
        account::Account,
        cache::{
            self, Families, Held,
            entry::{Entry, Lifetime},
            forced::Forced,
            store::{Lists, Pages, Store},
        },
        collection::Collection,
        compress,
        directives::Directives,
        drain::Drain,
        etag::ETag,
        ids::{AccountId, ClientId, StreamId},
        lines::Line,
        list::{List, ListKey, Walked},
        page::{Page, PageKey, Record, Window, contact::Tenant, decode::Asked, envelope::Envelope},
        request::{Class, Coding, Fetch, Request, RequestId, Terms},
        verdict::{Checks, Handling, Verdict},
        walk::{
            self,
            stream::{self, Streams},
        },
    },
    error::Error,
    metrics::Registry,
    service::{Calls, Forecast},
};
use futures_util::StreamExt;
use tokio::{runtime, time::Instant};
use tower::{ServiceBuilder, ServiceExt, service_fn};

const MIB: u64 = 1 << 20;

/// The bound that the stores are built with: the default one.
const MAX_BYTES: u64 = 256 * MIB;

const LIFETIME: Lifetime = Lifetime {
    fresh_for: Duration::from_secs(300),
    stale_for: Duration::from_secs(3600),
};

const THREADS: u64 = 4;

/// Set where a test is in its own process.
const CHILD: &str = "CONTACTS_GATEWAY_TEST_IN_OWN_PROCESS";

/// Runs the test with this name once more, in a process of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "the variable is the test's own, not a setting"
)]
fn alone(name: &str, test: fn()) {
    if env::var_os(CHILD).is_some() {
        return test();
    }
    let child = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    println!("{said}");
    assert!(child.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "{said}");
}

/// A line of the process's own status, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim_start_matches(':').trim();
    kib.strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// Asserts that the memory held is what the stores believe that they hold.
fn assert_within(registry: &Registry) {
    let metrics = String::from_utf8(registry.render().unwrap()).unwrap();
    let sum = |name: &str| -> u64 {
        let values = metrics.lines().filter_map(|line| {
            line.strip_prefix(name)?
                .rsplit_once(' ')?
                .1
                .parse::<u64>()
                .ok()
        });
        values.sum()
    };
    let held = sum("contacts_gateway_cache_bytes{");
    let (now, peak) = (status("VmRSS"), status("VmHWM"));
    println!(
        "{} copies of {:.1} MiB, resident {:.1} MiB, at most {:.1} MiB",
        sum("contacts_gateway_cache_entries{"),
        held as f64 / MIB as f64,
        now as f64 / MIB as f64,
        peak as f64 / MIB as f64,
    );
    assert!(held <= MAX_BYTES && held > MAX_BYTES * 9 / 10, "{held}");
    let bound = MAX_BYTES * 115 / 100 + 32 * MIB;
    assert!(peak <= bound, "{peak} of {bound}");
    // Nor do copies weigh much more than they hold: memory that is paid for is used.
    assert!(now > held * 8 / 10, "{now} for {held}");
}

fn collection(number: u64) -> Arc<Collection> {
    static ACCOUNT: LazyLock<Arc<Account>> = LazyLock::new(|| {
        let id = AccountId::parse("65f7d49a5dd06e2cefa00000").unwrap();
        let client = ClientId::parse("cs-1b2c3d4e").unwrap();
        Arc::new(Account::new("acme", "acme", id, client, &[]))
    });
    let stream = StreamId::parse(&format!("st-00000000-0000-4000-8000-{number:012}")).unwrap();
    Arc::new(Collection::new(ACCOUNT.clone(), stream))
}

/// A page with a body of this size and a record for each 600 bytes, served once to somebody.
fn page(size: usize, number: u64) -> Page {
    page_of(vec![b'x'; size], number)
}

fn page_of(body: Vec<u8>, number: u64) -> Page {
    let size = body.len();
    let record = |at| Record {
        at: at..at + 599,
        id: at..at + 26,
    };
    let records = (0..size as u32 / 600).map(|place| record(600 * place));
    let page = Page {
        body: body.into_boxed_slice().into(),
        etag: ETag::of([&number.to_le_bytes()[..]]),
        limit: 10,
        total: Some(1000),
        has_more: Some(true),
        records: records.collect(),
        foreign: 0,
        no_store: false,
        read_at: Instant::now(),
    };
    drop((page.body.clone(), page.etag.as_bytes().clone()));
    page
}

/// Puts so many pages from several threads at once: the key's number and the body's size for each.
fn put(count: u64, which: impl Fn(u64) -> (u64, usize) + Sync) {
    let registry = Registry::new().unwrap();
    let metrics = Families::new(&registry).unwrap().of("pages");
    let store = Pages::new(MAX_BYTES, LIFETIME, metrics);
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= count {
                        break;
                    }
                    let (number, size) = which(turn);
                    let collection = collection(number);
                    let key = PageKey {
                        epoch: collection.epoch(),
                        collection,
                        window: Window { skip: 0, limit: 10 },
                    };
                    let entry = Entry::new(page(size, turn), &key, Instant::now(), LIFETIME, 0.0);
                    store.put(key, Arc::new(entry));
                }
            });
        }
    });
    store.sweep(Instant::now());
    assert_within(&registry);
}

/// Catches overhead that is not weighed: here it is more than the bodies.
#[test]
fn a_flood_of_small_pages() {
    alone("a_flood_of_small_pages", || {
        put(240_000, |turn| (turn, 300));
    });
}

/// Catches a backlog of large pages that the bound does not see, and memory that is left in pieces.
#[test]
fn a_flood_of_pages_of_all_sizes() {
    const SIZES: [usize; 7] = [300, 6_000, 300, 60_000, 2_000, 6_500, 1_000_000];
    alone("a_flood_of_pages_of_all_sizes", || {
        put(7_000, |turn| (turn, SIZES[turn as usize % SIZES.len()]));
    });
}

/// Catches copies that are replaced and yet held.
#[test]
fn the_same_keys_again_and_again() {
    alone("the_same_keys_again_and_again", || {
        put(75_000, |turn| {
            (turn % 25_000, 600 + (turn * 7_919) as usize % 16_000)
        });
    });
}

/// Digits as chance would have them, which gzip makes about half as long.
fn digits(size: usize, number: u64) -> Vec<u8> {
    let mut state = number;
    let digit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    iter::repeat_with(digit).take(size).collect()
}

fn wanting_gzip(number: u64) -> Request<PageKey> {
    let collection = collection(number);
    Request {
        key: PageKey {
            epoch: collection.epoch(),
            collection,
            window: Window { skip: 0, limit: 10 },
        },
        terms: Terms {
            deadline: Instant::now() + Duration::from_secs(600),
            class: Class::Interactive,
            directives: Directives::default(),
            coding: Coding::Gzip,
            handling: Handling::Default,
            respond_async: false,
            in_pieces: false,
            caller: None,
            id: RequestId::number(0, number),
            trace: None,
        },
    }
}

/// Catches encodings that are not weighed, or not with their copy. They take the way of a request: each page is fetched,
/// kept, and compressed for whoever asked.
#[test]
fn a_flood_of_pages_that_are_wanted_compressed() {
    const SIZES: [usize; 5] = [1_100, 20_000, 2_000, 6_500, 200_000];
    const COUNT: u64 = 8_000;
    alone("a_flood_of_pages_that_are_wanted_compressed", || {
        let registry = Registry::new().unwrap();
        let metrics = Families::new(&registry).unwrap().of("pages");
        let store = Arc::new(Pages::new(MAX_BYTES, LIFETIME, metrics.clone()));
        let held = Arc::new(Held::new(store.clone()));
        let upstream = service_fn(async |fetch: Fetch<PageKey>| {
            let number = fetch.key.collection.number();
            let size = SIZES[number as usize % SIZES.len()];
            Ok::<_, Error>(page_of(digits(size, number), number))
        });
        let stage = ServiceBuilder::new()
            .layer(compress::layer(held.clone(), &metrics))
            .layer(cache::layer(
                held,
                Arc::new(Forced::new(0)),
                LIFETIME,
                || 0.0,
                metrics,
            ))
            .service(upstream);
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            // As many at once as there are turns to compress, so that nobody goes without.
            let asking = (0..2).map(|first| {
                let stage = stage.clone();
                tokio::spawn(async move {
                    for number in (first..COUNT).step_by(2) {
                        let answer = stage.clone().oneshot(wanting_gzip(number)).await;
                        let answer = answer.unwrap().complete().await;
                        assert!(answer.encoded().is_some(), "{number}");
                    }
                })
            });
            for asking in asking.collect::<Vec<_>>() {
                asking.await.unwrap();
            }
        });
        store.sweep(Instant::now());
        assert_within(&registry);
    });
}

/// Catches parts of a list that are not weighed.
#[test]
fn a_flood_of_lists() {
    alone("a_flood_of_lists", || {
        let registry = Registry::new().unwrap();
        let metrics = Families::new(&registry).unwrap().of("lists");
        let store = Lists::new(MAX_BYTES, metrics);
        let envelope = r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalResults":10}"#;
        for number in 0..20_000 {
            // One record of some bytes on each page, or a hundred pages of many.
            let (pages, size) = if number % 200 == 0 {
                (100, 60_000)
            } else {
                (2, 600)
            };
            let now = Instant::now();
            let part = |place: u64| {
                let page = page(size, place);
                (page.body, page.records.into_vec())
            };
            let parts: Vec<(Bytes, Vec<Record>)> = (0..pages).map(part).collect();
            let walked = Walked {
                pages: parts.len(),
                calls: parts.len(),
                oldest: now,
                took: Duration::ZERO,
                gap: 0,
                foreign: 0,
                no_store: false,
            };
            let template = Envelope::read(envelope).unwrap().template();
            let list = List::splice(parts, template, Verdict::Verified(Checks::Seam), walked);
            let collection = collection(number);
            let key = ListKey {
                epoch: collection.epoch(),
                collection,
            };
            let entry = Arc::new(Entry::new(list, &key, now, LIFETIME, 0.0));
            store.put(key, entry);
        }
        assert_within(&registry);
    });
}

/// A million contacts of 70 bytes, in pages that are written when they are asked for.
const CONTACTS: u64 = 1_000_000;

async fn page_of_contacts(fetch: Fetch<PageKey>) -> Result<Page, Error> {
    let Window { skip, limit } = fetch.key.window;
    let end = (skip + u64::from(limit)).min(CONTACTS);
    let records: Vec<_> = (skip..end)
        .map(|number| format!(r#"{{"id":"{number:024x}","fullName":"Someone {number:020}"}}"#))
        .collect();
    let (results, more) = (records.join(","), end < CONTACTS);
    let body = format!(
        r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"hasMore":{more},"totalResults":{CONTACTS}}}"#
    );
    let tenant = Tenant {
        account: "65f7d49a5dd06e2cefa00000",
        stream: "st-1",
    };
    let asked = Asked {
        window: Window { skip, limit },
        pages: false,
        tenant,
    };
    Page::decode(body.into(), asked, Instant::now())
}

/// The forecast for an account whose calls need not wait.
#[derive(Debug)]
struct Unbounded;

impl Forecast for Unbounded {
    fn ends_at(&self, _: &Collection, _: Class, _: Calls, now: Instant) -> Instant {
        now
    }
}

/// Catches a list that is held although it is only sent, and ids that are kept as they are. The promise is 64 MiB.
#[test]
fn a_million_contacts_as_lines() {
    alone("a_million_contacts_as_lines", || {
        let registry = Registry::new().unwrap();
        let config = walk::Config {
            page_limit_max: 1_000,
            ..walk::Config::default()
        };
        let metrics = stream::Metrics::new(&registry).unwrap();
        let streams = Streams::new(
            config,
            false,
            Arc::new(Unbounded),
            Drain::default(),
            metrics,
            service_fn(page_of_contacts),
        );
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let collection = collection(1);
        let request = Request {
            key: ListKey {
                epoch: collection.epoch(),
                collection,
            },
            terms: wanting_gzip(0).terms,
        };
        runtime.block_on(async {
            let before = status("VmRSS");
            let mut lines = streams.open(request).unwrap().lines;
            let (mut contacts, mut bytes, mut end) = (0, 0, None);
            while let Some(line) = lines.next().await {
                match line.unwrap() {
                    Line::Contacts(run) => {
                        contacts += run.at.len() as u64;
                        bytes += run.at.iter().map(|at| at.len() as u64).sum::<u64>();
                    }
                    Line::Progress(_) => {}
                    Line::End(ending) => end = Some(ending),
                }
            }
            assert_eq!(contacts, CONTACTS);
            let end = end.unwrap();
            assert_eq!(end.verdict, Verdict::Verified(Checks::Seam));
            assert_eq!(end.records, CONTACTS);
            let grown = status("VmHWM") - before;
            println!(
                "{contacts} contacts of {:.0} MiB: {:.1} MiB more at the peak",
                bytes as f64 / MIB as f64,
                grown as f64 / MIB as f64,
            );
            assert!(grown < 64 * MIB, "{grown}");
            // Or something else was measured.
            assert!(grown > 8 * MIB, "{grown}");
        });
    });
}
