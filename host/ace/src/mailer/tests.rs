//! The mailer against servers on loopback: a scripted one for failures, and postfix's smtp-sink as a real one.

mod connections;
mod credentials;
mod dkim;
mod login;
mod odd_replies;
mod relays;
mod return_path;
mod tls;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{Login, Proof, RelayKind, Secret, SecretSource, Smtp};

const ALL_OFFERS: &[&str] = &["PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8"];

/// The script of one connection: the features that the server offers, and its deviations from a good server.
#[derive(Clone, Default)]
struct Script {
    offers: Vec<&'static str>,
    turns: Vec<(&'static str, Turn)>,
    tls: Option<TlsAcceptor>,
    is_implicit: bool,
}

#[derive(Clone)]
enum Turn {
    Say(&'static str),
    /// The same, instead of the features in a reply to EHLO.
    Refuse(&'static str),
    /// Replies and then closes the connection.
    Last(&'static str),
    Close,
    Silence,
}

use Turn::{Close, Last, Refuse, Say, Silence};

impl Script {
    fn new(offers: &[&'static str], turns: &[(&'static str, Turn)]) -> Script {
        Script { offers: offers.to_vec(), turns: turns.to_vec(), ..Script::default() }
    }

    /// The reply to a line with this start. "." is the end of the content, "" the greeting, "\n" an empty line.
    fn turn(&self, line: &str) -> Turn {
        let matches =
            |start: &str| if start.is_empty() || start == "." { line == start } else { line.starts_with(start) };
        if let Some((_, turn)) = self.turns.iter().find(|(start, _)| matches(start)) {
            return turn.clone();
        }
        match line.split(' ').next().unwrap_or_default() {
            "DATA" => Say("354 go on"),
            "QUIT" => Last("221 bye"),
            "STARTTLS" => Say("220 go on"),
            "AUTH" => Say("235 welcome"),
            "." => Say("250 2.0.0 queued as 1"),
            "" => Say("220 test"),
            _ => Say("250 ok"),
        }
    }
}

/// A server on loopback that follows one script per connection, and the last one for all further connections.
struct Server {
    address: SocketAddr,
    /// All lines except those of the content, prefixed by `<n>` for the connection.
    lines: Arc<Mutex<Vec<String>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(scripts: impl IntoIterator<Item = Script>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server { address, lines: Arc::default(), mails: Arc::default() };
        let (lines, mails) = (Arc::clone(&server.lines), Arc::clone(&server.mails));
        let mut scripts: VecDeque<Script> = scripts.into_iter().collect();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((tcp, _)) = listener.accept().await {
                number += 1;
                let script = if scripts.len() > 1 { scripts.pop_front().unwrap() } else { scripts[0].clone() };
                let talk = Talk { number, script, lines: Arc::clone(&lines), mails: Arc::clone(&mails) };
                tokio::spawn(talk.accept(tcp));
            }
        });
        server
    }

    fn settings(&self) -> Smtp {
        Smtp {
            host: "127.0.0.1".into(),
            port: self.address.port(),
            tls: Tls::None,
            login: None,
            dkim: Vec::new(),
            ca_file: None,
            hello_name: Some("client.example".into()),
            connections: 2,
            mails_per_connection: 100,
            timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
        }
    }

    fn mailer(&self) -> Mailer {
        mailer(RelayKind::Smtp(self.settings()))
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn count(&self, start: &str) -> usize {
        self.lines().iter().filter(|line| line.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(start))).count()
    }
}

struct Talk {
    number: usize,
    script: Script,
    lines: Arc<Mutex<Vec<String>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Talk {
    async fn accept(self, tcp: TcpStream) {
        match self.script.tls.clone() {
            Some(tls) if self.script.is_implicit => {
                if let Ok(stream) = tls.accept(tcp).await {
                    self.talk(stream, true).await;
                }
            }
            Some(tls) => {
                if let Some(tcp) = self.talk(tcp, true).await
                    && let Ok(stream) = tls.accept(tcp).await
                {
                    self.talk(stream, false).await;
                }
            }
            None => drop(self.talk(tcp, true).await),
        }
    }

    /// Gives the stream back where TLS is to begin on it.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, greets: bool) -> Option<S> {
        let mut stream = BufReader::new(stream);
        if greets && !self.answer(&mut stream, "").await {
            return None;
        }
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let command = line.trim_end();
            self.lines.lock().unwrap().push(format!("<{}> {command}", self.number));
            let is_ready =
                command == "DATA" && matches!(self.script.turn("DATA"), Say(text) if text.starts_with("354"));
            let asked = if command.is_empty() { "\n" } else { command };
            if !self.answer(&mut stream, asked).await {
                return None;
            }
            if command == "STARTTLS" {
                return Some(stream.into_inner());
            }
            if is_ready {
                self.read_content(&mut stream).await?;
                if !self.answer(&mut stream, ".").await {
                    return None;
                }
            }
        }
    }

    async fn read_content<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut BufReader<S>) -> Option<()> {
        let mut mail = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            match line.strip_prefix('.') {
                Some("\r\n") => break,
                Some(rest) => mail.push_str(rest),
                None => mail.push_str(&line),
            }
        }
        self.mails.lock().unwrap().push(mail);
        Some(())
    }

    /// False: the connection is over.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut BufReader<S>, line: &str) -> bool {
        let (text, goes_on) = match self.script.turn(line) {
            Close => return false,
            Silence => {
                std::future::pending::<()>().await;
                return false;
            }
            Say(_) if line.starts_with("EHLO") => (self.offers(), true),
            Say(text) | Refuse(text) => (text.to_owned(), true),
            Last(text) => (text.to_owned(), false),
        };
        stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).await.is_ok() && goes_on
    }

    fn offers(&self) -> String {
        let lines: Vec<String> = self.script.offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
        format!("250-test\r\n{}250 HELP", lines.concat())
    }
}

fn mailer(kind: RelayKind) -> Mailer {
    Mailer::new(&settings(kind)).unwrap()
}

fn settings(kind: RelayKind) -> config::Mailer {
    config::Mailer {
        default_relay: None,
        default_from: Some("Campus <no-reply@campus.example>".into()),
        relays: BTreeMap::from([("main".to_owned(), config::Relay { kind, from: None, return_path: None })]),
        return_path_keys: Vec::new(),
        access: Default::default(),
    }
}

fn email() -> Email {
    to(&["ann@example.com"])
}

fn to(recipients: &[&str]) -> Email {
    Email {
        recipients: recipients.iter().map(ToString::to_string).collect(),
        subject: "Hello".into(),
        text: "one\n.two\n..\n".into(),
        html: Some("<p>one</p>".into()),
        ..Email::default()
    }
}

fn password() -> Login {
    let secret = SecretSource::Value(Secret::new("geheim"));
    Login { username: "user".into(), proof: Proof::Password(secret) }
}

fn temporary(error: MailError) -> (String, bool) {
    match error {
        MailError::Temporary { message, maybe_sent, .. } => (message, maybe_sent),
        other => panic!("{other:?}"),
    }
}

fn permanent(error: MailError) -> String {
    match error {
        MailError::Permanent { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_mail_that_some_recipients_refuse_is_accepted_with_their_replies() {
    for offers in [ALL_OFFERS, &[]] {
        let turns = [("RCPT TO:<bad@", Say("550 5.1.1 unknown")), ("RCPT TO:<full@", Say("452 4.2.2 full"))];
        let server = Server::start([Script::new(offers, &turns)]).await;
        let mail = to(&["bad@example.com", "ann@example.com", "full@example.com"]);
        let accepted = server.mailer().send(mail, "id", &mut None).await.unwrap();
        let refused = |address: &str, answer: &str, is_permanent| Refusal {
            address: address.to_owned(),
            answer: answer.to_owned(),
            is_permanent,
        };
        let bad = refused("bad@example.com", "550 5.1.1 unknown", true);
        assert_eq!(accepted.refused, [bad, refused("full@example.com", "452 4.2.2 full", false)]);
    }
}

#[tokio::test]
async fn a_later_attempt_sends_the_same_mail_to_deferred_recipients_only() {
    for offers in [ALL_OFFERS, &[]] {
        let deferring = [("RCPT TO:<full@", Say("452 4.2.2 full")), ("RCPT TO:<bad@", Say("550 5.1.1 unknown"))];
        let server = Server::start([Script::new(offers, &deferring), Script::new(offers, &[])]).await;
        let mailer = mailer(RelayKind::Smtp(Smtp { mails_per_connection: 1, ..server.settings() }));
        let mail = || to(&["ann@example.com", "full@example.com", "bad@example.com"]);
        let mut record = None;
        let first = mailer.send(mail(), "id", &mut record).await.unwrap();
        assert_eq!(first.refused.len(), 2);
        let stored = serde_json::to_string(&record).unwrap();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        // The record after a restart.
        let mut record: Option<MailRecord> = serde_json::from_str(&stored).unwrap();
        let second = mailer.send(mail(), "id", &mut record).await.unwrap();
        assert_eq!(second.message_id, first.message_id);
        let refused: Vec<_> = second.refused.iter().map(|r| (r.address.as_str(), r.is_permanent)).collect();
        assert_eq!(refused, [("bad@example.com", true)]);
        assert_eq!((server.count("RCPT"), server.count("RCPT TO:<full@example.com>")), (4, 2));
        let mails = server.mails.lock().unwrap().clone();
        assert_eq!(mails.len(), 2);
        assert_eq!(mails[0], mails[1], "including the date");
        // No recipient remains: nothing is sent, and the result is the same.
        assert_eq!(mailer.send(mail(), "id", &mut record).await.unwrap(), second);
        assert_eq!(server.mails.lock().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_record_keeps_what_a_later_attempt_needs() {
    async fn record(turns: &[(&'static str, Turn)]) -> (Option<MailRecord>, Result<Accepted, MailError>) {
        let server = Server::start([Script::new(ALL_OFFERS, turns)]).await;
        let mut record = None;
        let sent = server.mailer().send(to(&["ann@example.com", "bob@example.com"]), "id", &mut record).await;
        (record, sent)
    }
    let accepted_by_all = record(&[]).await.0.unwrap();
    assert!(accepted_by_all.recipients.is_empty() && accepted_by_all.is_main_accepted());
    // All recipients are deferred, or all are refused.
    for turns in
        [[("RCPT", Say("450 busy")), ("DATA", Say("503 no"))], [("RCPT", Say("550 no")), ("DATA", Say("503 no"))]]
    {
        let (kept, sent) = record(&turns).await;
        assert!(kept.is_none() && sent.is_err());
    }
    for turn in [(".", Say("451 later")), (".", Close), ("MAIL", Say("550 no"))] {
        assert!(record(&[turn]).await.0.is_none());
    }
    let mixed = [("RCPT TO:<ann", Say("550 gone")), ("RCPT", Say("450 busy")), ("DATA", Say("503 no"))];
    let (kept, sent) = record(&mixed).await;
    temporary(sent.unwrap_err());
    let kept = kept.unwrap();
    assert!(kept.is_settled("ann@example.com") && !kept.is_settled("bob@example.com") && !kept.is_main_accepted());
}

/// The stage and code of a refusal, and the consequences for the mail and the connection.
#[tokio::test]
async fn replies_are_judged_by_their_code() {
    struct Case(&'static [(&'static str, Turn)], &'static str, bool, usize);
    let table = [
        Case(&[("MAIL", Say("550 5.7.1 no")), ("DATA", Say("503 no"))], "550 5.7.1 no", true, 1),
        Case(&[("MAIL", Say("451 later")), ("DATA", Say("503 no"))], "451 later", false, 1),
        Case(&[("MAIL", Say("530 5.7.0 log in")), ("DATA", Say("503 no"))], "530 5.7.0 log in", false, 1),
        Case(
            &[("RCPT", Say("550 gone")), ("DATA", Say("554 no valid recipients"))],
            "ann@example.com: 550 gone",
            true,
            1,
        ),
        Case(&[("RCPT", Say("550 gone")), ("DATA", Say("503 no"))], "550 gone", true, 1),
        Case(
            &[("RCPT TO:<ann", Say("550 gone")), ("RCPT", Say("450 busy")), ("DATA", Say("503 no"))],
            "450 busy",
            false,
            1,
        ),
        Case(&[("DATA", Say("554 no"))], "554 no", true, 1),
        Case(&[("DATA", Say("250 what"))], "DATA: 250 what", false, 2),
        Case(&[(".", Say("550 spam"))], "550 spam", true, 1),
        Case(&[(".", Say("450 later"))], "450 later", false, 1),
        Case(&[(".", Say("552-too\r\n552 big"))], "552 too big", true, 1),
        // After these the connection is not used again.
        Case(&[("RSET", Say("500 what")), ("MAIL", Say("550 no"))], "550 no", true, 2),
        Case(&[(".", Say("421 closing"))], "421 closing", false, 2),
        Case(&[("MAIL", Say("421 closing"))], "421 closing", false, 2),
    ];
    for offers in [ALL_OFFERS, &[]] {
        for Case(turns, answer, is_permanent, connections) in &table {
            let server = Server::start([Script::new(offers, turns)]).await;
            let mailer = server.mailer();
            for id in ["1", "2"] {
                let error = mailer.send(to(&["ann@example.com", "bob@example.com"]), id, &mut None).await.unwrap_err();
                let (message, maybe_sent, found) = match error {
                    MailError::Permanent { message, .. } => (message, false, true),
                    MailError::Temporary { message, maybe_sent, .. } => (message, maybe_sent, false),
                    MailError::Invalid(message) => panic!("{message}"),
                };
                assert!(message.starts_with("relay main: ") && message.contains(answer), "{message}");
                assert_eq!((found, maybe_sent), (*is_permanent, false), "{answer}");
            }
            assert_eq!(server.count("EHLO"), *connections, "{answer}: {:?}", server.lines());
        }
    }
}

#[tokio::test]
async fn a_mail_is_accepted_if_any_line_of_the_last_reply_is_positive() {
    for reply in ["250-queued\r\n451 but later", "550-no\r\n250 yes", "250-queued\r\n250-and\r\n550 so on"] {
        let server = Server::start([Script::new(ALL_OFFERS, &[(".", Say(reply))])]).await;
        server.mailer().send(email(), "id", &mut None).await.unwrap();
    }
    let server = Server::start([Script::new(ALL_OFFERS, &[(".", Say("451-later\r\n550 never"))])]).await;
    permanent(server.mailer().send(email(), "id", &mut None).await.unwrap_err());
}

#[tokio::test]
async fn a_server_that_accepted_no_recipient_gets_no_content() {
    let server = Server::start([Script::new(ALL_OFFERS, &[("RCPT", Say("550 gone"))])]).await;
    let mailer = server.mailer();
    for id in ["1", "2"] {
        assert!(permanent(mailer.send(email(), id, &mut None).await.unwrap_err()).contains("550 gone"));
    }
    assert!(server.mails.lock().unwrap().is_empty());
    assert!(server.lines().iter().any(|line| line.starts_with("<2> MAIL")), "{:?}", server.lines());
}

#[tokio::test]
async fn the_envelope_has_every_recipient_once_and_the_configured_return_path() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let mut settings = settings(RelayKind::Smtp(server.settings()));
    settings.relays.get_mut("main").unwrap().return_path = Some("bounce@campus.example".into());
    let mailer = Mailer::new(&settings).unwrap();
    let mail = Email {
        cc: vec!["Ann <ann@example.com>".into(), "cc@example.com".into()],
        bcc: vec!["bcc@example.com".into()],
        ..email()
    };
    mailer.send(mail, "1", &mut None).await.unwrap();
    mailer.send(Email { return_path: Some("<>".into()), ..email() }, "2", &mut None).await.unwrap();
    assert_eq!(server.count("RCPT"), 4);
    assert_eq!(server.count("MAIL FROM:<bounce@campus.example>"), 1);
    assert_eq!(server.count("MAIL FROM:<> "), 1);
}

#[tokio::test]
async fn a_mail_that_the_server_cannot_accept_is_not_sent() {
    let server = Server::start([Script::new(&["SIZE 2000"], &[])]).await;
    let mailer = server.mailer();
    let big = Email { text: "x\n".repeat(1500), ..email() };
    assert!(permanent(mailer.send(big, "1", &mut None).await.unwrap_err()).contains("the server accepts at most 2000"));
    assert!(permanent(mailer.send(to(&["zoë@example.com"]), "2", &mut None).await.unwrap_err()).contains("SMTPUTF8"));
    assert_eq!((server.count("MAIL"), server.count("EHLO")), (0, 1));

    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    server.mailer().send(to(&["zoë@bücher.example"]), "1", &mut None).await.unwrap();
    assert_eq!(server.count("RCPT TO:<zoë@xn--bcher-kva.example>"), 1);
    assert!(server.lines()[1].ends_with(" SMTPUTF8 BODY=8BITMIME"), "{:?}", server.lines());
}

/// postfix's own test server, which speaks PIPELINING, 8BITMIME and SMTPUTF8.
#[tokio::test]
async fn smtp_sink_takes_every_mail() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // Root must specify a user for it.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut sink = tokio::process::Command::new("/usr/sbin/smtp-sink")
        .args(if is_root { &["-u", "nobody"][..] } else { &[] })
        .args([&format!("127.0.0.1:{port}"), "100"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("smtp-sink of Debian's package postfix");
    let listening = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(10), listening).await.expect("smtp-sink listens");
    let server = Server { address: ([127, 0, 0, 1], port).into(), lines: Arc::default(), mails: Arc::default() };
    let settings = Smtp { connections: 8, timeout: Duration::from_secs(10), ..server.settings() };
    let mailer = Arc::new(mailer(RelayKind::Smtp(settings)));
    let started = std::time::Instant::now();
    let mut sends = tokio::task::JoinSet::new();
    for number in 0..400 {
        let mailer = Arc::clone(&mailer);
        sends.spawn(async move { mailer.send(email(), &format!("id-{number}"), &mut None).await });
    }
    while let Some(sent) = sends.join_next().await {
        sent.unwrap().unwrap();
    }
    // Nagle's delay alone would take 400 / 8 * 42 ms = 2.1 s.
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    mailer.close().await;
    sink.kill().await.unwrap();
}
