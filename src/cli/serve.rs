//! `serve --config FILE`: runs the gateway until it is told to stop.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::{
    app::{App, StartError},
    config::{self, Config},
    edge::server::tls,
    memory,
    reload::{Reloader, Trigger},
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
    let log = telemetry::start(&config.log)?;
    super::forbid_core_dumps()?;
    memory::compare(&config);
    let folder = config::folder(&args.config);
    // From here on the signal does not end the process.
    let hangup = signal(SignalKind::hangup())?;
    let environment = Environment::of(std::env::vars_os());
    let inherited = Inherited::of(&environment).map_err(StartError::from)?;
    let app = App::bind_or_inherit(&config, secrets(&config, folder), inherited).await?;
    let app = app.managed_by(Manager::of(&environment));
    log.follow(app.verbosity());
    let reloader = app.reloader().clone();
    let file = args.config.clone();
    reloader.read_from(move || {
        let config = config::load(&file, std::env::vars_os())?;
        let secrets = secrets(&config, config::folder(&file));
        Ok((config, secrets))
    });
    tokio::spawn(reload_at_each(hangup, reloader));
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

/// Where the secrets are.
fn secrets(config: &Config, folder: &Path) -> Secrets {
    Secrets {
        accounts: config::secrets(config, folder, std::env::vars_os()),
        service: config::service_secret(config, folder, std::env::vars_os()),
    }
}

/// SIGHUP, as long as the process runs.
async fn reload_at_each(mut hangup: Signal, reloader: Arc<Reloader>) {
    while hangup.recv().await.is_some() {
        reloader.reload(Trigger::Signal).await;
    }
}

fn scheme(tls: &tls::Config) -> &'static str {
    if tls.is_on() { "https" } else { "http" }
}
