//! AUTH (RFC 4954): PLAIN, LOGIN and XOAUTH2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::{Failure, Stage};
use super::reply::{Reply, clipped};
use super::session::Session;
use crate::config::{Login, Proof};

/// RFC 5321, section 4.5.3.1.4. A longer initial response is sent when the server asks for it (RFC 4954, section 4).
const COMMAND_BYTES_MAX: usize = 512;
/// "Unrecognized authentication type": the server has not what it offers.
const NO_SUCH_MECHANISM: u16 = 504;

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
    /// Logs in with a mechanism that the server offers. No failure shows the password or the token, even where the server
    /// repeats it.
    pub(super) async fn log_in(&mut self, login: &Login) -> Result<(), Failure> {
        let (source, mechanisms) = match &login.proof {
            Proof::Password(source) => (source, &[Mechanism::Plain, Mechanism::Login][..]),
            Proof::Token(source) => (source, &[Mechanism::Xoauth2][..]),
        };
        let secret = source.read().await.map_err(|error| Failure::temporary(Stage::Login, error.to_string()))?;
        let mut refused = self.no_mechanism(mechanisms);
        for mechanism in mechanisms {
            if !self.features().offers_mechanism(mechanism.name()) {
                continue;
            }
            let authenticated = self.authenticate(*mechanism, &login.username, secret.expose()).await;
            let is_unknown = match authenticated {
                Ok(reply) if reply.is_positive() => return Ok(()),
                Ok(reply) => {
                    refused = Failure::reply(Stage::Login, &reply)
                        .map_message(|answer| format!("{}: {answer}", mechanism.name()));
                    reply.code == NO_SUCH_MECHANISM
                }
                Err(failure) => {
                    refused = failure;
                    false
                }
            };
            refused = refused.map_message(|text| without(text, &login.username, secret.expose()));
            if !is_unknown {
                break;
            }
        }
        Err(refused)
    }

    async fn authenticate(&mut self, mechanism: Mechanism, name: &str, secret: &str) -> Result<Reply, Failure> {
        match mechanism {
            Mechanism::Plain => self.authenticate_at_once(mechanism, &plain(name, secret)).await,
            Mechanism::Login => {
                let mut reply = self.ask(Stage::Login, "AUTH LOGIN\r\n").await?;
                // The order is fixed; the wording of the challenges is not.
                for response in [STANDARD.encode(name), STANDARD.encode(secret)] {
                    if reply.is_intermediate() {
                        reply = self.ask(Stage::Login, &format!("{response}\r\n")).await?;
                    }
                }
                Ok(reply)
            }
            Mechanism::Xoauth2 => {
                let reply = self.authenticate_at_once(mechanism, &xoauth2(name, secret)).await?;
                if !reply.is_intermediate() {
                    return Ok(reply);
                }
                // A refusal in two steps: a challenge with the reason, which wants an empty response.
                let reason = reply.lines().next().map(decoded).unwrap_or_default();
                Ok(self.ask(Stage::Login, "\r\n").await?.with_text(&reason))
            }
        }
    }

    /// A mechanism of one response.
    async fn authenticate_at_once(&mut self, mechanism: Mechanism, response: &str) -> Result<Reply, Failure> {
        let name = mechanism.name();
        let command = format!("AUTH {name} {response}\r\n");
        let fits = command.len() <= COMMAND_BYTES_MAX;
        let reply = if fits {
            self.ask(Stage::Login, &command).await?
        } else {
            self.ask(Stage::Login, &format!("AUTH {name}\r\n")).await?
        };
        // Some servers overlook an initial response; with XOAUTH2 a challenge after it is a refusal.
        if reply.is_intermediate() && !(fits && mechanism == Mechanism::Xoauth2) {
            return self.ask(Stage::Login, &format!("{response}\r\n")).await;
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
            format!("a login is configured and needs {wanted}; the server offers {offered}"),
        )
    }
}

/// RFC 4616.
fn plain(name: &str, password: &str) -> String {
    STANDARD.encode(format!("\0{name}\0{password}"))
}

/// As Google and Microsoft define it.
fn xoauth2(name: &str, token: &str) -> String {
    STANDARD.encode(format!("user={name}\x01auth=Bearer {token}\x01\x01"))
}

fn decoded(challenge: &str) -> String {
    let bytes = STANDARD.decode(challenge).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text without the secret, in any form in which it was sent.
fn without(text: String, name: &str, secret: &str) -> String {
    let forms = [plain(name, secret), xoauth2(name, secret), STANDARD.encode(secret), secret.to_owned()];
    forms.iter().fold(text, |text, form| text.replace(form.as_str(), "[secret]"))
}
