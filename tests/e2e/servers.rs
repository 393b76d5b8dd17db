//! Mail servers on loopback, which stop when their guard is dropped; and certificates for them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;

use crate::support::{repository, wait_for};

/// tests/e2e/smtpd.py.
pub struct Smtpd {
    child: Child,
    dump: tempfile::TempDir,
    pub port: u16,
}

impl Smtpd {
    pub fn start(arguments: &[&str]) -> Smtpd {
        let dump = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(repository("target/venv").join("bin/python"));
        command.arg(repository("tests/e2e/smtpd.py")).arg("--dump").arg(dump.path()).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut said).expect("its first line");
        let port = said.trim().strip_prefix("PORT ").and_then(|n| n.parse().ok());
        let port = port.unwrap_or_else(|| panic!("smtpd.py did not start: run tests/venv.sh ({said:?})"));
        Smtpd { child, dump, port }
    }

    /// A relay through it without TLS, as the only relay, with quick retries.
    pub fn relay(&self) -> String {
        self.relay_with("tls = 'none'")
    }

    /// A relay through it with these settings.
    pub fn relay_with(&self, settings: &str) -> String {
        relay(self.port, settings)
    }

    /// The mails that it accepted, in order.
    pub fn mails(&self) -> Vec<Mail> {
        let entries = fs::read_dir(self.dump.path()).expect("its folder");
        let files = entries.map(|entry| entry.expect("an entry").path());
        let mut envelopes: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "json")).collect();
        envelopes.sort();
        envelopes.iter().map(|file| Mail::read(file)).collect()
    }

    /// The only mail that it accepted.
    #[track_caller]
    pub fn mail(&self) -> Mail {
        let mut mails = self.mails();
        assert_eq!(mails.len(), 1, "exactly one mail was to arrive");
        mails.remove(0)
    }
}

impl Drop for Smtpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay of the kind smtp on loopback, as the only relay, with quick retries.
pub fn relay(port: u16, settings: &str) -> String {
    format!(
        "[relays.main]\nkind = 'smtp'\nhost = '127.0.0.1'\nport = {port}\nhello-name = 'ace.example'\n{settings}\n\n\
         [delivery]\nretry-delay = '10ms'\nmax-retry-delay = '50ms'\n"
    )
}

/// A mail as the server accepted it.
pub struct Mail {
    pub raw: String,
    /// `from`, `recipients`, `hello`, `tls`, `user`, `smtputf8`.
    pub envelope: Value,
}

impl Mail {
    fn read(envelope: &Path) -> Mail {
        let json = fs::read(envelope).expect("the envelope");
        let raw = fs::read_to_string(envelope.with_extension("eml")).expect("the mail is UTF-8");
        Mail { raw, envelope: serde_json::from_slice(&json).expect("JSON") }
    }

    /// A header's value: unfolded, not decoded.
    pub fn header(&self, name: &str) -> Option<String> {
        let head = self.raw.split_once("\r\n\r\n").map_or(self.raw.as_str(), |(head, _)| head);
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let of = |line: &str| {
            line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
        };
        unfolded.lines().find_map(of)
    }

    /// The names of its headers, in lower case and in order.
    pub fn header_names(&self) -> Vec<String> {
        let head = self.raw.split_once("\r\n\r\n").map_or(self.raw.as_str(), |(head, _)| head);
        let starts = head.lines().filter(|line| !line.starts_with([' ', '\t']));
        starts.filter_map(|line| line.split_once(':')).map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// Passes the mail to `read` as a mail parser reads it.
    pub fn parsed<T>(&self, read: impl FnOnce(&mail_parser::Message<'_>) -> T) -> T {
        read(&MessageParser::default().parse(self.raw.as_bytes()).expect("it is a mail"))
    }

    pub fn subject(&self) -> String {
        self.parsed(|m| m.subject().expect("a subject").to_owned())
    }

    /// The first text part, line ends as `\n`.
    pub fn text(&self) -> String {
        self.parsed(|m| m.body_text(0).expect("a text part").replace("\r\n", "\n"))
    }

    pub fn html(&self) -> String {
        self.parsed(|m| m.body_html(0).expect("an HTML part").replace("\r\n", "\n"))
    }

    /// Name and address of the sender.
    pub fn sender(&self) -> (Option<String>, String) {
        self.parsed(|m| {
            let from = m.from().and_then(|from| from.first()).expect("a sender");
            (from.name().map(str::to_owned), from.address().expect("an address").to_owned())
        })
    }

    /// The media types of its parts, the whole first.
    pub fn part_types(&self) -> Vec<String> {
        let name = |part: &mail_parser::MessagePart<'_>| {
            part.content_type()
                .map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()))
                .unwrap_or_default()
        };
        self.parsed(|m| m.parts.iter().map(name).collect())
    }
}

/// The smtp-sink of Postfix, for very many mails.
pub struct SmtpSink {
    child: Child,
    dump: tempfile::TempDir,
    pub port: u16,
}

impl SmtpSink {
    pub fn start() -> SmtpSink {
        let dump = tempfile::tempdir().expect("a temporary folder");
        // SAFETY: reads the user id. As root, smtp-sink needs a user to run as.
        let user: &[&str] = if unsafe { libc::geteuid() } == 0 { &["-u", "root"] } else { &[] };
        // If another program takes the port first, the next port is used.
        for _ in 0..20 {
            let port = free_port();
            let mut child = Command::new("smtp-sink")
                .env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()))
                .args(user)
                .arg("-D")
                .arg(dump.path().join("mails"))
                .args([&format!("127.0.0.1:{port}"), "200"])
                .stderr(Stdio::null())
                .spawn()
                .expect("smtp-sink is installed (Debian's package postfix)");
            let serves = wait_for("smtp-sink", || match child.try_wait().expect("a child") {
                Some(_) => Some(false),
                None => TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true),
            });
            if serves {
                return SmtpSink { child, dump, port };
            }
        }
        panic!("smtp-sink found no port");
    }

    /// Everything that it accepted, as one text.
    pub fn dump(&self) -> String {
        fs::read_to_string(self.dump.path().join("mails")).expect("its dump")
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mail server that can be stopped and restarted on one port, with a configurable reply to MAIL.
pub struct MailServer {
    pub port: u16,
    state: Arc<MailState>,
}

#[derive(Default)]
struct MailState {
    is_over: AtomicBool,
    connections: AtomicUsize,
    mails: Mutex<Vec<(Instant, String)>>,
}

/// A server's reply to a MAIL command; with `None` it disconnects.
pub type ToMail = fn(&str) -> Option<&'static str>;

impl MailServer {
    /// A server that accepts everything.
    pub fn start(port: u16) -> MailServer {
        MailServer::answering(port, "220 ready", |_| Some("250 ok"))
    }

    pub fn answering(port: u16, greeting: &'static str, to_mail: ToMail) -> MailServer {
        let state = Arc::new(MailState::default());
        let listener = wait_for("the port", || TcpListener::bind(("127.0.0.1", port)).ok());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = shared.clone();
                // An error only ends the conversation.
                std::thread::spawn(move || drop(converse(stream, &shared, greeting, to_mail)));
            }
        });
        MailServer { port, state }
    }

    /// The recipients of accepted mails, one entry per mail.
    pub fn mails(&self) -> Vec<String> {
        self.state.mails.lock().expect("no panic").iter().map(|(_, recipients)| recipients.clone()).collect()
    }

    /// When each mail's final dot arrived, the earliest first.
    pub fn arrivals(&self) -> Vec<Instant> {
        let mut arrivals: Vec<Instant> = self.state.mails.lock().expect("no panic").iter().map(|(at, _)| *at).collect();
        arrivals.sort_unstable();
        arrivals
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        // Wakes up the listener, so that it ends and frees its port.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn converse(stream: TcpStream, state: &MailState, greeting: &str, to_mail: ToMail) -> std::io::Result<()> {
    // Each reply is sent at once and in one piece, because clients are measured with this server.
    stream.set_nodelay(true)?;
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    answers.write_all(format!("{greeting}\r\n").as_bytes())?;
    let mut recipients = String::new();
    while let Some(line) = lines.next() {
        let line = line?;
        if state.is_over.load(Ordering::SeqCst) {
            return Ok(());
        }
        let answer = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => "250 mail.example",
            "MAIL" => match to_mail(&line) {
                Some(answer) => answer,
                None => return Ok(()),
            },
            "RCPT" => {
                recipients.push_str(&line);
                "250 ok"
            }
            "DATA" => {
                answers.write_all(b"354 go on\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                let taken = (Instant::now(), std::mem::take(&mut recipients));
                state.mails.lock().expect("no panic").push(taken);
                "250 taken"
            }
            _ => "250 ok",
        };
        answers.write_all(format!("{answer}\r\n").as_bytes())?;
    }
    Ok(())
}

/// A port without a listener.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// A test CA with one certificate for 127.0.0.1, in `folder`: `ca.pem`, `cert.pem`, `key.pem`.
pub fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let write = |name: &str, pem: String| fs::write(folder.join(name), pem).expect("written");

    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.distinguished_name.push(DnType::CommonName, "ACE test CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    write("ca.pem", ca.self_signed(&ca_key).expect("signed").pem());

    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let issuer = Issuer::new(ca, ca_key);
    write("cert.pem", leaf.signed_by(&key, &issuer).expect("signed").pem());
    write("key.pem", key.serialize_pem());
}
