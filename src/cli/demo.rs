//! `demo`: a simulated Kore.ai and a gateway in front of it, with nothing to configure.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use secrecy::ExposeSecret;

use super::{Failure, signals::Signals};
use crate::{
    app::App,
    config::Config,
    contacts::account,
    simulator::{AccountSettings, DEMO_STREAM_ID, Settings, Simulator},
    telemetry,
    upstream::secret::Secret,
};

/// How long the demo's pages are fresh.
const FRESH_FOR: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  contacts-gateway demo
  contacts-gateway demo --listen 127.0.0.1:9090 --admin 127.0.0.1:9091
  contacts-gateway demo --listen 127.0.0.1:0 --admin 127.0.0.1:0
      on ports that are free; the printed lines name them";

/// Starts a simulated Kore.ai and a gateway in front of it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where callers connect; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where operators connect; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub admin: SocketAddr,
}

/// Runs until a signal.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    super::forbid_core_dumps()?;
    let account = AccountSettings::demo();
    let secret = Secret::new(account.client_secret.expose_secret());
    let simulator = Simulator::start(Settings {
        accounts: vec![account.clone()],
        ..Settings::default()
    })
    .await?;

    let mut config = Config {
        accounts: vec![account::Config {
            name: "demo".to_owned(),
            account_id: account.account_id,
            client_id: account.client_id,
            ..account::Config::default()
        }],
        ..Config::default()
    };
    config.listen.address = args.listen;
    config.admin.address = args.admin;
    config.upstream.base_url = simulator.base_url();
    config.upstream.allow_plaintext = true;
    // Short, so that a copy can be watched growing stale. Nobody else calls the simulator, so no call is unknown.
    config.cache.fresh_for = FRESH_FOR;
    config.budget.start_share = 1.0;
    let log = telemetry::start(&config.log)?;
    let app = App::bind(&config, vec![Some(secret)]).await?;
    let signals = Signals::hear()?;
    log.follow(app.verbosity());
    // A closed standard output takes the lines away, not the demo.
    let _ = writeln!(io::stdout(), "{}", lines(&app, &simulator));
    let outcome = signals.govern(app).await;
    simulator.stop().await;
    outcome
}

/// What to type next.
fn lines(app: &App, simulator: &Simulator) -> String {
    let contacts = format!(
        "http://{}/agentassist/api/v1/public/{DEMO_STREAM_ID}/contacts",
        app.traffic
    );
    let (admin, kore) = (app.admin, simulator.base_url());
    format!(
        "\
Kore.ai is simulated at {kore}, with 1,000 contacts and 60 calls a minute. Ctrl-C ends the demo.

# a page, fetched from upstream
curl -i '{contacts}?skip=0&limit=2'

# the same page again: a hit, see Cache-Status and Age
curl -i '{contacts}?skip=0&limit=2'

# upstream fails from now on; ten seconds later the page is stale and still answered: see Age and Cache-Status
curl -s -X POST '{kore}/_simulator/faults?fault=status=503'
sleep 11; curl -s -o /dev/null '{contacts}?skip=0&limit=2'
sleep 1; curl -i '{contacts}?skip=0&limit=2'
curl -s -X DELETE {kore}/_simulator/faults

# upstream is well again; the whole list, merged from pages and verified, see Merge-Status
curl -s -D - -o contacts.json '{contacts}?all=true'

# why a page would be answered as it would be, without asking upstream
curl -s 'http://{admin}/api/explain/agentassist/api/v1/public/{DEMO_STREAM_ID}/contacts?skip=0&limit=2'

# what operators see: open http://{admin}/ in a browser

# what the gateway counted, and the calls that upstream saw
curl -s http://{admin}/metrics
curl -s {kore}/_simulator/calls
"
    )
}
