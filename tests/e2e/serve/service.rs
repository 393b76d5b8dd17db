//! `ace serve` as a service. The tests play systemd: they hold the listening socket, pass it to the server, and receive what the server
//! notifies.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{LISTEN, Server, configure, home, note, settled};
use crate::support::{Home, wait_for};

/// How long something is awaited that must not happen.
const QUIET: Duration = Duration::from_millis(700);

/// A service manager with one service.
struct Systemd {
    socket: TcpListener,
    notifications: UnixDatagram,
    home: Home,
}

impl Systemd {
    fn new(toml: &str) -> Systemd {
        let home = home(toml);
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let notifications = UnixDatagram::bind(home.path("notify")).expect("a socket");
        notifications.set_read_timeout(Some(QUIET)).expect("a timeout");
        Systemd { socket, notifications, home }
    }

    /// Starts the service. Returns when it serves.
    fn start(&self, watchdog: Option<Duration>) -> Server {
        start(&self.home, &self.socket, watchdog)
    }

    /// The lines of the next notification, unless none comes.
    fn notification(&self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        let length = self.notifications.recv(&mut buffer).ok()?;
        let text = String::from_utf8(buffer[..length].to_vec()).expect("text");
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Waits for a notification with this line.
    fn expect(&self, line: &str) -> Vec<String> {
        wait_for(line, || self.notification().filter(|lines| lines.iter().any(|l| l == line)))
    }

    /// The number of notifications that wait to be read.
    fn drain(&self) -> usize {
        self.notifications.set_nonblocking(true).expect("set");
        let count = std::iter::from_fn(|| self.notification()).count();
        self.notifications.set_nonblocking(false).expect("set");
        count
    }
}

fn start(home: &Home, socket: &impl AsRawFd, watchdog: Option<Duration>) -> Server {
    let notify = home.path("notify");
    let run = home.ace(&["--log", "info", "serve"]).env("NOTIFY_SOCKET", notify.to_str().expect("text"));
    let run = match watchdog {
        Some(timeout) => run.env("WATCHDOG_USEC", &timeout.as_micros().to_string()),
        None => run,
    };
    Server::of(run.with_socket(socket, "http"))
}

#[test]
fn a_start_a_reload_and_a_stop_are_announced() {
    let systemd = Systemd::new("");
    let server = systemd.start(None);
    systemd.expect("READY=1");
    let address = systemd.socket.local_addr().expect("an address");
    assert_eq!(server.url, format!("http://{address}"), "the passed socket replaces server.listen");

    server.signal(libc::SIGHUP);
    let reloading = systemd.expect("RELOADING=1");
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    systemd.expect("READY=1");

    let toml = systemd.home.read("ace.toml");
    systemd.home.file("ace.toml", format!("{toml}\n[delivery]\nconcurrensy = 3\n"));
    server.signal(libc::SIGHUP);
    systemd.expect("RELOADING=1");
    let refused = systemd.expect("READY=1").join("\n");
    assert!(refused.contains("STATUS=Nothing was reloaded") && refused.contains("concurrensy"), "{refused}");

    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
    let stopping = systemd.expect("STOPPING=1");
    assert!(stopping.contains(&"EXTEND_TIMEOUT_USEC=40000000".to_owned()), "server.drain and 10 s: {stopping:?}");
}

#[test]
fn the_watchdog_is_fed_while_the_server_is_alive() {
    let systemd = Systemd::new("");
    let server = systemd.start(Some(Duration::from_millis(400)));
    systemd.expect("WATCHDOG=1");
    systemd.expect("WATCHDOG=1");
    server.signal(libc::SIGSTOP);
    systemd.drain();
    assert_eq!(systemd.notification(), None, "it is stopped");
    server.signal(libc::SIGCONT);
    systemd.expect("WATCHDOG=1");
}

#[test]
fn a_socket_that_cannot_be_used_is_refused() {
    let refused = |socket: &dyn Fn(&Home) -> std::os::fd::OwnedFd| {
        let home = home("");
        home.ace(&["serve"]).with_socket(&socket(&home), "http").run().code(2).stderr
    };
    let open = refused(&|_| TcpListener::bind("0.0.0.0:0").expect("a port").into());
    assert!(open.contains("not a loopback address: set server.tokens-file"), "{open}");
    let unix = refused(&|home| UnixListener::bind(home.path("http")).expect("a socket").into());
    assert!(unix.contains("other than a listening TCP socket"), "{unix}");
    let connected = refused(&|_| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        TcpStream::connect(listener.local_addr().expect("an address")).expect("connected").into()
    });
    assert!(connected.contains("other than a listening TCP socket"), "{connected}");
}

/// Clients that submit messages for as long as they are told to, each over connections of its own or over one that it keeps.
struct Clients {
    is_over: Arc<AtomicBool>,
    submitted: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Value>>>,
}

impl Clients {
    fn start(url: &str) -> Clients {
        let (is_over, submitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: usize| {
            let tls = ace::internals::tls::client_config(None).expect("valid");
            let http =
                reqwest::Client::builder().use_preconfigured_tls(tls).pool_max_idle_per_host(number % 2).no_proxy();
            let http = http.build().expect("a client");
            let (url, is_over, submitted) = (format!("{url}/v1/messages"), is_over.clone(), submitted.clone());
            tokio::spawn(async move {
                let mut accepted = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let message = note(u128::from(submitted.fetch_add(1, Ordering::SeqCst) + 1), json!({}));
                    let request = http.post(&url).header("content-type", "application/json").body(message.to_string());
                    let response = request.send().await.unwrap_or_else(|e| panic!("client {number}: {e:?}"));
                    assert_eq!(response.status(), StatusCode::ACCEPTED, "client {number}");
                    let _ = response.bytes().await.expect("a body");
                    accepted.push(message["uuid"].clone());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                accepted
            })
        };
        let tasks = (0..6).map(client).collect();
        Clients { is_over, submitted, tasks }
    }

    /// Waits until that many more messages were submitted.
    async fn go_on(&self, more: u64) {
        let target = self.submitted.load(Ordering::SeqCst) + more;
        while self.submitted.load(Ordering::SeqCst) < target {
            assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a client has failed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends them. Returns the uuids of the messages that were accepted.
    async fn stop(self) -> Vec<Value> {
        self.is_over.store(true, Ordering::SeqCst);
        let mut accepted = Vec::new();
        for task in self.tasks {
            accepted.extend(task.await.expect("no request failed"));
        }
        accepted
    }
}

/// The socket stays open while one process replaces another, whether the next starts after the last has ended (systemd) or before.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_under_load_loses_no_message_and_refuses_no_request() {
    let systemd = Systemd::new("[relays.main]\nkind = 'file'\ndir = 'mails'\n");
    let mut server = systemd.start(None);
    let clients = Clients::start(&server.url);
    for is_next_first in [false, true, false] {
        clients.go_on(60).await;
        let stop = |server: Server| {
            let (code, log) = server.stop();
            assert_eq!(code, Some(0), "{log}");
        };
        if is_next_first {
            server = std::thread::scope(|scope| {
                let next = scope.spawn(|| systemd.start(None));
                std::thread::sleep(Duration::from_millis(1_500));
                stop(server);
                next.join().expect("it waited for the queue")
            });
        } else {
            stop(server);
            server = systemd.start(None);
        }
    }
    clients.go_on(60).await;
    let accepted = clients.stop().await;
    for uuid in &accepted {
        settled(&server, uuid, "sent").await;
    }
    assert_eq!(systemd.home.list("mails").len(), accepted.len(), "each was sent once");
}

#[test]
fn a_start_waits_only_some_seconds_for_the_queue() {
    let home = home("");
    let server = Server::start(&home);
    configure(&home, LISTEN);
    let refused = home.ace(&["--log", "info", "serve"]).run().code(2);
    refused.says("waits up to 10s for another one to end").says("another ace (process");
    assert_eq!(server.stop().0, Some(0));
}
