//! One account: its id, its JWT app, its streams.

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use super::{DEMO_ACCOUNT_ID, DEMO_CONTACTS, DEMO_STREAM_ID, SettingsError, unique, within};
use crate::simulator::{
    auth::Algorithm,
    contacts::{CONTACTS_MAX, uuid},
    noise::{self, Noise},
};

/// One account: its id, the JWT app that may read it, its streams.
#[derive(Clone, Debug)]
pub struct AccountSettings {
    /// What the header `accountId` must say; 1 to 128 of `[A-Za-z0-9_-]`.
    pub account_id: String,
    /// What the claim `appId` must say; not empty.
    pub client_id: String,
    /// What signatures are checked with. For HS256 and HS512 the text that tokens are signed with, as it stands; not empty.
    /// For RS256 and RS512 an RSA key in PEM: the public one, or the private one, and then the simulator can mint as well.
    pub client_secret: SecretString,
    /// Secrets that open the account too, as while they are rotated; together at most
    /// [`SECRETS_MAX`](crate::simulator::SECRETS_MAX).
    pub more_secrets: Vec<SecretString>,
    /// How tokens are signed. One that is signed in another way is refused.
    pub algorithm: Algorithm,
    /// Refuse tokens without a `jti`. One that is used again is refused in any case.
    pub enforce_jti: bool,
    /// Whether the app has the scope that contacts need. Without it, every call is refused.
    pub scope: bool,
    /// The streams that the app may read, their ids unique.
    pub streams: Vec<StreamSettings>,
    /// With a number, every other stream id exists too and has so many contacts; 0 to 1,000,000.
    pub other_streams: Option<u64>,
}

/// One stream of an account.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// The id in the path; 1 to 128 of `[A-Za-z0-9_-]`.
    pub stream_id: String,
    pub content: Content,
}

/// What a stream holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// So many computed contacts; 0 to 1,000,000.
    Contacts(u64),
    /// Bodies served as they are: the page at `skip` is the one numbered `skip / limit`, and the last one beyond the end.
    /// A single body thus answers every call. Faults of the page itself (totals, echo, records) do not change it.
    Fixed(Vec<Bytes>),
}

impl AccountSettings {
    /// An account without streams.
    pub fn new(account_id: &str, client_id: &str, client_secret: &str) -> Self {
        Self {
            account_id: account_id.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: SecretString::from(client_secret),
            more_secrets: Vec::new(),
            algorithm: Algorithm::default(),
            enforce_jti: false,
            scope: true,
            streams: Vec::new(),
            other_streams: None,
        }
    }

    /// The account that is played when nothing else is said.
    pub fn demo() -> Self {
        Self {
            account_id: DEMO_ACCOUNT_ID.to_owned(),
            ..Self::numbered(0)
        }
        .stream(DEMO_STREAM_ID, DEMO_CONTACTS)
    }

    /// An account of its own for each number, without streams: ids and secret shaped like Kore.ai's.
    pub fn numbered(number: u64) -> Self {
        let mut noise = Noise::new(noise::of_texts(&["account", &number.to_string()]));
        let account_id = format!("{:08x}{:016x}", 0x65f7_d49a_u32, noise.next());
        let client_id = format!("cs-{}", uuid(&mut noise));
        // 43 characters and the padding of 32 bytes in base64: the text itself is the key, never what it would decode to.
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut secret: String = (0..43).map(|_| char::from(*noise.pick(alphabet))).collect();
        secret.push('=');
        Self::new(&account_id, &client_id, &secret)
    }

    /// Adds a stream of so many computed contacts.
    #[must_use]
    pub fn stream(mut self, stream_id: &str, contacts: u64) -> Self {
        self.streams.push(StreamSettings {
            stream_id: stream_id.to_owned(),
            content: Content::Contacts(contacts),
        });
        self
    }

    /// Adds a stream that answers with fixed bodies.
    #[must_use]
    pub fn fixed(mut self, stream_id: &str, bodies: Vec<Bytes>) -> Self {
        self.streams.push(StreamSettings {
            stream_id: stream_id.to_owned(),
            content: Content::Fixed(bodies),
        });
        self
    }

    /// Lets every other stream id exist, with so many contacts each.
    #[must_use]
    pub fn others(mut self, contacts: u64) -> Self {
        self.other_streams = Some(contacts);
        self
    }
}

impl AccountSettings {
    /// The first thing that is wrong with it. Whether its secrets are any is seen when they are used.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.client_id.is_empty() || self.client_secret.expose_secret().is_empty() {
            return Err(SettingsError::NoCredential(self.account_id.clone()));
        }
        unique(self.streams.iter().map(|stream| &stream.stream_id))?;
        within(
            "contacts of other streams",
            self.other_streams.unwrap_or(0),
            0,
            CONTACTS_MAX,
        )?;
        self.streams
            .iter()
            .try_for_each(|stream| match &stream.content {
                Content::Contacts(contacts) => {
                    within("contacts of a stream", *contacts, 0, CONTACTS_MAX)
                }
                Content::Fixed(bodies) if bodies.is_empty() => {
                    Err(SettingsError::NoBody(stream.stream_id.clone()))
                }
                Content::Fixed(_) => Ok(()),
            })
    }
}
