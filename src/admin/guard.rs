//! Who may operate: whoever shows the token, and no web page for somebody who has it.
//!
//! Probes and Prometheus show none: `/livez`, `/readyz` and `/metrics` are open, and hold nothing of anybody's. Nor do the
//! files of the ops page: a browser shows no token before a page has asked for it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures_util::future::{Either, Ready, ready};
use http::{Method, header::AUTHORIZATION, request::Parts};
use tower::{Layer, Service, layer::layer_fn};

use super::page;
use crate::{
    edge::{
        Inbound,
        key::{self, Keys},
        local::is_of_this_origin,
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
        let path = head.uri.path();
        let open = matches!(path, "/livez" | "/readyz" | "/metrics") || page::has(path);
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
            ("/", &[], Ok(())),
            ("/page/ops.js", &[], Ok(())),
            ("/page/", &[], Err(Unauthorized)),
            ("/page/ops.js/", &[], Err(Unauthorized)),
            ("/api/status", &[], Err(Unauthorized)),
            ("/api/drain", &[], Err(Unauthorized)),
            ("/livez/", &[], Err(Unauthorized)),
            ("//livez", &[], Err(Unauthorized)),
            ("/api/explain/livez", &[], Err(Unauthorized)),
            ("/api/purge", &[], Err(Unauthorized)),
            ("/api", &[("authorization", "Bearer first")], Ok(())),
            ("/api", &[("auth", "second")], Ok(())),
            (
                "/api",
                &[("authorization", "Bearer third")],
                Err(Unauthorized),
            ),
            (
                "/api",
                &[("authorization", "Basic first")],
                Err(Unauthorized),
            ),
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
