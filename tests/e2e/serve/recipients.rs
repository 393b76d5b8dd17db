//! Mails with copies, when the mail server refuses some recipients: retries, also after restarts.

use serde_json::{Value, json};

use super::{LISTEN, Server, home, note, settled};
use crate::servers::{Mail, Smtpd};
use crate::support::{assert_text, channel, email, mail_home, message};

const MAIN: &str = "zoe@learner.example";
const COPY: &str = "bob@learner.example";

fn with_copy(number: u128) -> Value {
    note(number, json!({"options": {"cc": [COPY]}}))
}

fn envelopes(mails: &[Mail]) -> Vec<&Value> {
    mails.iter().map(|mail| &mail.envelope["recipients"]).collect()
}

#[tokio::test]
async fn a_deferred_copy_gets_the_same_mail_after_a_crash_and_no_recipient_gets_it_twice() {
    for guarantee in ["at-least-once", "at-most-once"] {
        let smtp = Smtpd::start(&["--defer", &format!("{COPY}=3")]);
        let delivery = "expiration-delay = '60s'\nretry-delay = '500ms'\nmax-retry-delay = '1s'\n";
        let relay = smtp.relay().replace("retry-delay = '10ms'\nmax-retry-delay = '50ms'\n", delivery);
        let home = home(&format!("{LISTEN}{relay}[channels.django_email]\ndelivery = '{guarantee}'\n"));
        let server = Server::start(&home);
        let (_, taken) = server.post("/v1/messages", with_copy(1)).await;
        for _ in 0..600 {
            let (_, told) = server.get(&format!("/v1/messages/{}", taken["uuid"].as_str().expect("a uuid"))).await;
            // Before the first attempt nothing is known about recipients.
            if told["report"]["channels"][0]["recipients"].is_array() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        server.kill();
        let server = Server::start(&home);
        let told = settled(&server, &taken["uuid"], "sent").await;
        let mails = smtp.mails();
        assert_eq!(envelopes(&mails), [&json!([MAIN]), &json!([COPY])], "{guarantee}: {told}");
        assert_eq!(mails[0].raw, mails[1].raw);
        let states =
            json!([{"address": MAIN, "main": true, "state": "accepted"}, {"address": COPY, "state": "accepted"}]);
        assert_eq!(channel(&told, "email")["recipients"], states, "{told}");
    }
}

/// Sends one message with a copy by `ace send`. Returns its outcome for e-mail, and the mails that arrived.
fn sent(smtpd: &[&str], code: i32) -> (Value, Vec<Mail>) {
    let server = Smtpd::start(smtpd);
    let home = mail_home(&format!("{}expiration-delay = '1s'\n", server.relay()));
    let done = home.send(&[message("note", json!({"options": {"cc": [COPY]}}))]).code(code);
    (email(&done.lines()[0]).clone(), server.mails())
}

#[test]
fn the_outcome_is_that_of_the_first_recipient() {
    let (report, mails) = sent(&["--defer", &format!("{MAIN}=2"), "--refuse", &format!("{COPY}=550")], 0);
    assert_eq!((&report["state"], envelopes(&mails)), (&json!("sent"), vec![&json!([MAIN])]));
    assert_text(&report["recipients"][1]["answer"], "550 5.1.1");

    let (report, mails) = sent(&["--defer", &format!("{COPY}=9999")], 0);
    assert_eq!((&report["state"], mails.len()), (&json!("sent"), 1));
    assert_eq!(report["recipients"][1]["state"], "deferred");
    assert_text(&report["recipients"][1]["answer"], "452 4.2.2");

    let (report, mails) = sent(&["--refuse", &format!("{MAIN}=550")], 1);
    assert_eq!((&report["state"], envelopes(&mails)), (&json!("failed"), vec![&json!([COPY])]));
    assert_text(&report["error"], &format!("{MAIN}: 550 5.1.1"));

    let (report, mails) = sent(&["--defer", &format!("{MAIN}=9999")], 1);
    assert_eq!((&report["state"], envelopes(&mails)), (&json!("expired"), vec![&json!([COPY])]));
    assert_text(&report["error"], &format!("{MAIN}: 452 4.2.2"));
}
