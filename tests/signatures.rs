//! Tokens and signatures of credentials, checked by independent implementations (tests/signatures/check.py).

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use ace::Config;
use ace::internals::credentials::{Credentials, Request, Surroundings};
use ace_store::keyvalue::{Keyvalue, Settings};
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Value, json};

const EC_KEY: &str = include_str!("../host/ace/src/credentials/tests/ec.pem");
const ACCOUNT: &str = include_str!("../host/ace/src/credentials/tests/service_account.json");
const HMAC_KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_HMAC_KEY: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const AWS_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const AWS_TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGd";

/// 2026-11-30T12:00:00Z
const FIXED: Timestamp = Timestamp::constant(1_796_040_000, 0);

/// Credentials of a text, in which `ACCOUNT` is a service account with this endpoint for tokens.
fn credentials(text: &str, token_url: &str, now: fn() -> Timestamp) -> Credentials {
    let account = ACCOUNT.replace("https://oauth2.example/token", token_url);
    let hmac = [("HMAC", HMAC_KEY), ("OLD_HMAC", OLD_HMAC_KEY)];
    let env = [("EC", EC_KEY), ("ACCOUNT", &account), hmac[0], hmac[1], ("AWS", AWS_KEY), ("AWS_TOKEN", AWS_TOKEN)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::read(text, None, env).unwrap_or_else(|problems| panic!("{problems}"));
    let store = Arc::new(Keyvalue::load(&Settings::default(), now()).expect("a store in memory"));
    Credentials::new(&config.credentials, &config.fixed.http, Surroundings { now, store })
}

/// The headers of a request after the credential `c` was added.
async fn signed(
    credentials: &Credentials,
    (method, url): (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> HeaderMap {
    let mut url: Url = url.parse().expect("a URL");
    let header = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_str(value).expect("a value"))
    };
    let mut headers: HeaderMap = headers.iter().map(header).collect();
    let method: Method = method.parse().expect("a method");
    let request =
        Request { own_name: "c", method: &method, url: &mut url, headers: &mut headers, body: body.as_bytes() };
    credentials.authorize("c", request).await.unwrap_or_else(|refusal| panic!("{refusal}"));
    headers
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned()
}

/// An endpoint that gives one token, and the form that it was sent.
fn token_endpoint() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/token", listener.local_addr().expect("an address"));
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut request, mut buffer) = (String::new(), [0; 4096]);
        let is_complete = |request: &str| {
            let lower = request.to_lowercase();
            let (head, body) = lower.split_once("\r\n\r\n").unwrap_or_default();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_some_and(|length| body.len() >= length.parse().expect("a number"))
        };
        while !is_complete(&request) {
            let n = stream.read(&mut buffer).expect("a request");
            request.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        let body = r#"{"access_token":"t","expires_in":3599}"#;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("written");
        sender.send(request.split_once("\r\n\r\n").expect("a body").1.to_owned()).expect("read");
    });
    (url, receiver)
}

async fn google_case() -> Value {
    let (url, form) = token_endpoint();
    let text = "[credentials.c]\nkind = 'google-service-account'\nkey = { env = 'ACCOUNT' }";
    let send = ("POST", "https://fcm.googleapis.com/v1/projects/tests/messages:send");
    signed(&credentials(text, &url, Timestamp::now), send, &[], "{}").await;
    let form = form.recv().expect("a form");
    let assertion = Url::parse(&format!("http://x/?{form}")).expect("a form");
    let token = assertion.query_pairs().find(|(name, _)| name == "assertion").expect("an assertion").1.into_owned();
    let account: Value = serde_json::from_str(ACCOUNT).expect("JSON");
    let scope = "https://www.googleapis.com/auth/firebase.messaging";
    json!({"check": "google", "token": token, "key": account["private_key"], "audience": url, "scope": scope})
}

async fn apns_case() -> Value {
    let text = "[credentials.c]\nkind = 'apns'\nkey = { env = 'EC' }\nkey-id = 'ABC123DEFG'\nteam-id = 'DEF123GHIJ'";
    let send = ("POST", "https://api.push.apple.com/3/device/00");
    let headers = signed(&credentials(text, "https://x.example/", Timestamp::now), send, &[], "{}").await;
    let authorization = self::text(&headers, "authorization");
    let token = authorization.strip_prefix("bearer ").expect("a token");
    json!({"check": "apns", "token": token, "key": EC_KEY, "team": "DEF123GHIJ", "key_id": "ABC123DEFG"})
}

async fn vapid_case(endpoint: &str, audience: &str) -> Value {
    let text = "[credentials.c]\nkind = 'vapid'\nurls = ['https://*/', 'https://push.example:8443/']\nkey = { env = 'EC' }\nsubject = 'mailto:push@example.com'";
    let headers = signed(&credentials(text, "https://x.example/", Timestamp::now), ("POST", endpoint), &[], "").await;
    json!({"check": "vapid", "authorization": self::text(&headers, "authorization"), "key": EC_KEY, "audience": audience})
}

async fn hmac_case() -> Value {
    let text = "[credentials.c]\nkind = 'hmac'\nurls = ['https://*/']\nkey = { env = 'HMAC' }\nkey-encoding = 'base64'
        header = 'webhook-signature'\nprefix = 'v1,'\nencoding = 'base64'
        content = '{header:webhook-id}.{header:webhook-timestamp}.{body}'";
    let headers = [("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"), ("webhook-timestamp", "1614265330")];
    let body = r#"{"test": 2432232314}"#;
    let credentials = credentials(text, "https://x.example/", || FIXED);
    let headers = signed(&credentials, ("POST", "https://hooks.example/in"), &headers, body).await;
    let content = format!("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{body}");
    let signature = self::text(&headers, "webhook-signature");
    // The example of the specification of Standard Webhooks.
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    json!({"check": "hmac", "key": HMAC_KEY, "content": content, "signature": signature})
}

/// Keys of two destinations, derived from one.
async fn derived_key_case(derive: &str, url: &str, destination: &str) -> Value {
    let text = format!(
        "[credentials.c]\nkind = 'hmac'\nurls = ['https://*/', 'https://shop.example:8443/']\nkey = {{ env = 'HMAC' }}\nkey-encoding = 'base64'
        header = 'webhook-signature'\nprefix = 'v1,'\nencoding = 'base64'\nderive = '{derive}'"
    );
    let headers = signed(&credentials(&text, "https://x.example/", || FIXED), ("POST", url), &[], "{}").await;
    let signature = self::text(&headers, "webhook-signature");
    json!({"check": "hmac", "key": HMAC_KEY, "destination": destination, "content": "{}", "signature": signature})
}

/// The signatures of two keys, one of which replaces the other.
async fn two_key_cases() -> [Value; 2] {
    let text = "[credentials.c]\nkind = 'hmac'\nurls = ['https://*/']\nkey = [{ env = 'HMAC' }, { env = 'OLD_HMAC' }]\nkey-encoding = 'base64'
        header = 'webhook-signature'\nprefix = 'v1,'\nencoding = 'base64'\nderive = 'url'\n";
    let url = "https://shop.example/hooks";
    let made = async |text: &str| {
        let headers = signed(&credentials(text, "https://x.example/", || FIXED), ("POST", url), &[], "{}").await;
        self::text(&headers, "webhook-signature")
    };
    let both = made(&format!("{text}sign-with = 'all'")).await;
    let (new, old) = both.split_once(' ').expect("two signatures");
    assert_eq!(made(text).await, new, "without it, the first key signs");
    [(HMAC_KEY, new), (OLD_HMAC_KEY, old)].map(|(key, signature)| {
        json!({"check": "hmac", "key": key, "destination": url, "content": "{}", "signature": signature})
    })
}

async fn aws_case(has_token: bool, (method, url): (&str, &str), headers: &[(&str, &str)], body: &str) -> Value {
    let session = if has_token { "session-token = { env = 'AWS_TOKEN' }" } else { "" };
    let definition = format!(
        "[credentials.c]\nkind = 'aws-sigv4'\nurls = ['https://email.eu-central-1.amazonaws.com/', 'http://127.0.0.1:8080/']
        access-key-id = 'AKIAIOSFODNN7EXAMPLE'\nsecret-access-key = {{ env = 'AWS' }}\nregion = 'eu-central-1'\nservice = 'ses'\n{session}"
    );
    let made = signed(&credentials(&definition, "https://x.example/", || FIXED), (method, url), headers, body).await;
    let made: serde_json::Map<String, Value> =
        made.keys().map(|name| (name.to_string(), text(&made, name.as_str()).into())).collect();
    let token = has_token.then_some(AWS_TOKEN);
    json!({
        "check": "aws", "method": method, "url": url, "headers": headers, "body": body, "signed": made,
        "time": FIXED.as_second(), "service": "ses", "region": "eu-central-1",
        "credentials": ["AKIAIOSFODNN7EXAMPLE", AWS_KEY, token],
    })
}

#[tokio::test]
async fn others_accept_what_is_signed_here() {
    const SES: &str = "https://email.eu-central-1.amazonaws.com";
    let json_body = r#"{"FromEmailAddress":"a@example.com","Content":{"Simple":{"Subject":{"Data":"Grüße"}}}}"#;
    let json_type = [("content-type", "application/json")];
    let [new_key, old_key] = two_key_cases().await;
    let cases = [
        new_key,
        old_key,
        google_case().await,
        apns_case().await,
        vapid_case(
            "https://updates.push.services.mozilla.com/wpush/v2/gAAA",
            "https://updates.push.services.mozilla.com",
        )
        .await,
        vapid_case("https://push.example:8443/x?y=1", "https://push.example:8443").await,
        hmac_case().await,
        derived_key_case("url", "https://Shop.example:443/hooks?a=b#c", "https://shop.example/hooks?a=b").await,
        derived_key_case("url", "https://shop.example", "https://shop.example/").await,
        derived_key_case("origin", "https://shop.example:8443/hooks?a=b", "https://shop.example:8443").await,
        aws_case(false, ("POST", &format!("{SES}/v2/email/outbound-emails")), &json_type, json_body).await,
        aws_case(true, ("POST", &format!("{SES}/v2/email/outbound-emails")), &json_type, json_body).await,
        aws_case(
            false,
            ("GET", &format!("{SES}/v2/email/suppression/addresses?Reason=BOUNCE&PageSize=10&Reason=COMPLAINT")),
            &[],
            "",
        )
        .await,
        aws_case(false, ("DELETE", &format!("{SES}/v2/email/suppression/addresses/a%2Bb%40example.com")), &[], "")
            .await,
        aws_case(false, ("PUT", &format!("{SES}/v2/email/x/a%20b/~c?empty&d=~%20e&a=1%2F2")), &[], "").await,
        aws_case(
            true,
            ("POST", &format!("{SES}/")),
            &[
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", "SimpleEmail.Send"),
                ("x-amz-meta", " a  b "),
            ],
            "{}",
        )
        .await,
        aws_case(false, ("POST", "http://127.0.0.1:8080/v2/email/outbound-emails"), &json_type, "{}").await,
    ];
    assert_eq!(check(&json!(cases)).trim(), cases.len().to_string());
}

/// What the other implementations say of these cases.
fn check(cases: &Value) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "run tests/venv.sh");
    let mut python = Command::new(python);
    let mut child = python
        .arg(root.join("tests/signatures/check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    child.stdin.take().expect("piped").write_all(cases.to_string().as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "tests/signatures/check.py says what is wrong");
    String::from_utf8(output.stdout).expect("text")
}
