//! The notification of a message: its texts, and what the sender sets beside them.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::channel::{DeliveryError, Rendered};
use crate::email::one_line;
use crate::{Error, Message, Timestamp};

/// Keys of the extra context that set how a notification is sent, or how Android shows it, and those that edx-ace's library uses up.
const SETTINGS: [&str; 13] = [
    "android_channel_id",
    "collapse_key",
    "color",
    "condition",
    "dry_run",
    "icon",
    "message",
    "notification_key",
    "priority",
    "restricted_package_name",
    "tag",
    "time_to_live",
    "to",
];

/// Four weeks. FCM and push services of browsers store a notification no longer.
pub const TTL_SECONDS_MAX: u32 = 2_419_200;
/// The longest value of `apns-collapse-id`.
const COLLAPSE_ID_BYTES_MAX: usize = 64;

/// A notification with a title and a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The file `title.txt`, in one line.
    pub title: String,
    /// The file `body.txt`, in one line.
    pub body: String,
    /// The context value `push_notification_extra_context`, without nulls.
    pub extra: Map<String, Value>,
}

impl Notification {
    /// The notification of a rendered message.
    ///
    /// # Errors
    /// If a file is missing, or the extra context is not an object.
    pub fn read(message: &Message, rendered: &Rendered) -> Result<Self, DeliveryError> {
        let text = |name| rendered.text(name).map(one_line);
        let mut extra: Map<String, Value> = message.context("/push_notification_extra_context")?.unwrap_or_default();
        extra.retain(|_, value| !value.is_null());
        Ok(Notification { title: text("title.txt")?, body: text("body.txt")?, extra })
    }

    /// The key by which this notification replaces an earlier one with the same key: what the message asks for
    /// ([`replacement`]), or else the extra context's `tag` or `collapse_key`.
    ///
    /// # Errors
    /// Those of [`replacement`].
    pub fn replacement(&self, message: &Message) -> Result<Option<String>, Error> {
        let own = || ["tag", "collapse_key"].iter().find_map(|key| self.text(key)).map(str::to_owned);
        Ok(replacement(message)?.or_else(own))
    }

    /// Whether devices should show it at once: the extra context's `priority` is `high`, or it has none and the message is
    /// transactional.
    pub fn is_urgent(&self, message: &Message) -> bool {
        match self.text("priority") {
            Some(priority) => priority.eq_ignore_ascii_case("high"),
            None => message.is_transactional(),
        }
    }

    /// The time after which it is not delivered: the message's expiration time, but not after the seconds of the extra context's
    /// `time_to_live`, or else `default`.
    pub fn expires(&self, message: &Message, now: Timestamp, default: u32) -> Timestamp {
        let seconds = time_to_live(&self.extra).unwrap_or_else(|| default.into());
        let latest = now.saturating_add(seconds.saturating_mul(1000));
        message.expiration_time().map_or(latest, |at| at.min(latest))
    }

    /// The extra context without settings: what the app can show or use, `title` and `body` in place of the files included.
    pub fn data(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.extra.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !SETTINGS.contains(key))
    }

    /// A text of the extra context that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.extra.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// The extra context's `time_to_live`, a number of seconds or a text such as `3600s`; at most four weeks. `None` if it is neither.
pub fn time_to_live(extra: &Map<String, Value>) -> Option<u64> {
    let value = extra.get("time_to_live")?;
    let seconds = value.as_u64().or_else(|| value.as_str()?.trim_end_matches('s').parse().ok())?;
    Some(seconds.min(TTL_SECONDS_MAX.into()))
}

/// The time after which APNs does not deliver a notification, as the header `apns-expiration`: seconds since the Unix epoch, or 0 if it
/// is delivered at once or never.
pub fn apns_expiration(at: Timestamp, now: Timestamp) -> u64 {
    if at / 1000 > now / 1000 { at / 1000 } else { 0 }
}

#[derive(Debug, PartialEq)]
enum Replacement {
    Key(String),
    /// Repeats of the message.
    Repeats,
}

/// The key by which a message asks to replace an earlier one, in `options.replace`: a text is the key, and `true` stands for the
/// message's uuid, so that a repeat of the message replaces the first.
///
/// # Errors
/// If the option is neither.
pub fn replacement(message: &Message) -> Result<Option<String>, Error> {
    Ok(match read_option(message.option("/replace")?)? {
        Some(Replacement::Key(key)) => Some(key),
        Some(Replacement::Repeats) => Some(message.uuid()),
        None => None,
    })
}

/// The key of a replacement as the header `apns-collapse-id`: at most 64 ASCII characters without spaces. Of any other key it is the
/// SHA-256 digest in hexadecimal.
pub fn collapse_id(key: &str) -> String {
    if key.len() <= COLLAPSE_ID_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        key.to_owned()
    } else {
        Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read_option(option: Option<Value>) -> Result<Option<Replacement>, Error> {
    match option {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(Replacement::Repeats)),
        Some(Value::String(key)) if !key.is_empty() => Ok(Some(Replacement::Key(key))),
        Some(other) => Err(Error::new("options /replace", format_args!("expected true or a text, not {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_asks_for_replacement_by_true_or_a_key() {
        assert_eq!(read_option(None), Ok(None));
        assert_eq!(read_option(Some(json!(false))), Ok(None));
        assert_eq!(read_option(Some(json!(true))), Ok(Some(Replacement::Repeats)));
        assert_eq!(read_option(Some(json!("thread-7"))), Ok(Some(Replacement::Key("thread-7".to_owned()))));
        let error = read_option(Some(json!(7))).expect_err("a number");
        assert_eq!(error.to_string(), "options /replace: expected true or a text, not 7");
    }

    #[test]
    fn a_time_to_live_is_seconds_and_at_most_four_weeks() {
        let read = |value: Value| time_to_live(&Map::from_iter([("time_to_live".to_owned(), value)]));
        for (value, expected) in [
            (json!(60), Some(60)),
            (json!("3600"), Some(3_600)),
            (json!("3600s"), Some(3_600)),
            (json!(0), Some(0)),
            (json!(u64::MAX), Some(2_419_200)),
            (json!(-1), None),
            (json!("soon"), None),
        ] {
            assert_eq!(read(value.clone()), expected, "{value}");
        }
        assert_eq!(time_to_live(&Map::new()), None);
    }

    #[test]
    fn apns_does_not_store_a_notification_that_has_expired() {
        assert_eq!(apns_expiration(61_000, 1_500), 61);
        assert_eq!((apns_expiration(1_999, 1_500), apns_expiration(0, 1_500)), (0, 0));
    }

    #[test]
    fn a_key_that_does_not_fit_into_a_header_is_hashed() {
        assert_eq!(collapse_id("thread-7"), "thread-7");
        assert_eq!(collapse_id(&"a".repeat(64)), "a".repeat(64));
        assert_eq!(collapse_id("thread 7"), "510ec429f0e52ffa218b7e6a679718a3925fc5e9db83b680448de4ede5d9bf91");
        for key in [&"a".repeat(65), "é", "a\r\nb: c"] {
            let id = collapse_id(key);
            assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key:?}: {id}");
        }
    }
}
