//! Reads what Amazon SES reports through SNS: bounces, complaints, deliveries and more. Every message is verified, with a certificate from
//! the host of the topic's region.
//!
//! The modules below do not call the host.

mod events;
mod sns;
mod topic;

use std::sync::LazyLock;
use std::time::UNIX_EPOCH;

use ace_plugin::feedback::{Feedback, FeedbackError, Received, Request};
use ace_plugin::signatures::{self, SignatureError};
use ace_plugin::{Settings, Timestamp, http, keyvalue};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use sns::{Kind, Message};
use topic::Topic;

/// The bucket in which certificates are kept.
const BUCKET: &str = "sns-certificates";
/// How long a certificate is kept. Another one has another URL.
const CERTIFICATE_TTL_MS: u64 = 30 * 24 * 3_600_000;
/// SNS answers at once. Anybody can make the plugin ask for a certificate, so none may take long.
const FETCH_TIMEOUT_MS: u32 = 5_000;
/// How old a message may be. SNS repeats a message for an hour at most.
const AGE_MAX_MS: u64 = 24 * 3_600_000;

static TOPICS: LazyLock<Result<Vec<Topic>, String>> = LazyLock::new(topics);

struct Ses;

ace_plugin::export_feedback!(Ses);

impl Feedback for Ses {
    fn enabled() -> Result<(), String> {
        TOPICS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn receive(request: &Request) -> Result<Received, FeedbackError> {
        let topics = TOPICS.as_ref().map_err(|why| FeedbackError::Unavailable(why.clone()))?;
        let message: Message = serde_json::from_slice(&request.body()).map_err(refused("not a message of SNS: "))?;
        if request.header("x-amz-sns-message-type").as_deref() != Some(message.kind.name()) {
            return Err(FeedbackError::Refused("x-amz-sns-message-type is not the Type of the body".to_owned()));
        }
        // Before anything is fetched: other people's topics are signed just as well.
        let Some(topic) = topics.iter().find(|topic| topic.arn == message.topic_arn) else {
            return Err(FeedbackError::Refused(format!("{:?} is not in config key \"topics\"", message.topic_arn)));
        };
        let age = time(&message.timestamp).map(|at| at.abs_diff(request.received_at()));
        if age.is_none_or(|age| age > AGE_MAX_MS) {
            return Err(FeedbackError::Refused("its Timestamp is not of the last day".to_owned()));
        }
        verify(topic, &message)?;
        match message.kind {
            Kind::Notification => {
                return events::read(&message.message).map(Received::of).map_err(FeedbackError::Malformed);
            }
            Kind::SubscriptionConfirmation => confirm(topic, &message)?,
            Kind::UnsubscribeConfirmation => ace_plugin::warn!("{}: the subscription was removed", topic.arn),
        }
        Ok(Received::default())
    }
}

fn topics() -> Result<Vec<Topic>, String> {
    let wrong = |why: String| format!("config key \"topics\": {why}");
    let arns: Vec<String> = Settings.require("topics")?;
    if arns.is_empty() {
        return Err(wrong("it is empty; list the topics to which SES publishes".to_owned()));
    }
    arns.iter().map(|arn| Topic::parse(arn).map_err(wrong)).collect()
}

fn refused<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> FeedbackError {
    move |why| FeedbackError::Refused(format!("{what}{why}"))
}

/// Whether SNS signed the message.
fn verify(topic: &Topic, message: &Message) -> Result<(), FeedbackError> {
    let signed = message.signed().map_err(refused(""))?;
    let key = topic.certificate(&message.certificate_url).map_err(refused(""))?;
    let kept = keyvalue::get(BUCKET, key).map_err(|e| FeedbackError::Unavailable(e.into()))?;
    let kept = kept.and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let is_new = kept.is_none();
    let certificate = match kept {
        Some(der) => der,
        None => fetch_certificate(&message.certificate_url)?,
    };
    let is_valid = signatures::verify_with(&certificate, signed.algorithm, signed.text.as_bytes(), &signed.signature);
    let is_valid = is_valid.map_err(|e: SignatureError| FeedbackError::Unavailable(e.into()))?;
    // Only one that can be used is kept.
    if is_new {
        let base64 = BASE64_STANDARD.encode(&certificate);
        if let Err(why) = keyvalue::set(BUCKET, key, base64.as_bytes(), Some(CERTIFICATE_TTL_MS)) {
            ace_plugin::warn!("the certificate of SNS is fetched again for each message: {}", String::from(why));
        }
    }
    if is_valid { Ok(()) } else { Err(FeedbackError::Refused("the signature is wrong".to_owned())) }
}

fn fetch_certificate(url: &str) -> Result<Vec<u8>, FeedbackError> {
    let response = fetch(url)?;
    // SNS has no such certificate, so it did not sign the message.
    if matches!(response.status, 403 | 404) {
        return Err(FeedbackError::Refused(answered(url, &response)));
    }
    check_success(url, &response)?;
    let invalid = || FeedbackError::Unavailable(format!("{url} is not a certificate: {}", response.excerpt()));
    sns::certificate(&response.body).ok_or_else(invalid)
}

/// Confirms the subscription, so that SNS sends its notifications.
fn confirm(topic: &Topic, message: &Message) -> Result<(), FeedbackError> {
    let (url, token) = (message.subscribe_url.as_deref(), message.token.as_deref());
    let url = url.unwrap_or_default();
    topic.check_subscribe_url(url, token.unwrap_or_default()).map_err(refused(""))?;
    check_success(url, &fetch(url)?)?;
    ace_plugin::info!("{}: the subscription is confirmed", topic.arn);
    Ok(())
}

fn fetch(url: &str) -> Result<http::Response, FeedbackError> {
    let request = http::Request::get(url).timeout_ms(FETCH_TIMEOUT_MS);
    http::fetch(&request).map_err(|e| FeedbackError::Unavailable(e.into()))
}

fn check_success(url: &str, response: &http::Response) -> Result<(), FeedbackError> {
    let is_success = (200..=299).contains(&response.status);
    is_success.then_some(()).ok_or_else(|| FeedbackError::Unavailable(answered(url, response)))
}

/// Without the query, which may contain a token.
fn answered(url: &str, response: &http::Response) -> String {
    format!("{} answered {}", url.split('?').next().unwrap_or_default(), response.status)
}

fn time(text: &str) -> Option<Timestamp> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(feedback super::Ses);
}
