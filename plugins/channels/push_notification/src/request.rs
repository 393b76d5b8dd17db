//! The request: `POST /v1/projects/{project}/messages:send`
//! (<https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send>), with the fields that edx-ace sends.

use ace_plugin::Timestamp;
use ace_plugin::devices;
use ace_plugin::http::Request;
use serde_json::{Map, Value, json};

use crate::settings::Settings;

/// Keys of the extra context that edx-ace's library moves to the notification of Android, with FCM's names for them.
const NOTIFICATION_KEYS: [(&str, &str); 14] = [
    ("title", "title"),
    ("body", "body"),
    ("icon", "icon"),
    ("image", "image"),
    ("sound", "sound"),
    ("badge", "notification_count"),
    ("color", "color"),
    ("tag", "tag"),
    ("click_action", "click_action"),
    ("body_loc_key", "body_loc_key"),
    ("body_loc_args", "body_loc_args"),
    ("title_loc_key", "title_loc_key"),
    ("title_loc_args", "title_loc_args"),
    ("android_channel_id", "channel_id"),
];
/// Those that it moves to the settings of Android.
const ANDROID_KEYS: [&str; 3] = ["collapse_key", "priority", "restricted_package_name"];
/// Those that it uses up.
const CONSUMED_KEYS: [&str; 6] = ["message", "to", "condition", "notification_key", "dry_run", "time_to_live"];

/// Where a notification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A registration token.
    Token(&'a str),
    /// A Firebase installation id, which replaces the token.
    Fid(&'a str),
}

/// A notification, without its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification(Map<String, Value>);

impl Notification {
    /// `extra` is the message's `push_notification_extra_context`, which may override title and body.
    pub fn new(title: &str, body: &str, extra: Map<String, Value>) -> Self {
        let mut notification = Map::from_iter([("body".to_owned(), body.into()), ("title".to_owned(), title.into())]);
        let (mut android, mut data) = (Map::new(), Map::new());
        android.extend(devices::time_to_live(&extra).map(|seconds| ("ttl".to_owned(), format!("{seconds}s").into())));
        for (key, value) in extra {
            if let Some((_, name)) = NOTIFICATION_KEYS.iter().find(|(known, _)| *known == key) {
                notification.insert((*name).to_owned(), value);
            } else if ANDROID_KEYS.contains(&key.as_str()) {
                android.insert(key, value);
            } else if !CONSUMED_KEYS.contains(&key.as_str()) {
                // FCM takes only strings.
                data.insert(key, text(&value).into());
            }
        }
        let alert = json!({"title": notification["title"], "body": notification["body"]});
        if !data.is_empty() {
            android.insert("data".to_owned(), data.clone().into());
        }
        android.insert("notification".to_owned(), notification.into());
        let mut message = Map::from_iter([
            ("android".to_owned(), android.into()),
            (
                "apns".to_owned(),
                json!({
                    "headers": {"apns-priority": "5", "apns-push-type": "alert"},
                    "payload": {"aps": {"alert": alert, "sound": "default"}},
                }),
            ),
        ]);
        if !data.is_empty() {
            message.insert("data".to_owned(), data.into());
        }
        Notification(message)
    }

    /// Replaces an earlier notification with the same key, on Android and on Apple's devices.
    pub fn replacing(mut self, key: &str) -> Self {
        let message = &mut self.0;
        message["android"]["notification"]["tag"] = key.into();
        message["apns"]["headers"]["apns-collapse-id"] = devices::collapse_id(key).into();
        self
    }

    /// Is not delivered after this time.
    pub fn expiring(mut self, at: Timestamp, now: Timestamp) -> Self {
        let message = &mut self.0;
        message["android"]["ttl"] = format!("{}s", at.saturating_sub(now) / 1000).into();
        message["apns"]["headers"]["apns-expiration"] = devices::apns_expiration(at, now).to_string().into();
        self
    }

    /// The request without its credential.
    pub fn request(&self, settings: &Settings, target: Target<'_>) -> Request {
        let mut message = self.0.clone();
        let (key, address) = match target {
            Target::Token(token) => ("token", token),
            Target::Fid(fid) => ("fid", fid),
        };
        message.insert(key.to_owned(), address.into());
        Request::post(&settings.url)
            .header("content-type", "application/json; charset=UTF-8")
            .body(json!({ "message": message }).to_string())
            .timeout_ms(settings.timeout_ms)
    }
}

/// A string without quotes, any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use ace_plugin::email;

    use super::*;

    fn message(extra: Value, target: Target<'_>) -> Value {
        let extra = extra.as_object().cloned().unwrap_or_default();
        let settings =
            Settings { url: "https://fcm.googleapis.com/v1/projects/p/messages:send".to_owned(), timeout_ms: 10_000 };
        let request = Notification::new("T t", "B b", extra).request(&settings, target);
        let body: Value = serde_json::from_slice(&request.body.expect("a body")).expect("JSON");
        body["message"].clone()
    }

    #[test]
    fn the_requests_are_those_of_edx_ace() {
        let recorded: Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
        let project = recorded["project"].as_str();
        let settings = crate::settings::read(|key| project.filter(|_| key == "project-id").map(str::to_owned));
        for case in recorded["requests"].as_array().expect("requests") {
            let line = |key: &str| email::one_line(case[key].as_str().expect("text"));
            let extra = case["extra"].as_object().expect("an object").clone();
            let target = Target::Token(recorded["device"].as_str().expect("text"));
            let request = Notification::new(&line("title"), &line("body"), extra)
                .request(settings.as_ref().expect("valid"), target);
            let theirs = &case["request"];
            let url = format!("https://{}{}", theirs["host"].as_str().unwrap(), theirs["path"].as_str().unwrap());
            assert_eq!((request.method.as_str(), request.url), (theirs["method"].as_str().unwrap(), url));
            let ours: Value = serde_json::from_slice(&request.body.expect("a body")).expect("JSON");
            let body: Value = serde_json::from_str(theirs["body"].as_str().expect("text")).expect("JSON");
            assert_eq!(ours, body, "{}", case["case"]);
        }
    }

    #[test]
    fn a_notification_replaces_the_one_with_the_same_key() {
        let request = Notification::new("T", "B", Map::new()).replacing("k").0;
        assert_eq!(request["android"]["notification"], json!({"title": "T", "body": "B", "tag": "k"}));
        let headers = json!({"apns-priority": "5", "apns-push-type": "alert", "apns-collapse-id": "k"});
        assert_eq!(request["apns"]["headers"], headers);
        let long = Notification::new("T", "B", Map::new()).replacing(&"k".repeat(65)).0;
        assert_eq!(long["apns"]["headers"]["apns-collapse-id"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn a_notification_expires() {
        let new = |extra: Value| Notification::new("T", "B", extra.as_object().cloned().unwrap_or_default());
        let request = new(json!({"time_to_live": 3600})).expiring(601_500, 1_500).0;
        assert_eq!(request["android"]["ttl"], "600s");
        assert_eq!(request["apns"]["headers"]["apns-expiration"], "601");
        assert_eq!(new(json!({"time_to_live": "3600s"})).0["android"]["ttl"], "3600s");
        assert_eq!(new(json!({"time_to_live": "soon"})).0["android"].get("ttl"), None, "FCM would refuse it");
    }

    #[test]
    fn an_installation_id_takes_the_place_of_the_token() {
        let bare = message(json!({}), Target::Fid("fid1"));
        assert_eq!((&bare["data"], &bare["android"]["data"]), (&Value::Null, &Value::Null));
        assert_eq!((&bare["fid"], &bare["token"]), (&json!("fid1"), &Value::Null));
    }

    #[test]
    fn the_extra_context_overrides_and_sets_what_is_for_android() {
        let sent = message(
            json!({
                "title": "Other", "android_channel_id": "news", "time_to_live": 3600, "priority": "high",
                "collapse_key": "k", "to": "nobody", "n": 7, "list": [1],
            }),
            Target::Token("t"),
        );
        let expected = json!({"body": "B b", "title": "Other", "channel_id": "news"});
        assert_eq!(sent["android"]["notification"], expected);
        assert_eq!(sent["apns"]["payload"]["aps"]["alert"]["title"], "Other");
        assert_eq!((&sent["android"]["ttl"], &sent["android"]["priority"]), (&json!("3600s"), &json!("high")));
        assert_eq!(sent["android"]["collapse_key"], "k");
        assert_eq!(sent["data"], json!({"n": "7", "list": "[1]"}), "FCM takes only strings");
    }
}
