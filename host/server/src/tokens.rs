//! Bearer tokens of the HTTP API: 256 random bits each. Only their hashes are stored, in a file that `ace token` writes and the
//! server reloads when it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use ace_store::files::{self, Access, FileStamp, Readers};

/// What the bearer of a token may do. Scopes are independent: `admin` does not include the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// Submit messages and batches, and query their outcome by uuid.
    Send,
    /// Read everything.
    Read,
    /// Change everything else: key-value entries, retries, batches, plugins, personal data.
    Admin,
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "send" => Ok(Scope::Send),
            "read" => Ok(Scope::Read),
            "admin" => Ok(Scope::Admin),
            other => Err(format!("unknown scope {other:?}; the scopes are send, read and admin")),
        }
    }
}

/// One token, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The bearer's name; unique in the file.
    pub name: String,
    /// What its bearer may do.
    pub scopes: Vec<Scope>,
    /// When it was created.
    pub created: Timestamp,
    /// SHA-256 of the token, in hexadecimal. With 256 random bits there is nothing to guess, so no slow hash is needed.
    pub sha256: String,
    /// When it stops being valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The secret before the last rotation, while it is still valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// The secret that a rotation replaced. Each token has at most one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Previous {
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// When it stops being valid.
    pub expires: Timestamp,
}

/// Why a secret is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenFault {
    /// The request has no token.
    Missing,
    /// No token has this secret.
    Unknown,
    /// It was valid once.
    Expired,
}

/// Random bytes of a token: 256 bits cannot be guessed.
const TOKEN_BYTES: usize = 32;

/// Why the tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum TokenError {
    #[error("{}: {reason}", file.display())]
    File { file: PathBuf, reason: String },
    #[error("the token {0:?} already exists; revoke it first, or choose another name")]
    Exists(String),
    #[error("the operating system returned no random bytes: {0}")]
    NoRandomness(getrandom::Error),
    #[error("there is no token {name:?}{}", nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    Unknown { name: String, nearest: Option<String> },
    #[error("invalid token name {0:?}; use 1 to 100 letters, digits, \"-\", \"_\" and \".\"")]
    Name(String),
}

/// The content of the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    tokens: Vec<Token>,
}

/// A file of tokens.
pub struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// The file at a path, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        TokenFile { path: path.into() }
    }

    /// Every token of the file; none if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is invalid.
    pub fn list(&self) -> Result<Vec<Token>, TokenError> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => {
                serde_json::from_str::<Content>(&text).map(|content| content.tokens).map_err(|e| self.file_error(e))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(self.file_error(e)),
        }
    }

    /// Creates a token and returns it. It cannot be read again later, because the file contains only its hash.
    ///
    /// # Errors
    /// The name is invalid or exists, the file cannot be read or written, or there are no random bytes.
    pub fn create(
        &self,
        name: &str,
        scopes: Vec<Scope>,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<String, TokenError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=100).contains(&name.len()) || !name.chars().all(is_allowed) {
            return Err(TokenError::Name(name.to_owned()));
        }
        let mut tokens = self.list()?;
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        let (secret, sha256) = secret()?;
        tokens.push(Token { name: name.to_owned(), scopes, created: now, sha256, expires, previous: None });
        self.write(tokens)?;
        Ok(secret)
    }

    /// Replaces the secret of a token and returns the new one. The one before stays valid until a time, or until the next rotation.
    /// Without `expires`, the token stays valid as long as before.
    ///
    /// # Errors
    /// There is no such token, the file cannot be read or written, or there are no random bytes.
    pub fn rotate(
        &self,
        name: &str,
        previous_until: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<String, TokenError> {
        let mut tokens = self.list()?;
        let Some(token) = tokens.iter_mut().find(|token| token.name == name) else {
            return Err(unknown(name, &tokens));
        };
        let (secret, sha256) = secret()?;
        let previous = Previous { sha256: std::mem::replace(&mut token.sha256, sha256), expires: previous_until };
        token.previous = Some(previous);
        token.expires = expires.or(token.expires);
        self.write(tokens)?;
        Ok(secret)
    }

    /// When each token was used last, as the server wrote it: about a minute late. Tokens that were never used are missing.
    pub fn last_uses(&self) -> BTreeMap<String, Timestamp> {
        let text = std::fs::read_to_string(self.uses_path()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The file of last uses, beside the tokens, so that the server never writes what `ace token` writes.
    fn uses_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".uses");
        name.into()
    }

    fn write_uses(&self, uses: &BTreeMap<String, Timestamp>) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(uses)? + "\n";
        files::replace_linked(&self.uses_path(), text.as_bytes(), Readers::Only(Access::default()))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// There is no such token, or the file cannot be read or written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let mut tokens = self.list()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(unknown(name, &tokens));
        }
        self.write(tokens)
    }

    /// Replaces the file atomically. Only this user can read it.
    fn write(&self, tokens: Vec<Token>) -> Result<(), TokenError> {
        let text = serde_json::to_string_pretty(&Content { tokens }).expect("only strings") + "\n";
        let readers = Readers::Only(Access::default());
        files::replace_linked(&self.path, text.as_bytes(), readers).map_err(|e| self.file_error(e))
    }

    fn file_error(&self, reason: impl std::fmt::Display) -> TokenError {
        TokenError::File { file: self.path.clone(), reason: reason.to_string() }
    }
}

fn digest(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

/// A new secret, and its hash.
fn secret() -> Result<(String, String), TokenError> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(TokenError::NoRandomness)?;
    let secret = format!("ace_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = digest(&secret);
    Ok((secret, hash))
}

fn unknown(name: &str, tokens: &[Token]) -> TokenError {
    let nearest = ace::message::nearest(name, tokens.iter().map(|t| t.name.as_str())).map(str::to_owned);
    TokenError::Unknown { name: name.to_owned(), nearest }
}

/// The tokens that a running server accepts.
pub(crate) struct Tokens {
    file: TokenFile,
    current: ArcSwap<(Option<FileStamp>, Vec<Accepted>)>,
    /// What was written of their uses, and when.
    written: Mutex<(BTreeMap<String, Timestamp>, Timestamp)>,
}

/// A token, and when it was used last, in seconds; 0 if it was not. A request stores it in memory only.
struct Accepted {
    token: Token,
    used: Arc<AtomicI64>,
}

/// How often the last uses are written.
const USE_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

impl Tokens {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self, TokenError> {
        let file = TokenFile::new(path);
        let uses = file.last_uses();
        let used = |name: &str| Arc::new(AtomicI64::new(uses.get(name).map_or(0, |at| at.as_second())));
        let accepted = file.list()?.into_iter().map(|token| Accepted { used: used(&token.name), token }).collect();
        let current = ArcSwap::from_pointee((FileStamp::of(path), accepted));
        Ok(Tokens { file, current, written: Mutex::new((uses, Timestamp::UNIX_EPOCH)) })
    }

    /// Reloads the file if it has changed, and writes the last uses if they have changed and it is time. If the file cannot be read,
    /// the previous tokens stay valid and the error is logged.
    pub(crate) fn refresh(&self, now: Timestamp) {
        self.write_uses(now);
        let stamp = FileStamp::of(&self.file.path);
        let before = self.current.load();
        if before.0 == stamp {
            return;
        }
        match self.file.list() {
            Ok(tokens) => {
                tracing::info!(tokens = tokens.len(), "The tokens were reloaded.");
                let used = |token: &Token| {
                    let same =
                        before.1.iter().find(|one| one.token.name == token.name && one.token.created == token.created);
                    same.map_or_else(|| Arc::new(AtomicI64::new(0)), |one| one.used.clone())
                };
                let accepted = tokens.into_iter().map(|token| Accepted { used: used(&token), token }).collect();
                self.current.store(Arc::new((stamp, accepted)));
            }
            Err(error) => tracing::error!("The tokens could not be reloaded; the previous ones stay valid: {error}"),
        }
    }

    fn write_uses(&self, now: Timestamp) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = &*written;
        // A clock that was set back must not stop this.
        if now.duration_since(*at).abs() < USE_INTERVAL {
            return;
        }
        let used = |one: &Accepted| match one.used.load(Ordering::Relaxed) {
            0 => None,
            second => Some((one.token.name.clone(), Timestamp::from_second(second).ok()?)),
        };
        let uses: BTreeMap<String, Timestamp> = self.current.load().1.iter().filter_map(used).collect();
        if uses == *before {
            return;
        }
        match self.file.write_uses(&uses) {
            Ok(()) => *written = (uses, now),
            Err(error) => {
                let file = self.file.uses_path();
                tracing::warn!("The last uses of tokens could not be written to {}: {error}", file.display());
                written.1 = now;
            }
        }
    }

    /// Whether the file contains no token.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.load().1.is_empty()
    }

    /// The name and scopes of a token. Compares it with every stored hash, in constant time.
    pub(crate) fn bearer(&self, secret: &str, now: Timestamp) -> Result<(String, Vec<Scope>), TokenFault> {
        self.find(secret, now, |one| (one.token.name.clone(), one.token.scopes.clone()))
    }

    /// As [`Tokens::bearer`], and notes that the token was used.
    pub(crate) fn used(&self, secret: &str, now: Timestamp) -> Result<(String, Vec<Scope>), TokenFault> {
        self.find(secret, now, |one| {
            one.used.store(now.as_second(), Ordering::Relaxed);
            (one.token.name.clone(), one.token.scopes.clone())
        })
    }

    fn find<T>(&self, secret: &str, now: Timestamp, take: impl Fn(&Accepted) -> T) -> Result<T, TokenFault> {
        let hash = digest(secret);
        let is_same = |sha256: &str| bool::from(sha256.as_bytes().ct_eq(hash.as_bytes()));
        let is_over = |expires: Option<Timestamp>| expires.is_some_and(|expires| expires <= now);
        let mut found = Err(TokenFault::Unknown);
        for one in &self.current.load().1 {
            let token = &one.token;
            let previous = token.previous.as_ref();
            let is_current = is_same(&token.sha256);
            let was_current = previous.is_some_and(|previous| is_same(&previous.sha256));
            if is_current || was_current {
                let is_expired = is_over(token.expires) || (was_current && is_over(previous.map(|one| one.expires)));
                found = if is_expired { Err(TokenFault::Expired) } else { Ok(take(one)) };
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
