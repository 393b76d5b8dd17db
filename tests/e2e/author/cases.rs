//! Cases that are too long for a new project. Every language must give the same answers.

use serde_json::{Value, json};

use crate::support::message;

/// Values of a member.
const VALUES: &str = r#"0 -0 10 -1.5 1e5 1E+05 0.0e-999 1.7e308 [] {} [1,{"a":[]}] true "\\\\ud800" "{[\"[{""#;
/// What looks like such a value and is none.
const NO_VALUES: &str = r#"+1 - 01 -01 1. .5 1e 1e+ 0x10 1_000 Infinity -Infinity nul nulls True undefined [1,] [,1] [ ] [} {] {"a"}
    {"a":} {"a":1,} {a:1} {1:1} 'a' "\x" "\u12" "\"#;
/// Texts with half of a surrogate pair.
const HALVES: [&str; 5] = [r"\ud83d", r"\uDE00", r"\ud83d\ud83d", r"\ud83d\\ude00", r"\\\ud83d"];

/// The length of an event that a new project accepts.
const BODY_BYTES_MAX: usize = 16_384;

/// The cases of new projects of a kind. Their expectations are complete.
pub fn of(kind: &str) -> Vec<Value> {
    match kind {
        "policy" => policy(),
        "feedback" => feedback(),
        _ => Vec::new(),
    }
}

/// There is no limit to the channel types.
fn policy() -> Vec<Value> {
    let types: Vec<String> = (1..=40).map(|n| format!("type-{n}")).collect();
    let deny = types.iter().map(|of| json!({"channel_type": of, "reason": "it is not transactional"}));
    let deny: Vec<Value> = deny.collect();
    vec![json!({"message": message("note", json!({})), "config": {"channel-types": types}, "expect": {"deny": deny}})]
}

/// JSON in every form.
fn feedback() -> Vec<Value> {
    let event =
        json!({"received": {"events": [{"id": "e-1", "kind": "unknown", "permanent": false, "vouched": false}]}});
    let no_json = json!({"malformed": "the body: it is not JSON"});
    let no_id = json!({"malformed": "the body: it has no text \"id\" of 1 to 1,024 bytes"});
    let about = |value: &str| format!("{{\"id\": \"e-1\", \"about\": {value}}}");
    let too_long = json!({"malformed": "the body: it is longer than 16,384 bytes"});
    // The longest body that is accepted, with many of a part in it.
    let filled = |open: &str, part: &str, close: &str| {
        let room = BODY_BYTES_MAX - about(&format!("{open}{close}")).len();
        about(&format!("{open}{}{}{close}", part.repeat(room / part.len()), " ".repeat(room % part.len())))
    };
    let nested = |open: &str, close: &str, depth| about(&format!("{}{}", open.repeat(depth), close.repeat(depth)));

    let mut bodies: Vec<(String, &Value)> = VALUES.split(' ').map(|value| (about(value), &event)).collect();
    bodies.extend(NO_VALUES.split_whitespace().map(|value| (about(value), &no_json)));
    bodies.extend(HALVES.map(|text| (about(&format!("\"{text}\"")), &no_json)));
    bodies.extend(HALVES.map(|key| (about(&format!("{{\"{key}\": 1}}")), &no_json)));
    bodies.extend([
        (format!("\u{feff}{}", about("1")), &no_json),
        (format!(" \r\n\t{} ", about("[\t1 , {\"a\" :\r\n[ ]}]")), &event),
        (about("\"\u{7f}\u{2028}\""), &event),
        (about("\"\u{1f}\""), &no_json),
        (about("[1 2]"), &no_json),
        (about(""), &no_json),
        (format!("{}}}", about("1")), &no_json),
        (nested("[", "]", 126), &event),
        (nested("[", "]", 127), &no_json),
        ("[".repeat(127) + &"]".repeat(127), &no_id),
        ("[".repeat(128) + &"]".repeat(128), &no_json),
        ("[".repeat(100_000), &too_long),
        ("[".repeat(BODY_BYTES_MAX), &no_json),
        (nested("[", "]", 8_000), &no_json),
        (nested("{\"a\":", "}", 2_500), &no_json),
        (about(&format!("\"{}", "\\\"".repeat(8_000))), &no_json),
        (about(&"\"\\\n".repeat(5_000)), &no_json),
        (about(&"9".repeat(16_000)), &no_json),
        (filled("[", "123456789,", "0]"), &event),
        (filled("[", "{\"a\":[0]},", "0]"), &event),
        (filled("\"", r"\ud83d\ude00", "\""), &event),
        (filled("\"", "é", "\""), &event),
        (filled("\"", "é", "\"") + " ", &too_long),
        (about(&format!("{}1", "9".repeat(400))), &no_json),
        (about(&format!("0.{}1", "0".repeat(400))), &event),
        (json!({"id": "é".repeat(513)}).to_string(), &no_id),
        (
            json!({"id": "e-1", "type": "x".repeat(65), "email": "é".repeat(513), "message": "x".repeat(1_025)})
                .to_string(),
            &event,
        ),
    ]);
    let case = |body: Value, expect: &Value| json!({"secrets": {"path-secret": "k7Jq2"}, "request": {"path": "/k7Jq2", "body": body}, "expect": expect});
    bodies.into_iter().map(|(body, expect)| case(body.into(), expect)).collect()
}
