//! The relays behind the `mailer` import: checked, built, and handed to a mail server, a folder or nobody.
//!
//! `address` checks mailboxes, `mime` builds the bytes, `smtp` keeps the connections and `session` speaks over one of
//! them: `wire` and `tls` lie under it, `reply` reads what the server says, `features` and `login` are the steps before the
//! first mail, `failure` says where it failed. `folder` writes files. An answer is judged by its code alone: 4xx and
//! everything about the connection may be tried again, 5xx may not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lettre::transport::smtp::extension::ClientId;

use crate::config::{self, RelayKind, Tls};
use crate::message::{MailRecord, RecipientState};
use ace_store::files::Access;

mod address;
mod failure;
mod features;
mod folder;
mod login;
mod mime;
mod recipients;
mod reply;
mod session;
mod smtp;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

pub(crate) use failure::{FailureDetail, Progress, Refusal, Stage};

use address::{Address, Mailbox, Shown};
use folder::Folder;
use mime::Mailboxes;
use recipients::Attempt;
use session::{Parcel, Taken, Target};
use smtp::Pool;

/// Building a longer mail takes milliseconds and is done beside the async threads.
const INLINE_BUILD_BYTES_MAX: usize = 256 * 1024;

/// One mail, as a channel hands it over. Nothing in it is trusted: what cannot be is refused, never mended.
#[derive(Debug, Clone, Default)]
pub struct Email {
    /// `Name <address>` or a bare address; `Name <>`: the relay's default address under that name. `None`: the relay's
    /// default sender.
    pub sender: Option<String>,
    /// To.
    pub recipients: Vec<String>,
    /// Carbon copies.
    pub cc: Vec<String>,
    /// In the envelope only.
    pub bcc: Vec<String>,
    /// Where answers go.
    pub reply_to: Vec<String>,
    /// One line.
    pub subject: String,
    /// Empty beside `html`: the mail has no plain part.
    pub text: String,
    /// The HTML part.
    pub html: Option<String>,
    /// Added to those of the host, which may not be among them.
    pub headers: Vec<(String, String)>,
    /// In their order.
    pub attachments: Vec<Attachment>,
    /// A configured relay. `None`: the default one.
    pub relay: Option<String>,
    /// The envelope's sender; `<>` for none. `None`: the relay's setting, else the sender's address.
    pub return_path: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// Shown to the reader; may be empty.
    pub file_name: String,
    /// `image/png`, `text/csv; charset=utf-8`.
    pub content_type: String,
    pub content: Vec<u8>,
    /// With an html part: shown in it as `cid:…`.
    pub content_id: Option<String>,
}

/// What the relay took over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The server's answer, in one line.
    pub answer: String,
    /// The mail's Message-ID, with its angle brackets.
    pub message_id: String,
    /// Recipients the server refused; not empty only where it took others.
    pub refused: Vec<Refusal>,
}

/// Why a mail was not taken over, by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// A field that cannot be; the text names it. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// 4xx, or something about the connection, the log-in, or the disk.
    #[error("{message}")]
    Temporary {
        message: String,
        /// The relay's own wish; none of today's kinds has one.
        next_attempt_time: Option<Timestamp>,
        /// The whole mail was sent and no answer came that tells whether it was taken: another attempt may bring it twice.
        maybe_sent: bool,
        detail: FailureDetail,
    },
    /// 5xx: the server will never take this mail.
    #[error("{message}")]
    Permanent { message: String, detail: FailureDetail },
}

/// What a mail came to of which nothing is left to send; `None` where something is, or may be.
pub(crate) fn answered(record: &MailRecord) -> Option<Result<Accepted, MailError>> {
    let is_over = record.main().is_some() && !record.has(RecipientState::Deferred);
    (is_over || record.recipients.is_empty()).then(|| recipients::answer(record))
}

impl MailError {
    /// One that no server answered with.
    pub fn temporary(message: String) -> MailError {
        let detail = FailureDetail::default();
        MailError::Temporary { message, next_attempt_time: None, maybe_sent: false, detail }
    }
}

/// Settings that no mail could be sent with.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
#[non_exhaustive]
pub enum MailerError {
    #[error("mailer.{setting}: {problem}")]
    Setting { setting: &'static str, problem: String },
    #[error("mailer relay {relay}: {problem}")]
    Relay { relay: String, problem: String },
    #[error("mailer relay {relay}: folder {}: {source}", dir.display())]
    Folder { relay: String, dir: PathBuf, source: std::io::Error },
}

/// Every configured relay. Cheap to share behind an `Arc`; its calls run side by side.
pub struct Mailer {
    default_relay: Option<String>,
    default_from: Option<Mailbox>,
    relays: BTreeMap<String, Relay>,
}

struct Relay {
    from: Option<Mailbox>,
    return_path: Option<ReturnPath>,
    way: Way,
}

enum Way {
    Smtp(Box<Pool>),
    File(Folder),
    Discard,
}

/// `None` inside: the null sender (RFC 5321, section 4.5.5), which no bounce answers.
#[derive(Debug, Clone)]
struct ReturnPath(Option<Address>);

impl Mailer {
    /// Checks the settings, reads the CA files and makes the folders; connects to nothing. Blocks on the disk.
    pub fn new(settings: &config::Mailer) -> Result<Mailer, MailerError> {
        let default_from = match &settings.default_from {
            Some(text) => Some(
                Mailbox::parse(text).map_err(|problem| MailerError::Setting { setting: "default_from", problem })?,
            ),
            None => None,
        };
        let mut relays = BTreeMap::new();
        for (name, relay) in &settings.relays {
            relays.insert(name.clone(), Relay::new(name, relay, settings.access)?);
        }
        if let Some(name) = &settings.default_relay
            && !relays.contains_key(name)
        {
            let problem = format!("there is no relay {name:?}; {}", known(&relays));
            return Err(MailerError::Setting { setting: "default_relay", problem });
        }
        let only = relays.keys().next().filter(|_| relays.len() == 1).cloned();
        Ok(Mailer { default_relay: settings.default_relay.clone().or(only), default_from, relays })
    }

    /// Checks and builds a mail and hands it to its relay, once.
    ///
    /// `message_id` is the left part of the Message-ID and must stay the same for one message over one channel. `record` is
    /// what is known of this mail from earlier attempts: whom the relay accepted it for, or refused for good, is left out of
    /// the envelope, and the bytes are the same. It is brought up to date, and is there afterwards only where the relay
    /// accepted the mail for somebody. Dropping the call closes its connection.
    ///
    /// # Errors
    /// Says what can be done about it, and where a server was asked, at which stage it failed.
    pub async fn send(
        &self,
        mail: Email,
        message_id: &str,
        record: &mut Option<MailRecord>,
    ) -> Result<Accepted, MailError> {
        self.send_watched(mail, message_id, record, Arc::default()).await
    }

    /// As [`Mailer::send`]; `progress` says how far it has come, also after the call was dropped.
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
            return recipients::answer(known);
        }
        let Built { safe_id, message_id: full_id, parcel } = draft.build_off_thread_if_long(recipients, date).await?;
        let outcome = match &relay.way {
            Way::Smtp(pool) => pool.send(&parcel, &progress).await,
            Way::File(folder) => {
                progress.reach(Stage::Content);
                let written = folder.write(&safe_id, parcel.content).await;
                let failed = |e| MailError::temporary(format!("relay {name}: {safe_id}.eml: {e}"));
                written.map(|file| Taken::by_all(format!("written to {file}"))).map_err(failed)
            }
            Way::Discard => Ok(Taken::by_all("discarded".to_owned())),
        };
        let attempt = Attempt { key: message_id, message_id: full_id, date, recipients: parcel.recipients };
        match outcome {
            Ok(taken) => Ok(attempt.accepted(record, taken)),
            Err(error) => attempt.failed(record, error),
        }
    }

    /// The configured relay that a mail naming this one goes to; `None` where there is none.
    pub fn relay_name(&self, wanted: Option<&str>) -> Option<&str> {
        self.relay(wanted).ok().map(|(name, _)| name)
    }

    /// Takes no further mail over SMTP and says goodbye on every idle connection.
    pub async fn close(&self) {
        for relay in self.relays.values() {
            if let Way::Smtp(pool) = &relay.way {
                pool.close().await;
            }
        }
    }

    fn relay(&self, wanted: Option<&str>) -> Result<(&str, &Relay), String> {
        let Some(name) = wanted.or(self.default_relay.as_deref()) else {
            return Err(format!("relay: the mail names none and there is no default_relay; {}", known(&self.relays)));
        };
        match self.relays.get_key_value(name) {
            Some((name, relay)) => Ok((name, relay)),
            None => Err(format!("relay: there is no relay {}; {}", Shown(name), known(&self.relays))),
        }
    }

    /// Settles who the mail is from and to.
    fn draft(&self, relay: &Relay, mail: Email, message_id: &str) -> Result<Draft, String> {
        let default = relay.from.as_ref().or(self.default_from.as_ref());
        let sender = match (&mail.sender, default) {
            (Some(text), default) => Mailbox::parse_sender(text, default).map_err(|e| format!("sender: {e}"))?,
            (None, Some(default)) => default.clone(),
            (None, None) => return Err("sender: the mail has none, and no default_from is configured".into()),
        };
        let return_path = match (&mail.return_path, &relay.return_path) {
            (Some(text), _) => ReturnPath::parse(text).map_err(|e| format!("return_path: {e}"))?,
            (None, Some(configured)) => configured.clone(),
            (None, None) => ReturnPath(Some(sender.address.clone())),
        };
        let mailboxes = Mailboxes::new(&mail, sender)?;
        let is_framed = matches!(relay.way, Way::Smtp(_));
        Ok(Draft { safe_id: mime::safe_message_id(message_id), mail, mailboxes, return_path, is_framed })
    }
}

/// A mail whose addresses are settled.
struct Draft {
    safe_id: String,
    mail: Email,
    mailboxes: Mailboxes,
    return_path: ReturnPath,
    is_framed: bool,
}

struct Built {
    safe_id: String,
    message_id: String,
    parcel: Parcel,
}

impl Draft {
    /// Everybody in the envelope, or those that the record leaves.
    fn recipients(&self, record: Option<&MailRecord>) -> Vec<Address> {
        let envelope = self.mailboxes.envelope().into_iter();
        envelope.filter(|to| record.is_none_or(|known| !known.is_settled(to.as_str()))).cloned().collect()
    }

    async fn build_off_thread_if_long(self, recipients: Vec<Address>, date: i64) -> Result<Built, MailError> {
        let attachments: usize = self.mail.attachments.iter().map(|a| a.content.len()).sum();
        let html = self.mail.html.as_ref().map_or(0, String::len);
        let built = if self.mail.text.len() + html + attachments <= INLINE_BUILD_BYTES_MAX {
            self.build(recipients, date)
        } else {
            let task = tokio::task::spawn_blocking(move || self.build(recipients, date));
            task.await.unwrap_or_else(|e| Err(format!("the mail cannot be built: {e}")))
        };
        built.map_err(MailError::Invalid)
    }

    fn build(self, recipients: Vec<Address>, date: i64) -> Result<Built, String> {
        let message_id = format!("{}@{}", self.safe_id, self.mailboxes.sender.address.domain());
        let mail = mime::build(&self.mail, &self.mailboxes, &message_id, date)?;
        let size = mail.len();
        let content = if self.is_framed { smtp::framed(mail) } else { mail };
        let parcel = Parcel { from: self.return_path.0, recipients, content, size };
        Ok(Built { safe_id: self.safe_id, message_id: format!("<{message_id}>"), parcel })
    }
}

impl Relay {
    fn new(name: &str, settings: &config::Relay, access: Access) -> Result<Relay, MailerError> {
        let refused = |problem: String| MailerError::Relay { relay: name.to_owned(), problem };
        let from = settings.from.as_deref().map(Mailbox::parse).transpose();
        let return_path = settings.return_path.as_deref().map(ReturnPath::parse).transpose();
        let way = match &settings.kind {
            RelayKind::Smtp(smtp) => {
                let target = target(smtp).map_err(refused)?;
                Way::Smtp(Box::new(Pool::new(name, target, smtp)))
            }
            RelayKind::File { dir } => {
                let folder = Folder::new(dir, access).map_err(|source| MailerError::Folder {
                    relay: name.to_owned(),
                    dir: dir.clone(),
                    source,
                })?;
                Way::File(folder)
            }
            RelayKind::Discard => Way::Discard,
        };
        Ok(Relay {
            from: from.map_err(|e| refused(format!("from: {e}")))?,
            return_path: return_path.map_err(|e| refused(format!("return_path: {e}")))?,
            way,
        })
    }
}

impl ReturnPath {
    fn parse(text: &str) -> Result<ReturnPath, String> {
        match text.trim() {
            "<>" => Ok(ReturnPath(None)),
            address => Mailbox::parse(address).map(|mailbox| ReturnPath(Some(mailbox.address))),
        }
    }
}

/// Checks what the settings of a mail server say together.
fn target(smtp: &config::Smtp) -> Result<Target, String> {
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
        return Err("the login would cross the network in plain text; set tls to \"starttls\" or \"implicit\"".into());
    }
    Ok(Target {
        host: smtp.host.clone(),
        port: smtp.port,
        security: tls::security(smtp)?,
        login: smtp.login.clone(),
        hello: hello(smtp.hello_name.as_deref())?,
        timeout: smtp.timeout,
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// RFC 5321, section 4.1.1.1: a domain name or an address literal.
fn hello(name: Option<&str>) -> Result<String, String> {
    let is_domain = |text: &str| Address::parse(&format!("x@{text}")).is_ok_and(|address| address.domain() == text);
    match name {
        Some(name) if is_domain(name) => Ok(name.to_owned()),
        Some(name) => Err(format!("hello_name {} is no domain name", Shown(name))),
        None => {
            let own = ClientId::default().to_string();
            Ok(if is_domain(&own) { own } else { "[127.0.0.1]".to_owned() })
        }
    }
}

fn known(relays: &BTreeMap<String, Relay>) -> String {
    if relays.is_empty() {
        return "no relay is configured".into();
    }
    format!("configured: {}", relays.keys().map(String::as_str).collect::<Vec<_>>().join(", "))
}
