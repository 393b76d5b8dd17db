//! The exchange with a server that gives access tokens (RFC 6749): bounded, without redirects, over TLS that the host trusts.

use std::error::Error;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::OnceCell;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::config::{self, Secret};
use crate::message::retry_after;
use crate::{tasks, tls};

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest exchange, if `http.timeout` is longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// How long a token lives if the server does not say.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// The longest error code that is shown.
const ERROR_CODE_BYTES_MAX: usize = 60;

/// Tokens from a server.
pub(super) struct Grant {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
    /// The refresh token that replaces the one that was sent.
    pub(super) refresh_token: Option<Secret>,
}

/// Why a server gave no token. The texts contain no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server will refuse the same again.
    Rejected(String),
    /// It may be had later, after a pause if the server asked for one.
    Unavailable(String, Option<Duration>),
}

/// How a client authenticates, and what it sends.
pub(super) struct Exchange<'a> {
    pub(super) url: &'a Url,
    /// Id and secret, for the Authorization header.
    pub(super) login: Option<(&'a str, &'a str)>,
    pub(super) form: Vec<(&'a str, &'a str)>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    refresh_token: Option<String>,
}

/// Some servers write the number as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// The client for all endpoints. It reads the trusted root certificates when the first token is needed, so that a start without tokens
/// does not.
pub(super) struct Endpoints {
    settings: config::Http,
    client: OnceCell<reqwest::Client>,
}

impl Endpoints {
    pub(super) fn new(settings: &config::Http) -> Self {
        Endpoints { settings: settings.clone(), client: OnceCell::new() }
    }

    async fn client(&self) -> Result<&reqwest::Client, Failure> {
        let opened = self.client.get_or_try_init(async || {
            let settings = self.settings.clone();
            tasks::blocking(move || open(&settings)).await.map_err(|e| e.to_string())?
        });
        let unavailable = |problem| Failure::Unavailable(format!("the HTTP client cannot be built: {problem}"), None);
        opened.await.map_err(unavailable)
    }

    pub(super) async fn fetch(&self, exchange: Exchange<'_>, now: fn() -> Timestamp) -> Result<Grant, Failure> {
        let host = exchange.url.host_str().unwrap_or_default().to_owned();
        let (status, pause, body) = send(self.client().await?, exchange, now)
            .await
            .map_err(|error| Failure::Unavailable(format!("no answer from {host}: {}", root_cause(&error)), None))?;
        let Some(body) = body else {
            return Err(Failure::Unavailable(format!("{host} answered with more than {ANSWER_BYTES_MAX} bytes"), None));
        };
        if status == StatusCode::OK {
            return grant(&body).map_err(|problem| Failure::Unavailable(format!("{host} answered {problem}"), None));
        }
        let code = serde_json::from_slice(&body).ok().map(|ErrorAnswer { error }| error).filter(|code| is_code(code));
        let what =
            format!("{host} answered {}{}", status.as_u16(), code.map(|code| format!(" {code}")).unwrap_or_default());
        let is_temporary =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(if is_temporary { Failure::Unavailable(what, pause) } else { Failure::Rejected(what) })
    }
}

/// Blocks on the disk.
fn open(settings: &config::Http) -> Result<reqwest::Client, String> {
    let tls = tls::client_config(settings.ca_file.as_deref()).map_err(|e| e.to_string())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.timeout.min(TIMEOUT_MAX))
        .pool_max_idle_per_host(0);
    client.build().map_err(|e| root_cause(&e))
}

/// The status, the pause of a Retry-After, and the body unless it is too long.
async fn send(
    client: &reqwest::Client,
    exchange: Exchange<'_>,
    now: fn() -> Timestamp,
) -> reqwest::Result<(StatusCode, Option<Duration>, Option<Vec<u8>>)> {
    let form = Serializer::new(String::new()).extend_pairs(exchange.form).finish();
    let mut request = client
        .post(exchange.url.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json")
        .body(form);
    if let Some((id, secret)) = exchange.login {
        // Both are encoded before they are joined (RFC 6749, section 2.3.1).
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
        if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {pair}")) {
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
    }
    let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
    let status = response.status();
    let pause = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok((status, pause, None));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((status, pause, Some(body)))
}

/// What is wrong with an answer never contains a part of it.
fn grant(body: &[u8]) -> Result<Grant, &'static str> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| "without a token")?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("with a token that is not of the type Bearer");
    }
    if !answer.access_token.is_ascii()
        || HeaderValue::from_str(&answer.access_token).is_err()
        || answer.access_token.is_empty()
    {
        return Err("with a token that cannot stand in a header");
    }
    let seconds = answer.expires_in.and_then(|seconds| match seconds {
        Seconds::Number(seconds) => Some(seconds),
        Seconds::Text(text) => text.trim().parse().ok(),
    });
    let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Grant {
        token: Secret::new(answer.access_token),
        lifetime: lifetime.unwrap_or(LIFETIME_DEFAULT).min(LIFETIME_MAX),
        refresh_token: answer.refresh_token.filter(|token| !token.is_empty()).map(Secret::new),
    })
}

/// An error code of RFC 6749 or alike, which cannot be a secret that the server repeats.
fn is_code(code: &str) -> bool {
    code.len() <= ERROR_CODE_BYTES_MAX && code.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
