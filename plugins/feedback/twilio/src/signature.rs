//! What Twilio signs, and with which key.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::form::Form;

/// The plugin's name for the account's auth token.
pub const AUTH_TOKEN: &str = "auth-token";
/// The plugin's name for a shared key, which Twilio names in a header.
const SHARED_KEY: &str = "shared-key";
/// The parameter of the URL that has the hash of a JSON body.
const BODY_HASH: &str = "bodySHA256";

/// The parts of a request that are signed.
pub struct Parts<'a> {
    /// Without the query.
    pub url: &'a str,
    pub query: Option<&'a str>,
    /// Empty if the body is JSON.
    pub form: &'a Form,
    pub json: Option<&'a [u8]>,
}

/// What the signature must be of.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    pub credential: &'static str,
    pub algorithm: &'static str,
    /// One of them is signed: Twilio is not consistent about the port.
    pub texts: [String; 2],
}

impl Parts<'_> {
    /// What is signed. `settings` is the header X-Twilio-Webhooks-Signature-Settings.
    pub fn signed(&self, settings: Option<&str>) -> Result<Signed, String> {
        let (credential, algorithm) = key(settings.unwrap_or_default())?;
        if let Some(body) = self.json {
            self.check_hash(body)?;
        }
        let query = self.query.map(|query| format!("?{query}")).unwrap_or_default();
        let form = self.form.joined();
        let texts = with_and_without_port(self.url).map(|url| format!("{url}{query}{form}"));
        Ok(Signed { credential, algorithm, texts })
    }

    fn check_hash(&self, body: &[u8]) -> Result<(), String> {
        let query = self.query.unwrap_or_default();
        let expected = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == BODY_HASH);
        let (_, expected) = expected.ok_or_else(|| format!("its URL has no {BODY_HASH}, so the body is not signed"))?;
        let hash = Sha256::digest(body).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        // The hash is no secret.
        if expected == hash { Ok(()) } else { Err(format!("the body is not the one of {BODY_HASH}")) }
    }
}

/// The credential and the algorithm that a header names; without it, they are those of old.
fn key(settings: &str) -> Result<(&'static str, &'static str), String> {
    if settings.trim().is_empty() {
        return Ok((AUTH_TOKEN, "hmac-sha1"));
    }
    let pairs = settings.split(',').filter_map(|part| part.split_once('='));
    let algorithm = pairs.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == "algorithm");
    match algorithm.map(|(_, algorithm)| algorithm.to_ascii_uppercase()).as_deref() {
        None | Some("" | "HMAC_SHA1") => Ok((SHARED_KEY, "hmac-sha1")),
        Some("HMAC_SHA256") => Ok((SHARED_KEY, "hmac-sha256")),
        Some(other) => Err(format!("the algorithm {other:?} is unknown")),
    }
}

/// The URL with its port, or the scheme's, and without.
fn with_and_without_port(url: &str) -> [String; 2] {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (authority, if scheme == "http" { "80" } else { "443" }),
    };
    [format!("{scheme}://{host}{path}"), format!("{scheme}://{host}:{port}{path}")]
}

#[cfg(test)]
mod tests {
    use ace_signatures::Algorithm;
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::Value;

    use super::*;

    /// Signatures by the official client, and its own judgement of them.
    #[test]
    fn signatures_are_judged_as_the_official_client_judges_them() {
        let recorded: Value = serde_json::from_str(crate::RECORDED).expect("the recording is JSON");
        let callbacks = recorded["callbacks"].as_array().expect("callbacks");
        assert!(callbacks.len() > 10, "{}", callbacks.len());
        for case in callbacks {
            let text = |key: &str| case[key].as_str();
            let (url, body) = (text("url").expect("a URL"), text("body").expect("a body").as_bytes());
            let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
            let is_json = text("content_type") == Some("application/json");
            let form = if is_json { Form::default() } else { Form::parse(body) };
            let parts = Parts { url, query, form: &form, json: is_json.then_some(body) };
            let is_valid = parts.signed(text("settings")).is_ok_and(|signed| {
                let expected = if text("settings").is_some() { SHARED_KEY } else { AUTH_TOKEN };
                assert_eq!(signed.credential, expected, "{case}");
                let algorithm = Algorithm::named(signed.algorithm).expect("a known one");
                let signature = BASE64_STANDARD.decode(text("signature").expect("a signature")).expect("Base64");
                let key = text("key").expect("a key").as_bytes();
                let verify = |text: &String| algorithm.verify(key, text.as_bytes(), &signature);
                signed.texts.iter().any(|text| verify(text).expect("an HMAC key"))
            });
            assert_eq!(Some(is_valid), case["valid"].as_bool(), "{case}");
        }
    }

    #[test]
    fn the_header_names_the_key_and_its_algorithm() {
        assert_eq!(key(""), Ok((AUTH_TOKEN, "hmac-sha1")));
        assert_eq!(key("key=k1"), Ok((SHARED_KEY, "hmac-sha1")));
        assert_eq!(key("algorithm=hmac_sha256 , key=k1"), Ok((SHARED_KEY, "hmac-sha256")));
        for unknown in ["key=k1,algorithm=HMAC_SHA512", "algorithm=none", "algorithm=HMAC_SHA256;x"] {
            assert!(key(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_url_has_two_forms() {
        let forms = |url| with_and_without_port(url);
        assert_eq!(forms("https://a.example/x:9/"), ["https://a.example/x:9/", "https://a.example:443/x:9/"]);
        assert_eq!(forms("http://a.example/x"), ["http://a.example/x", "http://a.example:80/x"]);
        assert_eq!(forms("https://a.example:8443/"), ["https://a.example/", "https://a.example:8443/"]);
        assert_eq!(forms("https://[2001:db8::1]/"), ["https://[2001:db8::1]/", "https://[2001:db8::1]:443/"]);
    }

    #[test]
    fn a_json_body_must_be_that_of_the_url() {
        let form = Form::default();
        let parts = |query| Parts { url: "https://a.example/", query, form: &form, json: Some(b"{}") };
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let query = format!("a=b&bodySHA256={hash}");
        let signed = parts(Some(&query)).signed(None).expect("the hash is right");
        assert_eq!(signed.texts[0], format!("https://a.example/?{query}"));
        for query in [None, Some("a=b"), Some("bodySHA256="), Some("bodySHA256=00")] {
            assert!(parts(query).signed(None).is_err(), "{query:?}");
        }
    }
}
