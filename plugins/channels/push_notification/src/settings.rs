//! The settings.

use ace_plugin::SettingsReader;

const TIMEOUT_MS: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST/v1/projects/PROJECT/messages:send`.
    pub url: String,
    pub timeout_ms: u32,
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let project = reader.text("project-id").unwrap_or_default();
    let is_project = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if project.is_empty() || !project.chars().all(is_project) {
        let why = format!("{project:?} is not the id of a Firebase project, as in \"my-campus-1a2b3\"");
        reader.problem("project-id", why);
    }
    let base = reader.base_url("base-url", Some("fcm.googleapis.com"));
    let timeout_ms = reader.timeout_ms(TIMEOUT_MS);
    reader.finish(Settings { url: format!("{base}/v1/projects/{project}/messages:send"), timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        read(|key| pairs.iter().find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_project_is_all_that_it_needs() {
        let settings = given(&[("project-id", "my-campus-1a2b3")]).expect("valid");
        assert_eq!(settings.url, "https://fcm.googleapis.com/v1/projects/my-campus-1a2b3/messages:send");
        assert_eq!(settings.timeout_ms, 10_000);
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let error = given(&[("base-url", "http://x"), ("timeout-seconds", "x")]).expect_err("all are wrong");
        for key in ["project-id", "base-url", "timeout-seconds"] {
            assert!(error.contains(&format!("config key {key:?}: ")), "{error}");
        }
        assert!(given(&[("project-id", "a/b")]).is_err());
    }
}
