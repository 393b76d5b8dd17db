//! Verifying the signatures of providers. Nothing here signs.
//!
//! The algorithms are `hmac-sha1`, `hmac-sha256`, `hmac-sha512`, `ecdsa-p256-sha256` (a DER signature), `rsa-pkcs1-sha1`,
//! `rsa-pkcs1-sha256` and `ed25519`.

pub use crate::bindings::openedx::ace::signatures::SignatureError;
pub use crate::imports::signatures::{verify, verify_with};

/// One line for operators.
impl From<SignatureError> for String {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::Denied(text) | SignatureError::Invalid(text) => format!("signatures: {text}"),
        }
    }
}
