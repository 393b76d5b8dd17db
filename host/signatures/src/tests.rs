use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::*;

/// Signatures made by OpenSSL.
struct Fixture(Value);

impl Fixture {
    fn read() -> Self {
        let text = include_str!("../../../tests/fixtures/signatures.json");
        Fixture(serde_json::from_str(text).expect("JSON"))
    }

    fn text(&self, path: &str) -> &str {
        self.0.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path}"))
    }

    fn data(&self) -> &[u8] {
        self.text("/data").as_bytes()
    }

    fn signature(&self, algorithm: &str) -> Vec<u8> {
        BASE64_STANDARD.decode(self.text(&format!("/signatures/{algorithm}"))).expect("Base64")
    }

    /// The keys that verify signatures of this algorithm.
    fn keys(&self, algorithm: &str) -> Vec<&str> {
        match algorithm.split('-').next().expect("a name") {
            "hmac" => vec![self.text("/hmac_key")],
            "rsa" => vec![self.text("/keys/rsa"), self.text("/keys/rsa_certificate")],
            "ecdsa" => vec![self.text("/keys/ecdsa")],
            "ed25519" => vec![self.text("/keys/ed25519")],
            other => panic!("no keys of {other}"),
        }
    }
}

#[test]
fn every_algorithm_verifies_what_openssl_signed_and_nothing_else() {
    let fixture = Fixture::read();
    for (name, algorithm) in Algorithm::NAMES {
        let signature = fixture.signature(name);
        for key in fixture.keys(name) {
            let verify = |data: &[u8], signature: &[u8]| algorithm.verify(key.as_bytes(), data, signature);
            assert_eq!(verify(fixture.data(), &signature), Ok(true), "{name}");
            assert_eq!(verify(b"what somebody else wrote", &signature), Ok(false), "{name}");
            let mut changed = signature.clone();
            changed[7] ^= 1;
            assert_eq!(verify(fixture.data(), &changed), Ok(false), "{name}");
            assert_eq!(verify(fixture.data(), &signature[1..]), Ok(false), "{name}: too short");
            assert_eq!(verify(fixture.data(), b""), Ok(false), "{name}: empty");
        }
    }
    assert_eq!(Algorithm::HmacSha256.verify(b"another secret", b"", b""), Ok(false));
}

#[test]
fn a_public_key_is_taken_in_every_form() {
    let fixture = Fixture::read();
    let (pem, signature) = (fixture.text("/keys/ed25519"), fixture.signature("ed25519"));
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let base64 = BASE64_STANDARD.encode(&der);
    let algorithm = Algorithm::Ed25519;
    assert_eq!(algorithm.verify(base64.as_bytes(), fixture.data(), &signature), Ok(true));
    assert_eq!(algorithm.verify_with_public_key(&der, fixture.data(), &signature), Ok(true));
    let bare = &der[der.len() - ED25519_KEY_BYTES..];
    assert_eq!(algorithm.verify_with_public_key(bare, fixture.data(), &signature), Ok(true));
    assert_eq!(algorithm.verify_with_public_key(bare, b"other", &signature), Ok(false));
    assert_eq!(algorithm.verify(BASE64_STANDARD.encode(bare).as_bytes(), fixture.data(), &signature), Ok(true));
    let certificate = CertificateDer::from_pem_slice(fixture.text("/keys/rsa_certificate").as_bytes()).expect("PEM");
    let signature = fixture.signature("rsa-pkcs1-sha1");
    assert_eq!(Algorithm::RsaPkcs1Sha1.verify_with_public_key(&certificate, fixture.data(), &signature), Ok(true));
}

#[test]
fn a_key_that_does_not_fit_is_an_error_and_never_shown() {
    let fixture = Fixture::read();
    let rsa = fixture.text("/keys/rsa");
    for (algorithm, key, why) in [
        (Algorithm::Ed25519, rsa, "not one of this algorithm"),
        (Algorithm::EcdsaP256Sha256, rsa, "not one of this algorithm"),
        (Algorithm::RsaPkcs1Sha256, "s3cret!", "neither PEM nor Base64"),
        (Algorithm::RsaPkcs1Sha256, "czNjcmV0", "neither a public key"),
    ] {
        let InvalidKey(text) = algorithm.verify(key.as_bytes(), b"data", b"signature").expect_err(why);
        assert!(text.contains(why) && !text.contains(key), "{text}");
    }
    let error = Algorithm::HmacSha1.verify_with_public_key(b"key", b"data", b"signature");
    assert!(error.is_err_and(|InvalidKey(text)| text.contains("no public key")));
}
