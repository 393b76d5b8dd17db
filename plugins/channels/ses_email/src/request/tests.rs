use serde_json::{Value, json};

use super::*;

fn settings() -> Settings {
    Settings {
        url: "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails".to_owned(),
        default_from: "Campus <no-reply@campus.example>".to_owned(),
        configuration_set: None,
        tenant: None,
        timeout_ms: 15_000,
    }
}

fn mail() -> Email {
    Email {
        sender: Some("Course team <team@campus.example>".to_owned()),
        recipients: vec!["zoe@learner.example".to_owned()],
        subject: "Grüße".to_owned(),
        text: "Hi".to_owned(),
        html: Some("<p>Hi</p>".to_owned()),
        ..Email::default()
    }
}

fn with(settings: &Settings, mail: &Email, given: &[(&str, &str)]) -> Result<Value, String> {
    let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = request(settings, mail, Tags { uuid: "u-1", name: "campus.note", given })?;
    assert_eq!((request.method.as_str(), &request.url), ("POST", &settings.url));
    Ok(serde_json::from_slice(&request.body.expect("a body")).expect("JSON"))
}

fn body(mail: &Email) -> Result<Value, String> {
    with(&settings(), mail, &[])
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A mail with an empty file.
fn attached(name: &str, content_type: &str) -> Email {
    let file = Attachment {
        file_name: name.to_owned(),
        content_type: content_type.to_owned(),
        content: Vec::new(),
        content_id: None,
    };
    Email { attachments: vec![file], ..mail() }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// The mail and the settings of a recorded case.
fn of_recording(recorded: &Value, case: &Value) -> (Email, Settings) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mail = Email {
        sender: text(&case["sender"]),
        recipients: texts(&case["to"]),
        cc: texts(&case["cc"]),
        bcc: texts(&case["bcc"]),
        reply_to: texts(&case["reply_to"]),
        subject: text(&recorded["subject"]).expect("a subject"),
        text: text(&case["text"]).or_else(|| text(&recorded["text"])).expect("a text"),
        html: text(&recorded["html"]),
        headers: case["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|header| {
                let pair = texts(header);
                (pair[0].clone(), pair[1].clone())
            })
            .collect(),
        attachments: case["attachments"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|attached| {
                let parts = texts(attached);
                Attachment {
                    file_name: parts[0].clone(),
                    content_type: parts[1].clone(),
                    content: BASE64_STANDARD.decode(&parts[2]).expect("base64"),
                    content_id: parts.get(3).cloned(),
                }
            })
            .collect(),
        relay: None,
        return_path: None,
    };
    let settings = crate::settings::read(|key| match key {
        "region" => text(&recorded["region"]),
        "default-from-email" => Some("Campus <no-reply@campus.example>".to_owned()),
        "configuration-set" => text(&case["configuration_set"]),
        "tenant" => text(&case["tenant"]),
        _ => None,
    });
    (mail, settings.expect("valid"))
}

#[test]
fn the_requests_are_those_of_botocore() {
    let recorded: Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
    let (uuid, name) = (recorded["uuid"].as_str().expect("text"), recorded["name"].as_str().expect("text"));
    for case in recorded["requests"].as_array().expect("requests") {
        let (mail, settings) = of_recording(&recorded, &case["mail"]);
        let given = case["mail"]["tags"].as_object().into_iter().flatten();
        let given = given.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
        let ours = request(&settings, &mail, Tags { uuid, name, given }).expect("valid");
        let theirs = &case["request"];
        let url =
            format!("https://{}{}", theirs["host"].as_str().expect("text"), theirs["path"].as_str().expect("text"));
        assert_eq!((ours.method.as_str(), ours.url), (theirs["method"].as_str().expect("text"), url));
        assert_eq!(ours.headers[0].1, theirs["headers"]["content-type"]);
        let body: Value = serde_json::from_slice(&ours.body.expect("a body")).expect("JSON");
        let expected: Value = serde_json::from_str(theirs["body"].as_str().expect("text")).expect("JSON");
        assert_eq!(body, expected, "{}", case["case"]);
    }
}

#[test]
fn a_mail_has_only_the_parts_that_it_needs() {
    let text = |data: &str| json!({"Data": data, "Charset": "UTF-8"});
    let expected = json!({
        "FromEmailAddress": "Course team <team@campus.example>",
        "Destination": {"ToAddresses": ["zoe@learner.example"]},
        "Content": {"Simple": {"Subject": text("Grüße"), "Body": {"Text": text("Hi"), "Html": text("<p>Hi</p>")}}},
        "EmailTags": [{"Name": "message-uuid", "Value": "u-1"}, {"Name": "message-name", "Value": "campus_note"}],
    });
    assert_eq!(body(&mail()), Ok(expected));
}

#[test]
fn settings_and_options_are_added() {
    let settings =
        Settings { configuration_set: Some("main".to_owned()), tenant: Some("campus".to_owned()), ..settings() };
    let attached = |content_id: Option<&str>| Attachment {
        file_name: "a.png".to_owned(),
        content_type: "image/png".to_owned(),
        content: vec![1, 2, 255],
        content_id: content_id.map(str::to_owned),
    };
    let mail = Email {
        sender: None,
        cc: vec!["Zoë <c@b.example>".to_owned()],
        bcc: vec!["b@b.example".to_owned()],
        reply_to: vec!["r@b.example".to_owned()],
        headers: pairs(&[("List-Unsubscribe", "<https://b.example/u>"), ("X-A", "é")]),
        attachments: vec![attached(None), attached(Some("<logo>"))],
        ..mail()
    };
    let body = with(&settings, &mail, &[("course", "a-1_b")]).expect("valid");
    assert_eq!(body["FromEmailAddress"], "Campus <no-reply@campus.example>");
    assert_eq!(body["Destination"]["CcAddresses"], json!(["=?utf-8?B?Wm/Dqw==?= <c@b.example>"]));
    assert_eq!(body["Destination"]["BccAddresses"], json!(["b@b.example"]));
    assert_eq!(body["ReplyToAddresses"], json!(["r@b.example"]));
    assert_eq!((&body["ConfigurationSetName"], &body["TenantName"]), (&json!("main"), &json!("campus")));
    let simple = &body["Content"]["Simple"];
    let headers = json!([
        {"Name": "List-Unsubscribe", "Value": "<https://b.example/u>"},
        {"Name": "X-A", "Value": "=?utf-8?B?w6k=?="},
    ]);
    assert_eq!(simple["Headers"], headers);
    let file = json!({
        "FileName": "a.png",
        "ContentType": "image/png",
        "ContentDisposition": "ATTACHMENT",
        "ContentTransferEncoding": "BASE64",
        "RawContent": "AQL/",
    });
    assert_eq!(simple["Attachments"][0], file);
    let inline = &simple["Attachments"][1];
    assert_eq!((&inline["ContentDisposition"], &inline["ContentId"]), (&json!("INLINE"), &json!("logo")));
    assert_eq!(body["EmailTags"][2], json!({"Name": "course", "Value": "a-1_b"}));
}

#[test]
fn a_reply_to_header_becomes_the_field() {
    let one = Email { headers: pairs(&[("reply-to", "Zoë <a@b.example>, c@d.example")]), ..mail() };
    let body = body(&one).expect("valid");
    assert_eq!(body["ReplyToAddresses"], json!(["=?utf-8?B?Wm/Dqw==?= <a@b.example>", "c@d.example"]));
    assert_eq!(body["Content"]["Simple"]["Headers"], Value::Null);
    let twice = Email { headers: pairs(&[("Reply-To", "a@b.example"), ("Reply-To", "c@d.example")]), ..mail() };
    assert!(super::tests::body(&twice).expect_err("two headers").contains("duplicate Reply-To"));
}

#[test]
fn a_long_media_type_is_sent_without_its_parameters() {
    for (content_type, expected) in [
        (format!("text/csv; charset={}", "x".repeat(60)), format!("text/csv; charset={}", "x".repeat(60))),
        (format!("text/csv; charset={}", "x".repeat(61)), "text/csv".to_owned()),
    ] {
        let body = body(&attached("a.csv", &content_type)).expect("valid");
        assert_eq!(body["Content"]["Simple"]["Attachments"][0]["ContentType"], expected);
    }
}

#[test]
fn a_mail_without_text_has_html_alone() {
    let body = body(&Email { text: String::new(), ..mail() }).expect("valid");
    assert_eq!(body["Content"]["Simple"]["Body"]["Text"], Value::Null);
}

#[test]
fn what_ses_does_not_accept_is_not_sent() {
    let headers = |list: &[(&str, &str)]| Email { headers: pairs(list), ..mail() };
    let inline = |content_id: &str| {
        let mut mail = attached("a.png", "image/png");
        mail.attachments[0].content_id = Some(content_id.to_owned());
        mail
    };
    let many: Vec<(String, String)> = (0..16).map(|n| (format!("X-{n}"), "x".to_owned())).collect();
    let crowd = (0..50).map(|n| format!("p{n}@b.example")).collect();
    let cases = [
        (Email { cc: crowd, ..mail() }, "51 recipients including cc and bcc; SES accepts at most 50"),
        (Email { headers: many, ..mail() }, "headers: 16; SES accepts at most 15"),
        (headers(&[("X-A", &"x".repeat(996))]), "headers: X-A: the value has 996 bytes"),
        (headers(&[("X-A", &"x".repeat(994))]), "headers: X-A: the value has 994 bytes"),
        (headers(&[("X-A", " ")]), "headers: X-A: the value has 0 bytes"),
        (headers(&[("Subject", "x")]), "headers: Subject is made from the fields"),
        (headers(&[("X-A", "a\r\nBcc: d@e.f")]), "headers: X-A: "),
        (Email { subject: "a\nb".to_owned(), ..mail() }, "subject: "),
        (Email { sender: Some("Zoë".to_owned()), ..mail() }, "sender: "),
        (
            Email { recipients: vec!["zoë@b.example".to_owned()], ..mail() },
            "recipients: \"zoë@b.example\": SES does not",
        ),
        (Email { bcc: vec!["nobody".to_owned()], ..mail() }, "bcc: "),
        (attached("a\nb", "text/plain"), "attachments: file_name"),
        (attached("", "text/plain"), "attachments: file_name is empty"),
        (attached("a", "multipart/mixed"), "attachments: content_type"),
        (attached("a", &format!("text/{}", "x".repeat(74))), "attachments: content_type has 79 bytes"),
        (inline(&format!("<{}>", "x".repeat(79))), "attachments: content_id has 79 bytes"),
    ];
    for (mail, words) in cases {
        let error = body(&mail).expect_err(words);
        assert!(error.starts_with(words), "{error}");
    }
    assert!(body(&headers(&[("X-A", &"x".repeat(993))])).is_ok(), "993 and 3 bytes are 996");
    assert!(body(&inline(&format!("<{}>", "x".repeat(78)))).is_ok());
    let large = Email { text: "x".repeat(MAIL_BYTES_MAX), ..mail() };
    assert!(body(&large).expect_err("40 MB").contains("SES accepts at most 41943040"));
    let mut file = attached("a", "text/plain");
    file.attachments[0].content = vec![0; MAIL_BYTES_MAX / 4 * 3 + 1];
    assert_eq!(body(&file), Err("the request has 41943044 bytes; SES accepts at most 41943040".to_owned()));
}

#[test]
fn tags_have_letters_that_ses_accepts() {
    for (name, value) in
        [("a.b", "x"), ("a", "x y"), ("", "x"), ("a", ""), ("message-uuid", "x"), ("a", &"x".repeat(257))]
    {
        let error = with(&settings(), &mail(), &[(name, value)]).expect_err(name);
        assert!(error.starts_with("options /tags: "), "{error}");
    }
    assert_eq!(name_of("app.Zoë x"), "app_Zo__x");
}
