//! Changing a stream's records from outside.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{ControlError, number, pairs};
use crate::simulator::{
    change::{Change, ChangeKind, Churn},
    kore::Kore,
    stream::LiveStream,
};

/// What is asked of one stream.
#[derive(Debug, Default, PartialEq)]
struct Wish {
    changes: Vec<Change>,
    before: Option<u64>,
    churn: Option<Churn>,
    account: Option<String>,
    stream: Option<String>,
}

impl Wish {
    fn read(query: &str, form: &[u8]) -> Result<Self, ControlError> {
        let mut wish = Self::default();
        let (mut rate, mut kinds) = (None, Vec::new());
        for (name, value) in pairs(query, form)? {
            match name.as_str() {
                "change" => wish.changes.push(value.parse()?),
                "before" => {
                    wish.before = Some(number("before", &value, "a call, counted from 1")?);
                }
                "churn" => rate = Some(number("churn", &value, "a number from 0 to 100")?),
                "kind" => kinds.push(ChangeKind::from_str(&value, false).map_err(|_| {
                    ControlError::Value {
                        name: "kind",
                        value: value.clone(),
                        accepted: "insert, delete, update, swap or reverse",
                    }
                })?),
                "account" => wish.account = Some(value),
                "stream" => wish.stream = Some(value),
                _ => {
                    return Err(ControlError::Parameter {
                        name,
                        accepted: "change, before, churn, kind, account and stream",
                    });
                }
            }
        }
        wish.churn = match (rate.map(Churn::new).transpose()?, kinds.is_empty()) {
            (Some(churn), false) => Some(churn.only(&kinds)),
            (None, false) => return Err(ControlError::KindWithoutChurn),
            (churn, true) => churn,
        };
        if wish.changes.is_empty() && wish.churn.is_none() {
            return Err(ControlError::NoChange);
        }
        Ok(wish)
    }

    /// The one stream that is meant.
    fn stream<'a>(&self, kore: &'a Kore) -> Result<LiveStream<'a>, ControlError> {
        let matches =
            |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        let mut meant = kore.live_streams().filter(|(account, stream, _)| {
            matches(&self.account, account) && matches(&self.stream, stream)
        });
        match (meant.next(), meant.next()) {
            (Some((_, _, stream)), None) => Ok(stream),
            _ => Err(ControlError::WhichStream),
        }
    }
}

/// Every stream of contacts, and what became of it.
pub(super) fn show(kore: &Kore) -> Value {
    let mut streams: Vec<_> = kore.live_streams().collect();
    streams.sort_by_key(|(account, stream, _)| (*account, *stream));
    let streams = streams.into_iter().map(|(account, id, stream)| {
        json!({"account": account, "stream": id, "content": stream.state()})
    });
    json!({"streams": streams.collect::<Vec<_>>()})
}

/// Does what is asked, in the order in which it is asked; what comes after a change that cannot be is left out.
pub(super) fn add(kore: &Kore, query: &str, form: &[u8]) -> Result<(), ControlError> {
    let wish = Wish::read(query, form)?;
    let stream = wish.stream(kore)?;
    for change in wish.changes {
        match wish.before {
            Some(call) => stream.before_call(call, change)?,
            None => stream.change(change)?,
        }
    }
    if wish.churn.is_some() {
        stream.churn(wish.churn);
    }
    Ok(())
}

/// Forgets what is to come, for every stream.
pub(super) fn settle(kore: &Kore) {
    kore.live_streams()
        .for_each(|(_, _, stream)| stream.settle());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_forms_become_wishes() {
        let wish = |query, form: &str| Wish::read(query, form.as_bytes());
        assert_eq!(
            wish("change=insert=0&before=3", "change=swap%3D1%2C2&stream=s").unwrap(),
            Wish {
                changes: vec![Change::Insert(0), Change::Swap(1, 2)],
                before: Some(3),
                stream: Some("s".to_owned()),
                ..Wish::default()
            }
        );
        assert_eq!(
            wish("churn=0.5&kind=delete", "").unwrap().churn,
            Some(Churn::new(0.5).unwrap().only(&[ChangeKind::Delete]))
        );
        for (query, said) in [
            ("", "at least one change"),
            ("change=move=1", "`move=1` is no change"),
            (
                "change=reverse&at=1",
                "`at` is no parameter; there are change, before",
            ),
            ("change=reverse&before=x", "counted from 1"),
            ("churn=101", "0 to 100"),
            (
                "churn=1&kind=move",
                "insert, delete, update, swap or reverse",
            ),
            ("kind=swap&change=reverse", "`kind` goes with `churn`"),
        ] {
            let error = wish(query, "").unwrap_err().to_string();
            assert!(error.contains(said), "{query}: {error}");
        }
    }
}
