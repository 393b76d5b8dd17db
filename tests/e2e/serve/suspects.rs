//! A message that ends the process each time it is sent, beside 64 that do not. The real program is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::{LISTEN, Server, home, note};

const INNOCENT: usize = 64;
const CULPRIT: u128 = 1_000;
/// Mails that a process sends to the mail server at once; the others wait for an instance of their channel.
const HELD: usize = 20;

/// A mail server that kills the process that sends a mail to the culprit's address. In the first `crowded` processes it holds every
/// other mail until then, so that all of them are in flight.
struct Killer {
    port: u16,
    /// The process to kill.
    pid: AtomicI32,
    kills: AtomicUsize,
    /// Whether all messages were accepted.
    is_loaded: AtomicBool,
    /// Mails of this process that are held.
    held: AtomicUsize,
    crowded: usize,
    /// The number of mails for each address.
    delivered: Mutex<BTreeMap<String, usize>>,
}

impl Killer {
    fn start(crowded: usize) -> Arc<Killer> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let killer = Arc::new(Killer {
            port: listener.local_addr().expect("an address").port(),
            pid: AtomicI32::new(0),
            kills: AtomicUsize::new(0),
            is_loaded: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            crowded,
            delivered: Mutex::default(),
        });
        let accepting = killer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let killer = accepting.clone();
                std::thread::spawn(move || killer.serve(stream));
            }
        });
        killer
    }

    /// Serves one client; `None` when it disconnects.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut into = stream.try_clone().ok()?;
        let mut lines = BufReader::new(stream).lines();
        let mut say = |text: &str| into.write_all(format!("{text}\r\n").as_bytes()).ok();
        say("220 killer")?;
        let mut to = String::new();
        loop {
            let line = lines.next()?.ok()?;
            match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    self.kill_or_hold(&to);
                    say("250 ok")?;
                }
                "DATA" => {
                    say("354 go on")?;
                    while lines.next()?.ok()? != "." {}
                    *self.delivered.lock().expect("valid").entry(to.clone()).or_default() += 1;
                    say("250 taken")?;
                }
                "QUIT" => {
                    say("221 bye")?;
                    return None;
                }
                _ => say("250 ok")?,
            }
        }
    }

    fn kill_or_hold(&self, to: &str) {
        let kills = self.kills.load(Ordering::SeqCst);
        let until = std::time::Instant::now() + Duration::from_secs(30);
        let waits = |is_over: &dyn Fn() -> bool| {
            while !is_over() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        if to.starts_with("culprit@") {
            if kills < self.crowded {
                waits(&|| self.is_loaded.load(Ordering::SeqCst) && self.held.load(Ordering::SeqCst) >= HELD);
            }
            self.held.store(0, Ordering::SeqCst);
            // SAFETY: sends a signal to a child process of this test.
            unsafe { libc::kill(self.pid.load(Ordering::SeqCst), libc::SIGKILL) };
            self.kills.store(kills + 1, Ordering::SeqCst);
        } else if kills < self.crowded {
            self.held.fetch_add(1, Ordering::SeqCst);
            waits(&|| self.kills.load(Ordering::SeqCst) > kills);
        }
    }
}

async fn is_over(server: &mut Server) -> bool {
    for _ in 0..2_400 {
        if server.child.try_wait().expect("asked").is_some() {
            return false;
        }
        let queue = server.request(reqwest::Method::GET, "/v1/queue").send().await;
        if let Ok(answer) = queue
            && let Ok(queue) = answer.json::<serde_json::Value>().await
            && ["waiting_transactional", "waiting_ordinary", "in_flight"].iter().all(|key| queue[key] == 0)
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it never ends");
}

#[tokio::test]
async fn a_message_that_ends_the_process_each_time_is_set_aside_and_64_innocent_ones_are_delivered() {
    let killer = Killer::start(3);
    let relay = format!(
        "[relays.main]\nkind = 'smtp'\nhost = '127.0.0.1'\nport = {}\nhello-name = 'ace.example'\ntls = 'none'\n\
         connections = 100\n[delivery]\nconcurrency = 100\n",
        killer.port
    );
    let home = home(&format!("{LISTEN}{relay}"));
    let mut server = Server::start(&home);
    killer.pid.store(server.child.id() as i32, Ordering::SeqCst);
    let message =
        |number: u128, email: String| note(number, json!({"recipient": {"lms_user_id": 1, "email_address": email}}));
    let culprit = message(CULPRIT, "culprit@example.com".to_owned());
    assert_eq!(server.post("/v1/messages", culprit).await.0, StatusCode::ACCEPTED);
    for number in 1..=INNOCENT as u128 {
        let one = message(number, format!("innocent{number}@example.com"));
        assert_eq!(server.post("/v1/messages", one).await.0, StatusCode::ACCEPTED);
    }
    killer.is_loaded.store(true, Ordering::SeqCst);
    let mut starts = 1;
    while !is_over(&mut server).await {
        assert!(starts < 12, "the culprit is never set aside");
        server = Server::start(&home);
        killer.pid.store(server.child.id() as i32, Ordering::SeqCst);
        starts += 1;
    }
    assert_eq!(killer.kills.load(Ordering::SeqCst), 5, "queue.max-interruptions");
    let one = |number: u128| format!("/v1/messages/{}", Uuid::from_u128(number));
    let (_, culprit) = server.get(&one(CULPRIT)).await;
    assert_eq!(culprit["state"], "failed", "{culprit}");
    assert_eq!(culprit["report"]["interruptions"].as_array().map(Vec::len), Some(5), "each is named: {culprit}");
    let error = culprit["report"]["channels"][0]["error"].as_str().unwrap_or_default().to_owned();
    assert!(
        error.contains("interrupted 5 times, by processes that ended unexpectedly")
            && error.contains("queue.max-interruptions"),
        "{culprit}"
    );
    for number in 1..=INNOCENT as u128 {
        let (_, told) = server.get(&one(number)).await;
        assert_eq!(told["state"], "sent", "{told}");
        assert_eq!(told["report"]["interruptions"].as_array().map(Vec::len), Some(3), "{told}");
    }
    let delivered = killer.delivered.lock().expect("valid").clone();
    assert_eq!(delivered.len(), INNOCENT, "{delivered:?}");
    assert!(delivered.values().all(|times| *times == 1), "tried alone, none is sent twice: {delivered:?}");
    let retried = home.ace(&["messages", &Uuid::from_u128(CULPRIT).to_string(), "--retry", "--server", &server.url]);
    retried.run().code(0);
    let (code, log) = { (server.child.wait().expect("it is killed again").code(), server.log()) };
    assert_eq!(code, None, "{log}");
    assert!(
        log.contains("set aside: sending it was interrupted 5 times, by processes that ended unexpectedly"),
        "{log}"
    );
}
