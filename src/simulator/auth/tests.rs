use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{KeyPair, RsaKeyPair},
};
use jsonwebtoken::{Algorithm as Jwt, EncodingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const SECRET: &str = "c2VjcmV0IHRoYXQgbG9va3MgbGlrZSBiYXNlNjQ=";

/// When everything here happens, in seconds.
const NOW: u64 = 1_000;

fn account() -> AccountSettings {
    AccountSettings::new("a", "cs-1", SECRET)
}

fn app(account: &AccountSettings) -> Credential {
    Credential::new(account).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn signed(algorithm: Jwt, key: &EncodingKey, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(
        Jwt::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        claims,
    )
}

fn check(token: &str) -> Result<(), Denial> {
    app(&account()).check(token, at(NOW))
}

/// The halves of a new RSA key, in PEM: private, public.
pub(crate) fn rsa_key() -> (String, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pem = |tag, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    (
        pem("PRIVATE KEY", private.as_ref()),
        pem("PUBLIC KEY", public.as_ref()),
    )
}

#[test]
fn what_it_mints_opens_until_it_expires() {
    let app = app(&account());
    let token = app.mint(at(900), Duration::from_secs(60)).unwrap();
    assert_eq!(app.check(&token, at(959)), Ok(()));
    assert_eq!(app.check(&token, at(960)), Err(Denial::Credentials));
}

#[test]
fn only_the_app_and_its_own_signature_open() {
    let credentials = Err(Denial::Credentials);
    for (claims, expected) in [
        (json!({"appId": "cs-1"}), Ok(())),
        (json!({"appId": "cs-1", "exp": 1_000_500.5}), Ok(())),
        (json!({"appId": "cs-1", "exp": 999}), credentials),
        (json!({"appId": "cs-1", "exp": "soon"}), credentials),
        (json!({"appId": "cs-2"}), credentials),
        (json!({"appid": "cs-1"}), credentials),
    ] {
        assert_eq!(check(&hs256(&claims)), expected, "{claims}");
    }
    for secret in [&b"other"[..], b"secret that looks like base64"] {
        let key = EncodingKey::from_secret(secret);
        let token = signed(Jwt::HS256, &key, &json!({"appId": "cs-1"}));
        assert_eq!(check(&token), credentials);
    }
}

#[test]
fn a_tampered_token_is_wrong_and_a_text_is_no_token() {
    let token = hs256(&json!({"appId": "cs-1"}));
    let (head, signature) = token.rsplit_once('.').unwrap();
    let tampered = format!("{head}.{}", signature.chars().rev().collect::<String>());
    assert_eq!(check(&tampered), Err(Denial::Credentials));
    for text in ["x", "a.b.c", "Bearer x", ".."] {
        assert_eq!(check(text), Err(Denial::NotAToken), "{text}");
    }
}

/// Each app against tokens of each algorithm, signed with the right secret or key.
#[test]
fn an_app_takes_its_one_algorithm() {
    let (private, public) = rsa_key();
    let all = [
        Algorithm::HS256,
        Algorithm::HS512,
        Algorithm::RS256,
        Algorithm::RS512,
    ];
    let token = |algorithm: Algorithm| {
        let key = if algorithm.is_rsa() {
            EncodingKey::from_rsa_pem(private.as_bytes()).unwrap()
        } else {
            EncodingKey::from_secret(SECRET.as_bytes())
        };
        signed(algorithm.jwt(), &key, &json!({"appId": "cs-1"}))
    };
    for of_app in all {
        let secrets = if of_app.is_rsa() {
            vec![&*private, &*public]
        } else {
            vec![SECRET]
        };
        for secret in secrets {
            let app = app(&AccountSettings {
                algorithm: of_app,
                client_secret: SecretString::from(secret),
                ..account()
            });
            for of_token in all {
                let expected = if of_app == of_token {
                    Ok(())
                } else {
                    Err(Denial::Credentials)
                };
                let opened = app.check(&token(of_token), at(NOW));
                assert_eq!(opened, expected, "{of_app:?} {of_token:?}");
            }
        }
    }
}

/// The oldest attack on those who verify: the public key, taken as a shared secret.
#[test]
fn a_public_key_is_no_shared_secret() {
    let (_, public) = rsa_key();
    let app = app(&AccountSettings {
        algorithm: Algorithm::RS256,
        client_secret: SecretString::from(&*public),
        ..account()
    });
    let key = EncodingKey::from_secret(public.as_bytes());
    let token = signed(Jwt::HS256, &key, &json!({"appId": "cs-1"}));
    assert_eq!(app.check(&token, at(NOW)), Err(Denial::Credentials));
}

#[test]
fn only_who_has_the_private_key_mints() {
    let (private, public) = rsa_key();
    for (key, mints) in [(private, true), (public, false)] {
        let app = app(&AccountSettings {
            algorithm: Algorithm::RS512,
            client_secret: SecretString::from(key),
            ..account()
        });
        let token = app.mint(at(NOW), Duration::from_secs(60));
        assert_eq!(token.is_some(), mints);
        assert!(token.is_none_or(|token| app.check(&token, at(NOW)) == Ok(())));
    }
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let (private, _) = rsa_key();
    let cut = private.replacen("MII", "MIJ", 1);
    let wrapped = |tag: &str| pem::encode(&pem::Pem::new(tag, &b"CANARY"[..]));
    // Well-formed inside too, but one number is no RSA key.
    let number = pem::encode(&pem::Pem::new(
        "RSA PUBLIC KEY",
        &b"\x30\x03\x02\x01\x05"[..],
    ));
    for text in [
        "CANARY",
        "",
        &cut,
        &wrapped("PUBLIC KEY"),
        &wrapped("RSA PUBLIC KEY"),
        &wrapped("PRIVATE KEY"),
        &number,
    ] {
        let error = Credential::new(&AccountSettings {
            algorithm: Algorithm::RS256,
            client_secret: SecretString::from(text),
            ..account()
        });
        let error = error.err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(error, SecretError::Unusable(Algorithm::RS256));
        assert!(error.to_string().contains("RS256 needs an RSA key in PEM"));
    }
    let empty = app(&account()).add(&SecretString::from(""));
    assert_eq!(empty, Err(SecretError::Unusable(Algorithm::HS256)));
}

#[test]
fn secrets_overlap_while_they_rotate() {
    let app = app(&account());
    let (old, new) = (SecretString::from(SECRET), SecretString::from("new"));
    let by = |secret: &str| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        signed(Jwt::HS256, &key, &json!({"appId": "cs-1"}))
    };
    let opens = |secret| app.check(&by(secret), at(NOW));
    assert_eq!(
        (opens(SECRET), opens("new")),
        (Ok(()), Err(Denial::Credentials))
    );
    app.add(&new).unwrap();
    assert_eq!((opens(SECRET), opens("new")), (Ok(()), Ok(())));
    let minted = app.mint(at(NOW), Duration::from_secs(60)).unwrap();
    app.revoke(&old).unwrap();
    assert_eq!(
        (opens(SECRET), opens("new")),
        (Err(Denial::Credentials), Ok(()))
    );
    assert_eq!(app.check(&minted, at(NOW)), Ok(()), "by the newest");
    assert_eq!(app.revoke(&old), Err(SecretError::Unknown));
    assert_eq!(app.opened(), [3], "the calls that the new one opened");

    for number in 0..SECRETS_MAX - 1 {
        app.add(&SecretString::from(number.to_string())).unwrap();
    }
    let many = SecretString::from("many");
    assert_eq!(app.add(&many), Err(SecretError::TooMany));
    assert_eq!(app.add(&new), Ok(()), "it is there");
}

/// Whether the app enforces one or not.
#[test]
fn a_jti_opens_once_and_only_within_an_hour() {
    for enforce_jti in [false, true] {
        let app = app(&AccountSettings {
            enforce_jti,
            ..account()
        });
        let opens = |claims: Value| app.check(&hs256(&claims), at(NOW));
        let with = |jti: &str, exp: Value| opens(json!({"appId": "cs-1", "jti": jti, "exp": exp}));
        assert_eq!(with("a", json!(NOW + 3_600)), Ok(()));
        let late = Err(Denial::JtiExpiry);
        assert_eq!(with("b", json!(NOW + 3_601)), late);
        assert_eq!(with("b", json!(3_600.5 + NOW as f64)), late);
        assert_eq!(with("b", Value::Null), late);
        assert_eq!(with("b", json!(NOW)), Err(Denial::Credentials), "expired");
        let replay = Err(Denial::Replay);
        assert_eq!(with("a", json!(NOW + 60)), replay, "in another token");
        assert_eq!(with("b", json!(NOW + 60)), Ok(()), "refused, not used up");
        assert_eq!(with("b", json!(NOW + 60)), replay);
        let expected = if enforce_jti {
            Err(Denial::NoJti)
        } else {
            Ok(())
        };
        assert_eq!(opens(json!({"appId": "cs-1"})), expected);
        assert_eq!(app.tally().replays, 2);
        assert_eq!(app.tally().tokens, 7, "all but the expired one, each once");
    }
}

#[test]
fn what_it_mints_has_a_jti_of_its_own_where_one_is_enforced() {
    let app = app(&AccountSettings {
        enforce_jti: true,
        ..account()
    });
    for _ in 0..3 {
        let token = app.mint(at(NOW), Duration::from_secs(3_600)).unwrap();
        assert_eq!(app.check(&token, at(NOW)), Ok(()));
        assert_eq!(app.check(&token, at(NOW)), Err(Denial::Replay));
    }
}

#[test]
fn an_app_without_the_scope_is_told_so_once_its_token_is_right() {
    let app = app(&AccountSettings {
        scope: false,
        ..account()
    });
    let right = hs256(&json!({"appId": "cs-1"}));
    assert_eq!(app.check(&right, at(NOW)), Err(Denial::Scope));
    let wrong = hs256(&json!({"appId": "cs-2"}));
    assert_eq!(app.check(&wrong, at(NOW)), Err(Denial::Credentials));
    assert_eq!(app.check("x", at(NOW)), Err(Denial::NotAToken));
}

proptest! {
    /// Of many calls, with tokens that share a few `jti`s, each `jti` opens exactly once while its tokens live.
    #[test]
    fn no_jti_opens_twice(calls in proptest::collection::vec((0u64..6, 0u64..900, 1u64..3_600), 1..60)) {
        let app = app(&account());
        let (mut now, mut opened) = (NOW, std::collections::HashMap::new());
        for (jti, later, lifetime) in calls {
            now += later;
            let token = hs256(&json!({"appId": "cs-1", "jti": jti.to_string(), "exp": now + lifetime}));
            match app.check(&token, at(now)) {
                Ok(()) => {
                    let before = opened.insert(jti, (now, token));
                    prop_assert!(before.is_none_or(|(at, _)| now - at >= 7_200));
                }
                Err(denial) => prop_assert_eq!(denial, Denial::Replay),
            }
            for (at_first, token) in opened.values() {
                prop_assert!(app.check(token, at(now)).is_err(), "{}", at_first);
            }
        }
    }
}
