//! TLS, and logins over it.

use super::*;

/// A certificate for localhost in a file, and a server that uses it.
pub(super) fn certificate(dir: &std::path::Path) -> (PathBuf, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = dir.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_both_ways_with_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, acceptor) = certificate(dir.path());
    for (tls, offers) in
        [(Tls::Starttls, &["STARTTLS", "AUTH PLAIN", "PIPELINING"][..]), (Tls::Implicit, &["AUTH LOGIN PLAIN"])]
    {
        let script =
            Script { tls: Some(acceptor.clone()), is_implicit: tls == Tls::Implicit, ..Script::new(offers, &[]) };
        let server = Server::start([script]).await;
        let trusting = Smtp {
            host: "localhost".into(),
            tls,
            ca_file: Some(ca_file.clone()),
            login: Some(password()),
            timeout: Duration::from_secs(5),
            ..server.settings()
        };
        let relay = mailer(RelayKind::Smtp(trusting.clone()));
        relay.send(email(), "1", &mut None).await.unwrap();
        relay.send(email(), "2", &mut None).await.unwrap();
        assert_eq!(server.mails.lock().unwrap().len(), 2);
        assert_eq!(server.count("AUTH PLAIN AHVzZXIAZ2VoZWlt"), 1, "{:?}", server.lines());

        // Without the CA the certificate is not trusted.
        let strict = mailer(RelayKind::Smtp(Smtp { ca_file: None, ..trusting }));
        let (message, _) = temporary(strict.send(email(), "3", &mut None).await.unwrap_err());
        assert!(message.contains("certificate"), "{message}");
        assert_eq!(server.mails.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn starttls_that_is_not_offered_or_tampered_with_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ca_file, acceptor) = certificate(dir.path());
    let injected =
        Script { tls: Some(acceptor), ..Script::new(&["STARTTLS"], &[("STARTTLS", Say("220 go on\r\n250 injected"))]) };
    for (script, expected) in
        [(Script::new(ALL_OFFERS, &[]), "does not offer STARTTLS"), (injected, "plain text after")]
    {
        let server = Server::start([script]).await;
        let settings =
            Smtp { host: "localhost".into(), tls: Tls::Starttls, ca_file: Some(ca_file.clone()), ..server.settings() };
        let (message, maybe_sent) =
            temporary(mailer(RelayKind::Smtp(settings)).send(email(), "1", &mut None).await.unwrap_err());
        assert!(message.contains(expected) && !maybe_sent, "{message}");
        assert_eq!(server.count("MAIL"), 0);
    }
}

#[tokio::test]
async fn a_failed_login_keeps_the_mail_and_the_password() {
    for (offers, turns, expected) in [
        (&["AUTH PLAIN"][..], &[("AUTH", Say("535 5.7.8 wrong"))][..], "5.7.8 wrong"),
        (&["AUTH CRAM-MD5"], &[], "requires AUTH PLAIN or AUTH LOGIN; the server offers AUTH CRAM-MD5"),
    ] {
        let server = Server::start([Script::new(offers, turns)]).await;
        let login = Some(password());
        let mailer = mailer(RelayKind::Smtp(Smtp { login, ..server.settings() }));
        let (message, _) = temporary(mailer.send(email(), "1", &mut None).await.unwrap_err());
        assert!(message.starts_with("relay main: ") && message.contains(expected), "{message}");
        assert!(!message.contains("geheim") && !message.contains("AHVzZXIAZ2VoZWlt"), "{message}");
    }
}
