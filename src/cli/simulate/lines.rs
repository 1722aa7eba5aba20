//! What is printed at the start: lines to type, and what a gateway is configured with.

use std::{fmt::Write as _, io, path, time::Duration};

use secrecy::ExposeSecret;

use super::{Args, SimulateError};
use crate::simulator::{Paging, Simulator};

/// How long the token in the printed lines is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// The same where a `jti` is enforced: as long as may be.
const JTI_LIFETIME: Duration = Duration::from_secs(3600);

/// The variable that holds the demo's secret.
const VARIABLE: &str = "SIMULATED_SECRET";

pub(super) fn lines(
    simulator: &Simulator,
    args: &Args,
    stream_id: &str,
) -> Result<String, SimulateError> {
    let (base, account_id) = (simulator.base_url(), &args.account_id);
    let (lifetime, once) = if args.app.enforce_jti {
        (JTI_LIFETIME, "; its token opens once")
    } else {
        (TOKEN_LIFETIME, "")
    };
    let (token, whose) = match simulator.mint(account_id, lifetime) {
        Some(token) => (token, once),
        None => (
            "TOKEN".to_owned(),
            "; TOKEN is yours to sign, with the private key",
        ),
    };
    let configuration = configuration(simulator, args).map_err(SimulateError::Write)?;
    Ok(format!(
        "Kore.ai is simulated at {base}, for account {account_id}. Ctrl-C ends it.\n\n\
         a page of contacts{whose}\n  \
         curl '{base}/agentassist/api/v1/public/{stream_id}/contacts?skip=0&limit=10' -H 'accountId: {account_id}' -H 'auth: {token}'\n\
         what was called\n  \
         curl {base}/_simulator/calls\n\
         break the next five calls, and heal\n  \
         curl -X POST '{base}/_simulator/faults?fault=status=503&next=5'\n  \
         curl -X DELETE {base}/_simulator/faults\n\
         rotate the secret: both open until the old one is revoked\n  \
         curl {base}/_simulator/secrets --data-urlencode add@NEW_FILE\n  \
         curl {base}/_simulator/secrets --data-urlencode revoke@OLD_FILE\n\
         every fault\n  \
         curl {base}/_simulator/\n\n\
         a gateway in front of it is configured with\n\n{configuration}"
    ))
}

/// What a gateway has to know, as TOML. A secret stays where it is, except the demo's, which everybody knows.
fn configuration(simulator: &Simulator, args: &Args) -> io::Result<String> {
    let text = |text: &str| toml::Value::from(text).to_string();
    let settings = simulator.settings();
    let account = &settings.accounts[0];
    let mut out = format!(
        "[upstream]\nbase_url = {}\nallow_plaintext = true\n",
        text(&simulator.base_url())
    );
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to memory does not fail.
        let _ = writeln!(out, "{line}");
    };
    if settings.paging == Paging::PageLimit {
        line(format_args!("paging = \"page_limit\""));
    }
    line(format_args!("\n[[accounts]]\nname = \"simulated\""));
    line(format_args!("account_id = {}", text(&account.account_id)));
    line(format_args!("client_id = {}", text(&account.client_id)));
    match args.app.newest_file() {
        Some(file) => {
            let file = path::absolute(file)?;
            let file = text(&file.to_string_lossy());
            if simulator.mint(&account.account_id, JTI_LIFETIME).is_some() {
                line(format_args!("client_secret_file = {file}"));
            } else {
                line(format_args!("# the private key that belongs to {file}"));
                line(format_args!("client_secret_file = \"PRIVATE_KEY_FILE\""));
            }
        }
        None => {
            let secret = account.client_secret.expose_secret();
            line(format_args!("# export {VARIABLE}='{secret}'"));
            line(format_args!("client_secret_env = \"{VARIABLE}\""));
        }
    }
    line(format_args!("algorithm = \"{}\"", account.algorithm.name()));
    if account.enforce_jti {
        line(format_args!("jti = \"per_request\""));
    }
    // Without a limit, as many as a gateway can be told.
    let per_minute = settings.rate_limit.map_or(60_000, |limit| limit.per_minute);
    line(format_args!("calls_per_minute = {per_minute}"));
    Ok(out)
}
