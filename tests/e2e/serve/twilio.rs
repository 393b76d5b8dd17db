//! `twilio` and `twilio_sms` together: messages to a Twilio on loopback, and its signed status callbacks.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, StatusCode};
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Server, settled};
use crate::http_channels::provider::{Answer, Provider};
use crate::http_channels::sms::{self, ACCOUNT};
use crate::support::{Home, channel};

const PUBLIC: &str = "https://ace.example";
const ROUTE: &str = "/v1/feedback/twilio";
const TOKEN: &str = "auth-token-of-the-account";
const SHARED: &str = "secret-of-the-shared-key";
const SHARED_SETTINGS: &str = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256";
const NUMBER: &str = "+4915550100";

/// A home with the channel and its feedback.
fn home(provider: &Provider, public_url: &str) -> Home {
    let toml = format!(
        "[server]\nlisten = '127.0.0.1:0'\n{public_url}\n\n\
         [credentials.twilio-signatures]\nkind = 'hmac'\nkey = {{ file = 'token' }}\n\n\
         [credentials.twilio-shared-key]\nkind = 'hmac'\nkey = {{ file = 'shared' }}\n\n\
         [plugins.twilio]\ngrants = {{ feedback = ['twilio_sms'] }}\nconfig = {{ account-sid = '{ACCOUNT}' }}\n\
         credentials = {{ auth-token = 'twilio-signatures', shared-key = 'twilio-shared-key' }}\n"
    );
    let home = sms::home(provider, &format!(", status-callback = '{PUBLIC}{ROUTE}'"), &toml);
    home.plugin("twilio");
    home.file("token", TOKEN);
    home.file("shared", SHARED);
    home
}

fn start(accepted: u128) -> (Provider, Home, Server) {
    let sent = |n| Answer::new(201, json!({"sid": sid(n), "status": "queued"}).to_string());
    let provider = Provider::start((1..=accepted).map(sent));
    let home = home(&provider, &format!("public-url = '{PUBLIC}'"));
    let server = Server::of(home.ace(&["--log", "trace", "serve"]));
    (provider, home, server)
}

fn sid(number: u128) -> String {
    format!("SM{number:032x}")
}

fn message(number: u128) -> Value {
    let mut message = sms::code();
    message["uuid"] = json!(Uuid::from_u128(number));
    message
}

/// The form of a status callback.
#[derive(Clone)]
struct Callback(BTreeMap<&'static str, String>);

impl Callback {
    fn new(number: u128, status: &str) -> Self {
        let fields = [("AccountSid", ACCOUNT), ("MessageStatus", status), ("SmsStatus", status), ("To", NUMBER)];
        let fields = fields.map(|(name, value)| (name, value.to_owned()));
        Callback(fields.into_iter().chain([("MessageSid", sid(number))]).collect())
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name, value.to_owned());
        self
    }

    /// What a signature is of.
    fn signed_text(&self, url: &str) -> String {
        self.0.iter().fold(url.to_owned(), |text, (name, value)| text + name + value)
    }

    fn signature(&self) -> String {
        signature(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TOKEN, &self.signed_text(&format!("{PUBLIC}{ROUTE}")))
    }

    async fn post_signed(&self, server: &Server) -> StatusCode {
        self.post(server, &[("x-twilio-signature", &self.signature())]).await
    }

    async fn post(&self, server: &Server, headers: &[(&str, &str)]) -> StatusCode {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish();
        let mut request = server.bare(Method::POST, ROUTE).body(form);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("answered").status()
    }
}

fn signature(algorithm: hmac::Algorithm, key: &str, text: &str) -> String {
    BASE64_STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), text.as_bytes()))
}

/// The kinds of the events in the timeline of a message.
async fn kinds(server: &Server, number: u128) -> Vec<String> {
    let (_, message) = server.get(&format!("/v1/messages/{}", Uuid::from_u128(number))).await;
    let events = message["feedback"].as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["kind"].as_str().expect("text").to_owned()).collect()
}

async fn suppressed(server: &Server) -> (StatusCode, Value) {
    server.get(&format!("/v1/keyvalue/suppressions/phone:{NUMBER}")).await
}

#[tokio::test]
async fn statuses_reach_the_timeline_and_a_dead_number_is_suppressed() {
    let (provider, _home, server) = start(2);
    for number in [1, 2] {
        assert_eq!(server.send(&message(number)).await["state"], "sent");
    }
    let callbacks = |form: Vec<(String, String)>| form.into_iter().find(|(name, _)| name == "StatusCallback");
    let callback = callbacks(provider.seen()[0].form());
    assert_eq!(callback.map(|(_, url)| url), Some(format!("{PUBLIC}{ROUTE}")));
    // Out of order, and each of them twice.
    for status in ["read", "delivered", "sent", "read", "delivered"] {
        assert_eq!(Callback::new(1, status).post_signed(&server).await, StatusCode::NO_CONTENT, "{status}");
    }
    assert_eq!(kinds(&server, 1).await, ["opened", "delivered"]);
    let soft = Callback::new(2, "undelivered").with("ErrorCode", "30003");
    assert_eq!(soft.post_signed(&server).await, StatusCode::NO_CONTENT);
    assert_eq!(suppressed(&server).await.0, StatusCode::NOT_FOUND);
    let dead = Callback::new(2, "failed").with("ErrorCode", "30005");
    assert_eq!(dead.post_signed(&server).await, StatusCode::NO_CONTENT);
    assert_eq!(kinds(&server, 2).await, ["bounced", "address-dead"]);
    let (_, entry) = suppressed(&server).await;
    let expected = (&json!("hard-bounce"), &json!("all"), &json!("twilio"));
    assert_eq!((&entry["reason"], &entry["scope"], &entry["source"]), expected, "{entry}");
    let denied = server.send(&message(3)).await;
    assert_eq!(channel(&denied, "sms")["state"], "denied", "{denied}");
    assert_eq!(provider.seen().len(), 2);
}

#[tokio::test]
async fn a_request_that_twilio_did_not_sign_has_no_effect() {
    let (_provider, _home, server) = start(1);
    server.send(&message(1)).await;
    let dead = Callback::new(1, "failed").with("ErrorCode", "30005");
    let url = format!("{PUBLIC}{ROUTE}");
    let text = dead.signed_text(&url);
    let (sha1, sha256) = (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA256);
    let settings = |algorithm| [("x-twilio-webhooks-signature-settings", algorithm)];
    let unknown = "key=webhooks_sharedkey_1,algorithm=HMAC_MD5";
    let cases = [
        ("no signature", None, None),
        ("a guess", Some(signature(sha1, "guess", &text)), None),
        ("another URL", Some(signature(sha1, TOKEN, &dead.signed_text(PUBLIC))), None),
        ("another status", Some(Callback::new(1, "delivered").signature()), None),
        ("the auth token in place of the shared key", Some(signature(sha256, TOKEN, &text)), Some(SHARED_SETTINGS)),
        ("the shared key in place of the auth token", Some(signature(sha1, SHARED, &text)), None),
        ("an unknown algorithm", Some(signature(sha256, SHARED, &text)), Some(unknown)),
    ];
    for (case, signature, named) in &cases {
        let mut headers: Vec<(&str, &str)> = named.iter().flat_map(|named| settings(*named)).collect();
        headers.extend(signature.iter().map(|signature| ("x-twilio-signature", signature.as_str())));
        assert_eq!(dead.post(&server, &headers).await, StatusCode::UNAUTHORIZED, "{case}");
    }
    let stranger = dead.clone().with("AccountSid", &ACCOUNT.replace('0', "f"));
    assert_eq!(stranger.post_signed(&server).await, StatusCode::UNAUTHORIZED, "another account");
    assert!(kinds(&server, 1).await.is_empty());
    assert_eq!(suppressed(&server).await.0, StatusCode::NOT_FOUND);
    // Both forms of a signature, and the port that is in neither URL.
    let named = settings(SHARED_SETTINGS)[0];
    let signed = signature(sha256, SHARED, &text);
    assert_eq!(dead.post(&server, &[named, ("x-twilio-signature", &signed)]).await, StatusCode::NO_CONTENT);
    let signed = signature(sha1, TOKEN, &dead.signed_text("https://ace.example:443/v1/feedback/twilio"));
    assert_eq!(dead.post(&server, &[("x-twilio-signature", &signed)]).await, StatusCode::NO_CONTENT);
    assert_eq!(kinds(&server, 1).await, ["address-dead"]);
    let (_, log) = server.stop();
    assert!(!log.contains(TOKEN) && !log.contains(SHARED), "{log}");
}

#[tokio::test]
async fn a_status_that_comes_before_its_message_is_settled_waits_for_it() {
    let (_provider, _home, server) = start(1);
    assert_eq!(Callback::new(1, "delivered").post_signed(&server).await, StatusCode::NO_CONTENT);
    server.send(&message(1)).await;
    settled(&server, &json!(Uuid::from_u128(1)), "sent").await;
    assert_eq!(kinds(&server, 1).await, ["delivered"]);
}

#[tokio::test]
async fn a_reply_with_a_keyword_unsubscribes() {
    let (_provider, _home, server) = start(0);
    let reply = |body: &str| {
        let fields = [("AccountSid", ACCOUNT), ("SmsStatus", "received"), ("From", NUMBER), ("Body", body)];
        let fields = fields.map(|(name, value)| (name, value.to_owned()));
        Callback(fields.into_iter().chain([("MessageSid", sid(9))]).collect())
    };
    assert_eq!(reply("Do not stop").post_signed(&server).await, StatusCode::OK);
    assert_eq!(suppressed(&server).await.0, StatusCode::NOT_FOUND);
    assert_eq!(reply("Stop").post_signed(&server).await, StatusCode::OK);
    let (_, entry) = suppressed(&server).await;
    assert_eq!((&entry["reason"], &entry["scope"]), (&json!("unsubscribe"), &json!("bulk")), "{entry}");
}

#[tokio::test]
async fn without_a_public_url_it_reads_nothing() {
    let provider = Provider::start([]);
    let home = home(&provider, "");
    let server = Server::start(&home);
    let (_, plugin) = server.get("/v1/plugins/twilio").await;
    assert!(plugin.to_string().contains("set server.public-url"), "{plugin}");
    assert_eq!(Callback::new(1, "delivered").post_signed(&server).await, StatusCode::SERVICE_UNAVAILABLE);
}
