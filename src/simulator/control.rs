//! The simulator's own interface, under `/_simulator/` on the port it plays Kore.ai on, so that a `curl` line can break a
//! running one. Parameters are taken from the query or from a form body, whichever is handier to write.

mod changes;
mod clock;
mod guide;
mod secrets;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

pub use guide::fault_guide;

use super::{
    answer::Answer,
    auth::SecretError,
    change::ChangeError,
    fault::{Fault, ParseFaultError},
    kore::Kore,
    plan::{Rule, RuleError},
    settings::SettingsError,
};
use guide::Guide;

/// Everything below this path is the simulator's own.
pub(super) const PREFIX: &str = "/_simulator";

/// The largest form body, in bytes.
const FORM_BYTES_MAX: usize = 16 << 10;

/// A request that cannot be understood.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error(transparent)]
    Fault(#[from] ParseFaultError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("`{name}` is no parameter; there are {accepted}")]
    Parameter {
        name: String,
        accepted: &'static str,
    },
    #[error("`{name}` cannot be `{value}`: {accepted}")]
    Value {
        name: &'static str,
        value: String,
        accepted: &'static str,
    },
    #[error("name at least one fault, as in `fault=status=503`")]
    NoFault,
    #[error("name at least one change, as in `change=insert=0`, or `churn=0.2`")]
    NoChange,
    #[error("`kind` goes with `churn`")]
    KindWithoutChurn,
    #[error("name one stream that holds contacts, by `stream` and perhaps `account`")]
    WhichStream,
    #[error(
        "send add=SECRET or revoke=SECRET, percent-encoded, and account=ID where there are several"
    )]
    SecretForm,
    #[error("there is no account `{0}`")]
    Account(String),
    #[error("there are several accounts: name one by `account`")]
    WhichAccount,
    #[error("send offset=TIME, such as -90s")]
    NoOffset,
    #[error("`next` and `share` exclude each other")]
    Both,
    #[error("`%` must be followed by two hexadecimal digits, and the bytes be UTF-8: `{0}`")]
    Escape(String),
    #[error("the body must be a form of at most {FORM_BYTES_MAX} bytes")]
    Body,
}

/// The answer to a request under [`PREFIX`].
pub(super) async fn answer(kore: &Kore, request: Request<Incoming>) -> Answer {
    let path = request
        .uri()
        .path()
        .trim_start_matches(PREFIX)
        .trim_matches('/')
        .to_owned();
    match (path.as_str(), request.method()) {
        ("", &Method::GET) => guide(),
        ("calls", &Method::GET) => calls(kore),
        ("requests", &Method::DELETE) => {
            kore.requests().clear();
            json_answer(StatusCode::OK, &json!({"requests": []}))
        }
        ("faults", &Method::GET) => faults(kore),
        ("faults", &Method::DELETE) => {
            kore.plan().clear();
            faults(kore)
        }
        ("faults", &Method::POST) => match add(kore, request).await {
            Ok(()) => faults(kore),
            Err(error) => mistake(&error),
        },
        ("changes", &Method::GET) => changes(kore),
        ("changes", &Method::DELETE) => {
            changes::settle(kore);
            changes(kore)
        }
        ("changes", &Method::POST) => match change(kore, request).await {
            Ok(()) => changes(kore),
            Err(error) => mistake(&error),
        },
        ("secrets", &Method::GET) => json_answer(StatusCode::OK, &secrets::show(kore)),
        ("secrets", &Method::POST) => match parameters(request).await {
            Ok((query, form)) => answered(secrets::change(kore, &query, &form)),
            Err(error) => mistake(&error),
        },
        ("clock", &Method::GET) => json_answer(StatusCode::OK, &clock::show(kore)),
        ("clock", &Method::POST) => match parameters(request).await {
            Ok((query, form)) => answered(clock::set(kore, &query, &form)),
            Err(error) => mistake(&error),
        },
        ("" | "calls" | "requests" | "faults" | "changes" | "secrets" | "clock", _) => {
            Answer::error(StatusCode::METHOD_NOT_ALLOWED)
        }
        _ => Answer::error(StatusCode::NOT_FOUND),
    }
}

async fn add(kore: &Kore, request: Request<Incoming>) -> Result<(), ControlError> {
    let (query, form) = parameters(request).await?;
    kore.plan().add(rule(&query, &form)?)?;
    Ok(())
}

async fn change(kore: &Kore, request: Request<Incoming>) -> Result<(), ControlError> {
    let (query, form) = parameters(request).await?;
    changes::add(kore, &query, &form)
}

/// The query and the body of a request.
async fn parameters(request: Request<Incoming>) -> Result<(String, Bytes), ControlError> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form = Limited::new(request.into_body(), FORM_BYTES_MAX)
        .collect()
        .await;
    Ok((query, form.map_err(|_| ControlError::Body)?.to_bytes()))
}

/// The parameters of a query and a form, decoded.
fn pairs(query: &str, form: &[u8]) -> Result<Vec<(String, String)>, ControlError> {
    let form = std::str::from_utf8(form).map_err(|_| ControlError::Body)?;
    // In a form a plus is a space, as curl writes it; in a query it is a plus: `?fault=total=+1` is what one types.
    let form = form.trim_end().replace('+', "%20");
    let all = query.split('&').chain(form.split('&'));
    all.filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((name.to_owned(), decoded(value)?.into_owned()))
        })
        .collect()
}

fn rule(query: &str, form: &[u8]) -> Result<Rule, ControlError> {
    let (mut rule, mut next, mut share): (Option<Rule>, Option<u64>, Option<f64>) =
        (None, None, None);
    let (mut account, mut stream) = (None, None);
    for (name, value) in pairs(query, form)? {
        match name.as_str() {
            "fault" => {
                let fault: Fault = value.parse()?;
                rule = Some(match rule {
                    Some(rule) => rule.and(fault),
                    None => Rule::always(fault),
                });
            }
            "next" => next = Some(number("next", &value, "a number of calls")?),
            "share" => share = Some(number("share", &value, "a number from 0 to 1")?),
            "account" => account = Some(value),
            "stream" => stream = Some(value),
            _ => {
                return Err(ControlError::Parameter {
                    name,
                    accepted: "fault, next, share, account and stream",
                });
            }
        }
    }
    let mut rule = rule.ok_or(ControlError::NoFault)?;
    rule = match (next, share) {
        (Some(_), Some(_)) => return Err(ControlError::Both),
        (Some(next), None) => rule.next(next),
        (None, Some(share)) => rule.share(share)?,
        (None, None) => rule,
    };
    if let Some(account) = account {
        rule = rule.account(&account);
    }
    if let Some(stream) = stream {
        rule = rule.stream(&stream);
    }
    Ok(rule)
}

fn number<T: std::str::FromStr>(
    name: &'static str,
    value: &str,
    accepted: &'static str,
) -> Result<T, ControlError> {
    value.parse().map_err(|_| ControlError::Value {
        name,
        value: value.to_owned(),
        accepted,
    })
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<Cow<'_, str>, ControlError> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let wrong = || ControlError::Escape(text.to_owned());
    let mut pieces = text.split('%');
    let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece
            .get(..2)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.ok_or_else(wrong)?);
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| wrong())
}

fn faults(kore: &Kore) -> Answer {
    let rules = kore.plan().rules();
    json_answer(StatusCode::OK, &json!({ "faults": rules }))
}

fn changes(kore: &Kore) -> Answer {
    json_answer(StatusCode::OK, &changes::show(kore))
}

fn answered(outcome: Result<Value, ControlError>) -> Answer {
    match outcome {
        Ok(shown) => json_answer(StatusCode::OK, &shown),
        Err(error) => mistake(&error),
    }
}

fn mistake(error: &ControlError) -> Answer {
    let error = json!({"error": error.to_string(), "help": format!("GET {PREFIX}/")});
    json_answer(StatusCode::BAD_REQUEST, &error)
}

fn calls(kore: &Kore) -> Answer {
    let accounts: serde_json::Map<String, serde_json::Value> = kore
        .counts()
        .map(|(id, counts)| (id.to_owned(), json!(counts)))
        .collect();
    json_answer(StatusCode::OK, &json!({ "accounts": accounts }))
}

fn guide() -> Answer {
    let mut answer = Answer::json(StatusCode::OK, Guide.to_string());
    answer.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    Answer::json(status, Bytes::from(format!("{value:#}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_forms_become_rules() {
        let shown = |query, form: &str| {
            serde_json::to_value(rule(query, form.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!(
            shown("fault=status=503&next=5&account=a", ""),
            json!({"faults": ["status=503"], "next": 5, "account": "a", "hits": 0})
        );
        assert_eq!(
            shown("", "fault=null"),
            json!({"faults": ["null"], "always": null, "hits": 0})
        );
        assert_eq!(
            shown(
                "share=0.5&fault=total=+1",
                "fault=status%3D503%3Bbody%3Da+%26%20b%2B"
            ),
            json!({"faults": ["total=+1", "status=503;body=a & b+"], "share": 0.5, "hits": 0})
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (form, said) in [
            ("", "at least one fault"),
            ("fault=statsu", "there is no fault `statsu`"),
            ("fault=null&nxt=1", "`nxt` is no parameter"),
            ("fault=null&next=-1", "a number of calls"),
            ("fault=null&share=2", "a number from 0 to 1"),
            ("fault=null&share=0.5&next=1", "exclude each other"),
            ("fault=%zz", "two hexadecimal digits"),
            ("fault=%f", "two hexadecimal digits"),
            ("fault=%ff", "UTF-8"),
        ] {
            let error = rule(form, b"").unwrap_err().to_string();
            assert!(error.contains(said), "{form}: {error}");
        }
    }
}
