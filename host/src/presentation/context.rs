//! What a template sees: `message`, `channel`, and the message's context on top, which may shadow both (as in edx-ace).

use serde::Serialize;
use tera::value::Key;
use tera::{Context, Map, TeraResult, Value};
use uuid::Uuid;

use super::Subject;
use super::links::Tracking;
use super::shown;
use crate::message::json::{self, Tokens};
use crate::message::{ActionLink, DateTime, Headers, Message, Object, UserId, is_truthy};

/// The key by which a message's context or options drop the unsubscribe links.
const OMIT_UNSUBSCRIBE_LINK: &str = "omit_unsubscribe_link";

/// `message`, with the attributes that edx-ace's has, but for `context`.
#[derive(Serialize)]
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

#[derive(Serialize)]
struct RecipientView<'a> {
    lms_user_id: &'a UserId,
    email_address: Option<&'a str>,
}

#[derive(Serialize)]
struct ChannelView<'a> {
    name: &'a str,
    channel_type: &'a str,
    action_links: Vec<&'a ActionLink>,
    tracker_image_sources: &'a [String],
}

/// Built once a message and used for all of its files. Only with `reads_context` is `message.context` in it: its values once more.
/// True where a number in it is written otherwise by Tera than by Python ([`shown`]).
pub(super) fn build(message: &Message, subject: &Subject, reads_context: bool) -> TeraResult<(Context, bool)> {
    let mut context = Context::new();
    let mut values = Map::new();
    let mut has_exponent = false;
    if !message.context.contains_key("channel") {
        context.insert_value("channel", Value::try_from_serializable(&channel_view(message, subject))?);
    }
    for (key, json) in message.context.iter() {
        let value = value(&mut json::tokens(json), &mut has_exponent);
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

/// The next value of a sound JSON text. Whole numbers of more than 128 bits, which Tera cannot hold, are texts of their digits.
fn value(tokens: &mut Tokens, has_exponent: &mut bool) -> Value {
    let Some(token) = tokens.next() else { return Value::none() };
    match token.as_bytes()[0] {
        b'"' => json::text(token).into(),
        b't' => true.into(),
        b'f' => false.into(),
        b'n' => Value::none(),
        b'[' => list(tokens, has_exponent).into(),
        b'{' => map(tokens, has_exponent).into(),
        _ if json::is_integer(token) => integer(token),
        _ => {
            let number = token.parse::<f64>().unwrap_or_default();
            *has_exponent |= shown::differs(number);
            number.into()
        }
    }
}

fn integer(token: &str) -> Value {
    let short = || token.parse::<u64>().map(Value::from).or_else(|_| token.parse::<i64>().map(Value::from));
    let long = || token.parse::<i128>().map(Value::from).or_else(|_| token.parse::<u128>().map(Value::from));
    short().or_else(|_| long()).unwrap_or_else(|_| token.into())
}

/// What follows `[`.
fn list(tokens: &mut Tokens, has_exponent: &mut bool) -> Vec<Value> {
    let mut items = Vec::new();
    while !tokens.skips("]") {
        items.push(value(tokens, has_exponent));
        tokens.skips(",");
    }
    items
}

/// What follows `{`. A key that is there twice has its last value.
fn map(tokens: &mut Tokens, has_exponent: &mut bool) -> Map {
    let mut map = Map::new();
    while let Some(key) = tokens.next().filter(|token| *token != "}") {
        tokens.skips(":");
        let value = value(tokens, has_exponent);
        map.insert(Key::String(json::text(key).into()), value);
        tokens.skips(",");
    }
    map
}

/// What links are marked with.
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
    fn values_are_what_the_text_says() {
        let json = r#"{"a":[1,-1,1.5,true,false,null,"x\n\"y"],"b":{},"c":[],"a\u00e9":{"d":[[]]},"b":2}"#;
        let ours = value(&mut json::tokens(json), &mut false);
        let theirs: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(serde_json::to_value(&ours).expect("JSON"), theirs);
        for broken in ["", "[", "{", "[1", r#"{"a""#, r#"{"a":"#, "]"] {
            // Never read, as what is kept was sound; but nothing hangs or panics.
            value(&mut json::tokens(broken), &mut false);
        }
    }
}
