//! The second listener: for probes, for Prometheus, for operators.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::{
    operate::Operate,
    overview::{
        Overview,
        document::{Phase, Reload, Status},
    },
    route::Route,
};
use crate::{
    config::Rules,
    edge::{
        Inbound, Reply,
        caller::check_digests,
        key::{Digest, Keys},
        server::tls,
    },
    error::{Error, Kind, Result},
    metrics::Registry,
    reload::{Reloader, Trigger},
    telemetry::verbosity::Verbosity,
};

pub mod guard;
mod log;
pub mod openapi;
pub mod operate;
pub mod overview;
mod page;
mod route;

/// `[admin]`: the second listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where operators, probes and Prometheus connect. Loopback only, unless there is a token.
    pub address: SocketAddr,
    /// The SHA-256 of what operators show, in 64 hexadecimal digits; of several while it is rotated, at most 8. Empty:
    /// nothing is asked for.
    pub token_sha256: Vec<String>,
    pub tls: tls::Config,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        check_digests("token_sha256", &self.token_sha256, rules);
        rules.section("tls", |rules| self.tls.check(rules));
    }

    /// What operators show one of; `None` if something else stands there than a digest.
    pub fn tokens(&self) -> Option<Keys<()>> {
        let tokens = self.token_sha256.iter();
        let tokens: Option<Vec<_>> = tokens
            .map(|token| Some((Digest::parse(token)?, ())))
            .collect();
        tokens.map(Keys::new)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
            token_sha256: Vec::new(),
            tls: tls::Config::default(),
        }
    }
}

/// Whether callers should be sent here: not before the listeners are bound, and not while draining. Upstream's health
/// has no part in it, since copies are served without upstream.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    const STARTING: u8 = 0;
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    /// Whoever is ready no longer drains.
    pub fn set(&self, ready: bool) {
        let phase = if ready { Self::READY } else { Self::DRAINING };
        self.0.store(phase, Ordering::Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// What the gateway does with callers.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            Self::STARTING => Phase::Starting,
            Self::READY => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}

/// Answers what the admin listener is asked.
#[derive(Clone)]
pub struct Admin {
    registry: Registry,
    readiness: Readiness,
    operate: Operate,
    reloader: Arc<Reloader>,
    verbosity: Arc<Verbosity>,
    overview: Overview,
    /// Cancelled to begin the end.
    drain: CancellationToken,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Admin {
    /// `drain` is cancelled when an operator wants the gateway to stop.
    pub fn new(
        registry: Registry,
        readiness: Readiness,
        operate: Operate,
        reloader: Arc<Reloader>,
        verbosity: Arc<Verbosity>,
        overview: Overview,
        drain: CancellationToken,
    ) -> Self {
        Self {
            registry,
            readiness,
            operate,
            reloader,
            verbosity,
            overview,
            drain,
        }
    }

    fn status(&self, phase: Phase) -> Status {
        let last = self.reloader.status();
        let reload = last.map(|last| Reload::of(&last, SystemTime::now()));
        let log = log::shown(&self.verbosity.standing());
        self.overview.status(phase, reload, log)
    }

    async fn answer(self, mut inbound: Inbound) -> Result<Reply> {
        if inbound.has_body {
            let detail = "a request to the admin listener has no body";
            return Err(Error::new(Kind::BodyNotAllowed, detail));
        }
        let path = inbound.head.uri.path();
        if let Some(file) = page::file(path) {
            let read = [Method::GET, Method::HEAD].contains(&inbound.head.method);
            let refused =
                || Error::new(Kind::MethodNotAllowed, "the page is read with GET or HEAD");
            return read.then_some(Reply::File(file)).ok_or_else(refused);
        }
        match Route::of(&inbound.head.method, path)? {
            Route::Livez => Ok(Reply::Text(TEXT, "alive\n".into())),
            Route::Readyz if self.readiness.is_ready() => {
                let text = match inbound.head.uri.query() {
                    Some("verbose") => verbosely(&self.status(Phase::Serving)),
                    _ => "ready\n".to_owned(),
                };
                Ok(Reply::Text(TEXT, text.into()))
            }
            Route::Readyz => Err(Error::new(
                Kind::Draining,
                "the gateway is starting or stopping",
            )),
            Route::Document => Ok(Reply::Text(JSON, openapi::OPERATORS.into())),
            Route::CallersDocument => Ok(Reply::Text(JSON, openapi::CALLERS.into())),
            Route::Explain => {
                inbound.head.uri = below(&inbound.head.uri, Route::Explain.path())?;
                Ok(json(&self.operate.explain(inbound)?))
            }
            Route::Purge => Ok(json(&self.operate.purge(inbound.head.uri.query())?)),
            Route::Reload if inbound.head.uri.query().is_some() => Err(Error::new(
                Kind::BadParameter,
                "a reload takes no parameters",
            )),
            Route::Reload => {
                let status = self.reloader.reload(Trigger::Admin).await;
                match status.error() {
                    None => Ok(json(&status.document())),
                    Some(error) => Err(error),
                }
            }
            Route::Log => {
                let query = inbound.head.uri.query();
                let standing = match inbound.head.method {
                    Method::POST => {
                        let wish = log::wish(query.unwrap_or_default())?;
                        self.verbosity.set(wish, Instant::now(), SystemTime::now())
                    }
                    _ if query.is_some() => {
                        let detail = "another level is asked for with POST";
                        return Err(Error::new(Kind::BadParameter, detail));
                    }
                    _ => self.verbosity.standing(),
                };
                Ok(json(&log::document(&standing)))
            }
            Route::Metrics => {
                let broken = |error| {
                    Error::new(Kind::Internal, "the metrics cannot be written").because(error)
                };
                let text = self.registry.render().map_err(broken)?;
                Ok(Reply::Text(
                    "text/plain; version=0.0.4; charset=utf-8",
                    text.into(),
                ))
            }
            Route::Status => {
                let broken = |error: serde_json::Error| {
                    Error::new(Kind::Internal, "the status cannot be written").because(error)
                };
                let status = self.status(self.readiness.phase());
                let text = serde_json::to_vec(&status).map_err(broken)?;
                Ok(Reply::Text(JSON, text.into()))
            }
            Route::Drain => {
                self.drain.cancel();
                tracing::info!("an operator asked for the drain");
                Ok(json(&serde_json::json!({ "draining": true })))
            }
        }
    }
}

/// Ready, and what has no part in that: whether callers get more than copies, and whether the configuration is the file's.
fn verbosely(status: &Status) -> String {
    let mut text = format!("ready\nupstream: {}\n", status.upstream.breaker);
    for account in &status.accounts.shown {
        text += &format!("account {}: {}\n", account.name, account.state);
    }
    text += &match &status.reload {
        None => "reload: none since the start\n".to_owned(),
        Some(last) => {
            format!("reload: {}, {:.0} s ago\n", last.word(), last.ago_s)
        }
    };
    text
}

/// What follows a prefix of the path, as a target of its own.
fn below(uri: &Uri, prefix: &str) -> Result<Uri> {
    let target = uri.path_and_query().map(|target| target.as_str());
    let target = target.and_then(|target| target.strip_prefix(prefix)?.parse().ok());
    target.ok_or_else(|| Error::new(Kind::NotFound, "there is no request to be explained"))
}

fn json(document: &serde_json::Value) -> Reply {
    Reply::Text(JSON, format!("{document:#}\n").into())
}

impl Service<Inbound> for Admin {
    type Response = Reply;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Reply>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        self.clone().answer(inbound).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contacts::request::RequestId, edge::caller::Asker, telemetry::Level};

    fn ask(admin: &Admin, request: http::request::Builder) -> std::result::Result<String, Kind> {
        let inbound = Inbound {
            head: request.body(()).unwrap().into_parts().0,
            has_body: false,
            header_lines: 0,
            id: RequestId::number(0, 0),
            trace: None,
            asker: Asker::Anyone(Arc::default()),
        };
        match admin.clone().answer(inbound).now_or_never().unwrap() {
            Ok(Reply::Text(_, text)) => Ok(String::from_utf8(text.to_vec()).unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn ready_is_not_the_same_as_alive() {
        let readiness = Readiness::default();
        let admin = Admin::new(
            Registry::new().unwrap(),
            readiness.clone(),
            operate::tests::operate(),
            crate::reload::tests::reloader(),
            Verbosity::new(Level::Info),
            overview::tests::overview(),
            CancellationToken::new(),
        );
        let get = |path| ask(&admin, http::Request::get(path));
        assert_eq!(get("/livez").unwrap(), "alive\n");
        assert_eq!(get("/readyz"), Err(Kind::Draining));
        readiness.set(true);
        assert_eq!(get("/readyz").unwrap(), "ready\n");
        let verbose =
            "ready\nupstream: closed\naccount acme: disabled\nreload: none since the start\n";
        assert_eq!(get("/readyz?verbose").unwrap(), verbose);
        let status: Status = serde_json::from_str(&get("/api/status").unwrap()).unwrap();
        assert_eq!(status.phase, Phase::Serving);
        readiness.set(false);
        assert_eq!(get("/readyz?verbose"), Err(Kind::Draining));
        let status: Status = serde_json::from_str(&get("/api/status").unwrap()).unwrap();
        assert_eq!(status.phase, Phase::Draining);
        assert!(
            get("/metrics")
                .unwrap()
                .contains("contacts_gateway_build_info{version=")
        );
        assert_eq!(get("/metrics/"), Err(Kind::NotFound));
        assert_eq!(
            ask(&admin, http::Request::post("/livez")),
            Err(Kind::MethodNotAllowed)
        );
    }
}
