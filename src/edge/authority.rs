//! Whom a request is for: a host, and perhaps a port (RFC 3986, section 3.2.2; RFC 9110, section 7.2).
//!
//! `Host` and the target are read alike, so that neither lets through what the other refuses.

use std::{net::Ipv6Addr, str};

/// The host of `host` or `host:port`, in brackets if it is an address of IPv6; `None` for all else. That is a user before
/// it as well, which reads as a host to whoever looks for the `@` from the other end.
pub(super) fn host(authority: &[u8]) -> Option<&[u8]> {
    let rest = match authority {
        [b'[', literal @ ..] => behind_literal(literal)?,
        name => behind_name(name),
    };
    let is_port = match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let host = &authority[..authority.len() - rest.len()];
    (is_port && !host.is_empty()).then_some(host)
}

/// What stands behind an address of IPv6 and its bracket. Another one in brackets (`IPvFuture`) belongs to no protocol yet.
fn behind_literal(literal: &[u8]) -> Option<&[u8]> {
    let end = literal.iter().position(|byte| *byte == b']')?;
    let address = str::from_utf8(&literal[..end]).ok()?;
    let is_address = address.parse::<Ipv6Addr>().is_ok();
    is_address.then(|| &literal[end + 1..])
}

/// What stands behind a name, or an address of IPv4, which is written like one.
fn behind_name(mut name: &[u8]) -> &[u8] {
    loop {
        let plain = name.iter().take_while(|byte| PLAIN[usize::from(**byte)]);
        name = match &name[plain.count()..] {
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            rest => return rest,
        }
    }
}

/// What stands for itself in a name (`unreserved` and `sub-delims`), as a table: each request has a name to be read.
const PLAIN: [bool; 256] = {
    const ALL: &[u8] =
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=";
    let (mut plain, mut place) = ([false; 256], 0);
    while place < ALL.len() {
        plain[ALL[place] as usize] = true;
        place += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(authority: &str) -> Option<&str> {
        host(authority.as_bytes()).map(|host| str::from_utf8(host).unwrap())
    }

    #[test]
    fn a_host_is_told_with_or_without_a_port() {
        for (authority, host) in [
            ("localhost", Some("localhost")),
            ("localhost:8080", Some("localhost")),
            ("contacts.internal:80", Some("contacts.internal")),
            ("127.0.0.1:8080", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("[::1]:8080", Some("[::1]")),
            ("[2001:db8::192.0.2.1]", Some("[2001:db8::192.0.2.1]")),
            ("A-z_0.~!$&'()*+,;=", Some("A-z_0.~!$&'()*+,;=")),
            ("%e4b:1", Some("%e4b")),
            // The port's digits may be left out.
            ("a:", Some("a")),
            ("", None),
            (":", None),
            (":80", None),
            ("a:b", None),
            ("a:80:80", None),
            ("a:+80", None),
            ("a: 80", None),
            ("a:80 ", None),
            ("a:\u{663}", None),
            ("::1", None),
            ("[::1", None),
            ("::1]", None),
            ("[]", None),
            ("[[::1]]", None),
            ("[[[:::", None),
            ("[::1]x", None),
            ("[::1]80", None),
            ("x[::1]", None),
            ("[127.0.0.1]", None),
            ("[localhost]", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.a]", None),
            ("u@a", None),
            ("u:p@a", None),
            ("u%40a", Some("u%40a")),
            ("@a", None),
            ("a@", None),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("a b", None),
            ("a/b", None),
            ("a?b", None),
            ("a#b", None),
            ("a\\b", None),
            ("a,b", Some("a,b")),
            ("a\0", None),
            ("a\u{e4}", None),
        ] {
            assert_eq!(text(authority), host, "{authority:?}");
        }
    }

    /// The same, looked for from the other end and by another way.
    fn has_the_shape(authority: &str) -> bool {
        let digits = authority
            .bytes()
            .rev()
            .take_while(u8::is_ascii_digit)
            .count();
        let before = &authority[..authority.len() - digits];
        let host = before.strip_suffix(':').unwrap_or(authority);
        let inside = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(inside) = inside {
            return inside.parse::<Ipv6Addr>().is_ok();
        }
        let mut pieces = host.split('%');
        let first = pieces.next().unwrap();
        let is_plain = |text: &str| {
            text.chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(letter))
        };
        let is_coded = |piece: &str| {
            let code = piece.get(..2).unwrap_or_default();
            u8::from_str_radix(code, 16).is_ok() && !code.contains('+') && is_plain(&piece[2..])
        };
        !host.is_empty() && is_plain(first) && pieces.all(is_coded)
    }

    /// What hosts and ports are made of, in any order, and a little of what they are not.
    fn nearly() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zA-Z0-9._~!$&'()*+,;=-]{0,4}",
            "[0-9]{0,5}",
            "%[0-9a-fA-F]{0,2}",
            prop::sample::select(vec![
                ":", "[", "]", "::", "[::1]", "@", "/", " ", "?", "\u{e4}"
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Catches anything else that is taken for a host, and a host that is not.
        #[test]
        fn what_is_accepted_has_the_shape(authority in nearly()) {
            let host = text(&authority);
            prop_assert_eq!(host.is_some(), has_the_shape(&authority), "{:?}", host);
            if let Some(host) = host {
                let port = authority.strip_prefix(host).unwrap();
                prop_assert!(port.is_empty() || port.starts_with(':'), "{}", port);
                // Alone it is the same host.
                prop_assert_eq!(text(host), Some(host));
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = host(&bytes);
        }

        #[test]
        fn what_is_written_is_read(name in "[a-z0-9.-]{1,20}", address: [u16; 8], port: u16) {
            for host in [name, format!("[{}]", Ipv6Addr::from(address))] {
                prop_assert_eq!(text(&host), Some(&*host));
                let with_port = format!("{host}:{port}");
                prop_assert_eq!(text(&with_port), Some(&*host));
            }
        }
    }
}
