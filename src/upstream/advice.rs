//! What an operator can do about a fault, in a sentence for each kind that has one: `doctor`, `status` and the ops page say
//! the same. For a refused credential [`Reason::advice`](super::token::Reason::advice) says more.

use crate::error::Kind;

/// What to do about it; `None` where there is nothing to do, or nothing to be said in general.
pub fn about(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::UpstreamRateLimited => {
            "Something else uses the account's calls a minute too, and the gateway yields: find it, set budget.replicas, or set calls_per_minute to what is really allowed."
        }
        Kind::BudgetExhausted => {
            "Callers want more calls than the account has in a minute: let copies be fresh for longer (cache.fresh_for, merge.fresh_for), or have Kore.ai allow more."
        }
        Kind::StreamNotFound => {
            "Compare the stream id with the console's (st-...), and base_url with the region that the account lives in."
        }
        Kind::Upstream4xx => {
            "Compare account_id, the stream id and base_url: upstream does not take the request as it is."
        }
        Kind::Upstream5xx | Kind::UpstreamTruncated | Kind::UpstreamProtocol => {
            "Upstream, or something on the way to it, is in trouble: ask again later."
        }
        Kind::UpstreamTimeout => {
            "Upstream is slow or does not answer: ask again later, or raise upstream.first_byte_timeout."
        }
        Kind::UpstreamUnreachable => {
            "See that this machine can look up and reach upstream.base_url: DNS, routes, firewalls; contacts-gateway doctor finds the step that fails."
        }
        Kind::UpstreamUnavailable => {
            "Upstream, or something on the way to it, is in trouble: copies are answered, and it is tried again every few seconds."
        }
        Kind::CredentialsUnavailable => {
            "Put the secret where client_secret_file or client_secret_env says; files are looked at again every few seconds."
        }
        Kind::UpstreamAuthRejected => {
            "Compare secret, client_id, account_id, stream id and the app's scope; contacts-gateway doctor finds the step that fails."
        }
        Kind::MergeDrifting => {
            "The list changes faster than it is read: ask for it when it is quieter, or raise merge.repairs_max."
        }
        Kind::MergeUnverified | Kind::PaginationInconsistent => {
            "Upstream's pages and its total do not fit together: compare upstream.paging."
        }
        Kind::MergeTooLarge => {
            "Ask for it as lines (application/x-ndjson), or raise merge.records_max and merge.bytes_max."
        }
        Kind::MergeBusy => {
            "Ask for fewer lists at once, or raise merge.walks_max (for those too large to be kept, merge.streams_max)."
        }
        Kind::UpstreamWrongType
        | Kind::UpstreamRedirect
        | Kind::UpstreamInvalidBody
        | Kind::UpstreamEncoding => {
            "What answers is not Kore.ai's API: compare base_url, and look for a portal or proxy on the way."
        }
        Kind::UpstreamSchema => {
            "Compare upstream.paging and base_url: what answers is no page as it was asked for; encrypted payloads are not supported."
        }
        Kind::UpstreamTooLarge => "Raise upstream.page_bytes_max.",
        Kind::UpstreamTenantMismatch => {
            "Compare account_id and the stream id with what the records say; until that is understood, upstream.tenant_check = \"observe\" counts and answers them."
        }
        Kind::UpstreamTls => "See whether something between here and there opens or filters TLS.",
        Kind::TokenServiceUnavailable => {
            "See that the token service runs and can be reached from here."
        }
        _ => return None,
    })
}
