use serde_json::{Value, json};

use super::*;

/// The requests of the real edx-ace. See tests/fixtures/README.md.
const RECORDED: &str = include_str!("../../../../../tests/fixtures/http_shapes.json");

fn recorded() -> Value {
    serde_json::from_str::<Value>(RECORDED).expect("the fixture is JSON")["braze"].take()
}

/// edx-ace's settings with the names of this channel.
fn settings(edx_ace: &[&Value]) -> Settings {
    let names = [
        ("rest-endpoint", "ACE_CHANNEL_BRAZE_REST_ENDPOINT"),
        ("app-id", "ACE_CHANNEL_BRAZE_APP_ID"),
        ("api-key", "ACE_CHANNEL_BRAZE_API_KEY"),
        ("campaigns", "ACE_CHANNEL_BRAZE_CAMPAIGNS"),
        ("from-email", "ACE_CHANNEL_BRAZE_FROM_EMAIL"),
        ("default-from-email", "DEFAULT_FROM_EMAIL"),
    ];
    let get = |key: &str| {
        let (_, name) = names.iter().find(|(ours, _)| *ours == key)?;
        edx_ace.iter().find_map(|settings| match &settings[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    };
    crate::settings::read(get).expect("edx-ace works with them")
}

/// The mail of a recorded case, as `deliver` creates it.
fn mail(settings: &Settings, message: &Value, rendered: &Value) -> Mail {
    let options = &message["options"];
    let file = |name: &str| rendered[name].as_str().expect("a rendered file");
    let id = &message["recipient"]["lms_user_id"];
    let is_transactional = options["transactional"] == true;
    let own = settings.from.as_deref().or(options["from_address"].as_str());
    Mail {
        user_id: id.as_str().map_or_else(|| id.to_string(), str::to_owned),
        is_transactional,
        overrides_capping: options["override_frequency_capping"].as_bool().unwrap_or(is_transactional),
        campaign: settings.campaigns.get(message["name"].as_str().expect("a name")).cloned(),
        from: from(own, settings.default_from.as_deref(), &email::one_line(file("from_name.txt"))).expect("a sender"),
        reply_to: options["reply_to"].as_str().map(str::to_owned).into_iter().collect(),
        headers: Vec::new(),
        subject: email::one_line(file("subject.txt")),
        html: email::page(file("head.html"), file("body.html")),
        text: file("body.txt").to_owned(),
    }
}

#[test]
fn the_requests_are_edx_aces() {
    let recorded = recorded();
    let cases = recorded["requests"].as_array().expect("cases");
    assert!(cases.len() >= 9);
    for case in cases {
        let settings = settings(&[&case["settings"], &recorded["settings"]]);
        let request = mail(&settings, &case["message"], &recorded["rendered"]).request(&settings);
        let expected = &case["request"];
        let name = &case["case"];
        assert_eq!((request.method.as_str(), request.url.as_str()), ("POST", expected["url"].as_str().expect("a URL")));
        let headers: Value = request.headers.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
        assert_eq!(headers, expected["headers"], "{name}");
        let body: Value = serde_json::from_slice(&request.body.expect("a body")).expect("JSON");
        assert_eq!(body, expected["json"], "{name}");
        assert_eq!(request.timeout_ms.map(|ms| json!(ms / 1000)), Some(expected["timeout_s"].clone()), "{name}");
    }
}

fn small() -> Mail {
    Mail {
        user_id: "7".to_owned(),
        is_transactional: true,
        overrides_capping: true,
        campaign: Some(Campaign { id: "c".to_owned(), variation: Some("v".to_owned()) }),
        from: "a@b.c".to_owned(),
        reply_to: Vec::new(),
        headers: Vec::new(),
        subject: "Zoë".to_owned(),
        html: "<p>".to_owned(),
        text: "\"\n".to_owned(),
    }
}

#[test]
fn the_body_byte_for_byte() {
    let expected = concat!(
        r#"{"external_user_ids":["7"],"recipient_subscription_state":"all","campaign_id":"c","#,
        r#""override_frequency_capping":true,"messages":{"email":{"app_id":"app","subject":"Zoë","from":"a@b.c","#,
        r#""reply_to":null,"body":"<p>","plaintext_body":"\"\n","message_variation_id":"v","should_inline_css":false}}}"#,
    );
    assert_eq!(String::from_utf8(small().body("app")).expect("UTF-8"), expected);
}

fn email_of(mail: &Mail) -> Value {
    serde_json::from_slice::<Value>(&mail.body("app")).expect("JSON")["messages"]["email"].take()
}

#[test]
fn a_list_of_one_reply_address_is_that_address() {
    let with = |addresses: &[&str]| {
        let reply_to = addresses.iter().map(|a| (*a).to_owned()).collect();
        email_of(&Mail { reply_to, ..small() })["reply_to"].take()
    };
    assert_eq!(with(&["help@b.c"]), "help@b.c");
    assert_eq!(with(&["help@b.c", "desk@b.c"]), json!(["help@b.c", "desk@b.c"]));
}

#[test]
fn headers_of_the_message_are_sent() {
    let headers = vec![("X-A".to_owned(), "b".to_owned())];
    assert_eq!(email_of(&Mail { headers, ..small() })["headers"], json!({"X-A": "b"}));
}

#[test]
fn the_rendered_name_is_used_if_the_sender_has_none() {
    let from = |own, default| from(own, default, "Jane Doe");
    assert_eq!(from(Some("Shop <a@b.c>"), None), Ok("Shop <a@b.c>".to_owned()));
    assert_eq!(from(Some("a@b.c"), Some("x@y.z")), Ok("Jane Doe <a@b.c>".to_owned()));
    assert_eq!(from(None, Some("Campus <x@y.z>")), Ok("Jane Doe <x@y.z>".to_owned()));
    assert!(from(None, None).expect_err("nobody sends it").contains("default-from-email"));
}
