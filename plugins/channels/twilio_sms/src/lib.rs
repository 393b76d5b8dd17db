//! Delivers SMS through Twilio. The recipient's first number gets the message; the outcome for the number is noted.
//!
//! The modules below do not call the host.

mod answer;
mod request;
mod segments;
mod settings;

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use ace_address::suppression::{self, PHONE, Reason, Scope, Suppression};
use ace_plugin::authorized_http;
use ace_plugin::channel::{Attempt, Channel, ChannelInfo, DeliveryError, Receipt, Rendered};
use ace_plugin::delivery::{self, Note};
use ace_plugin::{Message, RecoverableError, Settings, keyvalue, random, time};

use answer::{Outcome, Refusal};
use request::Sms;

/// The plugin's name for its credential.
const CREDENTIAL: &str = "twilio";

static SETTINGS: LazyLock<Result<settings::Settings, String>> =
    LazyLock::new(|| settings::read(|key| Settings.text(key)));

struct TwilioSms;

ace_plugin::export_channel!(TwilioSms);

impl Channel for TwilioSms {
    fn describe() -> ChannelInfo {
        ChannelInfo::new("sms").file("body.txt")
    }

    fn enabled() -> Result<(), String> {
        SETTINGS.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn deliver(message: &Message, rendered: Rendered, _: &Attempt) -> Result<Receipt, DeliveryError> {
        let settings = SETTINGS.as_ref().map_err(|why| DeliveryError::Fatal(why.clone()))?;
        let recipient = message.recipient();
        let Some(number) = recipient.as_ref().and_then(|recipient| recipient.contact(PHONE)) else {
            return Err(DeliveryError::Skipped("the recipient has no phone number".to_owned()));
        };
        let Some(to) = request::e164(number) else {
            delivery::note(&Note::failed(PHONE, number).code("not E.164"));
            return Err(DeliveryError::Skipped("the recipient's phone number is not an international one".to_owned()));
        };
        let body = rendered.text("body.txt")?.trim();
        let segments = segments::count(body);
        if segments > settings.segments_max {
            let why = format!(
                "the text has {segments} segments, and config key \"max-segments\" is {}",
                settings.segments_max
            );
            return Err(DeliveryError::Fatal(why));
        }
        let sms = Sms { to: &to, body, expires: message.expiration_time(), now: time::now() };
        let response = authorized_http::fetch(&sms.request(settings), CREDENTIAL)?;
        finish(number, answer::read(&response, segments, time::now(), random::u64()))
    }
}

/// Notes the outcome for the number, and returns the result.
fn finish(number: &str, outcome: Outcome) -> Result<Receipt, DeliveryError> {
    let coded =
        |note: Note, refusal: &Refusal| refusal.code.iter().fold(note, |note, code| note.code(code.to_string()));
    match outcome {
        Outcome::Accepted { sid, detail } => {
            delivery::note(&sid.iter().fold(Note::sent(PHONE, number), |note, sid| note.provider_id(sid)));
            Ok(Receipt { provider_id: sid, detail: serde_json::to_string(&detail).ok() })
        }
        Outcome::Dropped(refusal) => {
            delivery::note(&coded(Note::dropped(PHONE, number), &refusal));
            Err(DeliveryError::Skipped(refusal.reason))
        }
        Outcome::Suppressed(refusal) => {
            delivery::note(&coded(Note::failed(PHONE, number), &refusal));
            suppress(number, &refusal)?;
            Err(DeliveryError::Skipped(refusal.reason))
        }
        Outcome::Failed(refusal) => Err(DeliveryError::Fatal(refusal.reason)),
        Outcome::Account(refusal) => {
            delivery::hold(None, &refusal.reason);
            Err(DeliveryError::recoverable(refusal.reason))
        }
        Outcome::Later(refusal, at) => {
            let error = RecoverableError { message: refusal.reason, next_attempt_time: Some(at) };
            Err(DeliveryError::Recoverable(error))
        }
    }
}

/// Writes the number to the suppressed addresses: Twilio sends it nothing any more, whatever the message is.
fn suppress(number: &str, refusal: &Refusal) -> Result<(), DeliveryError> {
    let entry = Suppression {
        reason: Reason::Unsubscribe,
        scope: Scope::All,
        source: "twilio_sms".to_owned(),
        time: humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(time::now())).to_string(),
        detail: Some(refusal.reason.clone()),
    };
    let key = suppression::key(PHONE, number).map_err(|error| DeliveryError::Fatal(error.to_string()))?;
    Ok(keyvalue::set(suppression::BUCKET, &key, &entry.to_json(), None)?)
}

#[cfg(test)]
mod tests {
    ace_plugin::table_test!(channel super::TwilioSms);
}
