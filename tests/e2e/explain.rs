//! `ace explain`: everything but the delivery, with the reason for each step.

use serde_json::{Value, json};

use crate::support::{Home, demo_home, email, mail_home, message, repository};

fn sample(name: &str) -> String {
    repository(&format!("templates/samples/{name}.json")).to_str().expect("text").to_owned()
}

/// Explains a sample for learner 20, about whom the demo has no key-value entries.
fn explain(home: &Home, name: &str) -> Value {
    let mut message: Value = serde_json::from_slice(&std::fs::read(sample(name)).expect("a sample")).expect("JSON");
    message["recipient"]["lms_user_id"] = json!(20);
    home.ace(&["explain", "--json", "-"]).input(message.to_string()).run().ok().lines().remove(0)
}

#[test]
fn every_sample_is_explained_and_none_is_delivered() {
    let home = demo_home();
    for name in ["passwordreset", "coursedigest", "weeklynews"] {
        let line = explain(&home, name);
        assert_eq!(line["failed"], false);
        let report = &line["report"];
        assert_eq!(report["name"], format!("ace_demo.{name}"));

        let policies = report["policies"].as_array().expect("policies");
        let told: Vec<_> = policies.iter().map(|p| (&p["policy"], &p["result"])).collect();
        let denial = json!({"deny": [{"channel_type": "push", "reason": "this demo has no devices"}]});
        let passes = json!({});
        assert_eq!(
            told,
            [
                (&json!("bulk_email_optout"), &passes),
                (&json!("stub_policy"), &denial),
                (&json!("suppression"), &passes)
            ]
        );
        assert!(policies.iter().all(|p| p["took_us"].is_u64() && p["revision"].as_str().map(str::len) == Some(12)));

        let email = email(&line);
        assert_eq!(
            (&email["state"], &email["channel"], &email["attempts"]),
            (&json!("ready"), &json!("django_email"), &json!(0))
        );
        let rule = if name == "passwordreset" { "transactional" } else { "default" };
        assert_eq!(email["rule"], rule);
        let templates = email["templates"].as_array().expect("templates");
        assert_eq!(templates.len(), 5);
        let rendered = email["rendered"].as_array().expect("rendered");
        for (file, source) in rendered.iter().zip(templates) {
            let path = format!("ace_demo/edx_ace/{name}/email/{}", file["name"].as_str().expect("a name"));
            assert!(source.as_str().is_some_and(|s| s.ends_with(&path)), "{source}");
            assert_eq!(&file["source"], source);
        }
        let subject = rendered.iter().find(|file| file["name"] == "subject.txt").expect("a subject");
        assert!(subject["text"].as_str().is_some_and(|text| text.contains("Riverside Learning")), "{subject}");
    }
    assert!(home.list("outbox").is_empty(), "nothing was delivered");
}

#[test]
fn a_denial_is_explained_with_its_reason() {
    let home = demo_home();
    // In the demo, the recipient of this sample opted out of its courses.
    let line = home.ace(&["explain", "--json", &sample("weeklynews")]).run().ok().lines().remove(0);
    assert_eq!(email(&line)["state"], "denied");
    assert_eq!(email(&line)["reasons"][0]["policy"], "bulk_email_optout");
    assert_eq!(email(&line)["rendered"], Value::Null, "what is denied is not rendered");
}

#[test]
fn without_json_the_output_is_readable() {
    let text = demo_home().ace(&["explain", &sample("passwordreset")]).run().ok().stdout;
    let expected = [
        "ace_demo.passwordreset 7a3c1d1e-5b0f-4c55-9d0e-1f0c8a6e2b01",
        "bulk_email_optout",
        "passes",
        "denies push (this demo has no devices)",
        " us ",
        "email: ready",
        "the transactional channel of its type",
        "ace_demo/edx_ace/passwordreset/email/body.html",
        "--- subject.txt ---\nReset your password for Riverside Learning",
        "push: denied stub_policy: this demo has no devices",
    ];
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn failures_are_explained() {
    let home = demo_home();
    let lines = [message("nothing", json!({})).to_string(), "{".to_owned()];
    let done = home.ace(&["explain", "--json", "-"]).input(lines.join("\n")).run().code(1);
    let told = done.lines();
    assert_eq!(email(&told[0])["state"], "template_error");
    assert!(told[1]["refused"].is_array(), "{told:?}");
    let done = home.ace(&["explain", "--limit-to", "emial", &sample("weeklynews")]).run().code(2);
    done.says("did you mean \"email\"?");
}

#[test]
fn the_plugins_that_read_feedback_about_a_channel_are_named() {
    let home = mail_home(
        "[relays.main]\nkind = 'discard'\n[plugins.reporter]\ngrants = { feedback = ['django_email'] }\nsecrets = { key = { env = 'PATH' } }\n\
         [plugins.two_way]\ngrants = { feedback = ['django_email'] }\n[routing]\ndefault = { email = 'django_email' }\n",
    );
    home.guest("reporter", "reporter");
    home.guest("two_way", "two_way");
    let note = || message("note", json!({})).to_string();
    let why = "it says it cannot work: set server.public-url: its signatures cover the URL";
    let text = home.ace(&["explain", "-"]).input(note()).run().ok().stdout;
    for part in ["  feedback   reporter\n".to_owned(), format!("  feedback   two_way, which is not active: {why}\n")] {
        assert!(text.contains(&part), "{part:?} is not in:\n{text}");
    }
    let line = home.ace(&["explain", "--json", "-"]).input(note()).run().ok().lines().remove(0);
    assert_eq!(
        line["feedback"],
        json!([
            {"channel": "django_email", "plugin": "reporter", "inactive": null},
            {"channel": "django_email", "plugin": "two_way", "inactive": why},
        ])
    );
}

/// What a policy writes while a message is explained is visible only within that call.
#[test]
fn explaining_writes_no_entries() {
    let home =
        mail_home("[relays.main]\nkind = 'discard'\n[plugins.faulty_policy]\ngrants = { keyvalue = ['counters'] }\n");
    home.guest("faulty_policy", "faulty_policy");
    let counted = message("note", json!({"context": {"policy_fault": "count"}})).to_string();
    let input = [counted.as_str(); 3].join("\n");
    let counts = |command: &[&str]| -> Vec<Value> {
        let lines = home.ace(command).input(input.clone()).run().ok().lines();
        lines.iter().map(|line| line["report"]["policies"][0]["result"]["deny"][0]["reason"].clone()).collect()
    };
    assert_eq!(counts(&["explain", "--json", "-"]), ["1", "1", "1"]);
    assert_eq!(counts(&["send", "--json", "--concurrency", "1", "-"]), ["1", "2", "3"], "sending does change them");
}
