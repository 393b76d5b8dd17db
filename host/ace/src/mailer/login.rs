//! AUTH (RFC 4954): PLAIN, LOGIN and XOAUTH2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::{Failure, Kind, Stage};
use super::reply::{Reply, clipped};
use super::session::Session;
use crate::config::{Login, Proof, Secret};
use crate::credentials::{Current, Judgement};

/// The longest command (RFC 5321, section 4.5.3.1.4). A longer initial response is sent on request (RFC 4954, section 4).
const COMMAND_BYTES_MAX: usize = 512;
/// "Unrecognized authentication type": the server does not support what it offers.
const UNKNOWN_MECHANISM: u16 = 504;
/// "Authentication credentials invalid" (RFC 4954, section 6).
const INVALID_CREDENTIALS: u16 = 535;
/// Those of passwords and of access tokens.
const FOR_PASSWORDS: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];
const FOR_TOKENS: &[Mechanism] = &[Mechanism::Xoauth2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Login,
    Xoauth2,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::Xoauth2 => "XOAUTH2",
        }
    }
}

impl Session {
    /// Logs in with a mechanism that the server offers. Failures never contain the password or the token, even if the server
    /// repeats it.
    pub(super) async fn log_in(&mut self, login: &Login, credentials: Option<&Current>) -> Result<(), Failure> {
        let (source, mechanisms) = match &login.proof {
            Proof::Password(source) => (source, FOR_PASSWORDS),
            Proof::Token(source) => (source, FOR_TOKENS),
            Proof::Credential(name) => return self.log_in_with_credential(name, &login.username, credentials).await,
        };
        let secret = source.read().await.map_err(|error| Failure::temporary(Stage::Login, error.to_string()))?;
        self.log_in_as(&login.username, &secret, mechanisms).await
    }

    /// Logs in with one of `[credentials]`.
    async fn log_in_with_credential(
        &mut self,
        name: &str,
        username: &str,
        credentials: Option<&Current>,
    ) -> Result<(), Failure> {
        let failed = |why: String| Failure::temporary(Stage::Login, why);
        let credentials = credentials.ok_or_else(|| failed(format!("the credential {name:?} cannot be used here")))?;
        let credentials = credentials.load_full();
        let login = credentials.login(name).await.map_err(|refusal| failed(refusal.to_string()))?;
        let username = login.username.as_deref().unwrap_or(username);
        if username.is_empty() {
            let why = format!("the credential {name:?} has no user name, and the relay has no `username` either");
            return Err(failed(why));
        }
        let mechanisms = if login.is_token { FOR_TOKENS } else { FOR_PASSWORDS };
        let logged_in = self.log_in_as(username, &login.secret, mechanisms).await;
        logged_in.map_err(|failure| match failure.detail.code {
            Some(INVALID_CREDENTIALS) => match credentials.login_refused(&login) {
                Judgement::Stale => failure.with_kind(Kind::StaleToken),
                Judgement::Rejected(why) => failure.map_message(|reply| format!("{reply}; {why}")),
                Judgement::Fine => failure,
            },
            _ => failure,
        })
    }

    async fn log_in_as(&mut self, username: &str, secret: &Secret, mechanisms: &[Mechanism]) -> Result<(), Failure> {
        let mut failure = self.no_mechanism(mechanisms);
        for mechanism in mechanisms {
            if !self.features().offers_mechanism(mechanism.name()) {
                continue;
            }
            let authenticated = self.authenticate(*mechanism, username, secret.expose()).await;
            let is_unknown = match authenticated {
                Ok(reply) if reply.is_positive() => return Ok(()),
                Ok(reply) => {
                    failure = Failure::reply(Stage::Login, &reply)
                        .map_message(|answer| format!("{}: {answer}", mechanism.name()));
                    reply.code == UNKNOWN_MECHANISM
                }
                Err(other) => {
                    failure = other;
                    false
                }
            };
            failure = failure.map_message(|text| redacted(text, username, secret.expose()));
            if !is_unknown {
                break;
            }
        }
        Err(failure)
    }

    async fn authenticate(&mut self, mechanism: Mechanism, name: &str, secret: &str) -> Result<Reply, Failure> {
        match mechanism {
            Mechanism::Plain => self.authenticate_with_response(mechanism, &plain(name, secret)).await,
            Mechanism::Login => {
                let mut reply = self.command(Stage::Login, "AUTH LOGIN\r\n").await?;
                // The order of the challenges is fixed, their text is not.
                for response in [STANDARD.encode(name), STANDARD.encode(secret)] {
                    if reply.is_intermediate() {
                        reply = self.command(Stage::Login, &format!("{response}\r\n")).await?;
                    }
                }
                Ok(reply)
            }
            Mechanism::Xoauth2 => {
                let reply = self.authenticate_with_response(mechanism, &xoauth2(name, secret)).await?;
                if !reply.is_intermediate() {
                    return Ok(reply);
                }
                // A refusal in two steps: a challenge with the reason, which requires an empty response.
                let reason = reply.lines().next().map(decoded).unwrap_or_default();
                Ok(self.command(Stage::Login, "\r\n").await?.with_text(&reason))
            }
        }
    }

    /// Authenticates with a mechanism that has one response.
    async fn authenticate_with_response(&mut self, mechanism: Mechanism, response: &str) -> Result<Reply, Failure> {
        let name = mechanism.name();
        let command = format!("AUTH {name} {response}\r\n");
        let fits = command.len() <= COMMAND_BYTES_MAX;
        let reply = if fits {
            self.command(Stage::Login, &command).await?
        } else {
            self.command(Stage::Login, &format!("AUTH {name}\r\n")).await?
        };
        // Some servers ignore an initial response. In XOAUTH2, a challenge after it is a refusal.
        if reply.is_intermediate() && !(fits && mechanism == Mechanism::Xoauth2) {
            return self.command(Stage::Login, &format!("{response}\r\n")).await;
        }
        Ok(reply)
    }

    fn no_mechanism(&self, wanted: &[Mechanism]) -> Failure {
        let offered = if self.features().mechanisms.is_empty() {
            "no AUTH".to_owned()
        } else {
            clipped(&format!("AUTH {}", self.features().mechanisms.join(" ")))
        };
        let wanted: Vec<String> = wanted.iter().map(|mechanism| format!("AUTH {}", mechanism.name())).collect();
        let wanted = wanted.join(" or ");
        Failure::temporary(
            Stage::Login,
            format!("a login is configured and requires {wanted}; the server offers {offered}"),
        )
    }
}

/// The response of PLAIN (RFC 4616).
fn plain(name: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{name}\0{password}"))
}

/// The response of XOAUTH2, as Google and Microsoft define it.
fn xoauth2(name: &str, token: &str) -> String {
    STANDARD.encode(format!("user={name}\x01auth=Bearer {token}\x01\x01"))
}

fn decoded(challenge: &str) -> String {
    let bytes = STANDARD.decode(challenge).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text without the secret in any form in which it was sent.
fn redacted(text: String, name: &str, secret: &str) -> String {
    let forms = [plain(name, secret), xoauth2(name, secret), STANDARD.encode(secret), secret.to_owned()];
    forms.iter().fold(text, |text, form| text.replace(form.as_str(), "[secret]"))
}
