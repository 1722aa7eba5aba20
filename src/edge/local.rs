//! Where no key is asked for, only programs on this machine may ask, and no web page through a browser on it.
//!
//! Such a listener binds to loopback. A page that a developer's browser has open could still send requests there, under
//! its own origin or after its name was made to point at 127.0.0.1. So the request must name this machine, and must
//! not say that it comes from a page, as browsers do (`Origin`, or `Sec-Fetch-Site` where nothing is sent but a GET).

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::{
    HeaderName, HeaderValue, Uri,
    header::{HOST, ORIGIN},
    request::Parts,
};
use tower::{Layer, Service, layer::layer_fn};

use super::{Inbound, authority};
use crate::error::{Error, Kind, Result};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The stage.
#[derive(Clone, Debug)]
pub struct Local<F, S> {
    applies: F,
    pages: Pages,
    inner: S,
}

/// The web pages that may ask, once this machine is what they were loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The listener has none.
    None,
    /// Those of the listener itself.
    Own,
}

/// Admits only requests made on and for this machine, where it `applies`.
pub fn layer<F, S>(applies: F, pages: Pages) -> impl Layer<S, Service = Local<F, S>>
where
    F: Fn(&Inbound) -> bool + Clone,
{
    layer_fn(move |inner| Local {
        applies: applies.clone(),
        pages,
        inner,
    })
}

impl<F, S> Service<Inbound> for Local<F, S>
where
    F: Fn(&Inbound) -> bool,
    S: Service<Inbound, Error = Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let admitted = match (self.applies)(&inbound) {
            true => admit(&inbound.head, self.pages),
            false => Ok(()),
        };
        match admitted {
            Ok(()) => Either::Right(self.inner.call(inbound)),
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

/// Whether a browser says that another site's page asks; one that says so beside the contrary is believed.
fn says_another_site(head: &Parts) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter();
    sites.any(|site| site != "none" && site != "same-origin")
}

/// Whether a request comes from no web page, or from one of this very listener's. Only hosts and ports are compared: which
/// scheme a page was loaded with is known to whatever ends TLS in front of the gateway.
pub fn is_of_this_origin(head: &Parts) -> bool {
    if says_another_site(head) {
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

fn admit(head: &Parts, pages: Pages) -> Result<()> {
    let of_a_page = match pages {
        Pages::None => head.headers.contains_key(ORIGIN) || says_another_site(head),
        Pages::Own => !is_of_this_origin(head),
    };
    if of_a_page {
        let detail = "requests from web pages are refused where no key is asked for";
        return Err(Error::new(Kind::Forbidden, detail));
    }
    // HTTP/2 and absolute-form targets name the host in the target; a Host beside it must not say otherwise.
    let target = head.uri.authority().map(|named| named.as_str().as_bytes());
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let mut named = target.into_iter().chain(hosts.next()).peekable();
    let here = named.peek().is_some() && named.all(is_loopback) && hosts.next().is_none();
    here.then_some(()).ok_or_else(|| {
        Error::new(
            Kind::Forbidden,
            "Host must be localhost, 127.0.0.1 or [::1] where no key is asked for",
        )
    })
}

fn is_loopback(named: &[u8]) -> bool {
    authority::host(named).is_some_and(|host| {
        host.eq_ignore_ascii_case(b"localhost") || host == b"127.0.0.1" || host == b"[::1]"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        admit(&request.body(()).unwrap().into_parts().0, Pages::None).is_ok()
    }

    /// Catches a page of this machine's that cannot operate, and one of another port or name that can.
    #[test]
    fn a_listener_with_pages_admits_its_own() {
        for (host, origin, expected) in [
            ("127.0.0.1:8081", "http://127.0.0.1:8081", true),
            ("localhost:8081", "http://localhost:8081", true),
            ("localhost:8081", "http://127.0.0.1:8081", false),
            ("localhost:8081", "http://localhost:8082", false),
            ("localhost:8081", "http://evil.example", false),
            ("localhost:8081", "null", false),
            ("evil.example", "http://evil.example", false),
        ] {
            let request = http::Request::post("/").header("host", host);
            let request = request.header("origin", origin).body(()).unwrap();
            let told = admit(&request.into_parts().0, Pages::Own);
            assert_eq!(told.is_ok(), expected, "{host} {origin}");
        }
    }

    #[test]
    fn only_this_machine() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8080",
        ] {
            assert!(admitted("/", &[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:x",
            "::1",
            "127.0.0.2",
            "[::1",
            "localhost:8080:1",
            "user@localhost",
        ] {
            assert!(!admitted("/", &[("host", host)]), "{host}");
        }
        assert!(!admitted("/", &[]));
        assert!(!admitted(
            "/",
            &[("host", "localhost"), ("host", "localhost")]
        ));
    }

    #[test]
    fn the_target_and_the_header_must_both_name_it() {
        assert!(admitted("http://127.0.0.1:8080/", &[]));
        assert!(admitted("http://127.0.0.1/", &[("host", "localhost")]));
        assert!(!admitted("http://evil.example/", &[("host", "localhost")]));
        assert!(!admitted("http://localhost/", &[("host", "evil.example")]));
        assert!(!admitted("http://user@localhost/", &[]));
    }

    /// Catches a page that is admitted for what stands beside the header that gives it away.
    #[test]
    fn no_picture_or_script_of_a_web_page() {
        for (sites, expected) in [
            (&["cross-site"][..], false),
            (&["same-site"], false),
            (&["none"], true),
            (&["same-origin"], true),
            (&["none", "same-origin"], true),
            (&["none", "cross-site"], false),
            (&["cross-site", "none"], false),
            (&["none, cross-site"], false),
        ] {
            let sites = sites.iter().map(|site| ("sec-fetch-site", *site));
            let headers: Vec<_> = [("host", "localhost")].into_iter().chain(sites).collect();
            assert_eq!(admitted("/", &headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn no_web_page() {
        for origin in ["http://evil.example", "http://localhost:8080", "null"] {
            assert!(
                !admitted("/", &[("host", "localhost"), ("origin", origin)]),
                "{origin}"
            );
        }
    }
}
