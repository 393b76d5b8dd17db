use std::time::SystemTime;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000).expect("in range")
}

#[test]
fn a_token_is_printed_once_and_only_its_hash_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.json");
    let file = TokenFile::new(&path);
    let secret = file.create("lms", vec![Scope::Send, Scope::Read], None, now()).expect("made");
    assert!(secret.starts_with("ace_") && secret.len() == 47, "{secret}");
    assert!(!std::fs::read_to_string(&path).expect("there").contains(&secret[4..]));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);

    let tokens = Tokens::load(&path).expect("a valid file");
    assert_eq!(tokens.bearer(&secret, now()), Ok(("lms".to_owned(), vec![Scope::Send, Scope::Read])));
    assert_eq!(tokens.bearer("ace_AAAA", now()), Err(TokenFault::Unknown));
    assert!(matches!(file.create("lms", vec![], None, now()), Err(TokenError::Exists(_))));
    assert!(matches!(file.create("a b", vec![], None, now()), Err(TokenError::Name(_))));
}

#[test]
fn a_revoked_token_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.json");
    let file = TokenFile::new(&path);
    let secret = file.create("lms", vec![Scope::Send], None, now()).expect("made");
    let tokens = Tokens::load(&path).expect("a valid file");
    let unknown = file.revoke("lsm").expect_err("no such token");
    assert_eq!(unknown.to_string(), "there is no token \"lsm\"; did you mean \"lms\"?");
    file.revoke("lms").expect("revoked");
    std::fs::File::open(&path).expect("there").set_modified(SystemTime::UNIX_EPOCH).expect("changed");
    tokens.refresh(now());
    assert_eq!(tokens.bearer(&secret, now()), Err(TokenFault::Unknown));

    std::fs::write(&path, "{\"tokens\": [{\"nam\": 1}]}").expect("written");
    tokens.refresh(now());
    let error = file.list().expect_err("damaged").to_string();
    assert!(error.contains("tokens.json: ") && error.contains("nam"), "{error}");
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// As if the file had been written at another time.
fn reload(tokens: &Tokens, path: &Path, second: u64) {
    let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
    std::fs::File::open(path).expect("there").set_modified(written).expect("changed");
    tokens.refresh(now());
}

#[test]
fn a_rotated_token_stays_valid_until_the_overlap_or_the_next_rotation_ends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.json");
    let file = TokenFile::new(&path);
    let first = file.create("lms", vec![Scope::Send], None, now()).expect("made");
    let tokens = Tokens::load(&path).expect("a valid file");
    let second = file.rotate("lms", at(2_000), None).expect("rotated");
    reload(&tokens, &path, 1);
    for secret in [&first, &second] {
        assert!(tokens.bearer(secret, at(1_999)).is_ok());
    }
    assert_eq!(tokens.bearer(&first, at(2_000)), Err(TokenFault::Expired));
    let third = file.rotate("lms", at(9_000), Some(at(8_000))).expect("rotated");
    reload(&tokens, &path, 2);
    assert_eq!(tokens.bearer(&first, at(1_999)), Err(TokenFault::Unknown), "at most one old secret");
    assert!(tokens.bearer(&second, at(7_999)).is_ok() && tokens.bearer(&third, at(7_999)).is_ok());
    for secret in [&second, &third] {
        assert_eq!(tokens.bearer(secret, at(8_000)), Err(TokenFault::Expired));
    }
    assert!(matches!(file.rotate("lsm", now(), None), Err(TokenError::Unknown { .. })));
}

#[test]
fn the_last_use_is_written_at_most_once_a_minute() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokens.json");
    let file = TokenFile::new(&path);
    let secret = file.create("lms", vec![Scope::Send], None, now()).expect("made");
    let tokens = Tokens::load(&path).expect("a valid file");
    assert!(file.last_uses().is_empty());
    assert!(tokens.bearer(&secret, at(1_000)).is_ok());
    tokens.refresh(at(1_000));
    assert!(file.last_uses().is_empty(), "to be asked about is no use");
    for (used, refreshed, expected) in [(1_001, 1_001, 1_001), (1_030, 1_060, 1_001), (1_030, 1_061, 1_030)] {
        assert!(tokens.used(&secret, at(used)).is_ok());
        tokens.refresh(at(refreshed));
        assert_eq!(file.last_uses().get("lms"), Some(&at(expected)), "{refreshed}");
    }
    let again = Tokens::load(&path).expect("a valid file");
    again.refresh(at(5_000));
    assert_eq!(file.last_uses().get("lms"), Some(&at(1_030)), "a restart forgets nothing");
}
