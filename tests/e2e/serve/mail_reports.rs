//! Reports that come back as mail: from a mail server's pipe through `ace feedback import` and the plugin `mail_reports` to the timeline and
//! the suppressed addresses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{LISTEN, Server, home, note};
use crate::servers::Smtpd;
use crate::support::{Done, GRANTED, Home, repository};

pub(super) const SECRET: &str = "0123456789abcdef-hush";
const BOUNCE: &str = "a bounce of Postfix";

/// A home whose mail goes to this server with signed return paths.
fn reporting(smtpd: &Smtpd) -> Home {
    let home = home("");
    home.plugin("mail_reports");
    home.plugin("suppression");
    home.file("path.key", "0123456789abcdef0123456789abcdef");
    let relay = smtpd.relay_with("tls = 'none'\nreturn-path = 'bounce+{token}@bounces.campus.example'");
    home.config(&format!(
        "return-path-key = {{ file = 'path.key' }}\n\n{GRANTED}{LISTEN}{relay}\n\
         [plugins.mail_reports]\ngrants = {{ feedback = ['django_email'] }}\nsecrets = {{ path-secret = {{ env = 'REPORTS_SECRET' }} }}\n\n\
         [plugins.suppression]\ngrants = {{ keyvalue = ['suppressions:read'] }}\n"
    ));
    home
}

fn start(home: &Home) -> Server {
    Server::of(home.ace(&["--log", "trace", "serve"]).env("REPORTS_SECRET", SECRET))
}

/// What a mail server's pipe does with a mail.
pub(super) fn pipe(home: &Home, server: &str, mail: &str) -> Done {
    let import = home.ace(&["feedback", "import", "--server", server, "-"]);
    import.env("ACE_FEEDBACK_SECRET", SECRET).input(mail).run()
}

/// A mail in one of the plugin's cases, about the mail with this return path and Message-ID to an address.
pub(super) fn report(case: &str, return_path: &str, message_id: &str, address: &str) -> String {
    let file = repository("plugins/feedback/mail_reports/tests/cases.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file).expect("read")).expect("JSON");
    let case = cases.iter().find(|one| one["name"] == case).expect("a case");
    let mail = case["request"]["body"].as_str().expect("a mail");
    mail.replace("bounce+0123456789abcdefghijklmnopqrstuv0123456789@bounces.campus.example", return_path)
        .replace("<7.django_email@campus.example>", message_id)
        .replace("zoe@learner.example", address)
}

async fn timeline(server: &Server, number: u128) -> Vec<Value> {
    let (_, message) = server.get(&format!("/v1/messages/{}", Uuid::from_u128(number))).await;
    message["feedback"].as_array().cloned().unwrap_or_default()
}

async fn is_suppressed(server: &Server, address: &str) -> bool {
    server.get(&format!("/v1/suppressions/{address}")).await.0 == StatusCode::OK
}

#[tokio::test]
async fn a_bounce_of_postfix_suppresses_unless_it_is_forged() {
    let smtpd = Smtpd::start(&[]);
    let home = reporting(&smtpd);
    let server = start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let mail = smtpd.mail();
    let path = mail.envelope["from"].as_str().expect("a return path").to_owned();
    let id = mail.header("Message-ID").expect("a Message-ID");

    // Anybody can write a bounce, and a recipient knows a signed return path.
    let last = path.find('@').expect("an address") - 1;
    let other = if path.as_bytes()[last] == b'0' { "1" } else { "0" };
    let guessed = format!("{}{other}{}", &path[..last], &path[last + 1..]);
    let unsigned = report(BOUNCE, "no-reply@campus.example", &id, "zoe@learner.example");
    for forged in [
        report(BOUNCE, &guessed, &id, "zoe@learner.example"),
        unsigned,
        report(BOUNCE, &path, &id, "victim@learner.example"),
    ] {
        assert_eq!(pipe(&home, &server.url, &forged).ok().stdout, "1 event\n");
    }
    let events = timeline(&server, 1).await;
    let seen: Vec<_> = events.iter().map(|event| (event["kind"].as_str(), event["vouched"].as_bool())).collect();
    assert_eq!(seen, [(Some("bounced"), Some(false)); 3], "they are shown, by their Message-ID");
    for address in ["zoe@learner.example", "victim@learner.example"] {
        assert!(!is_suppressed(&server, address).await, "{address}");
    }
    assert_eq!(server.send(&note(2, json!({}))).await["state"], "sent");

    // Mail servers may change the case of addresses. A mail server that was interrupted hands a mail over twice.
    let bounce = report(BOUNCE, &path.to_uppercase(), "<unknown@elsewhere.example>", "Zoe@LEARNER.example");
    for _ in 0..2 {
        assert_eq!(pipe(&home, &server.url, &bounce).ok().stdout, "1 event\n");
    }
    let events = timeline(&server, 1).await;
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(
        (&events[3]["vouched"], &events[3]["permanent"], &events[3]["message_uuid"]),
        (&json!(true), &json!(true), &json!(Uuid::from_u128(1)))
    );
    assert!(!events[3].to_string().to_lowercase().contains(&path[..last]), "a token is no part of a timeline");
    let (_, entry) = server.get("/v1/suppressions/zoe@learner.example").await;
    assert_eq!((&entry["reason"], &entry["source"]), (&json!("hard-bounce"), &json!("mail_reports")));
    assert!(entry["detail"].as_str().is_some_and(|detail| detail.starts_with("550 5.1.1 ")), "{entry}");
    let denied = server.send(&note(3, json!({}))).await;
    assert_eq!(denied["state"], "not_sent", "{denied}");
    let reason = &denied["report"]["channels"][0]["reasons"][0];
    let date = &entry["time"].as_str().expect("a time")[..10];
    assert_eq!(reason["reason"], format!("suppressed since {date}: hard-bounce, reported by mail_reports"));
    let (_, log) = server.stop();
    assert!(!log.contains(SECRET), "{log}");
}

#[tokio::test]
async fn of_the_recipients_in_a_report_only_the_messages_own_is_vouched_for() {
    let smtpd = Smtpd::start(&[]);
    let home = reporting(&smtpd);
    let server = start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let path = smtpd.mail().envelope["from"].as_str().expect("a return path").to_owned();
    let block = |address: &str| {
        format!("Final-Recipient: rfc822; {address}\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient:")
    };
    let bounce = report(BOUNCE, &path, "<hidden@campus.example>", "zoe@learner.example");
    let bounce = bounce.replacen("Final-Recipient:", &block("victim@learner.example"), 1);
    let bounce = bounce.replacen("Final-Recipient:", &block("ZOE@learner.example"), 1);
    assert_eq!(pipe(&home, &server.url, &bounce).ok().stdout, "3 events\n");
    let vouched: Vec<_> = timeline(&server, 1).await.iter().map(|event| event["vouched"].clone()).collect();
    assert_eq!(vouched, [true, false, true]);
    assert!(is_suppressed(&server, "zoe@learner.example").await);
    assert!(!is_suppressed(&server, "victim@learner.example").await);
}

#[tokio::test]
async fn a_complaint_that_hides_the_address_is_about_the_recipient() {
    let smtpd = Smtpd::start(&[]);
    let home = reporting(&smtpd);
    let server = start(&home);
    assert_eq!(server.send(&note(1, json!({}))).await["state"], "sent");
    let path = smtpd.mail().envelope["from"].as_str().expect("a return path").to_owned();
    for (case, is_complaint) in [("not spam after all", false), ("a complaint that hides the address", true)] {
        let mail = report(case, &path, "<hidden@campus.example>", "x@learner.example");
        pipe(&home, &server.url, &mail).ok();
        assert_eq!(is_suppressed(&server, "zoe@learner.example").await, is_complaint, "{case}");
    }
    let events = timeline(&server, 1).await;
    assert_eq!(events[1]["address"], json!({"kind": "email", "address": "zoe@learner.example"}));
    assert_eq!(server.send(&note(2, json!({}))).await["state"], "not_sent", "bulk mail");
    let reset = json!({"options": {"transactional": true}});
    assert_eq!(server.send(&note(3, reset)).await["state"], "sent");
}

#[tokio::test]
async fn a_mail_server_keeps_a_mail_until_it_is_taken() {
    let smtpd = Smtpd::start(&[]);
    let home = reporting(&smtpd);
    let server = start(&home);
    let url = server.url.clone();
    let reply = "From: zoe@learner.example\nSubject: Out of office\n\nI am away.\n";
    assert_eq!(pipe(&home, &url, reply).ok().stdout, "This mail is not a report.\n");
    assert_eq!(
        pipe(&home, &url, &format!("{reply}{}", "x".repeat(3_000_000))).ok().stdout,
        "This mail is not a report.\n"
    );
    assert_eq!(pipe(&home, &url, "").ok().stdout, "This mail is not a report.\n");
    home.file("reply.eml", reply);
    home.file("secret", format!("{SECRET}\n"));
    let import = ["feedback", "import", "--server", url.as_str()];
    let with = |more: &[&str]| home.ace(&[&import[..], more].concat()).run();
    with(&["reply.eml", "--secret-file", "secret"]).ok();
    with(&["none.eml", "--secret-file", "secret"]).code(2).says("none.eml: ");
    with(&["reply.eml"]).code(2).says("no secret given");

    with(&["-"]).code(75).says("no secret given");
    with(&["-", "--secret-file", "none"]).code(75).says("--secret-file none: ");
    with(&["-", "--secret-file", "reply.eml"]).code(75).says("refused the secret");
    with(&["-", "--secret-file", "secret", "--plugin", "django_email"]).code(75).says("no plugin \"django_email\"");
    home.ace(&["feedback", "import", "-"]).run().code(75).says("no server given");
    let get = server.bare(Method::GET, &format!("/v1/feedback/mail_reports/{SECRET}"));
    assert_eq!(get.send().await.expect("answered").status(), StatusCode::BAD_REQUEST);
    assert_eq!(server.bare(Method::POST, "/v1/feedback/mail_reports").send().await.expect("answered").status(), 401);
    server.stop();
    let down = pipe(&home, &url, reply).code(75);
    down.says("is `ace serve` running there?");
    assert!(!down.stderr.contains(SECRET), "{}", down.stderr);
}

/// The URL of a server that answers the next request with this text and closes the connection, and the head of the request.
fn answering(answer: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("a line") > 0 {}
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        reader.get_mut().write_all(answer.as_bytes()).expect("answered");
        head
    });
    (url, serving)
}

#[test]
fn a_mail_that_the_server_did_not_take_is_kept_and_the_secret_is_not_shown() {
    let home = home("");
    let answers = [
        (
            "302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0",
            "302 Found: the server redirects",
            75,
        ),
        ("301 Moved Permanently\r\nContent-Length: 0", "the server redirects", 75),
        ("400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<h1>", "400 Bad Request", 75),
        ("400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}", "", 0),
        ("413 Payload Too Large\r\nContent-Length: 0", "`feedback.max-body`", 75),
        ("200 OK\r\nContent-Length: 20\r\n\r\n1 eve", "error", 75),
    ];
    for (answer, says, code) in answers {
        let end = if answer.contains("\r\n\r\n") { "" } else { "\r\n\r\n" };
        let (url, serving) = answering(format!("HTTP/1.1 {answer}{end}"));
        let import = home.ace(&["feedback", "import", "--server", &url, "--token-file", "none", "-"]);
        let import = import.env("ACE_FEEDBACK_SECRET", SECRET).env("ACE_SERVER_TOKEN", "hush-token");
        let done = import.input("Subject: x\n\nx\n").run().code(code);
        done.says(says);
        assert!(!done.stderr.contains(SECRET), "{}", done.stderr);
        let head = serving.join().expect("served");
        assert!(head.starts_with(&format!("POST /v1/feedback/mail_reports/{SECRET} ")), "{head}");
        assert!(!head.to_lowercase().contains("authorization"), "{head}");
    }
}

#[tokio::test]
async fn a_hostile_report_is_read_within_the_default_time() {
    let smtpd = Smtpd::start(&[]);
    let home = reporting(&smtpd);
    let server = start(&home);
    let report = format!(
        "Content-Type: multipart/report; boundary=x\n{}\n--x\nContent-Type: message/delivery-status\n\n{}\n--x\n\
         Content-Type: message/rfc822\n\n{}Message-ID: <7@b.example>\n\n--x--\n",
        "To:a\n".repeat(13_000),
        "Action: failed\n\n".repeat(1_000),
        "A:b\n".repeat(16_000),
    );
    assert_eq!(pipe(&home, &server.url, &report).ok().stdout, "1000 events\n");
    let empty = "Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\n";
    let empty = format!("{empty}{}", "\n".repeat(500_000));
    assert_eq!(pipe(&home, &server.url, &empty).ok().stdout, "0 events\n");
}
