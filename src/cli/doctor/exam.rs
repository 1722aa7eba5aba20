//! The examination: host first, then each account, one call at a time, through the stages that the gateway sends through.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    select,
    time::{self, Instant},
};
use tower::ServiceExt;

use super::{
    diagnosis::{self, Told},
    finding::{Code, Finding, Largest, Record, Status, Step},
    show::Show,
};
use crate::{
    app::{self, StartError},
    config::Config,
    contacts::{
        account::{self, Account, Accounts, Jti},
        collection::Collection,
        directives::Directives,
        ids::StreamId,
        page::{Page, PageKey, Window},
        request::{Class, Fetch, RequestId, Terms, Urgency},
    },
    error::{Again, Error, Kind},
    metrics::Registry,
    service::FetchPage,
    upstream::{
        Paging,
        client::{Client, Hop},
        secret::Sources,
        token::{Condition, Credentials, Reason},
        witness::Witness,
    },
};

/// Calls for one page: with the shared token, with a new one (or the second secret), and with one that has a `jti`.
const TRIES: u32 = 3;

/// How long one call may wait for its turn: an account with one call a minute gives the next one out after a minute, and
/// a refusal pauses for as long again.
const PATIENCE: Duration = Duration::from_secs(150);

/// After so long a wait is told.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// Streams that are tried while each of them is refused.
const REFUSED_MAX: usize = 3;

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
    secrets: Vec<Sources>,
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

/// The limits that are tried, largest first: what a caller may ask for, what a walk asks for, and what is known of Kore.ai.
fn limits(config: &Config) -> Vec<u32> {
    let walks = config.merge.page_limit_max;
    let mut limits = vec![walks.max(config.edge.limit_max), walks, 100, 50, 10];
    limits.sort_unstable_by(|one, other| other.cmp(one));
    limits.dedup();
    let most = walks.max(config.edge.limit_max);
    limits.retain(|limit| *limit <= most);
    limits
}

/// The most calls that an account with so many streams can cost.
pub(super) fn calls_max(config: &Config, streams: usize) -> u32 {
    let pages = TRIES * u32::try_from(streams).unwrap_or(u32::MAX / TRIES);
    // The second page, and then either the same in the other style or the limits.
    let more = 1 + u32::try_from(limits(config).len())
        .unwrap_or(u32::MAX)
        .max(1);
    if streams == 0 {
        0
    } else {
        pages.saturating_add(more)
    }
}

/// The streams of an account that are asked for: those it lists, or of them the one that was named; else what was named.
pub(super) fn streams(
    told: &account::Config,
    named: Option<&str>,
) -> Result<Vec<StreamId>, Finding> {
    let usage = |code, detail: &str, advice: &str| {
        Err(Finding::new(Step::Stream, Status::Usage, code, detail).advise(advice))
    };
    let listed = told.streams.iter();
    let wanted = listed.filter(|stream| {
        named.is_none_or(|named| named == stream.name || named == stream.stream_id)
    });
    let found: Vec<_> = wanted
        .filter_map(|stream| StreamId::parse(&stream.stream_id))
        .collect();
    match (&found[..], named) {
        ([_, ..], _) => Ok(found),
        ([], Some(id)) if told.streams.is_empty() => match StreamId::parse(id) {
            Some(id) => Ok(vec![id]),
            None => usage(
                Code::NoStream,
                "--stream is no stream id: 1 to 128 of A-Z, a-z, 0-9, _ and -",
                "Copy the stream id (st-...) from the console.",
            ),
        },
        ([], Some(_)) => usage(
            Code::OtherStream,
            "--stream names none of the streams that the account lists",
            "Name one of them, by name or id, or leave --stream out to ask for each.",
        ),
        ([], None) => usage(
            Code::NoStream,
            "the account lists no streams, so that there is none to ask for",
            "Name one with --stream ID.",
        ),
    }
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

    /// Examines one account. `broken` is the host's step that failed, if one did.
    pub(super) async fn account(
        &self,
        told: &account::Config,
        named: Option<&str>,
        broken: Option<Step>,
        show: &mut Show,
    ) -> Record {
        let mut record = Record {
            account: told.name.clone(),
            findings: Vec::new(),
            calls_max: 0,
            calls: 0,
            largest: None,
            ahead: None,
        };
        let sent = self.witness.begin();
        let streams = match streams(told, named) {
            Ok(streams) => streams,
            Err(usage) => {
                show.step(&usage);
                record.findings.push(usage);
                return record;
            }
        };
        record.calls_max = calls_max(&self.config, streams.len());
        if let Some(account) = self.accounts.get(&told.account_id) {
            let of = Of {
                account,
                told: Told {
                    algorithm: told.algorithm,
                    jti: told.jti,
                    lifetime: self.config.token.lifetime,
                    backdate: self.config.token.backdate,
                },
                record: &mut record,
                show,
            };
            self.steps(of, &streams, broken).await;
        }
        record.calls = self.witness.notes().sent - sent;
        record
    }

    async fn steps(&self, mut of: Of<'_>, streams: &[StreamId], broken: Option<Step>) {
        use Step::{Accepted, Clock, Limit, Page, Paging, Scope, Token};
        let signed = self.token(&of, &streams[0]).await;
        let broken = broken.or((signed.status == Status::Failed).then_some(Token));
        of.say(signed);
        if let Some(broken) = broken {
            for step in [Accepted, Scope, Page, Paging, Limit, Clock] {
                of.say(Finding::after(step, broken));
            }
            return;
        }
        let read = self.pages(&mut of, streams).await;
        let ahead = self.witness.notes().ahead;
        of.record.ahead = ahead;
        match read {
            Some((collection, page)) => {
                if self.paging(&mut of, &collection, &page).await {
                    self.limit(&mut of, &collection).await;
                } else {
                    of.say(Finding::after(Limit, Paging));
                }
            }
            None => {
                of.say(Finding::after(Paging, Page));
                of.say(Finding::after(Limit, Page));
            }
        }
        let refused = self.condition(of.account).refused == Some(Reason::Unsaid);
        of.say(diagnosis::clock(ahead, of.told, refused));
    }

    /// Whether a token can be had at all.
    async fn token(&self, of: &Of<'_>, stream: &StreamId) -> Finding {
        let prepared = self
            .credentials
            .prepare(of.account, stream, SystemTime::now)
            .await;
        let complaints = self.condition(of.account).complaints;
        let complaint = complaints.first().map(String::as_str);
        match (prepared, complaint) {
            (Ok(()), None) => {
                let lifetime = humantime::format_duration(of.told.lifetime);
                Finding::ok(Step::Token, format!("signed with {:?}, valid for {lifetime}", of.told.algorithm))
            }
            (Ok(()), Some(complaint)) => {
                Finding::warning(Step::Token, Code::Secret, format!("signed, but {complaint}"))
                    .advise("Correct or remove the secret that cannot be used.")
            }
            (Err(_), Some(complaint)) => {
                Finding::failed(Step::Token, Code::Secret, complaint)
                    .advise("Put the client secret where the configuration says, readable for the user that runs the gateway.")
            }
            (Err(error), None) => diagnosis::broken(Step::Token, &error),
        }
    }

    fn condition(&self, account: &Account) -> Condition {
        self.credentials.condition(account).unwrap_or_default()
    }

    /// Reads the first page of each stream, and judges token and scope by what came of all of them. Returns the first page
    /// that came.
    async fn pages(
        &self,
        of: &mut Of<'_>,
        streams: &[StreamId],
    ) -> Option<(Arc<Collection>, Page)> {
        let window = Window { skip: 0, limit: 2 };
        let mut outcomes = Vec::new();
        let mut read = None;
        for stream in streams {
            let collection = Arc::new(Collection::new(of.account.clone(), stream.clone()));
            let mut outcome = self.ask(&self.asked, &collection, window, of.show).await;
            for _ in 1..TRIES {
                let again = outcome.as_ref().err().and_then(Error::again);
                if again != Some(Again::Resigned) {
                    break;
                }
                outcome = self.ask(&self.asked, &collection, window, of.show).await;
            }
            let reason = self.condition(of.account).refused;
            if let (Ok(page), None) = (&outcome, &read) {
                read = Some((collection, page.clone()));
            }
            outcomes.push((stream, outcome, reason));
            if ends(&outcomes) {
                break;
            }
        }
        for finding in self.judged(of, &outcomes, self.witness.notes().ahead) {
            of.say(finding);
        }
        for stream in &streams[outcomes.len()..] {
            let detail = "a stream before it failed in a way that this one would, too";
            let finding = Finding::new(Step::Page, Status::Skipped, Code::Before, detail);
            of.say(finding.of_stream(of.account.stream_name(stream)));
        }
        read
    }

    /// What the outcomes of all streams say of the credential, its scope and each stream.
    fn judged(&self, of: &Of<'_>, outcomes: &[Outcome<'_>], ahead: Option<i64>) -> Vec<Finding> {
        let works = outcomes.iter().any(|(_, outcome, _)| outcome.is_ok());
        let refusal = outcomes.iter().find_map(|(_, outcome, reason)| {
            let error = outcome.as_ref().err()?;
            reason.filter(|_| error.kind() == Kind::UpstreamAuthRejected)
        });
        let mut findings = match refusal {
            _ if works => [
                self.accepted(of),
                Finding::ok(Step::Scope, "contacts may be read"),
            ],
            Some(reason) => diagnosis::refused(reason, of.told, ahead),
            None => [Step::Accepted, Step::Scope].map(|step| {
                Finding::new(
                    step,
                    Status::Skipped,
                    Code::Unsaid,
                    "no answer tells: see `page`",
                )
            }),
        }
        .to_vec();
        let blamed = findings
            .iter()
            .find(|finding| finding.status == Status::Failed);
        let blamed = blamed.map(|finding| finding.step);
        for (stream, outcome, _) in outcomes {
            let finding = match (outcome, blamed) {
                (Ok(page), _) => match (short(page), page.total) {
                    (Some(detail), _) => Finding::warning(Step::Page, Code::Short, detail).advise(
                        "Compare with the console: lists whose pages are short cannot be verified.",
                    ),
                    (None, Some(total)) => {
                        let came = page.records.len();
                        Finding::ok(Step::Page, format!("{came} of {total} contacts"))
                    }
                    (None, None) => {
                        let came = page.records.len();
                        Finding::ok(Step::Page, format!("{came} contacts, and no total"))
                    }
                },
                (Err(error), Some(step)) if error.kind() == Kind::UpstreamAuthRejected => {
                    Finding::after(Step::Page, step)
                }
                (Err(error), None) if error.kind() == Kind::UpstreamAuthRejected => {
                    let detail = "this stream is refused, and another one of the account is read";
                    Finding::failed(Step::Page, Code::SomeStreams, detail).advise(
                        "Compare this stream's id (st-...), and see that the JWT app is mapped to this stream too.",
                    )
                }
                (Err(error), _) => diagnosis::broken(Step::Page, error),
            };
            findings.push(finding.of_stream(of.account.stream_name(stream)));
        }
        findings
    }

    /// The token was taken; perhaps not at once.
    fn accepted(&self, of: &Of<'_>) -> Finding {
        let condition = self.condition(of.account);
        if condition.second {
            let detail = "Kore.ai refuses the first secret and takes the second one";
            Finding::warning(Step::Accepted, Code::SecondSecret, detail)
                .advise("Make the second secret the first one, and remove it from its place.")
        } else if condition.once && of.told.jti == Jti::Auto {
            let detail = "Kore.ai takes tokens with a jti only: each call gets a token of its own";
            Finding::warning(Step::Accepted, Code::JtiWanted, detail)
                .advise("Set jti = \"per_request\" for this account, which saves a refused call after each start.")
        } else {
            Finding::ok(Step::Accepted, "Kore.ai takes the token")
        }
    }

    /// Whether the second record is where it was asked for. `first` begins with the first one.
    async fn paging(&self, of: &mut Of<'_>, collection: &Arc<Collection>, first: &Page) -> bool {
        let stream = of.account.stream_name(&collection.stream);
        let outcome = self
            .second(
                &self.asked,
                self.config.upstream.paging,
                collection,
                of.show,
            )
            .await;
        let finding = match outcome {
            Ok(page) => compared(first, &page),
            Err(error) if error.kind() == Kind::UpstreamSchema => {
                let other = match self.config.upstream.paging {
                    Paging::SkipLimit => (Paging::PageLimit, "page_limit"),
                    Paging::PageLimit => (Paging::SkipLimit, "skip_limit"),
                };
                let again = self.second(&self.other, other.0, collection, of.show).await;
                match again.map(|page| compared(first, &page)) {
                    Ok(found) if found.status != Status::Failed => {
                        let detail = format!(
                            "upstream ignores how pages are asked for, and obeys {}",
                            other.1
                        );
                        Finding::failed(Step::Paging, Code::PagingOther, detail)
                            .advise(format!("Set upstream.paging = \"{}\".", other.1))
                    }
                    _ => {
                        let detail = "upstream answers another window than the one asked for, whichever way it is asked";
                        Finding::failed(Step::Paging, Code::PagingIgnored, detail)
                            .advise("Ask Kore.ai's support how this endpoint is paged: without it no list can be read.")
                    }
                }
            }
            Err(error) => diagnosis::broken(Step::Paging, &error),
        };
        let good = finding.status != Status::Failed;
        of.say(finding.of_stream(stream));
        good
    }

    /// A window that begins with the second record.
    async fn second(
        &self,
        stage: &S,
        paging: Paging,
        collection: &Arc<Collection>,
        show: &mut Show,
    ) -> Result<Page, Error> {
        let window = match paging {
            Paging::SkipLimit => Window { skip: 1, limit: 2 },
            Paging::PageLimit => Window { skip: 1, limit: 1 },
        };
        self.ask(stage, collection, window, show).await
    }

    /// The largest page.
    async fn limit(&self, of: &mut Of<'_>, collection: &Arc<Collection>) {
        let stream = of.account.stream_name(&collection.stream);
        let mut refused = None;
        let mut last = None;
        for limit in limits(&self.config) {
            let window = Window { skip: 0, limit };
            match self.ask(&self.asked, collection, window, of.show).await {
                Ok(page) => {
                    let exact = refused.is_some() || page.limit < limit;
                    of.record.largest = Some(Largest {
                        limit: page.limit,
                        exact,
                    });
                    let finding = self.judged_limit(limit, refused, &page);
                    return of.say(finding.of_stream(stream));
                }
                Err(error)
                    if matches!(error.kind(), Kind::Upstream4xx | Kind::UpstreamTooLarge) =>
                {
                    refused = Some(limit);
                    last = Some(error);
                }
                Err(error) => {
                    return of.say(diagnosis::broken(Step::Limit, &error).of_stream(stream));
                }
            }
        }
        if let Some(error) = last {
            of.say(diagnosis::broken(Step::Limit, &error).of_stream(stream));
        }
    }

    fn judged_limit(&self, limit: u32, refused: Option<u32>, page: &Page) -> Finding {
        let (walks, callers) = (self.config.merge.page_limit_max, self.config.edge.limit_max);
        if let Some(detail) = short(page) {
            return Finding::warning(Step::Limit, Code::Short, detail)
                .advise("Lower merge.page_limit_max until as many come as are asked for.");
        }
        match refused {
            Some(refused) => {
                let detail = format!("{limit} is obeyed, {refused} is refused");
                let finding = Finding::warning(Step::Limit, Code::LimitRefused, detail);
                finding.advise(format!(
                    "Set edge.limit_max = {limit} and merge.page_limit_max = {limit}, which saves the calls that are refused."
                ))
            }
            None if page.limit < limit => {
                let detail = format!("larger ones are cut down to {}", page.limit);
                let finding = Finding::new(Step::Limit, Status::Ok, Code::Clamped, detail);
                if page.limit > walks {
                    finding.advise(raise(page.limit))
                } else {
                    finding
                }
            }
            None => {
                let finding = Finding::ok(
                    Step::Limit,
                    format!("{limit} is obeyed; larger ones were not tried"),
                );
                if limit > walks && callers >= walks {
                    finding.advise(raise(limit))
                } else {
                    finding
                }
            }
        }
    }

    /// One call, and a word when it takes long.
    async fn ask(
        &self,
        stage: &S,
        collection: &Arc<Collection>,
        window: Window,
        show: &mut Show,
    ) -> Result<Page, Error> {
        let urgency = Urgency::of(&Terms {
            deadline: Instant::now() + PATIENCE,
            class: Class::Interactive,
            directives: Directives::default(),
            id: RequestId::number(0, 0),
        });
        let fetch = Fetch {
            key: PageKey {
                collection: collection.clone(),
                epoch: collection.epoch(),
                window,
            },
            urgency: urgency.clone(),
            // No kept connection is to blame for what comes.
            afresh: true,
        };
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

/// One stream, what came of its page, and why the token was refused, if it was.
type Outcome<'a> = (&'a StreamId, Result<Page, Error>, Option<Reason>);

/// Whether the streams that are left would fare no better.
fn ends(outcomes: &[Outcome<'_>]) -> bool {
    let Some((_, Err(error), reason)) = outcomes.last() else {
        return false;
    };
    match error.kind() {
        Kind::UpstreamAuthRejected if outcomes.iter().any(|(_, outcome, _)| outcome.is_ok()) => {
            false
        }
        Kind::UpstreamAuthRejected => {
            *reason != Some(Reason::Unsaid) || outcomes.len() >= REFUSED_MAX
        }
        // Those are about one stream, or one answer.
        Kind::StreamNotFound | Kind::Upstream4xx | Kind::UpstreamSchema => false,
        _ => true,
    }
}

/// Whether a page begins with the second record of `first`.
fn compared(first: &Page, page: &Page) -> Finding {
    match (first.records.get(1), page.records.first()) {
        (Some(expected), Some(found)) if first.id(expected) == page.id(found) => {
            Finding::ok(Step::Paging, "the echo is right, and the second contact is where it should be")
        }
        (Some(_), _) => Finding::failed(
            Step::Paging,
            Code::RecordsMove,
            "the echo is right, but the contacts are not those of that window",
        )
        .advise("Ask again, in case the list was just changed; if it stays so, ask Kore.ai's support: no list can be relied on."),
        (None, _) => Finding::warning(
            Step::Paging,
            Code::TooShort,
            "the echo is right; the stream has fewer than two contacts, so that no more can be compared",
        )
        .advise("Ask for a stream with more contacts, with --stream."),
    }
}

/// What a page lacks that begins at the first record.
fn short(page: &Page) -> Option<String> {
    let due = page.total?.min(page.limit.into());
    let came = page.records.len();
    let short = u64::try_from(came).is_ok_and(|came| came < due);
    short.then(|| format!("{came} contacts came, where limit and total promise {due}"))
}

fn raise(limit: u32) -> String {
    format!("Set merge.page_limit_max = {limit}: whole lists then cost fewer calls.")
}

/// The account under examination, and where findings go.
struct Of<'a> {
    account: &'a Arc<Account>,
    told: Told,
    record: &'a mut Record,
    show: &'a mut Show,
}

impl Of<'_> {
    fn say(&mut self, finding: Finding) {
        self.show.step(&finding);
        self.record.findings.push(finding);
    }
}
