//! Load shedding: so many requests may wait, and one more is told at once to come back.
//!
//! What can be answered from memory takes no place, and so is never refused: a request takes one only when it turns
//! out that its answer is not there. Where nothing but its encoding is not, that is waited for [above](super::complete).
//! What waits holds its connection, its head and a place at a flight for up to
//! `edge.request_timeout`; without a bound, more and more callers would wait for what fewer and fewer of them get in time.
//! A refused request leaves its flight, which ends with it if nobody else waits and no call was made.
//!
//! No caller gets a place while it has as many as there are [left](crate::contacts::places).

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use prometheus::{IntCounter, IntGauge};
use tower::{Layer, Service, layer::layer_fn};

use super::Inbound;
use crate::{
    contacts::{
        places::{Place, Places},
        request::CallerName,
    },
    error::{Error, Kind, Result},
    metrics::{self, Counted, Registry},
};

/// When to come back: a call to upstream takes about as long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The stage.
#[derive(Clone, Debug)]
pub struct Limit<S> {
    room: Arc<Room>,
    inner: S,
}

/// Admits requests until `waiting_max` of them wait.
pub fn layer<S>(waiting_max: usize, metrics: Metrics) -> impl Layer<S, Service = Limit<S>> {
    let room = Arc::new(Room {
        places: Places::new(waiting_max),
        metrics,
    });
    layer_fn(move |inner| Limit {
        room: room.clone(),
        inner,
    })
}

/// Where requests wait.
#[derive(Debug)]
struct Room {
    places: Places,
    metrics: Metrics,
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Limit<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Limiting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let caller = inbound.asker.caller().map(|caller| caller.name());
        Limiting {
            caller: caller.cloned(),
            inner: Some(self.inner.call(inbound)),
            room: self.room.clone(),
            waiting: None,
        }
    }
}

pin_project! {
    /// An outcome to come.
    pub struct Limiting<F> {
        // `None` once it was refused.
        #[pin]
        inner: Option<F>,
        room: Arc<Room>,
        // Whose place it takes, if that is known.
        caller: Option<CallerName>,
        waiting: Option<(Place, Counted)>,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for Limiting<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            match inner.poll(cx) {
                Poll::Ready(outcome) => {
                    *this.waiting = None;
                    return Poll::Ready(outcome);
                }
                Poll::Pending if this.waiting.is_some() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
        let Room { places, metrics } = &**this.room;
        if let Some(place) = places.take(this.caller.as_ref()) {
            *this.waiting = Some((place, Counted::new(&metrics.waiting)));
            return Poll::Pending;
        }
        this.inner.set(None);
        metrics.shed.inc();
        let detail =
            "as many requests wait for their answers as may, of all callers or of this one";
        Poll::Ready(Err(
            Error::new(Kind::Overloaded, detail).retry_after(RETRY_AFTER)
        ))
    }
}

/// What the stage tells.
#[derive(Clone, Debug)]
pub struct Metrics {
    waiting: IntGauge,
    shed: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let waiting = registry.gauge(
            "requests_waiting",
            "Requests whose answer is not there yet.",
            &[],
        )?;
        let help = "Requests refused as overloaded: edge.waiting_max were waiting, or of their caller as many as there were places left.";
        let shed = registry.counter("requests_shed_total", help, &[])?;
        Ok(Self {
            waiting: waiting.with_label_values(&[] as &[&str]),
            shed: shed.with_label_values(&[] as &[&str]),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::poll_immediate;
    use tokio::sync::Notify;
    use tower::service_fn;

    use super::*;
    use crate::{
        contacts::request::RequestId,
        edge::{Reply, caller::Asker},
    };

    fn asking(path: &str) -> Inbound {
        Inbound {
            head: http::Request::get(path).body(()).unwrap().into_parts().0,
            has_body: false,
            header_lines: 0,
            id: RequestId::number(0, 0),
            trace: None,
            asker: Asker::Anyone(Arc::default()),
        }
    }

    #[tokio::test]
    async fn those_who_wait_are_counted_and_a_hit_is_never_refused() {
        let (go, left) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        struct Leaves(Arc<AtomicBool>);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (gate, leaves) = (go.clone(), left.clone());
        let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
        let mut stage = layer(2, metrics.clone()).layer(service_fn(move |inbound: Inbound| {
            let (gate, leaves) = (gate.clone(), Leaves(leaves.clone()));
            async move {
                if inbound.head.uri.path() == "/miss" {
                    gate.notified().await;
                }
                drop(leaves);
                Ok::<_, Error>(Reply::Text("text/plain", "x".into()))
            }
        }));
        let mut ask = |path: &str| Box::pin(stage.call(asking(path)));
        let [mut first, mut second] = [ask("/miss"), ask("/miss")];
        for waiting in [&mut first, &mut second] {
            assert!(poll_immediate(waiting).await.is_none());
        }
        assert_eq!(metrics.waiting.get(), 2);
        for _ in 0..3 {
            left.store(false, Ordering::Relaxed);
            let refused = ask("/miss").await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Overloaded);
            assert_eq!(refused.wait(), Some(RETRY_AFTER));
            assert!(left.load(Ordering::Relaxed), "it gave up what it had begun");
            assert!(ask("/hit").await.is_ok());
        }
        // One is answered, one leaves: both places are free again.
        go.notify_one();
        assert!(first.await.is_ok());
        drop(second);
        assert_eq!((metrics.waiting.get(), metrics.shed.get()), (0, 3));
        assert!(poll_immediate(ask("/miss")).await.is_none());
    }
}
