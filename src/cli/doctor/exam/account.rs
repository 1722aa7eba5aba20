//! The steps of one account: a token, a page of each stream, then paging and limits on the first that was read.

use std::{sync::Arc, time::SystemTime};

use super::{
    super::{
        diagnosis::{self, Told},
        finding::{Code, Finding, Largest, Record, Status, Step},
        pages, plan,
        show::Show,
    },
    Exam,
};
use crate::{
    contacts::{
        account::{self, Account},
        collection::Collection,
        ids::StreamId,
        page::{Page, Window},
    },
    error::{Again, Error, Kind},
    service::FetchPage,
    upstream::{
        Paging,
        token::{Condition, Reason},
    },
};

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

impl<S: FetchPage> Exam<S> {
    /// Examines one account. `broken` is the host's step that failed, if one did.
    pub(in crate::cli::doctor) async fn account(
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
        let streams = match plan::streams(told, named) {
            Ok(streams) => streams,
            Err(usage) => {
                show.step(&usage);
                record.findings.push(usage);
                return record;
            }
        };
        record.calls_max = plan::calls_max(&self.config, streams.len());
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
            for _ in 1..plan::TRIES {
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
            if pages::end(&outcomes) {
                break;
            }
        }
        let condition = self.condition(of.account);
        let ahead = self.witness.notes().ahead;
        for (stream, finding) in pages::judged(&outcomes, &condition, of.told, ahead) {
            let finding = match stream {
                Some(stream) => finding.of_stream(&of.account.stream_name(stream)),
                None => finding,
            };
            of.say(finding);
        }
        for stream in &streams[outcomes.len()..] {
            let detail = "a stream before it failed in a way that this one would, too";
            let finding = Finding::new(Step::Page, Status::Skipped, Code::Before, detail);
            of.say(finding.of_stream(&of.account.stream_name(stream)));
        }
        read
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
            Ok(page) => pages::compared(first, &page),
            Err(error) if error.kind() == Kind::UpstreamSchema => {
                let other = match self.config.upstream.paging {
                    Paging::SkipLimit => (Paging::PageLimit, "page_limit"),
                    Paging::PageLimit => (Paging::SkipLimit, "skip_limit"),
                };
                let again = self.second(&self.other, other.0, collection, of.show).await;
                match again.map(|page| pages::compared(first, &page)) {
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
        of.say(finding.of_stream(&stream));
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
        for limit in plan::limits(&self.config) {
            let window = Window { skip: 0, limit };
            match self.ask(&self.asked, collection, window, of.show).await {
                Ok(page) => {
                    let exact = refused.is_some() || page.limit < limit;
                    of.record.largest = Some(Largest {
                        limit: page.limit,
                        exact,
                    });
                    let finding =
                        pages::limit(limit, refused, &page, self.config.merge.page_limit_max);
                    return of.say(finding.of_stream(&stream));
                }
                Err(error)
                    if matches!(error.kind(), Kind::Upstream4xx | Kind::UpstreamTooLarge) =>
                {
                    refused = Some(limit);
                    last = Some(error);
                }
                Err(error) => {
                    return of.say(diagnosis::broken(Step::Limit, &error).of_stream(&stream));
                }
            }
        }
        if let Some(error) = last {
            of.say(diagnosis::broken(Step::Limit, &error).of_stream(&stream));
        }
    }
}
