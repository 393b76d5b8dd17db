//! The command line as a client of a running server.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tls;

/// How long any answer may take, but for streams.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The type of a body that is a JSON value a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Where the server is.
#[derive(clap::Args, Clone)]
pub struct Server {
    /// Ask a running server instead
    #[arg(long = "server", id = "server", env = "ACE_SERVER", value_name = "URL", global = true)]
    url: Option<Url>,

    /// A file that holds a token of the server's; without it the variable ACE_SERVER_TOKEN is read
    #[arg(long, env = "ACE_SERVER_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<std::path::PathBuf>,

    /// Trust the certificates in this PEM file besides the system's
    #[arg(long, env = "ACE_SERVER_CA_FILE", value_name = "FILE", global = true)]
    ca_file: Option<std::path::PathBuf>,
}

impl Server {
    /// A client, where a server is named.
    pub fn client(&self) -> anyhow::Result<Option<Client>> {
        let Some(url) = self.url.clone() else { return Ok(None) };
        let token = match &self.token_file {
            Some(file) => {
                let read = std::fs::read_to_string(file);
                Some(read.map_err(|e| anyhow::anyhow!("--token-file {}: {e}", file.display()))?.trim().to_owned())
            }
            None => std::env::var("ACE_SERVER_TOKEN").ok(),
        };
        let tls = tls::client_config(self.ca_file.as_deref())?;
        let http = reqwest::Client::builder().use_preconfigured_tls(tls).no_proxy().build()?;
        Ok(Some(Client { url, token, http }))
    }

    /// A client; an error where no server is named.
    pub fn required(&self) -> anyhow::Result<Client> {
        self.client()?.ok_or_else(|| {
            anyhow::anyhow!("no server is named\nhint: --server http://127.0.0.1:8025, or the variable ACE_SERVER")
        })
    }
}

/// A way to one server.
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
        self.ask(self.request(Method::GET, path)?.timeout(TIMEOUT)).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(self.request(Method::POST, path)?.timeout(TIMEOUT)).await
    }

    /// The answer as JSON; a problem is an error in its words.
    pub async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let response = self.answered(request).await?;
        Ok(response.json().await?)
    }

    /// A success; a problem is an error in its words.
    pub async fn answered(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        self.sound(self.sent(request).await?).await
    }

    /// Whatever the server answers.
    pub async fn sent(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|e| {
            // What is wrong with a certificate is told by the last of them.
            let causes = std::iter::successors(std::error::Error::source(&e), |cause| cause.source());
            let why = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            let why = if why.is_empty() { e.to_string() } else { why };
            anyhow::anyhow!("{} cannot be asked: {why}\nhint: does `ace serve` run there?", self.url)
        })
    }

    /// An answer that is a success; a problem is an error in its words.
    pub async fn sound(&self, response: Response) -> anyhow::Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Value = response.json().await.unwrap_or_default();
        anyhow::bail!("{status}: {}", problem["detail"].as_str().unwrap_or("the server gave no reason"))
    }
}
