//! The settings.

use ace_plugin::http;

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
    let text = |key: &str| get(key).filter(|value| !value.trim().is_empty());
    let is_debug = match get("debug").as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("config key \"debug\": {other:?} is neither true nor false")),
    };
    let may_lack_secrets = matches!(is_debug, Ok(true));
    let base = http::base_url(text("endpoint").as_deref().unwrap_or(ENDPOINT));
    let url = base.map(|base| format!("{base}/send")).map_err(|why| format!("config key \"endpoint\": {why}"));
    let timeout_ms = get("timeout-seconds").map_or(Ok(TIMEOUT_MS), |text| http::timeout_ms(&text));
    let timeout_ms = timeout_ms.map_err(|why| format!("config key \"timeout-seconds\": {why}"));

    let mut problems = Vec::new();
    for (kind, key, is_needed) in [
        ("config key", "template-name", true),
        ("secret", "api-key", !may_lack_secrets),
        ("secret", "api-secret", !may_lack_secrets),
    ] {
        if is_needed && text(key).is_none() {
            problems.push(format!("{kind} {key:?} is not set"));
        }
    }
    problems.extend(is_debug.as_ref().err().cloned());
    problems.extend(url.as_ref().err().cloned());
    problems.extend(timeout_ms.as_ref().err().cloned());
    match (is_debug, url, timeout_ms) {
        (Ok(is_debug), Ok(url), Ok(timeout_ms)) if problems.is_empty() => Ok(Settings {
            url,
            template_name: text("template-name").unwrap_or_default(),
            api_key: text("api-key").unwrap_or_default(),
            api_secret: text("api-secret").unwrap_or_default(),
            is_debug,
            timeout_ms,
        }),
        _ => Err(problems.join("; ")),
    }
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
