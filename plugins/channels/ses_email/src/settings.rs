//! The settings.

use ace_address::mailbox::Mailbox;
use ace_plugin::SettingsReader;

const TIMEOUT_MS: u32 = 15_000;
/// The longest name of a tenant.
const TENANT_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST/v2/email/outbound-emails`.
    pub url: String,
    /// The sender of a message that names none.
    pub default_from: String,
    pub configuration_set: Option<String>,
    pub tenant: Option<String>,
    pub timeout_ms: u32,
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let base = base(&mut reader);
    let default_from = reader.required("default-from-email");
    if !default_from.is_empty()
        && let Err(why) = Mailbox::parse(&default_from)
    {
        reader.problem("default-from-email", why);
    }
    let tenant = reader.text("tenant");
    if tenant.as_deref().is_some_and(|name| name.len() > TENANT_BYTES_MAX || !is_name(name)) {
        reader.problem("tenant", "expected up to 64 letters, digits, \"-\" and \"_\"");
    }
    let configuration_set = reader.text("configuration-set");
    if configuration_set.as_deref().is_some_and(|name| !is_name(name)) {
        reader.problem("configuration-set", "expected letters, digits, \"-\" and \"_\"");
    }
    let settings = Settings {
        url: format!("{base}/v2/email/outbound-emails"),
        default_from,
        configuration_set,
        tenant,
        timeout_ms: reader.timeout_ms(TIMEOUT_MS),
    };
    reader.finish(settings)
}

fn base(reader: &mut SettingsReader<'_>) -> String {
    match (reader.text("region"), reader.text("base-url")) {
        (Some(region), None) => {
            if !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                reader.problem("region", format_args!("{region:?} is not a region, as in \"eu-central-1\""));
            }
            format!("https://email.{region}.amazonaws.com")
        }
        (None, Some(_)) => reader.base_url("base-url", None),
        _ => {
            reader.problem("region", "set either this or \"base-url\"");
            String::new()
        }
    }
}

/// Whether SES accepts it as the name or value of a tag, apart from its length, and as other names.
pub fn is_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        read(|key| pairs.iter().find(|(of, _)| *of == key).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_region_and_a_sender_are_all_that_it_needs() {
        let settings = given(&[("region", "eu-central-1"), ("default-from-email", "Campus <a@b.example>")]);
        let settings = settings.expect("valid");
        assert_eq!(settings.url, "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails");
        assert_eq!((settings.configuration_set, settings.tenant, settings.timeout_ms), (None, None, 15_000));
        let base = [("base-url", "email.cn-north-1.amazonaws.com.cn"), ("default-from-email", "a@b.example")];
        let url = given(&base).expect("valid").url;
        assert_eq!(url, "https://email.cn-north-1.amazonaws.com.cn/v2/email/outbound-emails");
    }

    #[test]
    fn every_wrong_setting_is_named() {
        assert_eq!(
            given(&[]).expect_err("none is set"),
            "config key \"region\": set either this or \"base-url\"; config key \"default-from-email\" is not set"
        );
        let wrong = [
            ("region", "Frankfurt"),
            ("default-from-email", "nobody"),
            ("tenant", "a.b"),
            ("configuration-set", "a b"),
            ("timeout-seconds", "x"),
        ];
        let error = given(&wrong).expect_err("all are wrong");
        for (key, _) in wrong {
            assert!(error.contains(&format!("config key {key:?}: ")), "{key}: {error}");
        }
        let both = [("region", "eu-central-1"), ("base-url", "b.example"), ("default-from-email", "a@b.example")];
        assert!(given(&both).is_err());
    }
}
