//! `serve --config FILE`: runs the gateway until it is told to stop.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::Failure;
use crate::{
    app::{App, StartError},
    config,
    edge::server::tls,
    systemd::{Environment, Manager, inherited::Inherited},
    telemetry,
    upstream::token::Secrets,
};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway serve --config /etc/contacts-gateway/gateway.toml
  CONTACTS_GATEWAY__LISTEN__ADDRESS=127.0.0.1:9090 contacts-gateway serve --config gateway.toml
      a variable wins over the file";

/// Runs the gateway.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs until a signal.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let config = config::load(&args.config, std::env::vars_os())?;
    telemetry::start(&config.log)?;
    super::forbid_core_dumps()?;
    let folder = config::folder(&args.config);
    let secrets = Secrets {
        accounts: config::secrets(&config, folder, std::env::vars_os()),
        service: config::service_secret(&config, folder, std::env::vars_os()),
    };
    let environment = Environment::of(std::env::vars_os());
    let inherited = Inherited::of(&environment).map_err(StartError::from)?;
    let app = App::bind_or_inherit(&config, secrets, inherited).await?;
    let app = app.managed_by(Manager::of(&environment));
    // The log may be set to say less; where to connect is what one wants to know of port 0.
    let (traffic, admin) = (app.traffic, app.admin);
    let _ = writeln!(
        io::stdout(),
        "callers on {}://{traffic}, operators on {}://{admin}",
        scheme(&config.listen.tls),
        scheme(&config.admin.tls),
    );
    app.run(super::stopped()).await;
    Ok(())
}

fn scheme(tls: &tls::Config) -> &'static str {
    if tls.is_on() { "https" } else { "http" }
}
