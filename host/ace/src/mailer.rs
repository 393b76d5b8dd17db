//! The relays behind the `mailer` import. Mails are checked, built, and sent to a mail server, written to a folder, or discarded.
//!
//! `address` checks mailboxes, `mime` builds mails, `dkim` signs them, `return_path` signs envelope
//! senders, `smtp` pools connections, and `session` sends mails over one of them. Below
//! `session` are `stream` and `tls`; `reply` parses replies; `features` and `login` are the steps before the first mail; `failure`
//! describes failures. `folder` writes files. Only the code of a reply counts: 4xx and connection errors are retried, 5xx are not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lettre::transport::smtp::extension::ClientId;
use uuid::Uuid;

use crate::config::{self, RelayKind, Tls};
use crate::credentials::Current;
use crate::message::{MailRecord, RecipientState};
use ace_address::mailbox::{Address, Mailbox, Quoted};
use ace_store::files::Access;

mod dkim;
mod failure;
mod features;
mod folder;
mod login;
mod mime;
mod recipients;
mod reply;
mod return_path;
mod secret;
mod session;
mod smtp;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use failure::{FailureDetail, Progress, Refusal, Stage};

use dkim::Signer;
use folder::Folder;
use mime::Mailboxes;
use recipients::Attempt;
use return_path::{PathKeys, ReturnPath};
use session::{Acceptance, Envelope, Target};
use smtp::Pool;

/// Building a longer mail takes milliseconds and runs on a blocking thread, and so does signing: 1 ms with RSA.
const INLINE_BUILD_BYTES_MAX: usize = 256 * 1024;

/// One mail from a channel. It is not trusted: invalid values are rejected and never corrected.
#[derive(Debug, Clone, Default)]
pub struct Email {
    /// `Name <address>` or an address. `Name <>` stands for the relay's default address with that name, `None` for the relay's
    /// default sender.
    pub sender: Option<String>,
    /// To.
    pub recipients: Vec<String>,
    /// Cc.
    pub cc: Vec<String>,
    /// Bcc: only in the envelope.
    pub bcc: Vec<String>,
    /// Reply-To.
    pub reply_to: Vec<String>,
    /// The subject, one line.
    pub subject: String,
    /// The plain text. If it is empty and `html` is set, the mail has no plain part.
    pub text: String,
    /// The HTML part.
    pub html: Option<String>,
    /// Additional headers. Those that the host writes are not allowed.
    pub headers: Vec<(String, String)>,
    /// In the order of the mail.
    pub attachments: Vec<Attachment>,
    /// A configured relay; `None` for the default one.
    pub relay: Option<String>,
    /// The envelope sender; `<>` is the null sender. `None` stands for the relay's setting, otherwise the sender's address.
    pub return_path: Option<String>,
    /// The message that it belongs to, which a signed return path names.
    pub message: Option<Uuid>,
}

#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// The visible name; may be empty.
    pub file_name: String,
    /// `image/png`, `text/csv; charset=utf-8`.
    pub content_type: String,
    pub content: Vec<u8>,
    /// The id by which the HTML part shows it as `cid:…`.
    pub content_id: Option<String>,
}

/// A mail that the relay accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The server's reply, in one line.
    pub answer: String,
    /// The mail's Message-ID, with its angle brackets.
    pub message_id: String,
    /// Recipients that the server refused while it accepted others.
    pub refused: Vec<Refusal>,
}

/// Why a mail was not accepted, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// A field is invalid; the text names it. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// A 4xx reply, or a failure of the connection, the login or the disk.
    #[error("{message}")]
    Temporary {
        message: String,
        /// The time that the relay suggests. No current kind of relay does.
        next_attempt_time: Option<Timestamp>,
        /// The whole mail was sent, but no reply says whether it was accepted. Another attempt may duplicate it.
        maybe_sent: bool,
        detail: FailureDetail,
    },
    /// A 5xx reply: the server will never accept this mail.
    #[error("{message}")]
    Permanent { message: String, detail: FailureDetail },
}

/// The result of a mail without remaining recipients. `None` if there may be some.
pub(crate) fn final_result(record: &MailRecord) -> Option<Result<Accepted, MailError>> {
    let is_final = record.main().is_some() && !record.has(RecipientState::Deferred);
    (is_final || record.recipients.is_empty()).then(|| recipients::result(record))
}

impl MailError {
    /// An error without a reply of a server.
    pub fn temporary(message: String) -> MailError {
        let detail = FailureDetail::default();
        MailError::Temporary { message, next_attempt_time: None, maybe_sent: false, detail }
    }

    /// A mail that was not sent because it could not be signed. That concerns all mail of the relay.
    fn unsigned(relay: &str, problem: &str) -> MailError {
        let message = format!("relay {relay}: {}: {problem}", Stage::Signing);
        let detail = FailureDetail { stage: Some(Stage::Signing), ..FailureDetail::default() };
        MailError::Temporary { message, next_attempt_time: None, maybe_sent: false, detail }
    }
}

/// An error in the settings.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages describe them")]
#[non_exhaustive]
pub enum MailerError {
    #[error("mailer.{setting}: {problem}")]
    Setting { setting: &'static str, problem: String },
    #[error("mailer relay {relay}: {problem}")]
    Relay { relay: String, problem: String },
    #[error("mailer relay {relay}: folder {}: {source}", dir.display())]
    Folder { relay: String, dir: PathBuf, source: std::io::Error },
}

/// All configured relays. Calls run concurrently.
pub struct Mailer {
    default_relay: Option<String>,
    default_from: Option<Mailbox>,
    relays: BTreeMap<String, Relay>,
}

struct Relay {
    from: Option<Mailbox>,
    return_path: Option<ReturnPath>,
    signer: Option<Arc<Signer>>,
    transport: Transport,
}

enum Transport {
    Smtp(Box<Pool>),
    File(Folder),
    Discard,
}

impl Mailer {
    /// A mailer whose relays log in with none of `[credentials]`. As [`Mailer::with_credentials`].
    ///
    /// # Errors
    /// As [`Mailer::with_credentials`].
    pub fn new(settings: &config::Mailer) -> Result<Mailer, MailerError> {
        Mailer::build(settings, None)
    }

    /// Checks the settings, reads CA files and creates folders. Makes no connection. Blocks on the disk. Each new connection of a relay
    /// with a credential logs in with the one that is current then.
    ///
    /// # Errors
    /// If a setting is invalid, a CA file cannot be read, or a folder cannot be created.
    pub fn with_credentials(settings: &config::Mailer, credentials: Current) -> Result<Mailer, MailerError> {
        Mailer::build(settings, Some(&credentials))
    }

    fn build(settings: &config::Mailer, credentials: Option<&Current>) -> Result<Mailer, MailerError> {
        let default_from = match &settings.default_from {
            Some(text) => Some(
                Mailbox::parse(text).map_err(|problem| MailerError::Setting { setting: "default_from", problem })?,
            ),
            None => None,
        };
        let mut relays = BTreeMap::new();
        let keys = Arc::new(PathKeys::new(&settings.return_path_keys));
        for (name, relay) in &settings.relays {
            relays.insert(name.clone(), Relay::new(name, relay, settings.access, &keys, credentials)?);
        }
        if let Some(name) = &settings.default_relay
            && !relays.contains_key(name)
        {
            let problem = format!("unknown relay {name:?}; {}", known(&relays));
            return Err(MailerError::Setting { setting: "default_relay", problem });
        }
        let only = relays.keys().next().filter(|_| relays.len() == 1).cloned();
        Ok(Mailer { default_relay: settings.default_relay.clone().or(only), default_from, relays })
    }

    /// Checks and builds a mail and sends it to its relay, once.
    ///
    /// `message_id` is the left part of the Message-ID and must be the same for all attempts of a message over a channel. `record`
    /// is the state of this mail after earlier attempts: recipients that the relay accepted or permanently refused are omitted
    /// from the envelope, and the content is the same. The call updates it, and sets it only if the relay accepted the mail for
    /// at least one recipient. Dropping the call closes its connection.
    ///
    /// # Errors
    /// Distinguishes what can be done about the error, and has the stage at which the server failed.
    pub async fn send(
        &self,
        mail: Email,
        message_id: &str,
        record: &mut Option<MailRecord>,
    ) -> Result<Accepted, MailError> {
        self.send_watched(mail, message_id, record, Arc::default()).await
    }

    /// Like [`Mailer::send`]. `progress` has the stage that the call reached, even after it was dropped.
    pub async fn send_watched(
        &self,
        mail: Email,
        message_id: &str,
        record: &mut Option<MailRecord>,
        progress: Arc<Progress>,
    ) -> Result<Accepted, MailError> {
        let (name, relay) = self.relay(mail.relay.as_deref()).map_err(MailError::Invalid)?;
        let draft = self.draft(relay, mail, message_id).map_err(MailError::Invalid)?;
        let date = record.as_ref().map_or_else(|| Timestamp::now().as_second(), |known| known.date);
        let recipients = draft.recipients(record.as_ref());
        if let Some(known) = record.as_ref().filter(|_| recipients.is_empty()) {
            return recipients::result(known);
        }
        let Built { safe_id, message_id: full_id, envelope } =
            draft.build_off_thread_if_slow(name, recipients, date).await?;
        let outcome = match &relay.transport {
            Transport::Smtp(pool) => pool.send(&envelope, &progress).await,
            Transport::File(folder) => {
                progress.reach(Stage::Content);
                let file = folder.write(&safe_id, envelope.content).await;
                let failed = |e| MailError::temporary(format!("relay {name}: {safe_id}.eml: {e}"));
                file.map(|file| Acceptance::by_all(format!("written to {file}"))).map_err(failed)
            }
            Transport::Discard => Ok(Acceptance::by_all("discarded".to_owned())),
        };
        let attempt = Attempt { key: message_id, message_id: full_id, date, recipients: envelope.recipients };
        match outcome {
            Ok(acceptance) => Ok(attempt.accepted(record, acceptance)),
            Err(error) => attempt.failed(record, error),
        }
    }

    /// The name of the relay for a mail that requests `wanted`; `None` if it is not configured.
    pub fn relay_name(&self, wanted: Option<&str>) -> Option<&str> {
        self.relay(wanted).ok().map(|(name, _)| name)
    }

    /// The message that an address names: one to which a bounce was sent, and which is the signed return path of a relay. `None` if no
    /// key of `mailer.return-path-key` signed it. Blocks.
    pub fn returned_message(&self, address: &str) -> Option<Uuid> {
        self.relays.values().find_map(|relay| match &relay.return_path {
            Some(ReturnPath::Signed(path)) => path.message(address),
            _ => None,
        })
    }

    /// Stops sending over SMTP and closes idle connections with QUIT.
    pub async fn close(&self) {
        for relay in self.relays.values() {
            if let Transport::Smtp(pool) = &relay.transport {
                pool.close().await;
            }
        }
    }

    fn relay(&self, wanted: Option<&str>) -> Result<(&str, &Relay), String> {
        let Some(name) = wanted.or(self.default_relay.as_deref()) else {
            return Err(format!("relay: the mail has none and there is no default_relay; {}", known(&self.relays)));
        };
        match self.relays.get_key_value(name) {
            Some((name, relay)) => Ok((name, relay)),
            None => Err(format!("relay: unknown relay {}; {}", Quoted(name), known(&self.relays))),
        }
    }

    /// Determines the sender and the recipients.
    fn draft(&self, relay: &Relay, mail: Email, message_id: &str) -> Result<Draft, String> {
        let default = relay.from.as_ref().or(self.default_from.as_ref());
        let sender = match (&mail.sender, default) {
            (Some(text), default) => Mailbox::parse_sender(text, default).map_err(|e| format!("sender: {e}"))?,
            (None, Some(default)) => default.clone(),
            (None, None) => return Err("sender: the mail has none and there is no default_from".into()),
        };
        let return_path = match (&mail.return_path, &relay.return_path) {
            (Some(text), _) => ReturnPath::parse(text).map_err(|e| format!("return_path: {e}"))?,
            (None, Some(configured)) => configured.clone(),
            (None, None) => ReturnPath::Address(sender.address.clone()),
        };
        let mailboxes = Mailboxes::new(&mail, sender)?;
        let is_framed = matches!(relay.transport, Transport::Smtp(_));
        let signer = relay.signer.clone();
        Ok(Draft { safe_id: mime::safe_message_id(message_id), mail, mailboxes, return_path, signer, is_framed })
    }
}

/// A mail with checked addresses.
struct Draft {
    safe_id: String,
    mail: Email,
    mailboxes: Mailboxes,
    return_path: ReturnPath,
    signer: Option<Arc<Signer>>,
    is_framed: bool,
}

struct Built {
    safe_id: String,
    message_id: String,
    envelope: Envelope,
}

impl Draft {
    /// All recipients of the envelope that are not settled in the record.
    fn recipients(&self, record: Option<&MailRecord>) -> Vec<Address> {
        let envelope = self.mailboxes.envelope().into_iter();
        envelope.filter(|to| record.is_none_or(|known| !known.is_settled(to.as_str()))).cloned().collect()
    }

    /// `relay` is the relay's name, for errors.
    async fn build_off_thread_if_slow(
        self,
        relay: &str,
        recipients: Vec<Address>,
        date: i64,
    ) -> Result<Built, MailError> {
        let attachments: usize = self.mail.attachments.iter().map(|a| a.content.len()).sum();
        let html = self.mail.html.as_ref().map_or(0, String::len);
        let is_signed = self.signer.is_some() || self.return_path.is_signed();
        if !is_signed && self.mail.text.len() + html + attachments <= INLINE_BUILD_BYTES_MAX {
            return self.build(relay, recipients, date);
        }
        let relay = relay.to_owned();
        let task = tokio::task::spawn_blocking(move || self.build(&relay, recipients, date));
        task.await.unwrap_or_else(|e| Err(MailError::Invalid(format!("cannot build the mail: {e}"))))
    }

    fn build(self, relay: &str, recipients: Vec<Address>, date: i64) -> Result<Built, MailError> {
        let message_id = format!("{}@{}", self.safe_id, self.mailboxes.sender.address.domain());
        let mail = mime::build(&self.mail, &self.mailboxes, &message_id, date).map_err(MailError::Invalid)?;
        let mail = match &self.signer {
            Some(signer) => signer.sign(&mail).map_err(|problem| MailError::unsigned(relay, &problem))?,
            None => mail,
        };
        let size = mail.len();
        let content = if self.is_framed { smtp::framed(mail) } else { mail };
        let from = self.return_path.of(self.mail.message).map_err(|problem| MailError::unsigned(relay, &problem))?;
        let envelope = Envelope { from, recipients, content, size };
        Ok(Built { safe_id: self.safe_id, message_id: format!("<{message_id}>"), envelope })
    }
}

impl Relay {
    fn new(
        name: &str,
        settings: &config::Relay,
        access: Access,
        keys: &Arc<PathKeys>,
        credentials: Option<&Current>,
    ) -> Result<Relay, MailerError> {
        let invalid = |problem: String| MailerError::Relay { relay: name.to_owned(), problem };
        let from = settings.from.as_deref().map(Mailbox::parse).transpose();
        let return_path = settings.return_path.as_deref().map(|text| ReturnPath::configured(text, keys)).transpose();
        let mut signer = None;
        let transport = match &settings.kind {
            RelayKind::Smtp(smtp) => {
                signer = Signer::new(&smtp.dkim).map(Arc::new);
                let target = target(smtp, credentials).map_err(invalid)?;
                Transport::Smtp(Box::new(Pool::new(name, target, smtp)))
            }
            RelayKind::File { dir } => {
                let folder = Folder::new(dir, access).map_err(|source| MailerError::Folder {
                    relay: name.to_owned(),
                    dir: dir.clone(),
                    source,
                })?;
                Transport::File(folder)
            }
            RelayKind::Discard => Transport::Discard,
        };
        Ok(Relay {
            from: from.map_err(|e| invalid(format!("from: {e}")))?,
            return_path: return_path.map_err(|e| invalid(format!("return_path: {e}")))?,
            signer,
            transport,
        })
    }
}

/// Checks the settings of a mail server.
fn target(smtp: &config::Smtp, credentials: Option<&Current>) -> Result<Target, String> {
    if smtp.host.is_empty() {
        return Err("host is empty".into());
    }
    let zeros = [
        ("connections", smtp.connections == 0),
        ("mails_per_connection", smtp.mails_per_connection == 0),
        ("timeout", smtp.timeout == Duration::ZERO),
    ];
    if let Some((setting, _)) = zeros.iter().find(|(_, is_zero)| *is_zero) {
        return Err(format!("{setting} must be at least 1"));
    }
    if smtp.login.is_some() && smtp.tls == Tls::None && !is_loopback(&smtp.host) {
        return Err("the login would be sent unencrypted; set tls to \"starttls\" or \"implicit\"".into());
    }
    Ok(Target {
        host: smtp.host.clone(),
        port: smtp.port,
        security: tls::security(smtp)?,
        login: smtp.login.clone(),
        credentials: credentials.cloned(),
        hello: hello(smtp.hello_name.as_deref())?,
        timeout: smtp.timeout,
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The name for EHLO: a domain name or an address literal (RFC 5321, section 4.1.1.1).
fn hello(name: Option<&str>) -> Result<String, String> {
    let is_domain = |text: &str| Address::parse(&format!("x@{text}")).is_ok_and(|address| address.domain() == text);
    match name {
        Some(name) if is_domain(name) => Ok(name.to_owned()),
        Some(name) => Err(format!("hello_name {} is not a domain name", Quoted(name))),
        None => {
            let host = ClientId::default().to_string();
            Ok(if is_domain(&host) { host } else { "[127.0.0.1]".to_owned() })
        }
    }
}

fn known(relays: &BTreeMap<String, Relay>) -> String {
    if relays.is_empty() {
        return "no relay is configured".into();
    }
    format!("configured: {}", relays.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}
