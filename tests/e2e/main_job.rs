//! The main use: messages that the real edx-ace printed are sent through two policies and a channel, all components, to a mail server.

use std::process::Command;

use mail_parser::{MimeHeaders, PartType};
use serde_json::{Value, json};

use crate::servers::{Mail, Smtpd};
use crate::support::{Done, Home, channel, email, repository};

const COURSES: [&str; 2] = ["course-v1:OFC+ADS+2026", "course-v1:LC+JP1+2026"];

/// Messages passwordreset, coursedigest and weeklynews in turn, to learners 1001, 1002, …. The reset is about courses, too, so that it
/// differs from the news only in being transactional.
fn printed_by_edx_ace(home: &Home, count: usize) -> String {
    for name in ["passwordreset", "coursedigest", "weeklynews"] {
        let sample = std::fs::read(repository(&format!("templates/samples/{name}.json"))).expect("a sample");
        let mut sample: Value = serde_json::from_slice(&sample).expect("JSON");
        if name == "passwordreset" {
            sample["context"]["course_ids"] = json!(COURSES);
        }
        home.file(&format!("samples/{name}.json"), sample.to_string());
    }
    let mut python = Command::new(repository("target/venv").join("bin/python"));
    python.arg(repository("tests/fixtures/live.py")).arg(count.to_string()).arg("--samples").arg(home.path("samples"));
    let output = python.output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints ASCII")
}

/// Learners 1001 (a password reset) and 1003 (news) opted out of both courses, 1006 (news) of one.
fn opted_out() -> String {
    let fact = |learner, course| json!({"bucket": "course-optouts", "key": format!("{learner}/{course}"), "value": ""});
    let facts = [(1001, 0), (1001, 1), (1003, 0), (1003, 1), (1006, 1)];
    facts.map(|(learner, course)| fact(learner, COURSES[course]).to_string() + "\n").concat()
}

struct Story {
    messages: Vec<Value>,
    done: Done,
    server: Smtpd,
}

/// The outcome of six messages.
fn six_messages() -> Story {
    let server = Smtpd::start(&[]);
    let toml = format!(
        "{}
        [routing]
        default = {{ email = 'django_email' }}
        [keyvalue]
        files = ['facts.ndjson']
        [plugins.bulk_email_optout]
        grants = {{ keyvalue = ['course-optouts:read'] }}
        [plugins.stub_policy]
        config = {{ deny = ['push'], reason = 'no push today' }}
        [plugins.django_email]
        grants = {{ mailer = true }}",
        server.relay()
    );
    let home = Home::new(&["bulk_email_optout", "stub_policy", "django_email"], &toml);
    home.file("facts.ndjson", opted_out());
    let input = printed_by_edx_ace(&home, 6);
    let messages = input.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let done = home.ace(&["send", "--json", "-"]).input(input).run();
    Story { messages, done, server }
}

impl Story {
    fn mail_to(&self, address: &str) -> Mail {
        let mails = self.server.mails().into_iter();
        let mut found = mails.filter(|mail| mail.envelope["recipients"] == json!([address]));
        let mail = found.next().unwrap_or_else(|| panic!("no mail to {address}: {:?}", self.done));
        assert!(found.next().is_none(), "{address} got two");
        mail
    }
}

#[test]
fn messages_of_edx_ace_arrive_as_mail() {
    let story = six_messages();
    assert_eq!(story.done.code, Some(0), "{:?}", story.done);
    let lines = story.done.lines();
    let states: Vec<_> = lines.iter().map(|line| email(line)["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["sent", "sent", "denied", "sent", "sent", "sent"], "in the order of the input");
    assert_eq!(story.server.mails().len(), 5);

    for (line, message) in lines.iter().zip(&story.messages) {
        assert_eq!(line["report"]["uuid"], message["uuid"]);
        let push = channel(line, "push");
        assert_eq!(push["state"], "denied");
        assert_eq!(push["reasons"], json!([{"policy": "stub_policy", "reason": "no push today"}]));
        let policies = line["report"]["policies"].as_array().expect("policies");
        let asked: Vec<_> = policies.iter().map(|p| &p["policy"]).collect();
        assert_eq!(asked, ["bulk_email_optout", "stub_policy"]);
    }
    let why =
        json!([{"policy": "bulk_email_optout", "reason": "the recipient opted out of all the message's courses"}]);
    assert_eq!(email(&lines[2])["reasons"], why);
    for line in lines.iter().filter(|line| email(line)["state"] == "sent") {
        assert_eq!((&email(line)["channel"], &email(line)["rule"]), (&json!("django_email"), &json!("default")));
        assert_eq!((&email(line)["attempts"], &line["failed"]), (&json!(1), &json!(false)));
    }
}

#[test]
fn a_mail_has_the_expected_headers() {
    let story = six_messages();
    let mail = story.mail_to("learner5@example.com");
    let uuid = story.messages[5]["uuid"].as_str().expect("a uuid");

    assert_eq!(mail.sender(), (Some("Riverside News".to_owned()), "news@riverside.example".to_owned()));
    assert_eq!(mail.header("To").as_deref(), Some("<learner5@example.com>"));
    assert_eq!(mail.header("Reply-To").as_deref(), Some("<editors@riverside.example>"));
    assert_eq!(mail.subject(), "Winter term: what is new: news from Riverside Learning");
    assert_eq!(mail.header("Message-ID"), Some(format!("<{uuid}.django_email@riverside.example>")));
    let unsubscribe = "<https://riverside.example/unsubscribe/news?u=19&t=9b20>";
    assert_eq!(mail.header("List-Unsubscribe").as_deref(), Some(unsubscribe));
    assert_eq!(mail.header("List-Unsubscribe-Post").as_deref(), Some("List-Unsubscribe=One-Click"));
    let sent = mail.parsed(|m| m.date().expect("a date").to_timestamp());
    assert!((jiff::Timestamp::now().as_second() - sent).abs() < 600, "its date is now");
    assert_eq!(mail.header("MIME-Version").as_deref(), Some("1.0"));

    assert_eq!(mail.envelope["from"], "news@riverside.example");
    assert_eq!((&mail.envelope["tls"], &mail.envelope["hello"]), (&json!(false), &json!("ace.example")));

    let digest = story.mail_to("learner1@example.com");
    let expected = (Some("Riverside Learning".to_owned()), "digest@riverside.example".to_owned());
    assert_eq!(digest.sender(), expected, "from_name.txt is the display name of an address without one");
    let reset = story.mail_to("learner0@example.com");
    assert_eq!(reset.header("List-Unsubscribe"), None, "nobody unsubscribes from a password reset");
}

#[test]
fn a_mail_has_a_text_and_an_html_part_with_every_letter() {
    let story = six_messages();
    let mail = story.mail_to("learner1@example.com");
    assert_eq!(mail.part_types(), ["multipart/alternative", "text/plain", "text/html"]);
    assert!(mail.raw.is_ascii(), "on the wire all is ASCII");
    assert!(mail.raw.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])), "RFC 5322, 2.1.1");
    mail.parsed(|m| {
        for part in m.parts.iter().filter(|part| matches!(part.body, PartType::Text(_) | PartType::Html(_))) {
            let charset = part.content_type().and_then(|t| t.attribute("charset")).map(str::to_lowercase);
            assert_eq!(charset.as_deref(), Some("utf-8"));
        }
    });

    let (text, html) = (mail.text(), mail.html());
    assert!(text.contains("Algorithms & Data Structures <2nd edition> (Open Faculty of Computing)"), "{text}");
    assert!(text.contains("日本語入門 – Japanese for beginners"), "{text}");
    assert!(text.contains("Homework 7: \"Heaps\" & heapsort, à rendre Tue 24 Nov, 23:59 (bientôt)"), "{text}");
    assert!(!text.contains("&amp;") && !text.contains("&lt;"), "the text is not escaped: {text}");
    assert!(html.contains("Algorithms &amp; Data Structures &lt;2nd edition&gt;"), "{html}");
    assert!(html.contains("日本語入門 – Japanese for beginners") && html.contains("Uferstraße"), "{html}");
    assert!(!html.contains("<2nd edition>"), "the HTML is escaped: {html}");
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"), "{html}");

    let reset = story.mail_to("learner0@example.com");
    assert!(reset.text().contains("Hello Zoë O'Neil-Łukasz,"), "{}", reset.text());
    assert!(reset.text().contains("zoe<o'neil>&co"), "{}", reset.text());
    assert!(reset.html().contains("zoe&lt;o") && !reset.html().contains("zoe<o"), "{}", reset.html());
}

#[test]
fn without_json_the_outcomes_are_a_table() {
    let server = Smtpd::start(&[]);
    let toml = format!("{}\n[plugins.django_email]\ngrants = {{ mailer = true }}\n", server.relay());
    let home = Home::new(&["django_email"], &toml);
    let sample = repository("templates/samples/passwordreset.json");
    let done = home.ace(&["send", sample.to_str().expect("text")]).run().ok();
    let rows: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(rows.len(), 4, "{}", done.stdout);
    assert!(rows[0].starts_with("UUID ") && rows[0].ends_with(" STATE"), "{}", rows[0]);
    assert_eq!(rows[2], "    message: ace_demo.passwordreset");
    for part in ["7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01", "email", "django_email", "sent"] {
        assert!(rows[1].contains(part), "{part:?} is not in {}", rows[1]);
    }
    done.says("1 message");
    server.mail();
}
