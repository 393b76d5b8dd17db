//! The settings.

use std::collections::BTreeMap;

use ace_plugin::{email, http};

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
    let text = |key: &str| get(key).filter(|value| !value.trim().is_empty());
    let mut problems = Vec::new();
    let mut required = |kind: &str, key: &str| {
        text(key).unwrap_or_else(|| {
            problems.push(format!("{kind} {key:?} is not set"));
            String::new()
        })
    };
    let endpoint = required("config key", "rest-endpoint");
    let app_id = required("config key", "app-id");
    let api_key = required("secret", "api-key");

    let mut check = |key: &str, problem: Option<String>| {
        problems.extend(problem.map(|why| format!("config key {key:?}: {why}")));
    };
    let url = http::base_url(&endpoint).map(|base| format!("{base}/messages/send"));
    check("rest-endpoint", url.as_ref().err().filter(|_| !endpoint.is_empty()).cloned());
    let campaigns = get("campaigns").map_or(Ok(BTreeMap::new()), |json| campaigns(&json));
    check("campaigns", campaigns.as_ref().err().cloned());
    let timeout_ms = get("timeout-seconds").map_or(Ok(TIMEOUT_MS), |text| http::timeout_ms(&text));
    check("timeout-seconds", timeout_ms.as_ref().err().cloned());
    let (from, default_from) = (text("from-email"), text("default-from-email"));
    for (key, value) in [("from-email", &from), ("default-from-email", &default_from)] {
        check(key, value.as_deref().and_then(|mailbox| email::address(mailbox).err()));
    }

    match (url, campaigns, timeout_ms) {
        (Ok(url), Ok(campaigns), Ok(timeout_ms)) if problems.is_empty() => {
            Ok(Settings { url, app_id, api_key, campaigns, from, default_from, timeout_ms })
        }
        _ => Err(problems.join("; ")),
    }
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
