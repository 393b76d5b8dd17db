//! The subscription of a browser, as `JSON.stringify(subscription)` writes it.

use ace_plugin::devices::Refusal;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use p256::PublicKey;
use serde::Deserialize;

use crate::encryption::Keys;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where its push service takes messages.
    pub endpoint: String,
    pub keys: Keys,
}

#[derive(Deserialize)]
struct Written {
    endpoint: String,
    keys: WrittenKeys,
}

#[derive(Deserialize)]
struct WrittenKeys {
    p256dh: String,
    auth: String,
}

/// # Errors
/// If it is not a subscription. Nothing can ever be sent to such a contact.
pub fn read(contact: &str) -> Result<Subscription, Refusal> {
    let wrong = |why: &str| Refusal::new("MALFORMED", format!("the contact is not a subscription: {why}"));
    let written: Written = serde_json::from_str(contact)
        .map_err(|_| wrong("expected {\"endpoint\": \"…\", \"keys\": {\"p256dh\": \"…\", \"auth\": \"…\"}}"))?;
    if !written.endpoint.starts_with("https://") {
        return Err(wrong("the endpoint is not an https URL"));
    }
    let public = decoded(&written.keys.p256dh).and_then(|bytes| PublicKey::from_sec1_bytes(&bytes).ok());
    let public = public.ok_or_else(|| wrong("p256dh is not a point of the curve P-256 in base64url"))?;
    let secret = decoded(&written.keys.auth).and_then(|bytes| bytes.try_into().ok());
    let secret = secret.ok_or_else(|| wrong("auth is not 16 bytes in base64url"))?;
    Ok(Subscription { endpoint: written.endpoint, keys: Keys { public, secret } })
}

/// Some libraries write the other alphabet, or padding.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

    fn given(endpoint: &str, p256dh: &str, auth: &str) -> Result<Subscription, Refusal> {
        let json =
            json!({"endpoint": endpoint, "expirationTime": Value::Null, "keys": {"p256dh": p256dh, "auth": auth}});
        read(&json.to_string())
    }

    #[test]
    fn a_subscription_is_that_of_the_browser() {
        let subscription = given("https://push.example/1", P256DH, "BTBZMqHH6r4Tts7J_aSIgg").expect("valid");
        assert_eq!((subscription.endpoint.as_str(), subscription.keys.secret[0]), ("https://push.example/1", 5));
        let other = P256DH.replace('-', "+").replace('_', "/") + "=";
        assert_eq!(given("https://push.example/1", &other, "BTBZMqHH6r4Tts7J/aSIgg=="), Ok(subscription));
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (subscription, words) in [
            (read("d1"), "expected {"),
            (read("{\"endpoint\": \"https://push.example/1\"}"), "expected {"),
            (given("http://push.example/1", P256DH, "BTBZMqHH6r4Tts7J_aSIgg"), "https URL"),
            (given("https://push.example/1", &P256DH[..80], "BTBZMqHH6r4Tts7J_aSIgg"), "p256dh"),
            (given("https://push.example/1", "!", "BTBZMqHH6r4Tts7J_aSIgg"), "p256dh"),
            (given("https://push.example/1", P256DH, "BTBZ"), "auth"),
        ] {
            let refusal = subscription.expect_err(words);
            assert!(refusal.code == "MALFORMED" && refusal.reason.contains(words), "{refusal:?}");
        }
    }
}
