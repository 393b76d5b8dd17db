//! A day in a learner's life: what one person gets over mail, push and SMS through one server, and why.

use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::addresses::{channel_until, events};
use super::mail_reports::{SECRET, pipe, report};
use super::{LISTEN, Server, home, note};
use crate::http_channels::provider::{Answer, Provider};
use crate::http_channels::push;
use crate::servers::Smtpd;
use crate::support::{GRANTED, Home, channel};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// A campus with all three channels, whose provider of push notifications and SMS is this one.
fn campus(smtpd: &Smtpd, provider: &Provider) -> Home {
    let home = home("");
    for plugin in ["push_notification", "twilio_sms", "mail_reports", "suppression"] {
        home.plugin(plugin);
    }
    home.example("quiet_hours_rust");
    home.file("ca.pem", &provider.ca);
    home.file("path.key", "0123456789abcdef0123456789abcdef");
    home.file("templates/app/edx_ace/reply/push/title.txt", "A reply");
    home.file("templates/app/edx_ace/reply/push/body.txt", "{{ who }} answered");
    home.file("templates/app/edx_ace/reply/sms/body.txt", "{{ who }} answered you in the forum");
    let relay = smtpd.relay_with("tls = 'none'\nreturn-path = 'bounce+{token}@bounces.campus.example'");
    let url = provider.url();
    home.config(&format!(
        "return-path-key = {{ file = 'path.key' }}\n\n{GRANTED}{LISTEN}{relay}\n\
         [events]\nkeep = true\n\n[routing]\nfallback = {{ push = ['sms'] }}\n\n[http]\nca-file = 'ca.pem'\n\n\
         [credentials.providers]\nkind = 'bearer'\nurls = ['{url}/']\ntoken = {{ env = 'PROVIDERS_TOKEN' }}\n\n\
         [plugins.push_notification]\ngrants = {{ http = ['{url}/v1/'] }}\ncredentials = {{ fcm = 'providers' }}\n\
         config = {{ project-id = 'campus-1', base-url = '{url}' }}\n\n\
         [plugins.twilio_sms]\ngrants = {{ http = ['{url}/2010-04-01/'], keyvalue = ['suppressions:write'] }}\n\
         credentials = {{ twilio = 'providers' }}\n\
         config = {{ account-sid = '{ACCOUNT}', from = '+15550100', base-url = '{url}' }}\n\n\
         [plugins.mail_reports]\ngrants = {{ feedback = ['django_email'] }}\n\
         secrets = {{ path-secret = {{ env = 'REPORTS_SECRET' }} }}\n\n\
         [plugins.suppression]\ngrants = {{ keyvalue = ['suppressions:read'] }}\n\n\
         [plugins.quiet_hours_rust]\nconfig = {{ channel-types = ['*'] }}\n"
    ));
    home
}

fn start(home: &Home) -> Server {
    let serve = home.ace(&["--log", "info", "serve"]).env("REPORTS_SECRET", SECRET);
    Server::of(serve.env("PROVIDERS_TOKEN", "hush"))
}

/// A time zone in which clocks show this hour now.
fn zone_at(hour: i64) -> String {
    let utc = Timestamp::now().as_second() / 3_600 % 24;
    let ahead = (hour - utc + 12).rem_euclid(24) - 12;
    // The signs of these names are those of POSIX.
    format!("Etc/GMT{:+}", -ahead)
}

/// A message for the learner at an hour of hers.
fn at(hour: i64, number: u128, name: &str, more: Value) -> Value {
    let recipient =
        json!({"lms_user_id": 7, "email_address": "zoe@old.example", "contacts": {"phone": ["+4915550100"]}});
    let mut message = note(number, json!({"recipient": recipient}));
    message["name"] = json!(name);
    message["context"] = json!({"time_zone": zone_at(hour), "who": "Sam", "subject": name});
    for (pointer, value) in more.as_object().expect("an object") {
        *message.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
    }
    message
}

fn reply(number: u128, devices: &[&str]) -> Value {
    let contacts = json!({"push-token": devices, "phone": ["+4915550100"]});
    at(12, number, "reply", json!({"/recipient/contacts": contacts, "/recipient/email_address": null}))
}

/// Outcomes by channel type and address.
fn outcomes(message: &Value, channel_type: &str) -> Vec<(String, String)> {
    let addresses = channel(message, channel_type)["addresses"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    addresses.iter().map(|one| (text(&one["address"]), text(&one["outcome"]))).collect()
}

/// Sends a message, which must reach her.
async fn sent(server: &Server, message: &Value) -> Value {
    let outcome = server.send(message).await;
    assert_eq!(outcome["state"], "sent", "{outcome}");
    outcome
}

#[tokio::test]
async fn a_day_of_a_learner() {
    let gone = push::refused(404, "NOT_FOUND", "UNREGISTERED");
    let provider = Provider::start([
        gone.clone(),
        push::accepted(1),
        gone,
        Answer::new(201, json!({"sid": "SM1", "status": "queued"}).to_string()),
    ]);
    let smtpd = Smtpd::start(&[]);
    let home = campus(&smtpd, &provider);
    let server = start(&home);

    // In the morning she enrols.
    sent(&server, &at(9, 1, "note", json!({"/context/subject": "Welcome"}))).await;
    let welcome = smtpd.mail();
    assert_eq!(
        (welcome.subject().as_str(), welcome.envelope["recipients"][0].as_str()),
        ("Welcome", Some("zoe@old.example"))
    );

    // Somebody answers her. Her old telephone is gone: the application hears which token to delete.
    let pushed = sent(&server, &reply(2, &["old", "new"])).await;
    let expected = [("old".to_owned(), "dropped".to_owned()), ("new".to_owned(), "sent".to_owned())];
    assert_eq!(outcomes(&pushed, "push"), expected);
    assert_eq!(channel(&pushed, "sms")["state"], "standby");
    let dropped = events(&server, "contact.dropped").await;
    assert_eq!(dropped.iter().map(|event| event["data"]["address"].clone()).collect::<Vec<_>>(), ["old"]);

    // She has removed the app from the new one as well: the next answer comes as an SMS.
    let texted = sent(&server, &reply(3, &["new"])).await;
    assert_eq!(outcomes(&texted, "push"), [("new".to_owned(), "dropped".to_owned())]);
    let sms = channel(&texted, "sms");
    assert_eq!((&sms["state"], &sms["fallback_for"]), (&json!("sent"), &json!(["push"])), "{sms}");
    let seen = provider.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen[3].form().contains(&("Body".to_owned(), "Sam answered you in the forum".to_owned())), "{seen:?}");

    // The welcome bounces, and her old address gets no more mail; its timeline says why.
    let path = welcome.envelope["from"].as_str().expect("a return path");
    let id = welcome.header("Message-ID").expect("a Message-ID");
    pipe(&home, &server.url, &report("a bounce of Postfix", path, &id, "zoe@old.example")).ok();
    let (_, enrolled) = server.get(&format!("/v1/messages/{}", uuid::Uuid::from_u128(1))).await;
    assert_eq!(enrolled["feedback"][0]["kind"], "bounced", "{enrolled}");
    let digest = server.send(&at(17, 4, "note", json!({}))).await;
    assert_eq!(digest["state"], "not_sent", "{digest}");
    let reason = channel(&digest, "email")["reasons"][0]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.starts_with("suppressed since ") && reason.ends_with(": hard-bounce, reported by mail_reports"));

    // She enters another address. At 3 a.m. the news wait for the morning, and the link that she waits for comes.
    let new = json!({"/recipient/email_address": "zoe@new.example"});
    let news = at(3, 5, "note", new.clone());
    let (status, _) = server.post("/v1/messages", &news).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let mut reset = at(3, 6, "note", new);
    (reset["options"], reset["context"]["subject"]) = (json!({"transactional": true}), json!("Reset your password"));
    sent(&server, &reset).await;
    let last = smtpd.mails().pop().expect("a mail");
    assert_eq!(
        (last.subject().as_str(), last.envelope["recipients"][0].as_str()),
        ("Reset your password", Some("zoe@new.example"))
    );
    let waiting = channel_until(&server, &news["uuid"], "email", |email| email["state"] == "delayed").await;
    assert!(waiting["reasons"][0]["reason"].as_str().is_some_and(|why| why.starts_with("quiet hours until 08:00 in ")));
    assert_eq!(smtpd.mails().len(), 2);
    let (_, log) = server.stop();
    assert!(!log.contains("hush"), "{log}");
}
