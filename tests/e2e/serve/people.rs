//! Files as people write them, through the command line and a running server.

use serde_json::json;
use uuid::Uuid;

use super::batches::until;
use super::{Server, configure, home, note};
use crate::support::{Done, Home, assert_text, mail_home};

/// 2**64.
const LONG: &str = "18446744073709551616";
const MARK: &str = "\u{feff}";

/// Runs `ace batch` with this file and additional arguments.
fn batch(home: &Home, server: &Server, recipients: &str, more: &[&str]) -> Done {
    let uuid = Uuid::from_u128(1).to_string();
    let all = ["batch", "--type", "type.json", "--recipients", recipients, "--uuid", &uuid, "--json", "--server"];
    home.ace(&[&all[..], &[server.url.as_str()], more].concat()).run()
}

fn mails(home: &Home) -> Vec<String> {
    home.list("mails").iter().map(|mail| home.read(&format!("mails/{mail}"))).collect()
}

#[tokio::test]
async fn a_file_with_an_error_at_its_end_sends_nothing_and_the_error_names_the_file() {
    let home = home("");
    let server = Server::start(&home);
    home.file("type.json", format!("{MARK}{}", json!({"app_label": "app", "name": "note"})));
    let rows: String = (1..=3_000).map(|n| format!("{n},u{n}@example.com,Hi\n")).collect();
    let header = "lms_user_id,email_address,text\n";
    let files = [
        (
            "open.csv",
            format!("{header}{rows}7,a@example.com,\"Hi\n"),
            "open.csv:3002:17: the quote that opens this field",
        ),
        ("ragged.csv", format!("{header}{rows}7,a@example.com\n"), "ragged.csv:3002:16: the row ends after 2 fields"),
        (
            "near.csv",
            header.replace("_address", "") + &rows,
            "near.csv:1:13: the column \"email\" would go into user_context",
        ),
        ("bad.ndjson", "{\"recipient\": {}}\n".to_owned(), "bad.ndjson:1: /lms_user_id: is required"),
        ("none.csv", String::new(), "none.csv: the file is empty"),
    ];
    for (file, text, expected) in files {
        home.file(file, text);
        let done = batch(&home, &server, file, &[]).code(2);
        done.says(&format!("error: {expected}"));
        assert!(!done.stderr.contains("ace serve") && !done.stderr.contains("cannot reach"), "{}", done.stderr);
    }
    batch(&home, &server, "absent.csv", &[]).code(2).says("error: absent.csv: No such file");
    let done = home.ace(&["kv", "load", "plugins", "--server", &server.url]).run().code(2);
    done.says("error: plugins: Is a directory");
    assert_eq!(server.get("/v1/batches").await.1, json!([]), "nothing was started");

    home.file("good.csv", format!("{MARK}sep=;\r\n{header}{rows}").replace(',', ";"));
    batch(&home, &server, "good.csv", &["--wait"]).ok();
    assert_eq!(until(&server, 1, "done").await["by_state"], json!({"sent": 3_000}));
}

#[tokio::test]
async fn long_numbers_keep_their_digits_from_the_file_to_the_mail() {
    let home = home("[relays.main]\nkind = 'file'\ndir = 'mails'\n");
    home.email_templates("note", "{{ n }} and {{ shared }}", "<p>{{ small }}</p>", "{{ n }} {{ small }} {{ shared }}");
    let server = Server::start(&home);
    let kind = format!(r#"{{"app_label": "app", "name": "note", "context": {{"shared": [{LONG}]}}}}"#);
    home.file("type.json", kind);
    home.file("users.csv", format!("lms_user_id,mail,n,small\n7,a@example.com,{LONG},1e-07\n"));
    batch(&home, &server, "users.csv", &["--column", "email_address=mail", "--typed", "--wait"]).ok();
    let mails = mails(&home);
    assert_eq!(mails.len(), 1);
    for text in [format!("Subject: {LONG} and [{LONG}]"), "<p>1e-07</p>".to_owned(), format!("{LONG} 1e-07 [{LONG}]")] {
        assert!(mails[0].contains(&text), "{text:?} is not in {}", mails[0]);
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_not_sent() {
    let home = home("");
    let server = Server::start(&home);
    let (status, answer) = server.post("/v1/messages", format!("{MARK}{}", note(1, json!({})))).await;
    assert_eq!(status.as_u16(), 202, "{answer}");
    let lines = format!("{MARK}{}{}", super::batches::head(1), super::batches::members(0..3));
    let (status, answer) = server.post("/v1/batches", lines).await;
    assert_eq!((status.as_u16(), &answer["messages"]), (202, &json!(3)), "{answer}");
    let facts = format!("{MARK}{}\n", json!({"bucket": "b", "key": "k", "value": "v"}));
    let (status, answer) = server.post("/v1/keyvalue", facts).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
}

#[test]
fn a_message_with_a_byte_order_mark_and_long_numbers_is_sent() {
    let home = mail_home("[relays.main]\nkind = 'file'\ndir = 'mails'\n");
    home.email_templates("note", "{{ a }}/{{ b }}/{{ c }}/{{ d }}", "<p>{{ a }}</p>", "{{ a }}");
    let message =
        json!({"app_label": "app", "name": "note", "recipient": {"lms_user_id": 7, "email_address": "a@b.example"}});
    let numbers = format!(r#", "context": {{"a": {LONG}, "b": 1.50, "c": 1e-07, "d": 1e16}}}}"#);
    let message = message.to_string().trim_end_matches('}').to_owned() + "}" + &numbers;
    home.file("one.json", format!("{MARK}{message}"));
    home.ace(&["send", "one.json"]).run().ok();
    home.file("many.ndjson", format!("{MARK}{message}\r\n{message}\r\n"));
    let done = home.ace(&["send", "--json", "many.ndjson"]).run().ok();
    assert_eq!(done.lines().len(), 2);
    let mails = mails(&home);
    assert_eq!(mails.len(), 3);
    for mail in mails {
        assert!(mail.contains(&format!("Subject: {LONG}/1.5/1e-07/1e+16\r\n")), "{mail}");
    }
}

#[tokio::test]
async fn a_message_with_a_low_log_level_is_logged_in_full() {
    let home = home("");
    let server = Server::start(&home);
    for (n, level) in [(1_u128, json!(10)), (2, json!(20)), (3, json!(null)), (4, json!(0))] {
        let mut message = note(n, json!({}));
        message["log_level"] = level;
        let (status, answer) = server.post("/v1/messages?wait=30", message.to_string()).await;
        assert_eq!(status.as_u16(), 200, "{answer}");
    }
    let (_, log) = server.stop();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("The message is settled.")).collect();
    assert!(!told.is_empty(), "{log}");
    let one = Uuid::from_u128(1).to_string();
    assert!(told.iter().all(|line| line.contains("INFO") && line.contains(&one)), "{told:?}");
    assert!(log.lines().any(|line| line.contains("ace::report") && line.contains("email_delivery_succeeded")), "{log}");
}

#[tokio::test]
async fn a_misspelled_message_and_server_are_named() {
    let home = home("");
    let mut message = note(1, json!({}));
    message["name"] = json!("noet");
    let done = home.send(&[message]).code(1);
    let told = &done.lines()[0]["report"]["channels"][0];
    assert_eq!(told["state"], "template_error");
    assert_text(&told["message"], "did you mean the message app.note?");
    let server = Server::start(&home);
    let plain = server.url.strip_prefix("http://").expect("plain HTTP");
    home.ace(&["queue", "--server", plain]).run().ok();
    let done = home.ace(&["queue", "--server", "localhost:1"]).run().code(2);
    done.says("error: cannot reach http://localhost:1/");
    assert_eq!(done.stderr.matches("onnection refused").count(), 1, "{}", done.stderr);
}

#[tokio::test]
async fn a_dry_run_counts_what_would_be_sent_and_finds_faulty_rows() {
    let home = home("");
    home.plugin("suppression");
    let suppression = "[plugins.suppression]\ngrants = { keyvalue = ['suppressions:read'] }\n";
    configure(&home, suppression);
    let server = Server::start(&home);
    home.file("type.json", json!({"app_label": "app", "name": "note"}).to_string());
    let rows: String = (1..=40).map(|n| format!("u{n}@example.com,en\n")).collect();
    home.file("users.csv", format!("email_address,language\n{rows},fr\nU1@EXAMPLE.com,\n"));
    let ask = |arguments: &[&str]| {
        let all = ["batch", "--type", "type.json", "--recipients", "users.csv", "--server", &server.url];
        home.ace(&[&all[..], arguments].concat()).run()
    };
    home.ace(&["suppressions", "add", "u1@example.com", "--server", &server.url]).run().ok();
    let told = ask(&["--dry-run"]).code(1);
    assert!(
        told.stdout.starts_with("42 rows: 39 would be sent, 2 would not, 1 faulty; nothing was sent\n"),
        "{told:?}"
    );
    assert!(told.stdout.contains("email denied: suppression"), "{told:?}");
    assert!(told.stdout.contains("users.csv:42:"), "{told:?}");
    assert!(!told.stderr.contains("batch "), "nothing is announced: {told:?}");
    home.file("users.csv", format!("email_address,language\n{rows}U2@EXAMPLE.com,\n"));
    let told = ask(&["--dry-run", "--sample", "10"]).ok();
    assert!(told.stdout.starts_with("9 rows: 8 would be sent, 1 would not, 0 faulty"), "{told:?}");
    assert_eq!(server.get("/v1/messages").await.1["messages"], json!([]));

    let told = ask(&["--test-send", "me@example.com"]).ok();
    assert!(told.stdout.contains(" to me@example.com: sent"), "{told:?}");
    let (_, sent) = server.get("/v1/messages").await;
    assert_eq!(sent["messages"][0]["recipient"]["email_address"], "me@example.com");
    assert_eq!(sent["messages"].as_array().map(Vec::len), Some(1));

    let told = ask(&["--dedupe", "email", "--wait"]).ok();
    told.says("40 recipients, 1 duplicate left out");
    assert!(told.stdout.contains(" is done, 40 messages: 1 not sent, 39 sent"), "{told:?}");
}
