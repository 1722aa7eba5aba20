//! A request names one host, as HTTP wants it (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
//!
//! The gateway serves the same under every name. But whatever stands in front of it may go by the name; where a request can
//! be read as one for this host and as one for another, the two of them have not read the same request.

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderValue, Version, header::HOST, request::Parts};
use tower::{Layer, Service, layer::layer_fn};

use super::{Inbound, authority};
use crate::error::{Error, Kind, Result};

/// The stage.
#[derive(Clone, Debug)]
pub struct Host<S> {
    inner: S,
}

/// Refuses what names no host, more than one, or what is none.
pub fn layer<S>() -> impl Layer<S, Service = Host<S>> {
    layer_fn(|inner| Host { inner })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Host<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        match check(&inbound.head) {
            Ok(()) => Either::Right(self.inner.call(inbound)),
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

fn check(head: &Parts) -> Result<()> {
    let target = head.uri.authority().map(|named| named.as_str().as_bytes());
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    let detail = match (host, hosts.next()) {
        (_, Some(_)) => "Host is there more than once",
        (None, None) if head.version == Version::HTTP_11 => "HTTP/1.1 wants a Host",
        // It may be empty, where the target has no authority.
        (Some(host), None) if !host.is_empty() && authority::host(host).is_none() => {
            "Host is no host with or without a port"
        }
        _ if target.is_some_and(|target| authority::host(target).is_none()) => {
            "the target is for no host with or without a port"
        }
        _ if head.version == Version::HTTP_2 && differ(host, target) => {
            "Host and :authority differ"
        }
        _ => return Ok(()),
    };
    Err(Error::new(Kind::BadHost, detail))
}

/// Whether there are both, and not the same.
fn differ(host: Option<&[u8]>, target: Option<&[u8]>) -> bool {
    let both = host.zip(target);
    both.is_some_and(|(host, target)| !host.eq_ignore_ascii_case(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a host that is let through where it stands in the target, and refused in the header.
    #[test]
    fn who_names_one_host_is_admitted() {
        const OLD: Version = Version::HTTP_10;
        const ONE: Version = Version::HTTP_11;
        const TWO: Version = Version::HTTP_2;
        for (version, target, hosts, good) in [
            (ONE, "/", &["localhost"][..], true),
            (ONE, "/", &["contacts.internal:8080"], true),
            (ONE, "/", &["[::1]:8080"], true),
            // A URI may have an empty one.
            (ONE, "/", &[""], true),
            (ONE, "/", &[], false),
            (ONE, "/", &["a", "a"], false),
            (ONE, "/", &["a", "b"], false),
            (ONE, "/", &["a b"], false),
            (ONE, "/", &["a/b"], false),
            (ONE, "/", &["user@a"], false),
            (ONE, "/", &["[[[:::"], false),
            (ONE, "/", &["a:b:c"], false),
            (ONE, "/", &["a:b"], false),
            (ONE, "/", &[":80"], false),
            (ONE, "/", &["::1"], false),
            (ONE, "/", &["\u{e4}"], false),
            (ONE, "http://a/", &["a"], true),
            // The target's counts then, whatever the header says.
            (ONE, "http://a/", &["b"], true),
            (ONE, "http://a/", &[], false),
            (ONE, "http://a:8080/", &["a"], true),
            (ONE, "http://[::1]/", &["a"], true),
            (ONE, "http://user@b/", &["a"], false),
            (ONE, "http://a/", &["user@a"], false),
            (ONE, "http://a:b/", &["a"], false),
            (OLD, "http://user@a/", &[], false),
            (OLD, "/", &[], true),
            (OLD, "/", &["a"], true),
            (OLD, "/", &["a", "b"], false),
            (TWO, "http://a/", &[], true),
            (TWO, "http://a/", &["A"], true),
            (TWO, "http://a/", &["b"], false),
            (TWO, "http://a/", &["a", "a"], false),
            (TWO, "http://user@a/", &[], false),
            (TWO, "http://user@a/", &["user@a"], false),
            (TWO, "http://user@a/", &["a"], false),
            (TWO, "/", &["a"], true),
        ] {
            let request = http::Request::get(target).version(version);
            let request = hosts
                .iter()
                .fold(request, |request, host| request.header(HOST, *host));
            let (head, ()) = request.body(()).unwrap().into_parts();
            let outcome = check(&head).map_err(|error| error.kind());
            let expected = good.then_some(()).ok_or(Kind::BadHost);
            assert_eq!(outcome, expected, "{version:?} {target} {hosts:?}");
        }
    }
}
