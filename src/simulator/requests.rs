//! The last requests for contacts, as they came in, so that a test can say what a gateway sent.

use std::collections::VecDeque;

use http::{HeaderMap, Method, Request, Version};

/// One request that the simulator saw.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub method: Method,
    pub version: Version,
    /// The path, not decoded.
    pub path: String,
    /// The query without its `?`; empty without one.
    pub query: String,
    /// All headers, the token among them.
    pub headers: HeaderMap,
}

impl SeenRequest {
    /// A header's value; empty when it is missing or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// The last of them, oldest first.
#[derive(Debug)]
pub(super) struct Requests {
    most: usize,
    seen: VecDeque<SeenRequest>,
}

impl Requests {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            seen: VecDeque::new(),
        }
    }

    pub(super) fn push<B>(&mut self, request: &Request<B>) {
        if self.seen.len() == self.most {
            self.seen.pop_front();
        }
        self.seen.push_back(SeenRequest {
            method: request.method().clone(),
            version: request.version(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: request.headers().clone(),
        });
    }

    pub(super) fn all(&self) -> Vec<SeenRequest> {
        self.seen.iter().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }
}
