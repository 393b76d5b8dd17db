//! Signed mail as a server received it. `tests/e2e/dkim.rs` verifies signatures by another implementation.

use super::*;
use crate::config::Dkim;

const ED25519: &str = include_str!("../../../../../tests/fixtures/dkim/ed25519.pem");
const RSA: &str = include_str!("../../../../../tests/fixtures/dkim/rsa_pkcs8.pem");

fn signature(selector: &str, key: SecretSource) -> Dkim {
    Dkim { domain: "campus.example".into(), selector: selector.into(), key }
}

fn value(key: &str) -> SecretSource {
    SecretSource::Value(Secret::new(key))
}

fn signing(server: &Server, dkim: Vec<Dkim>) -> Mailer {
    mailer(RelayKind::Smtp(Smtp { dkim, ..server.settings() }))
}

/// The tags of each signature, unfolded.
fn tags(mail: &str) -> Vec<BTreeMap<String, String>> {
    let head = mail.split("\r\n\r\n").next().unwrap().replace("\r\n\t", "");
    let signatures = head.lines().filter_map(|line| line.strip_prefix("DKIM-Signature: "));
    let pairs = |line: &str| {
        line.split(';')
            .filter_map(|tag| tag.split_once('='))
            .map(|(k, v)| (k.trim().to_owned(), v.to_owned()))
            .collect()
    };
    signatures.map(pairs).collect()
}

#[tokio::test]
async fn a_mail_has_each_signature_once_and_from_is_signed_twice() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let mailer = signing(&server, vec![signature("rsa", value(RSA)), signature("ed", value(ED25519))]);
    let headers = vec![
        ("List-Unsubscribe".to_owned(), "<https://campus.example/u>".to_owned()),
        ("list-unsubscribe-post".to_owned(), "List-Unsubscribe=One-Click".to_owned()),
        ("X-Other".to_owned(), "From: x".to_owned()),
    ];
    let mail = Email { headers, cc: vec!["cy@example.com".into()], ..email() };
    mailer.send(mail, "id", &mut None).await.unwrap();
    let mails = server.mails.lock().unwrap().clone();
    assert!(mails[0].starts_with("DKIM-Signature: "), "{}", mails[0]);
    let found = tags(&mails[0]);
    let algorithms: Vec<_> = found.iter().map(|tags| (tags["a"].as_str(), tags["s"].as_str())).collect();
    assert_eq!(algorithms, [("rsa-sha256", "rsa"), ("ed25519-sha256", "ed")]);
    for tags in &found {
        assert_eq!((tags["d"].as_str(), tags["c"].as_str()), ("campus.example", "relaxed/relaxed"));
        let mut signed: Vec<String> = tags["h"].split(':').map(str::to_ascii_lowercase).collect();
        signed.sort_unstable();
        let expected = [
            "cc",
            "content-type",
            "date",
            "from",
            "from",
            "list-unsubscribe",
            "list-unsubscribe-post",
            "message-id",
            "mime-version",
            "subject",
            "to",
        ];
        assert_eq!(signed, expected);
    }
}

/// A mail is never sent unsigned, and a key that is replaced is used from the next mail on.
#[tokio::test]
async fn a_changed_key_file_is_read_again_and_a_broken_one_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let replace = |content: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, content).unwrap();
        std::fs::rename(&next, &file).unwrap();
    };
    replace(ED25519);
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let mailer = signing(&server, vec![signature("s", SecretSource::File(file.clone()))]);
    mailer.send(email(), "1", &mut None).await.unwrap();
    replace(RSA);
    mailer.send(email(), "2", &mut None).await.unwrap();
    for broken in ["", "no key", "gone"] {
        if broken == "gone" {
            std::fs::remove_file(&file).unwrap()
        } else {
            replace(broken)
        }
        let error = mailer.send(email(), "3", &mut None).await.unwrap_err();
        let MailError::Temporary { message, maybe_sent: false, detail, .. } = &error else { panic!("{error:?}") };
        assert!(
            message.starts_with("relay main: signing the mail: the DKIM key s._domainkey.campus.example: ")
                && message.contains("key.pem"),
            "{message}"
        );
        assert_eq!(detail.stage, Some(Stage::Signing));
    }
    replace(ED25519);
    mailer.send(email(), "4", &mut None).await.unwrap();
    let algorithms = |mail: &String| tags(mail)[0]["a"].clone();
    let used: Vec<String> = server.mails.lock().unwrap().iter().map(algorithms).collect();
    assert_eq!(used, ["ed25519-sha256", "rsa-sha256", "ed25519-sha256"]);
}

/// Canonical bodies of RFC 6376, section 3.4.4, written by hand.
#[test]
fn the_body_is_hashed_in_its_canonical_form() {
    use base64::Engine;
    use sha2::Digest;
    let signer = crate::mailer::dkim::Signer::new(&[signature("s", value(ED25519))]).unwrap();
    let hash = |body: &str| base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(body));
    for (body, canonical) in [
        ("", ""),
        ("\r\n\r\n", ""),
        (" \t\r\n", ""),
        ("a", "a\r\n"),
        ("a\r\n", "a\r\n"),
        ("a\r\n\r\n\r\n", "a\r\n"),
        ("a \t\r\n  \r\n\t\r\n", "a\r\n"),
        ("a  b\t\tc\r\n", "a b c\r\n"),
        ("  a\r\n \r\n.b\r\n", " a\r\n\r\n.b\r\n"),
    ] {
        let signed = signer.sign(&format!("From: a@campus.example\r\n\r\n{body}")).unwrap();
        assert_eq!(tags(&signed)[0]["bh"], hash(canonical), "{body:?}");
        assert!(signed.ends_with(body), "{body:?}");
    }
}

/// Whatever the length of the names is, the signature is folded so that every verifier reads it.
#[test]
fn a_signature_is_folded_between_its_tags() {
    for length in 1..=70 {
        let label = "d".repeat(length.min(60));
        let dkim = Dkim { domain: format!("{label}.example"), selector: "s".repeat(length), key: value(ED25519) };
        let signer = crate::mailer::dkim::Signer::new(&[dkim]).unwrap();
        let signed = signer.sign("From: a@campus.example\r\n\r\nHi\r\n").unwrap();
        let (header, _) = signed.split_once("From: ").unwrap();
        assert!(!header.contains("\t;") && header.ends_with(";\r\n"), "{header}");
        assert!(header.lines().all(|line| line.len() < 250) && header.is_ascii(), "{header}");
    }
}
