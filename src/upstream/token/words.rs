//! What a 401 says. Kore.ai documents a few texts and no shape, so what is looked for are words; none of them goes on.

/// Why upstream refused a token, as far as it said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A `jti` is wanted and was not there.
    Jti,
    /// The `jti` was seen before.
    Replay,
    /// A token with a `jti` may live for an hour at most.
    Lifetime,
    /// The JWT app lacks the scope.
    Scope,
    /// What was sent is not taken for a JWT.
    NotAJwt,
    /// Tokens must be encrypted.
    Jwe,
    /// Payloads must be encrypted.
    Encryption,
    /// It did not say: the same words for a bad token, a missing scope and a wrong stream.
    #[default]
    Unsaid,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 8] = [
        Self::Jti,
        Self::Replay,
        Self::Lifetime,
        Self::Scope,
        Self::NotAJwt,
        Self::Jwe,
        Self::Encryption,
        Self::Unsaid,
    ];

    /// Reads the beginning of a 401's body.
    pub(super) fn read(text: &[u8]) -> Self {
        let text = text.to_ascii_lowercase();
        let says = |words: &str| text.windows(words.len()).any(|w| w == words.as_bytes());
        // The most telling words first: the hour's rule names `jti` as well.
        if says("exp") && says("1 hour") {
            Self::Lifetime
        } else if says("replay") {
            Self::Replay
        } else if says("jti") {
            Self::Jti
        } else if says("scope") {
            Self::Scope
        } else if says("jwe") {
            Self::Jwe
        } else if says("encrypt") || says("decrypt") {
            Self::Encryption
        } else if says("invalid jwt") {
            Self::NotAJwt
        } else {
            Self::Unsaid
        }
    }

    /// The word in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Replay => "replay",
            Self::Lifetime => "lifetime",
            Self::Scope => "scope",
            Self::NotAJwt => "not_a_jwt",
            Self::Jwe => "jwe",
            Self::Encryption => "encryption",
            Self::Unsaid => "unsaid",
        }
    }

    /// The sentence that callers read.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Jti => {
                "upstream wants a jti in each token of this account, and the configuration forbids it"
            }
            Self::Replay => "upstream takes the account's token for one that was used before",
            Self::Lifetime => {
                "upstream says that the account's token lives for more than an hour: compare the clocks and token.lifetime"
            }
            Self::Scope => {
                "upstream refused the scope: the account's JWT app needs Configuration, saved and published"
            }
            Self::NotAJwt => {
                "upstream does not take the account's token for a JWT: perhaps its app enforces JWE, which is not supported"
            }
            Self::Jwe => {
                "upstream wants an encrypted token (JWE) of this account, which is not supported"
            }
            Self::Encryption => {
                "upstream wants encrypted payloads of this account, which is not supported"
            }
            Self::Unsaid => "upstream refused the credential, its scope or the stream id",
        }
    }

    /// What an operator does about it, in one sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Jti => "Set jti = \"auto\" or \"per_request\" for this account.",
            Self::Replay => "Set jti = \"per_request\" for this account.",
            Self::Lifetime => "Set this machine's clock (NTP), then lower token.lifetime.",
            Self::Scope => {
                "Give the JWT app the scope Configuration (Contact Center), save it, and publish the change."
            }
            Self::NotAJwt => {
                "Turn off Enforce JWE for the app: encrypted tokens are not supported."
            }
            Self::Jwe => {
                "Turn off Enforce JWE for the app, or use an app without it: encrypted tokens are not supported."
            }
            Self::Encryption => "Turn off payload encryption for the app: it is not supported.",
            Self::Unsaid => {
                "Compare, in this order: the client secret (the whole text, as the app shows it), client_id (cs-...), \
                 account_id and the app's mapping to this account and stream, the stream id (st-...), the scope \
                 Configuration (saved and published), and the app's algorithm with this account's."
            }
        }
    }

    /// Whether another token may be taken where this one was not.
    pub(super) const fn is_curable(self) -> bool {
        matches!(self, Self::Jti | Self::Replay | Self::Unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_words_are_known() {
        for (text, expected) in [
            (
                r#"{"errors":[{"msg":"error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)","code":401}]}"#,
                Reason::Lifetime,
            ),
            (
                r#"{"errors":[{"msg":"error verifying the jwt: possibly a replay","code":401}]}"#,
                Reason::Replay,
            ),
            (
                r#"{"errors":[{"msg":"error verifying the jwt: jti claim is required","code":401}]}"#,
                Reason::Jti,
            ),
            (
                r#"{"errors":[{"msg":"Permission denied. Scope is incorrect!","code":4002}]}"#,
                Reason::Scope,
            ),
            (
                r#"{"errors":[{"message":"Permission denied. Scope is incorrect!","code":4002}]}"#,
                Reason::Scope,
            ),
            (
                r#"{"errors":[{"msg":"Invalid JWT token","code":4002}]}"#,
                Reason::NotAJwt,
            ),
            (
                r#"{"errors":[{"msg":"Invalid JWE token","code":4002}]}"#,
                Reason::Jwe,
            ),
            (
                r#"{"errors":[{"msg":"Payload is not encrypted"}]}"#,
                Reason::Encryption,
            ),
            (
                r#"{"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#,
                Reason::Unsaid,
            ),
            (
                r#"{"code":401,"message":"Please authenticate"}"#,
                Reason::Unsaid,
            ),
            ("<html>\u{fffd}", Reason::Unsaid),
            ("", Reason::Unsaid),
        ] {
            assert_eq!(Reason::read(text.as_bytes()), expected, "{text}");
        }
    }
}
