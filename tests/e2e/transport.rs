//! TLS and login: mails are sent as securely as configured, or not at all.

use serde_json::json;

use crate::servers::{Smtpd, certificates};
use crate::support::{Done, Home, assert_text, mail_home, message};

const PASSWORD: &str = "correct horse battery staple";

/// A home with a CA, its certificate and the message `note`.
fn home() -> Home {
    let home = mail_home("");
    certificates(&home.path(""));
    home
}

/// A server with the home's certificate.
fn server(home: &Home, arguments: &[&str]) -> Smtpd {
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    let tls = ["--tls-cert", cert.to_str().expect("text"), "--tls-key", key.to_str().expect("text")];
    Smtpd::start(&[&tls, arguments].concat())
}

/// Sends one message over the relay `main`, with a short timeout.
fn send(home: &Home, server: &Smtpd, relay: &str) -> Done {
    let relay = format!("{}expiration-delay = '500ms'\n", server.relay_with(relay));
    home.config(&format!("{}{relay}", crate::support::GRANTED));
    let note = message("note", json!({})).to_string();
    let ace = home.ace(&["send", "--json", "--log", "debug", "-"]).input(note);
    let done = ace.env("SMTP_PASSWORD", PASSWORD).env("WRONG_PASSWORD", "tr0ub4dor&3").run();
    for secret in [PASSWORD, "tr0ub4dor", "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ"] {
        assert!(!done.stdout.contains(secret) && !done.stderr.contains(secret), "{secret:?} is in {done:?}");
    }
    done
}

const TRUSTED: &str = "ca-file = 'ca.pem'";

#[test]
fn starttls_with_a_custom_ca() {
    let home = home();
    let server = server(&home, &["--require-starttls"]);
    // "starttls" is the default.
    let done = send(&home, &server, TRUSTED).ok();
    assert_eq!(done.email()["state"], "sent");
    assert_eq!(server.mail().envelope["tls"], true);
}

#[test]
fn implicit_tls() {
    let home = home();
    let server = server(&home, &["--implicit"]);
    let done = send(&home, &server, &format!("tls = 'implicit'\n{TRUSTED}")).ok();
    assert_eq!(done.email()["state"], "sent");
    assert_eq!(server.mail().envelope["tls"], true);
}

#[test]
fn an_untrusted_certificate_stops_the_mail() {
    for (arguments, tls) in [(&["--require-starttls"][..], "starttls"), (&["--implicit"], "implicit")] {
        let home = home();
        let server = server(&home, arguments);
        std::fs::create_dir(home.path("other")).expect("made");
        certificates(&home.path("other"));
        let done = send(&home, &server, &format!("tls = '{tls}'\nca-file = 'other/ca.pem'")).code(1);
        let outcome = done.email();
        assert_eq!(outcome["state"], "expired");
        assert_eq!((&outcome["attempts"], &outcome["history"][0]["result"]), (&json!(0), &json!("unreachable")));
        assert_text(&outcome["error"], "relay main");
        assert_text(&outcome["error"], "certificate");
        assert!(server.mails().is_empty());
    }
}

#[test]
fn a_server_without_starttls_gets_nothing() {
    let (home, server) = (home(), Smtpd::start(&[]));
    let done = send(&home, &server, "tls = 'starttls'").code(1);
    assert_eq!(done.email()["state"], "expired");
    assert_text(&done.email()["error"], "does not offer STARTTLS");
    assert!(server.mails().is_empty());
}

#[test]
fn the_password_comes_from_the_environment_and_is_never_shown() {
    let home = home();
    let server = server(&home, &["--require-starttls", "--user", "ann", "--password", PASSWORD]);
    let log_in = format!("{TRUSTED}\nusername = 'ann'\npassword = {{ env = 'SMTP_PASSWORD' }}");
    let done = send(&home, &server, &log_in).ok();
    assert_eq!(done.email()["state"], "sent");
    assert_eq!(server.mail().envelope["user"], "ann");
}

#[test]
fn a_wrong_password_is_reported_and_sends_nothing() {
    let home = home();
    let server = server(&home, &["--implicit", "--user", "ann", "--password", PASSWORD]);
    let log_in = format!("tls = 'implicit'\n{TRUSTED}\nusername = 'ann'\npassword = {{ env = 'WRONG_PASSWORD' }}");
    let done = send(&home, &server, &log_in).code(1);
    assert_eq!(done.email()["state"], "expired");
    assert_text(&done.email()["error"], "535");
    assert!(server.mails().is_empty());
}

/// The settings are at fault, not the mail: it waits until they are fixed, within its window.
#[test]
fn a_server_that_requires_a_login_is_quoted() {
    let home = home();
    let server = server(&home, &["--implicit", "--user", "ann", "--password", PASSWORD]);
    let done = send(&home, &server, &format!("tls = 'implicit'\n{TRUSTED}")).code(1);
    assert_eq!(done.email()["state"], "expired");
    assert_text(&done.email()["error"], "530 5.7.0 Authentication required");
    assert!(server.mails().is_empty());
}
