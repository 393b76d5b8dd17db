//! EHLO and AUTH as servers of all ages speak them.

use super::*;

/// base64 of the user's name and of the password.
const NAME: &str = "dXNlcg==";
const PASSWORD: &str = "Z2VoZWlt";
/// `user=user^Aauth=Bearer t0ken^A^A`.
const TOKEN: &str = "dXNlcj11c2VyAWF1dGg9QmVhcmVyIHQwa2VuAQE=";

fn token(source: SecretSource) -> Login {
    Login { username: "user".into(), proof: Proof::Token(source) }
}

/// Sends one mail with this login. Returns the result and the lines between EHLO and MAIL.
async fn log_in(
    offers: &[&'static str],
    turns: &[(&'static str, Turn)],
    login: Login,
) -> (Result<(), String>, Vec<String>) {
    let server = Server::start([Script::new(offers, turns)]).await;
    let mailer = mailer(RelayKind::Smtp(Smtp { login: Some(login), ..server.settings() }));
    let sent = mailer.send(email(), "id", &mut None).await;
    let lines = server.lines().into_iter().map(|line| line.trim_start_matches("<1> ").to_owned());
    let lines = lines.skip(1).take_while(|line| !line.starts_with("MAIL")).collect();
    (sent.map(drop).map_err(|error| temporary(error).0), lines)
}

#[tokio::test]
async fn mechanisms_are_found_in_any_form_and_the_text_of_challenges_is_ignored() {
    let challenged = |first, second| [("AUTH LOGIN", Say(first)), (NAME, Say(second)), (PASSWORD, Say("235 welcome"))];
    let login = ["AUTH LOGIN", NAME, PASSWORD].map(str::to_owned).to_vec();
    let table = [
        challenged("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
        challenged("334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"),
        challenged("334 QmVudXR6ZXJuYW1lOg==", "334"),
        challenged("334 not base64!", "334\tKennwort?"),
    ];
    for (offer, turns) in ["AUTH LOGIN", "auth login", "AUTH=LOGIN", "Auth=cram-md5 Login"].into_iter().zip(table) {
        let (sent, lines) = log_in(&[offer], &turns, password()).await;
        assert_eq!((sent, &lines), (Ok(()), &login), "{offer}");
    }
    let plain = "AUTH PLAIN AHVzZXIAZ2VoZWlt";
    for offer in ["AUTH PLAIN LOGIN", "auth=login plain"] {
        assert_eq!(log_in(&[offer], &[], password()).await, (Ok(()), vec![plain.to_owned()]));
    }
    // A server that ignores the initial response requests it.
    let again = [("AUTH PLAIN", Say("334 ")), ("AHVzZXIA", Say("235 ok"))];
    let (sent, lines) = log_in(&["AUTH PLAIN"], &again, password()).await;
    assert_eq!((sent, lines), (Ok(()), vec![plain.to_owned(), "AHVzZXIAZ2VoZWlt".to_owned()]));
    // If a server does not support what it offers, the next mechanism is used.
    let turns = [&[("AUTH PLAIN", Say("504 what?"))][..], &challenged("334 a", "334 b")[..]].concat();
    let (sent, lines) = log_in(&["AUTH PLAIN LOGIN"], &turns, password()).await;
    assert_eq!((sent, lines), (Ok(()), [vec![plain.to_owned()], login].concat()));
}

#[tokio::test]
async fn a_token_logs_in_and_is_read_from_its_file_each_time() {
    let source = SecretSource::Value(Secret::new("t0ken"));
    let (sent, lines) = log_in(&["auth plain xoauth2"], &[], token(source.clone())).await;
    assert_eq!((sent, lines), (Ok(()), vec![format!("AUTH XOAUTH2 {TOKEN}")]));

    // A refusal comes as a challenge with the reason, and a code after an empty response.
    let challenge = [("AUTH", Say("334 eyJzdGF0dXMiOiI0MDEifQ==")), ("\n", Say("535 5.7.8 no"))];
    let (sent, lines) = log_in(&["AUTH XOAUTH2"], &challenge, token(source)).await;
    assert!(sent.unwrap_err().contains("AUTH: XOAUTH2: 535 {\"status\":\"401\"} 5.7.8 no"));
    assert_eq!(lines[1..], [""]);

    // A response that is too long for a command is sent on request.
    let long = SecretSource::Value(Secret::new("t".repeat(2000)));
    let (sent, lines) =
        log_in(&["AUTH XOAUTH2"], &[("AUTH", Say("334 ")), ("dXNlcj", Say("235 ok"))], token(long)).await;
    assert_eq!((sent, lines.len(), lines[0].as_str()), (Ok(()), 2, "AUTH XOAUTH2"));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let server = Server::start([Script::new(&["AUTH XOAUTH2"], &[])]).await;
    let login = token(SecretSource::File(file.clone()));
    let mailer = mailer(RelayKind::Smtp(Smtp { login: Some(login), mails_per_connection: 1, ..server.settings() }));
    mailer.send(email(), "1", &mut None).await.unwrap();
    std::fs::write(&file, "t0ken\n").unwrap();
    mailer.send(email(), "2", &mut None).await.unwrap();
    assert_eq!((server.count("AUTH XOAUTH2"), server.count(&format!("AUTH XOAUTH2 {TOKEN}"))), (2, 1));
    std::fs::remove_file(&file).unwrap();
    let (reason, _) = temporary(mailer.send(email(), "3", &mut None).await.unwrap_err());
    assert!(reason.contains("AUTH: ") && reason.contains("token cannot be read"), "{reason}");
}

#[tokio::test]
async fn no_error_contains_a_secret_that_the_server_repeats() {
    let answers = ["535 AHVzZXIAZ2VoZWlt is wrong", "535 geheim is wrong", "535 Z2VoZWlt?"];
    for answer in answers {
        let (sent, _) = log_in(&["AUTH PLAIN"], &[("AUTH", Say(answer))], password()).await;
        let reason = sent.unwrap_err();
        assert!(reason.contains("535 [secret]"), "{reason}");
    }
}

#[tokio::test]
async fn helo_is_used_only_if_no_extension_is_required() {
    let old = [("EHLO", Refuse("502 5.5.1 unknown command"))];
    let server = Server::start([Script::new(&[], &old)]).await;
    server.mailer().send(email(), "1", &mut None).await.unwrap();
    assert_eq!(server.lines()[..2], ["<1> EHLO client.example", "<1> HELO client.example"]);

    let dir = tempfile::tempdir().unwrap();
    let (ca_file, _) = tls::certificate(dir.path());
    let starttls = Smtp { tls: Tls::Starttls, ca_file: Some(ca_file), ..server.settings() };
    let auth = Smtp { login: Some(password()), ..server.settings() };
    for (settings, needed) in [(starttls, "STARTTLS"), (auth, "AUTH")] {
        let (reason, _) = temporary(mailer(RelayKind::Smtp(settings)).send(email(), "2", &mut None).await.unwrap_err());
        assert!(reason.contains(&format!("EHLO: 502 5.5.1 unknown command; {needed} is configured")), "{reason}");
    }
    assert_eq!((server.count("HELO"), server.count("AUTH")), (1, 0));

    // A server that offers no AUTH gets no password.
    let server = Server::start([Script::new(ALL_OFFERS, &[])]).await;
    let settings = Smtp { login: Some(password()), ..server.settings() };
    let (reason, _) = temporary(mailer(RelayKind::Smtp(settings)).send(email(), "3", &mut None).await.unwrap_err());
    assert!(reason.contains("requires AUTH PLAIN or AUTH LOGIN; the server offers no AUTH"), "{reason}");
    assert_eq!((server.count("AUTH"), server.count("MAIL")), (0, 0));
}
