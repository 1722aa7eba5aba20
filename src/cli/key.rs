//! `key`: makes a key for a caller or an operator, and the hash of it that is configured.

use std::io::{self, Read, Write};

use clap::error::ErrorKind;
use zeroize::Zeroizing;

use super::{Failure, misused};
use crate::edge::key::{self, Digest};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway key --name crm
      a key on standard output, and on standard error what goes into the configuration
  (umask 077; contacts-gateway key --name crm > crm.key)
      the key in a file that is yours alone, and on no screen
  contacts-gateway key --admin > admin.token
      a token for operators
  contacts-gateway key --hash < crm.key
      the hash of a key that there is already

To rotate a key, add the new hash to the caller's key_sha256 and give out the new key. When the
old one is no longer used, remove its hash.";

/// Makes a key, 256 random bits, and its hash. The key is shown this once and kept nowhere.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What the caller is called in the configuration.
    #[arg(long, default_value = "crm", value_parser = name, conflicts_with_all = ["admin", "hash"])]
    pub name: String,
    /// For operators: a token for the admin listener.
    #[arg(long, conflicts_with = "hash")]
    pub admin: bool,
    /// Print the hash of the key on standard input, and make none.
    #[arg(long)]
    pub hash: bool,
}

/// A key that was not made here has at least as many characters: those of 128 random bits in base64.
const LENGTH_MIN: usize = 22;

fn name(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let good = (1..=64).contains(&text.len()) && text.bytes().all(plain);
    good.then(|| text.to_owned())
        .ok_or("1 to 64 of a-z, 0-9, _ and -")
}

/// Prints on standard output what was asked for, and what to do with it on standard error.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if args.hash {
        let mut text = Zeroizing::new(String::with_capacity(2 * key::LENGTH_MAX));
        let most = text.capacity() as u64;
        io::stdin().take(most).read_to_string(&mut text)?;
        let digest = hash(&text);
        let digest =
            digest.map_err(|message| misused("key", ErrorKind::ValueValidation, message))?;
        writeln!(io::stdout(), "{digest}")?;
        return Ok(());
    }
    let random = || io::Error::other("the system gives no random numbers");
    let key = key::generate().ok_or_else(random)?;
    writeln!(io::stdout(), "{}", *key)?;
    // With standard error closed, the hash can still be had with --hash.
    let _ = write!(io::stderr(), "{}", snippet(args, Digest::of(&key)));
    Ok(())
}

/// The hash of a key as a file holds it.
fn hash(text: &str) -> Result<Digest, &'static str> {
    let key = text.strip_suffix('\n').unwrap_or(text);
    let key = key.strip_suffix('\r').unwrap_or(key);
    if !key::is_well_formed(key) {
        return Err(
            "standard input must hold one key: up to 256 visible ASCII characters in one line",
        );
    }
    if key.len() < LENGTH_MIN {
        // Its hash stands in files, where a short one could be found out by trying.
        return Err("the key is too short to be safe: use one of 22 random characters or more");
    }
    Ok(Digest::of(key))
}

fn snippet(args: &Args, digest: Digest) -> String {
    if args.admin {
        return format!(
            "\n# The token is shown only now. In the configuration, add its hash:\n[admin]\ntoken_sha256 = [\"{digest}\"]\n"
        );
    }
    format!(
        "\n# The key is shown only now: give it to the caller. In the configuration, add its hash, and what it opens:\n\
         [[callers]]\nname = \"{}\"\nkey_sha256 = [\"{digest}\"]\naccounts = []  # by name\n",
        args.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hashed_without_the_newline_behind_it() {
        let key = "cgk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for text in [key, &format!("{key}\n"), &format!("{key}\r\n")] {
            assert_eq!(hash(text), Ok(Digest::of(key)));
        }
        let most = "k".repeat(256);
        assert_eq!(hash(&most), Ok(Digest::of(&most)));
        for bad in [
            "",
            "\n",
            "short",
            &"k".repeat(21),
            &"k".repeat(257),
            &format!("{key}\n\n"),
            &format!("{key}\n{key}"),
            &format!(" {key}"),
            &format!("{key}\u{e9}"),
        ] {
            assert!(hash(bad).is_err(), "{bad:?}");
        }
    }

    /// Catches a snippet that cannot be pasted.
    #[test]
    fn what_is_to_be_configured_is_good_toml() {
        let args = |admin| Args {
            name: "crm-2".to_owned(),
            admin,
            hash: false,
        };
        let digest = Digest::of("key");
        let read = |text: String| text.parse::<toml::Table>().unwrap();
        let caller = read(snippet(&args(false), digest));
        let [caller] = &caller["callers"].as_array().unwrap()[..] else {
            panic!("{caller}")
        };
        assert_eq!(caller["name"].as_str(), Some("crm-2"));
        let hash = toml::Value::from(digest.to_string());
        assert_eq!(caller["key_sha256"].as_array().unwrap()[0], hash);
        let admin = read(snippet(&args(true), digest));
        assert_eq!(admin["admin"]["token_sha256"].as_array().unwrap()[0], hash);
    }

    #[test]
    fn names_are_those_that_a_configuration_takes() {
        assert!(name("crm").is_ok() && name(&"a".repeat(64)).is_ok());
        for bad in ["", "CRM", "a b", "a\"", &"a".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
