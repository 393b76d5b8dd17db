//! The variables of templates: `message`, `channel` and the message's context, which may shadow both (as in edx-ace).

use std::cell::RefCell;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use tera::value::Key;
use tera::{Context, Map, TeraResult, Value};
use uuid::Uuid;

use super::Subject;
use super::rendering::Tracking;
use super::templates::python_numbers;
use crate::message::json::{self, Token, Tokens};
use crate::message::{ActionLink, DateTime, Headers, Message, Object, UserId, is_truthy};

/// The key of a message's context or options that removes the unsubscribe links.
const OMIT_UNSUBSCRIBE_LINK: &str = "omit_unsubscribe_link";

/// `message`, with the attributes of edx-ace's except `context`.
#[derive(serde::Serialize)]
struct MessageView<'a> {
    app_label: &'a str,
    name: &'a str,
    unique_name: String,
    log_id: String,
    uuid: Uuid,
    send_uuid: Option<Uuid>,
    language: Option<&'a str>,
    recipient: Option<RecipientView<'a>>,
    expiration_time: Option<&'a DateTime>,
    options: &'a Object,
    headers: &'a Headers,
    log_level: Option<i64>,
}

#[derive(serde::Serialize)]
struct RecipientView<'a> {
    lms_user_id: &'a UserId,
    email_address: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct ChannelView<'a> {
    name: &'a str,
    channel_type: &'a str,
    action_links: Vec<&'a ActionLink>,
    tracker_image_sources: &'a [String],
}

/// The context for all files of a message. `message.context`, a copy of its values, is in it only with `reads_context`. The result
/// is true if Tera formats a number in it differently from Python ([`python_numbers`]).
pub(super) fn build(message: &Message, subject: &Subject, reads_context: bool) -> TeraResult<(Context, bool)> {
    let mut context = Context::new();
    let mut values = Map::new();
    let mut has_exponent = false;
    if !message.context.contains_key("channel") {
        context.insert_value("channel", Value::try_from_serializable(&channel_view(message, subject))?);
    }
    for (key, json) in message.context.iter() {
        let value = value(json, &mut has_exponent)?;
        if reads_context {
            values.insert(Key::String(key.into()), value.clone());
        }
        context.insert_value(key.to_owned(), value);
    }
    if !message.context.contains_key("message") {
        let mut view = Value::try_from_serializable(&message_view(message))?;
        if let Some(map) = view.as_map().filter(|_| reads_context) {
            let mut map = map.clone();
            map.insert(Key::Str("context"), Value::from(values));
            view = Value::from(map);
        }
        context.insert_value("message", view);
    }
    Ok((context, has_exponent))
}

/// The decoder of a valid JSON text.
struct Decoder<'a> {
    tokens: Tokens<'a>,
    /// Whether Tera formats a number in it differently from Python.
    has_exponent: bool,
}

/// The next value, serialized directly into Tera's, so that no map is copied entry by entry. Integers of more than 128 bits, which
/// Tera cannot represent, become strings of their digits.
struct Next<'r, 'a>(&'r RefCell<Decoder<'a>>);

/// The initial capacity of maps.
const USUAL_ENTRIES: usize = 8;

impl Next<'_, '_> {
    fn skips(&self, sign: u8) -> bool {
        self.0.borrow_mut().tokens.skips(sign)
    }
}

impl Serialize for Next<'_, '_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let next = self.0.borrow_mut().tokens.next();
        let Some(token) = next else { return to.serialize_unit() };
        match token.source.as_bytes()[0] {
            b'"' => to.serialize_str(&token.text()),
            b't' => to.serialize_bool(true),
            b'f' => to.serialize_bool(false),
            b'n' => to.serialize_unit(),
            b'[' => {
                let mut list = to.serialize_seq(None)?;
                while !self.skips(b']') {
                    list.serialize_element(self)?;
                    self.skips(b',');
                }
                list.end()
            }
            b'{' => {
                // The last value of a duplicate key counts.
                let mut map = to.serialize_map(Some(USUAL_ENTRIES))?;
                while !self.skips(b'}') {
                    let key = self.0.borrow_mut().tokens.next();
                    self.skips(b':');
                    map.serialize_entry(&key.map(Token::text).unwrap_or_default(), self)?;
                    self.skips(b',');
                }
                map.end()
            }
            _ if token.is_integer() => integer(token.source, to),
            _ => {
                let number = token.source.parse::<f64>().unwrap_or_default();
                self.0.borrow_mut().has_exponent |= python_numbers::differs(number);
                to.serialize_f64(number)
            }
        }
    }
}

fn integer<S: Serializer>(token: &str, to: S) -> Result<S::Ok, S::Error> {
    if let Ok(number) = token.parse() {
        to.serialize_u64(number)
    } else if let Ok(number) = token.parse() {
        to.serialize_i64(number)
    } else if let Ok(number) = token.parse() {
        to.serialize_i128(number)
    } else if let Ok(number) = token.parse() {
        to.serialize_u128(number)
    } else {
        to.serialize_str(token)
    }
}

fn value(json: &str, has_exponent: &mut bool) -> TeraResult<Value> {
    let decoder = RefCell::new(Decoder { tokens: json::tokens(json), has_exponent: *has_exponent });
    let value = Value::try_from_serializable(&Next(&decoder))?;
    *has_exponent = decoder.into_inner().has_exponent;
    Ok(value)
}

/// The values of the tracking parameters of links.
pub(super) fn tracking(message: &Message, subject: &Subject) -> Tracking {
    let course_ids = message.context.value("course_ids");
    Tracking {
        app_label: message.app_label.clone(),
        name: message.name.clone(),
        channel_type: subject.channel_type.to_owned(),
        course_id: course_ids.as_ref().and_then(|ids| ids.get(0)?.as_str()).map(str::to_owned),
        uuid: message.uuid.to_string(),
    }
}

fn message_view(message: &Message) -> MessageView<'_> {
    MessageView {
        app_label: &message.app_label,
        name: &message.name,
        unique_name: message.unique_name(),
        log_id: message.log_id(),
        uuid: message.uuid,
        send_uuid: message.send_uuid,
        language: message.language.as_deref(),
        recipient: message
            .recipient
            .as_ref()
            .map(|r| RecipientView { lms_user_id: &r.lms_user_id, email_address: r.email_address.as_deref() }),
        expiration_time: message.expiration_time.as_ref(),
        options: &message.options,
        headers: &message.headers,
        log_level: message.log_level,
    }
}

fn channel_view<'a>(message: &Message, subject: &Subject<'a>) -> ChannelView<'a> {
    let omit = message.context.value(OMIT_UNSUBSCRIBE_LINK).as_ref().is_some_and(is_truthy)
        || message.option_is_true(OMIT_UNSUBSCRIBE_LINK);
    ChannelView {
        name: subject.channel,
        channel_type: subject.channel_type,
        action_links: subject.action_links.iter().filter(|link| !(omit && link.unsubscribe)).collect(),
        tracker_image_sources: subject.tracker_image_sources,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_text() {
        let json = r#"{"a":[1,-1,1.5,true,false,null,"x\n\"y"],"b":{},"c":[],"a\u00e9":{"d":[[]]},"b":2}"#;
        let ours = value(json, &mut false).expect("Tera holds it");
        let theirs: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(serde_json::to_value(&ours).expect("JSON"), theirs);
        for corrupt in ["", "[", "{", "[1", r#"{"a""#, r#"{"a":"#, "]"] {
            // Only valid texts are stored; a corrupt one must not hang or panic.
            let _ = value(corrupt, &mut false);
        }
    }
}
