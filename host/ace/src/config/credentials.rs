//! `[credentials.NAME]`: what the host adds to the requests of plugins, so that no plugin sees it.

mod decode;
pub(crate) mod keys;

use std::path::PathBuf;

use http::HeaderName;
use url::Url;

use super::SecretSource;
pub(super) use decode::{credentials, ties};

/// Headers that only the host sets: they control the connection or its target. Neither a plugin nor a credential may.
const HOST_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// One of `[credentials]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// URL prefixes, host patterns included, that it may be sent to. Empty: nowhere. Those of `all` are its members' own.
    pub urls: Vec<Url>,
    /// What it makes of its secrets.
    pub kind: CredentialKind,
}

/// What a credential makes of its secrets. Lists of sources have one or two: the first is sent, both verify.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CredentialKind {
    /// `Authorization: Bearer TOKEN`.
    Bearer {
        /// The token.
        token: Vec<SecretSource>,
    },
    /// `Authorization: Basic`.
    Basic {
        /// The user's name, without a colon.
        username: String,
        /// The password.
        password: Vec<SecretSource>,
    },
    /// A header.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the secret, as in `Bot `.
        prefix: String,
        /// The secret.
        value: Vec<SecretSource>,
    },
    /// A parameter of the URL's query.
    Query {
        /// Its name.
        name: String,
        /// The secret.
        value: Vec<SecretSource>,
    },
    /// A part of the URL itself, for which the plugin writes `$(name)`.
    Url {
        /// The part, as it stands in the URL.
        value: Vec<SecretSource>,
    },
    /// An access token of OAuth 2.0.
    Oauth2(Oauth2),
    /// An access token of a Google service account.
    GoogleServiceAccount {
        /// The key file of the account, which is JSON.
        key: SecretSource,
        /// What the token is for.
        scopes: Vec<String>,
        /// The user that the account acts for, if any.
        subject: Option<String>,
    },
    /// A provider token of Apple's push service.
    Apns(Apns),
    /// Voluntary application server identification for Web Push (RFC 8292).
    Vapid {
        /// The private key: PKCS #8 in PEM, or 32 bytes in base64url.
        key: SecretSource,
        /// The public key in base64url, required if the private key is not in PEM.
        public_key: Option<String>,
        /// Whom a push service can contact: a `mailto:` or `https:` URL.
        subject: String,
    },
    /// A signature of AWS, version 4.
    AwsSigv4(AwsSigv4),
    /// A keyed hash of the request.
    Hmac(Hmac),
    /// A client certificate, which the connection shows.
    ClientCertificate {
        /// The certificate and its chain, PEM.
        certificate: PathBuf,
        /// The private key, PEM.
        key: SecretSource,
    },
    /// Several credentials, applied in this order.
    All(Vec<String>),
}

/// A client of an OAuth 2.0 server.
#[derive(Debug, Clone, PartialEq)]
pub struct Oauth2 {
    /// The server's endpoint for tokens.
    pub token_url: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret; public clients have none.
    pub client_secret: Option<SecretSource>,
    /// How the client authenticates.
    pub client_authentication: ClientAuthentication,
    /// The refresh token; `None` for the grant `client_credentials`.
    pub refresh_token: Option<SecretSource>,
    /// What the token is for; empty if the server decides.
    pub scopes: Vec<String>,
    /// The API that the token is for, if the server wants it.
    pub audience: Option<String>,
}

/// How a client authenticates to the endpoint for tokens (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// In the Authorization header.
    #[default]
    Header,
    /// In the body.
    Body,
}

/// A key for Apple's push service.
#[derive(Debug, Clone, PartialEq)]
pub struct Apns {
    /// The private key: the `.p8` file.
    pub key: SecretSource,
    /// Its id.
    pub key_id: String,
    /// The id of the team.
    pub team_id: String,
}

/// An access key of AWS.
#[derive(Debug, Clone, PartialEq)]
pub struct AwsSigv4 {
    /// The id of the access key.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: SecretSource,
    /// The token of a temporary key.
    pub session_token: Option<SecretSource>,
    /// The region, as in `eu-central-1`.
    pub region: String,
    /// The service, as in `ses`.
    pub service: String,
}

/// A keyed hash of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Hmac {
    /// The key.
    pub key: Vec<SecretSource>,
    /// How the key is written.
    pub key_encoding: KeyEncoding,
    /// The hash.
    pub algorithm: HmacAlgorithm,
    /// The header of the signature. `None`: the key only verifies.
    pub header: Option<HeaderName>,
    /// What stands before the signature in the header, as in `sha256=`.
    pub prefix: String,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// What is signed.
    pub content: Vec<SignedPart>,
    /// Whether each destination has a key of its own, derived from this one.
    pub derive: Option<KeyDerivation>,
    /// Whether requests are signed with all keys, not with the first one only.
    pub signs_with_all: bool,
}

/// What the key of a destination is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyDerivation {
    /// Scheme, host and port: one key for a server.
    Origin,
    /// The URL with its query, without a fragment.
    Url,
}

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyEncoding {
    /// The key is the text itself.
    #[default]
    Text,
    /// Base64, with or without `whsec_` before it.
    Base64,
    /// Hexadecimal digits.
    Hex,
}

/// The hash of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names say it")]
pub enum HmacAlgorithm {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names say it")]
pub enum SignatureEncoding {
    #[default]
    Hex,
    Base64,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignedPart {
    /// This text.
    Text(String),
    /// `{method}`
    Method,
    /// `{url}`: the whole URL.
    Url,
    /// `{path}`: the URL's path and query.
    Path,
    /// `{header:NAME}`: the value of a header, which the request must have.
    Header(HeaderName),
    /// `{body}`
    Body,
}

impl CredentialKind {
    /// The word for it in ace.toml.
    pub fn name(&self) -> &'static str {
        match self {
            CredentialKind::Bearer { .. } => "bearer",
            CredentialKind::Basic { .. } => "basic",
            CredentialKind::Header { .. } => "header",
            CredentialKind::Query { .. } => "query",
            CredentialKind::Url { .. } => "url",
            CredentialKind::Oauth2(Oauth2 { refresh_token: None, .. }) => "oauth2-client-credentials",
            CredentialKind::Oauth2(_) => "oauth2-refresh-token",
            CredentialKind::GoogleServiceAccount { .. } => "google-service-account",
            CredentialKind::Apns(_) => "apns",
            CredentialKind::Vapid { .. } => "vapid",
            CredentialKind::AwsSigv4(_) => "aws-sigv4",
            CredentialKind::Hmac(_) => "hmac",
            CredentialKind::ClientCertificate { .. } => "client-certificate",
            CredentialKind::All(_) => "all",
        }
    }

    /// Whether a relay can log in to its mail server with it.
    pub(crate) fn can_log_in(&self) -> bool {
        matches!(
            self,
            CredentialKind::Basic { .. }
                | CredentialKind::Bearer { .. }
                | CredentialKind::Oauth2(_)
                | CredentialKind::GoogleServiceAccount { .. }
        )
    }

    /// The header that it sets, which a request must not have already.
    pub(crate) fn header(&self) -> Option<HeaderName> {
        match self {
            CredentialKind::Header { name, .. } => Some(name.clone()),
            CredentialKind::Hmac(hmac) => hmac.header.clone(),
            CredentialKind::Query { .. }
            | CredentialKind::Url { .. }
            | CredentialKind::ClientCertificate { .. }
            | CredentialKind::All(_) => None,
            _ => Some(http::header::AUTHORIZATION),
        }
    }
}

/// Whether a plugin can have this name of its own for a credential. It stands in URLs, as `$(name)`.
pub fn is_own_name(name: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=64).contains(&name.len()) && name.chars().all(is_valid)
}

/// Whether only the host sets a header of a request.
pub(crate) fn is_host_header(header: &HeaderName) -> bool {
    HOST_HEADERS.contains(&header.as_str())
}
