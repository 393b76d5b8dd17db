//! Return paths that name their message.

use super::*;
use crate::config::Relay;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OLD_KEY: &str = "an old key that was replaced";

fn with(server: &Server, return_path: &str, keys: &[&str]) -> Mailer {
    let keys = keys.iter().map(|key| SecretSource::Value(Secret::new(*key))).collect();
    with_keys(server, return_path, keys)
}

fn with_keys(server: &Server, return_path: &str, return_path_keys: Vec<SecretSource>) -> Mailer {
    let relay = Relay { kind: RelayKind::Smtp(server.settings()), from: None, return_path: Some(return_path.into()) };
    let relays = BTreeMap::from([("main".to_owned(), relay)]);
    Mailer::new(&config::Mailer { relays, return_path_keys, ..settings(RelayKind::Discard) }).unwrap()
}

fn message(n: u128) -> Uuid {
    Uuid::from_u128(n << 64 | 7)
}

/// The address in the last MAIL command.
fn sent_from(server: &Server) -> String {
    let lines = server.lines();
    let mail = lines.iter().rev().find_map(|line| line.split_once("MAIL FROM:<")).unwrap().1;
    mail.split('>').next().unwrap().to_owned()
}

async fn send(mailer: &Mailer, message: Uuid) -> Result<Accepted, MailError> {
    let mail = Email { message: Some(message), ..email() };
    mailer.send(mail, &format!("{message}.email"), &mut None).await
}

#[tokio::test]
async fn a_bounce_proves_which_message_it_is_about() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let mailer = with(&server, "bounce+{token}@bücher.example", &[KEY]);
    let mut seen = Vec::new();
    for n in 1..20 {
        send(&mailer, message(n)).await.unwrap();
        let address = sent_from(&server);
        let (local, domain) = address.rsplit_once('@').unwrap();
        assert!(local.len() <= 64 && local.starts_with("bounce+") && domain == "xn--bcher-kva.example", "{address}");
        assert_eq!(local.to_lowercase(), local);
        for form in [&address, &address.to_uppercase(), &address.replace("bounce", "Bounce")] {
            assert_eq!(mailer.returned_message(form), Some(message(n)), "{form}");
        }
        // Any other character in the token is another token.
        for at in 7..local.len() {
            let other = if &address[at..=at] == "0" { "1" } else { "0" };
            let forged = format!("{}{other}{}", &address[..at], &address[at + 1..]);
            assert_eq!(mailer.returned_message(&forged), None, "{forged}");
        }
        seen.push(address);
    }
    seen.dedup();
    assert_eq!(seen.len(), 19);
    let address = &seen[0];
    for other in [
        address.replace("bounce+", "bounces+"),
        address.replace("bcher", "other"),
        address.replace(".example", ".example.org"),
        address.replace("bounce+", ""),
        format!("x{address}"),
        "bounce+@xn--bcher-kva.example".to_owned(),
        "bounce+é@xn--bcher-kva.example".to_owned(),
        String::new(),
    ] {
        assert_eq!(mailer.returned_message(&other), None, "{other}");
    }
}

#[tokio::test]
async fn a_replaced_key_still_verifies() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let path = "{token}@b.example";
    send(&with(&server, path, &[OLD_KEY]), message(1)).await.unwrap();
    let old = sent_from(&server);
    let rotated = with(&server, path, &[KEY, OLD_KEY]);
    send(&rotated, message(1)).await.unwrap();
    let new = sent_from(&server);
    assert_ne!(old, new);
    assert_eq!([&old, &new].map(|address| rotated.returned_message(address)), [Some(message(1)); 2]);
    let after = with(&server, path, &[KEY]);
    assert_eq!((after.returned_message(&old), after.returned_message(&new)), (None, Some(message(1))));
}

#[tokio::test]
async fn a_mail_that_has_its_own_return_path_keeps_it_and_a_missing_key_sends_nothing() {
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let mailer = with_keys(&server, "bounce+{token}@b.example", vec![SecretSource::File(file.clone())]);
    let own = Email { return_path: Some("own@b.example".into()), message: Some(message(1)), ..email() };
    mailer.send(own, "1", &mut None).await.unwrap();
    assert_eq!(sent_from(&server), "own@b.example");
    std::fs::remove_file(&file).unwrap();
    let (text, _) = temporary(send(&mailer, message(2)).await.unwrap_err());
    assert!(text.starts_with("relay main: signing the mail: ") && text.contains("key cannot be read"), "{text}");
    assert_eq!(server.count("MAIL"), 1);
}
