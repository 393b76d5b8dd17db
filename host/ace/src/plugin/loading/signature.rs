//! Signatures of plugins, in minisign's format: `NAME.wasm.minisig` beside `NAME.wasm`.
//!
//! The signature covers the component and its trusted comment, which contains the plugin's name and the digest of its manifest. So
//! a signed component cannot be used with another manifest or under another name.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use minisign::{KeyPair, PublicKey, SecretKeyBox, SignatureBox};
use sha2::{Digest, Sha256};

use super::component_file;
use crate::plugin::runtime::errors;

/// Why a signature is missing or invalid, or a plugin cannot be signed. No text contains a secret key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum SignatureError {
    #[error("it is not signed: {} does not exist", file.display())]
    Unsigned { file: PathBuf },
    #[error("its signature cannot be read: {}: {why}", file.display())]
    Unreadable { file: PathBuf, why: String },
    #[error("it is not signed with any of the trusted keys, or the file was changed after it was signed")]
    Untrusted,
    #[error("its signature is for {signed}, but it is {actual}: the manifest or the name was changed")]
    Another { signed: String, actual: String },
    #[error("{key:?} is not a minisign public key; these start with RW")]
    PublicKey { key: String },
    #[error("{}: this is not a minisign secret key, or its password is wrong: {why}", file.display())]
    SecretKey { file: PathBuf, why: String },
    #[error("the keys cannot be generated: {0}")]
    Generate(String),
}

/// The longest signature file.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The path of a component's signature.
pub fn file_of(component: &Path) -> PathBuf {
    let mut file = component.as_os_str().to_owned();
    file.push(".minisig");
    file.into()
}

/// Checks that one of the keys signed this component with this name and manifest. Returns the key.
///
/// # Errors
/// The signature is missing or invalid, or is by another key or for another name or manifest.
pub fn verify<'a>(
    component: &Path,
    name: &str,
    wasm: &[u8],
    manifest: &str,
    keys: &'a [String],
) -> Result<&'a str, SignatureError> {
    let file = file_of(component);
    let text = component_file::read_bounded(&file, FILE_BYTES_MAX).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => SignatureError::Unsigned { file: file.clone() },
        _ => SignatureError::Unreadable { file: file.clone(), why: e.to_string() },
    })?;
    let unreadable = |why: String| SignatureError::Unreadable { file: file.clone(), why };
    let text = String::from_utf8(text).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
    let signature = SignatureBox::from_string(&text).map_err(|e| unreadable(e.to_string()))?;
    let mut signer = None;
    for key in keys {
        let public = read_key(key)?;
        if minisign::verify(&public, &signature, Cursor::new(wasm), true, false, false).is_ok() {
            signer = Some(key.as_str());
        }
    }
    let signer = signer.ok_or(SignatureError::Untrusted)?;
    let signed = signature.trusted_comment().map_err(|e| unreadable(e.to_string()))?;
    let actual = comment(name, manifest);
    if signed == actual {
        Ok(signer)
    } else {
        Err(SignatureError::Another { signed: errors::printable(&signed), actual })
    }
}

/// Signs a component. Returns the text of the signature file. `password`: of the secret key, if it has one.
///
/// # Errors
/// The secret key cannot be read, or the password is wrong.
pub fn sign(
    key_file: &Path,
    password: Option<String>,
    name: &str,
    wasm: &[u8],
    manifest: &str,
) -> Result<String, SignatureError> {
    let fail = |why: String| SignatureError::SecretKey { file: key_file.to_owned(), why };
    let text = std::fs::read_to_string(key_file).map_err(|e| fail(e.to_string()))?;
    let key = SecretKeyBox::from_string(&text).map_err(|e| fail(e.to_string()))?;
    let key = match password {
        Some(password) => key.into_secret_key(Some(password)),
        None => key.into_unencrypted_secret_key(),
    };
    let key = key.map_err(|e| fail(e.to_string()))?;
    let comment = comment(name, manifest);
    let signed = minisign::sign(None, &key, Cursor::new(wasm), Some(&comment), Some("signature of a plugin of ACE"));
    signed.map(SignatureBox::into_string).map_err(|e| fail(e.to_string()))
}

/// Generates a key pair without a password. Returns the text of the secret key's file, and the public key for ace.toml.
///
/// # Errors
/// minisign cannot generate a key.
pub fn generate() -> Result<(String, String), SignatureError> {
    let fail = |e: minisign::PError| SignatureError::Generate(e.to_string());
    let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().map_err(fail)?;
    let secret = sk.to_box(Some("secret key for plugins of ACE")).map_err(fail)?.into_string();
    Ok((secret, pk.to_base64()))
}

/// Parses a public key.
///
/// # Errors
/// The text is not a minisign public key.
pub fn read_key(key: &str) -> Result<PublicKey, SignatureError> {
    PublicKey::from_base64(key).map_err(|_| SignatureError::PublicKey { key: key.to_owned() })
}

/// The trusted comment of a signature.
fn comment(name: &str, manifest: &str) -> String {
    format!("ace-plugin:{name} manifest-sha256:{}", HEXLOWER.encode(&Sha256::digest(manifest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WASM: &[u8] = b"\0asm";

    #[test]
    fn a_signature_binds_component_name_and_manifest_to_a_key() {
        let home = tempfile::tempdir().expect("a folder");
        let (secret, public) = generate().expect("a pair");
        let (_, other) = generate().expect("a pair");
        let key = home.path().join("key");
        std::fs::write(&key, secret).expect("written");
        let component = home.path().join("mine.wasm");
        let keys = [other.clone(), public.clone()];
        let checked = |name: &str, wasm: &[u8], manifest: &str, keys: &[String]| {
            verify(&component, name, wasm, manifest, keys).map(str::to_owned).map_err(|e| e.to_string())
        };
        assert!(checked("mine", WASM, "", &keys).expect_err("unsigned").starts_with("it is not signed"));

        let signature = sign(&key, None, "mine", WASM, "version = '1'").expect("signed");
        std::fs::write(file_of(&component), &signature).expect("written");
        assert_eq!(checked("mine", WASM, "version = '1'", &keys), Ok(public.clone()));
        for (name, wasm, manifest, keys, words) in [
            ("mine", b"\0asn", "version = '1'", &keys[..], "not signed with any of the trusted keys"),
            ("mine", b"\0asm", "version = '1'", &keys[..1], "not signed with any of the trusted keys"),
            ("mine", b"\0asm", "version = '1'", &[], "not signed with any of the trusted keys"),
            ("mine", b"\0asm", "version = '2'", &keys[..], "the manifest or the name was changed"),
            ("other", b"\0asm", "version = '1'", &keys[..], "the manifest or the name was changed"),
        ] {
            let error = checked(name, wasm, manifest, keys).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
        let forged = signature.replace("ace-plugin:mine", "ace-plugin:other");
        std::fs::write(file_of(&component), forged).expect("written");
        assert!(checked("other", WASM, "version = '1'", &keys).is_err(), "the comment is signed");
        std::fs::write(file_of(&component), "nonsense").expect("written");
        assert!(checked("mine", WASM, "", &keys).expect_err("nonsense").contains("cannot be read"));
        assert!(read_key("nonsense").is_err() && read_key(&public).is_ok());
    }
}
