//! Tokens, secrets and clocks over real sockets, as a gateway meets them.

use std::time::SystemTime;

use http_body_util::Full;

use super::*;

/// One account with the demo's stream.
fn account() -> AccountSettings {
    AccountSettings::demo()
}

async fn of(account: AccountSettings) -> Simulator {
    start(Settings {
        accounts: vec![account],
        rate_limit: None,
        ..Settings::default()
    })
    .await
}

async fn by(kore: &Simulator, token: &str) -> Got {
    let request = Request::get(format!("{}{PATH}", kore.base_url()))
        .header("accountId", DEMO_ACCOUNT_ID)
        .header("auth", token)
        .body(Empty::new())
        .unwrap();
    send(false, request).await
}

async fn control(kore: &Simulator, method: &str, path: &str, form: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(format!("{}/_simulator/{path}", kore.base_url()));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = request.body(Bytes::from(form.to_owned()).into()).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// How far the `Date` of an answer is ahead of this machine's clock, in seconds.
fn ahead(got: &Got) -> i64 {
    let date = got.headers["date"].to_str().unwrap();
    let date = httpdate::parse_http_date(date).unwrap();
    match date.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    }
}

#[tokio::test]
async fn each_denial_is_sent_as_it_was_seen() {
    let kore = of(account()).await;
    for (fault, body) in [
        (
            "credentials",
            r#"{"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#,
        ),
        (
            "token",
            r#"{"errors":[{"msg":"Invalid JWT token","code":4002}]}"#,
        ),
        (
            "scope",
            r#"{"errors":[{"msg":"Permission denied. Scope is incorrect!","code":4002}]}"#,
        ),
        (
            "scope-message",
            r#"{"errors":[{"message":"Permission denied. Scope is incorrect!","code":4002}]}"#,
        ),
        (
            "jti-expiry",
            r#"{"errors":[{"msg":"error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)","code":401}]}"#,
        ),
        (
            "replay",
            r#"{"errors":[{"msg":"error verifying the jwt: possibly a replay","code":401}]}"#,
        ),
        (
            "authenticate",
            r#"{"code":401,"message":"Please authenticate"}"#,
        ),
    ] {
        kore.fault_next(1, format!("denied={fault}").parse().unwrap());
        let got = get(&kore, "").await;
        assert_eq!((got.status.as_u16(), got.text()), (401, body), "{fault}");
        assert_eq!(
            got.headers["content-type"],
            "application/json; charset=utf-8"
        );
    }
    kore.fault_next(1, Fault::Denied(Denial::NoJti));
    let guessed = get(&kore, "").await.json();
    assert_eq!(guessed["errors"][0]["code"], 401);
    assert_eq!(get(&kore, "").await.status, StatusCode::OK, "healed");
    let counts = kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!((counts.faulted, counts.denied, counts.replays), (8, 0, 0));
}

#[tokio::test]
async fn rsa_apps_open_to_their_key() {
    let (private, public) = rsa_key();
    for algorithm in [Algorithm::RS256, Algorithm::RS512] {
        let kore = of(AccountSettings {
            algorithm,
            client_secret: SecretString::from(&*public),
            ..account()
        })
        .await;
        assert_eq!(kore.mint(DEMO_ACCOUNT_ID, HOUR), None);
        let owner = of(AccountSettings {
            algorithm,
            client_secret: SecretString::from(&*private),
            ..account()
        })
        .await;
        let token = owner.token(DEMO_ACCOUNT_ID, HOUR);
        assert_eq!(by(&kore, &token).await.status, StatusCode::OK);
        let shared = of(account()).await.token(DEMO_ACCOUNT_ID, HOUR);
        assert_eq!(by(&kore, &shared).await.status, StatusCode::UNAUTHORIZED);
    }
    let error = Simulator::start(Settings {
        accounts: vec![AccountSettings {
            algorithm: Algorithm::RS256,
            ..account()
        }],
        ..Settings::default()
    });
    let error = error.await.unwrap_err().to_string();
    let said = format!("account `{DEMO_ACCOUNT_ID}`: an app of RS256 needs an RSA key in PEM");
    assert!(error.starts_with(&said), "{error}");
}

#[tokio::test]
async fn secrets_rotate_while_it_runs() {
    let kore = of(account()).await;
    let old = kore.token(DEMO_ACCOUNT_ID, HOUR);
    kore.add_secret(DEMO_ACCOUNT_ID, "new").unwrap();
    let new = kore.token(DEMO_ACCOUNT_ID, HOUR);
    for token in [&old, &new, &new] {
        assert_eq!(by(&kore, token).await.status, StatusCode::OK);
    }
    assert_eq!(kore.calls_by_secret(DEMO_ACCOUNT_ID), [1, 2]);
    let first = account().client_secret;
    kore.revoke_secret(DEMO_ACCOUNT_ID, first.expose_secret())
        .unwrap();
    let refused = by(&kore, &old).await;
    assert!(refused.text().contains("Invalid SDK credentials"));
    assert_eq!(by(&kore, &new).await.status, StatusCode::OK);
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).tokens, 2);
}

#[tokio::test]
async fn curl_rotates_a_secret_that_is_never_shown() {
    let kore = of(account()).await;
    let old = kore.token(DEMO_ACCOUNT_ID, HOUR);
    let first = account().client_secret;
    let escaped = first.expose_secret().replace('+', "%2B");
    let (status, shown) = control(&kore, "POST", "secrets", "add=CANARY%2B%3D%0A").await;
    let app = &shown["accounts"][DEMO_ACCOUNT_ID];
    assert_eq!((status, app["secrets"].as_array().unwrap().len()), (200, 2));
    assert_eq!(app["algorithm"], "HS256");
    let new = kore.token(DEMO_ACCOUNT_ID, HOUR);
    by(&kore, &new).await;
    let form = format!("revoke={escaped}&account={DEMO_ACCOUNT_ID}");
    let (_, shown) = control(&kore, "POST", "secrets", &form).await;
    assert_eq!(
        shown["accounts"][DEMO_ACCOUNT_ID]["secrets"],
        serde_json::json!([{"calls": 1}])
    );
    assert_eq!(by(&kore, &old).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(by(&kore, &new).await.status, StatusCode::OK);
    assert_eq!(
        kore.revoke_secret(DEMO_ACCOUNT_ID, "CANARY+="),
        Ok(()),
        "as it was meant"
    );

    for (form, said) in [
        ("CANARY", "send add=SECRET"),
        ("revoke=CANARY", "the app has no such secret"),
        ("add=", "a secret that is not empty"),
        ("add=CANARY&account=none", "there is no account `none`"),
    ] {
        let (status, shown) = control(&kore, "POST", "secrets", form).await;
        let shown = shown.to_string();
        assert!(
            status == 400 && shown.contains(said) && !shown.contains("CANARY"),
            "{form}: {shown}"
        );
    }
    let (_, shown) = control(&kore, "GET", "secrets", "").await;
    let debug = format!("{kore:?} {:?} {shown}", kore.settings());
    assert!(!debug.contains(first.expose_secret()) && !debug.contains("CANARY"));
}

#[tokio::test]
async fn an_enforced_jti_opens_once() {
    let kore = of(AccountSettings {
        enforce_jti: true,
        ..account()
    })
    .await;
    let token = kore.token(DEMO_ACCOUNT_ID, HOUR);
    assert_eq!(by(&kore, &token).await.status, StatusCode::OK);
    assert!(by(&kore, &token).await.text().contains("possibly a replay"));
    let late = kore.token(DEMO_ACCOUNT_ID, HOUR * 2);
    assert!(by(&kore, &late).await.text().contains("<= 1 hour(s)"));
    let without = of(account()).await.token(DEMO_ACCOUNT_ID, HOUR);
    assert!(by(&kore, &without).await.text().contains("is required"));
    let (_, shown) = control(&kore, "GET", "calls", "").await;
    let counts = &shown["accounts"][DEMO_ACCOUNT_ID];
    assert_eq!(
        (&counts["tokens"], &counts["replays"], &counts["denied"]),
        (&3.into(), &1.into(), &3.into())
    );
}

#[tokio::test]
async fn without_its_scope_an_app_reads_nothing() {
    let kore = of(AccountSettings {
        scope: false,
        ..account()
    })
    .await;
    let refused = get(&kore, "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.text().contains("Scope is incorrect!"));
}

#[tokio::test]
async fn its_clock_is_what_it_says_and_judges_by() {
    let kore = start(Settings {
        clock_offset: -1_800,
        ..Settings::default()
    })
    .await;
    let behind = get(&kore, "").await;
    assert!((-1_860..=-1_800).contains(&ahead(&behind)));
    assert_eq!(behind.status, StatusCode::OK);
    let token = kore.token(DEMO_ACCOUNT_ID, HOUR);

    kore.set_clock_offset(1_700).unwrap();
    assert_eq!(by(&kore, &token).await.status, StatusCode::OK);
    kore.set_clock_offset(1_900).unwrap();
    let expired = by(&kore, &token).await;
    assert_eq!(expired.status, StatusCode::UNAUTHORIZED);
    assert!((1_800..=1_900).contains(&ahead(&expired)), "refusals too");

    let (status, shown) = control(&kore, "POST", "clock?offset=-2m", "").await;
    assert_eq!((status, &shown["offset_seconds"]), (200, &(-120).into()));
    assert!((-180..=-120).contains(&ahead(&by(&kore, &token).await)));
    kore.fault_next(1, "drip=1ms".parse().unwrap());
    let dripped = send(false, request(&kore, &format!("{PATH}?limit=1"))).await;
    assert!((-180..=-120).contains(&ahead(&dripped)), "below HTTP too");
    for (form, said) in [
        ("", "offset=TIME"),
        ("offset=2", "whole seconds"),
        ("offset=2years", "31536000 seconds"),
        ("by=2s", "only offset"),
    ] {
        let (status, shown) = control(&kore, "POST", "clock", form).await;
        let error = shown["error"].as_str().unwrap();
        assert!(status == 400 && error.contains(said), "{form}: {error}");
    }
    let (_, shown) = control(&kore, "GET", "clock", "").await;
    assert_eq!(shown["offset_seconds"], -120);
}

#[tokio::test]
async fn a_fault_may_date_its_answer_itself() {
    let kore = of(account()).await;
    let date = "Thu, 01 Jan 1970 00:00:00 GMT";
    let fault = format!("status=503;header=Date: {date}");
    kore.fault_next(1, fault.parse().unwrap());
    let got = get(&kore, "").await;
    let dates: Vec<_> = got.headers.get_all("date").iter().collect();
    assert_eq!(dates, [date]);
}
