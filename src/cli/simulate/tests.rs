use clap::Parser;
use secrecy::ExposeSecret;

use super::*;
use crate::{config, simulator::rsa_key};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parsed(line: &str) -> Args {
    let words = std::iter::once("simulate").chain(line.split_whitespace());
    Cli::try_parse_from(words)
        .unwrap_or_else(|error| panic!("{error}"))
        .args
}

#[test]
fn flags_become_settings() {
    let plain = settings(&parsed("")).unwrap();
    assert_eq!(plain.accounts[0].account_id, DEMO_ACCOUNT_ID);
    assert_eq!(plain.accounts[0].streams[0].stream_id, DEMO_STREAM_ID);
    assert_eq!(plain.rate_limit, Some(RateLimit::default()));

    let line = "--stream a=5 --limit-max 50 --over-limit refuse --calls-per-minute off \
                --fault status=503 --fault delay=2s --fault-share 0.2";
    let bent = settings(&parsed(line)).unwrap();
    assert_eq!(bent.limit_max, LimitMax::Refuse(50));
    assert_eq!(bent.rate_limit, None);
    assert_eq!(bent.faults.len(), 1);

    let moving = settings(&parsed("--churn 2 --churn-kind swap --change 2:insert=0")).unwrap();
    assert_eq!(
        moving.churn,
        Some(Churn::new(2.0).unwrap().only(&[ChangeKind::Swap]))
    );
    assert_eq!(moving.changes, [(2, Change::Insert(0))]);
}

#[test]
fn every_example_can_be_typed() {
    for line in EXAMPLES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("contacts-gateway simulate"))
    {
        match settings(&parsed(line)) {
            Ok(_) => {}
            // The files that it names are not here.
            Err(SimulateError::Secret(_)) if line.contains("-file ") => {}
            Err(error) => panic!("{line}: {error}"),
        }
    }
}

/// A folder with the two halves of an RSA key and two secrets.
fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = rsa_key();
    for (name, content) in [
        ("kore.pem", &*private),
        ("kore.pub", &*public),
        ("old", "old-CANARY\n"),
        ("new", "new-CANARY\n"),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// What is printed under these flags, `@` being the folder.
async fn said(folder: &Path, line: &str) -> String {
    let line = line.replace('@', &format!("{}/", folder.display()));
    let args = parsed(&format!("--listen 127.0.0.1:0 {line}"));
    let simulator = Simulator::start(settings(&args).unwrap()).await.unwrap();
    lines::lines(&simulator, &args, DEMO_STREAM_ID).unwrap()
}

#[tokio::test]
async fn the_app_is_what_its_flags_say() {
    let folder = files();
    let line = "--enforce-jti --no-scope --clock-offset -90s --client-id cs-1 \
                --client-secret-file @old --client-secret-file @new";
    let line = line.replace('@', &format!("{}/", folder.path().display()));
    let told = settings(&parsed(&line)).unwrap();
    let account = &told.accounts[0];
    assert_eq!(account.client_id, "cs-1");
    assert_eq!(account.client_secret.expose_secret(), "old-CANARY");
    assert_eq!(account.more_secrets[0].expose_secret(), "new-CANARY");
    assert!(account.enforce_jti && !account.scope);
    assert_eq!(told.clock_offset, -90);
}

/// The printed configuration, as a gateway reads it.
#[tokio::test]
async fn a_gateway_can_be_configured_with_what_is_printed() {
    let folder = files();
    for (line, secret) in [
        ("", AccountSettings::demo().client_secret.expose_secret()),
        (
            "--client-secret-file @old --client-secret-file @new",
            "new-CANARY",
        ),
        (
            "--calls-per-minute off --paging page-limit",
            AccountSettings::demo().client_secret.expose_secret(),
        ),
    ] {
        let said = said(folder.path(), line).await;
        let (_, toml) = said.split_once("configured with\n\n").unwrap();
        let env: [(&str, &str); 0] = [];
        let config = config::parse(Path::new("x.toml"), toml.as_bytes(), env).unwrap();
        let exported = toml.lines().find_map(|line| line.strip_prefix("# export "));
        let env = exported.map(|line| line.split_once('=').unwrap());
        let env = env.map(|(name, value)| (name, value.trim_matches('\'')));
        let secrets = config::secrets(&config, folder.path(), env);
        assert_eq!(secrets[0].first.read().unwrap().expose(), secret, "{line}");
        assert_eq!(config.accounts[0].account_id, DEMO_ACCOUNT_ID);
        assert!(said.contains(&config.upstream.base_url));
        let per_minute = if line.contains("off") { 60_000 } else { 60 };
        assert_eq!(config.accounts[0].calls_per_minute, per_minute);
        assert!(!said.contains("CANARY"), "{said}");
    }
}

#[tokio::test]
async fn a_key_and_a_jti_are_part_of_what_is_printed() {
    let folder = files();
    let key = format!("{}/kore.pem", folder.path().display());
    let signing = said(
        folder.path(),
        "--algorithm RS512 --public-key-file @kore.pem",
    )
    .await;
    assert!(signing.contains("algorithm = \"RS512\"") && signing.contains("-H 'auth: ey"));
    assert!(signing.contains(&format!("client_secret_file = \"{key}\"")));
    let public = said(
        folder.path(),
        "--algorithm RS256 --public-key-file @kore.pub",
    )
    .await;
    assert!(public.contains("TOKEN is yours to sign") && public.contains("auth: TOKEN'"));
    assert!(public.contains("client_secret_file = \"PRIVATE_KEY_FILE\""));
    for said in [signing, public] {
        assert!(!said.contains("jti") && !said.contains("BEGIN"), "{said}");
    }
    let jti = said(folder.path(), "--enforce-jti").await;
    assert!(jti.contains("jti = \"per_request\"") && jti.contains("opens once"));
}

#[test]
fn mistakes_are_answered_with_what_is_accepted() {
    for (line, said) in [
        ("--fault statsu=1", "there is no fault `statsu`"),
        ("--fault-next 3", "--fault"),
        ("--stream a", "ID=COUNT"),
        ("--change insert=0", "CALL:CHANGE"),
        ("--change 0:reverse", "counted from 1"),
        ("--change 1:move=2", "there are insert=5"),
        ("--churn-kind swap", "--churn"),
        (
            "--algorithm none",
            "possible values: HS256, HS512, RS256, RS512",
        ),
        ("--algorithm RS256", "--public-key-file <FILE>"),
        (
            "--public-key-file a --client-secret-file b --algorithm RS256",
            "cannot be used with",
        ),
        ("--clock-offset 1500ms", "whole seconds"),
        ("--calls-per-minute many", "a whole number, or `off`"),
    ] {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        let error = Cli::try_parse_from(words)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{line}: {error}");
    }
}

#[test]
fn what_cannot_be_a_key_is_said() {
    let error = |line: &str| settings(&parsed(line)).unwrap_err().to_string();
    assert_eq!(
        error("--public-key-file a"),
        "--public-key-file goes with --algorithm RS256 or RS512"
    );
    let missing = error("--client-secret-file /nowhere/a");
    assert!(missing.starts_with("the secret file /nowhere/a cannot be read"));
}

#[tokio::test]
async fn a_taken_port_is_one_clear_sentence() {
    let first = Simulator::start(Settings::default()).await.unwrap();
    let error = run(parsed(&format!("--listen {}", first.addr())))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with(&format!(
            "the simulator cannot listen on {}: ",
            first.addr()
        )),
        "{said}"
    );
}
