//! Runs docs/tutorial.md as it is written, in an empty folder, with a server from the step that starts one.

use crate::author::path;
use crate::documents::{blocks, run_with};
use crate::serve::{LISTEN, Server};
use crate::support::Home;

const PAGE: &str = "docs/tutorial.md";

#[test]
fn every_command_of_the_tutorial_works() {
    let home = Home::empty();
    run_with(&home, &blocks(PAGE, "sh tutorial").join("\n"), &path(), &[]);
    assert_eq!(home.list("shop/outbox").len(), 2);
    let toml = home.read("shop/ace.toml");
    home.file("shop/ace.toml", format!("{toml}\n{LISTEN}"));
    assert_eq!(blocks(PAGE, "sh serve"), ["ace serve\n"]);
    let server = Server::of(home.ace(&["--log", "info", "serve", "--config", "shop/ace.toml"]));
    let step = |kind: &str| {
        let script = blocks(PAGE, &format!("sh {kind}")).join("\n").replace("http://127.0.0.1:8025", &server.url);
        run_with(&home, &format!("cd shop\n{script}"), &path(), &[("ACE_SERVER", &server.url)])
    };
    let sent = step("batch");
    assert!(sent.contains("\"sent\": 3"), "{sent}");
    let after_batch = subjects(&home);
    assert!(after_batch.iter().any(|mail| mail == "Les soldes commencent : lundi"), "{after_batch:?}");
    let denied = step("opt-out");
    assert!(denied.contains("\"sent\": 2") && denied.contains("\"not_sent\": 1"), "{denied}");
    let plugin = step("plugin");
    assert!(plugin.contains("plugins/night_off.wasm"), "{plugin}");
    let failed = step("failed");
    assert!(failed.contains("first_name"), "{failed}");
    crate::support::wait_for("the mail that was retried", || {
        subjects(&home).iter().any(|mail| mail == "The sale starts on Friday").then_some(())
    });
}

/// The subjects of all mails in the outbox.
fn subjects(home: &Home) -> Vec<String> {
    let subject = |name: String| {
        let mail = home.read_bytes(&format!("shop/outbox/{name}"));
        let mail = mail_parser::MessageParser::default().parse(&mail).expect("a mail").into_owned();
        mail.subject().unwrap_or_default().to_owned()
    };
    home.list("shop/outbox").into_iter().filter(|name| name.ends_with(".eml")).map(subject).collect()
}
