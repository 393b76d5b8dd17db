//! From Twilio's reports to events.

use ace_plugin::feedback::Event;
use serde::Deserialize;
use serde_json::Value;

use crate::form::Form;

/// The kind of a recipient's contact.
const PHONE: &str = "phone";
/// Replies by which Twilio itself stops or starts sending, if the messaging service has no keywords of its own.
const STOP: [&str; 8] = ["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"];
const START: [&str; 3] = ["START", "YES", "UNSTOP"];

/// What Twilio says of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub account: String,
    /// Identifies the message.
    sid: String,
    /// In lower case.
    status: String,
    from: Option<String>,
    to: Option<String>,
    error: Option<u32>,
    keyword: Option<Keyword>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyword {
    Stop,
    Start,
}

/// The start of the types of events about messages. A stream may have others too.
const OF_MESSAGES: &str = "com.twilio.messaging.message.";

/// An event of Twilio's Event Streams.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    account_sid: String,
    message_sid: String,
    message_status: String,
    to: Option<String>,
    error_code: Option<Value>,
}

/// A status callback, or a reply.
pub fn from_form(form: &Form) -> Result<Report, String> {
    let text = |name: &str| form.get(name).map(str::to_owned);
    let required = |name: &str| text(name).ok_or_else(|| format!("the form has no {name}"));
    let status = text("MessageStatus").map_or_else(|| required("SmsStatus"), Ok)?;
    Report {
        account: required("AccountSid")?,
        sid: required("MessageSid")?,
        status: status.to_ascii_lowercase(),
        from: text("From"),
        to: text("To"),
        error: form.get("ErrorCode").and_then(|code| code.parse().ok()),
        keyword: keyword(form.get("OptOutType").or(form.get("Body")).unwrap_or_default()),
    }
    .checked()
}

/// Events about messages of Event Streams: a list of them, or one.
pub fn from_json(body: &[u8]) -> Result<Vec<Report>, String> {
    let body: Value = serde_json::from_slice(body).map_err(|e| format!("the body: {e}"))?;
    let events = if let Value::Array(events) = body { events } else { vec![body] };
    let envelope = |event: Value| serde_json::from_value::<Envelope>(event).map_err(|e| format!("an event: {e}"));
    let envelopes = events.into_iter().map(envelope).collect::<Result<Vec<_>, _>>()?;
    envelopes
        .into_iter()
        .filter(|event| event.kind.starts_with(OF_MESSAGES))
        .map(|event| from_data(event.data))
        .collect()
}

fn from_data(data: Value) -> Result<Report, String> {
    let data: Data = serde_json::from_value(data).map_err(|e| format!("an event: {e}"))?;
    let code = data.error_code.as_ref();
    let error = code.and_then(|code| code.as_u64().map_or_else(|| code.as_str()?.parse().ok(), Some));
    Report {
        account: data.account_sid,
        sid: data.message_sid,
        status: data.message_status.to_ascii_lowercase(),
        from: None,
        to: data.to,
        error: error.and_then(|code| u32::try_from(code).ok()),
        keyword: None,
    }
    .checked()
}

impl Report {
    /// Names and values are signed without anything between them, so a value must have its form.
    fn checked(self) -> Result<Self, String> {
        let is_message = ["SM", "MM"].iter().any(|prefix| is_sid(&self.sid, prefix));
        if is_message { Ok(self) } else { Err(format!("{:?} is not the SID of a message", self.sid)) }
    }

    /// Whether a person sent it.
    pub fn is_reply(&self) -> bool {
        matches!(self.status.as_str(), "receiving" | "received")
    }

    /// What happened. `None` for what is on its way, and for replies without a keyword.
    pub fn event(&self) -> Option<Event> {
        // The same report comes again, and in another form, with the same id.
        let event = |kind: &str| Event::new(format!("{}:{}", self.sid, self.status), kind).vouched();
        if self.is_reply() {
            let kind = match self.keyword? {
                Keyword::Stop => "unsubscribed",
                Keyword::Start => "resubscribed",
            };
            return Some(event(kind).about(PHONE, number(self.from.as_deref())?));
        }
        let event = match self.status.as_str() {
            "delivered" => event("delivered"),
            "read" => event("opened"),
            "undelivered" | "failed" => self.failure(event),
            "canceled" => event("failed").reason("canceled at Twilio"),
            _ => return None,
        };
        let event = event.of_provider_id(&self.sid);
        Some(match number(self.to.as_deref()) {
            Some(to) => event.about(PHONE, to),
            None => event,
        })
    }

    fn failure(&self, event: impl Fn(&str) -> Event) -> Event {
        let Some(code) = self.error else { return event("failed").reason(self.status.as_str()) };
        let reason = |event: Event, words: &str| event.reason(format!("Twilio error {code}: {words}"));
        match code {
            30003 => reason(event("bounced"), "the phone cannot be reached"),
            30008 => reason(event("bounced"), "unknown error"),
            30005 => reason(event("address-dead"), "the number is unknown or not in service").permanent(),
            30006 => reason(event("address-dead"), "a landline, or a network that cannot be reached").permanent(),
            30004 => reason(event("failed"), "the message was blocked"),
            30007 => reason(event("failed"), "the network filtered the message"),
            30034 => reason(event("failed"), "the sender is not registered"),
            21610 => reason(event("unsubscribed"), "the recipient sent STOP"),
            _ => event("failed").reason(format!("Twilio error {code}")),
        }
    }
}

/// Only the whole text of a reply is a keyword.
fn keyword(text: &str) -> Option<Keyword> {
    let text = text.trim().to_ascii_uppercase();
    let is_one = |keywords: &[&str]| keywords.contains(&text.as_str());
    match (is_one(&STOP), is_one(&START)) {
        (true, _) => Some(Keyword::Stop),
        (_, true) => Some(Keyword::Start),
        _ => None,
    }
}

/// An address that is a phone number; others name their network, as in `whatsapp:+15550100`.
fn number(address: Option<&str>) -> Option<&str> {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    address.filter(|address| address.strip_prefix('+').is_some_and(is_number))
}

/// Whether it is a SID of this type.
pub fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "SM0123456789abcdef0123456789abcdef";

    fn event(form: &str) -> Option<Event> {
        let form = Form::parse(format!("AccountSid=AC1&MessageSid={SID}&{form}").as_bytes());
        from_form(&form).expect("a report").event()
    }

    #[test]
    fn a_status_is_about_the_message_and_the_number() {
        let delivered = event("MessageStatus=delivered&SmsStatus=delivered&To=%2B15550100").expect("an event");
        assert_eq!((delivered.id, delivered.kind.as_str()), (format!("{SID}:delivered"), "delivered"));
        assert_eq!(delivered.provider_id.as_deref(), Some(SID));
        assert_eq!(delivered.address, Some((PHONE.to_owned(), "+15550100".to_owned())));
        assert!(delivered.is_vouched && !delivered.is_permanent);
        let read = event("MessageStatus=read&To=whatsapp%3A%2B15550100").expect("an event");
        assert_eq!((read.kind.as_str(), read.address), ("opened", None));
        for status in ["accepted", "scheduled", "queued", "sending", "sent", "partially_delivered"] {
            assert_eq!(event(&format!("MessageStatus={status}")), None, "{status}");
        }
    }

    #[test]
    fn the_code_of_a_failure_decides() {
        for (code, kind, is_permanent) in [
            ("30003", "bounced", false),
            ("30008", "bounced", false),
            ("30005", "address-dead", true),
            ("30006", "address-dead", true),
            ("30004", "failed", false),
            ("30007", "failed", false),
            ("30034", "failed", false),
            ("21610", "unsubscribed", false),
            ("12345", "failed", false),
            ("", "failed", false),
            ("x", "failed", false),
        ] {
            for status in ["undelivered", "failed"] {
                let event = event(&format!("MessageStatus={status}&ErrorCode={code}")).expect("an event");
                assert_eq!((event.kind.as_str(), event.is_permanent), (kind, is_permanent), "{code}");
                assert!(event.reason.is_some_and(|reason| reason.contains(code) || code == "x"), "{code}");
            }
        }
    }

    #[test]
    fn a_keyword_is_the_whole_reply() {
        let reply = |body: &str| event(&format!("SmsStatus=received&From=%2B15550100&To=%2B15550199&Body={body}"));
        let stop = reply("+sToP+").expect("an event");
        assert_eq!((stop.kind.as_str(), stop.provider_id), ("unsubscribed", None));
        assert_eq!(stop.address, Some((PHONE.to_owned(), "+15550100".to_owned())));
        assert_eq!(reply("optout").expect("an event").kind, "unsubscribed");
        assert_eq!(reply("unstop").expect("an event").kind, "resubscribed");
        assert_eq!(reply("Stop+please"), None);
        assert_eq!(reply("arr%C3%AAt&OptOutType=STOP").expect("an event").kind, "unsubscribed");
        assert_eq!(reply("stop&OptOutType=HELP"), None, "the messaging service has its own keywords");
        // A message of ours whose text is a keyword is no reply.
        assert_eq!(event("MessageStatus=delivered&Body=STOP").expect("an event").kind, "delivered");
    }

    #[test]
    fn events_of_a_stream_are_those_of_callbacks() {
        let data = |status: &str, code: Value| {
            serde_json::json!({"specversion": "1.0", "type": "com.twilio.messaging.message.x", "data": {
            "accountSid": "AC1", "messageSid": SID, "messageStatus": status, "to": "+15550100", "errorCode": code}})
        };
        let other = |kind: &str| serde_json::json!({"type": kind, "data": {"accountSid": "AC2", "status": "x"}});
        let others =
            ["com.twilio.messaging.inbound-message.received", "com.twilio.voice.insights.call-summary.complete"];
        let body = serde_json::json!([
            other(others[0]),
            data("UNDELIVERED", 30005.into()),
            data("FAILED", "30003".into()),
            other(others[1]),
            {"type": "com.twilio.errors.error-log.error"},
        ]);
        let events: Vec<Event> =
            from_json(body.to_string().as_bytes()).expect("JSON").iter().filter_map(Report::event).collect();
        let callback = |form: &str| event(&format!("{form}&To=%2B15550100")).expect("an event");
        let expected =
            [callback("MessageStatus=undelivered&ErrorCode=30005"), callback("MessageStatus=failed&ErrorCode=30003")];
        assert_eq!(events, expected);
        assert_eq!(from_json(data("DELIVERED", Value::Null).to_string().as_bytes()).expect("JSON").len(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let wrong = |form: &str| from_form(&Form::parse(form.as_bytes())).expect_err(form);
        assert_eq!(wrong("AccountSid=AC1&MessageStatus=sent"), "the form has no MessageSid");
        assert_eq!(wrong(&format!("AccountSid=AC1&MessageSid={SID}")), "the form has no SmsStatus");
        assert_eq!(wrong("AccountSid=AC1&MessageSid=SM1&MessageStatus=sent"), "\"SM1\" is not the SID of a message");
        assert!(from_json(b"[{}]").expect_err("empty").starts_with("an event: missing field `type`"));
        let unreadable =
            serde_json::json!([{"type": "com.twilio.messaging.message.sent", "data": {"accountSid": "AC1"}}]);
        let unreadable = from_json(unreadable.to_string().as_bytes()).expect_err("no SID");
        assert!(unreadable.starts_with("an event: missing field `messageSid`"), "{unreadable}");
        assert!(from_json(b"<html>").expect_err("HTML").starts_with("the body: "));
    }
}
