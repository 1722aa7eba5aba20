//! Who may operate: whoever shows the token, and no web page for somebody who has it.
//!
//! Probes and Prometheus show none: `/livez`, `/readyz` and `/metrics` are open, and hold nothing of anybody's.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures_util::future::{Either, Ready, ready};
use http::{
    Method, Uri,
    header::{AUTHORIZATION, HOST, ORIGIN},
    request::Parts,
};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    edge::{
        Inbound,
        key::{self, Keys},
    },
    error::{Error, Kind, Result},
};

/// What operators show one of, as it is now; with none, nothing is asked for.
pub type Tokens = Arc<ArcSwap<Keys<()>>>;

/// The stage.
#[derive(Clone, Debug)]
pub struct Guard<S> {
    tokens: Tokens,
    metrics: key::Metrics,
    inner: S,
}

/// Admits whoever shows one of `tokens`; everyone, if there are none.
pub fn layer<S>(tokens: Tokens, metrics: key::Metrics) -> impl Layer<S, Service = Guard<S>> {
    layer_fn(move |inner| Guard {
        tokens: tokens.clone(),
        metrics: metrics.clone(),
        inner,
    })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Guard<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        if let Err(error) = self.admit(&inbound.head) {
            return Either::Left(ready(Err(error)));
        }
        // Nothing below needs it.
        inbound.head.headers.remove(AUTHORIZATION);
        inbound.head.headers.remove("auth");
        Either::Right(self.inner.call(inbound))
    }
}

impl<S> Guard<S> {
    fn admit(&self, head: &Parts) -> Result<()> {
        let open = matches!(head.uri.path(), "/livez" | "/readyz" | "/metrics");
        let tokens = self.tokens.load();
        if !open && !tokens.is_empty() {
            tokens.owner(&head.headers).map_err(|refusal| {
                self.metrics.count(refusal);
                refusal.error()
            })?;
        }
        let changes = head.method != Method::GET && head.method != Method::HEAD;
        if changes && !is_of_this_origin(head) {
            let detail = "what changes something is not taken from a web page of another origin";
            return Err(Error::new(Kind::Forbidden, detail));
        }
        Ok(())
    }
}

/// Whether a request comes from no web page, or from one of this very listener's. Only hosts and ports are compared: which
/// scheme a page was loaded with is known to whatever ends TLS in front of the gateway.
fn is_of_this_origin(head: &Parts) -> bool {
    let site = head.headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "none" && site != "same-origin") {
        return false;
    }
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let (origin, more) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|text| text.parse::<Uri>().ok());
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let here = head
        .uri
        .authority()
        .map_or(host, |named| Some(named.as_str()));
    let there = origin.as_ref().and_then(Uri::authority);
    let same = there
        .zip(here)
        .is_some_and(|(there, here)| there.as_str().eq_ignore_ascii_case(here));
    same && more.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{edge::key::Digest, metrics::Registry};

    fn admitted(
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> std::result::Result<(), Kind> {
        let [_, metrics] = key::Metrics::new(&Registry::new().unwrap()).unwrap();
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let tokens = Keys::new(["first", "second"].map(|token| (Digest::of(token), ())));
        let guard = layer(Arc::new(ArcSwap::from_pointee(tokens)), metrics).layer(());
        let (head, ()) = request.body(()).unwrap().into_parts();
        guard.admit(&head).map_err(|error| error.kind())
    }

    #[test]
    fn all_but_the_probes_needs_a_token() {
        use Kind::Unauthorized;
        for (uri, headers, expected) in [
            ("/livez", &[][..], Ok(())),
            ("/readyz?verbose", &[], Ok(())),
            ("/metrics", &[], Ok(())),
            ("/", &[], Err(Unauthorized)),
            ("/livez/", &[], Err(Unauthorized)),
            ("//livez", &[], Err(Unauthorized)),
            ("/api/explain/livez", &[], Err(Unauthorized)),
            ("/api/purge", &[], Err(Unauthorized)),
            ("/", &[("authorization", "Bearer first")], Ok(())),
            ("/", &[("auth", "second")], Ok(())),
            ("/", &[("authorization", "Bearer third")], Err(Unauthorized)),
            ("/", &[("authorization", "Basic first")], Err(Unauthorized)),
            // A token that is shown where none is needed need not be one.
            ("/metrics", &[("authorization", "Bearer third")], Ok(())),
        ] {
            assert_eq!(admitted("GET", uri, headers), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn no_page_of_another_origin_changes_anything() {
        for (headers, good) in [
            (&[][..], true),
            (&[("origin", "http://ops:8081")], true),
            (&[("origin", "https://OPS:8081")], true),
            (
                &[
                    ("origin", "http://ops:8081"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
            (&[("sec-fetch-site", "none")], true),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("origin", "http://ops")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "http://ops:8081.evil.example")], false),
            (
                &[
                    ("origin", "http://ops:8081"),
                    ("origin", "http://evil.example"),
                ],
                false,
            ),
            (
                &[
                    ("origin", "http://ops:8081"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (&[("sec-fetch-site", "same-site")], false),
        ] {
            let token = [("host", "ops:8081"), ("auth", "first")];
            let headers: Vec<_> = token.iter().chain(headers).copied().collect();
            let told = admitted("POST", "/api/purge", &headers);
            assert_eq!(told.is_ok(), good, "{headers:?}: {told:?}");
            // Reading is a matter of the token alone: no page may read the answer.
            assert_eq!(admitted("GET", "/api/explain/", &headers), Ok(()));
            // In HTTP/2 the target names the host.
            let [_, rest @ ..] = &headers[..] else {
                panic!()
            };
            let told = admitted("POST", "http://ops:8081/api/purge", rest);
            assert_eq!(told.is_ok(), good, "{headers:?}: {told:?}");
        }
    }
}
