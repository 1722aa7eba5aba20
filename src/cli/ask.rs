//! One question to a running gateway's admin listener, as the commands for operators ask it.

use std::{error::Error, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CACHE_CONTROL},
    uri,
};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::Value;
use tokio::time;

use super::reach::{GatewayClient, Trust, TrustError};
use crate::{
    admin::operate::EXPLAIN_AS,
    error::Kind,
    upstream::secret::{Secret, SecretProblem},
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// Where the gateway's operators connect.
#[derive(Clone, Debug, clap::Args)]
pub struct Admin {
    /// The gateway's admin listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub admin: Uri,
    /// A file that holds the operators' token, where the gateway asks for one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub trust: Trust,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "{0} is no address of an admin listener: use one as in http://127.0.0.1:8081 or https://gateway.internal:8081"
    )]
    Address(Uri),
    #[error("no gateway answers at {admin}: {cause}. {}", hint(.cause))]
    Unanswered { admin: Uri, cause: String },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Token(#[from] SecretProblem),
    #[error("{} holds no token: one line of visible characters, as `contacts-gateway key --admin` makes it", .0.display())]
    NoToken(PathBuf),
    #[error("the gateway refuses: {detail} ({code}){}", advice(.code))]
    Refused { code: String, detail: String },
}

/// What to look at where nobody answers.
fn hint(cause: &str) -> &'static str {
    if cause.contains("CaUsedAsEndEntity") {
        // What `openssl req -x509` makes by itself.
        "Its certificate is an authority's: a server's has CA:FALSE"
    } else if cause.contains("peer certificate") {
        "Is the authority behind its certificate in --ca-file, and --admin one of its names?"
    } else {
        "Is it running, and is --admin its admin listener, with http or https as it speaks?"
    }
}

fn advice(code: &str) -> &'static str {
    match code == Kind::Unauthorized.code() {
        true => ". Show the operators' token with --token-file",
        false => "",
    }
}

/// What can stand in a header.
pub(super) fn header(text: &str) -> Result<String, &'static str> {
    let good = HeaderValue::from_str(text).is_ok();
    good.then(|| text.to_owned())
        .ok_or("no header may hold it: it is one line without control characters")
}

/// What a question is about.
#[derive(Debug)]
pub struct Question<'a> {
    pub method: Method,
    pub target: &'a str,
    pub account: Option<&'a str>,
    pub cache_control: Option<&'a str>,
    /// The caller that is asked about.
    pub caller: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// One that is about nothing but its target.
    pub fn get(target: &'a str) -> Self {
        Self {
            method: Method::GET,
            target,
            account: None,
            cache_control: None,
            caller: None,
        }
    }
}

impl Admin {
    /// The answer's document.
    pub async fn ask(&self, question: Question<'_>) -> Result<Value, AskError> {
        let (status, body) = self.reach(question, TIMEOUT).await?;
        let document: Value = serde_json::from_slice(&body).map_err(|error| self.no(error))?;
        match status.is_success() {
            true => Ok(document),
            false => Err(refusal(&document)),
        }
    }

    /// The answer as it is, within a time.
    pub(super) async fn reach(
        &self,
        question: Question<'_>,
        within: Duration,
    ) -> Result<(StatusCode, Bytes), AskError> {
        let address = || AskError::Address(self.admin.clone());
        let mut parts = uri::Parts::default();
        let scheme = self.admin.scheme().cloned().unwrap_or(uri::Scheme::HTTP);
        let known = [uri::Scheme::HTTP, uri::Scheme::HTTPS].contains(&scheme);
        parts.scheme = Some(scheme);
        parts.authority = self.admin.authority().cloned();
        parts.path_and_query = question.target.parse().ok();
        let target = Uri::from_parts(parts)
            .ok()
            .filter(|_| known)
            .ok_or_else(address)?;
        let client = self.trust.client(&target)?;
        let mut request = Request::builder().method(question.method).uri(target);
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(account) = question.account {
            request = request.header("accountid", account);
        }
        if let Some(directives) = question.cache_control {
            request = request.header(CACHE_CONTROL, directives);
        }
        if let Some(caller) = question.caller {
            request = request.header(EXPLAIN_AS, caller);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| address())?;
        let answer = time::timeout(within, answer(&client, request)).await;
        let answer = answer.unwrap_or_else(|late| Err(late.into()));
        answer.map_err(|error| self.no(error))
    }

    /// There is no answer, or none that can be read.
    pub(super) fn no(&self, error: impl Into<Box<dyn Error + Send + Sync>>) -> AskError {
        let error = error.into();
        let causes = std::iter::successors(Some(&*error as &dyn Error), |&cause| cause.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        AskError::Unanswered {
            admin: self.admin.clone(),
            cause: causes.join(": "),
        }
    }

    /// What shows the operators' token, if there is one.
    fn token(&self) -> Result<Option<HeaderValue>, AskError> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let token = Secret::from_file(file)?;
        let shown = HeaderValue::try_from(format!("Bearer {}", token.expose()));
        let mut shown = shown.map_err(|_| AskError::NoToken(file.clone()))?;
        shown.set_sensitive(true);
        Ok(Some(shown))
    }
}

async fn answer(
    client: &GatewayClient,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let response = client.request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BYTES_MAX)
        .collect()
        .await?;
    Ok((status, body.to_bytes()))
}

/// What a problem document says.
pub(super) fn refusal(document: &Value) -> AskError {
    let said = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
    AskError::Refused {
        code: said("code"),
        detail: said("detail"),
    }
}
