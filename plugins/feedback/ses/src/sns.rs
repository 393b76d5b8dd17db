//! Messages of SNS, and what SNS signs of them
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    #[serde(rename = "Type")]
    pub kind: Kind,
    message_id: String,
    pub topic_arn: String,
    subject: Option<String>,
    pub message: String,
    pub timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    pub certificate_url: String,
    /// Only in a confirmation.
    #[serde(rename = "SubscribeURL")]
    pub subscribe_url: Option<String>,
    pub token: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

impl Kind {
    /// As in the header `x-amz-sns-message-type`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Notification => "Notification",
            Kind::SubscriptionConfirmation => "SubscriptionConfirmation",
            Kind::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// What the signature covers.
pub struct Signed {
    pub algorithm: &'static str,
    pub text: String,
    pub signature: Vec<u8>,
}

impl Message {
    pub fn signed(&self) -> Result<Signed, String> {
        let algorithm = match self.signature_version.as_str() {
            "1" => "rsa-pkcs1-sha1",
            "2" => "rsa-pkcs1-sha256",
            other => return Err(format!("SignatureVersion {other:?} is unknown")),
        };
        let signature = BASE64_STANDARD.decode(&self.signature).map_err(|_| "the signature is not Base64")?;
        Ok(Signed { algorithm, text: self.text(), signature })
    }

    /// Names and values of the fields that are there, in the order of their names.
    fn text(&self) -> String {
        let is_notification = self.kind == Kind::Notification;
        let subject = self.subject.as_ref().filter(|_| is_notification);
        let of_confirmation = |field: &Option<String>| field.clone().filter(|_| !is_notification);
        let fields = [
            ("Message", Some(self.message.clone())),
            ("MessageId", Some(self.message_id.clone())),
            ("Subject", subject.cloned()),
            ("SubscribeURL", of_confirmation(&self.subscribe_url)),
            ("Timestamp", Some(self.timestamp.clone())),
            ("Token", of_confirmation(&self.token)),
            ("TopicArn", Some(self.topic_arn.clone())),
            ("Type", Some(self.kind.name().to_owned())),
        ];
        let lines = fields.into_iter().filter_map(|(name, value)| Some(format!("{name}\n{}\n", value?)));
        lines.collect()
    }
}

/// The DER of the first certificate in a PEM file.
pub fn certificate(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (base64, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let base64: String = base64.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(base64).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(more: Value) -> String {
        let mut body = json!({
            "Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": "text", "Timestamp": "now",
            "SignatureVersion": "2", "Signature": "AQI=", "SigningCertURL": "u"
        });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        serde_json::from_value::<Message>(body).expect("a message").text()
    }

    #[test]
    fn the_signed_text_has_the_fields_of_its_type() {
        let plain = "Message\ntext\nMessageId\nm\nTimestamp\nnow\nTopicArn\nt\nType\nNotification\n";
        assert_eq!(text(json!({})), plain);
        assert_eq!(text(json!({"SubscribeURL": "s", "Token": "k", "UnsubscribeURL": "x"})), plain);
        let with_subject = "Message\ntext\nMessageId\nm\nSubject\ns\nTimestamp\nnow\nTopicArn\nt\nType\nNotification\n";
        assert_eq!(text(json!({"Subject": "s"})), with_subject);
        let confirmation = "Message\ntext\nMessageId\nm\nSubscribeURL\ns\nTimestamp\nnow\nToken\nk\nTopicArn\nt\nType\nSubscriptionConfirmation\n";
        assert_eq!(text(json!({"Type": "SubscriptionConfirmation", "SubscribeURL": "s", "Token": "k"})), confirmation);
    }

    #[test]
    fn a_certificate_is_the_first_of_a_file() {
        let pem = b"x\n-----BEGIN CERTIFICATE-----\nAQ\r\nI=\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n";
        assert_eq!(certificate(pem), Some(vec![1, 2]));
        assert_eq!(certificate(b"<html>"), None);
    }
}
