//! Maps the columns of a CSV file to fields, and converts a row to a recipient.

use csv::StringRecord;
use serde_json::{Value, json};

use ace::message::nearest;

const USER: &str = "lms_user_id";
const EMAIL: &str = "email_address";
const LANGUAGE: &str = "language";
const KEY: &str = "key";
/// Fields of a recipient that a column is mapped to by its name.
const FIELDS: [&str; 4] = [USER, EMAIL, LANGUAGE, KEY];
/// Other common names of these fields, in lower case and without punctuation.
const ALIASES: [(&str, &[&str]); 4] = [
    (USER, &["lmsuserid", "userid", "lmsid", "user", "id", "learnerid", "studentid"]),
    (EMAIL, &["emailaddress", "email", "mail", "emails", "mailaddress", "address"]),
    (LANGUAGE, &["language", "lang", "languagecode"]),
    (KEY, &["key"]),
];
/// The maximum number of columns.
const COLUMNS_MAX: usize = 1_000;
/// In how many letters a misspelled field name may differ.
const TYPOS_MAX: usize = 2;

/// `--column FIELD=HEADER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub field: String,
    pub header: String,
}

impl std::str::FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((field, header)) if !field.trim().is_empty() && !header.is_empty() => {
                Ok(Mapping { field: field.trim().to_owned(), header: header.to_owned() })
            }
            _ => Err("must be FIELD=HEADER, as in email_address=email".to_owned()),
        }
    }
}

/// The columns of one file.
pub struct Columns {
    /// The field or context key of each column; `None` for a column without a name.
    names: Vec<Option<String>>,
    /// Whether numbers and booleans of `user_context` are read as such.
    is_typed: bool,
}

impl Columns {
    /// Reads a header.
    ///
    /// # Errors
    /// The number of the wrong column, from 0, if the error is about one, and the message.
    pub fn new(header: &StringRecord, mappings: &[Mapping], is_typed: bool) -> Result<Self, (Option<usize>, String)> {
        if header.len() > COLUMNS_MAX {
            return Err((None, format!("the header has more than {COLUMNS_MAX} columns")));
        }
        for mapping in mappings {
            if !header.iter().any(|name| matches_header(mapping, name)) {
                return Err((None, no_such_column(header, mapping)));
            }
        }
        let name = |name: &str| match mappings.iter().find(|mapping| matches_header(mapping, name)) {
            Some(mapping) => Some(mapping.field.clone()),
            None => Some(name.to_owned()).filter(|name| !name.trim().is_empty()),
        };
        let names: Vec<Option<String>> = header.iter().map(name).collect();
        for (at, name) in names.iter().enumerate() {
            if let Some(first) = names[..at].iter().position(|before| name.is_some() && before == name) {
                let name = name.as_deref().unwrap_or_default();
                return Err((Some(at), format!("the columns {} and {} are both {name:?}", first + 1, at + 1)));
            }
        }
        // A column that is mapped explicitly is not checked for a similar name.
        let is_unmapped = |at: usize| !mappings.iter().any(|mapping| matches_header(mapping, &header[at]));
        let has = |field: &str| names.iter().flatten().any(|name| name == field);
        for field in FIELDS.into_iter().filter(|field| !has(field)) {
            let is_candidate = |at: &usize| is_unmapped(*at) && is_similar(&header[*at], field);
            if let Some(at) = (0..header.len()).find(is_candidate) {
                return Err((Some(at), similar_name(&header[at], field)));
            }
        }
        let has_recipient = has(USER) || has(EMAIL);
        if has_recipient { Ok(Columns { names, is_typed }) } else { Err((None, no_recipient(header))) }
    }

    /// Converts a row to a line of NDJSON; `None` if the row is empty.
    ///
    /// # Errors
    /// The number of the wrong column, from 0, and the message.
    pub fn line(&self, row: &StringRecord) -> Result<Option<String>, (usize, String)> {
        let (mut own, mut context) = ([const { None::<Value> }; FIELDS.len()], String::new());
        for (at, value) in row.iter().enumerate().filter(|(_, value)| !value.trim().is_empty()) {
            let Some(name) = self.names.get(at).and_then(Option::as_deref) else {
                return Err((at, format!("the value {value:?} is in a column without a name")));
            };
            match FIELDS.iter().position(|field| *field == name) {
                Some(field) => own[field] = Some(own_value(name, value.trim())),
                None => {
                    let comma = if context.is_empty() { "" } else { "," };
                    context += &format!("{comma}{}:{}", json!(name), self.context_value(value));
                }
            }
        }
        let [user, email, language, key] = own;
        if user.is_none() && email.is_none() {
            let is_empty = language.is_none() && key.is_none() && context.is_empty();
            let message = || format!("the row has neither {USER} nor {EMAIL}");
            return if is_empty { Ok(None) } else { Err((0, message())) };
        }
        let mut line = json!({"recipient": {USER: user, EMAIL: email}});
        for (name, value) in [(LANGUAGE, language), (KEY, key)] {
            if let Some(value) = value {
                line[name] = value;
            }
        }
        let line = line.to_string();
        // Inserted as text, because numbers in a `Value` may lose digits.
        Ok(line.strip_suffix('}').map(|line| format!("{line},\"user_context\":{{{context}}}}}")))
    }

    fn context_value(&self, value: &str) -> String {
        let text = value.trim();
        let boolean = ["true", "false"].into_iter().find(|word| text.eq_ignore_ascii_case(word));
        match boolean {
            Some(word) if self.is_typed => word.to_owned(),
            None if self.is_typed && serde_json::from_str::<f64>(text).is_ok() => text.to_owned(),
            _ => json!(value).to_string(),
        }
    }
}

/// A user id in the canonical form of a number becomes a number; any other value is a string.
fn own_value(name: &str, value: &str) -> Value {
    match value.parse::<i64>() {
        Ok(number) if name == USER && number.to_string() == value => json!(number),
        _ => json!(value),
    }
}

fn matches_header(mapping: &Mapping, header: &str) -> bool {
    mapping.header == header || mapping.header.trim() == header.trim()
}

/// Only the letters and digits, in lower case.
fn normalized(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_similar(header: &str, field: &str) -> bool {
    let name = normalized(header);
    let mut aliases = ALIASES.iter().filter(|(of, _)| *of == field).flat_map(|(_, names)| names.iter());
    let distance = || strsim::damerau_levenshtein(&name, &normalized(field));
    let is_misspelled = field != KEY && name.len() > TYPOS_MAX * 2 && distance() <= TYPOS_MAX;
    is_misspelled || aliases.any(|alias| *alias == name)
}

/// The option that maps a column, quoted for a shell.
fn argument(field: &str, header: &str) -> String {
    let is_plain = header.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    if is_plain {
        format!("--column {field}={header}")
    } else {
        format!("--column '{field}={}'", header.replace('\'', "'\\''"))
    }
}

fn similar_name(header: &str, field: &str) -> String {
    format!(
        "the column {header:?} would go into user_context, and there is no column {field}; use {} if it is that field, or {} to keep it in user_context",
        argument(field, header),
        argument(header.trim(), header)
    )
}

fn no_recipient(header: &StringRecord) -> String {
    let columns: Vec<String> = header.iter().take(20).map(|name| format!("{name:?}")).collect();
    let columns = columns.join(", ");
    format!(
        "there is no column {USER} or {EMAIL}, only {columns}; name one with --column {EMAIL}=HEADER (the first row is the header)"
    )
}

fn no_such_column(header: &StringRecord, mapping: &Mapping) -> String {
    let Mapping { field, header: wanted } = mapping;
    let hint = match nearest(wanted, header.iter()) {
        Some(near) => format!("; did you mean {}?", argument(field, near)),
        None => String::new(),
    };
    format!("--column {field}={wanted}: there is no column {wanted:?}{hint}")
}
