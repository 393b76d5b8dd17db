//! Adds grants to the text of an ace.toml, and preserves everything else, including comments and order.

use std::fmt;
use std::path::Path;

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{BucketGrant, Requests};

/// Why a grant cannot be added.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum GrantError {
    #[error("not TOML: {0}")]
    Syntax(#[from] toml_edit::TomlError),
    #[error("{0} has a value of the wrong type; fix it first (`ace check` says more)")]
    Shape(String),
}

/// Grants these requests of a plugin, with `outbox` as the folder that it may write into, and returns the new text. Secrets are not
/// granted, because a manifest does not contain them, and neither are credentials, which an operator assigns.
///
/// # Errors
/// The text is not TOML, or a key in it has the wrong type.
pub fn granted(text: &str, plugin: &str, requests: &Requests, outbox: Option<&Path>) -> Result<String, GrantError> {
    let mut document: DocumentMut = text.parse()?;
    let grants = grants(&mut document, plugin)?;
    push(grants, plugin, "http", requests.http.iter().cloned())?;
    push(grants, plugin, "keyvalue", requests.keyvalue.iter().map(ToString::to_string))?;
    if requests.mailer {
        grants.insert("mailer", toml_edit::value(true));
    }
    push(grants, plugin, "feedback", requests.feedback.iter().cloned())?;
    if let Some(folder) = outbox.filter(|_| requests.outbox) {
        grants.insert("outbox", toml_edit::value(folder.display().to_string()));
    }
    Ok(document.to_string())
}

/// The table of a plugin's grants, created if it is missing.
fn grants<'a>(document: &'a mut DocumentMut, plugin: &str) -> Result<&'a mut dyn TableLike, GrantError> {
    let shape = |key: &str| GrantError::Shape(key.to_owned());
    let mut plugins = Table::new();
    plugins.set_implicit(true);
    let plugins = document.entry("plugins").or_insert(Item::Table(plugins));
    let is_inline = plugins.is_inline_table();
    let plugins = plugins.as_table_like_mut().ok_or_else(|| shape("plugins"))?;
    let section = if is_inline { toml_edit::value(InlineTable::new()) } else { Item::Table(Table::new()) };
    let section = plugins.entry(plugin).or_insert(section);
    let section = section.as_table_like_mut().ok_or_else(|| shape(&format!("plugins.{plugin}")))?;
    let grants = section.entry("grants").or_insert(toml_edit::value(InlineTable::new()));
    grants.as_table_like_mut().ok_or_else(|| shape(&format!("plugins.{plugin}.grants")))
}

/// Adds to a list, created if it is missing.
fn push(
    grants: &mut dyn TableLike,
    plugin: &str,
    key: &str,
    values: impl ExactSizeIterator<Item = String>,
) -> Result<(), GrantError> {
    if values.len() == 0 {
        return Ok(());
    }
    let list = grants.entry(key).or_insert(toml_edit::value(Array::new()));
    let list = list.as_value_mut().and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| GrantError::Shape(format!("plugins.{plugin}.grants.{key}")))?;
    list.extend(values);
    Ok(())
}

/// The format of ace.toml.
impl fmt::Display for BucketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match (self.read, self.write) {
            (true, true) => "read-write",
            (false, true) => "write",
            _ => "read",
        };
        write!(f, "{}:{access}", self.bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn requests() -> Requests {
        Requests {
            http: vec!["https://a.example/v1/".to_owned()],
            keyvalue: vec![BucketGrant { bucket: "facts".to_owned(), read: true, write: false }],
            mailer: true,
            outbox: true,
            feedback: vec!["probe".to_owned()],
            secrets: vec!["api-key".to_owned()],
            credentials: vec!["api".to_owned()],
        }
    }

    /// The plugin's grants in a text.
    fn read(text: &str) -> crate::config::Grants {
        let config = Config::read(text, None, []).unwrap_or_else(|e| panic!("{e}:\n{text}"));
        config.plugins["probe"].grants.clone()
    }

    #[test]
    fn a_missing_section_is_added_and_the_rest_is_preserved() {
        let text = "# Ours.\n[delivery]   # windows\nconcurrency = 4\n\n[plugins.other]\nenabled = false # for now\n";
        let new = granted(text, "probe", &requests(), Some("out".as_ref())).expect("it is valid");
        assert!(new.starts_with(text), "{new}");
        assert_eq!(
            &new[text.len()..],
            "\n[plugins.probe]\ngrants = { http = [\"https://a.example/v1/\"], keyvalue = [\"facts:read\"], \
             mailer = true, feedback = [\"probe\"], outbox = \"out\" }\n"
        );
        assert_eq!(read(&new).http, ["https://a.example/v1/"]);
    }

    #[test]
    fn grants_are_added_in_every_form_of_a_section() {
        for text in [
            "",
            "plugins = { probe = { order = 7 } }\n",
            "plugins.probe.order = 7\n",
            "[plugins.probe]\norder = 7\n",
            "[plugins.probe]\n[plugins.probe.grants]\nhttp = [\n  'https://b.example/', # theirs\n]\n",
            "[plugins.probe]\ngrants = { mailer = false, keyvalue = ['old'] }\n[plugins.probe.config]\na = 1\n",
        ] {
            let new =
                granted(text, "probe", &requests(), Some("out".as_ref())).unwrap_or_else(|e| panic!("{e}: {text}"));
            let grants = read(&new);
            assert!(grants.http.ends_with(&["https://a.example/v1/".to_owned()]) && grants.mailer, "{new}");
            assert_eq!(grants.keyvalue.last().map(ToString::to_string).as_deref(), Some("facts:read"), "{new}");
            assert_eq!(text.contains("# theirs"), new.contains("# theirs"), "{new}");
            assert!(grants.outbox.is_some_and(|folder| folder.ends_with("out")));
        }
    }

    #[test]
    fn a_key_of_the_wrong_type_is_an_error() {
        for (text, words) in [
            ("plugins = 1", "plugins has a value of the wrong type"),
            ("plugins.probe = []", "plugins.probe has a value of the wrong type"),
            ("plugins.probe.grants = 'all'", "plugins.probe.grants has a value of the wrong type"),
            ("plugins.probe.grants.http = 'all'", "plugins.probe.grants.http has a value of the wrong type"),
            ("plugins = ", "not TOML: "),
        ] {
            let error = granted(text, "probe", &requests(), None).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
