//! What a template sees: `message`, `channel`, and the message's context on top, which may shadow both (as in edx-ace).

use serde::Serialize;
use tera::value::Key;
use tera::{Context, Map, TeraResult, Value};
use uuid::Uuid;

use super::Subject;
use super::links::Tracking;
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
pub(super) fn build(message: &Message, subject: &Subject, reads_context: bool) -> TeraResult<Context> {
    let mut context = Context::new();
    let mut values = Map::new();
    if !message.context.contains_key("channel") {
        context.insert_value("channel", Value::try_from_serializable(&channel_view(message, subject))?);
    }
    for (key, json) in message.context.iter() {
        let mut json = serde_json::Deserializer::from_str(json);
        let value = Value::try_from_serializable(&serde_transcode::Transcoder::new(&mut json))?;
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
    Ok(context)
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
