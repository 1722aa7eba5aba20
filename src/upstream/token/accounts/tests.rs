use super::*;
use crate::{
    contacts::testing::account,
    upstream::{
        secret::{Secret, Source},
        token::testing::{Bench, given, wall, with_next},
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn missing() -> Sources {
    Sources::from(None)
}

/// Has the bench's account configured anew.
fn update(bench: &Bench, told: &account::Config, sources: Sources) -> Vec<Complaint> {
    let retire_at = Instant::now() + MINUTE;
    bench
        .credentials
        .update([(&bench.account, told, sources)], retire_at)
}

async fn signs(bench: &Bench) -> bool {
    let stream = StreamId::parse("st-1").unwrap();
    bench
        .credentials
        .prepare(&bench.account, &stream, wall)
        .await
        .is_ok()
}

fn states(bench: &Bench) -> [i64; 3] {
    ["ok", "resting", "disabled"].map(|state| {
        bench.metric(&format!(
            "credential_state{{account=\"acme\",state=\"{state}\"}}"
        ))
    })
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_changes_nothing() {
    let bench = Bench::new();
    let told = account::Config::default();
    let before = bench.credentials.of(&bench.account).unwrap();
    assert!(update(&bench, &told, given("canary-other")).is_empty());
    let complaints = update(&bench, &told, missing());
    assert_eq!(complaints.len(), 1);
    assert!(!complaints[0].is_disabled && !format!("{complaints:?}").contains("canary"));
    assert!(Arc::ptr_eq(
        &before,
        &bench.credentials.of(&bench.account).unwrap()
    ));
    assert!(signs(&bench).await);

    // Also where what is signed changes with it.
    let claims = toml::from_str("team = 'contacts'").unwrap();
    let told = account::Config { claims, ..told };
    assert!(!update(&bench, &told, missing())[0].is_disabled);
    assert!(!Arc::ptr_eq(
        &before,
        &bench.credentials.of(&bench.account).unwrap()
    ));
    assert!(signs(&bench).await);
    assert_eq!(states(&bench), [1, 0, 0]);
}

/// Catches a state that is counted twice, or that somebody who is gone still changes.
#[tokio::test(start_paused = true)]
async fn each_account_is_counted_once() {
    let bench = Bench::with(missing(), |_| ());
    assert_eq!(states(&bench), [0, 0, 1]);
    let mut told = account::Config::default();
    let gone = bench.credentials.of(&bench.account).unwrap();
    for (jti, modes) in [
        (Jti::PerRequest, [0, 1]),
        (Jti::Auto, [1, 0]),
        (Jti::Off, [1, 0]),
    ] {
        told.jti = jti;
        update(&bench, &told, missing());
        let mode = |mode| {
            bench.metric(&format!(
                "token_jti_mode{{account=\"acme\",mode=\"{mode}\"}}"
            ))
        };
        assert_eq!(["off", "per_request"].map(mode), modes, "{jti:?}");
        assert_eq!(states(&bench), [0, 0, 1]);
    }
    update(&bench, &told, given("secret"));
    assert_eq!(states(&bench), [1, 0, 0]);
    // A new account is disabled, and says so.
    let other = account("acme2");
    let both = [
        (&bench.account, &told, given("secret")),
        (&other, &told, missing()),
    ];
    let complaints = bench.credentials.update(both, Instant::now());
    assert_eq!(
        (&*complaints[0].account, complaints[0].is_disabled),
        ("acme2", true)
    );
    gone.leave();
    assert_eq!(states(&bench), [1, 0, 0]);
    bench.credentials.update([], Instant::now() + MINUTE);
    assert_eq!(states(&bench), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_signs_for_those_under_way_and_no_longer() {
    let bench = Bench::new();
    let told = account::Config::default();
    bench.credentials.update([], Instant::now() + MINUTE);
    time::sleep(MINUTE / 2).await;
    // Others that go do not make it stay longer.
    let other = account("other");
    bench
        .credentials
        .update([(&other, &told, given("x"))], Instant::now() + MINUTE);
    bench.credentials.update([], Instant::now() + MINUTE);
    bench.credentials.look(false);
    assert!(signs(&bench).await);
    time::sleep(MINUTE / 2).await;
    bench.credentials.look(false);
    assert!(!signs(&bench).await);
    assert_eq!(bench.credentials.count(), 1);
    let gone = bench.credentials.of(&bench.account).unwrap_err();
    assert_eq!(gone.kind(), Kind::CredentialsUnavailable);
    assert!(gone.is_unsent());
    // With the same ids it is another one.
    let again = account("acme");
    bench
        .credentials
        .update([(&again, &told, missing())], Instant::now());
    assert!(bench.credentials.of(&again).unwrap().is_disabled());
    time::sleep(MINUTE).await;
    bench.credentials.look(false);
    assert_eq!(bench.credentials.count(), 1);
}

/// Catches a walk that loses its credential halfway, and a secret that lies in memory for hours for nobody.
#[tokio::test(start_paused = true)]
async fn who_is_removed_signs_as_long_as_anything_is_under_way_and_no_longer() {
    let hours = 6 * 60 * MINUTE;
    for (lasts, signs_for) in [
        (Duration::ZERO, MINUTE),
        (2 * hours / 3, 2 * hours / 3),
        (2 * hours, hours),
    ] {
        let bench = Bench::new();
        let under_way = bench.account.set_out();
        let removed = Instant::now();
        bench.credentials.update([], removed + hours);
        let held = async {
            time::sleep(lasts).await;
            drop(under_way);
        };
        let watched = tokio::spawn(bench.credentials.clone().watch(Duration::from_secs(10)));
        let gone = async {
            while bench.credentials.count() > 0 {
                time::sleep(Duration::from_secs(1)).await;
            }
            removed.elapsed()
        };
        let ((), gone) = tokio::join!(held, gone);
        watched.abort();
        let late = gone.checked_sub(signs_for).unwrap();
        assert!(late < Duration::from_secs(20), "{lasts:?}: {gone:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_secret_goes_with_its_place() {
    let bench = Bench::with(with_next("first", "second"), |_| ());
    let told = account::Config::default();
    let credential = bench.credentials.of(&bench.account).unwrap();
    assert_eq!(credential.keys_held(), 2);
    update(&bench, &told, with_next("first", "third"));
    update(&bench, &told, given("first"));
    // Nothing has worked yet, so those before are kept for a while; once one has, no longer.
    let stream = StreamId::parse("st-1").unwrap();
    let token = credential.token(&stream, wall).await.unwrap();
    credential.accepted(&stream, &token);
    assert_eq!(credential.keys_held(), 1);
    let places = Sources {
        first: Source::Read(Ok(Secret::new("first"))),
        next: None,
    };
    assert!(update(&bench, &told, places).is_empty());
    assert_eq!(credential.keys_held(), 1);
}
