//! Bearer tokens of the HTTP API: 256 random bits each. Only their hashes are stored, in a file that `ace token` writes and the
//! server reloads when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
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
    pub fn create(&self, name: &str, scopes: Vec<Scope>, now: Timestamp) -> Result<String, TokenError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=100).contains(&name.len()) || !name.chars().all(is_allowed) {
            return Err(TokenError::Name(name.to_owned()));
        }
        let mut tokens = self.list()?;
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(TokenError::NoRandomness)?;
        let secret = format!("ace_{}", URL_SAFE_NO_PAD.encode(random));
        tokens.push(Token { name: name.to_owned(), scopes, created: now, sha256: digest(&secret) });
        self.write(tokens)?;
        Ok(secret)
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
            let nearest = ace::message::nearest(name, tokens.iter().map(|t| t.name.as_str())).map(str::to_owned);
            return Err(TokenError::Unknown { name: name.to_owned(), nearest });
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

/// The tokens that a running server accepts.
pub(crate) struct Tokens {
    file: TokenFile,
    current: ArcSwap<(Option<FileStamp>, Vec<Token>)>,
}

impl Tokens {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self, TokenError> {
        let file = TokenFile::new(path);
        let current = (FileStamp::of(path), file.list()?);
        Ok(Tokens { file, current: ArcSwap::from_pointee(current) })
    }

    /// Reloads the file if it has changed. If it cannot be read, the previous tokens stay valid and the error is logged.
    pub(crate) fn refresh(&self) {
        let now = FileStamp::of(&self.file.path);
        if self.current.load().0 == now {
            return;
        }
        match self.file.list() {
            Ok(tokens) => {
                tracing::info!(tokens = tokens.len(), "The tokens were reloaded.");
                self.current.store(Arc::new((now, tokens)));
            }
            Err(error) => tracing::error!("The tokens could not be reloaded; the previous ones stay valid: {error}"),
        }
    }

    /// Whether the file contains no token.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.load().1.is_empty()
    }

    /// The name and scopes of a token. Compares it with every stored hash, in constant time.
    pub(crate) fn bearer(&self, secret: &str) -> Option<(String, Vec<Scope>)> {
        let hash = digest(secret);
        let mut found = None;
        for token in &self.current.load().1 {
            if bool::from(token.sha256.as_bytes().ct_eq(hash.as_bytes())) {
                found = Some((token.name.clone(), token.scopes.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).expect("in range")
    }

    #[test]
    fn a_token_is_printed_once_and_only_its_hash_is_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.json");
        let file = TokenFile::new(&path);
        let secret = file.create("lms", vec![Scope::Send, Scope::Read], now()).expect("made");
        assert!(secret.starts_with("ace_") && secret.len() == 47, "{secret}");
        assert!(!std::fs::read_to_string(&path).expect("there").contains(&secret[4..]));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

        let tokens = Tokens::load(&path).expect("a valid file");
        assert_eq!(tokens.bearer(&secret), Some(("lms".to_owned(), vec![Scope::Send, Scope::Read])));
        assert_eq!(tokens.bearer("ace_AAAA"), None);
        assert!(matches!(file.create("lms", vec![], now()), Err(TokenError::Exists(_))));
        assert!(matches!(file.create("a b", vec![], now()), Err(TokenError::Name(_))));
    }

    #[test]
    fn a_revoked_token_is_rejected() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.json");
        let file = TokenFile::new(&path);
        let secret = file.create("lms", vec![Scope::Send], now()).expect("made");
        let tokens = Tokens::load(&path).expect("a valid file");
        let unknown = file.revoke("lsm").expect_err("no such token");
        assert_eq!(unknown.to_string(), "there is no token \"lsm\"; did you mean \"lms\"?");
        file.revoke("lms").expect("revoked");
        std::fs::File::open(&path).expect("there").set_modified(SystemTime::UNIX_EPOCH).expect("changed");
        tokens.refresh();
        assert_eq!(tokens.bearer(&secret), None);

        std::fs::write(&path, "{\"tokens\": [{\"nam\": 1}]}").expect("written");
        tokens.refresh();
        let error = file.list().expect_err("damaged").to_string();
        assert!(error.contains("tokens.json: ") && error.contains("nam"), "{error}");
    }
}
