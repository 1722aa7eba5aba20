//! Content negotiation (RFC 9110, section 12.5.1): contacts as one JSON document, or one on each line.

use http::{HeaderMap, header::ACCEPT};

use super::{
    coding::{WHOLE, weight},
    query::Query,
};

/// In which form contacts are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`
    Json,
    /// `application/x-ndjson`: whole lists only.
    Lines,
}

/// The form that a query is answered in; `None` if the caller accepts none that there is.
///
/// Lines are for those who name them, and would not rather have the document. With news of the walk there is no other form.
pub(super) fn form(headers: &HeaderMap, query: Query) -> Option<Form> {
    let json = || acceptance(headers, b"json");
    let lines = || acceptance(headers, b"x-ndjson");
    match query {
        Query::Page(_) => (json().weight > 0).then_some(Form::Json),
        Query::List { progress: true } => (lines().weight > 0).then_some(Form::Lines),
        Query::List { progress: false } => {
            let (json, lines) = (json(), lines());
            if lines.is_named && lines.weight > 0 && lines.weight >= json.weight {
                return Some(Form::Lines);
            }
            (json.weight > 0).then_some(Form::Json)
        }
    }
}

/// How welcome a media type is.
struct Acceptance {
    /// In thousandths.
    weight: u16,
    is_named: bool,
}

/// How welcome `application/{subtype}` is: as the most specific range says that covers it. Without any, all is welcome.
fn acceptance(headers: &HeaderMap, subtype: &[u8]) -> Acceptance {
    let mut lines = headers.get_all(ACCEPT).iter().peekable();
    let mut best = match lines.peek() {
        None => Some((0, WHOLE)),
        Some(_) => None,
    };
    for range in lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match range.strip_prefix(b"application/") {
            Some(named) if named == subtype => 3,
            Some(b"*") => 2,
            None if range == b"*/*" => 1,
            _ => continue,
        };
        // A weight that is none says nothing.
        let weight = parts.find_map(weight).unwrap_or(WHOLE);
        if best.is_none_or(|(place, _)| place < specific) {
            best = Some((specific, weight));
        }
    }
    let (specific, weight) = best.unwrap_or_default();
    Acceptance {
        weight,
        is_named: specific == 3,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::contacts::page::Window;

    #[test]
    fn lines_are_for_those_who_name_them() {
        let (json, lines) = (Some(Form::Json), Some(Form::Lines));
        let page = Query::Page(Window { skip: 0, limit: 10 });
        let [list, news] = [false, true].map(|progress| Query::List { progress });
        for (accept, of_list, of_news, of_page) in [
            (&[][..], json, lines, json),
            (&["*/*"], json, lines, json),
            (&["application/*"], json, lines, json),
            (&["application/json"], json, None, json),
            (&["application/x-ndjson"], lines, lines, None),
            (&["Application/X-NDJSON; charset=utf-8"], lines, lines, None),
            (&["application/x-ndjson, */*;q=0.1"], lines, lines, json),
            (
                &["application/x-ndjson, application/json"],
                lines,
                lines,
                json,
            ),
            (
                &["application/json", "application/x-ndjson"],
                lines,
                lines,
                json,
            ),
            (
                &["application/x-ndjson;q=0.5, application/json"],
                json,
                lines,
                json,
            ),
            (
                &["application/x-ndjson;q=0.5, application/json;q=0.4"],
                lines,
                lines,
                json,
            ),
            (&["application/x-ndjson;q=0, */*"], json, None, json),
            (&["application/x-ndjson;q=0"], None, None, None),
            (&["application/ndjson"], None, None, None),
            (&["text/html"], None, None, None),
        ] {
            let mut headers = HeaderMap::new();
            for line in accept {
                headers.append(ACCEPT, HeaderValue::from_static(line));
            }
            let forms = [list, news, page].map(|query| form(&headers, query));
            assert_eq!(forms, [of_list, of_news, of_page], "{accept:?}");
        }
    }
}
