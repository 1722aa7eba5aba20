use std::collections::HashSet;

use super::*;

/// SHA-256 of "abc", FIPS 180-4.
const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

#[test]
fn a_key_is_shown_in_one_of_two_headers() {
    use Refusal::{Ambiguous, Malformed, Missing};
    let longest = "k".repeat(256);
    let (bearer, too_long) = (format!("Bearer {longest}"), "k".repeat(257));
    for (lines, expected) in [
        (&[("authorization", "Bearer abc")][..], Ok("abc")),
        (&[("authorization", "bearer abc")], Ok("abc")),
        (&[("authorization", "BEARER   abc")], Ok("abc")),
        (&[("authorization", &bearer)], Ok(&longest)),
        (&[("auth", "abc")], Ok("abc")),
        (
            &[("auth", "abc"), ("authorization", "Bearer abc")],
            Ok("abc"),
        ),
        (&[("auth", "abc"), ("auth", "abc")], Ok("abc")),
        (&[], Err(Missing)),
        (
            &[("authentication", "abc"), ("cookie", "auth=abc")],
            Err(Missing),
        ),
        (&[("authorization", "abc")], Err(Malformed)),
        (&[("authorization", "Basic abc")], Err(Malformed)),
        (&[("authorization", "Bearer")], Err(Malformed)),
        (&[("authorization", "Bearer ")], Err(Malformed)),
        (&[("authorization", "Bearer a b")], Err(Malformed)),
        (&[("authorization", "Bearer a,b c")], Err(Malformed)),
        (&[("authorization", "Bearer\tabc")], Err(Malformed)),
        (&[("auth", "")], Err(Malformed)),
        (&[("auth", "Bearer abc")], Err(Malformed)),
        (&[("auth", "\u{e9}")], Err(Malformed)),
        (&[("auth", &too_long)], Err(Malformed)),
        (
            &[("auth", "abc"), ("authorization", "Basic x")],
            Err(Malformed),
        ),
        (
            &[("auth", "abc"), ("authorization", "Bearer abd")],
            Err(Ambiguous),
        ),
        (&[("auth", "abc"), ("auth", "abd")], Err(Ambiguous)),
    ] {
        assert_eq!(shown(&headers(lines)), expected, "{lines:?}");
    }
}

#[test]
fn a_digest_is_read_as_it_is_written() {
    let digest = Digest::of("abc");
    assert_eq!(digest.to_string(), OF_ABC);
    assert_eq!(Digest::parse(OF_ABC), Some(digest));
    assert_eq!(Digest::parse(&OF_ABC.to_uppercase()), Some(digest));
    for bad in [
        "",
        &OF_ABC[1..],
        &format!("{OF_ABC}0"),
        &OF_ABC.replace('b', "g"),
        &OF_ABC.replace("ba", "+a"),
        &"\u{e9}".repeat(32),
    ] {
        assert_eq!(Digest::parse(bad), None, "{bad}");
    }
    assert_eq!(format!("{digest:?}"), "Digest(ba7816..)");
}

/// Catches a look-up that goes by the beginning alone, and one that stops at the first of several that begin alike.
#[test]
fn an_owner_is_found_by_the_whole_digest() {
    let alike = |last: u8| {
        let mut digest = Digest::of("abc");
        digest.0[31] ^= last;
        digest
    };
    let of = |keys: &Keys<&'static str>, key: &str| keys.owner(&headers(&[("auth", key)])).copied();
    let keys = Keys::new([
        (alike(1), "one"),
        (Digest::of("x"), "x"),
        (alike(0), "abc"),
        (alike(128), "other"),
        (Digest::of("y"), "y"),
    ]);
    assert_eq!(of(&keys, "abc"), Ok("abc"));
    assert_eq!((of(&keys, "x"), of(&keys, "y")), (Ok("x"), Ok("y")));
    assert_eq!(of(&keys, "z"), Err(Refusal::Unknown));
    let keys = Keys::new([(alike(1), "one"), (alike(128), "other")]);
    assert_eq!(of(&keys, "abc"), Err(Refusal::Unknown));
    // The digest is no key.
    assert_eq!(of(&keys, OF_ABC), Err(Refusal::Unknown));
}

#[test]
fn each_key_that_is_made_is_new_and_can_be_shown() {
    let made: HashSet<_> = (0..100).map(|_| generate().unwrap().to_string()).collect();
    assert_eq!(made.len(), 100);
    for key in made {
        assert!(is_well_formed(&key) && key.starts_with(PREFIX));
        let bits = URL_SAFE_NO_PAD.decode(&key[PREFIX.len()..]).unwrap();
        assert_eq!(bits.len(), 32);
    }
}

#[test]
fn refusals_stand_in_their_order_and_say_no_key() {
    for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, place);
        assert_eq!(refusal.error().kind(), Kind::Unauthorized);
    }
}
