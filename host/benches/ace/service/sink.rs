//! Mail servers: Postfix's smtp-sink for rates, and one that knows when each mail came.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use std::io::{BufRead, BufReader, Write};

use super::server;

pub struct SmtpSink {
    child: Child,
    pub address: SocketAddr,
}

impl SmtpSink {
    pub fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let mut command = Command::new(server::program("smtp-sink"));
        // SAFETY: it asks and changes nothing. Root must say whom smtp-sink is to run as.
        if unsafe { libc::geteuid() } == 0 {
            command.args(["-u", "nobody"]);
        }
        let child = command.args([&address.to_string(), "256"]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().expect("smtp-sink is installed (Debian's package postfix)");
        let sink = SmtpSink { child, address };
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                return sink;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("smtp-sink does not answer");
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When each mail was taken, by the left part of its Message-ID.
pub struct Arrivals {
    pub address: SocketAddr,
    taken: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Arrivals {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let arrivals = Arrivals { address: listener.local_addr().expect("bound"), taken: Arc::default() };
        let taken = arrivals.taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taken = taken.clone();
                std::thread::spawn(move || serve(stream, &taken));
            }
        });
        arrivals
    }

    /// By the message's uuid.
    pub fn taken(&self) -> HashMap<String, Instant> {
        let taken = self.taken.lock().expect("no thread broke");
        taken.iter().map(|(id, at)| (id[..36.min(id.len())].to_owned(), *at)).collect()
    }
}

fn serve(stream: TcpStream, taken: &Mutex<HashMap<String, Instant>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut lines, mut out) = (BufReader::new(stream.try_clone().ok()?), stream);
    out.write_all(b"220 arrivals\r\n").ok()?;
    let mut line = String::new();
    loop {
        line.clear();
        lines.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let answer: &[u8] = match line.get(..4)?.to_ascii_uppercase().as_str() {
            "EHLO" => b"250-arrivals\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            "DATA" => {
                out.write_all(b"354 go on\r\n").ok()?;
                let id = read_mail(&mut lines)?;
                taken.lock().ok()?.insert(id, Instant::now());
                b"250 taken\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        out.write_all(answer).ok()?;
    }
}

/// Reads to the final dot; what stands in Message-ID.
fn read_mail(lines: &mut impl BufRead) -> Option<String> {
    let (mut id, mut line) = (String::new(), Vec::new());
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
        if line == b".\r\n" {
            return Some(id);
        }
        if let Some(value) = line.strip_prefix(b"Message-ID: <") {
            id = String::from_utf8_lossy(value).into_owned();
        }
    }
}
