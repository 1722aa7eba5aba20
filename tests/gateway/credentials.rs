//! One account's trouble with its secret is no other account's.

use contacts_gateway::simulator::{AccountSettings, DEMO_STREAM_ID, Settings, Simulator};

use crate::support::{Gateway, configuration, path, secrets};

/// K5. Catches a gateway that does not start, or that signs with nothing, or an account that suffers for another.
#[tokio::test]
async fn an_account_without_its_secret_is_disabled_alone() {
    let accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 50))
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        ..Settings::default()
    })
    .await
    .unwrap();
    let mut known = secrets(&accounts);
    known[0] = None;
    let gateway = Gateway::start(&configuration(&kore.base_url(), &accounts), known).await;
    let ask = async |number: usize, query: &str| {
        let account: &AccountSettings = &accounts[number];
        gateway
            .get_as(&account.account_id, &path(DEMO_STREAM_ID, query))
            .await
    };
    for query in ["", "?all=true"] {
        let refused = ask(0, query).await;
        refused.is_problem(503, "credentials_unavailable");
        ask(1, query).await.ok();
    }
    assert!(kore.calls(&accounts[0].account_id).total == 0);
    assert_eq!(gateway.attempts("credentials_unavailable").await, 0.0);
    assert!(gateway.operate("/readyz").await.status == 200);
}

/// Catches a token for each request, which costs a signature each, or one that two accounts share.
#[tokio::test]
async fn an_account_signs_once_for_many_requests() {
    let accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 1_000))
        .collect();
    let kore = Simulator::start(Settings {
        accounts: accounts.clone(),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let config = configuration(&kore.base_url(), &accounts);
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    for account in &accounts {
        let target = path(DEMO_STREAM_ID, "?all=true");
        gateway.get_as(&account.account_id, &target).await.ok();
    }
    let mut tokens: Vec<_> = kore
        .requests()
        .iter()
        .map(|seen| {
            (
                seen.header("accountid").to_owned(),
                seen.header("auth").to_owned(),
            )
        })
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 2, "one token for each account");
    assert_ne!(tokens[0].1, tokens[1].1);
}
