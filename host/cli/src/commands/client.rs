//! The client of a running server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ace::internals::tls;
use futures_util::stream;
use reqwest::redirect::Policy;
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::describe;
use super::tables::text;

/// How long a response may take, except for streams.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Pieces of a body that are read ahead.
const PIECES_AHEAD: usize = 4;
/// The items of a page.
const PAGE: u64 = 500;
/// The media type of a body with one JSON value per line.
pub const NDJSON: &str = "application/x-ndjson";

/// The heading of its options.
const SERVER: &str = "Server options";

/// Where the server is.
#[derive(clap::Args, Clone)]
pub struct Server {
    /// Use the running server at this address
    #[arg(long = "server", id = "server", env = "ACE_SERVER", value_name = "URL", global = true, help_heading = SERVER, value_parser = server_url)]
    url: Option<Url>,

    /// A file with a token for the server; without it, the variable ACE_SERVER_TOKEN is used
    #[arg(long, env = "ACE_SERVER_TOKEN_FILE", value_name = "FILE", global = true, help_heading = SERVER)]
    token_file: Option<PathBuf>,

    /// Trust the certificates in this PEM file in addition to the system's
    #[arg(long, env = "ACE_SERVER_CA_FILE", value_name = "FILE", global = true, help_heading = SERVER)]
    ca_file: Option<PathBuf>,
}

impl Server {
    /// A client, if a server is named.
    pub fn client(&self) -> anyhow::Result<Option<Client>> {
        if self.url.is_some() { self.with_token(self.token()?) } else { Ok(None) }
    }

    /// A client.
    ///
    /// # Errors
    /// No server is named, or the token or certificate file cannot be read.
    pub fn required(&self) -> anyhow::Result<Client> {
        self.client()?.ok_or_else(no_server)
    }

    /// A client that sends no token, for a route without one. The token is not read.
    ///
    /// # Errors
    /// No server is named, or the certificate file cannot be read.
    pub fn without_token(&self) -> anyhow::Result<Client> {
        self.with_token(None)?.ok_or_else(no_server)
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        secret("--token-file", self.token_file.as_deref(), "ACE_SERVER_TOKEN")
    }

    fn with_token(&self, token: Option<String>) -> anyhow::Result<Option<Client>> {
        let Some(url) = self.url.clone() else { return Ok(None) };
        let tls = tls::client_config(self.ca_file.as_deref())?;
        // After a redirect, a POST may become a GET, and another server gets the path, which may contain a secret.
        let http = reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().redirect(Policy::none()).build()?;
        Ok(Some(Client { url, token, http }))
    }
}

/// A secret from the file that an option names, or else from a variable.
pub fn secret(option: &str, file: Option<&Path>, variable: &str) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(std::env::var(variable).ok()) };
    let read = std::fs::read_to_string(file);
    Ok(Some(read.map_err(|e| anyhow::anyhow!("{option} {}: {e}", file.display()))?.trim().to_owned()))
}

fn no_server() -> anyhow::Error {
    anyhow::anyhow!("no server given\nhint: use --server http://127.0.0.1:8025, or set ACE_SERVER")
}

/// Reads the URL of a server; `localhost:8025` is `http://localhost:8025`.
fn server_url(text: &str) -> Result<Url, String> {
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.map_err(|error| format!("{error}; write it as in http://127.0.0.1:8025"))?;
    match url.scheme() {
        "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(url),
        "http" | "https" => Err("a server's URL must not contain a user or password; use --token-file".to_owned()),
        other => Err(format!("the server's URL must start with http:// or https://, not {other}://")),
    }
}

/// A path with these segments after `start`, encoded.
pub fn path<const N: usize>(start: &str, segments: [&str; N]) -> String {
    let mut url = Url::parse("http://h").and_then(|url| url.join(start)).expect("it is a URL");
    url.path_segments_mut().expect("it has a path").extend(segments);
    url.path().to_owned()
}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    url: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    pub fn request(&self, method: Method, path: &str) -> anyhow::Result<RequestBuilder> {
        let request = self.http.request(method, self.url.join(path)?);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.fetch(self.request(Method::GET, path)?.timeout(TIMEOUT)).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.fetch(self.request(Method::POST, path)?.timeout(TIMEOUT)).await
    }

    /// Sends a request and reads its JSON response.
    ///
    /// # Errors
    /// The server cannot be reached, or its response is a problem.
    pub async fn fetch<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = self.send(request).await?;
        Ok(response.json().await?)
    }

    /// Passes the first `limit` items of a list to `take`, page by page. `key` names them in a page.
    ///
    /// # Errors
    /// As [`Client::fetch`], and those of `take`.
    pub async fn each_page(
        &self,
        list: impl Fn() -> anyhow::Result<RequestBuilder>,
        key: &str,
        limit: u64,
        mut take: impl FnMut(&[Value]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let (mut left, mut cursor) = (limit, None);
        while left > 0 {
            let request = list()?.query(&[("limit", left.min(PAGE))]);
            let page: Value = self.fetch(request.query(&cursor.map(|cursor| [("cursor", cursor)]))).await?;
            let found = page[key].as_array().map(Vec::as_slice).unwrap_or_default();
            take(found)?;
            left = left.saturating_sub(found.len() as u64);
            match &page["next"] {
                Value::Null => break,
                next => cursor = Some(text(next)),
            }
        }
        Ok(())
    }

    /// Like [`Client::fetch`], with a body whose pieces are read on a thread of its own while the server receives those before.
    ///
    /// # Errors
    /// If a piece cannot be read, its error, which is why the request failed.
    pub async fn upload<T: DeserializeOwned, E: Into<anyhow::Error> + Send + 'static>(
        &self,
        request: RequestBuilder,
        pieces: impl Iterator<Item = Result<Vec<u8>, E>> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (sender, receiver) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            for piece in pieces {
                let (piece, error) = match piece {
                    Ok(piece) => (Ok(piece), None),
                    Err(error) => (Err(std::io::Error::other("the file cannot be read")), Some(error)),
                };
                // Fails once the server has responded.
                let is_received = sender.blocking_send(piece).is_ok();
                match error {
                    Some(error) => return Err(error.into()),
                    None if is_received => {}
                    None => break,
                }
            }
            Ok(())
        });
        let body = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let response = self.fetch(request.body(Body::wrap_stream(body))).await;
        let read: anyhow::Result<()> = reading.await?;
        read.and(response)
    }

    /// Sends a request. A response that is a problem is an error.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        self.check(self.send_unchecked(request).await?).await
    }

    /// Sends a request and returns any response.
    pub async fn send_unchecked(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|e| {
            // A path may contain a secret.
            let e = e.without_url();
            // The reason why a certificate is rejected is in the last cause.
            let why = match std::error::Error::source(&e) {
                Some(cause) => describe(cause),
                None => e.to_string(),
            };
            let hint = if e.is_connect() { "\nhint: is `ace serve` running there?" } else { "" };
            anyhow::anyhow!("cannot reach {}: {why}{hint}", self.url)
        })
    }

    /// Turns a response that is a problem into an error.
    pub async fn check(&self, response: Response) -> anyhow::Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        if status.is_redirection() {
            anyhow::bail!(
                "{status}: the server redirects, and redirects are not followed\nhint: use --server with its final address"
            )
        }
        let problem: Value = response.json().await.unwrap_or_default();
        anyhow::bail!("{status}: {}", problem["detail"].as_str().unwrap_or("the server gave no reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_server_may_omit_http() {
        let accepted = [
            ("localhost:8025", "http://localhost:8025/"),
            ("127.0.0.1:8025", "http://127.0.0.1:8025/"),
            ("[::1]:8025", "http://[::1]:8025/"),
            ("ace.example", "http://ace.example/"),
            ("ace:8025", "http://ace:8025/"),
            ("http://localhost:8025", "http://localhost:8025/"),
            ("https://ace.example/", "https://ace.example/"),
        ];
        for (text, expected) in accepted {
            assert_eq!(server_url(text).map(String::from).as_deref(), Ok(expected), "{text}");
        }
        let refused = [
            ("", "empty host; write it as in http://127.0.0.1:8025"),
            (":8025", "empty host; write it as in http://127.0.0.1:8025"),
            ("localhost:80250", "invalid port number; write it as in http://127.0.0.1:8025"),
            ("mailto:a@b.example", "a server's URL must not contain a user or password; use --token-file"),
            ("ftp://ace.example", "the server's URL must start with http:// or https://, not ftp://"),
        ];
        for (text, expected) in refused {
            assert_eq!(server_url(text).map(String::from), Err(expected.to_owned()), "{text}");
        }
    }
}
