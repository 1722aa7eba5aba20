//! What an examination finds: steps, how each of them ended, and the codes that programs may rely on.

use serde::Serialize;

use crate::error::Kind;

/// One step of the examination, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// The host's name has an address.
    Name,
    /// A connection is accepted.
    Tcp,
    /// The certificate is.
    Tls,
    /// There is a stream to ask for.
    Stream,
    /// The secret is there, and signs.
    Token,
    /// Kore.ai takes the token.
    Accepted,
    /// The JWT app has the scope.
    Scope,
    /// A real page came.
    Page,
    /// The second record is where it was asked for.
    Paging,
    /// The largest page.
    Limit,
    /// The two clocks agree.
    Clock,
}

impl Step {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Stream => "stream",
            Self::Token => "token",
            Self::Accepted => "accepted",
            Self::Scope => "scope",
            Self::Page => "page",
            Self::Paging => "paging",
            Self::Limit => "limit",
            Self::Clock => "clock",
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Ok,
    /// It works, and could be better.
    Warning,
    Failed,
    /// The command was not told enough to try.
    Usage,
    /// Not tried, because of a step before it or since there is nothing to try.
    Skipped,
}

impl Status {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Skipped => "skipped",
        }
    }
}

/// Writes the codes, their words and their meanings from one table.
macro_rules! codes {
    ($($code:ident $word:literal $meaning:literal;)+) => {
        /// What was found, for programs. The code of an error is that of problem documents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code {
            $(#[doc = $meaning] $code,)+
            /// What a call ended with.
            Error(Kind),
        }

        impl Code {
            /// The words and meanings of all but the errors.
            pub(super) const GUIDE: &[(&'static str, &'static str)] = &[$(($word, $meaning),)+];

            pub(super) const fn word(self) -> &'static str {
                match self {
                    $(Self::$code => $word,)+
                    Self::Error(kind) => kind.code(),
                }
            }
        }
    };
}

codes! {
    Fine "fine" "as it should be";
    Before "step_before" "skipped: a step before it failed";
    Plaintext "plaintext" "skipped: base_url is http";
    Unsaid "unsaid" "skipped: what upstream answered does not tell";
    Unresolved "name_unknown" "the host's name has no address";
    Refused "connection_refused" "nobody listens at the host's port";
    Unreachable "unreachable" "no way leads to the host";
    Late "connect_timeout" "a connection took longer than connect_timeout";
    NotTls "not_tls" "what answers does not speak TLS";
    Expired "certificate_expired" "the certificate is not valid at this time";
    WrongName "certificate_name" "the certificate is another host's";
    UnknownIssuer "certificate_issuer" "the certificate's authority is not trusted here";
    TlsFailed "tls_failed" "another fault of the handshake or certificate";
    NoStream "no_stream" "the account lists no stream, and --stream was not given";
    OtherStream "stream_not_listed" "--stream names none of the account's streams";
    Secret "secret_unusable" "the secret cannot be read or used";
    SecondSecret "second_secret" "the first secret was refused, the second one works";
    SomeStreams "other_streams" "this stream is refused, others of the account are read";
    AuthUnsaid "auth_unsaid" "refused without a reason (Invalid SDK credentials)";
    AuthScope "auth_scope" "the app lacks the scope";
    AuthJti "auth_jti" "a jti is wanted, and the configuration forbids it";
    AuthReplay "auth_replay" "the token counts as used before";
    AuthLifetime "auth_lifetime" "a token with a jti lives for more than an hour";
    AuthNotAJwt "auth_not_a_jwt" "what was sent is not taken for a JWT";
    AuthJwe "auth_jwe" "an encrypted token (JWE) is wanted";
    AuthEncryption "auth_encryption" "encrypted payloads are wanted";
    JtiWanted "jti_wanted" "it works once each token has a jti";
    PagingIgnored "paging_ignored" "another window was answered, in either style";
    PagingOther "paging_other_style" "the other paging style works, the configured one does not";
    RecordsMove "paging_records" "the echo is right, but the records are not those asked for";
    TooShort "paging_unproven" "fewer than two contacts: only the echo could be compared";
    Clamped "limit_clamped" "larger limits are cut down to limit_max";
    LimitRefused "limit_refused" "larger limits are refused";
    Short "page_short" "fewer contacts came than limit and total promise";
    ClockBehind "clock_behind" "this machine's clock is behind upstream's";
    ClockAhead "clock_ahead" "this machine's clock is ahead of upstream's";
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) step: Step,
    pub(super) status: Status,
    pub(super) code: Code,
    /// What was found. Holds no secret, no token and no contact.
    pub(super) detail: String,
    /// What to do about it, in one sentence.
    pub(super) advice: Option<String>,
    /// The name of the stream that was asked for.
    pub(super) stream: Option<String>,
}

impl Finding {
    pub(super) fn new(step: Step, status: Status, code: Code, detail: impl Into<String>) -> Self {
        Self {
            step,
            status,
            code,
            detail: detail.into(),
            advice: None,
            stream: None,
        }
    }

    pub(super) fn ok(step: Step, detail: impl Into<String>) -> Self {
        Self::new(step, Status::Ok, Code::Fine, detail)
    }

    pub(super) fn failed(step: Step, code: Code, detail: impl Into<String>) -> Self {
        Self::new(step, Status::Failed, code, detail)
    }

    pub(super) fn warning(step: Step, code: Code, detail: impl Into<String>) -> Self {
        Self::new(step, Status::Warning, code, detail)
    }

    /// A step that another one, which failed, stands before.
    pub(super) fn after(step: Step, failed: Step) -> Self {
        let detail = format!("`{}` comes first", failed.word());
        Self::new(step, Status::Skipped, Code::Before, detail)
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub(super) fn of_stream(mut self, stream: &str) -> Self {
        self.stream = Some(stream.to_owned());
        self
    }
}

/// The largest page that upstream gives, as far as it was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Largest {
    /// Records.
    pub(super) limit: u32,
    /// Whether a larger one was tried.
    pub(super) exact: bool,
}

/// What was found about one account.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Its configured name.
    pub(super) account: String,
    pub(super) findings: Vec<Finding>,
    /// The most calls that it could have cost, and those that it did.
    pub(super) calls_max: u32,
    pub(super) calls: u32,
    pub(super) largest: Option<Largest>,
    /// Seconds that upstream's clock is ahead.
    pub(super) ahead: Option<i64>,
}

/// Whether any of these ended so.
pub(super) fn any(findings: &[Finding], status: Status) -> bool {
    findings.iter().any(|finding| finding.status == status)
}
