//! Secrets in the forms that files have them. No error contains a part of a secret.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use data_encoding::HEXLOWER_PERMISSIVE;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use url::{Host, Url};

use super::KeyEncoding;

/// What Standard Webhooks writes before a key.
const WEBHOOK_KEY_PREFIX: &str = "whsec_";

/// An elliptic-curve key (P-256) in PEM.
pub(crate) fn ec_key(pem: &str) -> Result<EcdsaKeyPair, String> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8(pem)?, &SystemRandom::new())
        .map_err(|e| format!("must be a private key of the curve P-256, with its public key: {e}"))
}

/// An elliptic-curve key (P-256) whose two halves are in base64url.
pub(crate) fn ec_key_of(private: &str, public: &str) -> Result<EcdsaKeyPair, String> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let (Some(private), Some(public)) = (decode(private), decode(public)) else {
        return Err("must be PKCS #8 in PEM, or 32 bytes in base64url beside a public-key of 65 bytes".to_owned());
    };
    let rng = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &public, &rng)
        .map_err(|e| format!("must be a private key of the curve P-256 that fits public-key: {e}"))
}

/// The key of a Web Push application server, in one of the forms that its tools write.
pub(crate) fn vapid_key(private: &str, public: Option<&str>) -> Result<EcdsaKeyPair, String> {
    let Some(public) = public.filter(|_| !private.contains("-----BEGIN")) else { return ec_key(private) };
    ec_key_of(private, public)
}

/// The public half in base64url, as browsers take it.
pub(crate) fn public_half(key: &EcdsaKeyPair) -> String {
    URL_SAFE_NO_PAD.encode(key.public_key())
}

fn pkcs8(pem: &str) -> Result<Vec<u8>, String> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        "must be a private key in PEM (PKCS #8: `-----BEGIN PRIVATE KEY-----`); \
         `openssl pkcs8 -topk8 -nocrypt` converts others"
            .to_owned()
    })?;
    Ok(key.secret_pkcs8_der().to_vec())
}

/// A key of a Google service account.
pub(crate) struct ServiceAccount {
    pub(crate) email: String,
    pub(crate) key_id: Option<String>,
    pub(crate) token_url: Url,
    pub(crate) key: RsaKeyPair,
}

/// The parts of the key file that are used.
#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: String,
}

impl ServiceAccount {
    /// Reads a key file.
    pub(crate) fn parse(json: &str) -> Result<Self, String> {
        let file: AccountFile = serde_json::from_str(json).map_err(|e| {
            let at = (e.line(), e.column());
            format!("must be the JSON key file of a service account, with client_email, private_key and token_uri (line {}, column {})", at.0, at.1)
        })?;
        let token_url = Url::parse(&file.token_uri).map_err(|e| format!("token_uri: {e}"))?;
        is_private(&token_url).map_err(|message| format!("token_uri {message}"))?;
        let key = RsaKeyPair::from_pkcs8(&pkcs8(&file.private_key).map_err(|e| format!("private_key {e}"))?)
            .map_err(|e| format!("private_key must be an RSA key of at least 2048 bits: {e}"))?;
        Ok(ServiceAccount { email: file.client_email, key_id: file.private_key_id, token_url, key })
    }
}

/// A key for HMAC.
pub(crate) fn hmac_key(text: &str, encoding: KeyEncoding) -> Result<Vec<u8>, String> {
    match encoding {
        KeyEncoding::Text => Ok(text.as_bytes().to_vec()),
        KeyEncoding::Base64 => {
            let digits = text.strip_prefix(WEBHOOK_KEY_PREFIX).unwrap_or(text).trim_end_matches('=');
            STANDARD_NO_PAD.decode(digits).map_err(|_| "must be base64 (key-encoding)".to_owned())
        }
        KeyEncoding::Hex => HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| "must be hexadecimal digits (key-encoding)".to_owned()),
    }
}

/// A private key in PEM of any form that TLS uses.
pub(crate) fn tls_key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "must be a private key in PEM".to_owned())
}

/// The certificates of a PEM text, at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("must contain a certificate in PEM".to_owned()),
    }
}

/// Whether a key is that of the first certificate.
pub(super) fn check_pair(chain: &[CertificateDer<'static>], key: PrivateKeyDer<'static>) -> Result<(), String> {
    CertifiedKey::from_der(chain.to_vec(), key, &rustls::crypto::ring::default_provider())
        .map(drop)
        .map_err(|e| format!("must be the key of the certificate: {e}"))
}

/// A part of a URL's path or of its query, as it stands there. It may have several segments, none of which leads upwards.
pub(crate) fn url_part(text: &str) -> Result<(), String> {
    let leads_upwards =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "" | "." | "..");
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '#')) {
        return Err("must be a part of a URL, without `#`, backslashes and spaces".to_owned());
    }
    if text.split('/').any(leads_upwards) {
        return Err("must not have empty or dot segments: write the part without the slashes around it".to_owned());
    }
    Ok(())
}

/// Whether nobody on the way can read a request to this URL: it uses TLS, or does not leave this host.
pub(super) fn is_private(url: &Url) -> Result<(), String> {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_local => Ok(()),
        _ => {
            Err("must start with https://, since anybody on the way could read the secret (except on localhost)"
                .to_owned())
        }
    }
}
