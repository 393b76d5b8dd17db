//! The messages of a batch in two parts: the common part, prepared once for all recipients, and the personal part, which is all that is
//! stored for each recipient.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::context::Reader;
use super::{Context, FieldErrors, Headers, Message, MessageType, Recipient, without_bom};

/// The personal part of a message. Its JSON is a list of the three fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Personal {
    /// The recipient.
    pub recipient: Recipient,
    /// The language of the recipient.
    pub language: Option<String>,
    /// Overrides the type's context, key by key.
    pub user_context: Context,
}

impl Personal {
    /// The JSON for [`Personal::from_own_json`].
    pub fn to_json(&self) -> String {
        let (recipient, language) = (text(&self.recipient), text(&self.language));
        ["[", &recipient, ",", &language, ",", self.user_context.as_json(), "]"].concat()
    }

    /// Whether JSON is a personal part and not a whole [`Message`].
    pub fn is_one(json: &[u8]) -> bool {
        json.first() == Some(&b'[')
    }

    /// Decodes the result of [`Personal::to_json`].
    ///
    /// # Errors
    /// If the JSON has another form.
    pub fn from_own_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let personal = deserializer.deserialize_seq(Parts)?;
        deserializer.end().map(|()| personal)
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it has only string keys")
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Personal;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a recipient, a language and a context")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Personal, A::Error> {
        let missing = |n| A::Error::invalid_length(n, &"three parts");
        let recipient: Value = parts.next_element()?.ok_or_else(|| missing(0))?;
        let recipient = Recipient::from_value(recipient).map_err(A::Error::custom)?;
        let language = parts.next_element()?.ok_or_else(|| missing(1))?;
        let user_context = parts.next_element_seed(Reader { is_ours: true })?.ok_or_else(|| missing(2))?;
        Ok(Personal { recipient, language, user_context })
    }
}

/// A recipient of a batch, from a line of NDJSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Identifies the message: a repeated key is the same message.
    pub key: Option<String>,
    /// The personal part of the message.
    pub personal: Personal,
}

/// Why a line is not a recipient.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe them")]
#[non_exhaustive]
pub enum MemberError {
    /// The line is not JSON of this form. The column is in bytes and starts at 1.
    #[error("{message} at column {column}")]
    Json { column: u64, message: String },
    #[error("{0}")]
    Fields(#[from] FieldErrors),
}

impl Member {
    /// Decodes a line of NDJSON.
    ///
    /// # Errors
    /// If the line is not JSON, has an unknown field, or a value of the wrong type.
    pub fn from_json(line: &[u8]) -> Result<Self, MemberError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Form {
            key: Option<String>,
            recipient: Value,
            language: Option<String>,
            #[serde(default)]
            user_context: Context,
        }
        let form = serde_json::from_slice(without_bom(line)).map_err(|error| {
            let (text, column) = (error.to_string(), error.column() as u64);
            let message = text.rfind(" at line ").map_or(&*text, |at| &text[..at]).to_owned();
            MemberError::Json { column, message }
        });
        let Form { key, recipient, language, user_context } = form?;
        let recipient = Recipient::from_value(recipient)?;
        Ok(Member { key, personal: Personal { recipient, language, user_context } })
    }
}

/// A message type for many recipients.
pub struct Prepared {
    kind: MessageType,
    context: Context,
    /// The index of each key of the context.
    indices: HashMap<String, usize>,
}

impl Prepared {
    /// Prepares the common part.
    pub fn new(kind: MessageType) -> Self {
        let context = kind.context.clone();
        let indices = context.iter().map(|(key, _)| key.to_owned()).zip(0..).collect();
        Prepared { kind, context, indices }
    }

    /// The same message as [`MessageType::personalize`], with this uuid.
    pub fn message(&self, uuid: Uuid, personal: Personal) -> Message {
        let Personal { recipient, language, user_context } = personal;
        let kind = &self.kind;
        Message {
            app_label: kind.app_label.clone(),
            name: kind.name.clone(),
            recipient: Some(recipient),
            expiration_time: kind.expiration_time.clone(),
            context: self.merged_context(&user_context),
            uuid,
            send_uuid: Some(kind.uuid),
            options: kind.options.clone(),
            headers: Headers::default(),
            language,
            log_level: kind.log_level,
        }
    }

    /// The type's context with the keys of the user's.
    fn merged_context(&self, user: &Context) -> Context {
        let mut entries: Vec<(&str, &str)> = self.context.iter().collect();
        for (key, value) in user.iter() {
            match self.indices.get(key) {
                Some(index) => entries[*index].1 = value,
                None => entries.push((key, value)),
            }
        }
        Context::of(&entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::message::{DateTime, Object};

    fn object(keys: &[(String, u8)]) -> Object {
        let value = |n: &u8| match n % 4 {
            0 => json!({"b": [n, null], "a": "é\"\n"}),
            1 => json!(0.1),
            2 => Value::Null,
            _ => json!("x"),
        };
        keys.iter().map(|(key, n)| (key.clone(), value(n))).collect()
    }

    proptest! {
        #[test]
        fn a_prepared_message_equals_the_personalized_one(
            shared in proptest::collection::vec(("[a-e]", any::<u8>()), 0..6),
            user in proptest::collection::vec(("[a-g]", any::<u8>()), 0..6),
            language in proptest::option::of("[a-z]{2}"),
            has_all in any::<bool>(),
        ) {
            let mut kind = MessageType::new("app", "name");
            (kind.context, kind.options) = (object(&shared).into(), object(&user));
            let mut recipient = Recipient::new(1, "a@b.c");
            if has_all {
                kind.expiration_time = Some(DateTime::parse("2026-01-02T03:04:05Z").expect("a time"));
                kind.log_level = Some(10);
                recipient.contacts = vec![("phone".to_owned(), "+1".to_owned()), ("phone".to_owned(), "+2".to_owned())];
            }
            let user = object(&user);
            let mut message = kind.personalize(recipient.clone(), language.clone(), user.clone());
            message.uuid = Uuid::from_u128(7);
            let personal = Personal { recipient, language, user_context: user.into() };
            let stored = personal.to_json();
            prop_assert!(Personal::is_one(stored.as_bytes()) && !Personal::is_one(message.to_json().as_bytes()));
            let again = Personal::from_own_json(stored.as_bytes()).expect("its own output is valid");
            prop_assert_eq!(&again, &personal);
            let prepared = Prepared::new(kind);
            prop_assert_eq!(prepared.message(message.uuid, again).to_json(), message.to_json());
        }
    }

    #[test]
    fn an_invalid_part_is_rejected_with_its_reason() {
        for (json, why) in [
            ("[]", "three parts"),
            (r#"[{"lms_user_id":1},null]"#, "three parts"),
            ("[1,2,3]", "must be a JSON object"),
            ("[", "EOF"),
        ] {
            let error = Personal::from_own_json(json.as_bytes()).expect_err("rejected").to_string();
            assert!(error.contains(why), "{json}: {error}");
        }
    }
}
