//! The plugins, the layout and the samples that are part of `ace`: they are used without files, and files override them.

use serde_json::json;

use crate::support::{Home, message};

const CHANNEL: &str = "[plugins.django_email]\ngrants = { mailer = true }\n";
const BODY: &str = "{% extends \"ace_common/edx_ace/common/base_body.html\" %}{% block content %}\
                    Hello {{ user.name }}{% set button_url = \"https://example.org\" %}{% set button_text = \"Go\" %}\
                    {% include \"ace_common/edx_ace/common/button.html\" %}{% endblock content %}";
const HEAD: &str = "{% extends \"ace_common/edx_ace/common/base_head.html\" %}";

/// A folder without plugins, whose mails go to `outbox`. `keys` are at the top of ace.toml, `tables` at its end.
fn home(keys: &str, tables: &str) -> Home {
    let home = Home::empty();
    home.email_templates("note", "Hello", BODY, "Hello");
    home.file("templates/app/edx_ace/note/email/head.html", HEAD);
    let cache = env!("CARGO_TARGET_TMPDIR");
    home.file(
        "ace.toml",
        format!(
            "template-dirs = ['templates']\ncache-dir = '{cache}/e2e-cache'\n{keys}\n[mailer]\ndefault-from = 'a@example.org'\n\
             [relays.main]\nkind = 'file'\ndir = 'outbox'\n{tables}"
        ),
    );
    home
}

fn note() -> serde_json::Value {
    message("note", json!({"context": {"user": {"name": "Zoë"}, "platform_name": "River"}}))
}

/// The only mail in the outbox, with the lines of its encoded parts joined.
fn mail(home: &Home) -> String {
    let names = home.list("outbox");
    let [name] = &names[..] else { panic!("{names:?}") };
    let mail = home.read_bytes(&format!("outbox/{name}"));
    let mail = mail_parser::MessageParser::default().parse(&mail).expect("a mail").into_owned();
    mail.body_html(0).expect("HTML").into_owned()
}

#[test]
fn a_shipped_channel_and_the_shipped_layout_are_used_without_files() {
    let home = home("", CHANNEL);
    home.send(&[note()]).ok();
    let html = mail(&home);
    for part in ["Hello Zo", "River", "#1f4fd8", "prefers-color-scheme: dark"] {
        assert!(html.contains(part), "{part} is not in {html}");
    }
    home.ace(&["check"]).run().ok();
    let shown = home.ace(&["plugins", "--json"]).run().ok().lines();
    assert_eq!((&shown[0]["name"], &shown[0]["file"]), (&json!("django_email"), &json!("shipped:django_email.wasm")));
}

#[test]
fn a_shipped_plugin_is_active_only_if_ace_toml_names_it() {
    let none = home("", "");
    assert_eq!(none.ace(&["plugins", "--json"]).run().ok().lines().len(), 0);
    let routed = home("", "[routing]\ndefault = { email = 'django_email' }\n");
    routed.ace(&["send", "-"]).run().code(2).says("is active only if ace.toml names it: add [plugins.django_email]");
    let listed = home("enabled-channels = ['django_email']", "").ace(&["plugins", "--json"]).run().ok().lines();
    assert_eq!(listed[0]["state"]["state"], "active");
}

#[test]
fn a_file_in_the_plugin_folder_is_used_instead_of_a_shipped_plugin() {
    let home = home("plugin-dir = 'plugins'", CHANNEL);
    home.file("plugins/django_email.wasm", "not a component");
    let listed = home.ace(&["plugins", "--json"]).run().code(1).lines();
    assert_eq!(listed[0]["state"], json!({"state": "broken", "reason": "it is not a WebAssembly component"}));
}

#[test]
fn a_template_in_a_folder_is_used_instead_of_a_shipped_one() {
    let home = home("", CHANNEL);
    home.ace(&["templates", "copy", "button.html"]).run().ok();
    let copy = "templates/ace_common/edx_ace/common/button.html";
    assert!(home.read(copy).contains("button_url"));
    home.file(copy, "my button");
    home.ace(&["templates", "copy", "button.html"]).run().ok().says("exists, and was not changed");
    home.send(&[note()]).ok();
    assert!(mail(&home).contains("my button"));
    home.ace(&["templates", "copy", "passwordreset", "other"]).run().ok();
    assert!(home.path("other/ace_demo/edx_ace/passwordreset/sample.json").exists());
    home.ace(&["templates", "copy", "nothing"]).run().code(2).says("there is no shipped template \"nothing\"");
}

#[test]
fn every_plugin_of_the_repository_is_shipped() {
    let kinds = ["policies", "channels", "feedback"].map(|kind| crate::support::repository(&format!("plugins/{kind}")));
    let entries = kinds.iter().flat_map(|kind| std::fs::read_dir(kind).expect("a folder"));
    let mut sources: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().join("Cargo.toml").exists()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    sources.sort();
    let listed = Home::empty().ace(&["plugin", "list", "--shipped", "--json"]).run().ok().lines();
    let mut names: Vec<&str> = listed.iter().filter_map(|plugin| plugin["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, sources, "run `make shipped`");
}
