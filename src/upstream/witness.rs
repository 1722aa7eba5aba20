//! A witness of what upstream's answers say beside their pages. Only `doctor` has this stage, at the very bottom: what it
//! notes are the calls that were sent, and how far upstream's clock is from ours.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::{FutureExt, future::BoxFuture};
use http::header::DATE;
use tower::{Layer, Service, layer::layer_fn};

use crate::error::{Error, Result};

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Requests that were handed to the connection.
    pub sent: u32,
    /// How many seconds upstream's clock is ahead of ours, or behind if negative; `None` while no answer said. Exact to a
    /// second and the answer's way.
    pub ahead: Option<i64>,
}

/// Where the notes are kept.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Notes>>);

/// The stage.
#[derive(Clone, Debug)]
pub struct Watched<S> {
    witness: Witness,
    inner: S,
}

impl Witness {
    /// Notes what goes by.
    pub fn layer<S>(&self) -> impl Layer<S, Service = Watched<S>> + use<S> {
        let witness = self.clone();
        layer_fn(move |inner| Watched {
            witness: witness.clone(),
            inner,
        })
    }

    /// Forgets what was seen of clocks. Returns how many requests were sent so far.
    pub fn begin(&self) -> u32 {
        let mut notes = self.lock();
        notes.ahead = None;
        notes.sent
    }

    pub fn notes(&self) -> Notes {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, A, B> Service<http::Request<A>> for Watched<S>
where
    S: Service<
            http::Request<A>,
            Response = http::Response<B>,
            Error = Error,
            Future: Send + 'static,
        >,
{
    type Response = http::Response<B>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<http::Response<B>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        self.witness.lock().sent += 1;
        let (witness, answer) = (self.witness.clone(), self.inner.call(request));
        async move {
            let answer = answer.await?;
            let date = answer
                .headers()
                .get(DATE)
                .and_then(|date| date.to_str().ok());
            if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
                witness.lock().ahead = Some(ahead(date, SystemTime::now()));
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// Whole seconds from `now` to `date`, which has no parts of a second.
fn ahead(date: SystemTime, now: SystemTime) -> i64 {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
    };
    seconds(date) - seconds(now)
}

#[cfg(test)]
mod tests {
    use std::{future::ready, time::Duration};

    use http::{Request, Response};
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn the_difference_is_told_in_whole_seconds_either_way() {
        let at = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        for (date, now, expected) in [
            (10_000, 10_999, 0),
            (7_210_000, 10_500, 7_200),
            (10_000, 7_210_500, -7_200),
        ] {
            assert_eq!(ahead(at(date), at(now)), expected);
        }
    }

    #[tokio::test]
    async fn calls_are_counted_and_the_last_date_that_can_be_read_is_kept() {
        let witness = Witness::default();
        let year = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (date, known) in [("", false), (year, true), ("yesterday", true)] {
            let inner = service_fn(move |_: Request<()>| {
                let answer = Response::builder().header(DATE, date).body(());
                ready(Ok::<_, Error>(answer.unwrap()))
            });
            let stage = witness.layer().layer(inner);
            stage.oneshot(Request::new(())).await.unwrap();
            assert_eq!(witness.notes().ahead.is_some_and(|ahead| ahead < 0), known);
        }
        assert_eq!(witness.notes().sent, 3);
    }
}
