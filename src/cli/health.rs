//! `health`: whether callers should be sent to a gateway, as a container's health check asks. It needs no token.

use std::{
    error::Error,
    io::{self, Write},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, uri};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time;

use super::{Failure, ask::AskError};

/// How long an answer may take: health checks come every few seconds.
const TIMEOUT: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  contacts-gateway health
  contacts-gateway health --admin http://127.0.0.1:9081

Exit codes: 0 ready, 1 not ready, stopping, or not there.";

/// Asks whether it is ready for callers. Whether Kore.ai answers has no part in it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The gateway's admin listener, over plain HTTP.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub admin: Uri,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let admin = args.admin;
    let mut parts = admin.clone().into_parts();
    parts.path_and_query = Some(uri::PathAndQuery::from_static("/readyz"));
    let request = Uri::from_parts(parts)
        .ok()
        .filter(|target| target.scheme() == Some(&uri::Scheme::HTTP))
        .and_then(|target| Request::get(target).body(Empty::<Bytes>::new()).ok());
    let request = request.ok_or_else(|| AskError::Address(admin.clone()))?;

    let asked = async {
        Client::builder(TokioExecutor::new())
            .build_http()
            .request(request)
            .await
    };
    let unanswered = |cause: &dyn Error| AskError::Unanswered {
        admin: admin.clone(),
        cause: cause.to_string(),
    };
    let response = time::timeout(TIMEOUT, asked)
        .await
        .map_err(|late| unanswered(&late))?
        .map_err(|error| unanswered(error.source().unwrap_or(&error)))?;
    match response.status() {
        StatusCode::OK => {
            let _ = writeln!(io::stdout(), "ready");
            Ok(())
        }
        status => Err(unanswered(&NotReady(status)).into()),
    }
}

/// Somebody answers, but not that it is ready.
#[derive(Debug, thiserror::Error)]
#[error("it is not ready ({0})")]
struct NotReady(StatusCode);
