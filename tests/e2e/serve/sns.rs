//! The feedback plugin `ses`: messages of SNS that a test's key signs, from the route to the suppressed address.
//!
//! The certificate is in the plugin's bucket already, because it may only come from Amazon's hosts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, SigningKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, home, note};
use crate::support::{Home, channel, repository};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:ses-events";
const LEARNER: &str = "a@learner.example";
const CERTIFICATE: &str = "sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";

fn key() -> KeyPair {
    let pem = std::fs::read_to_string(repository("tests/fixtures/dkim/rsa_pkcs8.pem")).expect("a file");
    KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("a key")
}

fn start() -> (Home, Server) {
    let home = home(&format!(
        "[keyvalue]\ndatabase = 'entries.db'\nfiles = ['certificates.ndjson']\n\n\
         [plugins.ses]\nconfig = {{ topics = ['{TOPIC}'] }}\n\
         grants = {{ keyvalue = ['sns-certificates:read-write'], feedback = ['django_email'] }}\n\n\
         [plugins.suppression]\ngrants = {{ keyvalue = ['suppressions:read'] }}\n"
    ));
    home.plugin("ses");
    home.plugin("suppression");
    let certificate = CertificateParams::default().self_signed(&key()).expect("signed");
    let entry = json!({
        "bucket": "sns-certificates", "key": CERTIFICATE, "value": BASE64_STANDARD.encode(certificate.der()),
    });
    home.file("certificates.ndjson", entry.to_string());
    let server = Server::start(&home);
    (home, server)
}

/// A notification with its signature.
fn notification(topic: &str, event: &Value) -> Value {
    let timestamp = jiff::Timestamp::now().to_string();
    let message = event.to_string();
    let fields = BTreeMap::from([
        ("Message", message.as_str()),
        ("MessageId", "m-1"),
        ("Timestamp", timestamp.as_str()),
        ("TopicArn", topic),
        ("Type", "Notification"),
    ]);
    let text: String = fields.iter().map(|(name, value)| format!("{name}\n{value}\n")).collect();
    let mut body = json!(fields);
    body["SignatureVersion"] = "2".into();
    body["Signature"] = BASE64_STANDARD.encode(key().sign(text.as_bytes()).expect("signed")).into();
    body["SigningCertURL"] = format!("https://{CERTIFICATE}").into();
    body
}

async fn post(server: &Server, body: &Value) -> StatusCode {
    let request = server.bare(Method::POST, "/v1/feedback/ses").header("x-amz-sns-message-type", "Notification");
    request.body(body.to_string()).send().await.expect("answered").status()
}

/// A bounce of a mail to the learner that SES got from a relay.
fn bounce(uuid: Uuid, kind: &str, address: &str) -> Value {
    let header = json!({"name": "Message-ID", "value": format!("<{uuid}.django_email@campus.example>")});
    let recipients = json!([{"emailAddress": address, "status": "5.1.1"}]);
    json!({
        "eventType": "Bounce",
        "mail": {"messageId": "0107-a", "destination": [LEARNER], "headers": [header]},
        "bounce": {
            "bounceType": kind, "bounceSubType": "General", "bouncedRecipients": recipients,
            "feedbackId": format!("f-{kind}"), "timestamp": "2026-03-01T11:59:30.000Z",
        },
    })
}

#[tokio::test]
async fn a_signed_bounce_suppresses_and_a_forged_one_does_not() {
    let (_home, server) = start();
    let uuid = Uuid::from_u128(1);
    let recipient = json!({"recipient": {"lms_user_id": 7, "email_address": LEARNER}});
    server.send(&note(1, recipient.clone())).await;
    let entry = async || server.get("/v1/keyvalue/suppressions/email:a@learner.example").await;

    let hard = notification(TOPIC, &bounce(uuid, "Permanent", LEARNER));
    let mut forged = hard.clone();
    forged["Message"] = hard["Message"].as_str().expect("text").replace("5.1.1", "5.1.0").into();
    assert_eq!(post(&server, &forged).await, StatusCode::UNAUTHORIZED);
    let elsewhere = notification(&TOPIC.replace("ses-events", "evil"), &bounce(uuid, "Permanent", LEARNER));
    assert_eq!(post(&server, &elsewhere).await, StatusCode::UNAUTHORIZED, "another topic's signature is as valid");
    assert_eq!(post(&server, &notification(TOPIC, &bounce(uuid, "Transient", LEARNER))).await, StatusCode::NO_CONTENT);
    assert_eq!(entry().await.0, StatusCode::NOT_FOUND);

    // Repeated by SNS, and by SES in another message.
    for body in [&hard, &hard, &notification(TOPIC, &bounce(uuid, "Permanent", LEARNER))] {
        assert_eq!(post(&server, body).await, StatusCode::NO_CONTENT);
    }
    let (_, suppressed) = entry().await;
    assert_eq!((&suppressed["reason"], &suppressed["source"]), (&json!("hard-bounce"), &json!("ses")));
    let (_, message) = server.get(&format!("/v1/messages/{uuid}")).await;
    let shown = message["feedback"].as_array().expect("events");
    let permanent: Vec<&Value> = shown.iter().map(|event| &event["permanent"]).collect();
    assert_eq!(permanent, [&json!(false), &json!(true)], "{shown:?}");

    let next = server.send(&note(2, recipient)).await;
    let denied = channel(&next, "email");
    assert_eq!(denied["state"], "denied", "{next:#}");
    assert!(denied.to_string().contains("hard-bounce"), "{denied}");
}

/// Anybody can send SES a delivery report that names another address.
#[tokio::test]
async fn a_bounce_of_an_address_that_got_no_mail_suppresses_nobody() {
    let (_home, server) = start();
    server.send(&note(1, json!({"recipient": {"lms_user_id": 7, "email_address": LEARNER}}))).await;
    let event = bounce(Uuid::from_u128(1), "Permanent", "b@learner.example");
    assert_eq!(post(&server, &notification(TOPIC, &event)).await, StatusCode::NO_CONTENT);
    let (_, message) = server.get(&format!("/v1/messages/{}", Uuid::from_u128(1))).await;
    let shown = &message["feedback"][0];
    assert_eq!((&shown["kind"], &shown["vouched"]), (&json!("bounced"), &json!(false)), "{message:#}");
    for address in [LEARNER, "b@learner.example"] {
        let entry = server.get(&format!("/v1/keyvalue/suppressions/email:{address}")).await;
        assert_eq!(entry.0, StatusCode::NOT_FOUND, "{address}");
    }
}
