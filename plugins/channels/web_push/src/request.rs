//! The request: `POST` to the endpoint of a subscription (RFC 8030, section 5).

use ace_plugin::devices::Notification;
use ace_plugin::http::Request;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Bytes of a digest that make a topic of 32 characters, the longest there is.
const TOPIC_BYTES: usize = 24;
/// Keys of the extra context that browsers know as options of a notification.
const OPTIONS: [&str; 5] = ["title", "body", "icon", "image", "tag"];

/// A notification, without its subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// What the service worker gets.
    pub text: String,
    pub ttl_seconds: u64,
    pub is_urgent: bool,
    pub topic: Option<String>,
    pub timeout_ms: u32,
}

impl Push {
    /// The request without its credential.
    pub fn request(&self, endpoint: &str, body: Vec<u8>) -> Request {
        let request = Request::post(endpoint)
            .header("ttl", self.ttl_seconds.to_string())
            .header("urgency", if self.is_urgent { "high" } else { "normal" })
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .body(body)
            .timeout_ms(self.timeout_ms);
        self.topic.iter().fold(request, |request, topic| request.header("topic", topic))
    }
}

/// What the service worker gets: the options of a notification, with all other values as its data.
pub fn text(notification: &Notification, replacement: Option<&str>) -> String {
    let Notification { title, body, extra } = notification;
    let mut shown = Map::from_iter([("title".to_owned(), json!(title)), ("body".to_owned(), json!(body))]);
    shown.extend(replacement.map(|key| ("tag".to_owned(), key.into())));
    let options = OPTIONS.into_iter().filter_map(|key| Some((key.to_owned(), extra.get(key)?.clone())));
    shown.extend(options);
    let data = notification.data().filter(|(key, _)| !OPTIONS.contains(key));
    let data: Map<String, Value> = data.map(|(key, value)| (key.to_owned(), value.clone())).collect();
    if !data.is_empty() {
        shown.insert("data".to_owned(), data.into());
    }
    Value::from(shown).to_string()
}

/// The topic for the key of a replacement, which may have any characters and length.
pub fn topic(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(key)[..TOPIC_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(extra: Value, replacement: Option<&str>) -> Value {
        let extra = extra.as_object().cloned().unwrap_or_default();
        let notification = Notification { title: "T t".to_owned(), body: "B b".to_owned(), extra };
        serde_json::from_str(&text(&notification, replacement)).expect("JSON")
    }

    #[test]
    fn the_service_worker_gets_the_options_of_a_notification() {
        assert_eq!(sent(json!({}), None), json!({"title": "T t", "body": "B b"}));
        let extra = json!({
            "title": "Other", "icon": "/icon.png", "image": "/i.png", "thread_id": "abc", "badge": 3, "priority": "high",
            "android_channel_id": "news",
        });
        let expected = json!({
            "title": "Other", "body": "B b", "icon": "/icon.png", "image": "/i.png", "tag": "k",
            "data": {"thread_id": "abc", "badge": 3},
        });
        assert_eq!(sent(extra, Some("k")), expected);
        assert_eq!(sent(json!({"tag": "own"}), Some("k"))["tag"], "own");
    }

    #[test]
    fn a_topic_has_32_characters_of_base64url() {
        for key in ["k", "thread 7", &"é".repeat(100)] {
            let topic = topic(key);
            assert_eq!(topic.len(), 32, "{key}");
            assert!(topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')), "{topic}");
        }
        assert_ne!(topic("a"), topic("b"));
    }
}
