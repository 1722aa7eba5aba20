//! What every head is held to before anything of it is looked at: so many header lines, and one host.
//!
//! HTTP/1.1 is held to the number while it is parsed. The parser of HTTP/2 counts bytes alone.
//!
//! A request names one host, as HTTP wants it (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
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
pub struct Head<S> {
    lines_max: usize,
    inner: S,
}

/// Refuses what has more than `lines_max` header lines, and what names no host, more than one, or what is none.
pub fn layer<S>(lines_max: usize) -> impl Layer<S, Service = Head<S>> {
    layer_fn(move |inner| Head { lines_max, inner })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Head<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let checked = match inbound.header_lines > self.lines_max {
            true => Err(too_many()),
            false => names_one_host(&inbound.head),
        };
        match checked {
            Ok(()) => Either::Right(self.inner.call(inbound)),
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

fn too_many() -> Error {
    Error::new(
        Kind::HeadersTooLarge,
        "the request has more header lines than are read",
    )
}

fn names_one_host(head: &Parts) -> Result<()> {
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
    use std::sync::Arc;

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        contacts::request::RequestId,
        edge::{Reply, caller::Asker},
    };

    /// Catches a head that is counted by what is left of it, and one line too few or too many.
    #[tokio::test]
    async fn no_more_lines_than_agreed() {
        for (header_lines, refused) in [
            (0, None),
            (10, None),
            (11, Some(Kind::HeadersTooLarge)),
            (300, Some(Kind::HeadersTooLarge)),
        ] {
            let stage = layer(10).layer(service_fn(async |_: Inbound| {
                Ok(Reply::Text("text/plain", "x".into()))
            }));
            let request = http::Request::get("/").header(HOST, "a").body(()).unwrap();
            let outcome = stage.oneshot(Inbound {
                head: request.into_parts().0,
                has_body: false,
                header_lines,
                id: RequestId::number(0, 0),
                trace: None,
                asker: Asker::Anyone(Arc::default()),
            });
            let error = outcome.await.err().map(|error| error.kind());
            assert_eq!(error, refused, "{header_lines}");
        }
    }

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
            let outcome = names_one_host(&head).map_err(|error| error.kind());
            let expected = good.then_some(()).ok_or(Kind::BadHost);
            assert_eq!(outcome, expected, "{version:?} {target} {hosts:?}");
        }
    }
}
