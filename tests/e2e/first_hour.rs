//! From nothing to a mail of one's own: `ace init`, `ace message new`, `ace send --to`.

use crate::support::Home;

/// An empty folder in which `ace init` created `shop`.
fn shop(arguments: &[&str]) -> Home {
    let home = Home::empty();
    let all = [&["init", "shop", "--brand", "River Shop", "--from", "River <hi@river.example>"], arguments].concat();
    home.ace(&all).run().ok().says("ace send --to you@example.com welcome");
    home
}

/// The headers and the decoded HTML of the only mail.
fn mail(home: &Home) -> (String, String) {
    let names = home.list("shop/outbox");
    let [name] = &names[..] else { panic!("{names:?}") };
    let raw = home.read_bytes(&format!("shop/outbox/{name}"));
    let mail = mail_parser::MessageParser::default().parse(&raw).expect("a mail");
    let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address()).unwrap_or_default();
    (format!("{to}: {}", mail.subject().unwrap_or_default()), mail.body_html(0).expect("HTML").into_owned())
}

#[test]
fn a_new_folder_is_valid_and_sends_its_message() {
    let home = shop(&["--languages", "en,fr", "--color", "#00693e"]);
    let config = ["--config", "shop/ace.toml"];
    home.ace(&[&config[..], &["check"]].concat()).run().ok().says("0 problems");
    home.ace(&[&config[..], &["send", "--to", "me@example.org", "welcome"]].concat()).run().ok();
    let (head, html) = mail(&home);
    assert_eq!(head, "me@example.org: News from River Shop");
    for part in ["Hello Zoë,", "#00693e", "River Shop"] {
        assert!(html.contains(part), "{part} is not in {html}");
    }
    assert!(home.read("shop/templates/locale/fr/LC_MESSAGES/django.po").contains("msgid \"Get started\""));
    assert!(home.read("shop/.gitignore").contains("/outbox/"));
}

#[test]
fn nothing_is_overwritten() {
    let home = shop(&[]);
    home.file("shop/templates/app/edx_ace/welcome/email/subject.txt", "mine");
    std::fs::remove_file(home.path("shop/ace.toml")).expect("removed");
    home.ace(&["init", "shop"]).run().code(2).says(".gitignore exists; nothing was written");
    assert!(!home.path("shop/ace.toml").exists());
    let config = ["--config", "shop/ace.toml", "message", "new", "welcome"];
    home.file("shop/ace.toml", "template-dirs = ['templates']\n");
    home.ace(&config).run().code(2).says("exists; nothing was written");
    assert_eq!(home.read("shop/templates/app/edx_ace/welcome/email/subject.txt"), "mine");
}

#[test]
fn answers_are_checked_before_anything_is_written() {
    let home = Home::empty();
    for (option, value, expected) in [
        ("--color", "green", "must be a colour"),
        ("--color", "#ffff00", "#eef1f5: the contrast is 1.05:1"),
        ("--from", "nobody", "Sender of mails: "),
        ("--relay", "smtp.example.com", "has no port: write smtp.example.com:587"),
        ("--relay", "smtp.example.com:mail", "is not a port"),
        ("--languages", "en,klingon!", "Languages: "),
    ] {
        home.ace(&["init", "shop", option, value]).run().code(2).says(expected);
        assert!(!home.path("shop").exists(), "{option}");
    }
    home.ace(&["init", "shop", "--relay", "smtp.example.com:465"]).run().ok();
    assert!(home.read("shop/ace.toml").contains("tls = \"implicit\""));
}

#[test]
fn a_new_message_has_templates_for_its_channel_types_and_a_valid_sample() {
    let home = shop(&[]);
    let ace = |arguments: &[&str]| home.ace(&[&["--config", "shop/ace.toml"], arguments].concat()).run();
    ace(&["message", "new", "reminder", "--channels", "email,push,sms"]).ok();
    let folder = "shop/templates/app/edx_ace/reminder";
    assert_eq!(home.list(folder), ["email", "push", "sample.json", "sms"]);
    assert_eq!(home.list(&format!("{folder}/push")), ["body.txt", "title.txt"]);
    ace(&["check"]).ok();
    ace(&["send", "--to", "me@example.org", "app.reminder"]).ok();
    assert_eq!(mail(&home).0, "me@example.org: News from River Shop");
    ace(&["send", "--to", "me@example.org", "remainder"]).code(2).says("there are app.reminder, app.welcome");
    ace(&["message", "new", "No"]).code(2).says("\"No\" cannot be a name");
}
