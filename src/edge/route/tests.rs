use std::sync::{Barrier, Mutex};

use http::Request as Http;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        account::{self, Accounts},
        cache::store::Lists,
        collection::Collection,
        page::Window,
        request::RequestId,
        testing,
    },
    edge::{caller::Asker, key::Refusal},
};

const CONTACTS: &str = "/agentassist/api/v1/public/st-1/contacts";

/// Accounts, each with its id for a name, and the streams that it lists: none means that all are open.
fn accounts(accounts: &[(&str, &[&str])]) -> Accounts {
    let stream = |id: &&str| account::StreamConfig {
        name: (*id).to_owned(),
        stream_id: (*id).to_owned(),
    };
    let account = |(id, streams): &(&str, &[&str])| account::Config {
        name: (*id).to_owned(),
        account_id: (*id).to_owned(),
        client_id: format!("cs-{id}"),
        streams: streams.iter().map(stream).collect(),
        ..account::Config::default()
    };
    let configs: Vec<_> = accounts.iter().map(account).collect();
    Accounts::new(&configs).unwrap()
}

fn collections(config: &Config) -> Collections {
    let lists = Lists::new(1 << 20, testing::metrics("lists"));
    Collections::new(config.collections_max, Arc::new(lists))
}

/// What the stage reads requests with, and the accounts that anyone may ask for.
struct Reader {
    resolver: Arc<Resolver>,
    accounts: Arc<Accounts>,
}

impl Reader {
    fn resolve(&self, inbound: Inbound, now: Instant) -> Result<Resolved> {
        self.resolver.resolve(self.of_anyone(inbound), now)
    }

    fn of_anyone(&self, mut inbound: Inbound) -> Inbound {
        if let Asker::Anyone(accounts) = &mut inbound.asker {
            accounts.clone_from(&self.accounts);
        }
        inbound
    }
}

fn resolver(config: Config, style: Style, accounts: Accounts) -> Reader {
    let collections = collections(&config);
    let wait_max = Duration::from_secs(600);
    Reader {
        resolver: Arc::new(Resolver::new(config, wait_max, style, collections)),
        accounts: Arc::new(accounts),
    }
}

/// The stage with one open account.
fn open() -> Reader {
    resolver(Config::default(), Style::Skip, accounts(&[("acme", &[])]))
}

fn inbound(method: &str, uri: &str, headers: &[(&str, &str)], has_body: bool) -> Inbound {
    let mut request = Http::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Inbound {
        head: request.body(()).unwrap().into_parts().0,
        has_body,
        header_lines: headers.len(),
        id: RequestId::parse(b"req-1").unwrap(),
        trace: None,
        asker: Asker::Anyone(Arc::default()),
    }
}

/// Where a request is sent, in a few words, or why it is not.
fn told(outcome: Result<Resolved>) -> std::result::Result<String, Kind> {
    let of = |collection: &Collection| format!("{}/{}", collection.account.name, collection.stream);
    match outcome {
        Ok(Resolved::Page(request)) => {
            let PageKey {
                collection, window, ..
            } = &request.key;
            let Window { skip, limit } = window;
            Ok(format!("{} {skip}+{limit}", of(collection)))
        }
        Ok(Resolved::List(request)) => Ok(format!("{} all", of(&request.key.collection))),
        Ok(Resolved::Lines(wanted)) => Ok(format!("{} all lines", of(&wanted.list.key.collection))),
        Err(error) => Err(error.kind()),
    }
}

fn route(
    resolver: &Reader,
    uri: &str,
    headers: &[(&str, &str)],
) -> std::result::Result<String, Kind> {
    told(resolver.resolve(inbound("GET", uri, headers, false), Instant::now()))
}

fn key(resolver: &Reader, uri: &str, headers: &[(&str, &str)]) -> PageKey {
    match resolver.resolve(inbound("GET", uri, headers, false), Instant::now()) {
        Ok(Resolved::Page(request)) => request.key,
        other => panic!("not a page: {other:?}"),
    }
}

/// The contacts of a stream.
fn of(stream: &str) -> String {
    format!("/agentassist/api/v1/public/{stream}/contacts")
}

/// Catches a resolver that takes whoever was not admitted for an operator.
#[test]
fn whoever_is_unknown_is_not_anyone() {
    let unknown = Inbound {
        asker: Asker::Unknown(Refusal::Missing),
        ..inbound("GET", CONTACTS, &[], false)
    };
    let outcome = open().resolve(unknown, Instant::now());
    assert_eq!(told(outcome), Err(Kind::Unauthorized));
}

#[test]
fn a_request_for_contacts_becomes_a_window_or_a_list() {
    let [skip, page] = [Style::Skip, Style::Page]
        .map(|style| resolver(Config::default(), style, accounts(&[("acme", &[])])));
    for (resolver, query, outcome) in [
        (&skip, "", Ok("acme/st-1 0+10")),
        (&skip, "?", Ok("acme/st-1 0+10")),
        (&skip, "?skip=45&limit=7", Ok("acme/st-1 45+7")),
        (&skip, "?all=true", Ok("acme/st-1 all")),
        (&skip, "?page=2", Err(Kind::BadParameter)),
        (&skip, "?limit=1001", Err(Kind::BadParameter)),
        (&page, "", Ok("acme/st-1 0+10")),
        (&page, "?page=3&limit=100", Ok("acme/st-1 200+100")),
        (&page, "?all=true", Ok("acme/st-1 all")),
        (&page, "?skip=2", Err(Kind::BadParameter)),
    ] {
        let uri = format!("{CONTACTS}{query}");
        assert_eq!(
            route(resolver, &uri, &[]),
            outcome.map(str::to_owned),
            "{query}"
        );
    }
}

#[test]
fn what_is_no_request_for_contacts_is_refused() {
    let long = |length: usize| format!("{CONTACTS}?{}", "x".repeat(length - CONTACTS.len() - 1));
    for (method, uri, has_body, outcome) in [
        ("GET", CONTACTS, false, None),
        ("HEAD", CONTACTS, false, None),
        (
            "GET",
            "http://localhost:8080/agentassist/api/v1/public/st-1/contacts",
            false,
            None,
        ),
        ("GET", &of("s%74-1"), false, None),
        ("POST", CONTACTS, false, Some(Kind::MethodNotAllowed)),
        ("POST", CONTACTS, true, Some(Kind::MethodNotAllowed)),
        ("DELETE", "/", false, Some(Kind::MethodNotAllowed)),
        ("OPTIONS", "*", false, Some(Kind::MethodNotAllowed)),
        (
            "CONNECT",
            "localhost:8080",
            false,
            Some(Kind::MethodNotAllowed),
        ),
        ("get", CONTACTS, false, Some(Kind::MethodNotAllowed)),
        ("GET", CONTACTS, true, Some(Kind::BodyNotAllowed)),
        ("HEAD", CONTACTS, true, Some(Kind::BodyNotAllowed)),
        ("GET", "/", false, Some(Kind::NotFound)),
        ("GET", "*", false, Some(Kind::MethodNotAllowed)),
        (
            "GET",
            "/agentassist/api/v1/public/st-1/contacts.css",
            false,
            Some(Kind::NotFound),
        ),
        ("GET", &of(""), false, Some(Kind::BadStream)),
        ("GET", &of("..%2f"), false, Some(Kind::BadStream)),
        ("GET", &of("%252f"), false, Some(Kind::BadStream)),
        ("GET", &long(8 * 1024), false, Some(Kind::BadParameter)),
        ("GET", &long(8 * 1024 + 1), false, Some(Kind::UriTooLong)),
        ("GET", &long(60 * 1024), false, Some(Kind::UriTooLong)),
    ] {
        let request = inbound(method, uri, &[], has_body);
        let kind = told(open().resolve(request, Instant::now())).err();
        assert_eq!(kind, outcome, "{method} {uri:.80} {has_body}");
    }
}

#[test]
fn the_account_is_the_one_that_is_named_or_the_only_one_it_can_be() {
    let one = accounts(&[("acme", &[])]);
    let many = accounts(&[
        ("acme", &["st-1", "st-both"]),
        ("zeta", &["st-2", "st-both"]),
        ("open", &[]),
    ]);
    let [one, many] =
        [one, many].map(|accounts| resolver(Config::default(), Style::Skip, accounts));
    let named = |id| ("accountId", id);
    for (resolver, stream, headers, outcome) in [
        (&one, "st-any", &[][..], Ok("acme/st-any 0+10")),
        (&one, "st-any", &[named("acme")], Ok("acme/st-any 0+10")),
        (&one, "st-any", &[named("zeta")], Err(Kind::UnknownAccount)),
        (&one, "st-any", &[named("ACME")], Err(Kind::UnknownAccount)),
        (
            &one,
            "st-any",
            &[("ACCOUNTID", "acme")],
            Ok("acme/st-any 0+10"),
        ),
        // Implied by a stream that exactly one account lists.
        (&many, "st-1", &[], Ok("acme/st-1 0+10")),
        (&many, "st-2", &[], Ok("zeta/st-2 0+10")),
        (&many, "st-both", &[], Err(Kind::BadAccount)),
        (&many, "st-any", &[], Err(Kind::BadAccount)),
        (&many, "st-both", &[named("acme")], Ok("acme/st-both 0+10")),
        (&many, "st-both", &[named("zeta")], Ok("zeta/st-both 0+10")),
        // Listed streams close the others; an account without a list is open.
        (&many, "st-2", &[named("acme")], Err(Kind::StreamNotFound)),
        (&many, "st-any", &[named("acme")], Err(Kind::StreamNotFound)),
        (&many, "st-1", &[named("open")], Ok("open/st-1 0+10")),
        // Malformed, even where it would be implied.
        (&many, "st-1", &[named("")], Err(Kind::BadAccount)),
        (
            &many,
            "st-1",
            &[named("acme"), named("acme")],
            Err(Kind::BadAccount),
        ),
        (&many, "st-1", &[named("acme,zeta")], Err(Kind::BadAccount)),
        (&many, "st-1", &[named("acme zeta")], Err(Kind::BadAccount)),
        (&many, "st-1", &[named("../acme")], Err(Kind::BadAccount)),
        (&many, "st-1", &[named("\u{e9}")], Err(Kind::BadAccount)),
        // Another header altogether.
        (
            &many,
            "st-1",
            &[("account_id", "zeta")],
            Ok("acme/st-1 0+10"),
        ),
        (
            &many,
            "st-1",
            &[("account-id", "zeta")],
            Ok("acme/st-1 0+10"),
        ),
    ] {
        let outcome = outcome.map(str::to_owned);
        assert_eq!(
            route(resolver, &of(stream), headers),
            outcome,
            "{stream} {headers:?}"
        );
    }
}

#[test]
fn json_is_answered_to_whoever_takes_it() {
    for (accept, accepted) in [
        (&[][..], true),
        (&["*/*"], true),
        (&["application/*"], true),
        (&["application/json"], true),
        (&["Application/JSON"], true),
        (&["application/json; charset=utf-8"], true),
        (&["application/json;q=0.001"], true),
        (&["text/html, application/json"], true),
        (&["text/html;q=0.9,*/*;q=0.1"], true),
        (&["text/html", "application/json"], true),
        (&["text/html", "text/plain, */*"], true),
        (&["application/x-ndjson, application/json;q=0.5"], true),
        (&["*/*;q=0, application/json"], true),
        (&["application/*;q=0", "application/json;q=1"], true),
        (&["application/json;q=0"], false),
        (&["application/json; q=0.000"], false),
        (&["application/json;Q=0"], false),
        // The most specific range decides.
        (&["application/json;q=0, */*"], false),
        (&["*/*", "application/json;q=0"], false),
        (&["*/*, application/*;q=0"], false),
        (&["text/html"], false),
        (&["text/*"], false),
        (&["application/x-ndjson"], false),
        (&["application/problem+json"], false),
        (&["application/jsonp"], false),
        (&["json"], false),
    ] {
        let headers: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
        let kind = route(&open(), CONTACTS, &headers).err();
        let expected = (!accepted).then_some(Kind::NotAcceptable);
        assert_eq!(kind, expected, "{accept:?}");
    }
}

#[test]
fn what_else_a_caller_sends_changes_nothing() {
    let resolver = open();
    let plain = key(&resolver, CONTACTS, &[]);
    for header in [
        ("auth", "x"),
        ("authorization", "Bearer x"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/other"),
        ("x-original-url", "/other"),
        ("x-http-method-override", "DELETE"),
        ("connection", "accountId"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("range", "bytes=0-1"),
        ("accept-encoding", "zstd"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(key(&resolver, CONTACTS, &[header]), plain, "{header:?}");
    }
}

#[test]
fn a_stream_is_one_collection_and_two_accounts_never_share_one() {
    let accounts = accounts(&[("acme", &[]), ("zeta", &[])]);
    let resolver = resolver(Config::default(), Style::Skip, accounts);
    let of = |id, stream: &str| key(&resolver, &of(stream), &[("accountid", id)]);
    let first = of("acme", "st-1");
    // However it is written, and whatever is asked of it.
    for (stream, query) in [("st-1", ""), ("st-1", "?skip=20"), ("s%74-1", "")] {
        let uri = format!("/agentassist/api/v1/public/{stream}/contacts{query}");
        let again = key(&resolver, &uri, &[("accountid", "acme")]);
        assert!(Arc::ptr_eq(&again.collection, &first.collection));
        assert_eq!(again.epoch, first.epoch);
    }
    for other in [of("zeta", "st-1"), of("acme", "st-2"), of("acme", "ST-1")] {
        assert_ne!(other.collection, first.collection);
        assert_ne!(other, first);
    }
}

#[test]
fn the_first_requests_of_a_stream_share_its_collection_however_many_come_at_once() {
    let resolver = open();
    // A race, so it is run often; what two threads made of it must be the same every time.
    let barrier = Barrier::new(2);
    for number in 0..500 {
        let uri = of(&format!("st-{number}"));
        let made = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    let key = key(&resolver, &uri, &[]);
                    made.lock().unwrap().push(key.collection);
                });
            }
        });
        let made = made.into_inner().unwrap();
        assert!(Arc::ptr_eq(&made[0], &made[1]), "{uri}");
    }
}

#[test]
fn a_map_that_forgets_changes_no_answer() {
    let config = Config {
        collections_max: 16,
        ..Config::default()
    };
    let resolver = resolver(config, Style::Skip, accounts(&[("acme", &[])]));
    let uri = |number: u32| of(&format!("st-{number}"));
    let before: Vec<_> = (0..1000)
        .map(|number| key(&resolver, &uri(number), &[]))
        .collect();
    assert!(resolver.resolver.collections.remembered() <= 16);
    for (number, before) in (0..).zip(&before) {
        // Not the same in memory, but the same for whoever looks something up.
        assert_eq!(key(&resolver, &uri(number), &[]), *before);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_and_lists_are_asked_each_on_its_terms() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (by_page, by_list) = (asked.clone(), asked.clone());
    let refused = || Error::new(Kind::OnlyIfCached, "nothing is held");
    let pages = service_fn(move |request: Request<PageKey>| {
        by_page.lock().unwrap().push(("page", request.terms));
        ready(Err::<Answer<Page>, _>(refused()))
    });
    let lists = service_fn(move |request: Request<ListKey>| {
        by_list.lock().unwrap().push(("list", request.terms));
        ready(Err::<Answer<List>, _>(refused()))
    });
    let by_line = asked.clone();
    let lines = service_fn(move |wanted: LinesRequest| {
        by_line.lock().unwrap().push(("lines", wanted.list.terms));
        ready(Err::<Told, _>(refused()))
    });
    let config = Config {
        request_timeout: Duration::from_secs(7),
        ..Config::default()
    };
    let resolver = resolver(config, Style::Skip, accounts(&[("acme", &[])]));
    let stage = Route::new(resolver.resolver.clone(), pages, lists, lines);
    for query in [
        "?skip=10",
        "?all=true",
        "?skip=x",
        "?all=true&progress=true",
    ] {
        let inbound = inbound("GET", &format!("{CONTACTS}{query}"), &[], false);
        let inbound = resolver.of_anyone(inbound);
        assert!(stage.clone().oneshot(inbound).await.is_err());
    }
    let asked = asked.lock().unwrap();
    let told: Vec<_> = asked
        .iter()
        .map(|(which, terms)| (*which, terms.class))
        .collect();
    let bulk = |which| (which, Class::Bulk);
    let page = ("page", Class::Interactive);
    assert_eq!(told, [page, bulk("list"), bulk("lines")]);
    for (_, terms) in &*asked {
        assert_eq!(terms.deadline, Instant::now() + Duration::from_secs(7));
        assert_eq!(terms.id.to_string(), "req-1");
    }
}
