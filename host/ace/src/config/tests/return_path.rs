//! Return paths with a token, and their keys.

use super::*;

const KEY: &str = "0123456789abcdef";

fn read_path(path: &str, mailer: &str) -> Result<Config, Vec<String>> {
    let text = super::relay_with(&format!("return-path = \"{path}\"\n[mailer]\n{mailer}"));
    read_with(&text, &[("K", KEY), ("L", "another key of some length"), ("S", "short")])
}

#[test]
fn a_return_path_can_have_a_token() {
    let config = read_path("bounce+{token}@b.example", "return-path-key = { env = 'K' }").unwrap();
    let mailer = config.fixed.mailer;
    assert_eq!(mailer.relays["r"].return_path.as_deref(), Some("bounce+{token}@b.example"));
    assert_eq!(mailer.return_path_keys, [SecretSource::Value(Secret::new(KEY))]);
    let two = read_path("{token}.x@b.example", "return-path-key = [{ env = 'K' }, { env = 'L' }]").unwrap();
    assert_eq!(two.fixed.mailer.return_path_keys.len(), 2);
    assert!(read_path("b@b.example", "return-path-key = { env = 'K' }").is_ok(), "before it is used");
}

#[test]
fn a_token_that_cannot_be_made_is_refused() {
    let key = "return-path-key = { env = 'K' }";
    for (path, mailer, expected) in [
        (
            "bounce+{token}@b.example",
            "",
            "mailer.return-path-key: is required, because relays.r.return-path has {token}",
        ),
        (
            "bounce+{tokn}@b.example",
            key,
            "line 4: relays.r.return-path: unknown placeholder \"{tokn}\"; only {token} is known",
        ),
        ("bounce+{token@b.example", key, "unknown placeholder \"{token@b.example\""),
        ("{token}{token}@b.example", key, "{token} must stand in it once"),
        ("b@{token}.example", key, "is not an e-mail address; write it as in \"bounce+{token}@example.com\""),
        ("{token}", key, "is not an e-mail address"),
        ("a rather long local part+{token}@b.example", key, "only 22 characters are allowed beside {token}"),
        ("Bounces <{token}@b.example>", key, "is not an e-mail address"),
        (
            "{token}@b.example",
            "return-path-key = { env = 'S' }",
            "has less than 16 characters; create one with `openssl rand",
        ),
        (
            "{token}@b.example",
            "return-path-key = 'secret'",
            "mailer.return-path-key: a secret must not be in this file",
        ),
        (
            "{token}@b.example",
            "return-path-key = [{ env = 'K' }, { env = 'L' }, { env = 'K' }]",
            "or two while one replaces the other, not 3",
        ),
        (
            "{token}@b.example",
            "return-path-key = [{ env = 'K' }, { env = 'none' }]",
            "return-path-key[1].env: the environment",
        ),
    ] {
        let problems = read_path(path, mailer).unwrap_err();
        assert!(problems[0].contains(expected) && problems.len() == 1, "{path} {mailer}: {problems:?}");
    }
}
