//! Failures of mail servers: the stage, the code of the reply, and the consequence.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use super::reply::{Reply, clipped};

/// The stages of an SMTP session, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Signing the mail, before the server is contacted.
    Signing,
    /// Resolving the host name and connecting.
    Connect,
    /// The TLS handshake, immediately or after STARTTLS.
    Tls,
    /// The server's first line.
    Greeting,
    /// EHLO or HELO.
    Hello,
    Starttls,
    /// AUTH.
    Login,
    /// MAIL.
    Sender,
    /// RCPT.
    Recipient,
    /// DATA, before the content.
    Data,
    /// Sending the content.
    Content,
    /// Waiting for the reply to the final dot.
    FinalDot,
}

impl Stage {
    /// Whether the stage is RCPT or later. An earlier failure is about the server or the settings of the relay, not about the
    /// recipients.
    pub fn has_named_recipients(self) -> bool {
        self >= Stage::Recipient
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Signing => "signing the mail",
            Stage::Connect => "connecting",
            Stage::Tls => "the TLS handshake",
            Stage::Greeting => "the greeting",
            Stage::Hello => "EHLO",
            Stage::Starttls => "STARTTLS",
            Stage::Login => "AUTH",
            Stage::Sender => "MAIL",
            Stage::Recipient => "RCPT",
            Stage::Data => "DATA",
            Stage::Content => "sending the mail",
            Stage::FinalDot => "the end of the mail",
        })
    }
}

/// The stage that sending a mail has reached, readable after the call was dropped. No stage while it waits for a connection.
#[derive(Debug, Default)]
pub struct Progress(AtomicU8);

impl Progress {
    pub(super) fn reach(&self, stage: Stage) {
        self.0.store(stage as u8 + 1, Ordering::Relaxed);
    }

    fn stage(&self) -> Option<u8> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Whether a connection was being made. Nothing of the mail was sent yet.
    pub fn is_connecting(&self) -> bool {
        self.stage().is_some_and(|stage| stage < Stage::Sender as u8)
    }

    /// Whether the content was being sent. The mail may have been accepted.
    pub fn is_handing_over(&self) -> bool {
        self.stage().is_some_and(|stage| stage >= Stage::Content as u8)
    }
}

/// A recipient that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub address: String,
    /// The server's reply, in one line.
    pub answer: String,
    /// Whether the reply is 5xx: do not retry.
    pub is_permanent: bool,
}

/// The details of a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureDetail {
    /// `None` if no server was contacted.
    pub stage: Option<Stage>,
    /// The code of the server's reply, if there was one.
    pub code: Option<u16>,
    /// All recipients with the server's replies, if it refused all of them.
    pub refused: Vec<Refusal>,
}

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The server will never accept this mail.
    Permanent,
    Temporary,
    /// The server refused an access token, and another one can be had: connect again.
    StaleToken,
    /// The whole mail was sent, but no reply says whether it was accepted.
    MaybeSent,
    /// The connection ended before the mail was sent, or the server sent something invalid. On a connection that was idle, this
    /// says nothing about the server, which may have closed it meanwhile.
    Unusable,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    pub(super) detail: FailureDetail,
    /// The text without the stage.
    message: String,
}

impl Failure {
    pub(super) fn new(stage: Stage, kind: Kind, message: impl Into<String>) -> Failure {
        let detail = FailureDetail { stage: Some(stage), ..FailureDetail::default() };
        Failure { kind, detail, message: message.into() }
    }

    pub(super) fn temporary(stage: Stage, message: impl Into<String>) -> Failure {
        Failure::new(stage, Kind::Temporary, message)
    }

    /// A failure before a server was contacted.
    pub(super) fn local(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, detail: FailureDetail::default(), message: message.into() }
    }

    /// A failure by a reply. Only its code counts. Before MAIL, a refusal is never permanent, because it is not about this mail.
    pub(super) fn reply(stage: Stage, reply: &Reply) -> Failure {
        let kind = if stage >= Stage::Sender && reply.is_permanent() {
            Kind::Permanent
        } else if reply.is_refusal() && reply.code != 421 {
            Kind::Temporary
        } else {
            Kind::Unusable
        };
        let mut failure = Failure::new(stage, kind, reply.to_string());
        failure.detail.code = Some(reply.code);
        failure
    }

    /// All recipients were refused. The failure is permanent only if each refusal is.
    pub(super) fn recipients(refused: Vec<Refusal>, code: Option<u16>) -> Failure {
        let is_permanent = refused.iter().all(|refusal| refusal.is_permanent);
        let kind = if is_permanent { Kind::Permanent } else { Kind::Temporary };
        let all: Vec<String> = refused.iter().map(|r| format!("{}: {}", r.address, r.answer)).collect();
        let mut failure = Failure::new(Stage::Recipient, kind, clipped(&all.join("; ")));
        (failure.detail.code, failure.detail.refused) = (code, refused);
        failure
    }

    pub(super) fn with_kind(self, kind: Kind) -> Failure {
        Failure { kind, ..self }
    }

    /// Changes the text.
    pub(super) fn map_message(mut self, change: impl FnOnce(String) -> String) -> Failure {
        self.message = change(self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail.stage {
            Some(stage) => write!(f, "{stage}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
