//! The channels that call a provider over HTTP, with a provider on loopback: their requests are those of the real edx-ace
//! (tests/fixtures/http_shapes.json), and each response has the right outcome.

pub mod apns;
mod outcomes;
pub mod provider;
pub mod push;
mod ses;
pub mod sms;
mod web_push;
pub mod webhook;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::outcomes::{End, Subject};
use self::provider::{Answer, Provider, Seen};
use crate::servers::Smtpd;
use crate::support::{Done, Home, assert_text, email, message, repository};

const API_KEY: &str = "braze-key-7f3a";
const API_SECRET: &str = "sailthru-secret-91bc";

/// A home with one of these channels against this provider, and the further tables of `toml`.
fn home(provider: &Provider, channel: &str, config: &str, toml: &str) -> Home {
    let url = provider.url();
    let (endpoint, path, keys) = match channel {
        "braze_email" => ("rest-endpoint", "/messages/", "secrets = { api-key = { file = 'braze-key' } }".to_owned()),
        "ses_email" => ("base-url", "/v2/email/", ses::credential(&url)),
        _ => {
            let secrets = "api-key = { file = 'sailthru-key' }, api-secret = { file = 'sailthru-secret' }";
            ("endpoint", "/send", format!("secrets = {{ {secrets} }}"))
        }
    };
    let home = Home::empty();
    home.plugin(channel);
    home.file("ca.pem", &provider.ca);
    home.file("braze-key", API_KEY);
    home.file("sailthru-key", "sailthru-key");
    home.file("sailthru-secret", API_SECRET);
    home.config(&format!(
        "[http]\nca-file = 'ca.pem'\n\n[presentation]\ninline-css = false\n\n[routing]\ndefault = {{ email = '{channel}' }}\n\n\
         [plugins.{channel}]\ngrants = {{ http = ['{url}{path}'], mailer = true }}\n\
         config = {{ {endpoint} = '{url}', {config} }}\n{keys}\n\n{toml}\n"
    ));
    home.email_templates("note", "A note", "<p>Hi</p>", "Hi");
    home
}

/// A home with a channel of notifications, whose tables `plugin` returns, and a template of this type.
fn notification_home(provider: &Provider, channel_type: &str, plugin: impl FnOnce(&Home, &Provider) -> String) -> Home {
    let home = Home::empty();
    home.file("ca.pem", &provider.ca);
    let tables = plugin(&home, provider);
    home.config(&format!("[http]\nca-file = 'ca.pem'\n\n{tables}"));
    home.file(&format!("templates/app/edx_ace/note/{channel_type}/title.txt"), "A reply");
    home.file(&format!("templates/app/edx_ace/note/{channel_type}/body.txt"), "{{ who }} answered");
    home
}

const BRAZE: &str = "app-id = 'app-1', default-from-email = 'Campus <no-reply@campus.example>', timeout-seconds = 1";
const SAILTHRU: &str = "template-name = 'ACE', timeout-seconds = 1";

pub fn braze(provider: &Provider, toml: &str) -> Home {
    home(provider, "braze_email", BRAZE, toml)
}

fn sailthru(provider: &Provider) -> Home {
    home(provider, "sailthru_email", SAILTHRU, "")
}

/// Sends these one after the other, without waiting for further attempts.
fn send_once(home: &Home, messages: &[Value]) -> Done {
    let lines: Vec<String> = messages.iter().map(Value::to_string).collect();
    let arguments = ["send", "--json", "--concurrency", "1", "--max-delay", "0", "-"];
    home.ace(&arguments).input(lines.join("\n")).run()
}

fn recorded(provider: &str) -> Value {
    let text = std::fs::read_to_string(repository("tests/fixtures/http_shapes.json")).expect("the fixture");
    serde_json::from_str::<Value>(&text).expect("JSON")[provider].take()
}

/// Sends the recorded cases with the recorded rendered files. Returns the requests.
fn send_recorded(provider: &Provider, home: &Home, recorded: &Value, cases: &[&Value]) -> Vec<Seen> {
    for name in ["note", "welcome", "digest"] {
        for (file, text) in recorded["rendered"].as_object().expect("files") {
            let file = format!("templates/app/edx_ace/{name}/email/{file}");
            home.file(&file, text.as_str().expect("text"));
        }
    }
    let messages: Vec<Value> = cases.iter().map(|case| case["message"].clone()).collect();
    let done = send_once(home, &messages).ok();
    for line in done.lines() {
        assert_eq!(email(&line)["state"], "sent", "{line}");
    }
    let seen = provider.seen();
    assert_eq!(seen.len(), cases.len());
    seen
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value} is no text"))
}

#[test]
fn requests_to_braze_are_those_of_edx_ace() {
    let recorded = recorded("braze");
    let settings = &recorded["settings"];
    let all = recorded["requests"].as_array().expect("cases");
    let (plain, with_from): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|case| case["settings"].as_object().expect("settings").is_empty());
    assert_eq!(with_from.len(), 1);
    for (cases, from) in [(plain, None), (with_from, Some("ACE_CHANNEL_BRAZE_FROM_EMAIL"))] {
        let success = Answer::new(201, r#"{"dispatch_id":"d-1","message":"success"}"#);
        let provider = Provider::start(vec![success; cases.len()]);
        let from =
            from.map_or_else(String::new, |key| format!(", from-email = '{}'", text(&cases[0]["settings"], key)));
        let campaigns = "campaigns = { welcome = 'campaign-1:variation-2', digest = 'campaign-3' }";
        assert_eq!(
            settings["ACE_CHANNEL_BRAZE_CAMPAIGNS"],
            json!({"welcome": "campaign-1:variation-2", "digest": "campaign-3"})
        );
        let config = format!(
            "app-id = '{}', default-from-email = '{}', {campaigns}{from}",
            text(settings, "ACE_CHANNEL_BRAZE_APP_ID"),
            text(settings, "DEFAULT_FROM_EMAIL"),
        );
        let home = home(&provider, "braze_email", &config, "");
        for (seen, case) in send_recorded(&provider, &home, &recorded, &cases).iter().zip(&cases) {
            assert_eq!(seen.line, "POST /messages/send HTTP/1.1");
            assert_eq!(seen.header("host"), Some(format!("localhost:{}", provider.port).as_str()));
            assert_eq!(seen.header("authorization"), Some(format!("Bearer {API_KEY}").as_str()));
            assert_eq!(seen.header("content-type"), Some("application/json"));
            assert_eq!(seen.json(), case["request"]["json"], "{}", case["case"]);
        }
    }
}

#[test]
fn requests_to_sailthru_are_those_of_edx_ace() {
    let recorded = recorded("sailthru");
    let cases: Vec<&Value> = recorded["requests"].as_array().expect("cases").iter().collect();
    let provider = Provider::start(vec![Answer::new(200, r#"{"send_id":"s-1"}"#); cases.len()]);
    let template = text(&recorded["settings"], "ACE_CHANNEL_SAILTHRU_TEMPLATE_NAME");
    let home = home(&provider, "sailthru_email", &format!("template-name = '{template}'"), "");
    for (seen, case) in send_recorded(&provider, &home, &recorded, &cases).iter().zip(&cases) {
        assert_eq!(seen.line, "POST /send HTTP/1.1");
        assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
        let form = seen.form();
        let names: Vec<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["api_key", "format", "json", "sig"]);
        assert_eq!((form[0].1.as_str(), form[1].1.as_str()), ("sailthru-key", "json"));
        let theirs = text(&case["request"]["form"], "json");
        let parse = |json: &str| serde_json::from_str::<Value>(json).expect("JSON");
        assert_eq!(parse(&form[2].1), parse(theirs), "{}", case["case"]);
        assert!(form[3].1.len() == 32 && form[3].1.bytes().all(|b| b.is_ascii_hexdigit()), "{}", form[3].1);
    }
}

/// Sends one message for each response and checks its outcome.
#[track_caller]
fn check_answers(channel: &str, config: &str, cases: Vec<(Answer, End, &str)>) {
    let home = |provider: &Provider| home(provider, channel, config, "");
    Subject {
        start: &Provider::start,
        home: &home,
        channel_type: "email",
        message: &|_| message("note", json!({})),
        secrets: &[API_KEY, API_SECRET],
    }
    .check(cases);
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::now() + jiff::SignedDuration::from_secs(seconds)
}

#[test]
fn every_response_of_braze_has_the_right_outcome() {
    let error = |status, message: &str| Answer::new(status, json!({"message": message}).to_string());
    let date = in_seconds(80).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let reset = in_seconds(50).as_second().to_string();
    check_answers(
        "braze_email",
        BRAZE,
        vec![
            (Answer::new(201, r#"{"dispatch_id":"d-1","message":"success"}"#), End::Sent(Some("d-1")), ""),
            (Answer::new(201, r#"{"dispatch_id":"d-2","errors":["odd"]}"#), End::Sent(Some("d-2")), "with errors"),
            (Answer::new(201, r#"{"message":"success"}"#), End::Sent(None), "without a dispatch_id"),
            (Answer::new(200, "<html>ok</html>"), End::Sent(None), "<html>ok</html>"),
            (
                error(400, "Bad Request: Missing recipients"),
                End::Failed,
                "answered 400: Bad Request: Missing recipients",
            ),
            (error(401, "Invalid API Key"), End::Down, "Braze answered 401: Invalid API Key"),
            (error(403, "Forbidden"), End::Failed, "Braze answered 403: Forbidden"),
            (error(404, "Not Found"), End::Failed, "Braze answered 404: Not Found"),
            (Answer::new(400, "<html>\nBad"), End::Failed, "Braze answered 400: <html> Bad"),
            (Answer::new(400, ""), End::Failed, "Braze answered 400"),
            (error(429, "slow down"), End::Retry(28, 32), "Braze answered 429: slow down"),
            (error(429, "slow").with("Retry-After", "70"), End::Retry(70, 70), "429"),
            (error(429, "slow").with("Retry-After", date), End::Retry(30, 80), "429"),
            (error(429, "slow").with("X-RateLimit-Reset", reset), End::Retry(49, 50), "429"),
            (error(500, "Internal Server Error"), End::Down, "Braze answered 500: Internal Server Error"),
            (Answer::new(502, "<html>Bad Gateway</html>"), End::Down, "502: <html>Bad Gateway</html>"),
            (Answer::new(503, "").with("Retry-After", "70"), End::Retry(70, 70), "Braze answered 503"),
            (Answer::Silence, End::RetryByTheHost, "http: "),
            (Answer::Cut, End::RetryByTheHost, "http: "),
            (Answer::CutMidway, End::RetryByTheHost, "http: "),
            (Answer::new(302, "").with("Location", "/messages/other"), End::Failed, "a redirect to /messages/other"),
            (Answer::new(307, "").with("Location", "https://example.com/"), End::Failed, "redirects are not followed"),
        ],
    );
}

#[test]
fn every_response_of_sailthru_has_the_right_outcome() {
    let error =
        |status, code: u32, text: &str| Answer::new(status, json!({"error": code, "errormsg": text}).to_string());
    let reset = in_seconds(50).as_second().to_string();
    let limited = || error(429, 43, "Too many POST requests").with("X-Rate-Limit-Reset", &reset);
    let mut cases = vec![
        (Answer::new(200, r#"{"send_id":"s-1"}"#), End::Sent(Some("s-1")), ""),
        (Answer::new(200, "{}"), End::Sent(None), "without a send_id"),
        (Answer::new(200, "<html>"), End::Failed, "Sailthru answered 200: <html>"),
        (error(500, 9, "Internal Error"), End::Down, "Sailthru answered 500 with error 9: Internal Error"),
        (limited().with("X-Rate-Limit-Remaining", "0"), End::Retry(49, 50), "with error 43: Too many POST requests"),
        (limited().with("X-Rate-Limit-Remaining", "3"), End::Retry(8, 12), "with error 43"),
        (error(429, 43, "Too many"), End::Retry(8, 12), "with error 43: Too many"),
        (Answer::new(429, "").with("Retry-After", "70"), End::Retry(70, 70), "Sailthru answered 429"),
        (Answer::new(503, "<html>down"), End::Down, "Sailthru answered 503: <html>down"),
        (Answer::Silence, End::RetryByTheHost, "http: "),
        (Answer::Cut, End::RetryByTheHost, "http: "),
        (Answer::CutMidway, End::RetryByTheHost, "http: "),
        (Answer::new(301, "").with("Location", "/other"), End::Failed, "a redirect to /other"),
    ];
    for (status, code) in
        [(403, 5), (400, 11), (400, 14), (400, 32), (400, 33), (400, 34), (400, 35), (400, 37), (400, 99)]
    {
        cases.push((error(status, code, "No."), End::Failed, "No."));
    }
    cases.push((error(401, 3, "No."), End::Down, "No."));
    check_answers("sailthru_email", SAILTHRU, cases);
}

#[test]
fn braze_is_called_again_at_the_time_it_named() {
    let provider = Provider::start([
        Answer::new(429, "{}").with("Retry-After", "1"),
        Answer::new(201, r#"{"dispatch_id":"d-9"}"#),
    ]);
    let before = Timestamp::now();
    let done = braze(&provider, "").send(&[message("note", json!({}))]).ok();
    assert!(Timestamp::now().duration_since(before).unsigned_abs() >= Duration::from_secs(1));
    let outcome = done.email();
    assert_eq!((&outcome["state"], &outcome["attempts"]), (&json!("sent"), &json!(2)));
    assert_eq!(outcome["provider_id"], "d-9");
    let seen = provider.seen();
    assert_eq!((seen.len(), &seen[0].body), (2, &seen[1].body));
}

#[test]
fn retry_after_of_a_provider_applies_to_every_message() {
    let taken = || Answer::new(201, r#"{"dispatch_id":"d-9"}"#);
    let first = Answer::new(429, "{}").with("Retry-After", "3");
    let provider = Provider::start([first, taken(), taken(), taken()]);
    let lines: Vec<String> = (0..3).map(|_| message("note", json!({})).to_string()).collect();
    let arguments = ["send", "--json", "--concurrency", "1", "-"];
    let patient = BRAZE.replace("timeout-seconds = 1", "timeout-seconds = 30");
    let home = home(&provider, "braze_email", &patient, "");
    let outcomes = home.ace(&arguments).input(lines.join("\n")).run().ok().lines();
    let attempts = |line: &Value| email(line)["history"].as_array().expect("attempts").clone();
    let at = |attempt: &Value| attempt["at"].as_str().expect("a time").parse::<Timestamp>().expect("a time");
    let first = outcomes.iter().flat_map(attempts).find(|a| a["result"] == "recoverable").expect("one was turned down");
    let others: Vec<Value> = outcomes.iter().flat_map(attempts).filter(|a| a["result"] == "sent").collect();
    assert_eq!((provider.seen().len(), others.len()), (4, 3), "one was turned down, no other had to be");
    for other in &others {
        let waited = at(other).duration_since(at(&first));
        assert!(waited.as_millis() >= 2_900, "{waited:#}: {other}");
    }
    assert_eq!(others.iter().filter(|a| a["number"] == 1).count(), 2, "and waiting used no attempt up: {others:?}");
}

#[test]
fn a_recipient_without_a_user_id_gets_a_mail() {
    let (provider, server) = (Provider::start([]), Smtpd::start(&[]));
    let home = braze(&provider, &server.relay());
    let nobody =
        |id: Value| message("note", json!({"recipient": {"lms_user_id": id, "email_address": "a@learner.example"}}));
    let done = send_once(&home, &[nobody(json!(0)), nobody(Value::Null), nobody(json!(""))]).ok();
    for line in done.lines() {
        assert_eq!((&email(&line)["state"], &email(&line)["channel"]), (&json!("sent"), &json!("braze_email")));
        assert_text(&email(&line)["detail"]["note"], "sent by a relay, not by Braze: the recipient has no user id");
    }
    let mails = server.mails();
    assert_eq!(mails.len(), 3);
    assert_eq!((mails[0].subject(), mails[0].text().trim_end()), ("A note".to_owned(), "Hi"));
    assert_eq!(mails[0].sender(), (Some("Campus".to_owned()), "no-reply@campus.example".to_owned()));
    assert!(provider.seen().is_empty());
}

#[test]
fn a_recipient_without_an_id_or_an_address_is_skipped() {
    let provider = Provider::start([]);
    let nobody = json!({"recipient": {"lms_user_id": 0, "email_address": null}});
    let outcome = send_once(&braze(&provider, ""), &[message("note", nobody.clone())]).email();
    assert_eq!(outcome["state"], "skipped");
    assert_text(&outcome["reason"], "no user id, which Braze requires, and no e-mail address");
    let outcome = send_once(&sailthru(&provider), &[message("note", nobody)]).email();
    assert_eq!(outcome["state"], "skipped");
    assert_text(&outcome["reason"], "no e-mail address");
}

#[test]
fn without_its_grants_the_channel_names_the_missing_one() {
    let provider = Provider::start([]);
    let home = braze(&provider, "");
    let toml = home.read("ace.toml");
    home.file("ace.toml", toml.replace("mailer = true", "mailer = false").replace("/messages/'", "/other/'"));
    let nobody = message("note", json!({"recipient": {"lms_user_id": 0, "email_address": "a@learner.example"}}));
    let done = send_once(&home, &[message("note", json!({})), nobody]).code(1);
    let lines = done.lines();
    assert_eq!((&email(&lines[0])["state"], &email(&lines[1])["state"]), (&json!("failed"), &json!("failed")));
    assert_text(&email(&lines[0])["error"], "http: ");
    assert_text(&email(&lines[0])["error"], "grant");
    assert_text(
        &email(&lines[1])["error"],
        "no user id, which Braze requires, and the fallback mail failed: mailer: not granted",
    );
    assert!(provider.seen().is_empty());
}

#[test]
fn a_campaign_claims_a_transactional_message() {
    let provider = Provider::start(vec![Answer::new(201, r#"{"dispatch_id":"d-1"}"#); 2]);
    let toml = "[plugins.django_email]\ngrants = { mailer = true }\n[relays.main]\nkind = 'discard'\n";
    let home = home(&provider, "braze_email", &format!("{BRAZE}, campaigns = {{ welcome = 'c-1' }}"), toml);
    home.plugin("django_email");
    let routing = "default = { email = 'braze_email' }";
    let toml = home.read("ace.toml");
    home.file("ace.toml", toml.replace(routing, &format!("{routing}\ntransactional = {{ email = 'django_email' }}")));
    home.email_templates("welcome", "Welcome", "<p>Hi</p>", "Hi");
    let transactional = json!({"options": {"transactional": true}});
    let messages =
        [message("welcome", transactional.clone()), message("note", transactional), message("note", json!({}))];
    let done = send_once(&home, &messages).ok();
    let chosen: Vec<Value> =
        done.lines().iter().map(|line| json!([email(line)["channel"], email(line)["rule"]])).collect();
    let expected = [
        json!(["braze_email", "overrides_delivery"]),
        json!(["django_email", "transactional"]),
        json!(["braze_email", "default"]),
    ];
    assert_eq!(chosen, expected);
    let campaigns: Vec<Value> = provider.seen().iter().map(|seen| seen.json()["campaign_id"].take()).collect();
    assert_eq!(campaigns, [json!("c-1"), Value::Null]);
}

#[test]
fn templates_have_the_providers_links_and_trackers() {
    let body = "{% for link in channel.action_links %}[{{ link.text }}]({{ link.url }}){% endfor %}\
                {% for source in channel.tracker_image_sources %}<{{ source }}>{% endfor %}";
    let omitted = message("note", json!({"context": {"omit_unsubscribe_link": true}}));
    let messages = [message("note", json!({})), omitted];

    let provider = Provider::start(vec![Answer::new(201, r#"{"dispatch_id":"d-1"}"#); 2]);
    let home = braze(&provider, "");
    home.email_templates("note", "A note", "<p>Hi</p>", body);
    send_once(&home, &messages).ok();
    let texts: Vec<Value> =
        provider.seen().iter().map(|seen| seen.json()["messages"]["email"]["plaintext_body"].take()).collect();
    assert_eq!(texts, ["[Unsubscribe from this list]({{${set_user_to_unsubscribed_url}}})", ""]);

    let provider = Provider::start(vec![Answer::new(200, r#"{"send_id":"s-1"}"#); 2]);
    let home = sailthru(&provider);
    home.email_templates("note", "A note", "<p>Hi</p>", body);
    send_once(&home, &messages).ok();
    let parse = |seen: &Seen| serde_json::from_str::<Value>(&seen.form()[2].1).expect("JSON");
    let texts: Vec<Value> =
        provider.seen().iter().map(|seen| parse(seen)["vars"]["ace_template_body"].take()).collect();
    let view = "[View on Web]({view_url})";
    let all = format!("{view}[Unsubscribe from this list]({{optout_confirm_url}})<{{beacon_src}}>");
    assert_eq!(texts, [all, format!("{view}<{{beacon_src}}>")]);
}

#[test]
fn sailthrus_debug_mode_logs_and_sends_nothing() {
    let provider = Provider::start([]);
    let home = home(&provider, "sailthru_email", &format!("{SAILTHRU}, debug = true"), "");
    let note = message("note", json!({})).to_string();
    let done = home.ace(&["send", "--json", "-"]).env("ACE_LOG", "info").input(note).run().ok();
    assert_eq!(done.email()["state"], "sent");
    assert_text(&done.email()["detail"]["note"], "logged, not sent");
    assert!(provider.seen().is_empty());
    done.says("debug is on, not sent to Sailthru: {\"template\":\"ACE\",\"email\":\"zoe@learner.example\"");
}

#[test]
fn options_that_a_provider_does_not_support_are_reported() {
    let provider = Provider::start([]);
    let with_copy = message("note", json!({"options": {"cc": ["a@learner.example"]}}));
    for (home, name) in [(braze(&provider, ""), "Braze"), (sailthru(&provider), "Sailthru")] {
        let outcome = send_once(&home, std::slice::from_ref(&with_copy)).code(1).email();
        assert_eq!(outcome["state"], "failed");
        assert_text(&outcome["error"], &format!("options /cc: {name} does not support it"));
    }
    assert!(provider.seen().is_empty());
}

#[test]
fn a_channel_that_lacks_settings_names_them_all() {
    let home = Home::empty();
    home.plugin("braze_email");
    home.config("[plugins.braze_email]\nconfig = { timeout-seconds = 0 }\n");
    home.email_templates("note", "A note", "<p>Hi</p>", "Hi");
    let done = send_once(&home, &[message("note", json!({}))]);
    assert_ne!(done.code, Some(0));
    for words in [
        "config key \"rest-endpoint\" is not set",
        "config key \"app-id\" is not set",
        "secret \"api-key\" is not set",
        "config key \"timeout-seconds\": \"0\" is not a whole number of seconds from 1 to 300",
    ] {
        done.says(words);
    }
}

#[test]
fn a_server_with_an_untrusted_certificate_gets_nothing() {
    let provider = Provider::start([]);
    let home = braze(&provider, "");
    let toml = home.read("ace.toml");
    home.file("ace.toml", toml.replace("ca-file = 'ca.pem'", ""));
    let done = send_once(&home, &[message("note", json!({}))]).code(1);
    assert_eq!(done.email()["state"], "retry");
    assert!(provider.seen().is_empty());
}
