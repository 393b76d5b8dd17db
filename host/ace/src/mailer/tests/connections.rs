//! Connections: shared, replaced, closed, and broken.

use super::*;

#[tokio::test]
async fn two_mails_share_a_connection_with_pipelining_and_without() {
    for offers in [ALL_OFFERS, &[]] {
        let server = Server::start([Script::new(offers, &[])]).await;
        let mailer = server.mailer();
        let accepted = mailer.send(email(), "id-1", &mut None).await.unwrap();
        assert_eq!(accepted.answer, "250 2.0.0 queued as 1");
        assert_eq!(accepted.message_id, "<id-1@campus.example>");
        mailer.send(email(), "id-2", &mut None).await.unwrap();
        mailer.close().await;
        let size = server.mails.lock().unwrap()[0].len();
        let mail = match offers {
            [] => "<1> MAIL FROM:<no-reply@campus.example>".to_owned(),
            _ => format!("<1> MAIL FROM:<no-reply@campus.example> SIZE={size}"),
        };
        let (recipient, data) = ("<1> RCPT TO:<ann@example.com>".to_owned(), "<1> DATA".to_owned());
        let one = [mail, recipient, data];
        let hello = "<1> EHLO client.example".to_owned();
        let expected = [vec![hello], one.to_vec(), one.to_vec(), vec!["<1> QUIT".into()]].concat();
        assert_eq!(server.lines(), expected);
        assert!(server.mails.lock().unwrap()[1].contains("one\r\n.two\r\n..\r\n"));
    }
}

#[tokio::test]
async fn a_closed_idle_connection_is_replaced_once() {
    for turns in [vec![(".", Last("250 ok"))], vec![(".", Say("250 ok")), ("RSET", Close)]] {
        let server = Server::start([Script::new(ALL_OFFERS, &turns)]).await;
        let mailer = server.mailer();
        for id in ["1", "2", "3"] {
            mailer.send(email(), id, &mut None).await.unwrap();
        }
        assert_eq!(server.mails.lock().unwrap().len(), 3);
    }
    // A mail that also fails on a new connection is not sent a third time.
    let scripts = [Script::new(ALL_OFFERS, &[(".", Last("250 ok"))]), Script::new(ALL_OFFERS, &[("MAIL", Close)])];
    let server = Server::start(scripts).await;
    let mailer = server.mailer();
    mailer.send(email(), "1", &mut None).await.unwrap();
    let (_, maybe_sent) = temporary(mailer.send(email(), "2", &mut None).await.unwrap_err());
    assert!(!maybe_sent);
    assert_eq!(server.count("EHLO"), 2);
}

#[tokio::test]
async fn a_broken_connection_is_judged_by_what_the_server_can_have_received() {
    let table = [
        ("", Close, false),
        ("EHLO", Close, false),
        ("MAIL", Close, false),
        ("RCPT", Close, false),
        ("DATA", Close, false),
        (".", Close, true),
        ("", Silence, false),
        ("MAIL", Silence, false),
        ("DATA", Silence, false),
        (".", Silence, true),
        ("", Say("554 no service here"), false),
        ("EHLO", Last("421 busy"), false),
        ("MAIL", Say("gibberish"), false),
        (".", Say("gibberish"), true),
    ];
    for offers in [ALL_OFFERS, &[]] {
        for (at, turn, expected) in table.clone() {
            let server = Server::start([Script::new(offers, &[(at, turn.clone())])]).await;
            let timeout = if matches!(turn, Silence) { 100 } else { 2000 };
            let settings = Smtp { timeout: Duration::from_millis(timeout), ..server.settings() };
            let (message, maybe_sent) =
                temporary(mailer(RelayKind::Smtp(settings)).send(email(), "id", &mut None).await.unwrap_err());
            assert_eq!(maybe_sent, expected, "{at}: {message}");
            assert!(message.starts_with("relay main: "), "{message}");
        }
    }
}

#[tokio::test]
async fn a_server_that_stops_reading_has_not_received_the_mail() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), lines: Arc::default(), mails: Arc::default() };
    tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        stream.get_mut().write_all(b"220 test\r\n").await.unwrap();
        let mut line = String::new();
        while !line.starts_with("DATA") {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            stream
                .get_mut()
                .write_all(if line.starts_with("DATA") { b"354 ok\r\n" } else { b"250 ok\r\n" })
                .await
                .unwrap();
        }
        drop(stream.into_inner());
    });
    let mail = Email { text: "x\n".repeat(3 * 1024 * 1024), html: None, ..email() };
    let (message, maybe_sent) = temporary(server.mailer().send(mail, "id", &mut None).await.unwrap_err());
    assert!(!maybe_sent, "{message}");
}

#[tokio::test]
async fn a_dropped_send_closes_its_connection() {
    let scripts = [Script::new(ALL_OFFERS, &[("MAIL FROM", Silence)]), Script::new(ALL_OFFERS, &[])];
    let server = Server::start(scripts).await;
    let mailer = server.mailer();
    let cut = tokio::time::timeout(Duration::from_millis(100), mailer.send(email(), "1", &mut None)).await;
    assert!(cut.is_err());
    mailer.send(email(), "2", &mut None).await.unwrap();
    assert_eq!(server.mails.lock().unwrap().len(), 1);
    assert_eq!(server.count("EHLO"), 2);
}

#[tokio::test]
async fn connections_and_the_wait_for_one_are_bounded() {
    let server = Server::start([Script::new(ALL_OFFERS, &[("MAIL", Silence)])]).await;
    let mailer = mailer(RelayKind::Smtp(Smtp { timeout: Duration::from_millis(200), ..server.settings() }));
    let send = async |id| mailer.send(email(), id, &mut None).await;
    let (a, b, c) = tokio::join!(send("1"), send("2"), send("3"));
    for error in [a, b] {
        assert!(temporary(error.unwrap_err()).0.contains("no reply within 0.2 s"));
    }
    let (message, maybe_sent) = temporary(c.unwrap_err());
    assert!(!maybe_sent);
    // All wait equally long: the third either gave up, or got a connection at the last moment.
    assert!(message.contains("all 2 connections were in use") || message.contains("no reply within"), "{message}");
    assert!(server.count("MAIL") <= 3);
}

#[tokio::test]
async fn connections_are_replaced_by_mails_and_by_age() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let by_mails = mailer(RelayKind::Smtp(Smtp { mails_per_connection: 2, ..server.settings() }));
    for id in ["1", "2", "3", "4", "5"] {
        by_mails.send(email(), id, &mut None).await.unwrap();
    }
    assert_eq!(server.count("EHLO"), 3);

    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let by_age = mailer(RelayKind::Smtp(Smtp { idle_timeout: Duration::ZERO, ..server.settings() }));
    for id in ["1", "2"] {
        by_age.send(email(), id, &mut None).await.unwrap();
    }
    assert_eq!(server.count("EHLO"), 2);
}

#[tokio::test]
async fn a_closed_mailer_sends_nothing() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let mailer = server.mailer();
    mailer.send(email(), "1", &mut None).await.unwrap();
    mailer.close().await;
    assert_eq!(server.count("QUIT"), 1);
    assert!(temporary(mailer.send(email(), "2", &mut None).await.unwrap_err()).0.contains("closed"));
}

#[tokio::test]
async fn a_refused_connection_is_temporary() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), lines: Arc::default(), mails: Arc::default() };
    drop(listener);
    let (message, maybe_sent) = temporary(server.mailer().send(email(), "1", &mut None).await.unwrap_err());
    assert!(message.contains("connecting: 127.0.0.1 port ") && !maybe_sent, "{message}");
}
