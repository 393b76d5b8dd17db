//! The settings.

use ace_plugin::SettingsReader;

const TIMEOUT_MS: u32 = 10_000;
/// Four weeks: push services keep no message longer.
const TTL_SECONDS: u32 = 2_419_200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long push services may keep a message.
    pub ttl_seconds: u32,
    pub timeout_ms: u32,
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let ttl_seconds = reader.number("time-to-live-seconds", TTL_SECONDS, 0..=TTL_SECONDS);
    let timeout_ms = reader.timeout_ms(TIMEOUT_MS);
    reader.finish(Settings { ttl_seconds, timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_setting_is_named() {
        assert_eq!(read(|_| None), Ok(Settings { ttl_seconds: 2_419_200, timeout_ms: 10_000 }));
        let error = read(|_| Some("x".to_owned())).expect_err("all are wrong");
        for key in ["time-to-live-seconds", "timeout-seconds"] {
            assert!(error.contains(&format!("config key {key:?}: ")), "{error}");
        }
    }
}
