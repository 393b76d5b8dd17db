//! `[relays.NAME.dkim]`: the keys that sign mail.

use mail_auth::Error;
use mail_auth::common::crypto::{CryptoError, DkimKey, Ed25519Key, RsaKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::reader::{TableDecoder, dotted};
use super::secrets::checked_source;
use super::{Config, Problem, RelayKind, SecretSource, values};

/// The most signatures of one mail. Each costs time, and verifiers look at a few only.
const SIGNATURES_MAX: usize = 4;

const HOW: &str = "create one with `openssl genrsa -out KEY 2048` or `openssl genpkey -algorithm ed25519 -out KEY`";

/// A DKIM signature (RFC 6376).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dkim {
    /// The domain that signs, in ASCII.
    pub domain: String,
    /// The name of the public key: it is published at `SELECTOR._domainkey.DOMAIN`.
    pub selector: String,
    /// The private key in PEM: RSA (PKCS#1 or PKCS#8) or Ed25519 (PKCS#8).
    pub key: SecretSource,
}

/// Decodes the signatures of a relay's mail.
pub(super) fn signatures(s: &mut TableDecoder<'_>) -> Vec<Dkim> {
    let decoded = s.field("dkim").map(|field| field.each(|field| field.section(signature))).unwrap_or_default();
    if decoded.len() > SIGNATURES_MAX {
        s.fail("dkim", format!("has {} signatures; at most {SIGNATURES_MAX} are allowed", decoded.len()));
    }
    let found: Vec<Dkim> = decoded.into_iter().flatten().collect();
    for (at, dkim) in found.iter().enumerate() {
        let is_same = |other: &Dkim| (&other.domain, &other.selector) == (&dkim.domain, &dkim.selector);
        if s.is_valid() && found[..at].iter().any(is_same) {
            let message = format!("two keys need two selectors; {} is used twice for {}", dkim.selector, dkim.domain);
            s.fail_item("dkim", at, message);
        }
    }
    found
}

/// `None` if it has problems.
fn signature(s: &mut TableDecoder<'_>) -> Option<Dkim> {
    let domain = s.required("domain", values::domain);
    let selector = s.required("selector", values::selector);
    let key = s.field("key").and_then(|field| checked_source(field, |pem| dkim_key(pem).map(drop)));
    if !s.is_written("key") {
        s.fail("key", "is required");
    }
    Some(Dkim { domain: domain?, selector: selector?, key: key? })
}

/// Reads a private key. The error says how to get one that works, and contains nothing of the key.
pub(crate) fn dkim_key(pem: &str) -> Result<DkimKey, String> {
    if pem.contains("ENCRYPTED") {
        return Err("the key has a pass phrase; remove it with `openssl pkey -in KEY -out NEW`".to_owned());
    }
    match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(der)) => match Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_pkcs8_der()) {
            Ok(key) => Ok(key.into()),
            Err(_) => rsa_key(PrivateKeyDer::Pkcs8(der)),
        },
        Ok(der) => rsa_key(der),
        Err(_) if pem.contains("PUBLIC KEY") => {
            Err("this is a public key, which belongs into DNS; mail is signed by the private key".to_owned())
        }
        Err(_) => Err(format!("this is not a private key in PEM; {HOW}")),
    }
}

fn rsa_key(der: PrivateKeyDer<'_>) -> Result<DkimKey, String> {
    if let PrivateKeyDer::Sec1(_) = der {
        return Err(wrong_kind());
    }
    RsaKey::from_key_der(der).map(DkimKey::from).map_err(|error| match error {
        // The words of `ring::error::KeyRejected`.
        Error::Crypto(CryptoError::Library(reason)) => match reason.as_str() {
            "TooSmall" => {
                "the RSA key has less than 2048 bits; create one with `openssl genrsa -out KEY 2048`".to_owned()
            }
            "TooLarge" => "the RSA key has more than 4096 bits, which verifiers do not accept; \
                           create one with `openssl genrsa -out KEY 2048`"
                .to_owned(),
            "WrongAlgorithm" => wrong_kind(),
            _ => format!("the key is damaged ({reason}); {HOW}"),
        },
        other => format!("the key cannot be used ({other}); {HOW}"),
    })
}

fn wrong_kind() -> String {
    format!("DKIM signs with RSA or Ed25519, and this is another kind of key; {HOW}")
}

impl Config {
    /// Relays that sign mail, but not with the domain of its sender, as DMARC requires (RFC 7489, section 3.1.1).
    pub fn unaligned_signatures(&self) -> Vec<Problem> {
        let mailer = &self.fixed.mailer;
        let mut found = Vec::new();
        for (name, relay) in &mailer.relays {
            let RelayKind::Smtp(smtp) = &relay.kind else { continue };
            let Some(sender) = relay.from.as_deref().or(mailer.default_from.as_deref()).and_then(domain_of) else {
                continue;
            };
            let is_aligned = |dkim: &Dkim| organization(&dkim.domain) == organization(&sender);
            if let Some(first) = smtp.dkim.first().filter(|_| !smtp.dkim.iter().any(is_aligned)) {
                let message = format!(
                    "mail from {sender} is signed by {}, which DMARC does not count; sign with a key of {}",
                    first.domain,
                    organization(&sender)
                );
                let key = ["relays", name, "dkim"].map(str::to_owned);
                found.push(self.problem(&dotted(&key), message));
            }
        }
        found
    }
}

/// The domain of a sender, in ASCII.
fn domain_of(sender: &str) -> Option<String> {
    let (_, domain) = sender.rsplit_once('@')?;
    idna::domain_to_ascii(domain.trim_end().trim_end_matches('>')).ok()
}

/// The organizational domain: one label below a public suffix.
fn organization(domain: &str) -> &str {
    psl::domain_str(domain).unwrap_or(domain)
}
