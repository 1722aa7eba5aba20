//! What is read of a record: its id, and whose it says that it is. The rest passes unread, and nothing is copied.

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Whose records a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct Tenant<'a> {
    /// What a record's `accountId` must be.
    pub account: &'a str,
    /// What a record's `instanceBotId` must be.
    pub stream: &'a str,
}

/// A record as far as it is read.
#[derive(Debug)]
pub struct Contact<'a> {
    pub id: &'a RawValue,
    /// It says that it is another account's or another stream's. One that says nothing is taken for the tenant's.
    pub foreign: bool,
}

impl<'a> Contact<'a> {
    /// Reads a record; `None` if it is no object, or has no `id` or two.
    pub fn read(record: &'a str, tenant: Tenant<'_>) -> Option<Self> {
        let contact = tenant.deserialize(&mut serde_json::Deserializer::from_str(record));
        contact
            .ok()
            .filter(|contact| contact.id.get().starts_with('"'))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
    Id,
    AccountId,
    InstanceBotId,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Tenant<'_> {
    type Value = Contact<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tenant<'_> {
    type Value = Contact<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a contact")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let (mut id, mut foreign) = (None, false);
        while let Some(member) = members.next_key()? {
            // Parsers disagree about which counts of two: an id stands once, and each name must be the tenant's.
            match member {
                Member::Id if id.is_some() => return Err(M::Error::duplicate_field("id")),
                Member::Id => id = Some(members.next_value()?),
                Member::AccountId => foreign |= differs(members.next_value()?, self.account),
                Member::InstanceBotId => foreign |= differs(members.next_value()?, self.stream),
                Member::Other => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        let id = id.ok_or_else(|| M::Error::missing_field("id"))?;
        Ok(Contact { id, foreign })
    }
}

/// Whether a JSON value names another than `expected`. `null` names nobody.
fn differs(value: &RawValue, expected: &str) -> bool {
    let value = value.get();
    if value.contains('\\') {
        let text = serde_json::from_str::<String>(value);
        return text.map_or(true, |text| text != expected);
    }
    let text = value
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    value != "null" && text != Some(expected)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TENANT: Tenant<'_> = Tenant {
        account: "65f7d49a",
        stream: "st-1",
    };

    fn foreign(members: &str) -> bool {
        let record = format!(r#"{{"id":"1",{members}}}"#);
        let contact = Contact::read(&record, TENANT);
        contact.unwrap_or_else(|| panic!("{record}")).foreign
    }

    #[test]
    fn a_record_is_foreign_if_it_names_another() {
        for (members, expected) in [
            (r#""accountId":"65f7d49a","instanceBotId":"st-1""#, false),
            // Older records have neither or one.
            (r#""firstName":"x""#, false),
            (r#""accountId":"65f7d49a""#, false),
            (r#""instanceBotId":"st-1""#, false),
            (r#""accountId":null,"instanceBotId":null"#, false),
            (r#""accountId":"65f7d49b","instanceBotId":"st-1""#, true),
            (r#""accountId":"65f7d49a","instanceBotId":"st-2""#, true),
            (r#""instanceBotId":"65f7d49a","accountId":"st-1""#, true),
            // Neither a part nor another case nor another type is the same.
            (r#""accountId":"65f7d49""#, true),
            (r#""accountId":"65f7d49a ""#, true),
            (r#""accountId":"65F7D49A""#, true),
            (r#""accountId":"""#, true),
            (r#""accountId":65"#, true),
            (r#""accountId":["65f7d49a"]"#, true),
            (r#""accountId":{"65f7d49a":1}"#, true),
            // Escapes in values and in names.
            (r#""accountId":"65f7\u006449a""#, false),
            (r#""accountId":"65f7\u006549a""#, true),
            (r#""accountId":"65f7d49a\ud800""#, true),
            (r#""account\u0049d":"65f7d49b""#, true),
            // Of two, neither may differ.
            (r#""accountId":"65f7d49b","accountId":"65f7d49a""#, true),
            (r#""accountId":"65f7d49a","accountId":"65f7d49b""#, true),
            (r#""accountId":"65f7d49a","accountId":"65f7d49a""#, false),
            // What stands deeper is about something else.
            (r#""cellPhone":{"accountId":"65f7d49b"}"#, false),
            (r#""AccountId":"65f7d49b""#, false),
        ] {
            assert_eq!(foreign(members), expected, "{members}");
        }
    }

    /// A JSON string in which some characters are written as escapes.
    fn escaped(text: &str, mask: u64) -> String {
        let one = |(place, character): (usize, char)| match mask >> (place % 64) & 1 {
            1 => format!("\\u{:04X}", character as u32),
            _ => character.to_string(),
        };
        let text: String = text.chars().enumerate().map(one).collect();
        format!("\"{text}\"")
    }

    proptest! {
        /// Whatever is escaped and wherever the members stand, a record is foreign exactly if a name differs.
        #[test]
        fn only_what_is_said_counts(
            account in "(65f7d49a|65f7d49b|[A-Za-z0-9_-]{1,9})",
            stream in "(st-1|st-2|[A-Za-z0-9_-]{1,9})",
            masks: (u64, u64),
            turn in 0_usize..4,
        ) {
            let mut members = [
                r#""id":"1""#.to_owned(),
                format!(r#""accountId" : {}"#, escaped(&account, masks.0)),
                format!(r#""instanceBotId":{}"#, escaped(&stream, masks.1)),
                r#""address":[{"accountId":"x"}]"#.to_owned(),
            ];
            members.rotate_left(turn);
            let record = format!("{{{}}}", members.join(", "));
            let contact = Contact::read(&record, TENANT).unwrap();
            let expected = account != TENANT.account || stream != TENANT.stream;
            prop_assert_eq!(contact.foreign, expected, "{}", record);
            prop_assert_eq!(contact.id.get(), "\"1\"");
        }
    }
}
