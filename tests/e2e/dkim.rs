//! DKIM signatures of mail, as a server received it, verified by dkimpy.

use std::process::Command;

use serde_json::{Value, json};

use crate::servers::Smtpd;
use crate::support::{GRANTED, Home, assert_text, mail_home, message, repository};

const RSA: &str = "{ domain = 'campus.example', selector = 'rsa', key = { file = 'rsa.pem' } }";
const ED25519: &str = "{ domain = 'mail.campus.example', selector = 'ed25519', key = { file = 'ed25519.pem' } }";

/// A home with the private keys `rsa.pem` and `ed25519.pem`, and a relay whose mail has these signatures.
fn home(server: &Smtpd, dkim: &str) -> Home {
    let home = mail_home("");
    for (file, fixture) in [("rsa.pem", "rsa_pkcs8.pem"), ("ed25519.pem", "ed25519.pem")] {
        let key = std::fs::read(repository("tests/fixtures/dkim").join(fixture)).expect("a key");
        home.file(file, key);
    }
    let relay = server.relay_with(&format!("tls = 'none'\ndkim = {dkim}"));
    home.config(&format!("{GRANTED}{relay}expiration-delay = '500ms'\n"));
    home
}

/// The selectors of a mail's signatures, and whether they are valid.
#[track_caller]
fn verified(home: &Home, mail: &str) -> Value {
    let file = home.file("mail.eml", mail);
    let mut python = Command::new(repository("target/venv").join("bin/python"));
    python.arg(repository("tests/e2e/dkim_verify.py")).arg("--keys").arg(repository("tests/fixtures/dkim")).arg(file);
    let output = python.output().expect("Python starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// Messages with texts that a mail server or a signer could change.
fn odd_messages() -> Vec<Value> {
    let long = "word ".repeat(400);
    let texts = [
        "Hi",
        ".\n..\n.x\n\n.",
        "two  spaces\tand a tab \n trailing \t\n\n\n",
        " \n\t\n",
        "Grüße, ζ, 🎓\n",
        &"é".repeat(1500),
        &"x".repeat(3000),
        &long,
        "From the start of a line\r\nand = signs =3D\n",
    ];
    let fields = |text: &str| json!({"context": {"text": text, "subject": text, "unsubscribe_url": "https://campus.example/u/7"}});
    let mut all: Vec<Value> = texts.iter().map(|text| message("note", fields(text))).collect();
    all.push(message(
        "note",
        json!({
            "recipient": {"lms_user_id": 8, "email_address": "zoë@learner.example"},
            "options": {"reply_to": "a@campus.example", "cc": ["b@campus.example"]},
        }),
    ));
    all
}

#[test]
fn signatures_are_valid_as_the_server_received_the_mail() {
    for (dkim, expected) in [
        (RSA.to_owned(), json!([["rsa", true]])),
        (ED25519.to_owned(), json!([["ed25519", true]])),
        (format!("[{RSA}, {ED25519}]"), json!([["rsa", true], ["ed25519", true]])),
    ] {
        let server = Smtpd::start(&[]);
        let home = home(&server, &dkim);
        let messages = odd_messages();
        home.send(&messages).ok();
        let mails = server.mails();
        assert_eq!(mails.len(), messages.len());
        for mail in mails {
            assert_eq!(verified(&home, &mail.raw), expected, "{}", mail.raw);
        }
    }
}

#[test]
fn a_signature_covers_the_body_and_the_headers_that_matter() {
    let server = Smtpd::start(&[]);
    let home = home(&server, &format!("[{RSA}, {ED25519}]"));
    let context =
        json!({"subject": "The subject", "text": "The text", "unsubscribe_url": "https://campus.example/u/7"});
    let options = json!({"reply_to": "help@campus.example"});
    home.send(&[message("note", json!({"context": context, "options": options}))]).ok();
    let mail = server.mail().raw;
    let is_valid = |mail: &str| verified(&home, mail);
    assert_eq!(is_valid(&mail), json!([["rsa", true], ["ed25519", true]]));
    assert_eq!(is_valid(&format!("X-Trace: 1\r\n{mail}")), json!([["rsa", true], ["ed25519", true]]));
    let none = json!([["rsa", false], ["ed25519", false]]);
    for (from, to) in [
        ("The subject", "Another subject"),
        ("The text", "The texts"),
        ("no-reply@campus.example", "nobody@campus.example"),
        ("zoe@learner.example", "zac@learner.example"),
        ("help@campus.example", "evil@campus.example"),
        ("List-Unsubscribe: <https://campus", "List-Unsubscribe: <https://other"),
        ("List-Unsubscribe=One-Click", "List-Unsubscribe=Two-Click"),
        ("MIME-Version: 1.0", "MIME-Version: 1.1"),
        ("Date: ", "Date: Mon, "),
        ("Message-ID: <", "Message-ID: <x"),
        ("multipart/alternative", "multipart/mixed"),
    ] {
        assert!(mail.contains(from), "{from} is not in {mail}");
        assert_eq!(is_valid(&mail.replacen(from, to, 1)), none, "{from}");
    }
    // Another sender above the signed one, which a mail program would show.
    assert_eq!(is_valid(&mail.replacen("From: ", "From: <x@evil.example>\r\nFrom: ", 1)), none);
}

#[test]
fn mail_that_cannot_be_signed_waits() {
    let server = Smtpd::start(&[]);
    let home = home(&server, RSA);
    let mut child = home.ace(&["send", "--json", "-"]).start_open();
    let mut stdin = child.stdin.take().expect("its input");
    let mut send = |name: &str| {
        use std::io::Write;
        writeln!(stdin, "{}", message("note", json!({"context": {"subject": name}}))).expect("written");
    };
    send("one");
    crate::support::wait_for("the first mail", || (server.mails().len() == 1).then_some(()));
    home.file("rsa.pem", "broken");
    send("two");
    drop(stdin);
    let done = crate::support::Done::of(child).code(1);
    let second = crate::support::email(&done.lines()[1]).clone();
    assert_eq!((&second["state"], &second["attempts"]), (&json!("expired"), &json!(0)));
    assert_text(&second["error"], "signing the mail: the DKIM key rsa._domainkey.campus.example: ");
    assert_text(&second["error"], "rsa.pem: this is not a private key in PEM");
    assert_eq!(server.mails().len(), 1);
    // A start finds it.
    let refused = home.ace(&["check"]).run().code(2);
    refused.says("relays.main.dkim.key: this is not a private key in PEM");
}

#[test]
fn check_warns_of_a_signature_that_dmarc_does_not_count() {
    let server = Smtpd::start(&[]);
    let home = home(&server, &RSA.replace("campus.example", "other.example"));
    let done = home.ace(&["check"]).run().ok();
    done.says("warning: ").says("relays.main.dkim: mail from campus.example is signed by other.example");
}
