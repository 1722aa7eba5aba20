//! Whatever a caller sends: a right answer or a clear refusal, and nothing of it reaches upstream.

use std::net::SocketAddr;

use contacts_gateway::simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID};

use crate::support::{Answer, Raw, World, path};

/// One request with these header lines beside `Host`, on a connection of its own.
async fn raw(address: SocketAddr, method: &str, target: &str, headers: &[&str]) -> Answer {
    let first = format!("{method} {target} HTTP/1.1");
    let mut lines = vec![first.as_str(), "Host: localhost"];
    lines.extend(headers);
    Raw::to(address).await.ask(&lines).await
}

/// C2. Catches an id that is decoded twice or not at all, or that can leave its place in the path.
#[tokio::test]
async fn strange_paths_and_stream_ids_are_refused_without_a_call() {
    let world = World::new().await;
    let (long, longest) = ("x".repeat(129), "x".repeat(128));
    let streams = [
        "..%2f",
        "..%2f..%2fst-x",
        "%2e%2e",
        "..",
        ".",
        "st%00x",
        "st-x%00",
        "st%0d%0aauth:%20x",
        "%252f",
        "st%252dx",
        "%25",
        "%",
        "%2",
        "%zz",
        "%+1",
        "st;x=1",
        "st;",
        "st%3bx",
        "st%5cx",
        "st%20x",
        "st+x",
        "st*",
        "st%3fskip=1",
        "st%23x",
        "%C3%A9",
        "%ff",
        "st.json",
        "@st",
        "",
        &long,
    ];
    for stream in streams {
        let answer = raw(world.gateway.traffic, "GET", &path(stream, ""), &[]).await;
        assert_eq!(answer.json()["code"], "bad_stream", "{stream:?}");
        answer.is_problem(400, "bad_stream");
    }
    let good = path(DEMO_STREAM_ID, "");
    for target in [
        &format!("{good}.css"),
        &format!("{good}/"),
        &format!("{good}/x.css"),
        &format!("{good};x"),
        &format!("{good}%2fx"),
        &format!("{good}%00"),
        &format!("/{good}"),
        &good.replace("/api", "//api"),
        &good.replace("public/", "public//"),
        &good.replace("/contacts", "//contacts"),
        &good.replace("/contacts", "/../contacts"),
        &good.replace("/contacts", "/x/contacts"),
        &good.replace("/public", "/./public"),
        &good.replace("/v1", "/v2"),
        &good.replace("/agentassist", "/AgentAssist"),
        &good.replace("/contacts", "/Contacts"),
        &good.replace("/contacts", "/%63ontacts"),
        &good.replace("/contacts", ""),
        &format!("/x/..{good}"),
        "/",
        "/metrics",
        "/livez",
        "/_simulator/calls",
    ] {
        let answer = raw(world.gateway.traffic, "GET", target, &[]).await;
        answer.is_problem(404, "not_found");
    }
    // What the parser itself may refuse: then with the bare status, and the end of the connection.
    for stream in [
        "st\\x",
        "st-\u{e9}",
        "st|x",
        "st^x",
        "st\"x",
        "st<x>",
        "st`x",
        "st{x}",
    ] {
        let mut raw = Raw::to(world.gateway.traffic).await;
        let answer = raw
            .ask(&[
                &format!("GET {} HTTP/1.1", path(stream, "")),
                "Host: localhost",
            ])
            .await;
        assert_eq!(answer.status, 400, "{stream}");
        if !answer.body.is_empty() {
            answer.is_problem(400, "bad_stream");
        }
    }
    assert_eq!(world.kore.requests().len(), 0);

    // One decoding is done, and the longest id is long enough.
    let decoded = raw(world.gateway.traffic, "GET", &path("st%2Dx", ""), &[]).await;
    assert_eq!(decoded.ok().json()["results"][0]["instanceBotId"], "st-x");
    let answer = raw(world.gateway.traffic, "GET", &path(&longest, ""), &[]).await;
    assert_eq!(answer.ok().json()["results"][0]["instanceBotId"], longest);
    let seen = world.kore.requests();
    assert_eq!(seen[0].path, path("st-x", ""));
}

/// C3. Catches a second or listed account that is picked from, and a header name that upstream would fold otherwise.
#[tokio::test]
async fn the_account_is_named_once_and_plainly() {
    let accounts = vec![
        AccountSettings::demo(),
        AccountSettings::numbered(1).stream(DEMO_STREAM_ID, 5),
    ];
    let (one, two) = (DEMO_ACCOUNT_ID, accounts[1].account_id.clone());
    let world = World::with(|settings| settings.accounts = accounts.clone(), |_| ()).await;
    let target = path(DEMO_STREAM_ID, "");
    let long = "a".repeat(129);
    let lines = |lines: &[String]| lines.to_vec();
    for headers in [
        // It could be either account's stream.
        lines(&[]),
        lines(&[format!("account_id: {one}")]),
        lines(&[format!("account-id: {one}")]),
        lines(&[format!("X-accountId: {one}")]),
        lines(&[format!("accountId: {one}"), format!("accountId: {one}")]),
        lines(&[format!("accountId: {one}"), format!("ACCOUNTID: {two}")]),
        lines(&["accountId:".to_owned()]),
        lines(&["accountId:  ".to_owned()]),
        lines(&[format!("accountId: {one},{two}")]),
        lines(&[format!("accountId: {one}, {one}")]),
        lines(&[format!("accountId: \"{one}\"")]),
        lines(&[format!("accountId: {one};x")]),
        lines(&[format!("accountId: {one}/")]),
        lines(&["accountId: %36".to_owned()]),
        lines(&["accountId: \u{e9}".to_owned()]),
        lines(&[format!("accountId: {long}")]),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = raw(world.gateway.traffic, "GET", &target, &headers).await;
        assert_eq!(answer.json()["code"], "bad_account", "{headers:?}");
        answer.is_problem(400, "bad_account");
    }
    let unknown = raw(
        world.gateway.traffic,
        "GET",
        &target,
        &["accountId: nobody"],
    );
    unknown.await.is_problem(404, "unknown_account");
    assert_eq!(world.kore.requests().len(), 0);

    for name in ["accountId", "accountid", "ACCOUNTID", "AccountID"] {
        let header = format!("{name}: {two}");
        // The underscore form is ignored, whatever it says.
        let other = format!("account_id: {one}");
        let answer = raw(world.gateway.traffic, "GET", &target, &[&header, &other])
            .await
            .ok();
        assert_eq!(answer.json()["totalResults"], 5, "{name}");
    }
    assert_eq!(world.kore.calls(&two).total, 1);
    assert_eq!(world.kore.calls(one).total, 0);
}

/// C4. Catches a proxy that forwards: upstream's request is built from an account, a stream and two numbers.
#[tokio::test]
async fn no_header_of_the_caller_reaches_upstream_or_changes_what_is_asked() {
    let world = World::with(
        |settings| {
            settings.accounts = vec![
                AccountSettings::demo(),
                AccountSettings::numbered(1).stream(DEMO_STREAM_ID, 5),
            ];
        },
        |_| (),
    )
    .await;
    let other = AccountSettings::numbered(1).account_id;
    let account = format!("accountId: {DEMO_ACCOUNT_ID}");
    let jwt = world.kore.token(&other, std::time::Duration::from_secs(60));
    let tricks: Vec<Vec<String>> = [
        vec!["auth: canary"],
        vec![&format!("auth: {jwt}")],
        vec!["Authorization: Bearer canary"],
        vec!["Authorization: Basic canary", "Proxy-Authorization: canary"],
        vec!["Cookie: canary=1"],
        vec![
            "X-Forwarded-For: canary",
            "X-Forwarded-Host: canary",
            "X-Forwarded-Proto: canary",
            "X-Forwarded-Prefix: /canary",
            "X-Real-IP: canary",
            "Forwarded: host=canary",
            "Via: canary",
        ],
        vec![
            "X-Original-URL: /canary",
            "X-Rewrite-URL: /canary",
            "X-HTTP-Method-Override: POST",
            "X-HTTP-Method: DELETE",
        ],
        vec!["Connection: accountId"],
        vec!["Connection: accountId, auth, close", "Keep-Alive: canary"],
        vec!["TE: trailers, canary", "Trailer: canary"],
        vec!["Connection: Upgrade", "Upgrade: websocket"],
        vec![
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ],
        vec!["Range: bytes=0-1", "Accept-Encoding: canary, br"],
        vec![
            "Content-Type: canary/x",
            "Accept: */*",
            "User-Agent: canary",
        ],
        vec!["Expect: canary"],
        vec!["Content-Length: 0"],
        vec![
            "Max-Forwards: 0",
            "Origin-Canary: canary",
            "Priority: canary",
        ],
    ]
    .into_iter()
    .map(|lines| lines.into_iter().map(str::to_owned).collect())
    .collect();
    for (number, trick) in tricks.iter().enumerate() {
        world.kore.clear_requests();
        let target = path(DEMO_STREAM_ID, &format!("?skip={}&limit=3", number * 3));
        let mut headers: Vec<&str> = vec![&account];
        headers.extend(trick.iter().map(String::as_str));
        let answer = raw(world.gateway.traffic, "GET", &target, &headers).await;
        assert_eq!(answer.status, 200, "{trick:?}: {}", answer.text());
        assert_eq!(answer.json()["results"].as_array().unwrap().len(), 3);
        assert_eq!(answer.json()["totalResults"], 1_000, "{trick:?}");

        let seen = world.kore.requests();
        assert_eq!(seen.len(), 1, "{trick:?}");
        let seen = &seen[0];
        assert_eq!(seen.path, path(DEMO_STREAM_ID, ""));
        assert_eq!(seen.query, format!("skip={}&limit=3", number * 3));
        assert_eq!(seen.header("accountid"), DEMO_ACCOUNT_ID);
        let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "accept-encoding",
                "accountid",
                "auth",
                "content-type",
                "host"
            ],
            "{trick:?}"
        );
        for (name, value) in &seen.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains("canary"), "{name}: {value}");
        }
        assert_ne!(seen.header("auth"), jwt, "the caller's token was passed on");
        assert_eq!(seen.header("host"), world.kore.addr().to_string());

        // Nor is it part of the key.
        let plain = raw(world.gateway.traffic, "GET", &target, &[&account]).await;
        assert!(plain.is_hit(), "{trick:?}");
    }
}

/// C6. Catches a number that is clamped, trimmed, rounded or passed on, and a copy that is served before it is judged.
#[tokio::test]
async fn malformed_queries_are_refused_whatever_is_cached() {
    let world = World::new().await;
    world.get("?skip=0&limit=10").await.ok();
    world.get("?all=true").await.ok();
    world.kore.clear_requests();
    for query in [
        "skip=-1",
        "skip=+1",
        "skip=1e3",
        "skip=01",
        "skip=00",
        "skip=0x10",
        "skip=1.0",
        "skip=9007199254740992",
        "skip=9223372036854775808",
        "skip=18446744073709551616",
        "skip=184467440737095516160",
        "skip=",
        "skip",
        "skip=%31",
        "skip=1%00",
        "skip=1%20",
        "skip=%2b1",
        "skip=1&skip=1",
        "skip=0&limit=10&skip=0",
        "limit=0",
        "limit=-1",
        "limit=+10",
        "limit=010",
        "limit=1e1",
        "limit=",
        "limit=1001",
        "limit=4294967296",
        "limit=4294967306",
        "limit=10&limit=10",
        "limit=10;skip=0",
        "Limit=10",
        "SKIP=0",
        "page=1",
        "skip=0&limit=10&x=1",
        "x",
        "=",
        "&",
        "skip=0&",
        "&skip=0",
        "skip=0&&limit=10",
        "skip[]=0",
        "%73kip=0",
        "all",
        "all=",
        "all=false",
        "all=True",
        "all=1",
        "all=true&all=true",
        "all=true&skip=0",
        "all=true&limit=10",
        "cachebuster=1",
    ] {
        let answer = world.get(&format!("?{query}")).await;
        assert_eq!(answer.json()["code"], "bad_parameter", "{query}");
        answer.is_problem(400, "bad_parameter");
    }
    let long = format!("?skip={}", "1".repeat(8 * 1024));
    world.get(&long).await.is_problem(414, "uri_too_long");
    assert_eq!(world.kore.requests().len(), 0);
    // The largest that is promised is passed on as it is.
    let largest = world.stream("st-limits", "?limit=1000").await.ok();
    assert_eq!(world.kore.requests()[0].query, "skip=0&limit=1000");
    assert_eq!(largest.json()["limit"], 100);
}

/// C6. Catches a request line that is read without a bound, or answered as something else than too long.
#[tokio::test]
async fn a_query_of_64_kib_is_too_long() {
    let world = World::new().await;
    let mut raw = Raw::to(world.gateway.traffic).await;
    let target = path(DEMO_STREAM_ID, &format!("?skip={}", "1".repeat(64 * 1024)));
    let answer = raw
        .ask(&[&format!("GET {target} HTTP/1.1"), "Host: localhost"])
        .await;
    assert_eq!(answer.status, 414);
    assert_eq!(world.kore.requests().len(), 0);
}

/// C9. Catches a method that is passed on or answered like GET, and a refusal that does not say what is allowed.
#[tokio::test]
async fn only_get_and_head_are_answered() {
    let world = World::new().await;
    let target = path(DEMO_STREAM_ID, "");
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE", "get", "PROPFIND",
    ] {
        for address in [world.gateway.traffic, world.gateway.admin] {
            let path = if address == world.gateway.admin {
                "/metrics"
            } else {
                &target
            };
            let answer = raw(address, method, path, &[]).await;
            assert_eq!(answer.status, 405, "{method}");
            answer.is_problem(405, "method_not_allowed");
            assert_eq!(answer.header("allow"), "GET, HEAD");
        }
    }
    let all = raw(world.gateway.traffic, "OPTIONS", "*", &[]).await;
    all.is_problem(405, "method_not_allowed");
    let tunnel = raw(world.gateway.traffic, "CONNECT", "localhost:443", &[]).await;
    tunnel.is_problem(405, "method_not_allowed");
    let star = raw(world.gateway.traffic, "GET", "*", &[]).await;
    star.is_problem(405, "method_not_allowed");
    let kore = format!("http://{}{target}", world.kore.addr());
    for (absolute, status) in [
        (format!("http://localhost{target}"), 200),
        (format!("http://127.0.0.1:1{target}"), 200),
        (format!("http://evil.example{target}"), 403),
        (kore.replace("127.0.0.1", "127.0.0.2"), 403),
        (format!("http:///{target}"), 400),
    ] {
        let answer = raw(world.gateway.traffic, "GET", &absolute, &[]).await;
        assert_eq!(answer.status, status, "{absolute}");
    }
    let seen = world.kore.requests();
    assert_eq!(seen.len(), 1, "the absolute form is the same page");
    assert_eq!(seen[0].path, target);
}

/// Catches a browser on the same machine that reads contacts for a web page, by its own origin or by a name of its own.
#[tokio::test]
async fn both_listeners_answer_only_programs_on_this_machine() {
    let world = World::new().await;
    let target = path(DEMO_STREAM_ID, "");
    let port = world.gateway.traffic.port();
    let ask = async |address, target: &str, lines: &[String]| {
        let first = format!("GET {target} HTTP/1.1");
        let mut all = vec![first.as_str()];
        all.extend(lines.iter().map(String::as_str));
        Raw::to(address).await.ask(&all).await
    };
    for (address, target) in [
        (world.gateway.traffic, target.as_str()),
        (world.gateway.admin, "/metrics"),
        (world.gateway.admin, "/livez"),
    ] {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "evil-localhost",
            "127.0.0.2",
            "0.0.0.0",
            "[::]",
            "2130706433",
            "127.1",
            "localhost.",
            "",
        ] {
            let answer = ask(address, target, &[format!("Host: {host}")]).await;
            assert_eq!(answer.status, 403, "{host:?} on {target}");
            answer.is_problem(403, "forbidden");
        }
        // These are none.
        for host in ["[::1", "::1", "evil.example:localhost", "localhost:x"] {
            let answer = ask(address, target, &[format!("Host: {host}")]).await;
            answer.is_problem(400, "bad_host");
        }
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost",
            &format!("http://127.0.0.1:{port}"),
            "",
        ] {
            let lines = ["Host: localhost".to_owned(), format!("Origin: {origin}")];
            let answer = ask(address, target, &lines).await;
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
            // The ops page is of the host and port that the request names. Callers have no pages.
            if origin == "http://localhost" && address == world.gateway.admin {
                answer.ok();
                continue;
            }
            answer.is_problem(403, "forbidden");
        }
    }
    assert_eq!(world.kore.requests().len(), 0);
    for host in [
        "localhost",
        "LocalHost",
        "localhost:8080",
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        "[::1]",
        "[::1]:8080",
    ] {
        let lines = [format!("Host: {host}")];
        let answer = ask(world.gateway.traffic, &target, &lines).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

/// Catches a HEAD that has a body, that says other things than GET, or that is kept apart from it.
#[tokio::test]
async fn head_equals_get_without_its_body() {
    let world = World::new().await;
    let same = |head: &Answer, get: &Answer| {
        let comparable = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            // What passes between two requests.
            for name in [
                "date",
                "x-request-id",
                "age",
                "cache-status",
                "merge-status",
                "server-timing",
            ] {
                headers.remove(name);
            }
            headers
        };
        assert_eq!(head.status, get.status);
        assert_eq!(comparable(head), comparable(get));
        assert_eq!(head.header("content-length"), get.body.len().to_string());
        assert!(head.body.is_empty());
    };
    let mut raw = Raw::to(world.gateway.traffic).await;
    let mut ask = async |method: &str, query: &str| {
        let target = path(DEMO_STREAM_ID, query);
        raw.write(format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ))
        .await;
        match method {
            "HEAD" => raw.answer_to_head().await,
            _ => raw.answer().await,
        }
    };
    // On one connection: a body after a HEAD would be read as the next answer's head.
    for query in ["?skip=5", "?all=true", "?skip=6"] {
        let head = ask("HEAD", query).await.ok();
        let get = ask("GET", query).await.ok();
        same(&head, &get);
        assert!(get.is_hit(), "HEAD and GET share a copy: {query}");
    }
    let head = ask("HEAD", "?skip=x").await;
    let get = ask("GET", "?skip=x").await;
    // The id is in the body, so lengths agree only because all ids are of one length.
    same(&head, &get);
}

/// Catches an id that is lost, that a caller can forge a log line with, or that two requests share.
#[tokio::test]
async fn a_request_keeps_its_own_id_or_is_given_one() {
    let world = World::new().await;
    let longest = "a".repeat(64);
    let ask = async |id: Option<&str>, query: &str| {
        let request = world.gateway.request(&path(DEMO_STREAM_ID, query));
        let request = match id {
            Some(id) => request.header("x-request-id", id),
            None => request,
        };
        world.gateway.ask(request).await
    };
    for id in ["abc-123", "A", &longest] {
        assert_eq!(ask(Some(id), "").await.header("x-request-id"), id);
        let problem = ask(Some(id), "?skip=x").await;
        problem.is_problem(400, "bad_parameter");
        assert_eq!(problem.json()["request_id"], id);
    }
    let mut given = std::collections::HashSet::new();
    for id in [
        None,
        None,
        Some(""),
        Some("a b"),
        Some("a_b"),
        Some("a\"b"),
        Some("a,b"),
        Some("../x"),
        Some(&"a".repeat(65)),
    ] {
        let answer = ask(id, "").await.ok();
        let name = answer.header("x-request-id").to_owned();
        assert!((1..=64).contains(&name.len()) && id != Some(&name));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        assert!(given.insert(name), "an id is given twice");
    }
}

/// Catches JSON for somebody who said that JSON is not wanted.
#[tokio::test]
async fn a_caller_that_accepts_no_json_is_told_so() {
    let world = World::new().await;
    for accept in [
        "text/html",
        "application/json;q=0",
        "application/xml, text/*",
    ] {
        let request = world.gateway.request(&path(DEMO_STREAM_ID, ""));
        let answer = world.gateway.ask(request.header("accept", accept)).await;
        answer.is_problem(406, "not_acceptable");
    }
    assert_eq!(world.kore.requests().len(), 0);
}

/// Catches an account whose listed streams are not the only ones, and a stream that does not tell its account.
#[tokio::test]
async fn listed_streams_are_the_only_ones_and_name_their_account() {
    let accounts = vec![
        AccountSettings::demo(),
        AccountSettings::numbered(1).stream("st-second", 5),
    ];
    let world = World::with(
        |settings| settings.accounts = accounts,
        |config| {
            for (account, stream) in config
                .accounts
                .iter_mut()
                .zip([DEMO_STREAM_ID, "st-second"])
            {
                let listed = contacts_gateway::contacts::account::StreamConfig {
                    name: "listed".to_owned(),
                    stream_id: stream.to_owned(),
                };
                account.streams.push(listed);
            }
        },
    )
    .await;
    let implied = world
        .gateway
        .ask(world.gateway.request(&path("st-second", "")))
        .await;
    assert_eq!(implied.ok().json()["totalResults"], 5);
    world.kore.clear_requests();
    let foreign = world.gateway.get(&path("st-second", "")).await;
    foreign.is_problem(404, "stream_not_found");
    assert_eq!(world.kore.requests().len(), 0);
}
