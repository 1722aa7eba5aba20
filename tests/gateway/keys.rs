//! Nobody gets another's answer: the key is account, stream, window, and page or list.

use contacts_gateway::simulator::AccountSettings;
use futures_util::future::join_all;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::support::{World, list, page, path};

/// Contacts of every stream: more than one page of a walk holds, so that lists are spliced too.
const CONTACTS: u64 = 23;

/// One request, by all that tells it from another.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    account: usize,
    stream: &'static str,
    /// `None` asks for the list.
    window: Option<(u64, u64)>,
}

/// Few values of each part, so that requests often differ in just one.
fn asked() -> impl Strategy<Value = Asked> {
    let window = (
        prop::sample::select(vec![0, 1, 10, 22, 23]),
        prop::sample::select(vec![1, 2, 10, 23]),
    );
    (
        0_usize..3,
        prop::sample::select(vec!["st-a", "st-b", "st-1", "a"]),
        prop::option::weighted(0.8, window),
    )
        .prop_map(|(account, stream, window)| Asked {
            account,
            stream,
            window,
        })
}

fn accounts() -> Vec<AccountSettings> {
    let numbered = |number| AccountSettings::numbered(number).others(CONTACTS);
    let mut accounts: Vec<_> = (0..3).map(numbered).collect();
    // Two of them share their JWT app, and so their credential: only the account's id is left to tell them apart.
    accounts[2].client_id = accounts[1].client_id.clone();
    accounts[2].client_secret = accounts[1].client_secret.clone();
    accounts
}

async fn world() -> World {
    World::with(
        |settings| settings.accounts = accounts(),
        |config| {
            config.merge.page_limit_max = 7;
            // As many as the lists that may be asked for.
            config.merge.walks_max = 12;
        },
    )
    .await
}

async fn check(world: &World, accounts: &[AccountSettings], asked: &Asked) {
    let account = &accounts[asked.account].account_id;
    let (query, expected) = match asked.window {
        Some((skip, limit)) => (
            format!("?skip={skip}&limit={limit}"),
            page(account, asked.stream, CONTACTS, skip, limit),
        ),
        None => (
            "?all=true".to_owned(),
            list(account, asked.stream, CONTACTS),
        ),
    };
    let answer = world
        .gateway
        .get_as(account, &path(asked.stream, &query))
        .await
        .ok();
    for record in answer.json()["results"].as_array().unwrap() {
        assert_eq!(record["accountId"], account.as_str(), "{asked:?}");
        assert_eq!(record["instanceBotId"], asked.stream, "{asked:?}");
    }
    assert_eq!(answer.text(), expected, "{asked:?}");
}

/// Catches any part that is left out of a key, of its hash or of its comparison: in the copies, in the flights, in the
/// collections that are remembered, and in the lists that windows are cut from.
#[test]
fn no_two_requests_share_an_answer_unless_they_ask_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = Config {
        cases: 24,
        failure_persistence: None,
        // A case costs some fifty requests: a failure is as readable as it came.
        max_shrink_iters: 20,
        ..Config::default()
    };
    let requests = prop::collection::vec(asked(), 1..40);
    let outcome = TestRunner::new(config).run(&requests, |requests| {
        runtime.block_on(async {
            let (accounts, world) = (accounts(), world().await);
            // All at once, while nothing is held: the flights are told apart.
            join_all(requests.iter().map(|asked| check(&world, &accounts, asked))).await;
            // One after the other: the copies are.
            for asked in &requests {
                check(&world, &accounts, asked).await;
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The same in the order that a mistake would show in at once: one asks, then another for the same but for one part.
#[tokio::test]
async fn requests_that_differ_in_one_part_are_fetched_apart() {
    let accounts = accounts();
    let base = Asked {
        account: 1,
        stream: "st-a",
        window: Some((10, 10)),
    };
    let others = [
        Asked {
            account: 0,
            ..base.clone()
        },
        // The same credential.
        Asked {
            account: 2,
            ..base.clone()
        },
        Asked {
            stream: "st-b",
            ..base.clone()
        },
        Asked {
            window: Some((1, 10)),
            ..base.clone()
        },
        Asked {
            window: Some((10, 1)),
            ..base.clone()
        },
        Asked {
            window: None,
            ..base.clone()
        },
    ];
    for other in others {
        let world = world().await;
        check(&world, &accounts, &base).await;
        check(&world, &accounts, &other).await;
        check(&world, &accounts, &base).await;
        let calls: u64 = accounts
            .iter()
            .map(|account| world.kore.calls(&account.account_id).total)
            .sum();
        assert!(calls >= 2, "{other:?} was answered from another's copy");
    }
}

/// Catches an account or a stream that is compared without its case, or a list that answers another account's windows.
#[tokio::test]
async fn ids_that_differ_in_case_are_not_the_same() {
    let world = World::new().await;
    let lower = world.stream("st-case", "?all=true").await.ok();
    let upper = world.stream("ST-CASE", "").await.ok();
    assert!(upper.is_miss(), "{:?}", upper.headers);
    assert_eq!(upper.json()["results"][0]["instanceBotId"], "ST-CASE");
    assert_ne!(
        lower.json()["results"][0]["id"],
        upper.json()["results"][0]["id"]
    );
}
