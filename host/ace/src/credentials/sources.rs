//! Where tokens come from: a server, or a signature of ours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::endpoint::{Endpoints, Exchange, Failure, Grant};
use super::jwt::{SigningKey, signed};
use super::secrets::Secrets;
use super::store::TokenStore;
use super::{Refusal, fingerprint};
use crate::config::credentials::keys::{self, ServiceAccount};
use crate::config::{Apns, ClientAuthentication, CredentialKind, Oauth2, Secret, SecretSource};

/// How long a refresh token that replaced the configured one is kept without being used.
const REFRESH_TOKEN_TTL: Duration = Duration::from_secs(400 * 86_400);
/// How long an assertion for Google is valid: the most that it takes.
const ASSERTION_LIFETIME: SignedDuration = SignedDuration::from_secs(3600);
/// When Apple's tokens are renewed, when they end, and how often at most one is made: it refuses tokens of more than an hour, and
/// clients that make several within 20 minutes.
const APNS_RENEWAL: Duration = Duration::from_secs(45 * 60);
const APNS_LIFETIME: Duration = Duration::from_secs(59 * 60);
const APNS_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// How often at most a token is asked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// The longest time before its end that a token is renewed at, and the shortest that it is sent at.
const RENEWAL_MARGIN: Duration = Duration::from_secs(300);
const END_MARGIN: Duration = Duration::from_secs(10);

/// What a process needs to have tokens.
pub(super) struct Context {
    pub(super) now: fn() -> Timestamp,
    pub(super) secrets: Secrets,
    pub(super) store: Arc<dyn TokenStore>,
    pub(super) endpoints: Endpoints,
}

/// A source of tokens. Equal sources are one source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Oauth2(Oauth2),
    Google { key: SecretSource, scopes: Vec<String>, subject: Option<String> },
    Apns(Apns),
}

/// The current secrets of a source.
pub(super) struct Material {
    key: Option<Secret>,
    refresh_token: Option<Secret>,
}

/// A token that was just made.
pub(super) struct Made {
    pub(super) token: Secret,
    pub(super) lifetime: Lifetime,
}

/// The times of a token, from when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Renewed when used after this.
    pub(super) renewal: Duration,
    /// Not sent after this.
    pub(super) end: Duration,
}

impl Source {
    pub(super) fn of(kind: &CredentialKind) -> Option<Self> {
        match kind {
            CredentialKind::Oauth2(client) => Some(Source::Oauth2(client.clone())),
            CredentialKind::GoogleServiceAccount { key, scopes, subject } => {
                Some(Source::Google { key: key.clone(), scopes: scopes.clone(), subject: subject.clone() })
            }
            CredentialKind::Apns(apns) => Some(Source::Apns(apns.clone())),
            _ => None,
        }
    }

    /// What stands before the token in the header. Apple writes it in lower case.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_local() { "bearer" } else { "Bearer" }
    }

    /// Whether tokens are made here, without asking anybody.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Source::Apns(_))
    }

    /// The least time from one token to the next.
    pub(super) fn interval(&self) -> Duration {
        if self.is_local() { APNS_INTERVAL } else { INTERVAL }
    }

    /// The least time from a failure to the next attempt.
    pub(super) fn retry_delay(&self) -> Duration {
        INTERVAL
    }

    /// Reads the secrets that a token is made of.
    pub(super) async fn material(&self, name: &str, secrets: &Secrets) -> Result<Material, Refusal> {
        let (key, refresh_token) = match self {
            Source::Oauth2(client) => (client.client_secret.as_ref(), client.refresh_token.as_ref()),
            Source::Google { key, .. } | Source::Apns(Apns { key, .. }) => (Some(key), None),
        };
        let mut found = Material { key: None, refresh_token: None };
        if let Some(source) = key {
            found.key = Some(secrets.read(name, source).await?);
        }
        if let Some(source) = refresh_token {
            found.refresh_token = Some(secrets.read(name, source).await?);
        }
        Ok(found)
    }

    /// A name for these tokens that other processes give the same ones. Nobody can tell the secrets from it.
    pub(super) fn fingerprint(&self, material: &Material) -> String {
        let secret = |secret: &Option<Secret>| secret.as_ref().map_or("", Secret::expose).to_owned();
        let mut parts = match self {
            Source::Oauth2(client) => vec![
                "oauth2".to_owned(),
                client.token_url.to_string(),
                client.client_id.clone(),
                client.scopes.join(" "),
                client.audience.clone().unwrap_or_default(),
            ],
            Source::Google { scopes, subject, .. } => {
                vec!["google".to_owned(), scopes.join(" "), subject.clone().unwrap_or_default()]
            }
            Source::Apns(apns) => vec!["apns".to_owned(), apns.team_id.clone(), apns.key_id.clone()],
        };
        parts.extend([secret(&material.key), secret(&material.refresh_token)]);
        fingerprint(parts.iter().map(String::as_bytes))
    }

    /// Makes a token, or asks for one.
    pub(super) async fn renew(
        &self,
        name: &str,
        material: &Material,
        unsaved: &Mutex<Option<Secret>>,
        context: &Context,
    ) -> Result<Made, Failure> {
        match self {
            Source::Oauth2(client) => match &material.refresh_token {
                Some(configured) => refreshed(name, (client, material), configured, unsaved, context).await,
                None => fetched(client, material, None, context).await.map(|grant| made(grant.token, grant.lifetime)),
            },
            Source::Google { scopes, subject, .. } => google(scopes, subject.as_deref(), material, context).await,
            Source::Apns(apns) => {
                let key = material.key.as_ref().map_or("", Secret::expose);
                apns_token(apns, key, (context.now)()).map_err(Failure::Rejected)
            }
        }
    }
}

/// The times of a token that a server gave for this long: renewed in good time, and not sent in its last moments.
fn made(token: Secret, lifetime: Duration) -> Made {
    let renewal = lifetime.saturating_sub(RENEWAL_MARGIN.min(lifetime / 4));
    let end = lifetime.saturating_sub(END_MARGIN.min(lifetime / 10));
    Made { token, lifetime: Lifetime { renewal, end } }
}

async fn fetched(
    client: &Oauth2,
    material: &Material,
    refresh_token: Option<&Secret>,
    context: &Context,
) -> Result<Grant, Failure> {
    let scopes = client.scopes.join(" ");
    let mut form = match refresh_token {
        Some(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())],
        None => vec![("grant_type", "client_credentials")],
    };
    form.extend((!scopes.is_empty()).then_some(("scope", scopes.as_str())));
    form.extend(client.audience.as_deref().map(|audience| ("audience", audience)));
    let mut login = None;
    match (material.key.as_ref().map(Secret::expose), client.client_authentication) {
        (Some(secret), ClientAuthentication::Header) => login = Some((client.client_id.as_str(), secret)),
        (Some(secret), ClientAuthentication::Body) => {
            form.extend([("client_id", client.client_id.as_str()), ("client_secret", secret)])
        }
        (None, _) => form.push(("client_id", client.client_id.as_str())),
    }
    context.endpoints.fetch(Exchange { url: &client.token_url, login, form }, context.now).await
}

/// A token for a refresh token. A server may answer with another refresh token, after which the one that was sent is void.
async fn refreshed(
    name: &str,
    (client, material): (&Oauth2, &Material),
    configured: &Secret,
    unsaved: &Mutex<Option<Secret>>,
    context: &Context,
) -> Result<Made, Failure> {
    let parts = [client.token_url.as_str(), &client.client_id, configured.expose()];
    let entry = format!("refresh-token:{}", fingerprint(parts.iter().map(|part| part.as_bytes())));
    let lock = || unsaved.lock().unwrap_or_else(PoisonError::into_inner);
    let stored = async || {
        let stored = context.store.get(&entry, (context.now)()).await;
        stored.map_err(|e| Failure::Unavailable(format!("the stored refresh token cannot be read: {e}"), None))
    };
    let in_memory = lock().clone();
    let current = match in_memory {
        Some(token) => token,
        None => stored().await?.unwrap_or_else(|| configured.clone()),
    };
    let mut sent = current;
    let mut answer = fetched(client, material, Some(&sent), context).await;
    if let Err(Failure::Rejected(_)) = answer {
        // Another process that shares the store may have used it in the meantime.
        match stored().await? {
            Some(newer) if newer != sent => {
                answer = fetched(client, material, Some(&newer), context).await;
                sent = newer;
            }
            _ => {}
        }
    }
    let grant = answer?;
    if let Some(next) = grant.refresh_token.filter(|next| *next != sent) {
        // Before the access token is used: if the process ends now, the next one has a refresh token that is good.
        let put = context.store.put(&entry, &next, Some(REFRESH_TOKEN_TTL), (context.now)()).await;
        *lock() = put.is_err().then_some(next);
        if let Err(error) = put {
            tracing::error!(
                "The refresh token of the credential {name:?} was replaced by its server, and the new one cannot be stored; it is lost when \
                 this process ends: {error}"
            );
        }
    }
    Ok(made(grant.token, grant.lifetime))
}

async fn google(
    scopes: &[String],
    subject: Option<&str>,
    material: &Material,
    context: &Context,
) -> Result<Made, Failure> {
    let json = material.key.as_ref().map_or("", Secret::expose);
    let account = ServiceAccount::parse(json).map_err(|e| Failure::Rejected(format!("its key {e}")))?;
    let now = (context.now)();
    let mut claims = json!({
        "iss": account.email,
        "scope": scopes.join(" "),
        "aud": account.token_url.as_str(),
        "iat": now.as_second(),
        "exp": now.saturating_add(ASSERTION_LIFETIME).unwrap_or(now).as_second(),
    });
    if let Some(subject) = subject {
        claims["sub"] = subject.into();
    }
    let assertion =
        signed(SigningKey::Rsa(&account.key), account.key_id.as_deref(), &claims).map_err(Failure::Rejected)?;
    let form = vec![("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())];
    let grant = context.endpoints.fetch(Exchange { url: &account.token_url, login: None, form }, context.now).await?;
    Ok(made(grant.token, grant.lifetime))
}

fn apns_token(apns: &Apns, key: &str, now: Timestamp) -> Result<Made, String> {
    let key = keys::ec_key(key).map_err(|e| format!("its key {e}"))?;
    let claims = json!({"iss": apns.team_id, "iat": now.as_second()});
    let token = Secret::new(signed(SigningKey::Ec(&key), Some(&apns.key_id), &claims)?);
    Ok(Made { token, lifetime: Lifetime { renewal: APNS_RENEWAL, end: APNS_LIFETIME } })
}
