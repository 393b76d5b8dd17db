//! What the columns of a CSV file are, and a row as a recipient.

use csv::StringRecord;
use serde_json::{Value, json};

use ace::message::nearest;

const USER: &str = "lms_user_id";
const EMAIL: &str = "email_address";
const LANGUAGE: &str = "language";
const KEY: &str = "key";
/// Fields of a line that a column is by its name.
const OWN: [&str; 4] = [USER, EMAIL, LANGUAGE, KEY];
/// What people call them, in lower case and without signs.
const ALSO_CALLED: [(&str, &[&str]); 4] = [
    (USER, &["lmsuserid", "userid", "lmsid", "user", "id", "learnerid", "studentid"]),
    (EMAIL, &["emailaddress", "email", "mail", "emails", "mailaddress", "address"]),
    (LANGUAGE, &["language", "lang", "languagecode"]),
    (KEY, &["key"]),
];
/// Columns of a file.
const COLUMNS_MAX: usize = 1_000;
/// Letters in which a misspelt name of ours differs.
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
            _ => Err("write FIELD=HEADER, as in email_address=email".to_owned()),
        }
    }
}

/// The columns of one file.
pub struct Columns {
    /// What each column is called here; `None` for one without a name.
    names: Vec<Option<String>>,
    /// Numbers and booleans of `user_context` are such.
    is_typed: bool,
}

impl Columns {
    /// # Errors
    /// The number of the column that is wrong, from 0, where it is one, and what is wrong.
    pub fn new(header: &StringRecord, mappings: &[Mapping], is_typed: bool) -> Result<Self, (Option<usize>, String)> {
        if header.len() > COLUMNS_MAX {
            return Err((None, format!("the header has more than {COLUMNS_MAX} columns")));
        }
        for mapping in mappings {
            if !header.iter().any(|name| is_meant(mapping, name)) {
                return Err((None, no_such_column(header, mapping)));
            }
        }
        let name = |name: &str| match mappings.iter().find(|mapping| is_meant(mapping, name)) {
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
        // Those that are mapped are what they are said to be.
        let unsaid = |at: usize| !mappings.iter().any(|mapping| is_meant(mapping, &header[at]));
        let has = |field: &str| names.iter().flatten().any(|name| name == field);
        for field in OWN.into_iter().filter(|field| !has(field)) {
            let near = |at: &usize| unsaid(*at) && is_near(&header[*at], field);
            if let Some(at) = (0..header.len()).find(near) {
                return Err((Some(at), meant(&header[at], field)));
            }
        }
        if has(USER) { Ok(Columns { names, is_typed }) } else { Err((None, no_user(header))) }
    }

    /// A row as a line of NDJSON; `None` where there is nothing in it.
    ///
    /// # Errors
    /// The number of the column that is wrong, from 0, and what is wrong.
    pub fn line(&self, row: &StringRecord) -> Result<Option<String>, (usize, String)> {
        let (mut own, mut context) = ([const { None::<Value> }; OWN.len()], String::new());
        for (at, value) in row.iter().enumerate().filter(|(_, value)| !value.trim().is_empty()) {
            let Some(name) = self.names.get(at).and_then(Option::as_deref) else {
                return Err((at, format!("the value {value:?} is in a column without a name")));
            };
            match OWN.iter().position(|field| *field == name) {
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
        // Not as a value: the digits of a number stay what they are.
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

/// An id that is written as a number writes itself is one.
fn own_value(name: &str, value: &str) -> Value {
    match value.parse::<i64>() {
        Ok(number) if name == USER && number.to_string() == value => json!(number),
        _ => json!(value),
    }
}

fn is_meant(mapping: &Mapping, header: &str) -> bool {
    mapping.header == header || mapping.header.trim() == header.trim()
}

/// Letters and digits in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn is_near(header: &str, field: &str) -> bool {
    let name = plain(header);
    let also = ALSO_CALLED.iter().filter(|(of, _)| *of == field).flat_map(|(_, names)| names.iter());
    let is_misspelt =
        field != KEY && name.len() > TYPOS_MAX * 2 && strsim::damerau_levenshtein(&name, &plain(field)) <= TYPOS_MAX;
    is_misspelt || also.into_iter().any(|also| *also == name)
}

/// An argument as a shell takes it.
fn argument(field: &str, header: &str) -> String {
    let is_plain = header.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
    if is_plain {
        format!("--column {field}={header}")
    } else {
        format!("--column '{field}={}'", header.replace('\'', "'\\''"))
    }
}

fn meant(header: &str, field: &str) -> String {
    format!(
        "the column {header:?} would go into user_context, and there is no {field}; if it holds that, say {}, else say {}",
        argument(field, header),
        argument(header.trim(), header)
    )
}

fn no_user(header: &StringRecord) -> String {
    let columns: Vec<String> = header.iter().take(20).map(|name| format!("{name:?}")).collect();
    let columns = columns.join(", ");
    format!(
        "there is no column {USER}, only {columns}; say which one it is, as in --column {USER}=HEADER (the first row is the header)"
    )
}

fn no_such_column(header: &StringRecord, mapping: &Mapping) -> String {
    let Mapping { field, header: asked } = mapping;
    let hint = match nearest(asked, header.iter()) {
        Some(near) => format!("; did you mean {}?", argument(field, near)),
        None => String::new(),
    };
    format!("--column {field}={asked}: there is no column {asked:?}{hint}")
}
