//! How many series there are, and that they are there before anything has happened.

use std::collections::BTreeSet;

use super::*;
use crate::{
    contacts::{
        account::{self, StreamConfig},
        verdict::Verdict,
    },
    edge::key::Digest,
    error::Kind,
    served::Served,
    upstream::secret::Secret,
};

/// More accounts, streams and callers than metrics tell apart.
fn crowd() -> Config {
    let mut config = Config::default();
    (config.listen.address, config.admin.address) = (
        "127.0.0.1:0".parse().unwrap(),
        "127.0.0.1:0".parse().unwrap(),
    );
    let stream = |number: usize, place| StreamConfig {
        name: format!("stream-{place}"),
        stream_id: format!("st-{number}-{place}"),
    };
    let account = |number| account::Config {
        name: format!("account-{number}"),
        account_id: format!("a{number}"),
        client_id: format!("cs-{number}"),
        // Each but every third lists some, so that they have named streams and others.
        streams: match number % 3 {
            0 => Vec::new(),
            _ => (0..number).map(|place| stream(number, place)).collect(),
        },
        ..account::Config::default()
    };
    config.accounts = (0..25).map(account).collect();
    let caller = |number| caller::Config {
        name: format!("caller-{number}"),
        key_sha256: vec![Digest::of(&format!("key-{number}")).to_string()],
        accounts: vec!["account-0".to_owned()],
        ..caller::Config::default()
    };
    config.callers = (0..25).map(caller).collect();
    config
}

async fn series(config: &Config) -> BTreeSet<String> {
    let secrets: Vec<_> = config
        .accounts
        .iter()
        .map(|_| Some(Secret::new("secret")))
        .collect();
    let app = App::bind(config, secrets).await.unwrap();
    let text = String::from_utf8(app.metrics().render().unwrap()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

/// What else there can be, with its first event: how an account's calls end, and what its tokens are refused with. Each of
/// them may see so many ways of either and be told apart.
const WAYS: usize = 8;

/// Catches a label that grows with the configuration, and a histogram with too many buckets for its labels.
#[tokio::test]
async fn the_largest_configuration_leaves_room_below_two_thousand_series() {
    let series = series(&crowd()).await;
    let on_first_use = WAYS * (account::LABELS_MAX + 1);
    assert!(
        series.len() + on_first_use <= 2_000,
        "{} from the start, and {on_first_use} to come",
        series.len()
    );
}

/// Catches a total that is there only once it is not 0 any more: an increase that nobody sees.
#[tokio::test]
async fn every_total_by_outcome_is_there_from_the_start() {
    let series = series(&crowd()).await;
    let mut expected = Vec::new();
    let mut expect = |name: &str, labels: &[(&str, &str)]| {
        let mut labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        labels.sort();
        expected.push(format!("contacts_gateway_{name}{{{}}}", labels.join(",")));
    };
    for kind in Kind::ALL {
        let code = kind.code();
        expect("problems_total", &[("listener", "traffic"), ("code", code)]);
        if kind.ends_a_fetch() {
            expect("walks_total", &[("outcome", code)]);
            expect("streams_total", &[("outcome", code)]);
            if !matches!(kind, Kind::StreamNotFound | Kind::UpstreamTenantMismatch) {
                for cache in ["pages", "lists"] {
                    expect("cache_stale_total", &[("cache", cache), ("reason", code)]);
                }
            }
        }
        if kind.ends_an_attempt() {
            expect("upstream_outcomes_total", &[("outcome", code)]);
        }
    }
    for served in Served::ALL {
        for cache in ["pages", "lists"] {
            let labels = [("cache", cache), ("result", served.word())];
            expect("cache_requests_total", &labels);
        }
    }
    for verdict in Verdict::ACCEPTED {
        expect("walks_total", &[("outcome", verdict)]);
        expect("streams_total", &[("outcome", verdict)]);
    }
    for listener in ["traffic", "admin"] {
        let labels = [
            ("listener", listener),
            ("resource", "other"),
            ("status", "200"),
        ];
        expect("requests_total", &labels);
    }
    for status in [
        "400", "401", "403", "404", "429", "500", "502", "503", "504",
    ] {
        let labels = [
            ("listener", "traffic"),
            ("resource", "other"),
            ("status", status),
        ];
        expect("requests_total", &labels);
    }
    for account in ["account-0", "other"] {
        for gauge in [
            "stale_runway_seconds",
            "budget_left_calls",
            "list_gap_contacts",
        ] {
            expect(gauge, &[("account", account)]);
        }
    }
    for series_expected in expected {
        assert!(
            series.contains(&series_expected),
            "{series_expected} is missing"
        );
    }
}
