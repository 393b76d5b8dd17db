//! Logins with one of `[credentials]`.

use std::cell::Cell;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::SignedDuration;

use super::*;
use crate::config::Config;
use crate::credentials::{Credentials, Surroundings, TokenStore};

/// 2026-11-30T12:00:00Z
const START: Timestamp = Timestamp::constant(1_796_040_000, 0);
/// `user=user^Aauth=Bearer one^A^A`, and the same with `two`.
const ONE: &str = "dXNlcj11c2VyAWF1dGg9QmVhcmVyIG9uZQEB";
const TWO: &str = "dXNlcj11c2VyAWF1dGg9QmVhcmVyIHR3bwEB";
/// Nobody gives tokens there: they come from the store.
const OAUTH2: &str = "[credentials.c]\nkind = 'oauth2-client-credentials'\nurls = []\n\
                      token-url = 'http://127.0.0.1:9/'\nclient-id = 'ace'\nclient-secret = { env = 'SECRET' }\n";

thread_local! {
    static NOW: Cell<Timestamp> = const { Cell::new(START) };
}

fn pass(seconds: i64) {
    NOW.set(NOW.get() + SignedDuration::from_secs(seconds));
}

/// The store of other processes, which renewed the token just before this one.
struct Renewed(Mutex<VecDeque<&'static str>>);

#[async_trait]
impl TokenStore for Renewed {
    async fn get(&self, _: &str, now: Timestamp) -> Result<Option<Secret>, String> {
        let token = self.0.lock().unwrap().pop_front();
        let stored = |token| format!(r#"{{"token":"{token}","made":{},"renewal":3000,"end":3600}}"#, now.as_second());
        Ok(token.map(|token| Secret::new(stored(token))))
    }

    async fn put(&self, _: &str, _: &Secret, _: Option<Duration>, _: Timestamp) -> Result<(), String> {
        Ok(())
    }
}

fn definitions(text: &str) -> BTreeMap<String, config::Credential> {
    let env = [("SECRET".to_owned(), "geheim".to_owned())];
    Config::read(text, None, env).unwrap_or_else(|problems| panic!("{problems}")).credentials
}

fn current(text: &str, tokens: &[&'static str]) -> Current {
    let store = Arc::new(Renewed(Mutex::new(tokens.iter().copied().collect())));
    let surroundings = Surroundings { now: || NOW.get(), store };
    Arc::new(ArcSwap::from_pointee(Credentials::new(&definitions(text), &config::Http::default(), surroundings)))
}

/// A mailer with one mail per connection, whose relay logs in with the credential `c`.
fn logging_in(server: &Server, credentials: &Current) -> Mailer {
    logging_in_as("user", server, credentials)
}

/// The same, where the relay has this user name.
fn logging_in_as(username: &str, server: &Server, credentials: &Current) -> Mailer {
    let login = Login { username: username.into(), proof: Proof::Credential("c".into()) };
    let smtp = Smtp { login: Some(login), mails_per_connection: 1, ..server.settings() };
    Mailer::with_credentials(&settings(RelayKind::Smtp(smtp)), credentials.clone()).unwrap()
}

async fn send(mailer: &Mailer) -> Result<(), String> {
    mailer.send(email(), "id", &mut None).await.map(drop).map_err(|error| temporary(error).0)
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let welcome = Script::new(&["AUTH XOAUTH2"], &[]);
    let refusal = Script::new(&["AUTH XOAUTH2"], &[("AUTH", Say("535 5.7.8 expired"))]);
    let server = Server::start([welcome.clone(), refusal.clone(), welcome, refusal]).await;
    let mailer = logging_in(&server, &current(OAUTH2, &["one", "two"]));
    send(&mailer).await.unwrap();
    pass(61);
    send(&mailer).await.unwrap();
    let auth: Vec<_> = server.lines().into_iter().filter(|line| line.contains("AUTH")).collect();
    let expected = [ONE, ONE, TWO].map(|token| format!("AUTH XOAUTH2 {token}"));
    assert_eq!(auth.iter().map(|line| &line[4..]).collect::<Vec<_>>(), expected);

    // Another one would be refused too.
    let reason = send(&mailer).await.unwrap_err();
    assert!(reason.contains("AUTH: XOAUTH2: 535 5.7.8 expired; the credential \"c\" was refused"), "{reason}");
    assert_eq!(server.count("AUTH"), 4);
    pass(61);
    let reason = send(&mailer).await.unwrap_err();
    assert!(reason.contains("AUTH: the credential \"c\" has no token now"), "{reason}");
    assert!(!reason.contains("geheim") && !reason.contains(TWO), "{reason}");
}

#[tokio::test]
async fn each_connection_logs_in_with_the_current_credential() {
    let server = Server::start([Script::new(&["AUTH PLAIN XOAUTH2"], &[])]).await;
    let basic = "[credentials.c]\nkind = 'basic'\nurls = []\nusername = 'user'\npassword = { env = 'SECRET' }\n";
    let credentials = current(basic, &[]);
    let mailer = logging_in(&server, &credentials);
    send(&mailer).await.unwrap();
    let bearer = "[credentials.c]\nkind = 'bearer'\nurls = []\ntoken = { env = 'SECRET' }\n";
    credentials.store(Arc::new(credentials.load().with(&definitions(bearer))));
    send(&mailer).await.unwrap();
    assert_eq!((server.count("AUTH PLAIN AHVzZXIAZ2VoZWlt"), server.count("AUTH XOAUTH2 ")), (1, 1));

    credentials.store(Arc::new(credentials.load().with(&BTreeMap::new())));
    let reason = send(&mailer).await.unwrap_err();
    assert!(reason.contains("AUTH: there is no credential \"c\" in [credentials]"), "{reason}");
    let hmac = "[credentials.c]\nkind = 'hmac'\nkey = { env = 'SECRET' }\n";
    credentials.store(Arc::new(credentials.load().with(&definitions(hmac))));
    let reason = send(&mailer).await.unwrap_err();
    assert!(reason.contains("the credential \"c\" (hmac) cannot log in to a mail server"), "{reason}");
}

#[tokio::test]
async fn nothing_logs_in_without_a_user_name() {
    let server = Server::start([Script::new(&["AUTH PLAIN XOAUTH2"], &[])]).await;
    let bearer = "[credentials.c]\nkind = 'bearer'\nurls = []\ntoken = { env = 'SECRET' }\n";
    let reason = send(&logging_in_as("", &server, &current(bearer, &[]))).await.unwrap_err();
    let expected = "AUTH: the credential \"c\" has no user name, and the relay has no `username` either";
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(server.count("AUTH"), 0);
}

#[tokio::test]
async fn a_static_token_that_is_refused_is_not_tried_again() {
    let server = Server::start([Script::new(&["AUTH XOAUTH2"], &[("AUTH", Say("535 5.7.8 geheim?"))])]).await;
    let bearer = "[credentials.c]\nkind = 'bearer'\nurls = []\ntoken = { env = 'SECRET' }\n";
    let reason = send(&logging_in(&server, &current(bearer, &[]))).await.unwrap_err();
    assert!(reason.contains("535 5.7.8 [secret]?; the credential \"c\" was refused"), "{reason}");
    assert_eq!(server.count("AUTH"), 1);
}
