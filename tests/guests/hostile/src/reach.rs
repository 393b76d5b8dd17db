//! Attempts to reach out of the sandbox, through WASI and through the mailer.

use std::hint::black_box;

use crate::exports::openedx::ace::channel::Attempt;
use crate::openedx::ace::mailer::{self, Email};
use crate::openedx::ace::{keyvalue, outbox};
use crate::wasi::cli::{environment, exit as wasi_exit, stdin, stdout};
use crate::wasi::clocks::monotonic_clock;
use crate::wasi::filesystem::{preopens, types::Descriptor};
use crate::wasi::random::random;
use crate::wasi::sockets::network::{ErrorCode, IpAddressFamily};
use crate::wasi::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};

/// Everything that it can see of the machine, on one line.
pub fn spied() -> String {
    let said = |refused: Option<ErrorCode>| refused.map_or("open", |code| code.name());
    format!(
        "arguments {}, environment {}, directory {:?}, folders {}, tcp {}, udp {}, names {}",
        environment::get_arguments().len(),
        environment::get_environment().len(),
        environment::initial_cwd(),
        preopens::get_directories().len(),
        said(tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4).err()),
        said(udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6).err()),
        said(ip_name_lookup::resolve_addresses(&instance_network::instance_network(), "localhost").err()),
    )
}

/// Sleeps for an hour, in the host.
pub fn sleep() {
    monotonic_clock::subscribe_duration(3_600_000_000_000).block();
}

pub fn exit() {
    wasi_exit::exit(Ok(()));
}

/// Keeps handles of the host forever.
pub fn hoard_handles() {
    loop {
        std::mem::forget(monotonic_clock::subscribe_duration(3_600_000_000_000));
    }
}

/// Requests a GiB of the host's memory.
pub fn much_randomness() {
    black_box(random::get_random_bytes(1 << 30));
}

/// Uses files that it was never given.
pub fn forge() {
    // SAFETY: deliberately violated; the test is that the host withstands it.
    let forged = unsafe { (Descriptor::from_handle(1), Descriptor::from_handle(3)) };
    black_box(forged.0.is_same_object(&forged.1));
}

/// Writes to the host's stdout.
pub fn print() {
    let out = stdout::get_stdout();
    let written = out.blocking_write_and_flush(b"{\"forged\": true}\n");
    assert!(written.is_ok(), "{written:?}");
}

/// Reads the host's stdin, which contains the next messages.
pub fn read_input() {
    let read = stdin::get_stdin().blocking_read(1 << 20);
    assert!(!read.is_ok_and(|bytes| !bytes.is_empty()), "it has read the host's input");
}

/// Sends a mail, to a server that may never reply.
pub fn mail(attempt: &Attempt) {
    let sent = mailer::send(&email(), &attempt.idempotency_key);
    assert!(sent.is_ok(), "{sent:?}");
}

fn email() -> Email {
    Email {
        sender: None,
        recipients: vec!["zoe@learner.example".to_owned()],
        cc: Vec::new(),
        bcc: Vec::new(),
        reply_to: Vec::new(),
        subject: "Hi".to_owned(),
        text: "Hi".to_owned(),
        html: None,
        headers: Vec::new(),
        attachments: Vec::new(),
        relay: None,
        return_path: None,
    }
}

/// Tries each way to have an effect. Returns the result of each on one line.
pub fn effects() -> String {
    let counted = keyvalue::increment("loot", "trace", 1, None, None);
    let set = keyvalue::set("loot", "left", b"x", None);
    let mailed = mailer::send(&email(), "trace").map(drop);
    let written = outbox::write("trace.txt", b"x").map(drop);
    format!("counted {counted:?}, set {set:?}, mailed {mailed:?}, written {written:?}")
}
