use serde_json::json;

use super::*;

fn errors(value: Value) -> Vec<(String, String)> {
    let errors = Message::from_value(value).expect_err("it is invalid").0;
    errors.into_iter().map(|e| (e.path, e.message)).collect()
}

#[test]
fn all_invalid_fields_are_reported_at_once() {
    let found = errors(json!({
        "app_label": 7,
        "name": "../x",
        "recipient": {"email_address": ["a"], "lms_user": 3},
        "expiration_time": "soon",
        "uuid": "x",
        "headers": {"X-A": 1},
        "optoins": {},
        "log_level": "debug",
    }));
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/app_label",
            "/name",
            "/recipient/lms_user_id",
            "/recipient/email_address",
            "/recipient/lms_user",
            "/expiration_time",
            "/uuid",
            "/headers",
            "/log_level",
            "/optoins",
        ]
    );
    assert!(found[4].1.contains("lms_user_id"), "{}", found[4].1);
    assert!(found[9].1.contains("options"), "{}", found[9].1);
}

#[test]
fn missing_fields_get_defaults_and_a_missing_uuid_is_generated() {
    let json = br#"{"app_label": "a", "name": "n", "recipient": null}"#;
    let (one, two) = (Message::from_json(json).expect("valid"), Message::from_json(json).expect("valid"));
    assert_ne!(one.uuid, two.uuid);
    assert_eq!((one.recipient, one.options.len(), one.language), (None, 0, None));
}

#[test]
fn nan_and_infinity_are_rejected_with_their_path() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let json = format!("{{\"app_label\": \"a\",\n \"context\": {{\"marks\": [1, {{\"x/y\": {word}}}]}}}}");
        let errors = Message::from_json(json.as_bytes()).expect_err("it is not JSON").0;
        assert_eq!(errors[0].path, "/context/marks/1/x~1y", "{word}");
        assert!(errors[0].message.starts_with(word), "{}", errors[0].message);
    }
}

#[test]
fn invalid_json_is_rejected_with_its_position() {
    let errors = Message::from_json(b"{\"app_label\": \"a\",}").expect_err("it is not JSON").0;
    assert!(errors[0].message.contains("line 1 column"), "{}", errors[0].message);
    assert!(Message::from_json(b"[]").expect_err("not an object").0[0].message.contains("an array"));
}

#[test]
fn times_without_an_offset_are_utc_and_keep_their_text() {
    let utc = DateTime::parse("2026-01-02T03:04:05").expect("a time");
    assert_eq!(utc.timestamp(), "2026-01-02T03:04:05Z".parse().expect("a time"));
    assert_eq!(utc.as_str(), "2026-01-02T03:04:05");
    let east = DateTime::parse("2026-01-02 03:04:05+05:30").expect("a time");
    assert_eq!(east.timestamp(), "2026-01-01T21:34:05Z".parse().expect("a time"));
    assert_eq!(DateTime::parse("9999-12-31T23:59:59.999999").expect("datetime.max").timestamp(), Timestamp::MAX);
    for text in ["", "tomorrow", "2026-13-01T00:00:00", "01/02/03"] {
        assert!(DateTime::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_user_id_may_have_any_type_of_edx_ace() {
    let id = |value: Value| decode::user_id(value).map(|id| (id.as_text(), id.as_number()));
    assert_eq!(id(json!(0)), Ok((Some("0".to_owned()), Some(0))));
    assert_eq!(id(json!("42")), Ok((Some("42".to_owned()), Some(42))));
    assert_eq!(id(json!("abc")), Ok((Some("abc".to_owned()), None)));
    assert_eq!(id(json!(null)), Ok((None, None)));
    assert!(id(json!(true)).is_err());
    assert!(id(json!(1.5)).is_err());
}

#[test]
fn contacts_are_omitted_if_there_are_none() {
    let json = json!({"app_label": "a", "name": "n", "recipient": {
        "lms_user_id": 1, "email_address": null, "contacts": {"push-token": ["t1", "t2"], "phone": "+1"}}});
    let message = Message::from_value(json).expect("valid");
    let recipient = message.recipient.clone().expect("a recipient");
    assert_eq!(recipient.contacts.len(), 3);
    let again = Message::from_json(message.to_json().as_bytes()).expect("its own output is valid");
    assert_eq!(again.recipient.expect("a recipient").contacts.len(), 3);
    let plain = serde_json::to_string(&Recipient::new(1, "a@b.c")).expect("JSON");
    assert_eq!(plain, r#"{"lms_user_id":1,"email_address":"a@b.c"}"#);
}

#[test]
fn contacts_that_are_too_many_or_too_long_are_refused() {
    let refused = |contacts: Value| {
        let recipient = json!({"lms_user_id": 1, "email_address": null, "contacts": contacts});
        let message = json!({"app_label": "a", "name": "n", "recipient": recipient});
        Message::from_value(message).expect_err("too much").to_string()
    };
    let addresses = |count: usize, bytes: usize| json!({"phone": vec!["1".repeat(bytes); count]});
    for (contacts, expected) in [
        (addresses(257, 1), "at most 256 addresses, not 257"),
        (addresses(1, 4097), "at most 4096 bytes in an address, not 4097"),
        (json!({"k".repeat(65): "+1"}), "at most 64 bytes in a kind, not 65"),
        (addresses(256, 252), "at most 65536 bytes in all kinds and addresses, not 65792"),
    ] {
        assert_eq!(refused(contacts), format!("/recipient/contacts: must have {expected}"));
    }
}

#[test]
fn personalized_messages_do_not_share_options() {
    let mut message_type = MessageType::new("app", "name");
    message_type.context = json!({"a": {"deep": 1}, "b": 2}).as_object().cloned().expect("an object").into();
    message_type.options.insert("transactional".into(), true.into());
    let user = json!({"a": {"other": 3}}).as_object().cloned().expect("an object");
    let mut one = message_type.personalize(Recipient::new(1, "a@b.c"), None, user);
    one.options.insert("mine".into(), true.into());
    let two = message_type.personalize(Recipient::new(2, "d@e.f"), None, Object::new());
    assert_eq!(one.context.value("a"), Some(json!({"other": 3})), "values are not merged");
    assert_eq!(one.send_uuid, Some(message_type.uuid));
    assert!(!two.options.contains_key("mine"));
}

#[test]
fn truthiness_is_that_of_python() {
    for value in [json!(null), json!(false), json!(0), json!(0.0), json!(""), json!([]), json!({})] {
        assert!(!is_truthy(&value), "{value}");
    }
    for value in [json!(true), json!(-1), json!("0"), json!("false"), json!([0]), json!({"a": 0})] {
        assert!(is_truthy(&value), "{value}");
    }
}

#[test]
fn only_a_similar_name_is_suggested() {
    let known = ["django_email", "file_email", "braze_email"];
    assert_eq!(nearest("djano_email", known), Some("django_email"));
    assert_eq!(nearest("slack", known), None);
}

fn report(outcomes: Vec<Outcome>) -> Report {
    let channels = outcomes.into_iter().map(|outcome| ChannelReport::new("t".to_owned(), outcome));
    Report {
        uuid: Uuid::nil(),
        name: String::new(),
        interruptions: Vec::new(),
        policies: Vec::new(),
        channels: channels.collect(),
    }
}

#[test]
fn a_stored_user_id_keeps_its_type_and_is_found_as_before() {
    let text = |t: &str| UserId::Text(t.to_owned());
    let ids = [
        UserId::None,
        UserId::Number(0),
        UserId::Number(-7),
        UserId::Number(i64::MAX),
        text("7"),
        text("-7"),
        text("007"),
        text("+7"),
        text(""),
        text("7a"),
        text("\u{2060}7"),
        text("9223372036854775808"),
    ];
    for id in ids {
        let stored = id.to_stored();
        assert_eq!(UserId::of_stored(stored.as_deref()), id);
        assert_eq!(
            stored.as_deref().map(ace_store::person::normal_user),
            id.as_text().as_deref().map(ace_store::person::normal_user),
            "{id:?}"
        );
    }
}

#[test]
fn null_is_read_as_an_empty_object() {
    let value =
        json!({"app_label": "a", "name": "n", "recipient": null, "context": null, "options": null, "headers": null});
    let read = [Message::from_value(value.clone()), Message::from_json(value.to_string().as_bytes())];
    for message in read {
        let message = message.expect("it is a message");
        assert_eq!((message.context.to_object(), message.options), (Object::new(), Object::new()));
        assert!(message.headers.0.is_empty());
    }
}

#[test]
fn a_retry_after_is_seconds_or_a_date() {
    let now = "1994-11-06T08:49:00Z".parse().expect("a time");
    let after = |text| retry_after(text, now).map(|pause| pause.as_secs());
    assert_eq!(after(" 120 "), Some(120));
    for (text, millis) in
        [("0", 0), ("1.5", 1500), ("0.65", 650), ("1.0", 1000), ("64.5700001", 64_571), ("0.9999", 1000)]
    {
        assert_eq!(retry_after(text, now), Some(Duration::from_millis(millis)), "{text}");
    }
    for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(after(date), Some(37), "{date}");
    }
    let past = ["Sun, 06 Nov 1994 08:48:59 GMT", "-1", "-0.5"];
    let too_late = ["99999999999999999999", "253402300799", "18446744073709551615.9999"];
    let invalid = ["", "soon", "+1", "1.", ".5", "1.5.5", "1e3", "inf", "NaN", "1 5", "5s"];
    for none in [&past[..], &too_late, &invalid].concat() {
        assert_eq!(after(none), None, "{none}");
    }
}

#[test]
fn a_message_fails_when_something_failed_or_nothing_could_carry_it() {
    let sent = || Outcome::Sent { receipt: Receipt::default(), fault: None };
    let unsupported = || Outcome::Unsupported { reason: String::new() };
    let absent = |absent| Outcome::TemplateError { message: String::new(), absent };
    let denied = || Outcome::Denied { reasons: Vec::new() };
    assert!(!report(vec![sent(), unsupported()]).is_failure());
    assert!(!report(vec![sent(), absent(true)]).is_failure());
    assert!(!report(vec![denied(), denied()]).is_failure());
    assert!(report(vec![sent(), absent(false)]).is_failure());
    assert!(report(vec![unsupported(), unsupported()]).is_failure());
    assert!(report(vec![unsupported(), Outcome::Excluded]).is_failure());
    assert!(!report(vec![sent(), Outcome::Excluded]).is_failure());
    assert!(report(vec![absent(true), unsupported()]).is_failure());
    assert!(report(vec![sent(), Outcome::Expired { error: None }]).is_failure());
    assert!(report(vec![Outcome::MaybeSent { reason: String::new() }]).is_failure());
}
