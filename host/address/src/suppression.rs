//! Suppressed addresses: no message is sent to them. They are entries of the bucket [`BUCKET`], whose key is the kind and the normal
//! form of the address (`email:alice@example.com`). The policy `suppression` reads them.

use serde::{Deserialize, Serialize};

use crate::person::address_key;

/// The bucket of the entries.
pub const BUCKET: &str = "suppressions";
/// The kind of e-mail addresses.
pub const EMAIL: &str = "email";
/// The kind of phone numbers.
pub const PHONE: &str = "phone";
/// The longest key, in bytes: that of the key-value store.
const KEY_BYTES_MAX: usize = 512;
const KIND_BYTES_MAX: usize = 64;

/// Why an address is suppressed, and for which messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Why.
    pub reason: Reason,
    /// For which messages.
    pub scope: Scope,
    /// Who said so: the name of a plugin, `api` or `import`.
    pub source: String,
    /// Since when (RFC 3339, UTC).
    pub time: String,
    /// More for operators, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why an address is suppressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The address does not exist or does not accept messages.
    HardBounce,
    /// The person reported a message as spam.
    Complaint,
    /// The person unsubscribed.
    Unsubscribe,
    /// An operator or the application decided it.
    Manual,
}

/// For which messages an address is suppressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// For every message.
    All,
    /// For messages that are not transactional.
    Bulk,
}

/// Why a text is not an address that can be suppressed, and how to write one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 4] = [Reason::HardBounce, Reason::Complaint, Reason::Unsubscribe, Reason::Manual];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::HardBounce => "hard-bounce",
            Reason::Complaint => "complaint",
            Reason::Unsubscribe => "unsubscribe",
            Reason::Manual => "manual",
        }
    }

    /// The scope if nothing else is said: who complains or unsubscribes still gets a password reset.
    pub fn default_scope(self) -> Scope {
        match self {
            Reason::HardBounce | Reason::Manual => Scope::All,
            Reason::Complaint | Reason::Unsubscribe => Scope::Bulk,
        }
    }
}

impl Scope {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::All => "all",
            Scope::Bulk => "bulk",
        }
    }

    /// Whether a message is affected.
    pub fn covers(self, is_transactional: bool) -> bool {
        self == Scope::All || !is_transactional
    }
}

impl Suppression {
    /// Reads the value of an entry. One that is not valid, such as a value that was set by hand, suppresses every message.
    pub fn read(value: &[u8]) -> Suppression {
        serde_json::from_slice(value).unwrap_or_else(|error| Suppression {
            reason: Reason::Manual,
            scope: Scope::All,
            source: "unknown".to_owned(),
            time: "1970-01-01T00:00:00Z".to_owned(),
            detail: Some(format!("the entry is not valid: {error}")),
        })
    }

    /// The value of an entry.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and unit variants always become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether a report says more than what is known: nothing is replaced unless the scope becomes wider.
    pub fn widens(&self, known: &Suppression) -> bool {
        self.scope == Scope::All && known.scope == Scope::Bulk
    }
}

/// The key of an address of a kind, as in a recipient's `contacts`; the kind of `email_address` is [`EMAIL`].
///
/// # Errors
/// The kind is invalid, or the address is empty or too long.
pub fn key(kind: &str, address: &str) -> Result<String, AddressError> {
    let is_kind = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if kind.is_empty() || kind.len() > KIND_BYTES_MAX || !kind.chars().all(is_kind) {
        let message = format!("{kind:?} is not a kind of address; kinds have lower-case letters, digits, `-` and `_`");
        return Err(AddressError(message));
    }
    let key = address_key(kind, address);
    let normal = &key[kind.len() + 1..];
    if normal.is_empty() || (kind == EMAIL && normal.starts_with('@')) {
        return Err(AddressError(format!("{address:?} is not an address")));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(AddressError(format!("an address of {} bytes; at most {KEY_BYTES_MAX} are allowed", key.len())));
    }
    Ok(key)
}

/// The key of an address as a person writes it: with its kind (`push-token:…`), or an e-mail address or phone number alone.
///
/// # Errors
/// The kind is not clear, or as [`key`].
pub fn key_of(text: &str) -> Result<String, AddressError> {
    let text = text.trim();
    let is_word = |kind: &str| !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    match text.split_once(':') {
        Some((kind, address)) if is_word(kind) && !address.starts_with("//") => key(kind, address),
        _ if text.starts_with('+') && !text.contains('@') => key(PHONE, text),
        _ if text.contains('@') && !text.contains("://") => key(EMAIL, text),
        _ => Err(AddressError(format!(
            "the kind of {text:?} is not clear; write it before the address, as in \"push-token:…\" or \"phone:0301234\""
        ))),
    }
}

/// The kind and address of a key.
pub fn split(key: &str) -> (&str, &str) {
    key.split_once(':').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_key() {
        let same = [
            (
                EMAIL,
                "email:alice@example.com",
                &["Alice@Example.COM", " alice@example.com.", "A <alice@example.com>"][..],
            ),
            (EMAIL, "email:a@xn--bcher-kva.example", &["a@bücher.example", "A@BÜCHER.example"]),
            (PHONE, "phone:+4930123456", &["+49 30 123456", "0049 (30) 12-34.56", "+49\u{a0}30/123456"]),
            (PHONE, "phone:030123456", &["030 123456"]),
            ("push-token", "push-token:aB:c", &["aB:c", " aB:c\n"]),
        ];
        for (kind, expected, forms) in same {
            for form in forms {
                assert_eq!(key(kind, form).as_deref(), Ok(expected), "{form:?}");
            }
            assert_eq!(key_of(expected).as_deref(), Ok(expected), "the key itself");
            assert_eq!(key(split(expected).0, split(expected).1).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn people_write_addresses_without_their_kind() {
        for (text, expected) in [
            ("Zoë@Example.com", "email:zoë@example.com"),
            ("+49 30 1", "phone:+49301"),
            ("+tag@example.com", "email:+tag@example.com"),
            ("web-push:https://push.example/1", "web-push:https://push.example/1"),
            ("\"a:b\"@example.com", "email:a:b@example.com"),
        ] {
            assert_eq!(key_of(text).as_deref(), Ok(expected), "{text}");
        }
        for unclear in [
            "",
            "7",
            "https://push.example/@1",
            "token",
            "A B:x",
            "Push:x",
            "email:",
            "email:@example.com",
            "phone: - ",
        ] {
            assert!(key_of(unclear).is_err(), "{unclear}");
        }
        assert!(key("push-token", &"x".repeat(KEY_BYTES_MAX)).is_err());
        assert!(key_of("https://push.example/1").is_err_and(|error| error.to_string().contains("push-token:…")));
    }

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let text =
            r#"{"reason":"hard-bounce","scope":"all","source":"ses","time":"2026-11-30T07:40:18Z","detail":"550"}"#;
        let entry = Suppression::read(text.as_bytes());
        assert_eq!(String::from_utf8(entry.to_json()).as_deref(), Ok(text));
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
        }
        for scope in [Scope::All, Scope::Bulk] {
            assert_eq!(serde_json::to_value(scope).ok(), Some(scope.as_str().into()));
        }
        for invalid in ["1", "{\"reason\":\"x\"}", "", "\u{ff}"] {
            let entry = Suppression::read(invalid.as_bytes());
            assert_eq!((entry.reason, entry.scope), (Reason::Manual, Scope::All), "{invalid}");
            assert!(entry.detail.is_some_and(|detail| detail.starts_with("the entry is not valid")));
        }
    }

    #[test]
    fn a_later_report_counts_only_if_its_scope_is_wider() {
        let entry = |reason: Reason| Suppression {
            reason,
            scope: reason.default_scope(),
            source: "api".to_owned(),
            time: "2026-11-30T00:00:00Z".to_owned(),
            detail: None,
        };
        let (bounce, complaint) = (entry(Reason::HardBounce), entry(Reason::Complaint));
        assert!(bounce.widens(&complaint));
        assert!(
            !complaint.widens(&bounce) && !entry(Reason::Unsubscribe).widens(&complaint) && !bounce.widens(&bounce)
        );
        assert!(Scope::All.covers(true) && Scope::Bulk.covers(false) && !Scope::Bulk.covers(true));
    }
}
