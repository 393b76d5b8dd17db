//! `twilio_sms` against Twilio on loopback.

use serde_json::{Value, json};

use super::provider::{Answer, Provider};
use crate::support::{Home, channel, message};

pub const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// A home with the channel and the policy `suppression`. `config` continues the channel's settings, `toml` has further sections.
pub fn home(provider: &Provider, config: &str, toml: &str) -> Home {
    let url = provider.url();
    let home = Home::empty();
    home.plugin("twilio_sms");
    home.plugin("suppression");
    home.file("ca.pem", &provider.ca);
    home.file("secret", "hunter2");
    home.config(&format!(
        "[http]\nca-file = 'ca.pem'\n\n[keyvalue]\ndatabase = 'entries.db'\n\n\
         [credentials.twilio]\nkind = 'basic'\nurls = ['{url}/2010-04-01/']\nusername = 'SK1'\npassword = {{ file = 'secret' }}\n\n\
         [plugins.twilio_sms]\ngrants = {{ http = ['{url}/2010-04-01/'], keyvalue = ['suppressions:write'] }}\n\
         credentials = {{ twilio = 'twilio' }}\n\
         config = {{ account-sid = '{ACCOUNT}', from = '+15550100', base-url = '{url}'{config} }}\n\n\
         [plugins.suppression]\ngrants = {{ keyvalue = ['suppressions:read'] }}\n\n{toml}"
    ));
    home.file("templates/app/edx_ace/code/sms/body.txt", "Your code is {{ code }}");
    home
}

/// A message to a number.
pub fn code() -> Value {
    let recipient = json!({"lms_user_id": 7, "email_address": null, "contacts": {"phone": ["+4915550100"]}});
    message("code", json!({"recipient": recipient, "context": {"code": 1234}}))
}

#[test]
fn a_message_is_sent_and_who_sends_stop_gets_no_more() {
    let stop = json!({"code": 21610, "message": "Attempt to send to unsubscribed recipient", "status": 400});
    let provider = Provider::start([
        Answer::new(201, json!({"sid": "SM1", "status": "queued"}).to_string()),
        Answer::new(400, stop.to_string()),
    ]);
    let home = home(&provider, "", "");
    let lines = [code(), code(), code()].map(|message| message.to_string()).join("\n");
    let done = home.ace(&["send", "--json", "--concurrency", "1", "-"]).input(lines).run();
    let lines = done.lines();
    let sms: Vec<&Value> = lines.iter().map(|line| channel(line, "sms")).collect();
    assert_eq!((&sms[0]["state"], &sms[0]["addresses"][0]["provider_id"]), (&json!("sent"), &json!("SM1")));
    assert_eq!(sms[1]["state"], "skipped", "{:#}", sms[1]);
    assert!(sms[1].to_string().contains("21610"), "{:#}", sms[1]);
    assert_eq!(sms[2]["state"], "denied", "{:#}", sms[2]);
    assert!(sms[2].to_string().contains("unsubscribe"), "{:#}", sms[2]);
    let seen = provider.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].line, format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1"));
    assert_eq!(seen[0].header("authorization"), Some("Basic U0sxOmh1bnRlcjI="), "SK1:hunter2");
    let form: Vec<(String, String)> = seen[0].form();
    let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected =
        [("To", "+4915550100"), ("From", "+15550100"), ("Body", "Your code is 1234"), ("ValidityPeriod", "36000")];
    assert_eq!(fields, expected);
    assert!(!done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"));
}
