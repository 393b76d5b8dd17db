//! `[relays.NAME.dkim]`: keys that work, and what is said of those that do not.

use super::*;

pub(super) const ED25519: &str = include_str!("../../../../../tests/fixtures/dkim/ed25519.pem");
const RSA: &str = include_str!("../../../../../tests/fixtures/dkim/rsa_pkcs8.pem");

fn signed_by(dkim: &str) -> String {
    super::relay_with(&format!("dkim = {dkim}"))
}

fn with_key(key: &str) -> Result<Config, Vec<String>> {
    read_with(&signed_by("{ domain = 'example.com', selector = 's', key = { env = 'K' } }"), &[("K", key)])
}

fn signatures(config: &Config) -> &[Dkim] {
    let RelayKind::Smtp(smtp) = &config.fixed.mailer.relays["r"].kind else { panic!("not SMTP") };
    &smtp.dkim
}

#[test]
fn every_kind_of_key_that_signs_is_read() {
    let pkcs1 = include_str!("../../../../../tests/fixtures/dkim/rsa_pkcs1.pem");
    for key in [ED25519, RSA, pkcs1] {
        let config = with_key(key).unwrap();
        let [dkim] = signatures(&config) else { panic!("one signature") };
        assert_eq!((dkim.domain.as_str(), dkim.selector.as_str()), ("example.com", "s"));
        assert!(!format!("{config:?}").contains(key.lines().nth(1).unwrap()));
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_with_what_to_do() {
    let cases = [
        (
            include_str!("../../../../../tests/fixtures/dkim/rsa_short.pem"),
            "has less than 2048 bits; create one with `openssl",
        ),
        (include_str!("../../../../../tests/fixtures/dkim/ec.pem"), "RSA or Ed25519, and this is another kind of key"),
        (
            include_str!("../../../../../tests/fixtures/dkim/encrypted.pem"),
            "has a pass phrase; remove it with `openssl",
        ),
        (include_str!("../../../../../tests/fixtures/dkim/rsa_public.pem"), "this is a public key"),
        ("hunter2", "this is not a private key in PEM; create one with `openssl"),
        ("-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----", "the key is damaged"),
        ("-----BEGIN EC PRIVATE KEY-----\naHVudGVyMg==\n-----END EC PRIVATE KEY-----", "this is another kind of key"),
    ];
    for (key, expected) in cases {
        let problems = with_key(key).unwrap_err();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.starts_with("line 4: relays.r.dkim.key: ") && problem.contains(expected), "{problem}");
        assert!(!key.lines().skip(1).any(|line| problem.contains(line)), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn a_mail_can_have_several_signatures() {
    let two = "[[relays.r.dkim]]\ndomain = 'bücher.example'\nselector = 'rsa'\nkey = { env = 'R' }\n\
               [[relays.r.dkim]]\ndomain = 'example.com'\nselector = 'ed.2026'\nkey = { file = 'ed.pem' }\n";
    let folder = Folder::new("dkim");
    folder.write("ed.pem", ED25519);
    let config = folder.read(&super::relay_with(two), &[("R", RSA)]).unwrap();
    let [rsa, ed] = signatures(&config) else { panic!("two signatures") };
    assert_eq!((rsa.domain.as_str(), &rsa.key), ("xn--bcher-kva.example", &SecretSource::Value(Secret::new(RSA))));
    assert_eq!(ed.key, SecretSource::File(folder.0.join("ed.pem")));

    folder.write("ed.pem", "broken");
    let problems = folder.read(&super::relay_with(two), &[("R", RSA)]).unwrap_err();
    assert!(problems[0].starts_with("ace.toml:11: relays.r.dkim[1].key: this is not a private key"), "{problems:?}");
    fs::remove_file(folder.0.join("ed.pem")).unwrap();
    let problems = folder.read(&super::relay_with(two), &[("R", RSA)]).unwrap_err();
    assert!(problems[0].contains("relays.r.dkim[1].key.file: ed.pem cannot be read"), "{problems:?}");
}

#[test]
fn a_signature_that_cannot_be_verified_is_refused() {
    let env = [("K", ED25519)];
    let one = "{ domain = 'example.com', selector = 's', key = { env = 'K' } }";
    let cases = [
        ("{ domain = 'example.com', selector = 's' }".to_owned(), "relays.r.dkim.key: is required"),
        ("{ selector = 's', key = { env = 'K' } }".to_owned(), "relays.r.dkim.domain: is required"),
        (one.replace("example.com", "a b"), "must be a domain name, as in \"example.com\""),
        (one.replace("'s'", "'s_1'"), "must be a selector, as in \"2026\""),
        (one.replace("'s'", "'ß'"), "must be a selector"),
        (one.replace("{ env = 'K' }", "'secret'"), "a secret must not be in this file"),
        (one.replace("domain", "domian"), "did you mean \"domain\"?"),
        (format!("[{one}, {one}]"), "dkim[1]: two keys need two selectors; s is used twice for example.com"),
        (format!("[{one}, {one}, {one}, {one}, {one}]"), "has 5 signatures; at most 4 are allowed"),
        ("['s']".to_owned(), "relays.r.dkim[0]: must be a table"),
        ("true".to_owned(), "relays.r.dkim: must be a table"),
    ];
    for (dkim, expected) in cases {
        let problems = read_with(&signed_by(&dkim), &env).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{dkim}: {problems:?}");
    }
    let file = format!("[relays.r]\nkind = 'file'\ndir = '.'\ndkim = {one}");
    assert!(read_with(&file, &env).unwrap_err()[0].contains("relays.r.dkim: unknown key"));
}

#[test]
fn a_signature_by_another_organization_than_the_senders_is_reported() {
    let warnings = |sender: &str, domains: &[&str]| {
        let one = |(at, domain): (usize, &&str)| {
            format!("{{ domain = '{domain}', selector = 's{at}', key = {{ env = 'K' }} }}")
        };
        let all: Vec<String> = domains.iter().enumerate().map(one).collect();
        let text = format!("{}\n[mailer]\ndefault-from = '{sender}'", signed_by(&format!("[{}]", all.join(", "))));
        let config = read_with(&text, &[("K", ED25519)]).unwrap();
        config.unaligned_signatures().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (sender, domains) in [
        ("a@example.com", &["example.com"][..]),
        ("A <a@mail.example.com>", &["example.com"]),
        ("a@example.com", &["mail.example.com"]),
        ("a@example.com", &["esp.example", "example.com"]),
        ("a@bücher.example", &["xn--bcher-kva.example"]),
        ("a@localhost", &["localhost"]),
    ] {
        assert_eq!(warnings(sender, domains), [""; 0], "{sender} {domains:?}");
    }
    let [warning] = &warnings("A <a@uni.co.uk>", &["other.co.uk"])[..] else { panic!("one warning") };
    assert_eq!(
        warning,
        "line 4: relays.r.dkim: mail from uni.co.uk is signed by other.co.uk, which DMARC does not count; sign with a key of uni.co.uk"
    );
}
