//! Credentials that the host adds to requests, so that no plugin sees them: `[credentials.NAME]` in ace.toml.
//!
//! - [`applying`]: what a secret becomes in a request: a header, a query value, a part of the URL
//! - [`signing`]: signatures over a request; [`vapid`], [`jwt`]: tokens that are signed here
//! - [`tokens`]: tokens that end, shared by all workers; [`sources`]: where they come from; [`endpoint`]: the exchange with a server
//! - [`answers`]: what providers say of a credential
//! - [`login`]: logins to mail servers
//! - [`secrets`]: secrets in files, read again when the files change; [`store`]: what must survive the process
//!
//! A secret goes only to URLs that its credential is granted for and to mail servers of relays that name it, and is in no error, log line or
//! [`Debug`] text.

mod answers;
mod applying;
mod endpoint;
mod jwt;
mod login;
mod secrets;
mod signing;
mod sources;
mod store;
mod tokens;
mod vapid;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use url::Url;

use crate::config::credentials::keys;
use crate::config::{self, Credential, CredentialKind, Secret, SecretSource};
use crate::tls::Identity;
pub use answers::Judgement;
use answers::Refusals;
use endpoint::Endpoints;
use secrets::Secrets;
use sources::{Context, Source};
pub use store::TokenStore;
use tokens::Tokens;
use vapid::Vapid;

/// What credentials need of their process.
pub struct Surroundings {
    /// The clock.
    pub now: fn() -> Timestamp,
    /// Where tokens are stored.
    pub store: Arc<dyn TokenStore>,
}

/// A request that is about to be sent, as a credential sees it and changes it.
pub struct Request<'a> {
    /// The plugin's own name for the credential: `$(own_name)` stands for the secret in the URL.
    pub own_name: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The URL. Afterwards it may contain a secret: log it only as it was before.
    pub url: &'a mut Url,
    /// The headers.
    pub headers: &'a mut HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
}

/// Why a request cannot be sent with a credential. The texts contain no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such credential, or it is not granted for this URL.
    #[error("{0}")]
    Denied(String),
    /// The request cannot carry it.
    #[error("{0}")]
    Invalid(String),
    /// It was refused for good by its provider, or its key is unusable: the same for every request until somebody acts.
    #[error("{0}")]
    Rejected(String),
    /// It cannot be had now.
    #[error("{message}")]
    Unavailable {
        /// What is wrong.
        message: String,
        /// When it can be tried again.
        next_attempt_time: Timestamp,
    },
}

/// Why one credential cannot be added. The texts continue "the credential NAME …".
enum Problem {
    /// The request cannot carry it.
    Request(String),
    /// Its secret is unusable.
    Credential(String),
    /// Its secret or its token cannot be had.
    Refused(Refusal),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::Refused(refusal)
    }
}

/// Which credentials a request was sent with.
#[derive(Debug, Clone)]
pub struct Authorized {
    parts: Vec<Part>,
}

/// One credential of a request, and the number of its token.
#[derive(Debug, Clone)]
struct Part {
    name: String,
    token: Option<(Arc<Tokens>, u64)>,
    /// What a refusal is recognized by.
    refusals: Refusals,
}

/// A key that verifies signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// The credentials of one configuration.
pub struct Credentials {
    by_name: BTreeMap<String, Entry>,
    context: Arc<Context>,
}

/// The credentials of the current configuration, which a reload replaces.
pub(crate) type Current = Arc<ArcSwap<Credentials>>;

/// A credential, and what it made already.
struct Entry {
    credential: Credential,
    /// Of a kind that has tokens.
    tokens: Option<Arc<Tokens>>,
    /// Of the kind `vapid`.
    vapid: Vapid,
}

impl Credentials {
    /// The credentials of a configuration. `http` has the trusted certificates and the time limits of requests for tokens; nothing is
    /// read before a request needs it.
    pub fn new(
        definitions: &BTreeMap<String, Credential>,
        http: &config::Http,
        Surroundings { now, store }: Surroundings,
    ) -> Self {
        let context = Context { now, secrets: Secrets::new(now), store, endpoints: Endpoints::new(http) };
        Credentials { by_name: entries(definitions, &[]), context: Arc::new(context) }
    }

    /// Those of a configuration that replaces this one. The tokens of sources that did not change are kept.
    pub fn with(&self, definitions: &BTreeMap<String, Credential>) -> Self {
        let tokens: Vec<Arc<Tokens>> = self.by_name.values().filter_map(|entry| entry.tokens.clone()).collect();
        Credentials { by_name: entries(definitions, &tokens), context: self.context.clone() }
    }

    /// Whether a credential may be sent to a URL. Reads no secret.
    pub fn permits(&self, name: &str, url: &Url) -> bool {
        self.members(name).is_ok_and(|members| members.iter().all(|(_, member)| member.permits(url)))
    }

    /// Adds what a credential makes, if it is granted for the URL. The request is not changed if that fails.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub async fn authorize(&self, name: &str, request: Request<'_>) -> Result<Authorized, Refusal> {
        let members = self.members(name)?;
        if let Some((member, _)) = members.iter().find(|(_, entry)| !entry.permits(request.url)) {
            return Err(not_granted(member, request.url));
        }
        let (mut url, mut headers) = (request.url.clone(), request.headers.clone());
        let mut parts = Vec::with_capacity(members.len());
        for (member, entry) in members {
            let Request { own_name, method, body, .. } = request;
            let draft = Request { own_name, method, url: &mut url, headers: &mut headers, body };
            let token = self.apply(member, entry, draft).await.map_err(|problem| problem.of(member))?;
            if !entry.permits(&url) {
                let message = format!("the secret of the credential {member:?} changes where the URL leads");
                return Err(Refusal::Rejected(message));
            }
            parts.push(Part { name: member.to_owned(), token, refusals: Refusals::of(&entry.credential.kind) });
        }
        (*request.url, *request.headers) = (url, headers);
        Ok(Authorized { parts })
    }

    /// Adds what one credential makes. Returns the token that it used, if it has tokens.
    async fn apply(
        &self,
        name: &str,
        entry: &Entry,
        request: Request<'_>,
    ) -> Result<Option<(Arc<Tokens>, u64)>, Problem> {
        let kind = &entry.credential.kind;
        if let Some(header) = kind.header().filter(|header| request.headers.contains_key(header)) {
            return Err(Problem::Request(format!("sets the header {header}; do not set it too")));
        }
        if let Some(tokens) = &entry.tokens {
            let token = tokens.get(&self.context).await?;
            applying::token(request.headers, tokens.source().scheme(), &token.value)?;
            return Ok(Some((tokens.clone(), token.number)));
        }
        match kind {
            CredentialKind::Bearer { token } => {
                applying::token(request.headers, "Bearer", &self.first(name, token).await?)?
            }
            CredentialKind::Basic { username, password } => {
                applying::basic(request.headers, username, &self.first(name, password).await?)?
            }
            CredentialKind::Header { name: header, prefix, value } => {
                let secret = self.first(name, value).await?;
                applying::header(request.headers, header, &format!("{prefix}{}", secret.expose()))?
            }
            CredentialKind::Query { name: parameter, value } => {
                applying::query(request.url, parameter, &self.first(name, value).await?)?
            }
            CredentialKind::Url { value } => {
                applying::url_part(request.url, request.own_name, &self.first(name, value).await?)?
            }
            _ => self.sign(name, entry, request).await?,
        }
        Ok(None)
    }

    /// Adds what a key signs. Kinds without a key of that sort add nothing.
    async fn sign(&self, name: &str, entry: &Entry, request: Request<'_>) -> Result<(), Problem> {
        match &entry.credential.kind {
            CredentialKind::Hmac(hmac) => {
                let keys = if hmac.signs_with_all {
                    self.all(name, &hmac.key).await?
                } else {
                    vec![self.first(name, &hmac.key).await?]
                };
                signing::hmac(hmac, &keys, request)
            }
            CredentialKind::AwsSigv4(aws) => {
                let key = self.context.secrets.read(name, &aws.secret_access_key).await?;
                let session = match &aws.session_token {
                    Some(source) => Some(self.context.secrets.read(name, source).await?),
                    None => None,
                };
                signing::aws_sigv4(aws, (&key, session.as_ref()), (self.context.now)(), request)
            }
            CredentialKind::Vapid { key, public_key, subject } => {
                let key = (&self.context.secrets.read(name, key).await?, public_key.as_deref());
                let audience = request.url.origin().ascii_serialization();
                let value = entry.vapid.authorization(key, (&audience, subject), (self.context.now)())?;
                applying::header(request.headers, &http::header::AUTHORIZATION, &value)
            }
            _ => Ok(()),
        }
    }

    /// What an answer says of the credentials that the request was sent with.
    pub fn answered(&self, authorized: &Authorized, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Judgement {
        let refusals = authorized.parts.iter().filter_map(|part| {
            let reason = part.refusals.find(status, headers, body)?;
            Some(match &part.token {
                Some((tokens, number)) if reason.is_about_token => tokens.refused(*number, (self.context.now)()),
                _ => Judgement::Rejected(format!("the credential {:?} was refused: {}", part.name, reason.text)),
            })
        });
        refusals.reduce(|one, other| if one == Judgement::Stale { other } else { one }).unwrap_or(Judgement::Fine)
    }

    /// The keys that verify what a provider signed: one, or two while one replaces the other.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a kind that has no such key, or as [`Credentials::authorize`].
    pub async fn keys(&self, name: &str) -> Result<Vec<Key>, Refusal> {
        let kind = &self.find(name)?.credential.kind;
        let (sources, encoding) = match kind {
            CredentialKind::Hmac(hmac) if hmac.derive.is_none() => (&hmac.key, hmac.key_encoding),
            CredentialKind::Bearer { token: sources }
            | CredentialKind::Basic { password: sources, .. }
            | CredentialKind::Header { value: sources, .. }
            | CredentialKind::Query { value: sources, .. }
            | CredentialKind::Url { value: sources } => (sources, config::KeyEncoding::Text),
            _ => {
                let message = format!("the credential {name:?} ({}) has no key that verifies", kind.name());
                return Err(Refusal::Invalid(message));
            }
        };
        let of = |problem: Problem| problem.of(name);
        let unusable = |problem| of(Problem::Credential(format!("has a key that {problem}")));
        let secrets = self.all(name, sources).await.map_err(of)?;
        secrets.iter().map(|secret| keys::hmac_key(secret.expose(), encoding).map(Key).map_err(unusable)).collect()
    }

    /// The certificate that a connection for a credential shows, if the credential is or contains one. Connections with it are only for
    /// requests with the same one ([`Identity::fingerprint`]).
    ///
    /// # Errors
    /// As [`Credentials::authorize`].
    pub async fn identity(&self, name: &str) -> Result<Option<Arc<Identity>>, Refusal> {
        for (member, entry) in self.members(name)? {
            let CredentialKind::ClientCertificate { certificate, key } = &entry.credential.kind else { continue };
            let chain = self.context.secrets.read(member, &SecretSource::File(certificate.clone())).await?;
            let key = self.context.secrets.read(member, key).await?;
            let unusable = |problem| Problem::Credential(format!("has a file that {problem}")).of(member);
            let chain = keys::certificates(chain.expose()).map_err(unusable)?;
            let key = keys::tls_key(key.expose()).map_err(unusable)?;
            return Ok(Some(Arc::new(Identity::new(chain, key))));
        }
        Ok(None)
    }

    async fn first(&self, name: &str, sources: &[SecretSource]) -> Result<Secret, Problem> {
        let missing = || Problem::Credential("has no secret".to_owned());
        Ok(self.context.secrets.read(name, sources.first().ok_or_else(missing)?).await?)
    }

    async fn all(&self, name: &str, sources: &[SecretSource]) -> Result<Vec<Secret>, Problem> {
        let mut secrets = Vec::with_capacity(sources.len());
        for source in sources {
            secrets.push(self.context.secrets.read(name, source).await?);
        }
        Ok(secrets)
    }

    fn find(&self, name: &str) -> Result<&Entry, Refusal> {
        let missing = || Refusal::Denied(format!("there is no credential {name:?} in [credentials]"));
        self.by_name.get(name).ok_or_else(missing)
    }

    /// A credential, or those that it consists of.
    fn members<'a>(&'a self, name: &'a str) -> Result<Vec<(&'a str, &'a Entry)>, Refusal> {
        let entry = self.find(name)?;
        match &entry.credential.kind {
            CredentialKind::All(members) => {
                members.iter().map(|member| Ok((member.as_str(), self.find(member)?))).collect()
            }
            _ => Ok(vec![(name, entry)]),
        }
    }
}

impl Entry {
    fn permits(&self, url: &Url) -> bool {
        let has_user = !url.username().is_empty() || url.password().is_some();
        !has_user && self.credential.urls.iter().any(|prefix| config::covers(prefix, url))
    }
}

/// Equal sources share their tokens, also with those of an earlier configuration.
fn entries(definitions: &BTreeMap<String, Credential>, earlier: &[Arc<Tokens>]) -> BTreeMap<String, Entry> {
    let mut known = earlier.to_vec();
    let mut entry = |(name, credential): (&String, &Credential)| {
        let tokens = Source::of(&credential.kind).map(|source| {
            let found = known.iter().find(|tokens| *tokens.source() == source).cloned();
            found.unwrap_or_else(|| {
                let tokens = Arc::new(Tokens::new(name, source));
                known.push(tokens.clone());
                tokens
            })
        });
        (name.clone(), Entry { credential: credential.clone(), tokens, vapid: Vapid::default() })
    };
    definitions.iter().map(&mut entry).collect()
}

impl Problem {
    fn of(self, name: &str) -> Refusal {
        match self {
            Problem::Request(problem) => Refusal::Invalid(format!("the credential {name:?} {problem}")),
            Problem::Credential(problem) => Refusal::Rejected(format!("the credential {name:?} {problem}")),
            Problem::Refused(refusal) => refusal,
        }
    }
}

fn not_granted(name: &str, url: &Url) -> Refusal {
    let host = url.host_str().unwrap_or_default();
    Refusal::Denied(format!(
        "the credential {name:?} is not granted for this URL (host {host}); see its urls in ace.toml"
    ))
}

/// A hash of parts, from which nobody can tell them.
fn fingerprint<'a>(parts: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize())
}
