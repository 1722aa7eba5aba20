//! Indents JSON as the documentation prints it, without touching a byte of any text or number.
//!
//! A parser and a pretty printer would do it in one line, and would turn `\u00e9` into `é`: the escapes are what a gateway must not lose.

/// The same document with four spaces for each level.
pub(super) fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut level, mut in_text, mut escaped) = (0usize, false, false);
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                match bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(close) => out.push(close),
                    None => {
                        level += 1;
                        line(&mut out, level);
                    }
                }
            }
            b'}' | b']' => {
                level = level.saturating_sub(1);
                line(&mut out, level);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, level);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

fn line(out: &mut Vec<u8>, level: usize) {
    out.push(b'\n');
    out.resize(out.len() + 4 * level, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_as_they_are() {
        let json = br#"{"a":[{"b":"x\\\"{,:[ \u00e9","c":[]},-1.5e3],"d":{}}"#;
        let expected = "{\n    \"a\": [\n        {\n            \"b\": \"x\\\\\\\"{,:[ \\u00e9\",\n            \"c\": []\n        },\n        -1.5e3\n    ],\n    \"d\": {}\n}";
        assert_eq!(String::from_utf8(indent(json)).unwrap(), expected);
    }
}
