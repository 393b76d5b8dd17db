//! The peer: one thread of off-the-shelf crates that does the same job by hand. It reads JSON, writes each group of 128 messages
//! durably, renders five templates, builds the mail, hands it over SMTP (pipelined, one connection), and marks the group as sent.
//! No plugins, no HTTP, no retries. It runs as a process of its own: this benchmark's program, called with [`FLAG`].

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use minijinja::Environment;
use rusqlite::{Connection, params};
use serde_json::Value;

/// Makes this program the peer: `FLAG COUNT ADDRESS`.
pub const FLAG: &str = "--onecore";
/// Messages that are written with one transaction.
const GROUP: usize = 128;
/// Where the message's own templates are.
const OWN: &str = "probeapp/edx_ace/recurringnudge/email";
const FILES: [&str; 5] = ["from_name.txt", "subject.txt", "head.html", "body.html", "body.txt"];

/// CPU microseconds of one message.
pub fn child(count: usize, server: SocketAddr) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let used = crate::measure::child(program, &[FLAG, &count.to_string(), &server.to_string()]);
    used.cpu_s * 1e6 / count as f64
}

/// What the child does.
pub fn run(arguments: &[String]) {
    let [_, count, server] = arguments else { panic!("{FLAG} COUNT ADDRESS") };
    let count: usize = count.parse().expect("a number");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    let bench = root.join("target/bench");
    let text = std::fs::read(bench.join("messages.ndjson")).expect("the benchmark wrote it");
    let messages: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let folder = tempfile::tempdir_in(&bench).expect("a folder");
    let db = Connection::open(folder.path().join("onecore.db")).expect("a database");
    let tables = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE m (id INTEGER PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL)";
    db.execute_batch(tables).expect("tables");
    let templates = templates(&root.join("host/benches/templates"));
    let mut smtp = Smtp::connect(server.parse().expect("an address"));
    for first in (0..count).step_by(GROUP) {
        let group = first..count.min(first + GROUP);
        in_transaction(&db, || {
            let mut insert = db.prepare_cached("INSERT INTO m VALUES (?1, 0, ?2)").expect("a statement");
            for i in group.clone() {
                insert.execute(params![i as i64, messages[i % messages.len()]]).expect("inserted");
            }
        });
        for i in group.clone() {
            smtp.send(&mail(&templates, messages[i % messages.len()]));
        }
        in_transaction(&db, || {
            let mut update = db.prepare_cached("UPDATE m SET state = 1 WHERE id = ?1").expect("a statement");
            for i in group.clone() {
                update.execute([i as i64]).expect("updated");
            }
        });
    }
}

fn in_transaction(db: &Connection, work: impl FnOnce()) {
    db.execute_batch("BEGIN IMMEDIATE").expect("begun");
    work();
    db.execute_batch("COMMIT").expect("committed");
}

fn templates(folder: &Path) -> Environment<'static> {
    let mut environment = Environment::new();
    let shared = ["base_body.html", "cta.html"].map(|file| format!("ace_common/edx_ace/common/{file}"));
    for name in FILES.map(|file| format!("{OWN}/{file}")).into_iter().chain(shared) {
        let text = std::fs::read_to_string(folder.join(&name)).expect("a template");
        environment.add_template_owned(name, text).expect("a template");
    }
    environment
}

/// The mail, with its dots doubled, as it goes over the wire.
fn mail(templates: &Environment<'static>, message: &[u8]) -> Vec<u8> {
    let message: Value = serde_json::from_slice(message).expect("JSON");
    let [from, subject, head, body, text] = FILES.map(|file| {
        templates
            .get_template(&format!("{OWN}/{file}"))
            .and_then(|template| template.render(minijinja::Value::from(minijinja::value::Serde(&message["context"]))))
            .expect("it renders")
    });
    let html = format!("<!DOCTYPE html>\n<html><head>{head}</head><body>{body}</body></html>");
    let built = mail_builder::MessageBuilder::new()
        .from((from.trim(), "no-reply@example.org"))
        .to(message["recipient"]["email_address"].as_str().expect("a text"))
        .subject(subject.trim())
        .text_body(text.as_str())
        .html_body(html.as_str());
    let mut wire = Vec::with_capacity(16 * 1024);
    let mut is_first = true;
    for byte in built.write_to_vec().expect("built") {
        if is_first && byte == b'.' {
            wire.push(b'.');
        }
        is_first = byte == b'\n';
        wire.push(byte);
    }
    wire.extend_from_slice(b"\r\n.\r\n");
    wire
}

struct Smtp {
    answers: BufReader<TcpStream>,
    out: TcpStream,
}

impl Smtp {
    fn connect(server: SocketAddr) -> Self {
        let out = TcpStream::connect(server).expect("it listens");
        out.set_nodelay(true).expect("a socket");
        let mut smtp = Smtp { answers: BufReader::new(out.try_clone().expect("a socket")), out };
        smtp.expect(1);
        smtp.say(b"EHLO localhost\r\n", 1);
        smtp
    }

    fn send(&mut self, mail: &[u8]) {
        self.say(b"MAIL FROM:<no-reply@example.org>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n", 3);
        self.say(mail, 1);
    }

    fn say(&mut self, words: &[u8], answers: usize) {
        self.out.write_all(words).expect("it listens");
        self.expect(answers);
    }

    fn expect(&mut self, answers: usize) {
        let (mut line, mut left) = (String::new(), answers);
        while left > 0 {
            line.clear();
            self.answers.read_line(&mut line).expect("an answer");
            assert!(matches!(line.as_bytes().first(), Some(b'2' | b'3')), "{line:?}");
            left -= usize::from(line.as_bytes().get(3) != Some(&b'-'));
        }
    }
}
