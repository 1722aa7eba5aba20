//! What every test begins with: a simulated Kore.ai, a gateway in front of it, and ways to ask either.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use contacts_gateway::{
    app::{App, Lost},
    config::Config,
    contacts::account,
    reload::Reloader,
    simulator::{
        AccountSettings, Contacts, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Fault, Rule, Settings,
        Simulator,
    },
    upstream::{
        secret::{Secret, Sources},
        token::Credentials,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time,
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes a tenth of it, unless it hangs.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// Waits for what must come.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let outcome = time::timeout(WATCHDOG, future).await;
    outcome.unwrap_or_else(|_| panic!("did not happen within {WATCHDOG:?}: {what}"))
}

/// Looks until it is so: for a count that has no event of its own.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !so().await {
            time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn fault(text: &str) -> Fault {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The path of a stream's contacts, with a query that begins with `?` or is empty.
pub(crate) fn path(stream: &str, query: &str) -> String {
    format!("/agentassist/api/v1/public/{stream}/contacts{query}")
}

/// A simulator and the gateway in front of it.
pub(crate) struct World {
    pub(crate) kore: Simulator,
    pub(crate) gateway: Gateway,
}

impl World {
    /// The demo's account, with every other stream id open too: a thousand contacts each, and calls without a limit.
    pub(crate) async fn new() -> Self {
        Self::with(|_| (), |_| ()).await
    }

    /// The same, except for what is changed.
    pub(crate) async fn with(
        settings: impl FnOnce(&mut Settings),
        config: impl FnOnce(&mut Config),
    ) -> Self {
        let mut told = Settings {
            accounts: vec![AccountSettings::demo().others(1_000)],
            rate_limit: None,
            ..Settings::default()
        };
        settings(&mut told);
        let accounts = told.accounts.clone();
        let kore = Simulator::start(told).await.unwrap();
        let mut configured = configuration(&kore.base_url(), &accounts);
        config(&mut configured);
        let gateway = Gateway::start(&configured, secrets(&accounts)).await;
        Self { kore, gateway }
    }

    /// Asks the gateway for the demo's stream.
    pub(crate) async fn get(&self, query: &str) -> Answer {
        self.gateway.get(&path(DEMO_STREAM_ID, query)).await
    }

    /// Asks the gateway for another stream of the demo's account.
    pub(crate) async fn stream(&self, stream: &str, query: &str) -> Answer {
        self.gateway.get(&path(stream, query)).await
    }

    /// Asks for a whole list of the demo's account with a preference.
    pub(crate) async fn prefer(&self, stream: &str, preference: &str) -> Answer {
        let request = self.gateway.request(&path(stream, "?all=true"));
        let request = request
            .header("accountId", DEMO_ACCOUNT_ID)
            .header("prefer", preference);
        self.gateway.ask(request).await
    }

    /// Asks the simulator itself, past the gateway.
    pub(crate) async fn direct(&self, account: &str, stream: &str, query: &str) -> Answer {
        let token = self.kore.token(account, Duration::from_secs(600));
        let request = Request::get(format!("{}{}", self.kore.base_url(), path(stream, query)))
            .header("accountId", account)
            .header("auth", token);
        self.gateway
            .send(request.body(Empty::new()).unwrap(), false)
            .await
    }

    /// The calls that the demo's account has cost so far.
    pub(crate) fn calls(&self) -> u64 {
        self.kore.calls(DEMO_ACCOUNT_ID).total
    }

    /// A fault on every call for one stream, until all are cleared.
    pub(crate) fn fault_stream(&self, stream: &str, text: &str) {
        self.kore
            .add_faults(Rule::always(fault(text)).stream(stream));
    }
}

/// A configuration for these accounts, on free ports.
pub(crate) fn configuration(base_url: &str, accounts: &[AccountSettings]) -> Config {
    let mut config = Config::default();
    config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.upstream.base_url = base_url.to_owned();
    config.upstream.allow_plaintext = true;
    // As good as no budget, except where a test is about it.
    config.budget.start_share = 1.0;
    config.accounts = accounts
        .iter()
        .enumerate()
        .map(|(number, account)| account::Config {
            name: format!("account-{number}"),
            account_id: account.account_id.clone(),
            client_id: account.client_id.clone(),
            calls_per_minute: 60_000,
            ..account::Config::default()
        })
        .collect();
    config
}

pub(crate) fn secrets(accounts: &[AccountSettings]) -> Vec<Option<Secret>> {
    let secret = |account: &AccountSettings| Secret::new(account.client_secret.expose_secret());
    accounts
        .iter()
        .map(|account| Some(secret(account)))
        .collect()
}

/// A running gateway. It ends when it is dropped.
pub(crate) struct Gateway {
    pub(crate) traffic: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) reloader: Arc<Reloader>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Lost>>,
    http1: Client<HttpConnector, Empty<Bytes>>,
    http2: Client<HttpConnector, Empty<Bytes>>,
}

impl Gateway {
    pub(crate) async fn start(config: &Config, secrets: Vec<impl Into<Sources>>) -> Self {
        let app = App::bind(config, secrets).await.unwrap();
        let (traffic, admin) = (app.traffic, app.admin);
        let credentials = app.credentials().clone();
        let reloader = app.reloader().clone();
        let stop = CancellationToken::new();
        let client = |http2| {
            Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .build_http()
        };
        Self {
            traffic,
            admin,
            credentials,
            reloader,
            running: tokio::spawn(app.run(stop.clone().cancelled_owned())),
            stop,
            http1: client(false),
            http2: client(true),
        }
    }

    /// In front of something that is no simulator, with the demo's account.
    pub(crate) async fn before(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        let accounts = [AccountSettings::demo()];
        let mut config = configuration(&format!("http://{upstream}"), &accounts);
        change(&mut config);
        Self::start(&config, secrets(&accounts)).await
    }

    /// A request to the traffic listener, without an account.
    pub(crate) fn request(&self, target: &str) -> http::request::Builder {
        Request::get(format!("http://{}{target}", self.traffic))
    }

    /// Asks for the demo's account.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.get_as(DEMO_ACCOUNT_ID, target).await
    }

    pub(crate) async fn get_as(&self, account: &str, target: &str) -> Answer {
        self.ask(self.request(target).header("accountId", account))
            .await
    }

    pub(crate) async fn ask(&self, request: http::request::Builder) -> Answer {
        self.send(request.body(Empty::new()).unwrap(), false).await
    }

    /// Over HTTP/2, whose protocol is known beforehand.
    pub(crate) async fn ask_http2(&self, request: http::request::Builder) -> Answer {
        self.send(request.body(Empty::new()).unwrap(), true).await
    }

    /// Asks the admin listener.
    pub(crate) async fn operate(&self, path: &str) -> Answer {
        self.ask(Request::get(format!("http://{}{path}", self.admin)))
            .await
    }

    /// An answer whose body is the test's to read.
    pub(crate) async fn open(
        &self,
        request: http::request::Builder,
        http2: bool,
    ) -> Response<Incoming> {
        let request = request.body(Empty::new()).unwrap();
        let client = if http2 { &self.http2 } else { &self.http1 };
        let response = soon("an answer begins", client.request(request)).await;
        response.unwrap()
    }

    async fn send(&self, request: Request<Empty<Bytes>>, http2: bool) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        let client = if http2 { &self.http2 } else { &self.http1 };
        soon(&asked, async {
            let response = client.request(request).await;
            let (head, body) = response
                .unwrap_or_else(|error| panic!("{asked}: {error:?}"))
                .into_parts();
            Answer {
                status: head.status.as_u16(),
                version: head.version,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        })
        .await
    }

    /// The value of one series, named as `/metrics` does, without the common beginning; 0 if there is none.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let answer = self.operate("/metrics").await;
        let mut lines = answer.text().lines();
        let value = lines.find_map(|line| {
            let rest = line
                .strip_prefix("contacts_gateway_")?
                .strip_prefix(series)?;
            rest.strip_prefix(' ')
        });
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The attempts of the demo's account that came to this.
    pub(crate) async fn attempts(&self, outcome: &str) -> f64 {
        self.metric(&format!(
            "upstream_attempts_total{{account=\"account-0\",outcome=\"{outcome}\"}}"
        ))
        .await
    }

    /// Begins the end: no new connections, and whatever runs is finished.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the end that was begun.
    pub(crate) async fn ended(mut self) {
        let ended = soon("the gateway ends", &mut self.running).await;
        ended.unwrap().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header that is there once; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values
            .next()
            .map_or("", |value| value.to_str().expect("a header is ASCII"));
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body is UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.header("cache-status")
            .starts_with("contacts-gateway; hit; ttl=")
    }

    /// Fetched by this very request, and kept.
    pub(crate) fn is_miss(&self) -> bool {
        self.header("cache-status") == "contacts-gateway; fwd=uri-miss; fwd-status=200; stored"
    }

    /// Asserts that it is the problem with this code, complete and in the promised shape.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.text()
        );
        let mut problem = self.json();
        // Of what goes on it is told how far it is.
        for key in ["pages_done", "pages_needed", "estimate_s"] {
            let told = problem.as_object_mut().unwrap().remove(key);
            assert_eq!(told.is_some(), code == "merge_in_progress", "{key}");
        }
        let text = |key: &str| problem[key].as_str().filter(|text| !text.is_empty());
        let (title, detail) = (text("title").unwrap(), text("detail").unwrap());
        let expected = serde_json::json!({
            "type": format!("urn:contacts-gateway:problem:{code}"),
            "title": title,
            "status": status,
            "detail": detail,
            "code": code,
            "request_id": self.header("x-request-id"),
            "retryable": RETRYABLE.contains(&code),
            "errors": [{ "msg": detail, "code": status }],
        });
        assert_eq!(problem, expected);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(
            self.header("content-length"),
            self.body.len().to_string(),
            "{code}"
        );
        assert_eq!(self.header("cache-control"), "no-store");
        assert!(!self.header("x-request-id").is_empty());
        assert!(!self.headers.contains_key("etag"));
        match self.header("retry-after") {
            "" => assert!(!RETRYABLE.contains(&code), "{code} has no Retry-After"),
            seconds => {
                assert!(RETRYABLE.contains(&code), "{code} has a Retry-After");
                let seconds: u64 = seconds.parse().unwrap();
                // Of these it is when the turn comes.
                let honest = ["merge_in_progress", "budget_exhausted"].contains(&code);
                assert!(seconds >= 1 && (seconds <= 60 || honest));
            }
        }
    }
}

/// The codes after which the same request may succeed a little later.
pub(crate) const RETRYABLE: &[&str] = &[
    "caller_throttled",
    "upstream_unreachable",
    "upstream_5xx",
    "upstream_truncated",
    "upstream_protocol",
    "upstream_auth_rejected",
    "upstream_rate_limited",
    "upstream_unavailable",
    "budget_exhausted",
    "token_service_unavailable",
    "merge_in_progress",
    "merge_drifting",
    "merge_busy",
    "overloaded",
    "draining",
    "upstream_timeout",
];

/// The body that Kore.ai has for a window of a stream with so many simulated contacts.
pub(crate) fn page(account: &str, stream: &str, total: u64, skip: u64, limit: u64) -> String {
    let end = (skip + limit).min(total);
    let start = skip.min(end);
    envelope(
        &written(account, stream, start..end),
        skip,
        limit,
        end < total,
        total.div_ceil(limit),
        total,
    )
}

/// The document of a whole list of simulated contacts.
pub(crate) fn list(account: &str, stream: &str, total: u64) -> String {
    envelope(
        &written(account, stream, 0..total),
        0,
        total,
        false,
        1,
        total,
    )
}

fn written(account: &str, stream: &str, indices: std::ops::Range<u64>) -> String {
    let contacts = Contacts::new(account, stream);
    let mut out = Vec::new();
    for index in indices.clone() {
        if index > indices.start {
            out.push(b',');
        }
        contacts.write(index, &mut out);
    }
    String::from_utf8(out).unwrap()
}

fn envelope(
    records: &str,
    skip: u64,
    limit: u64,
    more: bool,
    total_pages: u64,
    total: u64,
) -> String {
    format!(
        r#"{{"results":[{records}],"skip":{skip},"limit":{limit},"hasMore":{more},"totalPages":{total_pages},"totalResults":{total}}}"#
    )
}

/// A connection on which the bytes are the test's own.
pub(crate) struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// A request of these lines, and the blank one after them.
    pub(crate) async fn ask(&mut self, lines: &[&str]) -> Answer {
        self.write(format!("{}\r\n\r\n", lines.join("\r\n"))).await;
        self.answer().await
    }

    /// Writes; that the peer may have closed before it read all of it is no failure.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("bytes are taken", self.stream.write_all(bytes.as_ref())).await;
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = self.next_answer(true).await;
        answer.expect("the connection ended without an answer")
    }

    /// The answer to a HEAD, which has no body whatever its headers say.
    pub(crate) async fn answer_to_head(&mut self) -> Answer {
        let answer = self.next_answer(false).await;
        answer.expect("the connection ended without an answer")
    }

    /// The next answer; `None` at the connection's end.
    pub(crate) async fn next_answer(&mut self, has_body: bool) -> Option<Answer> {
        let end = loop {
            match self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.more().await?,
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                value.trim().parse::<HeaderValue>().unwrap(),
            );
        }
        let length = headers.get("content-length").filter(|_| has_body);
        let length = length.map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        while self.read.len() < length {
            self.more().await.expect("the body is whole");
        }
        Some(Answer {
            status: status.parse().unwrap(),
            version: Version::HTTP_11,
            headers,
            body: self.read.drain(..length).collect::<Vec<_>>().into(),
        })
    }

    /// Asserts that nothing comes any more but the end.
    pub(crate) async fn is_closed(&mut self) {
        while self.more().await.is_some() {}
        assert_eq!(String::from_utf8_lossy(&self.read), "");
    }

    /// Whether nothing has come that was not taken as an answer.
    pub(crate) fn has_read_nothing(&self) -> bool {
        self.read.is_empty()
    }

    /// Waits until this has come.
    pub(crate) async fn reads(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.read).contains(text) {
            self.more().await.expect("more to come");
        }
    }

    /// Whatever comes until the connection ends.
    pub(crate) async fn reads_all(&mut self) -> String {
        while self.more().await.is_some() {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        let read = soon("bytes or the end", self.stream.read(&mut piece)).await;
        match read {
            Ok(count) if count > 0 => self.read.extend_from_slice(&piece[..count]),
            // A reset is an end as well.
            Ok(_) | Err(_) => return None,
        }
        Some(())
    }
}

/// An upstream that does on each connection what the test says, after it has read the head of a request.
pub(crate) struct Rogue {
    pub(crate) address: SocketAddr,
    /// The heads that it has read.
    pub(crate) heads: Arc<std::sync::Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Rogue {
    pub(crate) async fn start<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
        let read = heads.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                read.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&head).into_owned());
                tokio::spawn(answer(stream));
            }
        });
        Self {
            address,
            heads,
            accepting,
        }
    }

    /// Sends these bytes and closes.
    pub(crate) async fn sending(bytes: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
        })
        .await
    }

    /// Answers each with the demo's first page, once it is released, and leaves the connection open.
    pub(crate) async fn holding(release: Arc<Notify>) -> Self {
        Self::start(move |mut stream| {
            let release = release.clone();
            async move {
                release.notified().await;
                let body = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10);
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes()).await;
                std::future::pending::<()>().await;
            }
        })
        .await
    }

    pub(crate) fn seen(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
