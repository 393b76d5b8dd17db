//! Channels that deliver over HTTP, to a TLS server on loopback: requests a second and CPU of a delivery with 64 at once, over HTTP/1.1
//! and HTTP/2, in turns with the vendors' own clients in Python; and events of feedback a second.

mod tls;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::measure::Summary;
use crate::place::{DISCARD, Place};
use crate::service::client::{post_all, request};
use crate::service::server::Server;
use crate::service::{ROUNDS, TOKEN, median};
use tls::{Provider, Version};

/// Deliveries at once.
const CONCURRENCY: usize = 64;
/// Deliveries of one measurement, ours and of a client in Python.
const SENT: usize = 10_000;
const CLIENT_SENT: usize = 2_000;
/// Deliveries over which memory must stay as it is, once as many have filled the store's page cache (64 MiB).
const MANY: usize = 100_000;
/// Requests with feedback, of one event each, and their clients.
const REPORTS: usize = 20_000;
const REPORTERS: usize = 32;

/// A channel, and the Python client that does the same.
struct Channel {
    name: &'static str,
    kind: &'static str,
    client: &'static str,
    /// Its credential `key` and its own tables, for a provider with this URL.
    toml: fn(&str) -> String,
    contact: fn(u16, usize) -> Value,
}

const FCM: Channel = Channel {
    name: "push_notification",
    kind: "push",
    client: "firebase_admin",
    toml: |url| {
        format!(
            "[credentials.key]\nkind = 'bearer'\nurls = ['{url}']\ntoken = {{ env = 'BENCH_TOKEN' }}\n\
             [plugins.push_notification]\ngrants = {{ http = ['{url}'] }}\ncredentials = {{ fcm = 'key' }}\n\
             config = {{ project-id = 'campus-1', base-url = '{url}' }}\n"
        )
    },
    contact: |_, n| json!({"push-token": [format!("device-{n}")]}),
};

const WEB_PUSH: Channel = Channel {
    name: "web_push",
    kind: "web_push",
    client: "pywebpush",
    toml: |url| {
        format!(
            "[credentials.key]\nkind = 'vapid'\nurls = ['{url}']\nkey = {{ file = '../../../host/ace/src/credentials/tests/ec.pem' }}\n\
             subject = 'mailto:push@campus.example'\n\
             [plugins.web_push]\ngrants = {{ http = ['{url}'] }}\ncredentials = {{ vapid = 'key' }}\n"
        )
    },
    contact: |port, n| {
        let keys = json!({"p256dh": P256DH, "auth": "AAAAAAAAAAAAAAAAAAAAAA"});
        let subscription = json!({"endpoint": format!("https://localhost:{port}/push/{n}"), "keys": keys});
        json!({"web-push": [subscription.to_string()]})
    },
};

/// A browser's public key, of RFC 8291, appendix A.
const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

pub fn providers(place: &Place, summary: &mut Summary) {
    beside_client(place, summary, &FCM);
    beside_client(place, summary, &WEB_PUSH);
    memory(place, summary);
    feedback(place, summary);
}

/// A channel over both versions of HTTP, beside the client.
fn beside_client(place: &Place, summary: &mut Summary, channel: &Channel) {
    let mut ratios = Vec::new();
    let mut figures = [(); 2].map(|()| (Vec::new(), Vec::new(), 0));
    for _ in 0..ROUNDS {
        let theirs = client_cpu_us(place, channel);
        for (version, (rates, cpus, connections)) in [Version::Http1, Version::Http2].into_iter().zip(&mut figures) {
            let provider = Provider::start(version);
            let server = start(place, &provider, channel);
            send(&server, &provider, channel, 200);
            let (took, cpu) = server.measured(|| send(&server, &provider, channel, SENT));
            server.stop();
            rates.push(SENT as f64 / took);
            cpus.push(cpu * 1e6 / SENT as f64);
            *connections = provider.counts().0.max(*connections);
            if version == Version::Http1 {
                ratios.push(theirs / cpus[cpus.len() - 1]);
            }
        }
    }
    let name = channel.name;
    for (version, (rates, cpus, connections)) in ["http1", "http2"].into_iter().zip(figures) {
        summary.add(
            &format!("{name}_{version}_per_s"),
            median(rates),
            "/s",
            "accept to settled, the provider on the same cores",
        );
        summary.add(
            &format!("{name}_{version}_cpu_us"),
            median(cpus),
            "us",
            "the server's own, queue and TLS included",
        );
        let most = if version == "http1" { "no more than the deliveries at once, 64" } else { "one is enough" };
        summary.add(&format!("{name}_{version}_connections"), connections as f64, "", most);
    }
    summary.add(
        &format!("{name}_cpu_vs_{}", channel.client),
        median(ratios),
        "x",
        "the client's CPU over ours, HTTP/1.1",
    );
}

/// How much memory grows over many deliveries.
fn memory(place: &Place, summary: &mut Summary) {
    let provider = Provider::start(Version::Http2);
    let server = start(place, &provider, &FCM);
    send(&server, &provider, &FCM, MANY);
    let before = server.resident_mib();
    send(&server, &provider, &FCM, MANY);
    summary.add(
        "push_notification_growth_mib",
        server.resident_mib() - before,
        "MiB",
        "from 100,000 deliveries to 200,000",
    );
    server.stop();
}

fn start(place: &Place, provider: &Provider, channel: &Channel) -> Server {
    let folder = place.folder("providers");
    std::fs::write(folder.join("ca.pem"), &provider.authority).expect("written");
    for (file, text) in [("title.txt", "A reply"), ("body.txt", "{{ who }} answered")] {
        let templates = folder.join("templates/app/edx_ace/note").join(channel.kind);
        std::fs::create_dir_all(&templates).expect("made");
        std::fs::write(templates.join(file), text).expect("written");
    }
    let (name, kind) = (channel.name, channel.kind);
    let config = format!(
        "plugin-dir = '../../plugins'\ntemplate-dirs = ['templates']\ncache-dir = '../cache'\nenabled-channels = ['{name}']\n\
         enabled-policies = []\n[routing]\ndefault = {{ {kind} = '{name}' }}\n\
         [http]\nca-file = 'ca.pem'\nrequests-per-plugin = {CONCURRENCY}\n[limits]\ninstances = {CONCURRENCY}\n\
         [delivery]\nconcurrency = {CONCURRENCY}\n{}",
        (channel.toml)(&format!("https://localhost:{}/", provider.port))
    );
    Server::run(place, &folder, &config)
}

/// Hands in a batch, and waits until the provider has it all.
fn send(server: &Server, provider: &Provider, channel: &Channel, count: usize) {
    let before = provider.counts().1;
    let kind = json!({"app_label": "app", "name": "note", "uuid": uuid::Uuid::new_v4(), "context": {"who": "Zoë"}});
    let mut batch = json!({"message_type": kind}).to_string();
    for n in 0..count {
        let contacts = (channel.contact)(provider.port, n);
        let recipient = json!({"lms_user_id": n, "email_address": null, "contacts": contacts});
        batch.push_str(&format!("\n{}", json!({"recipient": recipient})));
    }
    post_all(server.address, 1, vec![request("/v1/batches", batch.as_bytes())], 202);
    server.wait_until_idle();
    assert_eq!(provider.counts().1 - before, count, "each is delivered once");
}

/// CPU microseconds of one delivery of the vendor's client.
fn client_cpu_us(place: &Place, channel: &Channel) -> f64 {
    let provider = Provider::start(Version::Http1);
    let authority = place.folder("client").join("ca.pem");
    std::fs::write(&authority, &provider.authority).expect("written");
    let told = python(place, &authority, &[channel.client, &provider.port.to_string(), &CLIENT_SENT.to_string()]);
    assert_eq!(provider.counts().1, told["sent"].as_u64().expect("a number") as usize, "{told}");
    told["cpu_us"].as_f64().expect("a number")
}

fn python(place: &Place, authority: &Path, arguments: &[&str]) -> Value {
    let mut python = Command::new(place.target.join("venv/bin/python"));
    python.arg(place.root.join("host/benches/peers/push.py")).args(arguments).env("REQUESTS_CA_BUNDLE", authority);
    let output = python.output().expect("it starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Signed requests of a provider with one event each, which are on the disk when they are answered.
fn feedback(place: &Place, summary: &mut Summary) {
    let config = format!(
        "plugin-dir = \"plugins\"\ntemplate-dirs = [\"../../../host/benches/templates\"]\ncache-dir = \"../cache\"\n\
         [mailer]\ndefault-from = \"a@example.org\"\n{DISCARD}\n[feedback]\nrequests-per-second = 1000000\n\
         [plugins.django_email]\ngrants = {{ mailer = true }}\n\
         [plugins.reporter]\ngrants = {{ feedback = [\"django_email\"] }}\nsecrets = {{ key = {{ env = \"BENCH_TOKEN\" }} }}\n"
    );
    let (mut rates, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let folder = place.folder("feedback");
        std::fs::create_dir(folder.join("plugins")).expect("made");
        for plugin in ["reporter", "django_email"] {
            std::fs::write(folder.join(format!("plugins/{plugin}.wasm")), place.component(plugin)).expect("written");
        }
        let server = Server::run(place, &folder, &config);
        let reports: Vec<Vec<u8>> = (0..REPORTS).map(report).collect();
        let (took, cpu) = server.measured(|| post_all(server.address, REPORTERS, reports, 204));
        server.stop();
        rates.push(REPORTS as f64 / took);
        cpus.push(cpu * 1e6 / REPORTS as f64);
    }
    summary.add("feedback_per_s", median(rates), "/s", "signed requests of one event each, on the disk when answered");
    summary.add("feedback_cpu_us", median(cpus), "us", "the server's own");
}

fn report(number: usize) -> Vec<u8> {
    let kind = ["delivered", "opened", "clicked", "bounced"][number % 4];
    let events = json!({"events": [{"id": format!("e{number}"), "kind": kind, "uuid": uuid::Uuid::from_u128(number as u128 / 4)}]});
    let (body, seconds) = (events.to_string(), jiff::Timestamp::now().as_second());
    let signature: String =
        Sha256::digest(format!("{TOKEN}.{seconds}.{body}")).iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!(
        "POST /v1/feedback/reporter HTTP/1.1\r\nHost: localhost\r\nX-Time: {seconds}\r\nX-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}
