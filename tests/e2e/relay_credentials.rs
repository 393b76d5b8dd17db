//! Relays that log in with one of `[credentials]`, against a real mail server over TLS and an endpoint for tokens.

use std::time::Duration;

use serde_json::json;

use crate::http_channels::provider::{Answer, Provider};
use crate::serve::{LISTEN, Server, note};
use crate::servers::{Smtpd, certificates};
use crate::support::{Done, GRANTED, Home, assert_text, mail_home, message};

/// A home with certificates for a mail server, which accepts the access token in its file.
fn home(provider: &Provider) -> (Home, Smtpd) {
    let home = mail_home("");
    certificates(&home.path(""));
    home.file("provider.pem", &provider.ca);
    home.file("client.secret", "hunter2");
    let token = home.file("accepted", "token-one");
    let path = |name: &str| home.path(name).to_str().expect("text").to_owned();
    let token = token.to_str().expect("text");
    let tls = ["--require-starttls", "--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")];
    let server = Smtpd::start(&[&tls[..], &["--user", "ann", "--xoauth2", token]].concat());
    (home, server)
}

const BEARER: &str = "kind = 'bearer'\ntoken = { file = 'token' }";

/// Configures the mail server as a relay that logs in with this credential.
fn configure(home: &Home, server: &Smtpd, credential: &str) {
    let relay = server.relay_with(
        "ca-file = 'ca.pem'\nconnections = 2\nmails-per-connection = 1\nusername = 'ann'\ncredential = 'mail'",
    );
    home.config(&format!(
        "{GRANTED}[http]\nca-file = 'provider.pem'\n\n{relay}expiration-delay = '500ms'\n\n[credentials.mail]\nurls = []\n{credential}\n\n{LISTEN}"
    ));
}

/// Sends messages through the server with this credential.
fn send(home: &Home, server: &Smtpd, credential: &str) -> Done {
    configure(home, server, credential);
    let notes: Vec<String> = (0..6).map(|n| message("note", json!({"context": {"text": n}})).to_string()).collect();
    let done = home.ace(&["send", "--json", "--log", "debug", "-"]).input(notes.join("\n")).run();
    for secret in ["hunter2", "token-one", "token-two"] {
        assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{secret} is in {done:?}");
    }
    done
}

fn oauth2(provider: &Provider) -> String {
    format!(
        "kind = 'oauth2-client-credentials'\ntoken-url = '{}/token'\nclient-id = 'ace'\nclient-secret = {{ file = 'client.secret' }}",
        provider.url()
    )
}

fn token(token: &str) -> Answer {
    let body = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"});
    Answer::new(200, body.to_string()).with("content-type", "application/json")
}

#[test]
fn all_connections_log_in_with_one_token() {
    let provider = Provider::start([token("token-one")]);
    let (home, server) = home(&provider);
    send(&home, &server, &oauth2(&provider)).ok();
    let mails = server.mails();
    assert_eq!(mails.len(), 6);
    assert!(mails.iter().all(|mail| mail.envelope["user"] == "ann" && mail.envelope["tls"] == true));
    let seen = provider.seen();
    assert_eq!(seen.len(), 1, "an hour has room for more than six mails");
    assert_eq!(seen[0].form(), [("grant_type".to_owned(), "client_credentials".to_owned())]);
}

#[test]
fn a_credential_that_the_server_refuses_holds_the_relay() {
    let provider = Provider::start([token("token-two")]);
    let (home, server) = home(&provider);
    let done = send(&home, &server, &oauth2(&provider)).code(1);
    let (lines, seen) = (done.lines(), provider.seen());
    for line in &lines {
        let outcome = crate::support::email(line);
        assert_eq!((&outcome["state"], &outcome["attempts"]), (&json!("expired"), &json!(0)), "{outcome:#}");
    }
    let error = &crate::support::email(&lines[0])["error"];
    assert_text(error, "535");
    assert_text(error, "the credential \"mail\" was refused");
    assert_eq!((seen.len(), server.mails().len()), (1, 0), "a new token would be refused too");

    // An endpoint that refuses the client.
    let refusal = Answer::new(401, json!({"error": "invalid_client"}).to_string());
    let provider = Provider::start([refusal]);
    home.file("provider.pem", &provider.ca);
    let done = send(&home, &server, &oauth2(&provider)).code(1);
    assert_text(
        &crate::support::email(&done.lines()[0])["error"],
        "the credential \"mail\" has no token: localhost answered 401 invalid_client",
    );
    assert_eq!(provider.seen().len(), 1);
}

#[test]
fn a_token_in_a_file_is_read_by_each_run() {
    let provider = Provider::start([]);
    let (home, server) = home(&provider);
    home.file("token", "token-one\n");
    send(&home, &server, BEARER).ok();
    home.file("accepted", "token-two");
    let done = send(&home, &server, BEARER).code(1);
    assert_text(&crate::support::email(&done.lines()[0])["error"], "535");
    home.file("token", "token-two\n");
    send(&home, &server, BEARER).ok();
    assert_eq!(server.mails().len(), 12);
}

#[tokio::test]
async fn a_token_in_a_file_is_replaced_while_the_program_runs() {
    let provider = Provider::start([]);
    let (home, mail_server) = home(&provider);
    home.file("token", "token-one\n");
    configure(&home, &mail_server, BEARER);
    let server = Server::start(&home);
    let sent = server.send(&note(1, json!({}))).await;
    assert_eq!(sent["state"], "sent", "{sent}");
    home.file("accepted", "token-two");
    home.file("token", "token-two\n");
    // A file is read again after a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let sent = server.send(&note(2, json!({}))).await;
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_eq!(mail_server.mails().len(), 2);
    let (_, log) = server.stop();
    assert!(!log.contains("token-one") && !log.contains("token-two"), "{log}");
}

#[test]
fn check_names_a_credential_that_cannot_log_in() {
    let home = mail_home("");
    let relay = "[relays.main]\nkind = 'smtp'\nhost = 'smtp.example'\n";
    home.file("key", "hunter2");
    let hmac = "[credentials.mail]\nkind = 'hmac'\nkey = { file = 'key' }\n";
    for (keys, expected) in [
        ("credential = 'mial'", "relays.main.credential: there is no credential \"mial\""),
        (
            "credential = 'mail'\nusername = 'ann'",
            "relays.main.credential: \"mail\" is of the kind \"hmac\", which cannot log in",
        ),
    ] {
        home.config(&format!("{GRANTED}{relay}{keys}\n\n{hmac}"));
        home.ace(&["check"]).run().code(2).says(expected);
    }
}
