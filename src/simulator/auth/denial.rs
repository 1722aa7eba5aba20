//! How Kore.ai refuses a token: always 401, with a body that tells more or less.

use clap::ValueEnum;
use http::StatusCode;

/// One refusal. Which body the contacts API sends for which mistake is documented nowhere: these are those of its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Denial {
    /// No token, a tampered or expired one, another app's or algorithm's, an unknown account, or a stream that the app may
    /// not read.
    Credentials,
    /// What the header `auth` holds is no JWT.
    #[value(name = "token")]
    NotAToken,
    /// The app lacks the scope, or the scope was not published.
    Scope,
    /// The same, under the key that one page of the documentation prints.
    ScopeMessage,
    /// There is a `jti`, and `exp` is missing or more than an hour away.
    JtiExpiry,
    /// This `jti` was there before.
    Replay,
    /// There is no `jti`, and the app enforces one. That this is refused is documented, its body is a guess.
    NoJti,
    /// The answer of the template that the service seems to be built from.
    Authenticate,
}

impl Denial {
    /// What a fault calls it.
    pub(in crate::simulator) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(in crate::simulator) fn status(self) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }

    pub(in crate::simulator) fn body(self) -> &'static str {
        match self {
            Self::Credentials => r#"{"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#,
            Self::NotAToken => r#"{"errors":[{"msg":"Invalid JWT token","code":4002}]}"#,
            Self::Scope => {
                r#"{"errors":[{"msg":"Permission denied. Scope is incorrect!","code":4002}]}"#
            }
            Self::ScopeMessage => {
                r#"{"errors":[{"message":"Permission denied. Scope is incorrect!","code":4002}]}"#
            }
            Self::JtiExpiry => {
                r#"{"errors":[{"msg":"error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)","code":401}]}"#
            }
            Self::Replay => {
                r#"{"errors":[{"msg":"error verifying the jwt: possibly a replay","code":401}]}"#
            }
            Self::NoJti => {
                r#"{"errors":[{"msg":"error verifying the jwt: \"jti\" claim is required","code":401}]}"#
            }
            Self::Authenticate => r#"{"code":401,"message":"Please authenticate"}"#,
        }
    }
}
