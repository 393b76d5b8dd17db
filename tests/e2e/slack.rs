//! The same channel in three languages (plugins/examples): each passes the same cases, returns exactly the same answers, and posts the
//! same requests to a webhook on loopback.

use std::time::Duration;

use serde_json::{Value, json};

use crate::http_channels::provider::{Answer, Provider, Seen};
use crate::support::{Done, Home, assert_text, channel, message, repository};

const LANGUAGES: [&str; 3] = ["rust", "ts", "python"];
/// The first test compiles 18 MiB of Python, and others may be compiling at the same time.
const PATIENCE: Duration = Duration::from_secs(600);
const PATH: &str = "/services/T000/B000/s3cr3t-path";

fn component(language: &str) -> String {
    let file = repository(&format!("target/plugins-examples/slack_webhook_{language}.wasm"));
    file.into_os_string().into_string().expect("text")
}

#[test]
fn all_pass_the_cases_and_return_the_same_answers() {
    let home = Home::empty();
    let table = repository("plugins/examples/slack_webhook.cases.json");
    let cache = format!("{}/e2e-cache", env!("CARGO_TARGET_TMPDIR"));
    let answers = LANGUAGES.map(|language| {
        let arguments = ["plugin", "test", &component(language), "--json", "--cases", table.to_str().expect("text")];
        let done = home.ace(&arguments).env("XDG_CACHE_HOME", &cache).run_within(PATIENCE).ok();
        done.says(", 0 failed");
        let lines = done.lines();
        assert!(lines.len() > 30, "{language} ran {} cases", lines.len());
        lines.into_iter().map(|mut line| (line["case"].take(), line["answer"].take())).collect::<Vec<_>>()
    });
    for (language, theirs) in LANGUAGES.iter().zip(&answers) {
        for (here, there) in answers[0].iter().zip(theirs) {
            assert_eq!(here, there, "{language}");
        }
    }
}

/// A home with the channel in one language against this provider.
fn home(provider: &Provider, language: &str) -> Home {
    let url = provider.url();
    let home = Home::empty();
    home.example(&format!("slack_webhook_{language}"));
    home.file("ca.pem", &provider.ca);
    home.file("webhook", format!("{url}{PATH}"));
    home.config(&format!(
        "[http]\nca-file = 'ca.pem'\n\n[plugins.slack_webhook_{language}]\n\
         grants = {{ http = ['{url}/services/'] }}\nsecrets = {{ webhook-url = {{ file = 'webhook' }} }}\n"
    ));
    home.file("templates/app/edx_ace/note/slack/body.txt", "Dear {{ name }}, \"it\" begins.\n");
    home
}

fn note(name: &str) -> Value {
    let contacts = json!({"slack": ["U012AB3CD"]});
    message(
        "note",
        json!({
            "recipient": {"lms_user_id": 7, "email_address": null, "contacts": contacts},
            "context": {"name": name},
        }),
    )
}

fn send(home: &Home, name: &str) -> Done {
    home.ace(&["send", "--json", "-"]).input(note(name).to_string()).run_within(PATIENCE)
}

/// Asserts that the webhook's address is not in the output.
fn keeps_its_secret(done: &Done) {
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(!said.contains("s3cr3t-path"), "the secret shows: {said}");
}

#[test]
fn all_post_the_same_and_retry_when_slack_says_so() {
    let posts = LANGUAGES.map(|language| {
        let script = [Answer::new(429, "rate_limited").with("Retry-After", "1"), Answer::new(200, "ok")];
        let provider = Provider::start(script);
        let done = send(&home(&provider, language), "<!channel>").ok();
        let outcome = channel(&done.lines()[0], "slack").clone();
        assert_eq!((&outcome["state"], &outcome["attempts"]), (&json!("sent"), &json!(2)), "{language}: {outcome}");
        keeps_its_secret(&done);
        let seen = provider.seen();
        assert_eq!(seen.len(), 2, "{language}");
        let post = |seen: &Seen| (seen.line.clone(), seen.header("content-type").map(str::to_owned), seen.json());
        assert_eq!(post(&seen[0]), post(&seen[1]), "{language}");
        post(&seen[0])
    });
    let text = "<@U012AB3CD> Dear &lt;!channel&gt;, \"it\" begins.\n";
    let expected = (format!("POST {PATH} HTTP/1.1"), Some("application/json".to_owned()), json!({ "text": text }));
    assert_eq!(posts, [expected.clone(), expected.clone(), expected]);
}

#[test]
fn a_missing_or_ungranted_webhook_fails_without_showing_its_address() {
    for language in LANGUAGES {
        let provider = Provider::start([Answer::new(404, "no_service")]);
        let home = home(&provider, language);
        let done = send(&home, "Zoe").code(1);
        let outcome = channel(&done.lines()[0], "slack").clone();
        assert_eq!(
            (&outcome["state"], &outcome["error"]),
            (&json!("failed"), &json!("Slack answered 404: no_service"))
        );
        keeps_its_secret(&done);

        home.file("ace.toml", home.read("ace.toml").replace("/services/'", "/elsewhere/'"));
        let done = send(&home, "Zoe").code(1);
        let outcome = channel(&done.lines()[0], "slack").clone();
        assert_eq!(outcome["state"], "failed", "{language}: {outcome}");
        assert_text(&outcome["error"], "grant");
        keeps_its_secret(&done);
        assert_eq!(provider.seen().len(), 1, "{language}");
    }
}
