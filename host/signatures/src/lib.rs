//! Verifies signatures, in constant time: those that providers put on their requests. Nothing here signs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};

/// The bytes of an Ed25519 public key without its wrapping.
const ED25519_KEY_BYTES: usize = 32;

/// An algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-1.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// ECDSA on P-256 with SHA-256; the signature in DER.
    EcdsaP256Sha256,
    /// RSA (PKCS #1, version 1.5) with SHA-1, with keys of at least 2,048 bits.
    RsaPkcs1Sha1,
    /// RSA (PKCS #1, version 1.5) with SHA-256, with keys of at least 2,048 bits.
    RsaPkcs1Sha256,
    /// Ed25519.
    Ed25519,
}

/// Why a key cannot be used with an algorithm. The text contains nothing of the key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(String);

impl Algorithm {
    /// The names in WIT, `openedx:ace/signatures`.
    pub const NAMES: [(&str, Algorithm); 7] = [
        ("hmac-sha1", Algorithm::HmacSha1),
        ("hmac-sha256", Algorithm::HmacSha256),
        ("hmac-sha512", Algorithm::HmacSha512),
        ("ecdsa-p256-sha256", Algorithm::EcdsaP256Sha256),
        ("rsa-pkcs1-sha1", Algorithm::RsaPkcs1Sha1),
        ("rsa-pkcs1-sha256", Algorithm::RsaPkcs1Sha256),
        ("ed25519", Algorithm::Ed25519),
    ];

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        Algorithm::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Verifies with the key of a credential: for HMAC its bytes, else a public key or a certificate in PEM, or as Base64 of what
    /// [`Algorithm::verify_with_public_key`] takes.
    ///
    /// # Errors
    /// The key is not one for this algorithm.
    pub fn verify(self, key: &[u8], data: &[u8], signature: &[u8]) -> Result<bool, InvalidKey> {
        match self.kind() {
            Kind::Hmac(algorithm) => Ok(hmac::verify(&hmac::Key::new(algorithm, key), data, signature).is_ok()),
            Kind::PublicKey(_) => self.verify_with_public_key(&der(key)?, data, signature),
        }
    }

    /// Verifies with a public key: SubjectPublicKeyInfo or an X.509 certificate in DER, or the 32 bytes of an Ed25519 key.
    ///
    /// # Errors
    /// The key is not one for this algorithm.
    pub fn verify_with_public_key(self, key: &[u8], data: &[u8], signature: &[u8]) -> Result<bool, InvalidKey> {
        match self.kind() {
            Kind::Hmac(_) => Err(InvalidKey("an HMAC has no public key; use the key of a credential".to_owned())),
            Kind::PublicKey(_) if self == Algorithm::Ed25519 && key.len() == ED25519_KEY_BYTES => {
                let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
                Ok(key.verify(data, signature).is_ok())
            }
            Kind::PublicKey(algorithm) => verify_with(algorithm, &public_key(key), data, signature),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Algorithm::HmacSha1 => Kind::Hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::HmacSha256 => Kind::Hmac(hmac::HMAC_SHA256),
            Algorithm::HmacSha512 => Kind::Hmac(hmac::HMAC_SHA512),
            Algorithm::EcdsaP256Sha256 => Kind::PublicKey(webpki::ring::ECDSA_P256_SHA256),
            Algorithm::RsaPkcs1Sha1 => Kind::PublicKey(&RsaPkcs1Sha1),
            Algorithm::RsaPkcs1Sha256 => Kind::PublicKey(webpki::ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Ed25519 => Kind::PublicKey(webpki::ring::ED25519),
        }
    }
}

enum Kind {
    Hmac(hmac::Algorithm),
    PublicKey(&'static dyn SignatureVerificationAlgorithm),
}

/// The DER of a public key or a certificate.
fn der(text: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(text) {
        return Ok(key.to_vec());
    }
    if let Ok(certificate) = CertificateDer::from_pem_slice(text) {
        return Ok(certificate.to_vec());
    }
    let decoded = BASE64_STANDARD.decode(text.trim_ascii());
    decoded.map_err(|_| InvalidKey("the key is neither PEM nor Base64".to_owned()))
}

/// The key of a certificate, or the DER itself.
fn public_key(der: &[u8]) -> SubjectPublicKeyInfoDer<'static> {
    match webpki::EndEntityCert::try_from(&CertificateDer::from(der)) {
        Ok(certificate) => certificate.subject_public_key_info(),
        Err(_) => SubjectPublicKeyInfoDer::from(der.to_vec()),
    }
}

fn verify_with(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &SubjectPublicKeyInfoDer<'_>,
    data: &[u8],
    signature: &[u8],
) -> Result<bool, InvalidKey> {
    let invalid =
        |_| InvalidKey("the key is neither a public key (SubjectPublicKeyInfo) nor an X.509 certificate".to_owned());
    let key = webpki::RawPublicKeyEntity::try_from(key).map_err(invalid)?;
    match key.verify_signature(algorithm, data, signature) {
        Ok(()) => Ok(true),
        Err(webpki::Error::InvalidSignatureForPublicKey) => Ok(false),
        Err(_) => Err(InvalidKey("the key is not one of this algorithm".to_owned())),
    }
}

/// RSA with SHA-1, which some providers still sign with (Amazon SNS, signature version 1). webpki has none.
#[derive(Debug)]
struct RsaPkcs1Sha1;

impl SignatureVerificationAlgorithm for RsaPkcs1Sha1 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let algorithm = &ring::signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY;
        let key = ring::signature::UnparsedPublicKey::new(algorithm, public_key);
        key.verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    /// Used only for the signatures of certificates, which are not verified here.
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_PKCS1_SHA256
    }
}

#[cfg(test)]
mod tests;
