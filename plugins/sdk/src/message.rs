//! The message of a call, with its options and context as typed values.

use serde::Deserialize;

use crate::imports::messages;
use crate::{Error, Json, Recipient, Timestamp};

/// One message to one recipient, read-only. Every getter calls the host, so keep values that are used more than once.
///
/// It is valid during the call.
#[derive(Debug)]
pub struct Message(messages::Message);

impl Message {
    pub(crate) fn new(handle: messages::Message) -> Self {
        Message(handle)
    }

    /// The id of the message: 36 characters, lower case, with hyphens.
    pub fn uuid(&self) -> String {
        self.0.uuid()
    }

    /// The id of the bulk send. `None` if the message belongs to none.
    pub fn send_uuid(&self) -> Option<String> {
        self.0.send_uuid()
    }

    /// The application of the message, which is the first folder of its templates.
    pub fn app_label(&self) -> String {
        self.0.app_label()
    }

    /// The name of the message in its application.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// `app_label.name`.
    pub fn unique_name(&self) -> String {
        self.0.unique_name()
    }

    /// The language of the message, as the sender wrote it. `None` for the host's default.
    pub fn language(&self) -> Option<String> {
        self.0.language()
    }

    /// The time after which the message is not delivered. `None` if the sender set none.
    pub fn expiration_time(&self) -> Option<Timestamp> {
        self.0.expiration_time()
    }

    /// The recipient. `None` if the message has no single recipient.
    pub fn recipient(&self) -> Option<Recipient> {
        self.0.recipient()
    }

    /// The headers of the sender, in order.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.0.headers()
    }

    /// A part of the options, by RFC 6901 pointer (`"/reply_to"`; `""` is the whole object), as a typed value. `None` if it is missing
    /// or null.
    ///
    /// # Errors
    /// If the value has another type. The error names the pointer.
    ///
    /// ```no_run
    /// #[derive(Default, serde::Deserialize)]
    /// #[serde(default)]
    /// struct Options {
    ///     transactional: bool,
    ///     emails: Vec<String>,
    /// }
    ///
    /// # fn example(message: &ace_plugin::Message) -> Result<(), ace_plugin::Error> {
    /// let emails: Vec<String> = message.option("/emails")?.unwrap_or_default();
    /// let all: Options = message.option("")?.unwrap_or_default();
    /// # Ok(())
    /// # }
    /// ```
    pub fn option<T: for<'de> Deserialize<'de>>(&self, pointer: &str) -> Result<Option<T>, Error> {
        read("options", pointer, self.0.options(pointer))
    }

    /// A part of the options as JSON, including null. `None` if it is missing.
    pub fn option_json(&self, pointer: &str) -> Option<Json> {
        self.0.options(pointer)
    }

    /// Whether an option is true in Python: not missing, null, false, 0, or an empty string, list or object.
    pub fn option_is_true(&self, pointer: &str) -> bool {
        self.0.options(pointer).is_some_and(|json| is_true(&json))
    }

    /// A part of the context, like [`option`](Self::option).
    ///
    /// # Errors
    /// If the value has another type. The error names the pointer.
    pub fn context<T: for<'de> Deserialize<'de>>(&self, pointer: &str) -> Result<Option<T>, Error> {
        read("context", pointer, self.0.context(pointer))
    }

    /// A part of the context as JSON, including null. `None` if it is missing.
    pub fn context_json(&self, pointer: &str) -> Option<Json> {
        self.0.context(pointer)
    }

    /// Whether a part of the context is true in Python.
    pub fn context_is_true(&self, pointer: &str) -> bool {
        self.0.context(pointer).is_some_and(|json| is_true(&json))
    }

    /// Whether the message responds to an action of its recipient, such as a password reset.
    pub fn is_transactional(&self) -> bool {
        self.option_is_true("/transactional")
    }

    /// The whole message in edx-ace's JSON form. Getters are cheaper.
    pub fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

impl Recipient {
    /// The first address of a kind (`"phone"`, `"push-token"`). `None` if there is none.
    pub fn contact(&self, kind: &str) -> Option<&str> {
        self.contacts_of(kind).next()
    }

    /// The addresses of this kind, in the sender's order.
    pub fn contacts_of(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.contacts.iter().filter(move |(of, _)| of == kind).map(|(_, address)| address.as_str())
    }
}

fn read<T: for<'de> Deserialize<'de>>(of: &str, pointer: &str, json: Option<Json>) -> Result<Option<T>, Error> {
    match json.as_deref() {
        None | Some("null") => Ok(None),
        Some(json) => serde_json::from_str(json).map(Some).map_err(|e| Error::new(format_args!("{of} {pointer}"), e)),
    }
}

/// The host returns compact JSON, in which each false value has one spelling, except numbers: a zero has only the digit 0 before its
/// exponent. (Parsing numbers would add 15 KB of float tables to every guest.)
fn is_true(json: &str) -> bool {
    match json.as_bytes() {
        b"null" | b"false" | b"\"\"" | b"[]" | b"{}" => false,
        [b'-' | b'0'..=b'9', ..] => {
            json.bytes().take_while(|b| !matches!(b, b'e' | b'E')).any(|b| matches!(b, b'1'..=b'9'))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truthiness_is_that_of_python() {
        for json in ["null", "false", "\"\"", "[]", "{}", "0", "0.0", "-0", "0e5"] {
            assert!(!is_true(json), "{json}");
        }
        for json in ["true", "\" \"", "\"0\"", "[0]", "{\"a\":0}", "1", "-0.5", "1e-9", "10.0"] {
            assert!(is_true(json), "{json}");
        }
    }

    #[test]
    fn a_contact_is_the_first_of_its_kind() {
        let contacts = [("push-token", "t"), ("phone", "1"), ("phone", "2")];
        let contacts = contacts.map(|(kind, address)| (kind.to_owned(), address.to_owned())).to_vec();
        let recipient = Recipient { user_id: None, lms_user_id: None, email_address: None, contacts };
        assert_eq!((recipient.contact("phone"), recipient.contact("fax")), (Some("1"), None));
    }

    #[test]
    fn a_part_is_a_value_or_missing_or_an_error() {
        assert_eq!(read("options", "/cc", Some("[\"a\"]".to_owned())), Ok(Some(vec!["a".to_owned()])));
        assert_eq!(read::<String>("options", "/cc", None), Ok(None));
        assert_eq!(read::<String>("options", "/cc", Some("null".to_owned())), Ok(None));
        let error = read::<String>("options", "/cc", Some("7".to_owned())).expect_err("a number is not a string");
        assert!(error.to_string().starts_with("options /cc: invalid type: integer `7`"), "{error}");
    }
}
