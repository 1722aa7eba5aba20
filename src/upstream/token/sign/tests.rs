use std::{collections::HashSet, time::Duration};

use jsonwebtoken::{DecodingKey, Validation, crypto};
use serde_json::{Value, json};

use super::*;
use crate::contacts::account::claims::Claim;

const SECRET: &str = "canary-secret-MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=";
const PKCS1: &str = include_str!("../../../../tests/fixtures/rfc7515-a2.pkcs1.pem");
const PKCS8: &str = include_str!("../../../../tests/fixtures/rfc7515-a2.pkcs8.pem");
const PUBLIC: &str = include_str!("../../../../tests/fixtures/rfc7515-a2.public.pem");

const ALL: [Algorithm; 4] = [
    Algorithm::HS256,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS512,
];

fn signer(algorithm: Algorithm) -> Signer {
    let text = match algorithm {
        Algorithm::HS256 | Algorithm::HS512 => SECRET,
        Algorithm::RS256 | Algorithm::RS512 => PKCS8,
    };
    Signer::new(&Secret::new(text), algorithm).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn sign(signer: &Signer, once: bool, claims: &Claims) -> String {
    let order = Order {
        app: "cs-acme",
        issued: at(1_799_999_970),
        expires: at(1_800_000_600),
        once,
        claims,
    };
    signer.sign(order).unwrap()
}

fn decode(token: &str, algorithm: Algorithm) -> Value {
    let (key, algorithm) = match algorithm {
        Algorithm::HS256 => (None, jsonwebtoken::Algorithm::HS256),
        Algorithm::HS512 => (None, jsonwebtoken::Algorithm::HS512),
        Algorithm::RS256 => (Some(PUBLIC), jsonwebtoken::Algorithm::RS256),
        Algorithm::RS512 => (Some(PUBLIC), jsonwebtoken::Algorithm::RS512),
    };
    let key = match key {
        Some(pem) => DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        None => DecodingKey::from_secret(SECRET.as_bytes()),
    };
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    jsonwebtoken::decode(token, &key, &validation)
        .unwrap()
        .claims
}

/// RFC 7515, appendices A.1 and A.2.
#[test]
fn the_vectors_of_the_rfc_hold() {
    const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let key = EncodingKey::from_urlsafe_base64_secret(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==",
    )
    .unwrap();
    let message = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}");
    assert_eq!(
        crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap(),
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    let message = format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}");
    for pem in [PKCS1, PKCS8] {
        let signer = Signer::new(&Secret::new(pem), Algorithm::RS256).unwrap();
        assert_eq!(
            crypto::sign(message.as_bytes(), &signer.key, signer.algorithm).unwrap(),
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        );
    }
}

#[test]
fn each_algorithm_signs_what_kore_ai_reads() {
    for algorithm in ALL {
        let token = sign(&signer(algorithm), false, &Claims::default());
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(format!("{:?}", header.alg), format!("{algorithm:?}"));
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!(
            decode(&token, algorithm),
            json!({
                "appId": "cs-acme",
                "sub": "contacts-gateway",
                "iat": 1_799_999_970,
                "exp": 1_800_000_600,
            })
        );
    }
}

#[test]
fn claims_are_added_and_sub_is_replaced() {
    let claims = Claims::from([
        ("sub", Claim::Text("bot-auth".to_owned())),
        ("isAnonymous", Claim::Switch(false)),
        ("level", Claim::Integer(-2)),
    ]);
    let token = sign(&signer(Algorithm::HS256), false, &claims);
    let decoded = decode(&token, Algorithm::HS256);
    assert_eq!(decoded["sub"], "bot-auth");
    assert_eq!(decoded["isAnonymous"], false);
    assert_eq!(decoded["level"], -2);
    // Not twice in the text either, where a parser would take the one or the other.
    assert_eq!(decoded.as_object().unwrap().len(), 6);
}

/// From many threads, since each has its own state of what makes random numbers.
#[test]
fn no_jti_is_made_twice_in_a_hundred_thousand() {
    let mints = |count: usize| (0..count).map(|_| jti().unwrap()).collect::<Vec<_>>();
    let all: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| mints(10_000))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.flatten().collect()
    });
    let different: HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), 100_000);
    assert!(all.iter().all(|jti| jti.len() == 32));
    let token = sign(&signer(Algorithm::HS256), true, &Claims::default());
    let other = sign(&signer(Algorithm::HS256), true, &Claims::default());
    let jti = |token| decode(token, Algorithm::HS256)["jti"].clone();
    assert_ne!(jti(&token), jti(&other));
    assert_eq!(jti(&token).as_str().unwrap().len(), 32);
}

#[test]
fn a_secret_that_is_no_key_is_named_for_its_algorithm() {
    let half = &PKCS8[..PKCS8.len() / 2];
    let certificate = PUBLIC;
    for text in [
        SECRET,
        half,
        certificate,
        "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    ] {
        for algorithm in [Algorithm::RS256, Algorithm::RS512] {
            let problem = Signer::new(&Secret::new(text), algorithm).unwrap_err();
            assert_eq!(
                problem.to_string(),
                format!(
                    "is no RSA private key of at least 2048 bits in PEM (PKCS#8 or PKCS#1), which {algorithm:?} needs"
                )
            );
        }
    }
    let source = Source::Read(Ok(Secret::new(SECRET)));
    let problem = Signer::read(&source, Algorithm::RS256)
        .unwrap_err()
        .to_string();
    assert!(!problem.contains("canary"), "{problem}");
}

#[test]
fn a_clock_before_1970_is_no_panic() {
    let claims = Claims::default();
    let order = Order {
        app: "cs-acme",
        issued: UNIX_EPOCH - Duration::from_secs(1),
        expires: at(1),
        once: false,
        claims: &claims,
    };
    assert!(signer(Algorithm::HS256).sign(order).is_err());
}

#[test]
fn debug_shows_no_key() {
    for algorithm in ALL {
        let shown = format!("{:?}", signer(algorithm));
        assert!(
            !shown.contains("canary") && !shown.contains("MII"),
            "{shown}"
        );
        assert!(!shown.contains("99, 97, 110"), "{shown}");
    }
}
