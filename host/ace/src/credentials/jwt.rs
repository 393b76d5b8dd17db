//! JSON Web Tokens that are signed here (RFC 7515, compact form).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::Value;

/// A key that signs.
pub(super) enum SigningKey<'a> {
    /// ES256
    Ec(&'a EcdsaKeyPair),
    /// RS256
    Rsa(&'a RsaKeyPair),
}

/// The token with these claims. `key_id` tells its reader which key signed it.
pub(super) fn signed(key: SigningKey<'_>, key_id: Option<&str>, claims: &Value) -> Result<String, String> {
    let algorithm = match key {
        SigningKey::Ec(_) => "ES256",
        SigningKey::Rsa(_) => "RS256",
    };
    let mut header = serde_json::json!({"alg": algorithm, "typ": "JWT"});
    if let Some(id) = key_id {
        header["kid"] = id.into();
    }
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(&header), part(claims));
    let signature = signature(key, text.as_bytes()).map_err(|_| "cannot sign with its key".to_owned())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn signature(key: SigningKey<'_>, text: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
    let rng = SystemRandom::new();
    match key {
        SigningKey::Ec(key) => key.sign(&rng, text).map(|signature| signature.as_ref().to_vec()),
        SigningKey::Rsa(key) => {
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &rng, text, &mut signature).map(|()| signature)
        }
    }
}
