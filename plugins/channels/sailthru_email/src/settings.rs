//! The settings.

use ace_plugin::SettingsReader;

const ENDPOINT: &str = "https://api.sailthru.com";
/// The timeout of Sailthru's client.
const TIMEOUT_MS: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ENDPOINT/send`.
    pub url: String,
    pub template_name: String,
    pub api_key: String,
    pub api_secret: String,
    /// Logs instead of sending. Key and secret are then optional.
    pub is_debug: bool,
    pub timeout_ms: u32,
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let is_debug = reader
        .text("debug")
        .map_or(Ok(false), |text| text.parse().map_err(|_| format!("{text:?} is neither true nor false")));
    let is_debug = reader.checked("debug", is_debug);
    let template_name = reader.required("template-name");
    let mut secret = |key| if is_debug { reader.text(key).unwrap_or_default() } else { reader.required_secret(key) };
    let (api_key, api_secret) = (secret("api-key"), secret("api-secret"));
    let settings = Settings {
        url: reader.base_url("endpoint", Some(ENDPOINT)) + "/send",
        template_name,
        api_key,
        api_secret,
        is_debug,
        timeout_ms: reader.timeout_ms(TIMEOUT_MS),
    };
    reader.finish(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        read(|key| pairs.iter().find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned()))
    }

    const REQUIRED: [(&str, &str); 3] = [("template-name", "t"), ("api-key", "k"), ("api-secret", "s")];

    fn with(key: &str, value: &str) -> Result<Settings, String> {
        given(&[&[(key, value)], &REQUIRED[..]].concat())
    }

    #[test]
    fn all_missing_settings_are_named() {
        let error = given(&[("api-key", " ")]).expect_err("nothing is set");
        let expected =
            "config key \"template-name\" is not set; secret \"api-key\" is not set; secret \"api-secret\" is not set";
        assert_eq!(error, expected);
    }

    #[test]
    fn the_debug_mode_needs_no_secrets() {
        assert!(given(&[("template-name", "t"), ("debug", "true")]).expect("valid").is_debug);
        assert!(given(&[("template-name", "t"), ("debug", "false")]).is_err());
        assert!(!with("debug", "false").expect("valid").is_debug);
        assert!(with("debug", "yes").expect_err("no boolean").contains("\"debug\""));
    }

    #[test]
    fn the_default_endpoint_is_that_of_sailthru() {
        assert_eq!(given(&REQUIRED).expect("valid").url, "https://api.sailthru.com/send");
        assert_eq!(
            with("endpoint", "https://localhost:8443/api/").expect("valid").url,
            "https://localhost:8443/api/send"
        );
        let bad = "http://api.sailthru.com";
        assert!(with("endpoint", bad).expect_err(bad).starts_with("config key \"endpoint\": "));
    }

    #[test]
    fn the_default_timeout_is_that_of_the_client() {
        assert_eq!(given(&REQUIRED).expect("valid").timeout_ms, 10_000);
        assert_eq!(with("timeout-seconds", "3").expect("valid").timeout_ms, 3_000);
        assert!(with("timeout-seconds", "0").expect_err("no time at all").contains("timeout-seconds"));
    }
}
