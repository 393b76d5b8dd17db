//! What the commands of a running server show to people: timelines, reasons, tables.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, configure, home, note, settled};
use crate::support::Home;

/// What a command shows, in at most 80 columns.
fn shown(home: &Home, server: &Server, arguments: &[&str]) -> String {
    let shown = home.ace(&[arguments, &["--server", &server.url]].concat()).run().ok().stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{arguments:?} is wider than 80 columns:\n{shown}");
    assert!(!shown.contains(['─', '\u{1b}']), "{shown}");
    shown
}

#[tokio::test]
async fn people_see_why_a_message_was_not_sent() {
    let home = home("");
    home.plugin("stub_policy");
    configure(&home, "[plugins.stub_policy]\nconfig = { deny = ['email'], reason = 'it is Sunday' }\n");
    let server = Server::start(&home);
    let uuid = server.send(&note(1, json!({}))).await["uuid"].clone();
    settled(&server, &uuid, "not_sent").await;
    let reason = server.get("/v1/messages").await.1["messages"][0]["reason"].clone();
    assert!(reason.as_str().is_some_and(|text| text.starts_with("email denied: stub_policy")), "{reason}");

    let listed = shown(&home, &server, &["messages"]);
    assert!(listed.contains(&Uuid::from_u128(1).to_string()) && listed.contains("not_sent"), "{listed}");
    assert!(listed.contains("reason: email denied: stub_policy"), "{listed}");
    let timeline = home.ace(&["messages", &Uuid::from_u128(1).to_string(), "--server", &server.url]).run().ok().stdout;
    let steps: Vec<&str> = timeline.lines().skip(2).map(|line| line[21..].trim()).collect();
    assert!(timeline.starts_with(&format!("app.note {} to zoe@learner.example (user 7)\n", Uuid::from_u128(1))));
    assert_eq!((steps[0], steps.last()), ("accepted", Some(&"not sent")), "{timeline}");
    assert!(steps[1].starts_with("stub_policy denied email"), "{timeline}");
    assert!(serde_json::from_str::<Value>(&timeline).is_err(), "JSON only with --json");
}

#[tokio::test]
async fn shadow_mode_is_marked_everywhere() {
    let home = home("");
    home.plugin("stub_policy");
    configure(&home, "[plugins.stub_policy]\nmode = 'shadow'\nconfig = { deny = ['email'] }\n");
    let server = Server::start(&home);
    let uuid = server.send(&note(1, json!({}))).await["uuid"].clone();
    settled(&server, &uuid, "sent").await;
    let compared = shown(&home, &server, &["plugins", "--shadow"]);
    let row: Vec<&str> = compared.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..4], ["stub_policy", "0", "1", "0"], "{compared}");
    assert!(compared.contains(&Uuid::from_u128(1).to_string()) && compared.contains("denies email"), "{compared}");
    let listed = shown(&home, &server, &["plugins"]);
    assert!(listed.contains("active in shadow mode"), "{listed}");
    let timeline = home.ace(&["messages", &Uuid::from_u128(1).to_string(), "--server", &server.url]).run().ok().stdout;
    assert!(timeline.contains("stub_policy (shadow mode, no effect) would deny email"), "{timeline}");
    let explained = home.ace(&["explain", "-"]).input(note(2, json!({})).to_string()).run().ok().stdout;
    assert!(explained.contains("shadow mode, no effect: denies email; the decision would differ"), "{explained}");
    configure(&home, "[plugins.stub_policy]\n");
    server.post("/v1/reload", "").await;
    home.ace(&["plugins", "--shadow", "--server", &server.url]).run().ok().says("no policy is in shadow mode");
}

#[tokio::test]
async fn entries_are_listed_exported_and_imported() {
    let home = home("");
    let server = Server::start(&home);
    let kv = |arguments: &[&str]| home.ace(&[&["kv"], arguments, &["--server", &server.url]].concat()).run();
    let lines: String =
        (0..250).map(|n| json!({"bucket": "b", "key": format!("k{n:03}"), "value": [n]}).to_string() + "\n").collect();
    home.file("in.ndjson", &lines);
    assert_eq!(kv(&["import", "in.ndjson"]).ok().stdout, "250 entries\n");
    kv(&["set", "b", "k249", "of words"]).ok();
    let listed = shown(&home, &server, &["kv", "list", "b", "--limit", "2"]);
    assert_eq!(listed, "KEY   VALUE\nk000  [0]\nk001  [1]\n");
    let exported = kv(&["export", "b"]).ok();
    assert_eq!(exported.lines().len(), 250);
    assert_eq!(exported.lines()[249], json!({"bucket": "b", "key": "k249", "value": "of words"}));
    home.file("out.ndjson", exported.stdout.replace("\"bucket\":\"b\"", "\"bucket\":\"c\""));
    assert_eq!(kv(&["load", "out.ndjson"]).ok().stdout, "250 entries\n");
    assert_eq!(kv(&["list", "c", "--json", "--limit", "1000"]).ok().lines().len(), 250);
    assert_eq!(kv(&["get", "c", "k007"]).ok().stdout, "[7]\n");
    assert_eq!(server.get("/v1/keyvalue/b?limit=3&cursor=k246").await.1["next"], Value::Null);
}

#[tokio::test]
async fn lists_fit_80_columns() {
    let home = home("");
    let server = Server::start(&home);
    home.file("type.json", json!({"app_label": "app", "name": "note"}).to_string());
    home.file("users.csv", "lms_user_id,email_address\n1,a@example.com\n");
    shown(&home, &server, &["batch", "--type", "type.json", "--recipients", "users.csv", "--wait"]);
    let address = "a.very.long.address.of.somebody@department.of.something.example";
    shown(
        &home,
        &server,
        &["suppressions", "add", address, "--detail", "as they asked us to by telephone this morning"],
    );
    let listed = shown(&home, &server, &["suppressions", "list"]);
    assert!(listed.contains(address), "{listed}");
    for list in [&["batches"][..], &["queue"], &["plugins"], &["messages"]] {
        shown(&home, &server, list);
    }
}
