//! Relays and senders of ace.toml.

use super::*;

#[tokio::test]
async fn senders_and_relays_are_chosen_in_order_of_precedence() {
    let dir = tempfile::tempdir().unwrap();
    let relay = |from: Option<&str>| config::Relay {
        kind: RelayKind::File { dir: dir.path().join("out") },
        from: from.map(Into::into),
        return_path: None,
    };
    let mut settings = settings(RelayKind::Discard);
    settings.relays = BTreeMap::from([
        ("bulk".to_owned(), relay(Some("Bulk <bulk@campus.example>"))),
        ("main".to_owned(), relay(None)),
    ]);
    let mailer = Mailer::new(&settings).unwrap();
    let send = async |sender: Option<&str>, relay: Option<&str>| {
        let mail = Email { sender: sender.map(Into::into), relay: relay.map(Into::into), ..email() };
        mailer.send(mail, "id/1", &mut None).await.map(|accepted| {
            let file = dir.path().join("out").join(accepted.answer.strip_prefix("written to ").unwrap());
            std::fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned()
        })
    };
    let table = [
        (None, "bulk", "From: \"Bulk\" <bulk@campus.example>"),
        (None, "main", "From: \"Campus\" <no-reply@campus.example>"),
        (Some("Team <>"), "bulk", "From: \"Team\" <bulk@campus.example>"),
        (Some("t@x.example"), "bulk", "From: <t@x.example>"),
    ];
    for (sender, relay, expected) in table {
        assert_eq!(send(sender, Some(relay)).await.unwrap(), expected);
    }
    let unnamed = send(None, None).await.unwrap_err().to_string();
    assert!(unnamed.contains("default_relay") && unnamed.contains("bulk, main"), "{unnamed}");
    let unknown = send(None, Some("nope")).await.unwrap_err();
    assert!(matches!(&unknown, MailError::Invalid(text) if text.contains("\"nope\"") && text.contains("bulk, main")));
    // Each id has one file, however often it is sent.
    assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 1);

    let without_sender =
        Mailer::new(&config::Mailer { default_from: None, ..super::tests::settings(RelayKind::Discard) }).unwrap();
    assert!(without_sender.send(email(), "1", &mut None).await.unwrap_err().to_string().contains("default_from"));
    let discarded = super::tests::mailer(RelayKind::Discard).send(email(), "1", &mut None).await.unwrap();
    assert_eq!(discarded.answer, "discarded");
}

#[test]
fn invalid_settings_are_rejected_with_the_name_of_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, file) = (dir.path().join("empty.pem"), dir.path().join("file"));
    std::fs::write(&empty, "no pem").unwrap();
    std::fs::write(&file, "").unwrap();
    let smtp = Smtp {
        host: "mail.example".into(),
        port: 25,
        tls: Tls::Starttls,
        login: None,
        dkim: Vec::new(),
        ca_file: None,
        hello_name: None,
        connections: 1,
        mails_per_connection: 1,
        timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
    };
    let table = [
        (RelayKind::Smtp(Smtp { host: String::new(), ..smtp.clone() }), "host"),
        (RelayKind::Smtp(Smtp { connections: 0, ..smtp.clone() }), "connections"),
        (RelayKind::Smtp(Smtp { hello_name: Some("a b\r\n".into()), ..smtp.clone() }), "hello_name"),
        (RelayKind::Smtp(Smtp { ca_file: Some(empty.clone()), ..smtp.clone() }), "empty.pem"),
        (RelayKind::Smtp(Smtp { ca_file: Some(dir.path().join("gone.pem")), ..smtp.clone() }), "gone.pem"),
        (RelayKind::Smtp(Smtp { tls: Tls::Implicit, host: "a b".into(), ..smtp.clone() }), "a b"),
        (RelayKind::Smtp(Smtp { tls: Tls::None, login: Some(password()), ..smtp.clone() }), "unencrypted"),
        (RelayKind::File { dir: file.join("below") }, "below"),
    ];
    for (kind, named) in table {
        let error = Mailer::new(&settings(kind)).err().expect(named).to_string();
        assert!(error.starts_with("mailer relay main") && error.contains(named), "{error}");
        assert!(!error.contains("geheim"));
    }
    let mut from = settings(RelayKind::Discard);
    from.relays.get_mut("main").unwrap().from = Some("nobody".into());
    assert!(Mailer::new(&from).err().unwrap().to_string().contains("from: \"nobody\""));
    let other = config::Mailer { default_relay: Some("other".into()), ..settings(RelayKind::Discard) };
    assert!(Mailer::new(&other).err().unwrap().to_string().contains("configured: main"));
}
