//! Shutdown of a server; and TLS.

use std::io::copy;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::{LISTEN, Server, configure, home, note, settled};
use crate::servers::{Smtpd, certificates, relay};
use crate::support::{Home, wait_for};

/// A proxy to the mail server that delays each connection. Returns its port.
fn slowly(to: u16, pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || {
                thread::sleep(pause);
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (mut from, mut into) = (near.try_clone().expect("cloned"), far.try_clone().expect("cloned"));
                thread::spawn(move || {
                    let _ = copy(&mut from, &mut into);
                    let _ = into.shutdown(Shutdown::Write);
                });
                let (mut from, mut into) = (far, near);
                let _ = copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

fn server_with(home: &Home, port: u16, drain: &str) -> Server {
    configure(home, &format!("{LISTEN}drain = '{drain}'\n{}", relay(port, "tls = 'none'")));
    Server::start(home)
}

/// A server with one message in flight, and one that waits.
async fn busy(home: &Home, port: u16, drain: &str) -> Server {
    let server = server_with(home, port, drain);
    let later = json!({"options": {"not_before": "2199-01-01T00:00:00Z"}});
    assert_eq!(server.post("/v1/messages", note(2, later)).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.post("/v1/messages", note(1, json!({}))).await.0, StatusCode::ACCEPTED);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.get("/v1/queue").await.1["in_flight"], 1);
    server
}

#[tokio::test]
async fn a_stop_finishes_messages_in_flight_and_keeps_the_rest() {
    let smtp = Smtpd::start(&[]);
    let home = home("");
    let server = busy(&home, slowly(smtp.port, Duration::from_secs(2)), "30s").await;
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(smtp.mails().len(), 1, "it was finished: {log}");
    let server = server_with(&home, smtp.port, "30s");
    let one = settled(&server, &json!(Uuid::from_u128(1)), "sent").await;
    assert!(one["report"].get("interruptions").is_none(), "{one}");
    settled(&server, &json!(Uuid::from_u128(2)), "queued").await;
    assert_eq!(smtp.mails().len(), 1, "and sent once");
}

#[tokio::test]
async fn a_stop_that_takes_too_long_has_its_own_exit_code_and_loses_nothing() {
    let smtp = Smtpd::start(&[]);
    let home = home("");
    let server = busy(&home, slowly(smtp.port, Duration::from_secs(60)), "500ms").await;
    let since = Instant::now();
    let (code, log) = server.stop();
    assert_eq!(code, Some(1), "{log}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let server = server_with(&home, smtp.port, "30s");
    let one = settled(&server, &json!(Uuid::from_u128(1)), "sent").await;
    assert_eq!(one["report"]["interruptions"].as_array().map(Vec::len), Some(1), "{one}");
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_loses_nothing() {
    let smtp = Smtpd::start(&[]);
    let home = home("");
    let mut server = busy(&home, slowly(smtp.port, Duration::from_secs(60)), "60s").await;
    let since = Instant::now();
    server.signal(libc::SIGTERM);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(server.child.try_wait().expect("asked").is_none(), "it waits for messages in flight");
    server.signal(libc::SIGINT);
    let status = wait_for("its end", || server.child.try_wait().expect("asked"));
    assert_eq!(status.code(), Some(130));
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let server = server_with(&home, smtp.port, "30s");
    settled(&server, &json!(Uuid::from_u128(1)), "sent").await;
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_accepted() {
    let home = home("");
    certificates(&home.path(""));
    configure(&home, &format!("{LISTEN}tls-certificate = 'cert.pem'\ntls-key = 'key.pem'\n"));
    let server = Server::start(&home);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let ask = |arguments: &[&str], url: &str| home.ace(&[arguments, &["--server", url]].concat()).run();
    ask(&["queue", "--json", "--ca-file", "ca.pem"], &server.url).ok();
    ask(&["queue"], &server.url).code(2).says("certificate");
    ask(&["queue"], &server.url.replace("https", "http")).code(2);
    let note = home.file("note.json", note(1, json!({})).to_string());
    ask(&["send", "--ca-file", "ca.pem", note.to_str().expect("text")], &server.url).ok();
    assert_eq!(server.stop().0, Some(0));
}

/// Makes `sleep` fail in the program that this process becomes, on which the standard library panics: the clock that limits the time of
/// plugins is a thread that sleeps between its ticks.
fn no_sleep() -> std::io::Result<()> {
    let jump = |number: libc::c_long, matched| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: matched,
        jf: 0,
        k: number as u32,
    };
    let statement = |code: u32, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the system call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::SYS_nanosleep, 2),
        jump(libc::SYS_clock_nanosleep, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the arguments are numbers, and a filter that lives until the calls return.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The server logs the reason, ends with its own exit code, and has lost nothing when it is started again.
#[tokio::test]
async fn a_server_whose_clock_has_ended_ends_with_its_own_exit_code() {
    let home = home("");
    let server = Server::start(&home);
    let later = json!({"options": {"not_before": "2199-01-01T00:00:00Z"}});
    assert_eq!(server.post("/v1/messages", note(1, later)).await.0, StatusCode::ACCEPTED);
    assert_eq!(server.stop().0, Some(0));
    let done = home.ace(&["serve"]).before(no_sleep).run().code(70);
    done.says("Because of a bug the clock that limits the time of plugins has ended");
    let server = Server::start(&home);
    settled(&server, &json!(Uuid::from_u128(1)), "queued").await;
    assert_eq!(server.send(&note(2, json!({}))).await["state"], "sent");
}
