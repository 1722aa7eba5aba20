//! Lists that change while they are read, over real sockets: what is called verified has all that stayed, once each.
//!
//! What any walk may believe is proved by thousands of random schedules beside its plan. Here the same promise is held
//! against the whole program: pages really side by side, and records that come and go before whichever call is next.

use std::collections::{BTreeMap, HashSet};

use contacts_gateway::simulator::{
    AccountSettings, ChangeKind, Churn, DEMO_ACCOUNT_ID, LimitMax, Settings,
};
use futures_util::{StreamExt, stream};

use crate::support::{Answer, World};

/// Streams, each of which changes in its own way.
const STREAMS: u32 = 240;

/// So many of them are read at once.
const WIDTH: usize = 8;

const CONTACTS: u64 = 95;

fn settings(seed: u64) -> impl FnOnce(&mut Settings) {
    move |settings: &mut Settings| {
        let streams = (0..STREAMS).map(name);
        let add = |account: AccountSettings, name: String| account.stream(&name, CONTACTS);
        settings.accounts = vec![streams.fold(AccountSettings::demo(), add)];
        settings.limit_max = LimitMax::Clamp(10);
        settings.seed = seed;
    }
}

fn name(number: u32) -> String {
    format!("st-{number}")
}

fn ids(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let records = body["results"].as_array().unwrap().iter();
    let id = |record: &serde_json::Value| record["id"].as_str().unwrap().to_owned();
    records.map(id).collect()
}

/// Catches a verified list that lacks what was there throughout, has anything twice or in another order, or whose length
/// is not its own count; a list in motion that is called anything but drifting; and one with anything twice under
/// whatever verdict.
#[tokio::test]
async fn what_is_verified_has_all_that_stayed() {
    let world = World::with(settings(11), |_| ()).await;
    let read = async |number: u32| {
        let name = name(number);
        let stream = world.kore.stream(DEMO_ACCOUNT_ID, &name);
        let before = stream.ids();
        let kinds = [ChangeKind::Insert, ChangeKind::Delete, ChangeKind::Update];
        // From one change in fifty calls to one in two.
        let churn = Churn::new(0.02 * f64::from(number % 25 + 1)).unwrap();
        stream.churn(Some(churn.only(&kinds)));
        let answer = world.prefer(&name, "handling=lenient").await.ok();
        stream.settle();
        let after: HashSet<_> = stream.ids().into_iter().collect();
        let found = ids(&answer);
        let once: HashSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len(), "{name}: twice");
        assert_eq!(answer.json()["totalResults"], found.len(), "{name}");
        let status = answer.header("merge-status").to_owned();
        let verdict = status.split(';').next().unwrap_or_default().to_owned();
        if verdict == "verified" {
            let stayed: Vec<_> = before.iter().filter(|id| after.contains(*id)).collect();
            let among: HashSet<_> = stayed.iter().copied().collect();
            let kept: Vec<_> = found.iter().filter(|id| among.contains(id)).collect();
            assert!(kept == stayed, "{name}: {status}");
        }
        verdict
    };
    let verdicts = stream::iter((0..STREAMS).map(read)).buffer_unordered(WIDTH);
    let count = async |mut counts: BTreeMap<String, u32>, verdict| {
        *counts.entry(verdict).or_default() += 1;
        counts
    };
    let counts = verdicts.fold(BTreeMap::new(), count).await;
    // Both happen, or the test would prove nothing.
    assert!(counts["verified"] > STREAMS / 4, "{counts:?}");
    assert!(counts["drifting"] > STREAMS / 50, "{counts:?}");
    assert_eq!(counts.len(), 2, "{counts:?}");
    let repairs = world.gateway.metric("walk_repairs_total").await;
    assert!(repairs > f64::from(STREAMS / 4), "{repairs}");
}
