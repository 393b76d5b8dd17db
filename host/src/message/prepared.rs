//! A message type made ready for many recipients: what their messages share is JSON already, and is neither copied as values nor
//! written value by value for each of them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::context::as_it_is;
use super::{Context, DateTime, Headers, MessageType, Recipient};

pub struct Prepared {
    pub kind: MessageType,
    /// The values of the type's context, in their order.
    context: Vec<Box<RawValue>>,
    options: Box<RawValue>,
}

/// A [`super::Message`], field by field.
#[derive(Serialize)]
struct Personal<'a> {
    app_label: &'a str,
    name: &'a str,
    recipient: &'a Recipient,
    expiration_time: Option<&'a DateTime>,
    context: Laid<'a>,
    uuid: Uuid,
    send_uuid: Uuid,
    options: &'a RawValue,
    headers: Headers,
    language: Option<&'a str>,
    log_level: Option<i64>,
}

/// The user's context laid over the type's.
struct Laid<'a> {
    prepared: &'a Prepared,
    user: &'a Context,
}

impl Prepared {
    pub fn new(kind: MessageType) -> Self {
        let context = kind.context.values().map(raw).collect();
        let options = raw(&kind.options);
        Prepared { kind, context, options }
    }

    /// The JSON of [`MessageType::personalize`] with this uuid, as [`super::Message::to_json`] writes it.
    pub fn to_json(&self, uuid: Uuid, recipient: &Recipient, language: Option<&str>, user: &Context) -> String {
        let personal = Personal {
            app_label: &self.kind.app_label,
            name: &self.kind.name,
            recipient,
            expiration_time: self.kind.expiration_time.as_ref(),
            context: Laid { prepared: self, user },
            uuid,
            send_uuid: self.kind.uuid,
            options: &self.options,
            headers: Headers::default(),
            language,
            log_level: self.kind.log_level,
        };
        serde_json::to_string(&personal).expect("a message has only string keys and finite numbers")
    }
}

impl Serialize for Laid<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let shared = &self.prepared.kind.context;
        let mut map = s.serialize_map(None)?;
        for (key, value) in shared.keys().zip(&self.prepared.context) {
            match self.user.get(key) {
                Some(own) => map.serialize_entry(key, as_it_is(own)?)?,
                None => map.serialize_entry(key, value)?,
            }
        }
        for (key, own) in self.user.iter().filter(|(key, _)| !shared.contains_key(*key)) {
            map.serialize_entry(key, as_it_is(own)?)?;
        }
        map.end()
    }
}

fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    to_raw_value(value).expect("a message has only string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::message::Object;

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
        fn it_writes_what_the_personalized_message_writes(
            shared in proptest::collection::vec(("[a-e]", any::<u8>()), 0..6),
            user in proptest::collection::vec(("[a-g]", any::<u8>()), 0..6),
            language in proptest::option::of("[a-z]{2}"),
            has_all in any::<bool>(),
        ) {
            let mut kind = MessageType::new("app", "name");
            (kind.context, kind.options) = (object(&shared), object(&user));
            if has_all {
                kind.expiration_time = Some(DateTime::parse("2026-01-02T03:04:05Z").expect("a time"));
                kind.log_level = Some(10);
            }
            let (recipient, user) = (Recipient::new(1, "a@b.c"), object(&user));
            let mut message = kind.personalize(recipient.clone(), language.clone(), user.clone());
            message.uuid = Uuid::from_u128(7);
            let json = Prepared::new(kind).to_json(message.uuid, &recipient, language.as_deref(), &user.into());
            prop_assert_eq!(json, message.to_json());
        }
    }
}
