use clap::Parser;
use http_body_util::{Full, StreamBody};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Parser)]
struct Export {
    #[command(flatten)]
    args: Args,
}

fn parsed(words: &[&str]) -> Result<Args, clap::Error> {
    let words = ["export", "--stream", "st-1"].iter().chain(words);
    Ok(Export::try_parse_from(words)?.args)
}

#[test]
fn the_list_is_where_the_gateway_has_it() {
    for (url, expected) in [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:1/", "http://[::1]:1"),
        ("https://gateway/here/", "https://gateway/here"),
    ] {
        let list = parsed(&["--url", url]).unwrap().list().unwrap();
        let path = "/agentassist/api/v1/public/st-1/contacts?all=true&progress=true";
        assert_eq!(list.to_string(), format!("{expected}{path}"));
    }
    for bad in [
        "127.0.0.1:8080",
        "/",
        "ftp://x",
        "http://key@x",
        "http://x/?a",
        "",
    ] {
        assert!(parsed(&["--url", bad]).is_err(), "{bad}");
    }
}

#[test]
fn the_format_is_what_the_name_ends_with() {
    for (words, expected) in [
        (&[][..], Format::Ndjson),
        (&["--format", "csv"], Format::Csv),
        (&["-o", "-"], Format::Ndjson),
        (&["-o", "a.CSV"], Format::Csv),
        (&["-o", "a/b.ndjson"], Format::Ndjson),
        (&["-o", "a.jsonl"], Format::Ndjson),
        (&["-o", "a.csv", "--format", "ndjson"], Format::Ndjson),
        (&["-o", "a.txt", "--format", "csv"], Format::Csv),
    ] {
        assert_eq!(
            parsed(words).unwrap().format().unwrap(),
            expected,
            "{words:?}"
        );
    }
    for name in ["a.txt", "csv", ".csv"] {
        assert!(parsed(&["-o", name]).unwrap().format().is_err(), "{name}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for words in [
        &["--account", "a b"][..],
        &["--fresh", "--max-age", "5m"],
        &["--wait", "8days"],
        &["--accept", "any"],
        &["--format", "xlsx"],
    ] {
        assert!(parsed(words).is_err(), "{words:?}");
    }
}

/// Each verdict is told apart from the others and from a failure.
#[test]
fn a_verdict_is_an_exit_code() {
    let codes = Verdict::ALL.map(Verdict::exit_code);
    assert_eq!(codes, [0, 3, 4, 5]);
    for verdict in Verdict::ALL {
        let told = serde_json::from_str(&format!("\"{verdict}\""));
        assert_eq!(told.ok(), Some(verdict));
        let row = format!("\n| {} | all | `{verdict}`", verdict.exit_code());
        assert!(include_str!("../../../README.md").contains(&row), "{row}");
    }
}

const END: &str = "{\"$end\":{\"verdict\":\"verified\",\"records\":2}}\n";

async fn received(body: &str, table: bool) -> Result<End, ExportError> {
    let spool = Place::Stdout.spool().unwrap();
    let mut received = Received::new(spool, table.then(Columns::default));
    let mut show = Show::new(How::None, Instant::now());
    let body = Full::new(bytes::Bytes::copy_from_slice(body.as_bytes()));
    received.read(body, &mut show).await
}

#[tokio::test]
async fn only_a_whole_list_is_one() {
    let contacts = "{\"id\":\"1\"}\n{\"id\":\"2\"}\n";
    let progress = "{\"$progress\":{\"pages_done\":1}}\n";
    for body in [
        format!("{contacts}{END}"),
        format!("{progress}{contacts}\n{progress}{}", END.trim_end()),
    ] {
        assert_eq!(received(&body, true).await.unwrap().records, 2);
    }
    for (body, code) in [
        (String::new(), "cut_off"),
        (contacts.to_owned(), "cut_off"),
        (format!("{contacts}{progress}"), "cut_off"),
        (format!("{{\"id\":\"1\"}}\n{END}"), "miscounted"),
        (format!("{contacts}{contacts}{END}"), "miscounted"),
        (format!("{contacts}{END}{{\"id\":\"3\"}}\n"), "strange_line"),
        (format!("{contacts}{END}{END}"), "strange_line"),
        (format!("{contacts}<html>\n{END}"), "strange_line"),
        (
            format!("{contacts}{{\"$error\":{{\"code\":\"merge_drifting\"}}}}\n"),
            "merge_drifting",
        ),
        (format!("{contacts}{{\"$error\":7}}\n"), "unknown"),
        (
            format!("{{\"id\":\"1\"{}}}\n", ",\"a\":1".repeat(3)),
            "cut_off",
        ),
        (
            format!(
                "{{\"id\":1{}}}\n",
                (0..1_000)
                    .map(|n| format!(",\"{n}\":1"))
                    .collect::<String>()
            ),
            "too_many_columns",
        ),
        (
            format!("{{\"id\":\"{}", "x".repeat(line::LINE_BYTES_MAX)),
            "strange_line",
        ),
    ] {
        let error = received(&body, true).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("nothing was written"), "{error}");
    }
}

/// Catches a command that waits for ever for a gateway that has gone without a word.
#[tokio::test(start_paused = true)]
async fn a_silent_gateway_is_given_up() {
    let silent = StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, std::convert::Infallible>,
    >());
    let mut received = Received::new(Place::Stdout.spool().unwrap(), None);
    let mut show = Show::new(How::None, Instant::now());
    let begun = Instant::now();
    let error = received.read(silent, &mut show).await.unwrap_err();
    assert_eq!(error.code(), "stalled");
    assert_eq!(begun.elapsed(), Duration::from_secs(300));
}

/// Catches a wait that is cut short, or rounded.
#[tokio::test(start_paused = true)]
async fn a_wait_is_as_long_as_was_said() {
    let until = Instant::now() + Duration::from_millis(61_500);
    sleep(until, &mut Show::new(How::None, Instant::now())).await;
    assert_eq!(Instant::now(), until);
}

proptest! {
    /// Wherever a transfer is cut, nothing less than the whole of it is a list.
    #[test]
    fn a_cut_transfer_is_no_list(cut in 0_usize..200) {
        let whole = format!("{{\"id\":\"1\",\"name\":\"é\"}}\n{{\"id\":\"2\"}}\n{END}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cut = (0..=cut.min(whole.len())).rfind(|cut| whole.is_char_boundary(*cut)).unwrap();
        let outcome = runtime.block_on(received(&whole[..cut], false));
        prop_assert_eq!(outcome.is_ok(), cut >= whole.len() - 1);
    }
}
