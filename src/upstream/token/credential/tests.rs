use tokio::time;

use super::{
    super::testing::{Bench, SECRET, given, now, set_clock_by, wall},
    *,
};
use crate::contacts::account::Algorithm;

const MINUTE: Duration = Duration::from_secs(60);

fn stream(name: &str) -> StreamId {
    StreamId::parse(name).unwrap()
}

fn credential(bench: &Bench) -> Arc<Credential> {
    bench.credentials.of(&bench.account).unwrap().clone()
}

async fn token(credential: &Arc<Credential>) -> Token {
    credential.token(&stream("st-1"), wall).await.unwrap()
}

fn signer(secret: &str) -> Signer {
    Signer::new(
        &crate::upstream::secret::Secret::new(secret),
        Algorithm::HS256,
    )
    .unwrap()
}

/// The claims, whatever the signature is.
fn claims(token: &Token) -> serde_json::Value {
    let text = token.header.to_str().unwrap();
    jsonwebtoken::dangerous::insecure_decode(text)
        .unwrap()
        .claims
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shared_until_half_its_life() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let first = token(&credential).await;
    time::advance(5 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(token(&credential).await.header, first.header);
    time::advance(Duration::from_secs(1)).await;
    assert_ne!(token(&credential).await.header, first.header);
    assert_eq!(bench.minted(), 2);
    let expires = bench.metric(r#"token_expires_timestamp_seconds{account="acme"}"#);
    assert_eq!(expires, 1_800_000_000 + 15 * 60);
}

#[tokio::test(start_paused = true)]
async fn chance_spreads_the_mints_over_a_tenth_of_a_life() {
    let bench = Bench::new();
    let late = credential(&bench);
    let settings = Settings {
        chance: || 1.0,
        ..late.settings.clone()
    };
    let metrics = crate::upstream::token::Metrics::new(&crate::metrics::Registry::new().unwrap());
    let early = Credential::new(
        bench.account.clone(),
        settings,
        metrics.unwrap().of(&bench.account),
    );
    let early = Arc::new(early);
    early.put(Slot::First, signer(SECRET), Instant::now());
    let (one, other) = (token(&early).await, token(&late).await);
    assert_eq!(one.old, wall() + 4 * MINUTE);
    assert_eq!(other.old, wall() + 5 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_holds_nobody_up_who_has_a_valid_token() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let first = token(&credential).await;
    time::advance(9 * MINUTE).await;
    let minting = credential.minting.lock().await;
    let held_up = time::timeout(MINUTE, token(&credential)).await;
    assert_eq!(held_up.expect("not held up").header, first.header);
    // Nothing valid is left half a minute before the end: now they wait.
    time::advance(Duration::from_secs(30)).await;
    let waiting = tokio::spawn({
        let credential = credential.clone();
        async move { token(&credential).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(minting);
    assert_ne!(waiting.await.unwrap().header, first.header);
    assert_eq!(bench.minted(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_share_one_mint() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let credential = credential.clone();
            tokio::spawn(async move { credential.token(&stream("st-1"), SystemTime::now).await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap().unwrap();
    }
    assert_eq!(bench.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_costs_a_token_and_ends_every_rest() {
    for jump in [3600, -3600] {
        set_clock_by(0);
        let bench = Bench::new();
        let credential = credential(&bench);
        let first = token(&credential).await;
        credential.accepted(&stream("st-1"), &first);
        // Refused twice in a row, say because the gateway's clock was wrong.
        for _ in 0..2 {
            let token = token(&credential).await;
            credential.refused(&stream("st-1"), &token, Reason::Unsaid, Instant::now());
        }
        assert!(credential.admit(&stream("st-1"), None, now()).is_err());
        set_clock_by(jump);
        assert!(
            credential.admit(&stream("st-1"), None, now()).is_ok(),
            "{jump}"
        );
        let after = token(&credential).await;
        let seconds = 1_800_000_000 + jump;
        assert_eq!(claims(&after)["exp"], seconds + 600);
        assert_eq!(claims(&after)["iat"], seconds - 30);
    }
}

#[tokio::test(start_paused = true)]
async fn in_auto_a_documented_refusal_switches_for_good() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let shared = token(&credential).await;
    assert!(claims(&shared).get("jti").is_none());
    let refuse = |token: &Token| {
        let error = credential.refused(&stream("st-1"), token, Reason::Jti, Instant::now());
        error.again()
    };
    assert_eq!(refuse(&shared), Some(Again::Resigned));
    // Five hundred were refused together: for each of them a new token may help, and none makes the stream rest.
    for _ in 0..500 {
        assert_eq!(refuse(&shared), Some(Again::Resigned));
    }
    assert!(credential.admit(&stream("st-1"), None, now()).is_ok());
    let (one, other) = (token(&credential).await, token(&credential).await);
    assert_ne!(claims(&one)["jti"], claims(&other)["jti"]);
    assert_eq!(
        bench.metric(r#"token_jti_mode{account="acme",mode="per_request"}"#),
        1
    );
    assert_eq!(
        bench.metric(r#"token_jti_mode{account="acme",mode="off"}"#),
        0
    );
    assert_eq!(
        bench.metric(r#"tokens_refused_total{account="acme",reason="jti"}"#),
        501
    );
}

#[tokio::test(start_paused = true)]
async fn the_configured_mode_stays() {
    let bench = Bench::with(given(SECRET), |told| told.jti = Jti::Off);
    let off = credential(&bench);
    let shared = token(&off).await;
    let error = off.refused(&stream("st-1"), &shared, Reason::Jti, Instant::now());
    assert_eq!(
        (error.again(), error.detail()),
        (None, Reason::Jti.detail())
    );
    assert!(claims(&token(&off).await).get("jti").is_none());

    let bench = Bench::with(given(SECRET), |told| told.jti = Jti::PerRequest);
    let once = credential(&bench);
    let (one, other) = (token(&once).await, token(&once).await);
    assert_ne!(claims(&one)["jti"], claims(&other)["jti"]);
    let hour = claims(&one)["exp"].as_u64().unwrap() - claims(&one)["iat"].as_u64().unwrap();
    assert!(hour <= 3600);
    assert_eq!(
        bench.metric(r#"token_jti_mode{account="acme",mode="per_request"}"#),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn each_reason_is_told_in_a_sentence_and_counted() {
    for reason in Reason::ALL {
        let bench = Bench::with(given(SECRET), |told| told.jti = Jti::PerRequest);
        let credential = credential(&bench);
        let refused = token(&credential).await;
        let error = credential.refused(&stream("st-1"), &refused, reason, Instant::now());
        assert_eq!(error.kind(), Kind::UpstreamAuthRejected);
        assert_eq!(error.detail(), reason.detail());
        assert_eq!(error.again().is_some(), reason.is_curable(), "{reason:?}");
        assert!(!error.is_unsent());
        let counted = format!(
            "tokens_refused_total{{account=\"acme\",reason=\"{}\"}}",
            reason.word()
        );
        assert_eq!(bench.metric(&counted), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn health_is_shown() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let health = |word: &str| {
        bench.metric(&format!(
            "credential_state{{account=\"acme\",state=\"{word}\"}}"
        ))
    };
    assert_eq!(
        (health("ok"), health("resting"), health("disabled")),
        (1, 0, 0)
    );
    let good = token(&credential).await;
    credential.accepted(&stream("st-1"), &good);
    for _ in 0..2 {
        let token = token(&credential).await;
        credential.refused(&stream("st-1"), &token, Reason::Unsaid, Instant::now());
    }
    assert_eq!((health("ok"), health("resting")), (0, 1));
    let told = credential.admit(&stream("st-2"), None, now()).unwrap_err();
    assert!(told.is_unsent());
    assert_eq!(told.told_to_wait(), Some(Duration::from_secs(1)));
    credential.accepted(&stream("st-1"), &good);
    assert_eq!((health("ok"), health("resting")), (1, 0));
    let without = Bench::with(None.into(), |_| ());
    let disabled = without.metric(r#"credential_state{account="acme",state="disabled"}"#);
    assert_eq!(disabled, 1);
    let error = self::credential(&without)
        .token(&stream("st-1"), wall)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialsUnavailable);
    assert!(error.is_unsent());
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_is_tried_for_a_known_stream_and_ends_rests() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let good = token(&credential).await;
    credential.accepted(&stream("st-1"), &good);
    assert!(credential.put(Slot::First, signer("new"), Instant::now()));
    // A stranger has the old one, which says nothing of the new.
    let other = credential.token(&stream("st-2"), wall).await.unwrap();
    assert!(!other.trial);
    let tried = token(&credential).await;
    assert!(tried.trial);
    let error = credential.refused(&stream("st-1"), &tried, Reason::Unsaid, Instant::now());
    assert_eq!(error.again(), Some(Again::Resigned));
    assert!(
        credential.admit(&stream("st-1"), None, now()).is_ok(),
        "nothing rests for it"
    );
    let old = token(&credential).await;
    assert!(!old.trial);
    credential.accepted(&stream("st-1"), &old);
    time::advance(Duration::from_secs(1)).await;
    let tried = token(&credential).await;
    assert!(tried.trial);
    credential.accepted(&stream("st-1"), &tried);
    assert_eq!(token(&credential).await.key, tried.key);
}

#[tokio::test(start_paused = true)]
async fn the_second_try_is_not_signed_with_the_secret_that_was_refused() {
    let bench = Bench::new();
    let credential = credential(&bench);
    let old = token(&credential).await;
    credential.accepted(&stream("st-1"), &old);
    // A wrong stream has ended the generation meanwhile, and the new secret is on trial with somebody else.
    let refuse = |name: &str, token: &Token| {
        let error = credential.refused(&stream(name), token, Reason::Unsaid, Instant::now());
        error.again()
    };
    assert_eq!(refuse("st-wrong", &old), Some(Again::Resigned));
    credential.put(Slot::First, signer("new"), Instant::now());
    let tried = token(&credential).await;
    assert!(tried.trial);
    assert_eq!(refuse("st-1", &old), Some(Again::Resigned));
    assert_eq!(token(&credential).await.key, tried.key);
}

#[test]
fn debug_shows_neither_secret_nor_token() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let bench = Bench::with(
        super::super::testing::with_next(SECRET, "canary-2"),
        |told| {
            told.claims = [(
                "x",
                crate::contacts::account::claims::Claim::Text("canary-3".to_owned()),
            )]
            .into();
        },
    );
    let token = runtime.block_on(token(&credential(&bench)));
    let shown = format!("{:?} {token:?} {:#?}", bench.credentials, bench.credentials);
    let text = token.header.to_str().unwrap();
    assert!(
        !shown.contains("canary") && !shown.contains(text),
        "{shown}"
    );
    // As bytes, neither.
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}
