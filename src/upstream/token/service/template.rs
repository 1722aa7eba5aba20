//! The words in a URL or a body that stand for an account's own: `{account_id}` and `{client_id}`.

const ACCOUNT_ID: &str = "{account_id}";
const CLIENT_ID: &str = "{client_id}";

/// Writes a value so that it means itself where it is put.
pub(super) type Escape = fn(&str) -> String;

/// The text with the account's ids in it.
pub(super) fn fill(text: &str, escape: Escape, account_id: &str, client_id: &str) -> String {
    // The client's id may be any text, also one that looks like the other word: so it comes last.
    text.replace(ACCOUNT_ID, &escape(account_id))
        .replace(CLIENT_ID, &escape(client_id))
}

/// Whether a word in braces is neither of the two. JSON's own braces have quotes or nothing behind them.
pub(super) fn has_unknown_word(text: &str) -> bool {
    let text = text.replace(ACCOUNT_ID, "").replace(CLIENT_ID, "");
    text.split('{').skip(1).any(|rest| {
        let word = rest
            .split('}')
            .next()
            .filter(|word| word.len() < rest.len());
        word.is_some_and(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
    })
}

/// As within a JSON string.
pub(super) fn json(value: &str) -> String {
    // Of a string that cannot fail.
    let quoted = serde_json::to_string(value).unwrap_or_default();
    let inner = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

/// As within a URL's path or query, and within a form.
pub(super) fn url(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_mean_themselves_wherever_they_are_put() {
        for (text, escape, client, expected) in [
            (
                "a={account_id}&c={client_id}",
                url as Escape,
                "c&d=1 %",
                "a=acc&c=c%26d%3D1%20%25",
            ),
            (
                r#"{"c":"{client_id}"}"#,
                json,
                r#""\,{account_id}"#,
                r#"{"c":"\"\\,{account_id}"}"#,
            ),
            ("nothing", url, "c", "nothing"),
        ] {
            assert_eq!(fill(text, escape, "acc", client), expected);
        }
    }

    #[test]
    fn other_words_in_braces_are_seen() {
        for (text, expected) in [
            (
                r#"{"a":"{account_id}","b":{},"c":{"d":"{client_id}"}}"#,
                false,
            ),
            (r#"{"a":"{accountId}"}"#, true),
            ("https://x/{id}", true),
            ("https://x/{", false),
        ] {
            assert_eq!(has_unknown_word(text), expected, "{text}");
        }
    }
}
