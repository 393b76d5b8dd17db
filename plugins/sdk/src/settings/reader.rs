//! Reading all settings of a plugin, with all that is wrong with them.

use std::ops::RangeInclusive;

use crate::http;

/// Reads settings one by one and collects their problems, so that an operator sees all of them at once.
///
/// Methods that cannot return a valid value note the problem and return a placeholder; [`finish`](Self::finish) then fails.
///
/// ```
/// use ace_plugin::SettingsReader;
///
/// #[derive(Debug)]
/// struct Settings {
///     url: String,
///     sender: String,
///     timeout_ms: u32,
/// }
///
/// /// A plugin calls it with `|key| Settings.text(key)`.
/// fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
///     let mut reader = SettingsReader::new(&get);
///     let settings = Settings {
///         url: reader.base_url("base-url", Some("api.example.com")) + "/send",
///         sender: reader.required("sender"),
///         timeout_ms: reader.timeout_ms(10_000),
///     };
///     reader.finish(settings)
/// }
///
/// let settings = read(|key| (key == "sender").then(|| "Campus".to_owned())).expect("valid");
/// assert_eq!((settings.url.as_str(), settings.timeout_ms), ("https://api.example.com/send", 10_000));
/// assert_eq!(read(|_| None).expect_err("there is no sender"), "config key \"sender\" is not set");
/// ```
pub struct SettingsReader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl<'a> SettingsReader<'a> {
    /// A reader of settings and secrets by key.
    pub fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        SettingsReader { get, problems: Vec::new() }
    }

    /// A trimmed text. `None` if it is empty or not set.
    pub fn text(&self, key: &str) -> Option<String> {
        (self.get)(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A text that must be set.
    pub fn required(&mut self, key: &str) -> String {
        self.set("config key", key)
    }

    /// A secret that must be set.
    pub fn required_secret(&mut self, key: &str) -> String {
        self.set("secret", key)
    }

    fn set(&mut self, kind: &str, key: &str) -> String {
        self.text(key).unwrap_or_else(|| {
            self.problems.push(format!("{kind} {key:?} is not set"));
            String::new()
        })
    }

    /// The value that was parsed from this setting, or its problem.
    pub fn checked<T: Default>(&mut self, key: &str, value: Result<T, String>) -> T {
        value.unwrap_or_else(|why| {
            self.problem(key, why);
            T::default()
        })
    }

    /// A whole number.
    pub fn number(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(text) = self.text(key) else { return default };
        let number = text.parse().ok().filter(|number| range.contains(number));
        self.checked(key, number.ok_or_else(|| expected(&range)))
    }

    /// The base URL of an API, as [`base_url`](http::base_url) has it. It must be set if there is no default.
    pub fn base_url(&mut self, key: &str, default: Option<&str>) -> String {
        let text = match default {
            Some(default) => self.text(key).unwrap_or_else(|| default.to_owned()),
            None => self.required(key),
        };
        if text.is_empty() { text } else { self.checked(key, http::base_url(&text)) }
    }

    /// The timeout of a request in milliseconds, from the setting `timeout-seconds`.
    pub fn timeout_ms(&mut self, default: u32) -> u32 {
        const KEY: &str = "timeout-seconds";
        let Some(text) = self.text(KEY) else { return default };
        self.checked(KEY, http::timeout_ms(&text))
    }

    /// Notes what is wrong with a setting.
    pub fn problem(&mut self, key: &str, why: impl std::fmt::Display) {
        self.problems.push(format!("config key {key:?}: {why}"));
    }

    /// The settings.
    ///
    /// # Errors
    /// All problems, in one line.
    pub fn finish<T>(self, settings: T) -> Result<T, String> {
        if self.problems.is_empty() { Ok(settings) } else { Err(self.problems.join("; ")) }
    }
}

fn expected(range: &RangeInclusive<u32>) -> String {
    format!("expected a whole number from {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(key: &str) -> Option<String> {
        let all = [("name", " Campus "), ("empty", " "), ("count", "7"), ("many", "11"), ("timeout-seconds", "0")];
        all.iter().find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn valid_settings_are_returned() {
        let mut reader = SettingsReader::new(&get);
        assert_eq!((reader.text("name").as_deref(), reader.text("empty")), (Some("Campus"), None));
        assert_eq!((reader.number("count", 1, 1..=10), reader.number("missing", 3, 1..=10)), (7, 3));
        assert_eq!(reader.base_url("missing", Some("a.example/")), "https://a.example");
        assert_eq!(reader.finish(5), Ok(5));
    }

    #[test]
    fn all_problems_are_named() {
        let mut reader = SettingsReader::new(&get);
        assert_eq!((reader.required("empty"), reader.required_secret("key")), (String::new(), String::new()));
        assert_eq!((reader.base_url("endpoint", None), reader.number("many", 1, 1..=10)), (String::new(), 0));
        assert_eq!(reader.timeout_ms(9), 0);
        reader.problem("name", "it is taken");
        let expected = "config key \"empty\" is not set; secret \"key\" is not set; config key \"endpoint\" is not set; \
                        config key \"many\": expected a whole number from 1 to 10; \
                        config key \"timeout-seconds\": \"0\" is not a whole number of seconds from 1 to 300; \
                        config key \"name\": it is taken";
        assert_eq!(reader.finish(()), Err(expected.to_owned()));
    }
}
