//! The settings.

use ace_plugin::SettingsReader;

/// Twilio's own time limit of a request is 15 s.
const TIMEOUT_MS: u32 = 15_000;
/// The maximum of Twilio's `ValidityPeriod`.
const VALIDITY_SECONDS_MAX: u32 = 36_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST/2010-04-01/Accounts/SID/Messages.json`.
    pub url: String,
    pub sender: Sender,
    /// Where Twilio reports the status of a message.
    pub status_callback: Option<String>,
    pub validity_seconds: u32,
    /// A longer text is not sent.
    pub segments_max: usize,
    pub timeout_ms: u32,
}

/// Who the message is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A number, a short code or an alphanumeric sender.
    From(String),
    MessagingService(String),
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let account = reader.text("account-sid").unwrap_or_default();
    if !is_sid(&account, "AC") {
        let why = format!("{account:?} is not an account SID, which is AC and 32 hexadecimal digits");
        reader.problem("account-sid", why);
    }
    let base = reader.base_url("base-url", Some("api.twilio.com"));
    let sender = sender(&mut reader);
    let status_callback = reader.text("status-callback");
    if let Some(url) = &status_callback
        && !is_callback(url)
    {
        let why = format!("{url:?} is not a public https URL whose host has no underscore");
        reader.problem("status-callback", why);
    }
    let settings = Settings {
        url: format!("{base}/2010-04-01/Accounts/{account}/Messages.json"),
        sender,
        status_callback,
        validity_seconds: reader.number("validity-seconds", VALIDITY_SECONDS_MAX, 1..=VALIDITY_SECONDS_MAX),
        segments_max: reader.number("max-segments", 10, 1..=10) as usize,
        timeout_ms: reader.timeout_ms(TIMEOUT_MS),
    };
    reader.finish(settings)
}

fn sender(reader: &mut SettingsReader<'_>) -> Sender {
    match (reader.text("from"), reader.text("messaging-service-sid")) {
        (Some(from), None) => Sender::From(from),
        (None, Some(service)) => {
            if !is_sid(&service, "MG") {
                let why = format!("{service:?} is not a messaging service, which is MG and 32 hexadecimal digits");
                reader.problem("messaging-service-sid", why);
            }
            Sender::MessagingService(service)
        }
        _ => {
            reader.problem("from", "set either this or \"messaging-service-sid\"");
            Sender::From(String::new())
        }
    }
}

fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Twilio does not call hosts with an underscore.
fn is_callback(url: &str) -> bool {
    let host = url.strip_prefix("https://").unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    !host.is_empty() && !host.contains('_') && url.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const SERVICE: &str = "MG0123456789abcdef0123456789abcdef";

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let defaults = [("account-sid", ACCOUNT)];
        read(|key| pairs.iter().chain(&defaults).find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn defaults_are_those_of_twilio() {
        let settings = given(&[("from", "+15550100")]).expect("valid");
        assert_eq!(settings.url, format!("https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages.json"));
        assert_eq!(settings.sender, Sender::From("+15550100".to_owned()));
        assert_eq!((settings.validity_seconds, settings.segments_max, settings.timeout_ms), (36_000, 10, 15_000));
        let settings =
            given(&[("messaging-service-sid", SERVICE), ("base-url", "api.dublin.ie1.twilio.com")]).expect("valid");
        assert_eq!(settings.sender, Sender::MessagingService(SERVICE.to_owned()));
        assert!(settings.url.starts_with("https://api.dublin.ie1.twilio.com/2010-04-01/"), "{}", settings.url);
    }

    #[test]
    fn every_wrong_setting_is_named() {
        for (wrong, words) in [
            (vec![("account-sid", "12"), ("from", "x")], "\"account-sid\": \"12\" is not an account SID"),
            (vec![], "\"from\": set either this or"),
            (vec![("from", "x"), ("messaging-service-sid", SERVICE)], "\"from\": set either this or"),
            (vec![("messaging-service-sid", "MG1")], "\"messaging-service-sid\": \"MG1\" is not"),
            (vec![("from", "x"), ("status-callback", "http://a.example/")], "\"status-callback\": "),
            (vec![("from", "x"), ("status-callback", "https://a_b.example/")], "has no underscore"),
            (vec![("from", "x"), ("validity-seconds", "36001")], "\"validity-seconds\": expected a whole number"),
            (vec![("from", "x"), ("max-segments", "0")], "\"max-segments\": expected"),
            (vec![("from", "x"), ("timeout-seconds", "0")], "\"timeout-seconds\": "),
            (vec![("from", "x"), ("base-url", "http://a.example")], "\"base-url\": "),
        ] {
            let error = given(&wrong).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
