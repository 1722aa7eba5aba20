//! The contacts that the simulator holds: none. Each record is computed when it is asked for.
//!
//! A record's bytes are a pure function of (account, stream, index), so a stream may have a million of them at no cost in
//! memory, two simulators agree without talking, and a test can say what a gateway should have served, byte for byte.

mod words;

use std::{
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

use super::{
    noise::{self, Noise},
    records::Record,
};

/// The most contacts that a stream may have.
pub const CONTACTS_MAX: u64 = 1_000_000;

/// 2020-01-01T00:00:00Z, in milliseconds: the first contact is created in the minutes after it.
const FIRST_CREATED_MS: u64 = 1_577_836_800_000;

/// One contact in each such span, so that `createdAt` ascends strictly with the index, whatever the noise.
const CREATED_EVERY_MS: u64 = 180_000;

/// Between two updates that were asked for.
const UPDATED_EVERY_MS: u64 = 3_600_000;

/// Agents of an account, one of whom created each contact.
const AGENTS: usize = 4;

/// The bytes of one contact, as the simulator serves it: compact JSON, the documented keys in the documented order.
///
/// `index` counts from 0 in the order of `createdAt`.
pub fn contact(account_id: &str, stream_id: &str, index: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    Contacts::new(account_id, stream_id).write(index, &mut out);
    out
}

/// All contacts of one stream. Cheap to keep: it holds only what they have in common.
#[derive(Clone, Debug)]
pub struct Contacts {
    seed: u64,
    /// The five middle bytes of every `id`.
    origin: u64,
    /// From `status`'s closing quote to the `createdBy` key.
    owner: Vec<u8>,
    agents: [Agent; AGENTS],
}

#[derive(Clone, Debug)]
struct Agent {
    user: String,
    agent: String,
}

impl Contacts {
    /// The contacts of a stream of an account. Any text does as an id; it is escaped where JSON needs it.
    pub fn new(account_id: &str, stream_id: &str) -> Self {
        let seed = noise::of_texts(&[account_id, stream_id]);
        let mut account = Noise::new(noise::of_texts(&[account_id]));
        let organization = uuid(&mut account);
        let agents = std::array::from_fn(|_| Agent {
            user: uuid(&mut account),
            agent: uuid(&mut account),
        });
        Self {
            seed,
            origin: noise::mix(seed) & 0xff_ffff_ffff,
            owner: owner(account_id, stream_id, &organization),
            agents,
        }
    }

    /// The same contacts, claiming to be of another account or stream.
    pub(super) fn claiming(&self, account_id: &str, stream_id: &str) -> Self {
        let mut account = Noise::new(noise::of_texts(&[account_id]));
        Self {
            owner: owner(account_id, stream_id, &uuid(&mut account)),
            ..self.clone()
        }
    }

    /// Appends the contact at `index`, counted from 0.
    pub fn write(&self, index: u64, out: &mut Vec<u8>) {
        self.write_as(index, 0, out);
    }

    /// Appends a record as its updates left it.
    pub(super) fn write_revised(&self, record: Record, out: &mut Vec<u8>) {
        self.write_as(record.number.into(), record.revision, out);
    }

    /// Appends the id of the contact at `index`.
    pub(super) fn write_id(&self, index: u64, out: &mut Vec<u8>) {
        let (created_ms, _) = self.created(index);
        self.write_id_of(index, created_ms, out);
    }

    /// When a contact was created, and the noise that the rest of it is made of.
    fn created(&self, index: u64) -> (u64, Noise) {
        let mut noise = Noise::new(self.seed ^ noise::mix(index));
        let within = noise.below(CREATED_EVERY_MS);
        (FIRST_CREATED_MS + index * CREATED_EVERY_MS + within, noise)
    }

    fn write_id_of(&self, index: u64, created_ms: u64, out: &mut Vec<u8>) {
        hex(out, created_ms / 1000, 8);
        hex(out, self.origin, 10);
        hex(out, index, 6);
    }

    /// An update changes nothing but who made it and when: every one is an hour later, by the next agent.
    fn write_as(&self, index: u64, revision: u32, out: &mut Vec<u8>) {
        let (created_ms, mut noise) = self.created(index);
        let creator_at = noise.below(AGENTS as u64);
        let creator = &self.agents[creator_at as usize];

        self.write_person(&mut noise, out);
        let status = if noise.below(50) == 0 {
            "INACTIVE"
        } else {
            "ACTIVE"
        };
        text(out, &[",\"status\":\"", status]);
        out.extend_from_slice(&self.owner);
        text(
            out,
            &[
                "\"u-",
                &creator.user,
                "\",\"createdByAId\":\"a-",
                &creator.agent,
                "\"",
            ],
        );
        write_address(&mut noise, out);
        text(out, &[",\"createdAt\":\""]);
        date(out, created_ms);
        text(out, &["\",\"updatedAt\":\""]);
        let updated = (noise.below(4) == 0).then(|| {
            let updater_at = noise.below(AGENTS as u64);
            (
                updater_at,
                created_ms + 1_000 + noise.below(90 * 86_400_000),
            )
        });
        if updated.is_some() || revision > 0 {
            let (updater_at, updated_ms) = updated.unwrap_or((creator_at, created_ms));
            let revision = u64::from(revision);
            let updater = &self.agents[((updater_at + revision) % AGENTS as u64) as usize];
            date(out, updated_ms + revision * UPDATED_EVERY_MS);
            text(out, &["\",\"updatedBy\":\"u-", &updater.user]);
            text(out, &["\",\"updatedByAId\":\"a-", &updater.agent]);
        } else {
            date(out, created_ms);
        }
        text(out, &["\",\"id\":\""]);
        self.write_id_of(index, created_ms, out);
        text(out, &["\"}"]);
    }

    fn write_person(&self, noise: &mut Noise, out: &mut Vec<u8>) {
        let first = *noise.pick(words::FIRST_NAMES);
        let last = *noise.pick(words::LAST_NAMES);
        let salutation = *noise.pick(words::SALUTATIONS);
        text(
            out,
            &["{\"firstName\":\"", first, "\",\"lastName\":\"", last],
        );
        text(out, &["\",\"fullName\":\"", first, " ", last]);
        text(out, &["\",\"salutation\":\"", salutation]);

        let (country, digits) = *noise.pick(words::DIALLING);
        let extension = if noise.below(8) == 0 { "+" } else { country };
        text(
            out,
            &[
                "\",\"cellPhone\":{\"extension\":\"",
                extension,
                "\",\"phoneNumber\":\"",
                country,
            ],
        );
        let lowest = 10u64.pow(digits - 1);
        decimal(out, lowest + noise.below(9 * lowest));
        text(out, &["\",\"countryCode\":\"", country, "\"}"]);
    }
}

fn owner(account_id: &str, stream_id: &str, organization: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    text(&mut out, &["\",\"instanceBotId\":", &quoted(stream_id)]);
    text(&mut out, &[",\"orgId\":\"o-", organization]);
    text(
        &mut out,
        &["\",\"accountId\":", &quoted(account_id), ",\"createdBy\":"],
    );
    out
}

/// Not documented beyond "a list of objects", so a plausible shape: what matters is that records nest and differ in length.
fn write_address(noise: &mut Noise, out: &mut Vec<u8>) {
    text(out, &[",\"address\":["]);
    if noise.below(5) == 0 {
        let street = *noise.pick(words::STREETS);
        let (city, country) = *noise.pick(words::CITIES);
        text(out, &["{\"type\":\"home\",\"line1\":\""]);
        decimal(out, 1 + noise.below(240));
        text(
            out,
            &[
                " ",
                street,
                "\",\"city\":\"",
                city,
                "\",\"country\":\"",
                country,
            ],
        );
        text(out, &["\",\"zip\":\""]);
        decimal(out, 10_000 + noise.below(90_000));
        text(out, &["\"}"]);
    }
    text(out, &["],\"twitterDetails\":["]);
    if noise.below(16) == 0 {
        text(out, &["{\"screenName\":\"@c"]);
        hex(out, noise.below(1 << 32), 8);
        text(out, &["\",\"followers\":"]);
        decimal(out, noise.below(5_000));
        text(out, &["}"]);
    }
    text(out, &["]"]);
}

fn text(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

pub(super) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn hex(out: &mut Vec<u8>, number: u64, digits: u32) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 0xf]);
    }
}

fn date(out: &mut Vec<u8>, unix_ms: u64) {
    let instant = UNIX_EPOCH + Duration::from_millis(unix_ms);
    // Writing to a Vec cannot fail, and no date here leaves the range of years that can be written.
    let _ = write!(out, "{}", humantime::format_rfc3339_millis(instant));
}

/// Shaped like a version 4 UUID, as most of Kore.ai's ids are.
pub(super) fn uuid(noise: &mut Noise) -> String {
    let (high, low) = (noise.next(), noise.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:x}{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        8 | low >> 60 & 3,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

/// The text as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const KEYS: &[&str] = &[
        "firstName",
        "lastName",
        "fullName",
        "salutation",
        "cellPhone",
        "extension",
        "phoneNumber",
        "countryCode",
        "status",
        "instanceBotId",
        "orgId",
        "accountId",
        "createdBy",
        "createdByAId",
        "address",
        "twitterDetails",
        "createdAt",
        "updatedAt",
        "updatedBy",
        "updatedByAId",
        "id",
    ];

    fn parsed(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
    }

    #[test]
    fn keys_come_in_the_documented_order() {
        for index in 0..200 {
            let bytes = contact("acc", "st-1", index);
            let json = String::from_utf8(bytes).unwrap();
            let found: Vec<usize> = KEYS
                .iter()
                .filter_map(|key| json.find(&format!("\"{key}\":")))
                .collect();
            assert!(found.is_sorted(), "{json}");
            assert!(
                found.len() == KEYS.len() || found.len() == KEYS.len() - 2,
                "{json}"
            );
        }
    }

    #[test]
    fn ids_are_unique_and_carry_the_second_of_creation_and_creation_ascends() {
        let contacts = Contacts::new("acc", "st-1");
        let (mut ids, mut before) = (HashSet::new(), String::new());
        let mut bytes = Vec::new();
        for index in (0..5_000).chain(CONTACTS_MAX - 5_000..CONTACTS_MAX) {
            bytes.clear();
            contacts.write(index, &mut bytes);
            let record = parsed(&bytes);
            let id = record["id"].as_str().unwrap();
            let created = record["createdAt"].as_str().unwrap();
            let unix = humantime::parse_rfc3339(created).unwrap();
            let seconds = unix.duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(id.len(), 24);
            assert_eq!(u64::from_str_radix(&id[..8], 16).unwrap(), seconds);
            assert!(created > before.as_str(), "{before} then {created}");
            assert!(record["updatedAt"].as_str().unwrap() >= created);
            before = created.to_owned();
            assert!(ids.insert(id.to_owned()));
        }
    }

    #[test]
    fn content_varies_as_real_lists_do() {
        let all: Vec<u8> = (0..500)
            .flat_map(|index| contact("acc", "st-1", index))
            .collect();
        let all = String::from_utf8(all).unwrap();
        for needle in [
            "\\u00e9",
            "\\\"",
            "\\/",
            "é",
            "美",
            "INACTIVE",
            "\"updatedBy\"",
            "\"line1\"",
            "\"extension\":\"+\"",
        ] {
            assert!(all.contains(needle), "{needle}");
        }
        let ten: usize = (0..10)
            .map(|index| {
                contact(
                    "65f7d49a5dd06e2cefa00000",
                    "st-7dc994f0-4436-5134-9fa8-a94262500000",
                    index,
                )
                .len()
            })
            .sum();
        assert!((5_500..7_500).contains(&ten), "{ten}");
    }

    #[test]
    fn an_update_changes_who_and_when_and_nothing_else() {
        let contacts = Contacts::new("acc", "st-1");
        for number in 0..50 {
            let mut before = parsed(&contact("acc", "st-1", number.into()));
            for revision in 1..6 {
                let mut bytes = Vec::new();
                contacts.write_revised(Record { number, revision }, &mut bytes);
                let after = parsed(&bytes);
                assert_ne!(after["updatedBy"], before["updatedBy"]);
                assert!(after["updatedAt"].as_str() > before["updatedAt"].as_str());
                for key in ["updatedAt", "updatedBy", "updatedByAId"] {
                    before[key] = after[key].clone();
                }
                assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn streams_and_accounts_share_no_id() {
        let ids: HashSet<String> = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
            .iter()
            .map(|(account, stream)| parsed(&contact(account, stream, 7))["id"].to_string())
            .collect();
        assert_eq!(ids.len(), 4);
    }

    proptest! {
        #[test]
        fn a_record_is_valid_and_the_same_each_time(
            account in ".{0,20}", stream in ".{0,20}", index in 0..CONTACTS_MAX,
        ) {
            let bytes = contact(&account, &stream, index);
            let record = parsed(&bytes);
            prop_assert_eq!(record["accountId"].as_str(), Some(account.as_str()));
            prop_assert_eq!(record["instanceBotId"].as_str(), Some(stream.as_str()));
            let full = format!("{} {}", record["firstName"].as_str().unwrap(), record["lastName"].as_str().unwrap());
            prop_assert_eq!(record["fullName"].as_str(), Some(full.as_str()));
            prop_assert_eq!(record.get("updatedBy").is_some(), record.get("updatedByAId").is_some());
            let mut again = Vec::new();
            Contacts::new(&account, &stream).write(index, &mut again);
            prop_assert_eq!(bytes, again);
        }
    }
}
