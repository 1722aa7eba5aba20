//! The tokens that upstream gets, judged by a program that is not ours.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use contacts_gateway::{contacts::account::Algorithm, upstream::secret::Secret};
use futures_util::future::join_all;

use crate::support::{Gateway, Rogue, configuration, path};

const PRIVATE: &str = include_str!("../fixtures/rfc7515-a2.pkcs8.pem");
const PUBLIC: &str = include_str!("../fixtures/rfc7515-a2.public.pem");
const SECRET: &str = "c2VjcmV0IHRoYXQgbG9va3MgbGlrZSBiYXNlNjQ=";

/// Verifies one token as Kore.ai would: signature by this algorithm alone, times, and all that it must say.
const VERIFY: &str = r#"
import sys
try:
    import jwt
except ImportError as missing:
    sys.exit(f"PyJWT is missing ({missing}): tests/run installs it below target/python")
algorithm, key, token = sys.argv[1:]
claims = jwt.decode(token, key, algorithms=[algorithm], options={"require": ["exp", "iat", "jti"]})
assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": algorithm}, "header"
assert sorted(claims) == ["appId", "exp", "iat", "jti", "sub"], sorted(claims)
assert claims["appId"] == "cs-app" and claims["sub"] == "contacts-gateway", "names"
assert claims["exp"] - claims["iat"] <= 3600 and type(claims["exp"]) is int, "times"
"#;

/// Catches a signature, header or claim that only our own library takes for right.
#[tokio::test]
async fn another_library_verifies_every_algorithm() {
    let rogue = Rogue::sending("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let algorithms = [
        (Algorithm::HS256, SECRET, SECRET),
        (Algorithm::HS512, SECRET, SECRET),
        (Algorithm::RS256, PRIVATE, PUBLIC),
        (Algorithm::RS512, PRIVATE, PUBLIC),
    ];
    let checks = algorithms.map(async |(algorithm, secret, key)| {
        let name = format!("{algorithm:?}");
        let account = contacts_gateway::simulator::AccountSettings::new(&name, "cs-app", "unused");
        let mut config = configuration(&format!("http://{}", rogue.address), &[account]);
        config.accounts[0].algorithm = algorithm;
        config.accounts[0].jti = contacts_gateway::contacts::account::Jti::PerRequest;
        let gateway = Gateway::start(&config, vec![Some(Secret::new(secret))]).await;
        let answer = gateway.get_as(&name, &path("st-1", "")).await;
        answer.is_problem(404, "stream_not_found");
        let heads = rogue.heads.lock().unwrap().clone();
        let mine = heads
            .iter()
            .find(|head| head.contains(&format!("accountid: {name}\r\n")));
        let token = mine.unwrap().split("\r\nauth: ").nth(1).unwrap();
        verify(&name, key, token.split("\r\n").next().unwrap());
    });
    join_all(checks).await;
}

fn verify(algorithm: &str, key: &str, token: &str) {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let output = Command::new("python3")
        .args(["-B", "-c", VERIFY, algorithm, key, token])
        .env("PYTHONPATH", modules)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is needed: tests/run installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{algorithm}: {errors}");
}
