//! The request: `POST /2010-04-01/Accounts/{sid}/Messages.json`
//! (<https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>).

use ace_plugin::Timestamp;
use ace_plugin::http::Request;

use crate::settings::{Sender, Settings};

/// One SMS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms<'a> {
    /// E.164.
    pub to: &'a str,
    pub body: &'a str,
    /// When the message expires.
    pub expires: Option<Timestamp>,
    pub now: Timestamp,
}

impl Sms<'_> {
    /// The request without its credential.
    pub fn request(&self, settings: &Settings) -> Request {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("To", self.to);
        match &settings.sender {
            Sender::From(from) => form.append_pair("From", from),
            Sender::MessagingService(service) => form.append_pair("MessagingServiceSid", service),
        };
        form.append_pair("Body", self.body);
        if let Some(url) = &settings.status_callback {
            form.append_pair("StatusCallback", url);
        }
        form.append_pair("ValidityPeriod", &self.validity(settings).to_string());
        Request::post(&settings.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.finish())
            .timeout_ms(settings.timeout_ms)
    }

    /// How long Twilio may try, in seconds: until the message expires.
    fn validity(&self, settings: &Settings) -> u32 {
        let left = self.expires.map(|at| at.saturating_sub(self.now) / 1000);
        left.and_then(|seconds| u32::try_from(seconds).ok())
            .map_or(settings.validity_seconds, |seconds| seconds.clamp(1, settings.validity_seconds))
    }
}

/// The number without the spaces and punctuation that people write, if it is one in E.164.
pub fn e164(number: &str) -> Option<String> {
    let plain: String = number.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/')).collect();
    let digits = plain.strip_prefix('+')?;
    let is_number = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    (is_number && !digits.starts_with('0')).then_some(plain)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What the official client sends. See tests/fixtures/README.md.
    const RECORDED: &str = include_str!("../../../../tests/fixtures/vendors/twilio.json");

    fn settings(sender: Sender) -> Settings {
        Settings {
            url: "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages.json".to_owned(),
            sender,
            status_callback: None,
            validity_seconds: 36_000,
            segments_max: 10,
            timeout_ms: 15_000,
        }
    }

    fn body(request: &Request) -> &str {
        std::str::from_utf8(request.body.as_deref().expect("a body")).expect("text")
    }

    #[test]
    fn the_form_has_the_fields_of_the_message_resource() {
        let sms = Sms { to: "+4915550100", body: "Grüße & 1+1", expires: None, now: 0 };
        let request = sms.request(&settings(Sender::From("+15550100".to_owned())));
        assert_eq!(request.method, "POST");
        let expected = "To=%2B4915550100&From=%2B15550100&Body=Gr%C3%BC%C3%9Fe+%26+1%2B1&ValidityPeriod=36000";
        assert_eq!(body(&request), expected);
        let with_callback = Settings {
            status_callback: Some("https://ace.example/v1/feedback/twilio".to_owned()),
            ..settings(Sender::MessagingService("MG1".to_owned()))
        };
        let request = sms.request(&with_callback);
        let expected = "MessagingServiceSid=MG1&Body=Gr%C3%BC%C3%9Fe+%26+1%2B1&StatusCallback=https%3A%2F%2Face.example%2Fv1%2Ffeedback%2Ftwilio";
        assert!(body(&request).contains(expected), "{}", body(&request));
    }

    /// The order of the fields aside, which has no meaning.
    #[test]
    fn the_requests_are_those_of_the_official_client() {
        let recorded: Value = serde_json::from_str(RECORDED).expect("the recording is JSON");
        for case in recorded["requests"].as_array().expect("requests") {
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let settings = crate::settings::read(|key| match key {
                "account-sid" => recorded["account"].as_str().map(str::to_owned),
                _ => case["settings"][key].as_str().map(str::to_owned),
            });
            let (to, content) = (text(&recorded["to"]), text(&case["body"]));
            let sms = Sms { to: &to, body: &content, expires: None, now: 0 };
            let request = sms.request(settings.as_ref().expect("valid"));
            let theirs = &case["request"];
            let url = format!("https://{}{}", text(&theirs["host"]), text(&theirs["path"]));
            assert_eq!((&request.method, &request.url), (&text(&theirs["method"]), &url));
            for (name, value) in &request.headers {
                assert_eq!(Some(value.as_str()), theirs["headers"][name].as_str(), "{name}");
            }
            let fields = |body: &str| form_urlencoded::parse(body.as_bytes()).into_owned().collect::<BTreeSet<_>>();
            assert_eq!(fields(body(&request)), fields(&text(&theirs["body"])), "{}", case["case"]);
        }
    }

    #[test]
    fn twilio_tries_no_longer_than_the_message_is_valid() {
        let settings = settings(Sender::From("+1".to_owned()));
        let validity = |expires| Sms { to: "", body: "", expires, now: 1_000_000 }.validity(&settings);
        assert_eq!(validity(None), 36_000);
        assert_eq!(validity(Some(1_090_000)), 90);
        assert_eq!(validity(Some(1_000_200)), 1, "the minimum");
        assert_eq!(validity(Some(u64::MAX)), 36_000);
    }

    #[test]
    fn a_number_is_international() {
        assert_eq!(e164("+49 (155) 50-100.99").as_deref(), Some("+491555010099"));
        for wrong in ["015550100", "+0155501000", "+1234", "+1234567890123456", "+49x5550100", "", "+"] {
            assert_eq!(e164(wrong), None, "{wrong}");
        }
    }
}
