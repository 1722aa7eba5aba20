//! The words that contacts are made of, written as they stand between the quotes of a JSON string.
//!
//! Some are outside ASCII, some hold escapes that a careless copy would rewrite (`\u00e9` is not `é`, `\/` is not `/`).
//! None starts with a backslash: a fault may overwrite the first byte of a value.

pub(super) const FIRST_NAMES: &[&str] = &[
    "john",
    "maria",
    "Wei",
    "Amina",
    "Tomás",
    "Priya",
    "Olga",
    "Kwame",
    "Zoë",
    "Łukasz",
    "Fatima",
    "Jos\\u00e9",
    "Hiroshi",
    "美咲",
    "Ingrid",
    "अमित",
    "Sean",
    "Anne-Marie",
    "Ann \\\"Annie\\\"",
    "Nguyên",
    "Søren",
    "Chloe",
    "D\\u0027Arcy",
    "Omar",
    "Renée",
    "Ivan",
    "Μαρία",
    "Bob",
    "Yael",
    "Luis",
];

pub(super) const LAST_NAMES: &[&str] = &[
    "doe",
    "García",
    "Zhang",
    "Okafor",
    "Müller",
    "Sharma",
    "Petrova",
    "Mensah",
    "O'Brien",
    "Kowalski",
    "Haddad",
    "N\\u00fa\\u00f1ez",
    "Tanaka",
    "佐藤",
    "Larsen",
    "शर्मा",
    "Murphy",
    "de la Cruz",
    "Smith\\/Jones",
    "Trần",
    "Ødegård",
    "Dubois",
    "van der Berg",
    "Rossi \\\"Jr.\\\"",
    "Ivanov",
    "Παπαδόπουλος",
    "Cohen",
    "Silva",
];

pub(super) const SALUTATIONS: &[&str] = &["mr", "mrs", "ms", "dr", "mx", ""];

/// Country code, and how many digits follow it.
pub(super) const DIALLING: &[(&str, u32)] = &[
    ("+91", 10),
    ("+1", 10),
    ("+44", 10),
    ("+49", 11),
    ("+81", 10),
    ("+33", 9),
    ("+55", 11),
    ("+353", 9),
];

pub(super) const STREETS: &[&str] = &[
    "Mill Lane",
    "Hauptstra\\u00dfe",
    "Rua Augusta",
    "MG Road",
    "Elm Street",
    "Avenue de l'Opéra",
    "King's Road",
];

/// City and country.
pub(super) const CITIES: &[(&str, &str)] = &[
    ("Hyderabad", "IN"),
    ("Orlando", "US"),
    ("München", "DE"),
    ("S\\u00e3o Paulo", "BR"),
    ("大阪", "JP"),
    ("Dublin", "IE"),
    ("Lyon", "FR"),
];
