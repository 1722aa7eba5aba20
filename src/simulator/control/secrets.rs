//! The secrets of an account while it runs. What is sent here is never sent back, also not in the account of a mistake.

use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::{ControlError, pairs};
use crate::simulator::kore::{Account, Kore};

/// What is asked of one account.
#[derive(Default)]
struct Wish {
    add: Vec<SecretString>,
    revoke: Vec<SecretString>,
    account: Option<String>,
}

impl Wish {
    fn read(query: &str, form: &[u8]) -> Result<Self, ControlError> {
        let mut wish = Self::default();
        // A text that cannot be decoded may be a secret, and a name that is none, too.
        let pairs = pairs(query, form).map_err(|_| ControlError::SecretForm)?;
        for (name, value) in pairs {
            match name.as_str() {
                "add" => wish.add.push(secret(&value)),
                "revoke" => wish.revoke.push(secret(&value)),
                "account" => wish.account = Some(value),
                _ => return Err(ControlError::SecretForm),
            }
        }
        if wish.add.is_empty() && wish.revoke.is_empty() {
            return Err(ControlError::SecretForm);
        }
        Ok(wish)
    }

    fn account<'a>(&self, kore: &'a Kore) -> Result<&'a Account, ControlError> {
        if let Some(id) = &self.account {
            let account = kore.account(id);
            return account.ok_or_else(|| ControlError::Account(id.clone()));
        }
        let mut accounts = kore.accounts();
        match (accounts.next(), accounts.next()) {
            (Some((_, account)), None) => Ok(account),
            _ => Err(ControlError::WhichAccount),
        }
    }
}

/// As in a file that holds a secret, one newline at the end is not part of it.
fn secret(text: &str) -> SecretString {
    SecretString::from(text.strip_suffix('\n').unwrap_or(text))
}

/// The secrets of each account, the oldest first, by the calls that they opened.
pub(super) fn show(kore: &Kore) -> Value {
    let accounts: Map<String, Value> = kore
        .accounts()
        .map(|(id, account)| {
            let opened = account.credential.opened().into_iter();
            let secrets: Vec<Value> = opened.map(|calls| json!({ "calls": calls })).collect();
            let algorithm = account.credential.algorithm().name();
            (
                id.to_owned(),
                json!({"algorithm": algorithm, "secrets": secrets}),
            )
        })
        .collect();
    json!({ "accounts": accounts })
}

/// Adds what is to be added, then revokes. What comes after a secret that cannot be is left out.
pub(super) fn change(kore: &Kore, query: &str, form: &[u8]) -> Result<Value, ControlError> {
    let wish = Wish::read(query, form)?;
    let app = &wish.account(kore)?.credential;
    for secret in &wish.add {
        app.add(secret)?;
    }
    for secret in &wish.revoke {
        app.revoke(secret)?;
    }
    Ok(show(kore))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn secrets_are_read_from_queries_and_forms() {
        let wish = Wish::read("add=a+b==&account=x", b"revoke=c%2Bd%0A").unwrap();
        assert_eq!(wish.add[0].expose_secret(), "a+b==");
        assert_eq!(wish.revoke[0].expose_secret(), "c+d");
        assert_eq!(wish.account.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_sent_is_not_repeated() {
        for (query, form) in [
            ("", ""),
            ("account=x", ""),
            ("", "CANARY"),
            ("CANARY=1", ""),
            ("add=CANARY%zz", ""),
            ("", "add=CANARY%ff"),
            ("", "secret=CANARY"),
        ] {
            let error = Wish::read(query, form.as_bytes()).err().unwrap();
            let said = format!("{error} {error:?}");
            assert!(said.contains("add=SECRET"), "{query} {form}: {said}");
            assert!(!said.contains("CANARY"), "{query} {form}: {said}");
        }
    }
}
