//! The channel `file_email`, which writes mails as pages to a folder.

use serde_json::{Value, json};

use crate::support::{Done, Home, assert_text, email, message};

/// A home with `file_email` alone, writing into `out`.
fn home() -> Home {
    let home = Home::new(&["file_email"], "[plugins.file_email]\ngrants = { outbox = 'out' }\n");
    home.email_templates("note", "{{ subject or 'A note' }}", "<p>{{ text or 'Hi' }}</p>", "{{ text or 'Hi' }}");
    std::fs::create_dir(home.path("out")).expect("made");
    home
}

fn send(home: &Home, fields: Value) -> Done {
    home.send(&[message("note", fields)])
}

#[test]
fn a_mail_is_a_page_with_its_headers_in_comments() {
    let home = home();
    let uuid = "1b671a64-40d5-491e-99b0-da01ff1f3341";
    let context = json!({"subject": "Grüße", "text": "Tom & <Jerry> 日本", "from_name": "Shop"});
    let done = send(&home, json!({"uuid": uuid, "context": context})).ok();
    let files = home.list("out");
    assert_eq!(files.len(), 1);
    assert_eq!(done.email()["provider_id"], files[0]);
    assert!(files[0].starts_with("7.20") && files[0].ends_with(&format!(".{uuid}.html")), "{files:?}");
    let page = home.read(&format!("out/{}", files[0]));
    for part in [
        "<!DOCTYPE html>",
        "<title>x</title>",
        "<p>Tom &amp; &lt;Jerry&gt; 日本</p>",
        "<!-- to: zoe@learner.example -->",
        "<!-- from_name: Shop -->",
        "<!-- subject: Grüße -->",
        "<!-- body: Tom & <Jerry> 日本 -->",
    ] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
}

#[test]
fn no_text_ends_its_comment() {
    let home = home();
    let evil = "--><script>alert(1)</script><!--";
    send(&home, json!({"context": {"subject": evil, "text": evil, "from_name": "--!>"}})).ok();
    let page = home.read(&format!("out/{}", home.list("out")[0]));
    let after_body = page.split_once("</body>").expect("a body").1;
    assert_eq!(after_body.matches("-->").count(), 4, "one for each comment: {page}");
    assert!(!after_body.contains("--!>") && !page.contains("<p>--><script>"), "{page}");
}

#[test]
fn each_message_to_a_learner_has_its_own_file() {
    let home = home();
    let notes: Vec<Value> = (0..5).map(|_| message("note", json!({}))).collect();
    home.send(&notes).ok();
    assert_eq!(home.list("out").len(), 5, "each name carries the uuid");
}

#[test]
fn an_existing_file_is_never_replaced() {
    let home = home();
    let fields = json!({"options": {"output_file_path": "mails/welcome.html"}, "context": {"text": "first"}});
    send(&home, fields).ok();
    let first = home.read("out/mails/welcome.html");
    assert!(first.contains("<p>first</p>"));
    let fields = json!({"options": {"output_file_path": "mails/welcome.html"}, "context": {"text": "second"}});
    let done = send(&home, fields).code(1);
    assert_eq!(done.email()["state"], "failed");
    assert_text(&done.email()["error"], "mails/welcome.html");
    assert_eq!(home.read("out/mails/welcome.html"), first);
}

#[test]
fn a_name_outside_the_folder_fails() {
    let home = home();
    std::os::unix::fs::symlink(home.path(""), home.path("out/link")).expect("linked");
    for path in ["/etc/ace-was-here", "../escaped.html", "a/../../escaped.html", "a\\b", "link/escaped.html", "a\nb"] {
        let patient = message("note", json!({"options": {"output_file_path": path}})).to_string();
        let done = home.ace(&["send", "--json", "--max-delay", "0", "-"]).input(patient).run().code(1);
        assert_ne!(done.email()["state"], "sent", "{path:?}");
        if !path.starts_with("link") {
            assert_eq!(done.email()["state"], "failed", "{path:?}");
            assert_text(&done.email()["error"], "output_file_path");
        }
    }
    assert_eq!(home.list("out"), ["link"]);
    assert!(!home.path("escaped.html").exists());
}

#[test]
fn a_learner_without_an_id_or_an_address_has_a_file() {
    let home = home();
    let fields = json!({"recipient": {"lms_user_id": null, "email_address": null}});
    assert_eq!(send(&home, fields).ok().email()["state"], "sent");
    assert!(home.list("out")[0].starts_with("None."));
    send(&home, json!({"recipient": {"lms_user_id": "../7 x"}})).ok();
    assert!(home.list("out").iter().any(|name| name.starts_with("___7_x.")), "{:?}", home.list("out"));
}

#[test]
fn without_its_grant_it_fails_and_names_it() {
    let home = Home::new(&["file_email"], "");
    home.email_templates("note", "s", "h", "t");
    let done = send(&home, json!({})).code(1);
    assert_eq!(email(&done.lines()[0])["state"], "failed");
    assert_text(&done.email()["error"], "outbox");
}
