//! The events of SES in a message of SNS, by event publishing (`eventType`) or by feedback notifications (`notificationType`)
//! (<https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html>).

use std::collections::BTreeMap;

use ace_address::person::normal_address;
use ace_plugin::feedback::Event;
use serde::Deserialize;
use serde_json::json;

use crate::time;

/// The tag in which `ses_email` sends the message's uuid. The cases have the tags that it sends.
const UUID_TAG: &str = "message-uuid";
/// Types of reports of a feedback loop (RFC 5965, RFC 6591) that are no complaint of a person.
const NO_COMPLAINTS: [&str; 4] = ["not-spam", "virus", "other", "auth-failure"];

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Report {
    event_type: Option<String>,
    notification_type: Option<String>,
    mail: Mail,
    bounce: Bounce,
    complaint: Complaint,
    delivery: Delivery,
    delivery_delay: Delay,
    reject: Reject,
    failure: Failure,
    open: Engagement,
    click: Engagement,
    subscription: Subscription,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mail {
    message_id: String,
    timestamp: String,
    destination: Vec<String>,
    headers: Vec<Header>,
    tags: BTreeMap<String, Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Bounce {
    bounce_type: String,
    bounce_sub_type: String,
    bounced_recipients: Vec<Recipient>,
    feedback_id: String,
    timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Recipient {
    email_address: String,
    action: Option<String>,
    status: Option<String>,
    diagnostic_code: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Complaint {
    complained_recipients: Vec<Recipient>,
    complaint_feedback_type: Option<String>,
    complaint_sub_type: Option<String>,
    user_agent: Option<String>,
    feedback_id: String,
    timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Delivery {
    recipients: Vec<String>,
    smtp_response: Option<String>,
    timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Delay {
    delay_type: Option<String>,
    delayed_recipients: Vec<Recipient>,
    timestamp: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reject {
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Failure {
    error_message: Option<String>,
}

/// An open or a click.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Engagement {
    timestamp: String,
    link: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subscription {
    timestamp: String,
    contact_list: Option<String>,
    new_topic_preferences: Preferences,
    old_topic_preferences: Option<Preferences>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Preferences {
    unsubscribe_all: bool,
}

/// The events in the text of a verified message. Other texts, such as the one with which SES tests a topic, have none.
///
/// # Errors
/// It is JSON, but not in the form of SES.
pub fn read(text: &str) -> Result<Vec<Event>, String> {
    if !text.trim_start().starts_with('{') {
        return Ok(Vec::new());
    }
    let report: Report = serde_json::from_str(text).map_err(|e| format!("Message: {e}"))?;
    Ok(report.events())
}

impl Report {
    fn events(&self) -> Vec<Event> {
        match self.event_type.as_deref().or(self.notification_type.as_deref()).unwrap_or_default() {
            "Bounce" => self.bounced(),
            "Complaint" => self.complained(),
            "Delivery" => self.delivered(),
            "DeliveryDelay" => self.delayed(),
            "Reject" => vec![reasoned(self.about_all("failed", &self.mail.timestamp), self.reject.reason.as_deref())],
            "Rendering Failure" => {
                let event = self.about_all("failed", &self.mail.timestamp);
                vec![reasoned(event, self.failure.error_message.as_deref())]
            }
            "Open" => vec![self.about_all("opened", &self.open.timestamp)],
            "Click" => {
                let event = self.about_all("clicked", &self.click.timestamp);
                vec![event.detail(&json!({"link": self.click.link}))]
            }
            "Subscription" => vec![self.subscribed()],
            _ => Vec::new(),
        }
    }

    /// A hard bounce is one that SES calls permanent, unless the report says that delivery is tried again; a full mailbox is none.
    fn bounced(&self) -> Vec<Event> {
        let Bounce { bounce_type, bounce_sub_type, bounced_recipients, feedback_id, timestamp } = &self.bounce;
        let detail = json!({"type": bounce_type, "subtype": bounce_sub_type});
        let one = |recipient: &Recipient| {
            let event = self.about("bounced", feedback_id, timestamp, &recipient.email_address);
            let event = reasoned(event, recipient.reason().as_deref().or(Some(bounce_sub_type))).detail(&detail);
            if bounce_type == "Permanent" && !recipient.is_delayed() { event.permanent() } else { event }
        };
        bounced_recipients.iter().map(one).collect()
    }

    /// Only reports of spam and fraud are complaints; other reports keep their names as kinds, as in the plugin `mail_reports`.
    fn complained(&self) -> Vec<Event> {
        let complaint = &self.complaint;
        let feedback_type = complaint.complaint_feedback_type.as_deref();
        let kind = feedback_type.filter(|kind| NO_COMPLAINTS.contains(kind)).unwrap_or("complained");
        let detail = json!({"subtype": complaint.complaint_sub_type, "user_agent": complaint.user_agent});
        let one = |recipient: &Recipient| {
            let address = &recipient.email_address;
            let event = self.about(kind, &complaint.feedback_id, &complaint.timestamp, address);
            reasoned(event, feedback_type).detail(&detail)
        };
        complaint.complained_recipients.iter().map(one).collect()
    }

    fn delivered(&self) -> Vec<Event> {
        let Delivery { recipients, smtp_response, timestamp } = &self.delivery;
        let one = |address: &String| {
            let event = self.about("delivered", &self.mail.message_id, timestamp, address);
            reasoned(event, smtp_response.as_deref())
        };
        recipients.iter().map(one).collect()
    }

    fn delayed(&self) -> Vec<Event> {
        let Delay { delay_type, delayed_recipients, timestamp } = &self.delivery_delay;
        let one = |recipient: &Recipient| {
            let event = self.about("deferred", &self.mail.message_id, timestamp, &recipient.email_address);
            reasoned(event, recipient.reason().as_deref().or(delay_type.as_deref()))
        };
        delayed_recipients.iter().map(one).collect()
    }

    /// What a person did on SES's own page of subscriptions.
    fn subscribed(&self) -> Event {
        let Subscription { timestamp, contact_list, new_topic_preferences, old_topic_preferences } = &self.subscription;
        let was_unsubscribed = old_topic_preferences.as_ref().is_some_and(|old| old.unsubscribe_all);
        let kind = match (was_unsubscribed, new_topic_preferences.unsubscribe_all) {
            (_, true) => "unsubscribed",
            (true, false) => "resubscribed",
            (false, false) => "subscription-changed",
        };
        self.about_all(kind, timestamp).detail(&json!({"contact_list": contact_list}))
    }

    /// An event about the whole mail, which concerns an address if there is only one.
    fn about_all(&self, kind: &str, timestamp: &str) -> Event {
        let address = match &self.mail.destination[..] {
            [single] => single,
            _ => "",
        };
        self.about(kind, &self.mail.message_id, timestamp, address)
    }

    /// `id` is the provider's, of the event or of the mail; kind, time and address tell the events of one mail apart.
    fn about(&self, kind: &str, id: &str, timestamp: &str, address: &str) -> Event {
        let mut event = Event::new(format!("{id}:{kind}:{timestamp}:{address}"), kind);
        event.is_vouched = address.is_empty() || self.mail.was_sent_to(address);
        event.at = time(timestamp);
        event.provider_id = Some(self.mail.message_id.clone()).filter(|id| !id.is_empty());
        event.message_uuid = self.mail.tags.get(UUID_TAG).and_then(|values| values.first()).cloned();
        // Of a mail that came to SES through a relay, whose Message-ID SES replaces.
        let is_message_id = |header: &&Header| header.name.eq_ignore_ascii_case("message-id");
        event.message_id = self.mail.headers.iter().find(is_message_id).map(|header| header.value.clone());
        if address.is_empty() { event } else { event.about("email", address) }
    }
}

impl Mail {
    /// Anybody can send SES a delivery report, and it may name any address.
    fn was_sent_to(&self, address: &str) -> bool {
        let address = normal_address(address);
        self.destination.iter().any(|destination| normal_address(destination) == address)
    }
}

impl Recipient {
    /// Whether the reported failure is temporary (RFC 3464).
    fn is_delayed(&self) -> bool {
        let is_delayed = self.action.as_deref().is_some_and(|action| action.eq_ignore_ascii_case("delayed"));
        is_delayed || self.status.as_deref().is_some_and(|status| status.starts_with("4."))
    }

    /// `5.1.1 smtp; 550 5.1.1 unknown user`.
    fn reason(&self) -> Option<String> {
        let parts: Vec<&str> =
            [&self.status, &self.diagnostic_code].into_iter().flatten().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }
}

fn reasoned(event: Event, reason: Option<&str>) -> Event {
    match reason.map(ace_plugin::email::one_line).filter(|reason| !reason.is_empty()) {
        Some(reason) => event.reason(reason),
        None => event,
    }
}
