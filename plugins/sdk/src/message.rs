//! The message a plugin looks at, with its options and context as typed values.

use serde::Deserialize;

use crate::imports::messages;
use crate::{Error, Json, Recipient, Timestamp};

/// One message to one recipient. It cannot be changed, and every getter asks the host, so keep what is needed twice.
///
/// It is valid for the call it was handed to; a reference cannot outlive that.
#[derive(Debug)]
pub struct Message(messages::Message);

impl Message {
    pub(crate) fn new(handle: messages::Message) -> Self {
        Message(handle)
    }

    /// The message's own id: 36 characters, lower case, with hyphens.
    pub fn uuid(&self) -> String {
        self.0.uuid()
    }

    /// Shared by all messages of one bulk send. `None`: part of no bulk send.
    pub fn send_uuid(&self) -> Option<String> {
        self.0.send_uuid()
    }

    /// The application the message belongs to; the first folder of its templates.
    pub fn app_label(&self) -> String {
        self.0.app_label()
    }

    /// The message's name within its application.
    pub fn name(&self) -> String {
        self.0.name()
    }

    /// `app_label.name`.
    pub fn unique_name(&self) -> String {
        self.0.unique_name()
    }

    /// The language the message is rendered in, as the sender wrote it. `None`: the host's default.
    pub fn language(&self) -> Option<String> {
        self.0.language()
    }

    /// No delivery after this moment. `None`: the sender named none.
    pub fn expiration_time(&self) -> Option<Timestamp> {
        self.0.expiration_time()
    }

    /// Who it is for. `None`: the message has no single recipient.
    pub fn recipient(&self) -> Option<Recipient> {
        self.0.recipient()
    }

    /// Headers the sender asked for, in the sender's order.
    pub fn headers(&self) -> Vec<(String, String)> {
        self.0.headers()
    }

    /// A part of the options, by RFC 6901 pointer (`"/reply_to"`; `""` is the whole object), as a value. `None`: it is not
    /// there, or null. What is there and does not fit `T` is an error that names the pointer.
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

    /// A part of the options as JSON text, null included. `None`: it is not there.
    pub fn option_json(&self, pointer: &str) -> Option<Json> {
        self.0.options(pointer)
    }

    /// Whether an option is there and Python would call it true: not null, false, 0, nor an empty text, list or object.
    pub fn option_is_true(&self, pointer: &str) -> bool {
        self.0.options(pointer).is_some_and(|json| is_true(&json))
    }

    /// A part of the context, as [`option`](Self::option) does it.
    pub fn context<T: for<'de> Deserialize<'de>>(&self, pointer: &str) -> Result<Option<T>, Error> {
        read("context", pointer, self.0.context(pointer))
    }

    /// A part of the context as JSON text, null included. `None`: it is not there.
    pub fn context_json(&self, pointer: &str) -> Option<Json> {
        self.0.context(pointer)
    }

    /// Whether a part of the context is there and Python would call it true.
    pub fn context_is_true(&self, pointer: &str) -> bool {
        self.0.context(pointer).is_some_and(|json| is_true(&json))
    }

    /// Whether the message must reach its recipient because of something they did (a password reset, say).
    pub fn is_transactional(&self) -> bool {
        self.option_is_true("/transactional")
    }

    /// The whole in edx-ace's JSON form. Costs what it weighs: a getter is cheaper.
    pub fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

impl Recipient {
    /// The first address of a kind (`"phone"`, `"push-token"`). `None`: the sender gave none.
    pub fn contact(&self, kind: &str) -> Option<&str> {
        self.contacts.iter().find(|(of, _)| of == kind).map(|(_, address)| address.as_str())
    }
}

fn read<T: for<'de> Deserialize<'de>>(of: &str, pointer: &str, json: Option<Json>) -> Result<Option<T>, Error> {
    match json.as_deref() {
        None | Some("null") => Ok(None),
        Some(json) => serde_json::from_str(json).map(Some).map_err(|e| Error::new(format_args!("{of} {pointer}"), e)),
    }
}

/// The host hands out compact JSON, so that the false values have one spelling each, numbers aside: a zero has no digit but
/// 0 before its exponent. (Parsing it would put 15 KB of float tables into every guest.)
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
    fn truth_is_pythons() {
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
    fn a_part_is_typed_absent_or_named() {
        assert_eq!(read("options", "/cc", Some("[\"a\"]".to_owned())), Ok(Some(vec!["a".to_owned()])));
        assert_eq!(read::<String>("options", "/cc", None), Ok(None));
        assert_eq!(read::<String>("options", "/cc", Some("null".to_owned())), Ok(None));
        let error = read::<String>("options", "/cc", Some("7".to_owned())).expect_err("a number is no string");
        assert!(error.to_string().starts_with("options /cc: invalid type: integer `7`"), "{error}");
    }
}
