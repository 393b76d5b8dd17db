//! The settings.

use ace_plugin::SettingsReader;

const TIMEOUT_MS: u32 = 10_000;
/// Four weeks, as FCM has it.
const TTL_SECONDS: u32 = 2_419_200;
/// APNs stores a notification for 30 days.
const TTL_SECONDS_MAX: u32 = 2_592_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST/3/device/`.
    pub url: String,
    /// The bundle id of the app.
    pub topic: String,
    pub push_type: PushType,
    /// How long APNs may store a notification.
    pub ttl_seconds: u32,
    pub timeout_ms: u32,
}

/// What a notification is to the device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PushType {
    /// It is shown.
    #[default]
    Alert,
    /// The app gets its data, and nothing is shown.
    Background,
}

impl PushType {
    pub fn as_str(self) -> &'static str {
        match self {
            PushType::Alert => "alert",
            PushType::Background => "background",
        }
    }
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let topic = reader.text("topic").unwrap_or_default();
    if !topic.contains('.') || !topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) {
        reader.problem("topic", format!("{topic:?} is not the bundle id of an app, as in \"org.example.campus\""));
    }
    let push_type = match reader.text("push-type").as_deref() {
        None | Some("alert") => PushType::Alert,
        Some("background") => PushType::Background,
        Some(other) => {
            reader.problem("push-type", format!("{other:?} is neither \"alert\" nor \"background\""));
            PushType::Alert
        }
    };
    let base = reader.base_url("base-url", Some("api.push.apple.com"));
    let ttl_seconds = reader.number("time-to-live-seconds", TTL_SECONDS, 0..=TTL_SECONDS_MAX);
    let timeout_ms = reader.timeout_ms(TIMEOUT_MS);
    reader.finish(Settings { url: format!("{base}/3/device/"), topic, push_type, ttl_seconds, timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        read(|key| pairs.iter().find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_topic_is_all_that_it_needs() {
        let settings = given(&[("topic", "org.example.Campus-1")]).expect("valid");
        assert_eq!(settings.url, "https://api.push.apple.com/3/device/");
        assert_eq!(
            (settings.push_type.as_str(), settings.ttl_seconds, settings.timeout_ms),
            ("alert", 2_419_200, 10_000)
        );
        let settings = given(&[
            ("topic", "org.example"),
            ("base-url", "api.sandbox.push.apple.com"),
            ("push-type", "background"),
            ("time-to-live-seconds", "0"),
        ]);
        let settings = settings.expect("valid");
        assert_eq!(settings.url, "https://api.sandbox.push.apple.com/3/device/");
        assert_eq!((settings.push_type, settings.ttl_seconds), (PushType::Background, 0));
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let wrong = [
            ("base-url", "http://x"),
            ("push-type", "voip"),
            ("time-to-live-seconds", "2592001"),
            ("timeout-seconds", "x"),
        ];
        let error = given(&wrong).expect_err("all are wrong");
        for key in ["topic", "base-url", "push-type", "time-to-live-seconds", "timeout-seconds"] {
            assert!(error.contains(&format!("config key {key:?}: ")), "{error}");
        }
        for topic in ["campus", "org.example/campus", "org.example campus"] {
            assert!(given(&[("topic", topic)]).is_err(), "{topic}");
        }
    }
}
