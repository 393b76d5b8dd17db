//! Envelope senders. A signed one names its message, so that a bounce that comes back proves which message it is about.
//!
//! The token in `bounce+{token}@bounces.example.com` is the message's uuid and a code that only the holder of the key can make
//! (HMAC-SHA256, cut to 80 bits), in base32 of lower-case letters and digits: mail servers may change the case of an address.

use std::sync::Arc;

use data_encoding::BASE32_DNSSEC;
use ring::hmac;
use uuid::Uuid;

use super::secret::FromSecret;
use crate::config::{PATH_TOKEN, SAMPLE_TOKEN, SecretSource, return_path_key};
use ace_address::mailbox::{Address, Mailbox};

/// Keeps codes apart from others that are made with the same key.
const PURPOSE: &[u8] = b"ace return path 1\0";
/// A code cannot be guessed by trying: each guess is one mail.
const CODE_BYTES: usize = 10;

/// An envelope sender.
#[derive(Clone)]
pub(super) enum ReturnPath {
    /// `<>`, to which no bounce is sent (RFC 5321, section 4.5.5).
    Null,
    Address(Address),
    Signed(Arc<SignedPath>),
}

/// The keys of signed return paths: the first signs, all of them verify.
pub(super) struct PathKeys(Vec<FromSecret<hmac::Key>>);

/// An address with a token for each message.
pub(super) struct SignedPath {
    /// What comes before and after the token.
    around: (String, String),
    keys: Arc<PathKeys>,
}

impl ReturnPath {
    pub(super) fn parse(text: &str) -> Result<ReturnPath, String> {
        match text.trim() {
            "<>" => Ok(ReturnPath::Null),
            address => Mailbox::parse(address).map(|mailbox| ReturnPath::Address(mailbox.address)),
        }
    }

    /// A relay's setting, which may have a place for a token.
    pub(super) fn configured(text: &str, keys: &Arc<PathKeys>) -> Result<ReturnPath, String> {
        if !text.contains(PATH_TOKEN) {
            return ReturnPath::parse(text);
        }
        let sample = Mailbox::parse(&text.replacen(PATH_TOKEN, SAMPLE_TOKEN, 1))?.address;
        let around = sample.as_str().split_once(SAMPLE_TOKEN).ok_or("a token must not contain quotes")?;
        let around = (around.0.to_owned(), around.1.to_owned());
        Ok(ReturnPath::Signed(Arc::new(SignedPath { around, keys: keys.clone() })))
    }

    /// The envelope sender of a message's mail; `None` is the null sender. Blocks if it is signed.
    pub(super) fn of(self, message: Option<Uuid>) -> Result<Option<Address>, String> {
        match self {
            ReturnPath::Null => Ok(None),
            ReturnPath::Address(address) => Ok(Some(address)),
            ReturnPath::Signed(path) => path.address(message).map(Some),
        }
    }

    pub(super) fn is_signed(&self) -> bool {
        matches!(self, ReturnPath::Signed(_))
    }
}

impl SignedPath {
    fn address(&self, message: Option<Uuid>) -> Result<Address, String> {
        let message = message.ok_or("the return path names the message, and this mail belongs to none")?;
        let key = self.keys.0.first().ok_or("mailer.return-path-key is not set")?.get()?;
        let mut token = message.into_bytes().to_vec();
        token.extend_from_slice(&code(&key, message)[..CODE_BYTES]);
        let (before, after) = &self.around;
        Ok(Mailbox::parse(&format!("{before}{}{after}", BASE32_DNSSEC.encode(&token)))?.address)
    }

    /// The message that an address names, if one of the keys signed it. Blocks.
    pub(super) fn message(&self, address: &str) -> Option<Uuid> {
        let (before, after) = &self.around;
        let is = |part: Option<&str>, expected: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(expected));
        let end = address.len().checked_sub(after.len())?;
        if !is(address.get(..before.len()), before) || !is(address.get(end..), after) {
            return None;
        }
        let token = BASE32_DNSSEC.decode(address.get(before.len()..end)?.as_bytes()).ok()?;
        let (uuid, given) = token.split_at_checked(size_of::<Uuid>())?;
        let message = Uuid::from_slice(uuid).ok()?;
        let keys = self.keys.0.iter().filter_map(|key| key.get().ok());
        let is_signed = |key: Arc<hmac::Key>| is_equal(&code(&key, message)[..CODE_BYTES], given);
        keys.map(is_signed).fold(false, |any, one| any | one).then_some(message)
    }
}

impl PathKeys {
    pub(super) fn new(sources: &[SecretSource]) -> PathKeys {
        let key = |secret: &str| return_path_key(secret).map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        PathKeys(sources.iter().map(|source| FromSecret::new(source, key)).collect())
    }
}

fn code(key: &hmac::Key, message: Uuid) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    context.update(PURPOSE);
    context.update(message.as_bytes());
    let mut code = [0; 32];
    code.copy_from_slice(context.sign().as_ref());
    code
}

/// Compares in a time that does not depend on the content.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
