//! `serve --config FILE`: runs the gateway until it is told to stop.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, signals::Signals};
use crate::{
    app::{App, StartError},
    config::{self, Config},
    descriptors,
    edge::server::tls,
    memory,
    reload::{Reloader, Trigger},
    systemd::{Environment, Manager, inherited::Inherited, notify::State},
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
    descriptors::provide(&config);
    let folder = config::folder(&args.config);
    // From here on the signal does not end the process.
    let hangup = signal(SignalKind::hangup())?;
    let environment = Environment::of(std::env::vars_os());
    let inherited = Inherited::of(&environment).map_err(StartError::from)?;
    let app = App::bind_or_inherit(&config, secrets(&config, folder), inherited).await?;
    // Before anybody is told that it serves, and no sooner: a start that hangs on a disk can be ended.
    let signals = Signals::hear()?;
    let manager = Manager::of(&environment);
    let app = app.managed_by(manager.clone());
    log.follow(app.verbosity());
    let reloader = app.reloader().clone();
    let file = args.config.clone();
    reloader.read_from(move || {
        let config = config::load_again(&file, std::env::vars_os())?;
        let secrets = secrets(&config, config::folder(&file));
        Ok((config, secrets))
    });
    // The log may be set to say less; where to connect is what one wants to know of port 0.
    let (traffic, admin) = (app.traffic, app.admin);
    // On this one thread it begins when the gateway waits for its end: it serves then, and the manager knows.
    tokio::spawn(reload_at_each(hangup, reloader, manager, traffic));
    let _ = writeln!(
        io::stdout(),
        "callers on {}://{traffic}, operators on {}://{admin}",
        scheme(&config.listen.tls),
        scheme(&config.admin.tls),
    );
    signals.govern(app).await
}

/// Where the secrets are.
fn secrets(config: &Config, folder: &Path) -> Secrets {
    Secrets {
        accounts: config::secrets(config, folder, std::env::vars_os()),
        service: config::service_secret(config, folder, std::env::vars_os()),
    }
}

/// SIGHUP, as long as the process runs. The service manager is told when it begins, and that it is over whatever came of it.
async fn reload_at_each(
    mut hangup: Signal,
    reloader: Arc<Reloader>,
    manager: Manager,
    traffic: SocketAddr,
) {
    while hangup.recv().await.is_some() {
        manager.tell(&State::reloading());
        let status = reloader.reload(Trigger::Signal).await;
        // Anyone on the machine may read this line, so names and causes are left to the log.
        let outcome = match status.outcome {
            Ok(_) => "reloaded",
            Err(_) => "the last reload was refused, see the log",
        };
        manager.tell(&State::Ready(&format!(
            "serving callers on {traffic}; {outcome}"
        )));
    }
}

fn scheme(tls: &tls::Config) -> &'static str {
    if tls.is_on() { "https" } else { "http" }
}
