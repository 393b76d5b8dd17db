//! The plugin's settings and secrets.

mod reader;

pub use reader::SettingsReader;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use crate::Error;
use crate::imports::config;

/// The plugin's settings: `config` of ace.toml over the manifest's `[defaults]`, and `secrets`.
///
/// They do not change while the plugin is loaded, so a parsed value can be cached:
///
/// ```
/// use std::sync::LazyLock;
/// use ace_plugin::{Error, Settings};
///
/// static LIMIT: LazyLock<Result<u32, Error>> = LazyLock::new(|| Ok(Settings.get("limit")?.unwrap_or(10)));
///
/// fn limit() -> Result<u32, Error> {
///     LIMIT.clone()
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Settings;

impl Settings {
    /// A setting or secret as text: a string without quotes, any other value as JSON. `None` if it is not set.
    pub fn text(self, key: &str) -> Option<String> {
        config::get(key)
    }

    /// A setting as a typed value. `None` if it is not set. Parses JSON; other text is a string. For a string that may look like JSON
    /// (`"007"`), use [`text`](Self::text).
    ///
    /// # Errors
    /// If the value has another type. The error names the key.
    pub fn get<T: for<'de> Deserialize<'de>>(self, key: &str) -> Result<Option<T>, Error> {
        config::get(key).map(|text| read(key, &text)).transpose()
    }

    /// A required setting.
    ///
    /// # Errors
    /// If it is not set or has another type. The error names the key.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), ace_plugin::Error> {
    /// let url: String = ace_plugin::Settings.require("url")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn require<T: for<'de> Deserialize<'de>>(self, key: &str) -> Result<T, Error> {
        self.get(key)?.ok_or_else(|| Error::new(format_args!("config key {key:?}"), "it is not set"))
    }
}

fn read<T: for<'de> Deserialize<'de>>(key: &str, text: &str) -> Result<T, Error> {
    let json = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(e) => e,
    };
    // A string has no quotes. Deserialize it as a string, which may be a valid string or enum; otherwise the error ("expected a
    // list") is better than that of JSON about its first letter. (It uses the error type of serde_json, because another one would
    // add 15 KB to a guest.)
    let plain: StrDeserializer<'_, serde_json::Error> = text.into_deserializer();
    T::deserialize(plain).map_err(|e| {
        let why = if json.is_data() { json } else { e };
        Error::new(format_args!("config key {key:?}"), why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        DryRun,
    }

    #[test]
    fn strings_have_no_quotes_and_other_values_are_json() {
        assert_eq!(read("k", "[\"a\"]"), Ok(vec!["a".to_owned()]));
        assert_eq!(read("k", "7"), Ok(7_u8));
        assert_eq!(read("k", "plain"), Ok("plain".to_owned()));
        assert_eq!(read("k", "7"), Ok("7".to_owned()));
        assert_eq!(read("k", "dry-run"), Ok(Mode::DryRun));
    }

    #[test]
    fn an_error_names_the_key_and_what_was_expected() {
        let error = read::<Vec<String>>("deny", "email").expect_err("a string is not a list");
        assert_eq!(error.to_string(), "config key \"deny\": invalid type: string \"email\", expected a sequence");
        let error = read::<Vec<String>>("deny", "[1]").expect_err("a number is not a string");
        assert!(error.to_string().starts_with("config key \"deny\": invalid type: integer `1`"), "{error}");
    }
}
