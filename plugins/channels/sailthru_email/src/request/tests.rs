use serde_json::{Value, json};

use super::*;

/// What the real edx-ace sends; see tests/fixtures/README.md.
const RECORDED: &str = include_str!("../../../../../tests/fixtures/http_shapes.json");

fn recorded() -> Value {
    serde_json::from_str::<Value>(RECORDED).expect("the fixture is JSON")["sailthru"].take()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text"))
}

fn settings(recorded: &Value) -> Settings {
    let name = |key: &str| match key {
        "template-name" => Some("ACE_CHANNEL_SAILTHRU_TEMPLATE_NAME"),
        "api-key" => Some("ACE_CHANNEL_SAILTHRU_API_KEY"),
        "api-secret" => Some("ACE_CHANNEL_SAILTHRU_API_SECRET"),
        _ => None,
    };
    crate::settings::read(|key| name(key).map(|name| text(&recorded["settings"], name).to_owned()))
        .expect("they work there")
}

#[test]
fn the_form_and_its_signature_are_the_clients_byte_for_byte() {
    let recorded = recorded();
    let settings = settings(&recorded);
    let cases = recorded["requests"].as_array().expect("cases");
    assert!(cases.len() >= 4);
    for case in cases {
        let expected = &case["request"];
        let ours = request(&settings, text(&expected["form"], "json"));
        assert_eq!((ours.method.as_str(), ours.url.as_str()), ("POST", text(expected, "url")));
        let headers: Value = ours.headers.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
        assert_eq!(headers, expected["headers"]);
        assert_eq!(String::from_utf8(ours.body.expect("a body")).expect("text"), text(expected, "body"));
        assert_eq!(ours.timeout_ms.map(|ms| json!(ms / 1000)), Some(expected["timeout_s"].clone()));
    }
}

#[test]
fn what_is_sent_is_what_edx_ace_sends() {
    let recorded = recorded();
    let rendered = &recorded["rendered"];
    for case in recorded["requests"].as_array().expect("cases") {
        let message = &case["message"];
        let reply_to: Vec<String> = message["options"]["reply_to"].as_str().map(str::to_owned).into_iter().collect();
        let reply_to: Vec<String> = reply_to.into_iter().filter(|address| !address.is_empty()).collect();
        let ours = Send {
            template: &settings(&recorded).template_name,
            email: text(&message["recipient"], "email_address"),
            vars: Vars {
                from_name: stripped(text(rendered, "from_name.txt")),
                subject: stripped(text(rendered, "subject.txt")),
                body_html: stripped(text(rendered, "body.html")),
                head_html: stripped(text(rendered, "head.html")),
                body: stripped(text(rendered, "body.txt")),
            },
            options: options(&reply_to, message["options"]["from_address"].as_str()),
        };
        let ours: Value = serde_json::from_str(&ours.json()).expect("JSON");
        let theirs: Value = serde_json::from_str(text(&case["request"]["form"], "json")).expect("JSON");
        assert_eq!(ours, theirs, "{}", case["case"]);
    }
}

/// `hashlib.md5("secret" + "".join(sorted(values)))` in Python.
#[test]
fn the_signature_is_of_the_sorted_values() {
    assert_eq!(signature("secret", ["key", "json", "{\"a\": \"é\"}"]), "219cb3de455e1789e657f4c8307608ad");
    assert_eq!(signature("secret", ["json", "{\"a\": \"é\"}", "key"]), "219cb3de455e1789e657f4c8307608ad");
    assert_eq!(signature("", []), "d41d8cd98f00b204e9800998ecf8427e");
}

#[test]
fn a_form_is_escaped_as_python_does() {
    let mut form = String::new();
    escape("aZ09-._~ é&=+%*/\n", &mut form);
    assert_eq!(form, "aZ09-._~+%C3%A9%26%3D%2B%25%2A%2F%0A");
}

#[test]
fn whitespace_is_stripped_by_pythons_rules() {
    assert_eq!(stripped("\u{1c}\u{a0}\n a \n b\t\u{2028}\u{1f}"), "a \n b");
}

#[test]
fn several_reply_addresses_stay_a_list() {
    let behalf = |reply_to: &[&str]| {
        let reply_to: Vec<String> = reply_to.iter().map(|a| (*a).to_owned()).collect();
        serde_json::to_value(options(&reply_to, None)).expect("JSON")
    };
    assert_eq!(behalf(&["a@b.c"]), json!({"behalf_email": "a@b.c"}));
    assert_eq!(behalf(&["a@b.c", "d@e.f"]), json!({"behalf_email": ["a@b.c", "d@e.f"]}));
    assert_eq!(behalf(&[]), json!({}));
}
