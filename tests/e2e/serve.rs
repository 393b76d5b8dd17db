//! A running `ace serve`, used over HTTP and by the command line.

mod addresses;
mod admission;
mod api;
mod auth;
mod batches;
mod connections;
mod crash;
mod damage;
mod day;
mod examples;
mod feedback;
mod frames;
mod limit_to;
mod limits;
mod mail_reports;
mod openapi;
mod outages;
mod people;
mod pushes;
mod rates;
mod recipients;
mod rejected;
mod resolvers;
mod runtime;
mod selection;
mod service;
mod shown;
mod sns;
mod stopping;
mod store_files;
mod suppressions;
mod suspects;
mod traces;
mod twilio;
mod webhooks;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{GRANTED, Home, Run, wait_for};

const DISCARD: &str = "[relays.main]\nkind = 'discard'\n";
pub const LISTEN: &str = "[server]\nlisten = '127.0.0.1:0'\n";

/// A home with the message `note` and the channel `django_email`, for a server on a free port.
pub fn home(toml: &str) -> Home {
    let home = Home::new(&["django_email"], "");
    configure(&home, toml);
    home.email_templates("note", "{{ subject or 'A note' }}", "<p>{{ text or 'Hi' }}</p>", "{{ text or 'Hi' }}");
    home
}

/// Replaces ace.toml. If `toml` has no relay, one that discards mail is added.
pub fn configure(home: &Home, toml: &str) {
    let relay = if toml.contains("[relays") { "" } else { DISCARD };
    let server = if toml.contains("[server]") { "" } else { LISTEN };
    home.config(&format!("{GRANTED}{relay}{server}{toml}"));
}

/// A running server.
pub struct Server {
    pub child: Child,
    pub url: String,
    http: reqwest::Client,
    log: Option<std::thread::JoinHandle<String>>,
    _dir: std::sync::Arc<tempfile::TempDir>,
}

impl Server {
    pub fn start(home: &Home) -> Server {
        Server::of(home.ace(&["--log", "info", "serve"]))
    }

    pub fn of(run: Run) -> Server {
        let dir = run.dir.clone();
        let mut child = run.start_open();
        let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (mut url, mut before) = (None, String::new());
        while url.is_none() {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("it speaks") > 0, "it ended: {before}");
            url = line.trim().strip_prefix("ace serves ").map(str::to_owned);
            before.push_str(&line);
        }
        let log = std::thread::spawn(move || {
            let mut all = before;
            while log.read_line(&mut all).unwrap_or_default() > 0 {}
            all
        });
        let tls = ace::internals::tls::client_config(None).expect("valid");
        let http = reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().build().expect("a client");
        Server { child, url: url.expect("it said so"), http, log: Some(log), _dir: dir }
    }

    /// A request with the content type that the route accepts.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let kind = match path.split(['?', '#']).next().unwrap_or_default() {
            "/v1/messages" => "application/json",
            "/v1/batches" | "/v1/keyvalue" | "/v1/suppressions" => "application/x-ndjson",
            path if path.starts_with("/v1/suppressions/") => "application/json",
            _ => "application/octet-stream",
        };
        self.bare(method, path).header("content-type", kind)
    }

    /// A request without additional headers.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).timeout(Duration::from_secs(60))
    }

    /// The status and the JSON of a response.
    pub async fn ask(&self, request: RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.expect("the server answers");
        let status = response.status();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: impl ToString) -> (StatusCode, Value) {
        self.ask(self.request(Method::POST, path).body(body.to_string())).await
    }

    /// Submits a message and waits for its outcome.
    pub async fn send(&self, message: &Value) -> Value {
        let (status, taken) = self.post("/v1/messages?wait=60", message).await;
        assert_eq!(status, StatusCode::OK, "{taken}");
        taken
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child process of this test.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// Stops it in an orderly way. Returns its exit code and its log.
    pub fn stop(mut self) -> (Option<i32>, String) {
        self.signal(libc::SIGTERM);
        let status = wait_for("the server's end", || self.child.try_wait().expect("asked"));
        (status.code(), self.log())
    }

    /// Its log, once it has ended.
    fn log(&mut self) -> String {
        self.log.take().expect("asked once").join().expect("read")
    }

    /// Kills it, like a power failure. Returns its log.
    pub fn kill(mut self) -> String {
        self.signal(libc::SIGKILL);
        self.child.wait().expect("it ends");
        self.log()
    }
}

/// Ends the server with the test.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message `note` with this number as its uuid.
pub fn note(number: u128, fields: Value) -> Value {
    let mut message = crate::support::message("note", fields);
    message["uuid"] = json!(uuid::Uuid::from_u128(number));
    message
}

/// Waits until a message has this state. Returns the message.
pub async fn settled(server: &Server, uuid: &Value, state: &str) -> Value {
    let path = format!("/v1/messages/{}", uuid.as_str().expect("a uuid"));
    for _ in 0..600 {
        let (_, message) = server.get(&path).await;
        if message["state"] == state {
            return message;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{uuid} never was {state}: {}", server.get(&path).await.1);
}
