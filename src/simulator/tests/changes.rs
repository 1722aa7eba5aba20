//! Records that change while they are read, over real sockets.

use bytes::Bytes;
use http_body_util::Full;

use super::*;

const FEW: &str = "st-few";

fn few(contacts: u64) -> Settings {
    let account = AccountSettings {
        streams: vec![],
        ..AccountSettings::demo()
    };
    Settings {
        accounts: vec![account.stream(FEW, contacts)],
        rate_limit: None,
        ..Settings::default()
    }
}

/// A page of the stream.
async fn page(kore: &Simulator, skip: u64, limit: u64) -> Got {
    let path = format!("/agentassist/api/v1/public/{FEW}/contacts?skip={skip}&limit={limit}");
    send(false, request(kore, &path)).await
}

/// All ids, as a reader of pages of two meets them.
async fn walk(kore: &Simulator) -> Vec<String> {
    let mut ids = vec![];
    loop {
        let got = page(kore, ids.len() as u64, 2).await;
        ids.extend(got.ids().iter().map(|id| id.trim_matches('"').to_owned()));
        if got.json()["hasMore"] == false {
            return ids;
        }
    }
}

#[tokio::test]
async fn each_change_is_seen_by_the_next_page() {
    let kore = start(few(6)).await;
    let stream = kore.stream(DEMO_ACCOUNT_ID, FEW);
    let ids = stream.ids();
    let before = stream.record(3).unwrap();
    assert_eq!(before, contact(DEMO_ACCOUNT_ID, FEW, 3));

    let new = stream.insert_at(0);
    assert_eq!(stream.delete(2), ids[1]);
    assert_eq!(stream.update(3), ids[3]);
    stream.swap(1, 5);
    let expected = [&new, &ids[5], &ids[2], &ids[3], &ids[4], &ids[0]];
    assert_eq!(stream.ids(), expected.map(String::clone));
    assert_eq!(walk(&kore).await, stream.ids());
    stream.reverse();
    assert_eq!(walk(&kore).await, stream.ids());

    let got = page(&kore, 0, 10).await;
    let records: Vec<String> = (0..stream.len())
        .map(|at| String::from_utf8(stream.record(at).unwrap()).unwrap())
        .collect();
    assert!(
        got.text()
            .starts_with(&format!("{{\"results\":[{}],\"skip\":0", records.join(",")))
    );
    assert_eq!(got.json()["totalResults"], 6);
    let after: Value = serde_json::from_slice(&stream.record(2).unwrap()).unwrap();
    let before: Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(after["id"], before["id"]);
    assert!(after["updatedAt"].as_str() > before["updatedAt"].as_str());
    assert_ne!(after["updatedBy"], before["updatedBy"]);

    for _ in 0..6 {
        stream.delete(0);
    }
    assert!(stream.is_empty() && walk(&kore).await.is_empty());
    assert_eq!((stream.record(0), stream.id(0)), (None, None));
    assert_eq!(
        stream.change(Change::Delete(0)),
        Err(ChangeError::NoRecord {
            position: 0,
            len: 0
        })
    );
}

#[tokio::test]
async fn a_change_between_two_pages_makes_a_walk_wrong() {
    let kore = start(few(6)).await;
    let stream = kore.stream(DEMO_ACCOUNT_ID, FEW);
    let ids = stream.ids();
    let own = |indices: &[usize]| {
        indices
            .iter()
            .map(|&at| ids[at].clone())
            .collect::<Vec<_>>()
    };

    stream.before_call(2, Change::Insert(0)).unwrap();
    assert_eq!(walk(&kore).await, own(&[0, 1, 1, 2, 3, 4, 5]), "one twice");
    stream.delete(0);
    stream.before_call(2, Change::Delete(0)).unwrap();
    assert_eq!(walk(&kore).await, own(&[0, 1, 3, 4, 5]), "one missing");
    assert_eq!(stream.calls(), 7);

    stream.before_call(2, Change::Delete(900)).unwrap();
    walk(&kore).await;
    assert_eq!(stream.ids(), own(&[1, 2, 3, 4, 5]), "one that cannot be");
    assert_eq!(
        stream.before_call(0, Change::Reverse),
        Err(ChangeError::NoCall)
    );
}

#[tokio::test]
async fn the_same_seed_changes_the_same_and_calls_that_are_refused_change_nothing() {
    let mut results = vec![];
    for (seed, refuse) in [(1, false), (1, true), (2, false)] {
        let kore = start(Settings {
            seed,
            churn: Some(Churn::new(1.5).unwrap()),
            changes: vec![(3, Change::Reverse)],
            ..few(40)
        })
        .await;
        for _ in 0..20 {
            if refuse {
                page(&kore, 0, 0).await;
            }
            page(&kore, 0, 5).await;
        }
        let stream = kore.stream(DEMO_ACCOUNT_ID, FEW);
        let unique: std::collections::HashSet<_> = stream.ids().into_iter().collect();
        assert_eq!(unique.len() as u64, stream.len());
        assert_eq!(stream.calls(), 20);
        let records: Vec<_> = (0..stream.len()).map(|at| stream.record(at)).collect();
        results.push(records);

        stream.settle();
        let before = stream.ids();
        page(&kore, 0, 5).await;
        assert_eq!(stream.ids(), before, "settled");
    }
    assert_eq!(results[0], results[1]);
    assert_ne!(results[0], results[2]);
}

#[tokio::test]
async fn a_million_contacts_with_some_edits_are_quick_at_their_end() {
    let kore = start(few(CONTACTS_MAX)).await;
    let stream = kore.stream(DEMO_ACCOUNT_ID, FEW);
    let last = stream.id(CONTACTS_MAX - 1).unwrap();
    for at in 0..1_000 {
        stream.insert_at(at * 990);
    }
    let before = tokio::time::Instant::now();
    let got = page(&kore, CONTACTS_MAX + 999, 1).await;
    assert_eq!(got.ids(), [format!("\"{last}\"")]);
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn curl_changes_a_running_one() {
    let kore = start(few(6)).await;
    let control = async |method: &str, query: &str, form: &'static str| {
        let request = Request::builder().method(method);
        let request = request
            .uri(format!("{}/_simulator/changes{query}", kore.base_url()))
            .body(Full::new(Bytes::from_static(form.as_bytes())));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request.unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let stream = kore.stream(DEMO_ACCOUNT_ID, FEW);
    let ids = stream.ids();
    let (status, shown) = control("POST", "?change=delete=0&change=reverse", "").await;
    assert_eq!(
        (status, &shown["streams"][0]["content"]["records"]),
        (200, &5.into())
    );
    assert_eq!(
        stream.ids(),
        ids[1..].iter().rev().cloned().collect::<Vec<_>>()
    );
    let form = "change=swap%3D0%2C1&before=1&churn=0&stream=st-few";
    let (_, shown) = control("POST", "", form).await;
    assert_eq!(
        shown["streams"][0]["content"]["scheduled"],
        serde_json::json!([{"before_call": 1, "change": "swap=0,1"}])
    );
    page(&kore, 0, 1).await;
    assert_eq!(stream.id(0).as_ref(), Some(&ids[4]));
    control("POST", "?change=reverse&before=1", "").await;
    let (_, shown) = control("DELETE", "", "").await;
    let content = &shown["streams"][0]["content"];
    assert_eq!(
        (&content["scheduled"], &content["churn"]),
        (&serde_json::json!([]), &Value::Null)
    );
    assert_eq!(
        (&content["changed"], &content["calls"]),
        (&3.into(), &1.into())
    );

    for (query, said) in [
        ("?change=delete=5", "there is no record 5: the stream has 5"),
        ("?change=reverse&stream=st-none", "name one stream"),
        ("?change=reverse&before=0", "counted from 1"),
    ] {
        let (status, shown) = control("POST", query, "").await;
        let error = shown["error"].as_str().unwrap();
        assert!(status == 400 && error.contains(said), "{query}: {error}");
    }
}
