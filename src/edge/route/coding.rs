//! `Accept-Encoding` (RFC 9110, section 12.5.3): how the caller would have the content. What is unknown or malformed says
//! nothing, and a caller that would have nothing there is gets the content as it is: that is never refused.

use http::{HeaderMap, header::ACCEPT_ENCODING};

use crate::contacts::request::Coding;

/// The most that a weight can be: 1, in thousandths.
pub(super) const WHOLE: u16 = 1000;

/// gzip, if the caller accepts it and would not rather have the content as it is. Of a coding that is there twice the
/// first counts.
pub(super) fn wanted(headers: &HeaderMap) -> Coding {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let lines = headers.get_all(ACCEPT_ENCODING).iter();
    for element in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let place = match name {
            _ if name.eq_ignore_ascii_case(b"gzip") => &mut gzip,
            // The same coding (section 8.4.1.3).
            _ if name.eq_ignore_ascii_case(b"x-gzip") => &mut gzip,
            _ if name.eq_ignore_ascii_case(b"identity") => &mut identity,
            b"*" => &mut any,
            _ => continue,
        };
        let weight = match (parts.next(), parts.next()) {
            (None, _) => Some(WHOLE),
            (Some(parameter), None) => weight(parameter),
            (Some(_), Some(_)) => None,
        };
        *place = place.or(weight);
    }
    // A star stands for whatever is not named; the content as it is needs no naming to be acceptable, nor to come last.
    match gzip.or(any) {
        Some(gzip) if gzip > 0 && gzip >= identity.unwrap_or(0) => Coding::Gzip,
        _ => Coding::Identity,
    }
}

/// `q=0.5` in thousandths: 0 to 1 with up to three digits after the point (section 12.4.2).
pub(super) fn weight(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return None,
    };
    let (whole, digits) = match value {
        [b'0', digits @ ..] => (0, digits),
        [b'1', digits @ ..] => (WHOLE, digits),
        _ => return None,
    };
    let digits = match digits {
        [] => digits,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    let mut thousandths = whole;
    for (digit, unit) in digits.iter().zip([100, 10, 1]) {
        thousandths += unit * u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (thousandths <= WHOLE).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::{collection, option, prelude::*, sample};

    use super::*;

    fn of<L: AsRef<str>>(lines: &[L]) -> Coding {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_str(line.as_ref()).unwrap();
            headers.append(ACCEPT_ENCODING, value);
        }
        wanted(&headers)
    }

    #[test]
    fn gzip_is_chosen_where_it_is_asked_for() {
        for lines in [
            &["gzip"][..],
            &["GZip"],
            &["x-gzip"],
            &["gzip, deflate, br, zstd"],
            &["deflate, gzip;q=1.0, *;q=0.5"],
            &["gzip;q=0.001"],
            &["gzip ; q=0.5"],
            &["gzip;Q=1.000"],
            &["gzip;q=1."],
            &["*"],
            &["br, *;q=0.1"],
            &["identity;q=0, *"],
            // As dear as the other: both will do.
            &["identity, gzip"],
            &["identity;q=0.5, gzip;q=0.5"],
            &["identity;q=0", "gzip"],
            &["br", "gzip"],
            &[",, gzip ,"],
            &["gzip, gzip;q=0"],
            // The star does not speak of what is named.
            &["gzip, *;q=0"],
        ] {
            assert_eq!(of(lines), Coding::Gzip, "{lines:?}");
        }
    }

    #[test]
    fn everybody_else_gets_the_content_as_it_is() {
        for lines in [
            &[][..],
            &[""],
            &["identity"],
            &["br, zstd, deflate"],
            &["gzip;q=0"],
            &["gzip;q=0.000"],
            &["*;q=0"],
            &["gzip;q=0, *"],
            &["x-gzip;q=0, gzip"],
            &["identity, gzip;q=0.9"],
            &["identity;q=0.6, *;q=0.5"],
            // Nothing that there is would do, and nothing is refused.
            &["identity;q=0"],
            &["identity;q=0, br"],
            // What is malformed says nothing.
            &["gzip;q=2"],
            &["gzip;q=1.001"],
            &["gzip;q=0.0001"],
            &["gzip;q=-1"],
            &["gzip;q=.5"],
            &["gzip;q="],
            &["gzip;q"],
            &["gzip;q=x"],
            &["gzip;q=0.x"],
            &["gzip;q=1;x=y"],
            &["gzip;level=9"],
            &["gzip br"],
            &["gzipped"],
            &["\"gzip\""],
        ] {
            assert_eq!(of(lines), Coding::Identity, "{lines:?}");
        }
    }

    fn written(name: &str, weight: u16) -> String {
        format!("{name};q={}.{:03}", weight / WHOLE, weight % WHOLE)
    }

    proptest! {
        /// Whatever the order and the lines, and whatever unknown codings stand between.
        #[test]
        fn only_the_weights_decide(
            gzip in option::of(0..=WHOLE),
            identity in option::of(0..=WHOLE),
            any in option::of(0..=WHOLE),
            unknown in collection::vec((sample::select(vec!["br", "zstd", "deflate", "compress"]), 0..=WHOLE), 0..4),
            seed: u64,
            apart: bool,
        ) {
            let named = [("gzip", gzip), ("identity", identity), ("*", any)];
            let named = named.into_iter().filter_map(|(name, weight)| Some((name, weight?)));
            let mut elements: Vec<_> = named.chain(unknown).map(|(name, weight)| written(name, weight)).collect();
            let turn = seed as usize % elements.len().max(1);
            elements.rotate_left(turn);
            let lines = if apart { elements } else { vec![elements.join(", ")] };
            let of_gzip = gzip.or(any).unwrap_or(0);
            let expected = match of_gzip > 0 && of_gzip >= identity.unwrap_or(0) {
                true => Coding::Gzip,
                false => Coding::Identity,
            };
            prop_assert_eq!(of(&lines), expected, "{:?}", lines);
        }

        /// No bytes of a header can do harm.
        #[test]
        fn anything_can_be_read(line in "[ -~\t]{0,60}") {
            of(&[line]);
        }
    }
}
