//! Encrypts a message for one subscription (RFC 8291), in one record of the content coding aes128gcm (RFC 8188).

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce};
use hkdf::Hkdf;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use sha2::Sha256;

pub const PRIVATE_KEY_BYTES: usize = 32;
pub const SALT_BYTES: usize = 16;
/// The size of a record. Ours ends before.
const RECORD_BYTES: u32 = 4096;
/// Follows the text of the last record.
const LAST_RECORD: u8 = 2;

/// The keys of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// `p256dh`.
    pub public: PublicKey,
    /// `auth`.
    pub secret: [u8; 16],
}

/// What must be new for each message, from random bytes.
#[derive(Clone)]
pub struct Fresh {
    pub private: SecretKey,
    pub salt: [u8; SALT_BYTES],
}

impl Keys {
    /// The body of the request. `None` if the text is too long.
    pub fn encrypt(&self, text: &[u8], fresh: &Fresh) -> Option<Vec<u8>> {
        let ours = fresh.private.public_key().to_sec1_point(false);
        let theirs = self.public.to_sec1_point(false);
        let shared = fresh.private.diffie_hellman(&self.public);
        let info = [b"WebPush: info\0", theirs.as_bytes(), ours.as_bytes()];
        let input: [u8; 32] = derive(&self.secret, shared.raw_secret_bytes(), &info)?;
        let key: [u8; 16] = derive(&fresh.salt, &input, &[b"Content-Encoding: aes128gcm\0"])?;
        let nonce: [u8; 12] = derive(&fresh.salt, &input, &[b"Content-Encoding: nonce\0"])?;

        let record = [text, &[LAST_RECORD]].concat();
        let encrypted = Aes128Gcm::new(&key.into()).encrypt(&Nonce::from(nonce), record.as_slice()).ok()?;
        let id = ours.as_bytes();
        let body = [&fresh.salt[..], &RECORD_BYTES.to_be_bytes(), &[u8::try_from(id.len()).ok()?], id, &encrypted];
        (body.iter().map(|part| part.len()).sum::<usize>() <= RECORD_BYTES as usize).then(|| body.concat())
    }
}

/// A key from key material.
fn derive<const N: usize>(salt: &[u8], material: &[u8], info: &[&[u8]]) -> Option<[u8; N]> {
    let mut key = [0; N];
    Hkdf::<Sha256>::new(Some(salt), material).expand_multi_info(info, &mut key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
    }

    fn keys() -> Keys {
        let public = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
        let public = PublicKey::from_sec1_bytes(&decoded(public)).expect("a point");
        Keys { public, secret: decoded("BTBZMqHH6r4Tts7J_aSIgg").try_into().expect("16 bytes") }
    }

    fn fresh() -> Fresh {
        let private = SecretKey::from_slice(&decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")).expect("a key");
        Fresh { private, salt: decoded("DGv6ra1nlYgDCS1FRnbzlw").try_into().expect("16 bytes") }
    }

    /// RFC 8291, appendix A.
    #[test]
    fn the_vector_of_the_standard_is_encrypted_as_it_says() {
        let body = keys().encrypt(b"When I grow up, I want to be a watermelon", &fresh()).expect("short");
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
                        AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(body), expected);
    }

    #[test]
    fn a_body_fits_into_one_record() {
        assert_eq!(keys().encrypt(&[b'x'; 3993], &fresh()).expect("it fits").len(), 4096);
        assert_eq!(keys().encrypt(&[b'x'; 3994], &fresh()), None);
    }
}
