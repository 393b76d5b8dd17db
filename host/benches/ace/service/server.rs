//! `ace serve` as a child.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use crate::measure::one_core;
use crate::place::{DISCARD, Place};

/// Nothing that is measured takes longer.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// With the reference configuration, an empty queue, this relay, and a warm code cache: figures
    /// taken right after all plugins were compiled depend on how many there are.
    pub fn start(place: &Place, name: &str, relay: &str) -> Self {
        let config = place.config(relay).replace("../plugins", "../../plugins");
        let config = config.replace("../../host", "../../../host").replace("facts.ndjson", "../facts.ndjson");
        let config = config.replace("\"cache\"", "\"../cache\"");
        Server::run(place, &place.folder(name), &config)
    }

    /// Ten plugins of this repository's, policies and channels, and nothing to do.
    pub fn with_ten_plugins(place: &Place) -> Self {
        let folder = place.folder("ten");
        std::fs::create_dir(folder.join("plugins")).expect("made");
        for number in 0..10 {
            let kind = ["stub_policy", "bulk_email_optout", "django_email", "file_email"][number % 4];
            let file = folder.join(format!("plugins/{kind}_{number}.wasm"));
            std::fs::copy(place.target.join(format!("plugins/{kind}.wasm")), file).expect("copied");
        }
        let config = "plugin-dir = \"plugins\"\ntemplate-dirs = [\"../../../host/benches/templates\"]\n\
             cache-dir = \"../cache\"\n[mailer]\ndefault-from = \"a@example.org\"\n";
        Server::run(place, &folder, &format!("{config}{DISCARD}\n"))
    }

    /// With this configuration, whose files are in the folder, and an empty queue. `BENCH_TOKEN` is any secret of it.
    pub fn run(place: &Place, folder: &Path, config: &str) -> Self {
        let file = folder.join("ace.toml");
        let settings = "[server]\nlisten = \"127.0.0.1:0\"\n[queue]\ndatabase = \"ace.db\"\n";
        std::fs::write(&file, format!("{config}{settings}")).expect("written");
        // As it is built for this benchmark, or `dist`: as `make dist` leaves it.
        let profile = std::env::var("BENCH_PROFILE").unwrap_or_else(|_| "release".to_owned());
        let mut command = Command::new(place.target.join(profile).join("ace"));
        command
            .args(["--log", "error", "--config"])
            .arg(&file)
            .arg("serve")
            .env("BENCH_TOKEN", super::TOKEN)
            .stderr(Stdio::piped())
            .stdin(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let (mut lines, mut line) = (BufReader::new(child.stderr.take().expect("piped")), String::new());
        let address = loop {
            line.clear();
            assert!(lines.read_line(&mut line).expect("it speaks") > 0, "it ended: {}", file.display());
            match line.trim().strip_prefix("ace serves http://") {
                Some(address) => break address.parse().expect("an address"),
                None => print!("{line}"),
            }
        };
        // Nobody else reads what it says, and it must not wait for that.
        std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| println!("ace: {line}")));
        Server { child, address }
    }

    /// Seconds by the clock, and of the server's CPU, that a piece of work took.
    pub fn measured(&self, work: impl FnOnce()) -> (f64, f64) {
        let (begun, before) = (Instant::now(), self.cpu_s());
        work();
        (begun.elapsed().as_secs_f64(), self.cpu_s() - before)
    }

    /// To a hundredth of a second.
    fn cpu_s(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
        // SAFETY: it only asks.
        ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
    }

    pub fn resident_mib(&self) -> f64 {
        let pages: f64 = self.proc("statm").split(' ').nth(1).and_then(|n| n.parse().ok()).expect("the second number");
        // SAFETY: it only asks.
        pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as f64 / 1_048_576.0
    }

    fn proc(&self, what: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).expect("it runs")
    }

    /// Until nothing waits and nothing is under way.
    pub fn wait_until_idle(&self) {
        let begun = Instant::now();
        one_core().block_on(async {
            let mut client = Client::connect(self.address).await;
            loop {
                let (status, body) = client.exchange(b"GET /v1/queue HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                assert_eq!(status, 200);
                let queue: Value = serde_json::from_slice(&body).expect("JSON");
                let left = |name: &str| queue[name].as_u64().unwrap_or_else(|| panic!("{name}: {queue}"));
                if ["waiting_transactional", "waiting_ordinary", "waiting_batches", "in_flight"].map(left) == [0; 4] {
                    return;
                }
                assert!(begun.elapsed() < PATIENCE, "{queue}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    /// In an orderly way.
    pub fn stop(mut self) {
        // SAFETY: a signal to a child of ours.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of Postfix's, which Debian keeps out of an ordinary user's PATH.
pub fn program(name: &str) -> OsString {
    let known = Path::new("/usr/sbin").join(name);
    if known.exists() { known.into() } else { name.into() }
}
