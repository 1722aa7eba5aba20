//! One error for the whole request's way: what happened, whose side it is on, and two texts about it.
//!
//! The *detail* is written for the caller and holds nothing that upstream sent. The *cause* is written for the log
//! and holds no contact and no secret either: a parser's complaint is told as a place, never as a quotation.
//! Statuses are not chosen here but in [`crate::edge::respond`].

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::served::Served;

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request could not be answered as it was made.
    Caller,
    /// The gateway itself refused or failed.
    Gateway,
    /// Kore.ai failed, refused or answered wrongly.
    Upstream,
}

/// Writes the enum, its texts and its list from one table, so that none can miss a row.
macro_rules! kinds {
    ($($kind:ident $code:literal $side:ident $retryable:literal $title:literal;)+) => {
        /// What went wrong: one variant for each row of the table of codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = $title] $kind,)+
        }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The stable word for it in problem documents, logs, metrics and headers.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)+ }
            }

            /// The same in a few words for people.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }

            /// Whose doing it is.
            pub const fn side(self) -> Side {
                match self { $(Self::$kind => Side::$side,)+ }
            }

            /// Whether the same request may succeed a little later.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$kind => $retryable,)+ }
            }
        }
    };
}

impl Kind {
    /// Whether a call to upstream can come to it.
    pub fn ends_an_attempt(self) -> bool {
        // The others of upstream's are what the gateway makes of several calls, or of none.
        let of_several = matches!(
            self,
            Self::PaginationInconsistent
                | Self::MergeUnverified
                | Self::MergeDrifting
                | Self::UpstreamUnavailable
        );
        let of_a_call = self.side() == Side::Upstream && !of_several;
        of_a_call || matches!(self, Self::StreamNotFound | Self::TokenServiceUnavailable)
    }

    /// Whether what a page or a list is fetched for can come to it; all others are told before a cache is asked.
    pub fn ends_a_fetch(self) -> bool {
        self.side() != Side::Caller || matches!(self, Self::StreamNotFound | Self::MergeTooLarge)
    }
}

kinds! {
    BadStream               "bad_stream"                Caller   false "The stream id is not valid";
    BadAccount              "bad_account"               Caller   false "The accountId header is not valid";
    BadParameter            "bad_parameter"             Caller   false "A query parameter is not valid";
    BadHost                 "bad_host"                  Caller   false "The host is not valid";
    BodyNotAllowed          "body_not_allowed"          Caller   false "The request has a body";
    Unauthorized            "unauthorized"              Caller   false "The caller's key is missing or unknown";
    Forbidden               "forbidden"                 Caller   false "The caller may not read this";
    NotFound                "not_found"                 Caller   false "There is nothing at this path";
    UnknownAccount          "unknown_account"           Caller   false "The account is not configured";
    StreamNotFound          "stream_not_found"          Caller   false "The stream does not exist";
    MethodNotAllowed        "method_not_allowed"        Caller   false "The method is not answered here";
    ConfigurationRefused    "configuration_refused"     Caller   false "The configuration was not reloaded";
    RestartNeeded           "restart_needed"            Caller   false "The configuration needs a restart";
    NotAcceptable           "not_acceptable"            Caller   false "No acceptable representation";
    UriTooLong              "uri_too_long"              Caller   false "The request target is too long";
    HeadersTooLarge         "headers_too_large"         Caller   false "The request's headers are too large";
    MergeTooLarge           "merge_too_large"           Caller   false "The list is too large to be kept";
    CallerThrottled         "caller_throttled"          Caller   true  "The caller's rate is used up";
    Internal                "internal"                  Gateway  false "The gateway failed";
    UpstreamUnreachable     "upstream_unreachable"      Upstream true  "Upstream cannot be reached";
    Upstream5xx             "upstream_5xx"              Upstream true  "Upstream failed";
    UpstreamTruncated       "upstream_truncated"        Upstream true  "Upstream's answer ended early";
    UpstreamInvalidBody     "upstream_invalid_body"     Upstream false "Upstream's answer is not valid JSON";
    UpstreamWrongType       "upstream_wrong_type"       Upstream false "Upstream's answer is not JSON";
    UpstreamSchema          "upstream_schema"           Upstream false "Upstream's answer is not a page of contacts";
    UpstreamTooLarge        "upstream_too_large"        Upstream false "Upstream's answer is too large";
    UpstreamEncoding        "upstream_encoding"         Upstream false "Upstream's answer has a coding that cannot be read";
    UpstreamRedirect        "upstream_redirect"         Upstream false "Upstream redirects";
    UpstreamProtocol        "upstream_protocol"         Upstream true  "Upstream does not speak HTTP correctly";
    Upstream4xx             "upstream_4xx"              Upstream false "Upstream refused the request";
    UpstreamTls             "upstream_tls"              Upstream false "Upstream's certificate is not accepted";
    UpstreamAuthRejected    "upstream_auth_rejected"    Upstream true  "Upstream refused the credential";
    UpstreamTenantMismatch  "upstream_tenant_mismatch"  Upstream false "Upstream answered for another tenant";
    PaginationInconsistent  "pagination_inconsistent"   Upstream false "Upstream's pages make no progress";
    MergeUnverified         "merge_unverified"          Upstream false "The list could not be verified";
    UpstreamRateLimited     "upstream_rate_limited"     Upstream true  "Upstream's rate limit is reached";
    UpstreamUnavailable     "upstream_unavailable"      Upstream true  "Upstream keeps failing";
    BudgetExhausted         "budget_exhausted"          Gateway  true  "The account's calls are used up";
    CredentialsUnavailable  "credentials_unavailable"   Gateway  false "The account has no usable credential";
    TokenServiceUnavailable "token_service_unavailable" Gateway  true  "The token service does not answer";
    MergeInProgress         "merge_in_progress"         Gateway  true  "The list is still being read";
    MergeDrifting           "merge_drifting"            Upstream true  "The list keeps changing";
    MergeBusy               "merge_busy"                Gateway  true  "Too many lists are being read";
    Overloaded              "overloaded"                Gateway  true  "The gateway has more requests than it can serve";
    Draining                "draining"                  Gateway  true  "The gateway is stopping";
    UpstreamTimeout         "upstream_timeout"          Upstream true  "Upstream did not answer in time";
    OnlyIfCached            "only_if_cached"            Caller   false "No copy is held";
}

/// How the same call may be tried once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// After a moment.
    Later,
    /// At once, on a connection of its own.
    Afresh,
    /// At once, with a new token.
    Resigned,
}

/// An error on its way to a caller. Cloning costs one reference, so that all waiters of a flight share it.
#[derive(Clone, Debug)]
pub struct Error {
    inner: Arc<Inner>,
    served: Option<Served>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    detail: Cow<'static, str>,
    cause: Option<Box<str>>,
    retry_after: Option<Duration>,
    again: Option<Again>,
    unsent: bool,
    host_is_well: bool,
    allow: Option<&'static str>,
    underway: Option<Underway>,
}

/// How far what was asked for is, that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underway {
    pub pages_done: usize,
    /// `None` before the first page has told it.
    pub pages_needed: Option<usize>,
    /// Until it is there; before the first page, at the least.
    pub estimate: Duration,
}

/// What every stage returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with the text that its caller will read.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                detail: detail.into(),
                cause: None,
                retry_after: None,
                again: None,
                unsent: false,
                host_is_well: false,
                allow: None,
                underway: None,
            }),
            served: None,
        }
    }

    /// Adds what only the log may say. Must hold no contact and no secret.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.inner).cause = Some(cause.to_string().into());
        self
    }

    /// Adds how long the caller had better wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        Arc::make_mut(&mut self.inner).retry_after = Some(wait);
        self
    }

    /// Adds that the same call may be tried once more.
    #[must_use]
    pub fn again_by(mut self, again: Again) -> Self {
        Arc::make_mut(&mut self.inner).again = Some(again);
        self
    }

    /// Adds which methods would have been answered, where they are not GET and HEAD.
    #[must_use]
    pub fn allowing(mut self, methods: &'static str) -> Self {
        Arc::make_mut(&mut self.inner).allow = Some(methods);
        self
    }

    /// Adds how far it is.
    #[must_use]
    pub fn underway(mut self, underway: Underway) -> Self {
        Arc::make_mut(&mut self.inner).underway = Some(underway);
        self
    }

    /// Adds that the host answers, if not with what was asked for: the error says nothing of its health.
    #[must_use]
    pub fn from_a_host_that_is_well(mut self) -> Self {
        Arc::make_mut(&mut self.inner).host_is_well = true;
        self
    }

    /// Adds that upstream was not asked: the call costs no slot, and says nothing about upstream.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        Arc::make_mut(&mut self.inner).unsent = true;
        self
    }

    /// Adds how the cache had come to ask upstream.
    #[must_use]
    pub fn served(mut self, served: Served) -> Self {
        self.served = Some(served);
        self
    }

    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// What the caller reads.
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }

    /// What the log reads, where there is more to say than the detail.
    pub fn cause(&self) -> Option<&str> {
        self.inner.cause.as_deref()
    }

    /// How long to wait before the same request: what was said, or a second for whatever is retryable.
    pub fn wait(&self) -> Option<Duration> {
        let default = self.kind().retryable().then_some(Duration::from_secs(1));
        self.inner.retry_after.or(default)
    }

    /// How the same call may be tried once more; `None` if that would not help.
    pub fn again(&self) -> Option<Again> {
        self.inner.again
    }

    /// The methods that would have been answered, where they are not GET and HEAD.
    pub fn allows(&self) -> Option<&'static str> {
        self.inner.allow
    }

    /// How far it is, where it goes on.
    pub fn is_underway(&self) -> Option<Underway> {
        self.inner.underway
    }

    /// Whether the host answers, if not with what was asked for.
    pub fn host_is_well(&self) -> bool {
        self.inner.host_is_well
    }

    /// Whether upstream was not even asked.
    pub fn is_unsent(&self) -> bool {
        self.inner.unsent
    }

    /// How long upstream said to wait, if it did.
    pub fn told_to_wait(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// How the cache had come to ask upstream; `None` if the cache was not asked.
    pub fn how(&self) -> Option<Served> {
        self.served
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind().code(), self.detail())?;
        match self.cause() {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_words() {
        let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        for code in codes {
            assert!(
                code.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{code}"
            );
        }
    }

    #[test]
    fn a_clone_keeps_its_own_way_of_being_served() {
        let failed = Error::new(Kind::Upstream5xx, "upstream answered 500");
        let leader = failed
            .clone()
            .served(Served::Fetched(crate::served::Forward::Miss));
        assert_eq!(failed.how(), None);
        assert!(leader.how().is_some());
        assert_eq!(leader.wait(), Some(Duration::from_secs(1)));
    }
}
