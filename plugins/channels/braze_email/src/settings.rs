//! The settings.

use std::collections::BTreeMap;

use ace_plugin::{SettingsReader, email};

/// edx-ace's ACE_DEFAULT_API_TIMEOUT.
const TIMEOUT_MS: u32 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `https://HOST/messages/send`.
    pub url: String,
    pub app_id: String,
    pub api_key: String,
    /// By message name.
    pub campaigns: BTreeMap<String, Campaign>,
    /// The sender of every message.
    pub from: Option<String>,
    /// The sender of a message that names none.
    pub default_from: Option<String>,
    pub timeout_ms: u32,
}

/// The campaign, and its variation, to which Braze assigns a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    pub id: String,
    pub variation: Option<String>,
}

/// Parses the settings. The error names all invalid keys.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    let mut reader = SettingsReader::new(&get);
    let base = reader.base_url("rest-endpoint", None);
    let settings = Settings {
        url: format!("{base}/messages/send"),
        app_id: reader.required("app-id"),
        api_key: reader.required_secret("api-key"),
        campaigns: reader.checked("campaigns", get("campaigns").map_or(Ok(BTreeMap::new()), |json| campaigns(&json))),
        from: mailbox(&mut reader, "from-email"),
        default_from: mailbox(&mut reader, "default-from-email"),
        timeout_ms: reader.timeout_ms(TIMEOUT_MS),
    };
    reader.finish(settings)
}

fn mailbox(reader: &mut SettingsReader<'_>, key: &str) -> Option<String> {
    let text = reader.text(key)?;
    if let Err(why) = email::address(&text) {
        reader.problem(key, why);
    }
    Some(text)
}

fn campaigns(json: &str) -> Result<BTreeMap<String, Campaign>, String> {
    let given: BTreeMap<String, String> = serde_json::from_str(json)
        .map_err(|e| format!("expected a table from message names to \"campaign\" or \"campaign:variation\": {e}"))?;
    let mut campaigns = BTreeMap::new();
    // An empty one is ignored, as in edx-ace.
    for (name, text) in given.into_iter().filter(|(_, text)| !text.trim().is_empty()) {
        let campaign = campaign(&text).map_err(|why| format!("{name}: {why}"))?;
        campaigns.insert(name, campaign);
    }
    Ok(campaigns)
}

fn campaign(text: &str) -> Result<Campaign, String> {
    let (id, variation) = match text.split_once(':') {
        Some((id, variation)) => (id, Some(variation)),
        None => (text, None),
    };
    let is_id = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && c != ':');
    if !is_id(id) || !variation.is_none_or(is_id) {
        return Err(format!("{text:?} is neither \"campaign\" nor \"campaign:variation\""));
    }
    Ok(Campaign { id: id.to_owned(), variation: variation.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let required = [("rest-endpoint", "rest.iad-01.braze.com"), ("app-id", "app"), ("api-key", "key")];
        let find = |key: &str| pairs.iter().chain(&required).find(|(of, _)| *of == key).map(|(_, v)| (*v).to_owned());
        read(find)
    }

    #[test]
    fn all_missing_settings_are_named() {
        let error = read(|key| (key == "app-id").then(|| " ".to_owned())).expect_err("nothing is set");
        let expected =
            "config key \"rest-endpoint\" is not set; config key \"app-id\" is not set; secret \"api-key\" is not set";
        assert_eq!(error, expected);
    }

    #[test]
    fn the_endpoint_is_a_host_or_a_url() {
        for endpoint in ["rest.fra-02.braze.eu", "https://rest.fra-02.braze.eu", " https://rest.fra-02.braze.eu/ "] {
            let settings = given(&[("rest-endpoint", endpoint)]).expect("valid");
            assert_eq!(settings.url, "https://rest.fra-02.braze.eu/messages/send", "{endpoint}");
        }
        let settings = given(&[("rest-endpoint", "https://localhost:8443/braze")]).expect("valid");
        assert_eq!(settings.url, "https://localhost:8443/braze/messages/send");
        let bad = "http://rest.fra-02.braze.eu";
        assert!(given(&[("rest-endpoint", bad)]).expect_err(bad).starts_with("config key \"rest-endpoint\": "));
    }

    #[test]
    fn campaigns_are_by_message_name_with_or_without_a_variation() {
        let settings = given(&[("campaigns", r#"{"a":"c1:v2","b":"c3"}"#)]).expect("valid");
        let campaign =
            |id: &str, variation: Option<&str>| Campaign { id: id.to_owned(), variation: variation.map(str::to_owned) };
        assert_eq!(settings.campaigns["a"], campaign("c1", Some("v2")));
        assert_eq!(settings.campaigns["b"], campaign("c3", None));
        let settings = given(&[("campaigns", r#"{"a":"","b":" ","c":"c1"}"#)]).expect("valid");
        assert_eq!(settings.campaigns.keys().collect::<Vec<_>>(), ["c"], "an empty campaign is ignored");
        for bad in [r#"{"a":"c:"}"#, r#"{"a":":v"}"#, r#"{"a":"c:v:w"}"#, r#"{"a":7}"#, "c:v", "[]"] {
            assert!(given(&[("campaigns", bad)]).expect_err(bad).starts_with("config key \"campaigns\": "), "{bad}");
        }
    }

    #[test]
    fn the_default_timeout_is_that_of_edx_ace() {
        assert_eq!(given(&[]).expect("valid").timeout_ms, 5_000);
        assert_eq!(given(&[("timeout-seconds", "20")]).expect("valid").timeout_ms, 20_000);
        assert!(
            given(&[("timeout-seconds", "0")])
                .expect_err("none at all")
                .starts_with("config key \"timeout-seconds\": ")
        );
    }

    #[test]
    fn senders_must_be_addresses() {
        for key in ["from-email", "default-from-email"] {
            assert!(given(&[(key, "nobody")]).expect_err("no address").starts_with(&format!("config key {key:?}: ")));
            assert!(given(&[(key, "Campus <a@b.c>")]).is_ok());
        }
    }
}
