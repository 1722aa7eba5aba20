//! The examination: host first, then each [`account`], one call at a time, through the stages that the gateway sends through.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{
    select,
    time::{self, Instant},
};
use tower::ServiceExt;

use super::{
    diagnosis,
    finding::{Code, Finding, Status, Step},
    show::Show,
};
use crate::{
    app::{self, StartError},
    config::Config,
    contacts::{
        account::Accounts,
        collection::Collection,
        directives::Directives,
        page::{Page, PageKey, Window},
        request::{Class, Coding, Fetch, Request, RequestId, Terms},
        verdict::Handling,
    },
    error::Error,
    metrics::Registry,
    service::FetchPage,
    upstream::{
        Paging,
        client::{Client, Hop},
        token::{Credentials, Secrets},
        witness::Witness,
    },
};

mod account;

/// How long one call may wait for its turn: an account with one call a minute gives the next one out after a minute, and
/// a refusal pauses for as long again.
const PATIENCE: Duration = Duration::from_secs(150);

/// After so long a wait is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// What examines: the gateway's stages, built for this alone.
pub(super) struct Exam<S> {
    config: Config,
    accounts: Accounts,
    credentials: Arc<Credentials>,
    client: Client,
    witness: Witness,
    /// Asks as configured.
    asked: S,
    /// Asks in the other style.
    other: S,
}

/// The stages of an examination of these accounts. Reads their secrets, blocking.
///
/// # Errors
/// If the operating system's certificates cannot be loaded.
pub(super) fn prepare(
    config: Config,
    secrets: Secrets,
) -> Result<Exam<impl FetchPage>, StartError> {
    let registry = Registry::new()?;
    let accounts = Accounts::new(&config.accounts)?;
    let credentials = app::credentials(&config, &accounts, secrets, &registry)?;
    let budgets = Arc::new(app::budgets(&config, &accounts, &registry)?);
    let client = Client::new(&config.upstream)?;
    let witness = Witness::default();
    let stages = |paging| {
        let mut upstream = config.upstream.clone();
        upstream.paging = paging;
        app::examined(&upstream, &credentials, &budgets, client.clone(), &witness)
    };
    let (asked, other) = match config.upstream.paging {
        Paging::SkipLimit => (stages(Paging::SkipLimit)?, stages(Paging::PageLimit)?),
        Paging::PageLimit => (stages(Paging::PageLimit)?, stages(Paging::SkipLimit)?),
    };
    Ok(Exam {
        asked,
        other,
        config,
        accounts,
        credentials,
        client,
        witness,
    })
}

impl<S: FetchPage> Exam<S> {
    /// Makes the connection that all accounts need. Costs no call.
    pub(super) async fn host(&self, show: &mut Show) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut say = |finding: Finding, show: &mut Show| {
            show.step(&finding);
            findings.push(finding);
        };
        let url = &self.config.upstream.base_url;
        let mut broken = None;
        for (hop, step) in [
            (Hop::Name, Step::Name),
            (Hop::Tcp, Step::Tcp),
            (Hop::Tls, Step::Tls),
        ] {
            let finding = if let Some(broken) = broken {
                Finding::after(step, broken)
            } else if hop == Hop::Tls && url.starts_with("http://") {
                let detail = "base_url is http: tokens and contacts travel in the clear";
                Finding::new(step, Status::Skipped, Code::Plaintext, detail)
            } else {
                // Parsed already when the configuration was checked.
                let uri = format!("{url}/").parse().unwrap_or_default();
                match self.client.reach(hop, &uri).await {
                    Ok(found) => Finding::ok(step, found),
                    Err(why) => diagnosis::unreached(hop, why, url),
                }
            };
            if finding.status == Status::Failed {
                broken = Some(step);
            }
            say(finding, show);
        }
        findings
    }

    /// One call, and a word when it takes long.
    async fn ask(
        &self,
        stage: &S,
        collection: &Arc<Collection>,
        window: Window,
        show: &mut Show,
    ) -> Result<Page, Error> {
        let terms = Terms {
            deadline: Instant::now() + PATIENCE,
            class: Class::Interactive,
            coding: Coding::Identity,
            handling: Handling::Default,
            respond_async: false,
            in_pieces: false,
            directives: Directives::default(),
            caller: None,
            id: RequestId::number(0, 0),
            trace: None,
        };
        let key = PageKey {
            collection: collection.clone(),
            epoch: collection.epoch(),
            window,
        };
        let mut fetch = Fetch::of(Request { key, terms });
        // No kept connection is to blame for what comes.
        fetch.afresh = true;
        let urgency = fetch.urgency.clone();
        let mut answer = pin!(stage.clone().oneshot(fetch));
        let mut told = None;
        loop {
            select! {
                outcome = &mut answer => return outcome,
                () = time::sleep(TOLD_AFTER) => {
                    let sent = urgency.has_departed();
                    if told.replace(sent) != Some(sent) {
                        show.waiting(if sent {
                            "waiting for upstream's answer"
                        } else {
                            "waiting for its turn: the account's calls in this minute are taken, or unknown (budget.start_share)"
                        });
                    }
                }
            }
        }
    }
}
