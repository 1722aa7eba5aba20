//! Any file: it is taken and printed as what it is, or refused in messages of bounded length that show no secret.

use std::path::Path;

use super::{
    effective::{self, Origins},
    examine::Secrets,
    excerpt::WIDTH,
    *,
};

/// Lines with a secret, `CANARY-7f3a`, as somebody may write them. It is shown nowhere.
const MISPLACED: [&str; 16] = [
    "client_secret = 'CANARY-7f3a'",
    "client_secret = CANARY-7f3a",
    "password = \"CANARY-7f3a",
    "x = ['CANARY-7f3a', { y = 'CANARY-7f3a' }]",
    "# CANARY-7f3a",
    "name = 5 # CANARY-7f3a",
    "client_id = 'CANARY-7f3a \u{e9}'",
    "client_secret_env = 'CANARY-7f3a'",
    "claims = { jti = 'CANARY-7f3a' }",
    "key_sha256 = ['CANARY-7f3a', 5]",
    "base_url = 'https://u:CANARY-7f3a@x'",
    "headers = { x-api-key = 'CANARY-7f3a' }",
    "token_sha256 = ['CANARY-7f3a']",
    "'CANARY-7f3a'",
    "CANARY-7f3a=",
    "fresh_for = '5m' client_secret = 'CANARY-7f3a'",
];

/// Characters of one message, at most.
const MESSAGE_MAX: usize = 2_000;

/// Reads a file, alone and with a secret put into it: the first byte says which and where. What follows a line `--- env` are
/// variables.
///
/// # Panics
/// If a property does not hold.
pub fn check(bytes: &[u8]) {
    let (file, variables) = halves(bytes);
    let variables: Vec<_> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    examined(file, &variables);
    let (Some(first), Ok(text)) = (file.first(), std::str::from_utf8(file)) else {
        return;
    };
    // A part of it that is there already may be shown, in a variable's name as well. Within a text of several lines it would
    // be part of that, whose key may be one that is shown.
    let unusable = ["CANARY", "7f3a", "\"\"\"", "'''"];
    let all = String::from_utf8_lossy(bytes);
    if unusable.iter().any(|part| all.contains(part)) {
        return;
    }
    let misplaced = MISPLACED[usize::from(*first) % MISPLACED.len()];
    let line = usize::from(*first) / MISPLACED.len();
    let at = text
        .match_indices('\n')
        .nth(line)
        .map_or(text.len(), |(at, _)| at);
    let text = format!("{}\n{misplaced}{}", &text[..at], &text[at..]);
    let told = examined(text.as_bytes(), &variables);
    assert!(
        !told.contains("CANARY") && !told.contains("7f3a"),
        "{text}\n---\n{told}"
    );
}

/// The file and the variables' lines.
fn halves(bytes: &[u8]) -> (&[u8], &str) {
    const BETWEEN: &[u8] = b"\n--- env\n";
    let at = bytes
        .windows(BETWEEN.len())
        .position(|window| window == BETWEEN);
    let Some(at) = at else {
        return (bytes, "");
    };
    let variables = std::str::from_utf8(&bytes[at + BETWEEN.len()..]);
    (&bytes[..at], variables.unwrap_or_default())
}

/// Reads a file. What is told about it.
fn examined(file: &[u8], variables: &[(&str, &str)]) -> String {
    let path = Path::new("gw.toml");
    let read = |content: &[u8], variables: &[(&str, &str)]| {
        let env = Variables::new(variables.iter().copied());
        examine(path, content, &env, Secrets::Unread)
    };
    let problems = match read(file, variables) {
        Ok(Examined { config, places }) => {
            let origins = Origins::new(places, file);
            let printed = effective::write(&config, &origins, path).expect("it has a form in TOML");
            let again = read(printed.as_bytes(), &[]);
            let again = again.unwrap_or_else(|problems| panic!("{printed}\n{problems}"));
            assert_eq!(shown(again.config), shown(config), "{printed}");
            return String::new();
        }
        Err(problems) => problems,
    };
    assert!(problems.count() > 0);
    for problem in problems.iter() {
        assert!(!matches!(problem.fault, Fault::Refused), "{problem}");
        let told = problem.to_string();
        assert!(told.chars().count() <= MESSAGE_MAX, "{told}");
        assert!(
            !told.contains(|character: char| character.is_control() && character != '\n'),
            "{told:?}"
        );
        let Place::Line(_, excerpt) = &problem.place else {
            continue;
        };
        let width = excerpt.text.chars().count();
        assert!(width <= WIDTH + 6, "{told}");
        let lines = 1 + file.iter().filter(|byte| **byte == b'\n').count();
        assert!((1..=lines).contains(&excerpt.line) && excerpt.column >= 1);
        // At the end of a line it points behind it.
        assert!(
            excerpt.caret.start < excerpt.caret.end && excerpt.caret.start <= width,
            "{told}"
        );
        assert!(excerpt.caret.end <= width + 1, "{told}");
    }
    format!("{problems}{problems:?}")
}

/// All of it, but for the claims, which are not printed.
fn shown(mut config: Config) -> String {
    for account in &mut config.accounts {
        account.claims = contacts::account::Claims::default();
    }
    format!("{config:#?}")
}
