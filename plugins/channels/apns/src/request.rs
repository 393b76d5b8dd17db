//! The request: `POST /3/device/{token}`
//! (<https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns>).

use ace_plugin::Error;
use ace_plugin::devices::Notification;
use ace_plugin::http::Request;
use serde_json::{Map, Value, json};

use crate::settings::{PushType, Settings};

/// APNs takes no longer payload.
const PAYLOAD_BYTES_MAX: usize = 4096;
/// The longest device token. Apple names no limit; tokens have 64 digits today.
const TOKEN_DIGITS_MAX: usize = 400;

/// Keys of the extra context that belong to the alert, with the names that APNs has for them.
const ALERT_KEYS: [(&str, &str); 6] = [
    ("title", "title"),
    ("body", "body"),
    ("title_loc_key", "title-loc-key"),
    ("title_loc_args", "title-loc-args"),
    ("body_loc_key", "loc-key"),
    ("body_loc_args", "loc-args"),
];
/// Those that belong to the notification.
const APS_KEYS: [(&str, &str); 3] = [("badge", "badge"), ("sound", "sound"), ("click_action", "category")];
/// Those that ask for a feature.
const APS_FLAGS: [(&str, &str); 2] =
    [("content_available", "content-available"), ("mutable_content", "mutable-content")];

/// A notification, without its device.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    pub payload: String,
    pub collapse_id: Option<String>,
    /// Until when APNs may store it, in seconds since the Unix epoch; 0 if it may not.
    pub expiration: u64,
    pub is_urgent: bool,
}

impl Push {
    /// The request without its credential.
    pub fn request(&self, settings: &Settings, token: &str, id: &str) -> Request {
        // APNs accepts only 5 for what is not shown.
        let is_at_once = self.is_urgent && settings.push_type == PushType::Alert;
        let request = Request::post(format!("{}{token}", settings.url))
            .header("apns-id", id)
            .header("apns-topic", &settings.topic)
            .header("apns-expiration", self.expiration.to_string())
            .header("apns-priority", if is_at_once { "10" } else { "5" })
            .header("apns-push-type", settings.push_type.as_str())
            .header("content-type", "application/json")
            .body(self.payload.as_str())
            .timeout_ms(settings.timeout_ms);
        self.collapse_id.iter().fold(request, |request, id| request.header("apns-collapse-id", id))
    }
}

/// The payload: `aps`, and the data for the app.
///
/// # Errors
/// If it is too long.
pub fn payload(push_type: PushType, notification: &Notification) -> Result<String, Error> {
    let Notification { title, body, .. } = notification;
    let mut alert = Map::from_iter([("title".to_owned(), json!(title)), ("body".to_owned(), json!(body))]);
    let mut aps = Map::from_iter([("sound".to_owned(), json!("default"))]);
    let mut payload = Map::new();
    let named = |names: &[(&str, &str)], key: &str| {
        names.iter().find(|(known, _)| *known == key).map(|(_, name)| (*name).to_owned())
    };
    for (key, value) in notification.data() {
        if let Some(name) = named(&ALERT_KEYS, key) {
            alert.insert(name, value.clone());
        } else if let Some(name) = named(&APS_KEYS, key) {
            aps.insert(name, value.clone());
        } else if let Some(name) = named(&APS_FLAGS, key) {
            if *value != Value::Bool(false) {
                aps.insert(name, 1.into());
            }
        } else {
            payload.insert(key.to_owned(), value.clone());
        }
    }
    let aps = match push_type {
        PushType::Alert => {
            aps.insert("alert".to_owned(), alert.into());
            aps
        }
        PushType::Background => Map::from_iter([("content-available".to_owned(), json!(1))]),
    };
    payload.insert("aps".to_owned(), aps.into());
    let payload = Value::from(payload).to_string();
    if payload.len() > PAYLOAD_BYTES_MAX {
        let why = format_args!("it has {} bytes, and APNs takes at most {PAYLOAD_BYTES_MAX}", payload.len());
        return Err(Error::new("the notification", why));
    }
    Ok(payload)
}

/// Whether it can be a device token, and is safe in a path.
pub fn is_token(token: &str) -> bool {
    (1..=TOKEN_DIGITS_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A UUID (version 4) of random bytes.
pub fn uuid(random: &[u8]) -> String {
    let bytes = std::array::from_fn(|n| random.get(n).copied().unwrap_or_default());
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(extra: Value) -> Notification {
        let extra = extra.as_object().cloned().unwrap_or_default();
        Notification { title: "T t".to_owned(), body: "B b".to_owned(), extra }
    }

    fn sent(push_type: PushType, extra: Value) -> Value {
        serde_json::from_str(&payload(push_type, &notification(extra)).expect("short")).expect("JSON")
    }

    #[test]
    fn the_extra_context_is_data_unless_apns_has_a_name_for_it() {
        let alert = json!({"title": "T t", "body": "B b"});
        assert_eq!(sent(PushType::Alert, json!({})), json!({"aps": {"alert": alert, "sound": "default"}}));
        let extra = json!({
            "title": "Other", "badge": 3, "sound": "ping.caf", "click_action": "REPLY", "mutable_content": true,
            "content_available": false, "body_loc_key": "REPLIED", "body_loc_args": ["Zoë"], "thread_id": "abc", "n": 7,
            "tag": "t", "priority": "high", "color": "#123456", "aps": {"badge": 9},
        });
        let alert = json!({"title": "Other", "body": "B b", "loc-key": "REPLIED", "loc-args": ["Zoë"]});
        let aps = json!({"alert": alert, "sound": "ping.caf", "badge": 3, "category": "REPLY", "mutable-content": 1});
        assert_eq!(sent(PushType::Alert, extra), json!({"aps": aps, "thread_id": "abc", "n": 7}));
    }

    #[test]
    fn what_is_not_shown_has_only_data() {
        let expected = json!({"aps": {"content-available": 1}, "n": 7});
        assert_eq!(sent(PushType::Background, json!({"n": 7, "badge": 1})), expected);
    }

    #[test]
    fn a_payload_that_is_too_long_is_not_sent() {
        let bare = payload(PushType::Alert, &notification(json!({"n": ""}))).expect("short").len();
        let fits = "x".repeat(PAYLOAD_BYTES_MAX - bare);
        assert_eq!(payload(PushType::Alert, &notification(json!({"n": fits}))).expect("it fits").len(), 4096);
        let error = payload(PushType::Alert, &notification(json!({"n": fits + "x"}))).expect_err("too long");
        assert_eq!(error.to_string(), "the notification: it has 4097 bytes, and APNs takes at most 4096");
    }

    #[test]
    fn a_token_is_hexadecimal() {
        assert!(is_token("00ffAA"));
        for token in ["", "../x", "00 ff", "zz", &"0".repeat(401)] {
            assert!(!is_token(token), "{token}");
        }
    }

    #[test]
    fn an_id_is_a_random_uuid() {
        assert_eq!(uuid(&[0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(&[0; 16]), "00000000-0000-4000-8000-000000000000");
    }
}
